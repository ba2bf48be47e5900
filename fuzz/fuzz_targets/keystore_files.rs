#![no_main]

cmkfs_fuzz::fuzz!(cmkfs_fuzz::targets::keystore::files, 4 << 20);
