//! What README and docs show as configurations are configurations.

use std::path::Path;

use cygnet_config::Config;

/// The blocks of a file that are marked as TOML.
fn examples(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let blocks = text.split("```toml\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn every_example_is_a_good_configuration() {
    let mut seen = 0;
    for file in ["README.md", "docs/configuration.md"] {
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
    assert!(seen >= 5, "only {seen} examples were found");
}

/// Made for this test with `openssl req -x509 -newkey ed25519`; it opens nothing.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBajCCARygAwIBAgIUAVau22K4fu6Rr25G5FgsgLPVvoYwBQYDK2VwMBsxGTAX\n\
BgNVBAMMEG1haW4uZXhhbXBsZS5vcmcwIBcNMjYxMTI1MjAyNzAwWhgPMjEyNjEx\n\
MDEyMDI3MDBaMBsxGTAXBgNVBAMMEG1haW4uZXhhbXBsZS5vcmcwKjAFBgMrZXAD\n\
IQCAk0F62W60q3xHDD43h+9FW1S5pz7n1Wb3TniPNW7afaNwMG4wHQYDVR0OBBYE\n\
FGHNjA26ujFqrcRJBwwTVHTvQvjkMB8GA1UdIwQYMBaAFGHNjA26ujFqrcRJBwwT\n\
VHTvQvjkMA8GA1UdEwEB/wQFMAMBAf8wGwYDVR0RBBQwEoIQbWFpbi5leGFtcGxl\n\
Lm9yZzAFBgMrZXADQQCXmYVaOMoe5svcvDbJrtaBH+Yf9yD58CZZF8DkmQalIyt5\n\
w4yp5D5ZvVnqWKsHitGjnnIQo0PVGFQAxVodKUMO\n\
-----END CERTIFICATE-----\n\
";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MC4CAQAwBQYDK2VwBCIEIB5Z8CVjjNlWCcDd/TRsSKhDd2MEj6ZMMfgidIQh2OGK\n\
-----END PRIVATE KEY-----\n\
";
