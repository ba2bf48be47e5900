#![no_main]

cmkfs_fuzz::fuzz!(cmkfs_fuzz::targets::sealed::sealed);
