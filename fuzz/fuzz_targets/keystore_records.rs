#![no_main]

cmkfs_fuzz::fuzz!(cmkfs_fuzz::targets::keystore::records, 4 << 20);
