//! Every input of the committed fuzz corpus, through the target it belongs to: what the fuzzer has found stays found, without
//! a fuzzer. `scripts/fuzz` looks for more.

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use targets::TARGETS;

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

#[test]
fn every_input_of_the_corpus_passes_its_target() {
    for targets::Target { name, run, .. } in &TARGETS {
        let inputs = fs::read_dir(corpus().join(name))
            .unwrap_or_else(|error| panic!("the corpus of {name}: {error}"));
        let mut count = 0;
        for input in inputs {
            let path = input.unwrap().path();
            // Shown where the target panics.
            println!("{}", path.display());
            run(&fs::read(path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{name} has no corpus");
    }
}

#[test]
fn every_folder_of_the_corpus_has_its_target() {
    let names: BTreeSet<String> = TARGETS
        .iter()
        .map(|target| target.name.to_owned())
        .collect();
    let folders = fs::read_dir(corpus()).unwrap();
    let folders = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(folders.collect::<BTreeSet<_>>(), names);
}
