#![no_main]

cmkfs_fuzz::fuzz!(cmkfs_fuzz::targets::hostile::volume, 64 << 20);
