//! The committed corpora, without a fuzzer: `cargo test --no-default-features`.

use std::path::{Path, PathBuf};

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_input_of_every_corpus_passes() {
    for (name, target) in cygnet_fuzz::TARGETS {
        let files = corpus(name);
        assert!(!files.is_empty(), "the corpus of {name} is empty");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "{name} fails on {}", file.display());
        }
    }
}

#[test]
fn generated_inputs_pass() {
    for (name, _, bytes) in cygnet_fuzz::seeds::all() {
        let target = cygnet_fuzz::TARGETS.iter().find(|(n, _)| *n == name);
        target.expect("a target of that name").1(&bytes);
    }
}
