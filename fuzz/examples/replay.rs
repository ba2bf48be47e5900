//! Runs one target on inputs: `cargo run --example replay TARGET FILE…`, with `CMKFS_FUZZ_TELL=1` step by step.

use cmkfs_fuzz::targets::TARGETS;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().expect("a target");
    let (_, target) = TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a known target");
    for file in arguments {
        println!("{file}");
        target(&std::fs::read(file).expect("an input"));
    }
}
