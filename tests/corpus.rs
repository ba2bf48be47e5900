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
    for (name, target) in TARGETS {
        let inputs = fs::read_dir(corpus().join(name))
            .unwrap_or_else(|error| panic!("the corpus of {name}: {error}"));
        let mut count = 0;
        for input in inputs {
            let path = input.unwrap().path();
            // Shown where the target panics.
            println!("{}", path.display());
            target(&fs::read(path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{name} has no corpus");
    }
}

#[test]
fn every_target_has_its_program_and_its_corpus() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let listed = |folder: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name =
            |path: std::path::PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries.map(|entry| name(entry.unwrap().path())).collect()
    };
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    assert_eq!(listed(&programs), names);
    assert_eq!(listed(&corpus()), names);
}
