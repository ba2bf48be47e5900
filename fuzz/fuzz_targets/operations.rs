#![no_main]

cmkfs_fuzz::fuzz!(cmkfs_fuzz::targets::operations::operations, 64 << 20);
