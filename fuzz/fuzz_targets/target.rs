//! The fuzz program: one for all targets, of which `CMKFS_FUZZ_TARGET` names the one to run. Building one program takes a
//! minute; building one for each target would take most of an hour's quarter.
#![no_main]

use std::sync::OnceLock;

use cmkfs_fuzz::targets::{TARGETS, Target};

fn target() -> &'static Target {
    static CHOSEN: OnceLock<&Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("CMKFS_FUZZ_TARGET").unwrap_or_default();
        let known = TARGETS.iter().find(|target| target.name == name);
        known.unwrap_or_else(|| {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            eprintln!("CMKFS_FUZZ_TARGET has to be one of: {}", names.join(" "));
            std::process::exit(2)
        })
    })
}

libfuzzer_sys::fuzz_target!(init: { target(); }, |input: &[u8]| cmkfs_fuzz::run(target(), input));
