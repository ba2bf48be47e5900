#![no_main]

cmkfs_fuzz::fuzz!(cmkfs_fuzz::targets::keystore::audit_log, 4 << 20);
