#![no_main]

cmkfs_fuzz::fuzz!(cmkfs_fuzz::targets::keystore::journal, 4 << 20);
