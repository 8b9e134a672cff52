//! What README and docs show as configurations are configurations.

use std::path::Path;

use cygnet_config::Config;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// README, and each page of the documentation.
fn pages() -> Vec<String> {
    let docs = std::fs::read_dir(Path::new(ROOT).join("docs")).expect("docs is there");
    let names = docs.map(|entry| entry.expect("read").file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    let pages = names.filter(|name| name.ends_with(".md"));
    let mut pages: Vec<String> = pages.map(|name| format!("docs/{name}")).collect();
    pages.push("README.md".to_owned());
    pages
}

/// The blocks of a file that are marked as TOML.
fn examples(file: &str) -> Vec<String> {
    let path = Path::new(ROOT).join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let blocks = text.split("```toml\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn every_example_is_a_good_configuration() {
    let mut seen = 0;
    for file in &pages() {
        for text in examples(file) {
            let parsed = Config::parse("cygnet.toml", &text, &mut |path| match path {
                "home.psk" => Ok(b"0123456789abcdef0123456789abcdef\n".to_vec()),
                "main.crt" | "ca.crt" => Ok(CERTIFICATE.as_bytes().to_vec()),
                "main.key" => Ok(KEY.as_bytes().to_vec()),
                other => Err(format!("cannot read {other}: nothing says what it is")),
            });
            let config = parsed.unwrap_or_else(|error| panic!("{file}: {error}\n{text}"));
            assert!(!config.policy.connections.is_empty(), "{file}:\n{text}");
            seen += 1;
        }
    }
    assert!(seen >= 12, "only {seen} examples were found");
}

/// Made for this test with `openssl req -x509 -newkey ed25519`; it opens nothing.
const CERTIFICATE: &str = include_str!("data/main.crt");
const KEY: &str = include_str!("data/main.key");
