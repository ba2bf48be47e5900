//! What can be told of a volume, in use or not: bindings under their plaintext paths, as far as keys may be used.

mod support;

use std::path::PathBuf;

use cmkfs::format::header::KeyBinding;
use cmkfs::fs::ROOT_NODE;
use cmkfs::kms::error::KmsError;
use cmkfs::kms::key::KeyRef;
use cmkfs::volume::info::{Info, Refusal};
use support::{DEFAULT_ALIAS, TestVolume, mkdir, write};

const ALIAS: &str = "alias/secret";

fn info(volume: &TestVolume) -> Info {
    Info::of(&volume.cipher(), &volume.keys, &mut |_| {}).unwrap()
}

fn bindings(info: &Info) -> Vec<(Option<PathBuf>, String)> {
    let binding = |bound: &cmkfs::volume::info::Bound| match &bound.binding {
        Ok(binding) => binding.to_string(),
        Err(Refusal::Key(KmsError::DisabledException { key })) => format!("disabled {key}"),
        Err(other) => other.to_string(),
    };
    let shown = |bound| (bound_path(bound), binding(bound));
    info.bindings.iter().map(shown).collect()
}

fn bound_path(bound: &cmkfs::volume::info::Bound) -> Option<PathBuf> {
    bound.path.clone()
}

fn at(path: &str, binding: &str) -> (Option<PathBuf>, String) {
    (Some(path.into()), binding.to_owned())
}

#[test]
fn bindings_are_shown_where_they_begin_and_under_plaintext_paths() {
    let volume = TestVolume::new();
    let key = volume.new_key(ALIAS);
    let fs = volume.open();
    let long = "long".repeat(60);
    let outer = mkdir(&fs, ROOT_NODE, "outer");
    let folder = mkdir(&fs, outer, &long);
    fs.bind(folder, &KeyBinding::Alias(ALIAS.to_owned()))
        .unwrap();
    let below = mkdir(&fs, folder, "below");
    write(&fs, below, "file", 10);
    let back = mkdir(&fs, below, "back");
    fs.bind(back, &KeyBinding::Key(key)).unwrap();

    let root = at("/", DEFAULT_ALIAS);
    let first = at(&format!("/outer/{long}"), ALIAS);
    let second = at(&format!("/outer/{long}/below/back"), &key.to_string());
    let whole = info(&volume);
    assert_eq!(bindings(&whole), [root.clone(), first.clone(), second]);
    assert!(whole.unauthenticated.is_none());
    assert_eq!(whole.census, volume.census());

    volume.keys.disable_key(&KeyRef::Id(key)).unwrap();
    let refused = at(&format!("/outer/{long}"), &format!("disabled {key}"));
    let closed = info(&volume);
    assert_eq!(bindings(&closed), [root, refused], "told of once");
    assert_eq!(closed.census, whole.census);
}

#[test]
fn a_living_directory_below_a_refused_one_is_shown_without_its_path() {
    let volume = TestVolume::new();
    let (key, other) = (volume.new_key(ALIAS), volume.new_key("alias/other"));
    let fs = volume.open();
    let folder = mkdir(&fs, ROOT_NODE, "folder");
    fs.bind(folder, &KeyBinding::Key(key)).unwrap();
    let below = mkdir(&fs, folder, "below");
    fs.bind(below, &KeyBinding::Key(other)).unwrap();
    volume.keys.disable_key(&KeyRef::Id(key)).unwrap();
    let info = info(&volume);
    assert_eq!(bindings(&info)[2], (None, other.to_string()));
    assert_eq!(info.bindings[2].backing_path, fs.backing_path(below));
}

#[test]
fn of_another_key_stores_volume_the_census_is_all_that_can_be_told() {
    let (volume, other) = (TestVolume::new(), TestVolume::new());
    {
        let fs = volume.open();
        mkdir(&fs, ROOT_NODE, "folder");
    }
    let info = Info::of(&volume.cipher(), &other.keys, &mut |_| {}).unwrap();
    assert!(info.unauthenticated.is_some());
    assert_eq!(info.census, volume.census());
    assert_eq!(info.bindings.len(), 1);
    assert!(matches!(info.bindings[0].binding, Err(Refusal::OtherStore)));
}
