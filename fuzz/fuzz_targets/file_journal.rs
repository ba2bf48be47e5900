#![no_main]

cmkfs_fuzz::fuzz!(cmkfs_fuzz::targets::format::file_journal);
