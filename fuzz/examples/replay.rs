//! Runs one target on inputs: `cargo run --example replay TARGET FILE…`, with `CMKFS_FUZZ_TELL=1` step by step.

use cmkfs_fuzz::targets::TARGETS;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().expect("a target");
    let mut known = TARGETS.iter();
    let target = known
        .find(|target| target.name == name)
        .expect("a known target");
    for file in arguments {
        println!("{file}");
        (target.run)(&std::fs::read(file).expect("an input"));
    }
}
