//! The page of instructions, read by Python's html.parser.

use cygnet_profile::Profile;
use serde_json::Value;

use crate::{sample, tools};

/// Heading, every tag with its attributes, and whether tags close in order.
const READER: &str = r#"
import html.parser, json, sys
class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.h1, self.nested = [], [], "", True
    def handle_starttag(self, tag, attributes):
        self.tags.append([tag, attributes])
        if tag not in ("meta", "br"):
            self.open.append(tag)
    def handle_startendtag(self, tag, attributes):
        self.tags.append([tag, attributes])
    def handle_endtag(self, tag):
        self.nested = self.nested and bool(self.open) and self.open.pop() == tag
    def handle_data(self, data):
        if self.open and self.open[-1] == "h1":
            self.h1 += data
reader = Reader()
reader.feed(sys.stdin.buffer.read().decode())
reader.close()
json.dump({"h1": reader.h1, "tags": reader.tags, "nested": reader.nested and not reader.open}, sys.stdout)
"#;

fn read(profile: &Profile) -> Option<(String, Value)> {
    let files = sample::files(profile);
    let page = sample::text(&files, "README.html");
    Some((page.to_owned(), tools::python(READER, page.as_bytes())?))
}

#[test]
fn it_loads_nothing_and_runs_nothing() {
    for profile in [sample::certificate(), sample::password()] {
        let Some((text, page)) = read(&profile) else {
            return;
        };
        assert_eq!(page["nested"], true, "{text}");
        assert_eq!(page["h1"], "Cygnet vpn.example.org");
        let mut images = 0;
        for tag in page["tags"].as_array().expect("tags") {
            let name = tag[0].as_str().expect("a name");
            assert!(
                !["script", "link", "img", "iframe", "object", "form"].contains(&name),
                "{name}"
            );
            images += usize::from(name == "svg");
            for attribute in tag[1].as_array().expect("attributes") {
                let attribute = attribute[0].as_str().expect("a name");
                assert!(
                    !attribute.starts_with("on") && attribute != "src",
                    "{attribute}"
                );
            }
        }
        let codes = if matches!(profile.login, cygnet_profile::Login::Password) {
            2
        } else {
            1
        };
        assert_eq!(images, codes, "QR codes");
        assert!(!text.contains(sample::P12_PASSWORD));
    }
}

#[test]
fn it_speaks_of_the_files_that_are_there() {
    let mut profile = sample::certificate();
    let names = |profile: &Profile| {
        let files = sample::files(profile);
        let page = sample::text(&files, "README.html").to_owned();
        let paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
        (page, paths)
    };
    let (page, paths) = names(&profile);
    for path in &paths {
        let name = path.rsplit('/').next().expect("a name");
        let folder = ["x509", "certs", "private", "cacerts"]
            .iter()
            .any(|folder| path.contains(folder));
        assert!(
            name == "README.html" || folder || page.contains(name),
            "{path}"
        );
    }
    // AES-CBC for RouterOS, combined modes for Apple and Windows: here each is missing something.
    profile.ike = vec!["chacha20poly1305-prfsha256-curve25519".to_owned()];
    let (page, paths) = names(&profile);
    for absent in [".rsc", ".ps1"] {
        assert!(!paths.iter().any(|path| path.ends_with(absent)), "{absent}");
        assert!(!page.contains(absent), "{absent}");
    }
    assert!(page.contains("Windows knows none of the algorithms"));
    assert!(page.contains("RouterOS knows none of the algorithms"));
}

#[test]
fn a_key_that_never_left_its_device_is_named_and_not_looked_for() {
    let page = |profile: &Profile| {
        let files = sample::files(profile);
        sample::text(&files, "README.html").to_owned()
    };
    let mut profile = sample::certificate();
    let ours = page(&profile);
    assert!(ours.contains("cp -R cacerts certs private /etc"));
    assert!(ours.contains("The import password"));
    if let cygnet_profile::Login::Certificate { key, .. } = &mut profile.login {
        *key = None;
    }
    let own = page(&profile);
    assert!(own.contains("cp -R cacerts certs /etc") && own.contains(".cygnet YOUR.key"));
    assert!(!own.to_lowercase().contains("import password"), "{own}");
    // Whoever has strongSwan already is warned before each of both steps.
    for page in [ours, own] {
        assert_eq!(page.matches("look first whether you have").count(), 2);
        assert!(page.contains("<pre>sudo cygnet gateway setup</pre>"));
    }
}
