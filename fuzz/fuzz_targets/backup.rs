#![no_main]

cmkfs_fuzz::fuzz!(cmkfs_fuzz::targets::keystore::backup, 4 << 20);
