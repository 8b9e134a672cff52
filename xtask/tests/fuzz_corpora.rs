//! What fuzzing has found worth keeping, once each, without a fuzzer.

use std::path::{Path, PathBuf};

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
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

/// The committed corpora reach every payload that a target can: only what can be read counts.
#[test]
fn corpora_reach_every_payload() {
    // SA, KE, IDi, IDr, CERT, CERTREQ, AUTH, nonce, notify, delete, vendor, TSi, TSr, CP, EAP.
    let inside: Vec<u8> = (33..=45).chain(47..=48).collect();
    let every: Vec<u8> = (33..=48).collect();
    let init = [33, 34, 38, 40, 41, 43];
    for (target, expected) in [
        ("wire_message", &every[..]),
        ("wire_chain", &inside),
        ("endpoint_init", &init),
        ("endpoint_auth", &inside),
        ("endpoint_established", &inside),
    ] {
        let mut reached = std::collections::BTreeSet::new();
        for file in corpus(target) {
            let bytes = std::fs::read(&file).unwrap();
            reached.extend(cygnet_fuzz::reach::payloads(target, &bytes));
        }
        let missing: Vec<_> = expected.iter().filter(|ty| !reached.contains(ty)).collect();
        assert!(missing.is_empty(), "{target} never reaches {missing:?}");
    }
}

#[test]
fn certificates_to_begin_with_are_valid() {
    assert!(cygnet_fuzz::chain_holds());
}

#[test]
fn every_setup_comes_up() {
    for setup in 0..16 {
        assert!(cygnet_fuzz::establishes(setup), "setup {setup}");
    }
}

#[test]
fn questions_to_begin_with_lead_to_the_end() {
    let header = 12;
    // Once as it was said, and once as it was kept; too many are not kept.
    for (named, let_out) in [
        ("address", &[1, 1][..]),
        ("ipv6", &[1, 1]),
        ("aliases", &[1, 1]),
        ("hints", &[2, 2]),
        ("many", &[32]),
        ("none", &[0, 0]),
        ("another", &[0, 0]),
        ("zone", &[0]),
        ("an_answer", &[]),
    ] {
        let told = cygnet_fuzz::dns_tells(named);
        let of: Vec<usize> = told.iter().map(|(_, let_out)| *let_out).collect();
        assert_eq!(of, let_out, "{named}");
        assert!(told.iter().all(|(sent, _)| *sent >= header), "{named}");
    }
}
