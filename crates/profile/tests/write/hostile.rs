//! Whatever stands in the profile's texts stays a text, or is refused.

use cygnet_profile::write::{self, Error, File};
use cygnet_profile::{Login, Profile};
use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::{linux, powershell, sample, tools};

/// What has a meaning in one of the formats.
#[rustfmt::skip]
const SIGNS: &[&str] = &[
    "'", "''", "'", "\"", "\"\"", "`", "$(calc)", "${x}", "$x", ";", "&", "&amp;", "<", ">", "<script>", "]]>", "-->", "%",
    "%s", "\\", "\\\\", "\\n", "\\s", "{", "}", "[", "]", "(", ")", "#", "|", "=", "!", "@", "/", "../", "?", "*", " ", "  ", "a",
    "Z9",
];

/// What looks like it, or is of more than one octet.
#[rustfmt::skip]
const LETTERS: &[&str] = &[
    "é", "ß", "漢字", "🦢", "\u{2018}", "\u{2019}", "\u{201a}", "\u{201b}", "\u{201c}", "\u{201d}", "\u{201e}", "\u{ab}",
    "\u{bb}", "\u{a0}", "\u{feff}",
];

/// What no text of one line holds.
const BREAKS: &[&str] = &[
    "\n", "\r", "\0", "\t", "\u{1b}", "\u{7f}", "\u{85}", "\u{2028}", "\u{fffe}",
];

fn printable() -> impl Strategy<Value = String> {
    let all = [SIGNS, LETTERS].concat();
    let of = |pieces: Vec<&'static str>| prop::collection::vec(prop::sample::select(pieces), 1..8);
    prop_oneof![of(SIGNS.to_vec()), of(all)]
        .prop_map(|pieces| pieces.concat())
        .prop_filter("blank", |text| !text.trim().is_empty())
}

/// A `.p12` file's password has letters of the Basic Multilingual Plane alone (RFC 7292 appendix B.1).
fn password() -> impl Strategy<Value = String> {
    printable()
        .prop_map(|text| text.replace(|letter| letter > '\u{ffff}', ""))
        .prop_filter("blank", |text| !text.trim().is_empty())
}

fn broken() -> impl Strategy<Value = String> {
    (printable(), prop::sample::select(BREAKS), printable())
        .prop_map(|(before, odd, after)| format!("{before}{odd}{after}"))
}

fn files(profile: &Profile) -> Result<Vec<File>, TestCaseError> {
    write::files(profile).map_err(|error| TestCaseError::fail(error.to_string()))
}

/// What Python reads in each: the property list's name and SSIDs, the JSON's name, the page's heading.
const READER: &str = r#"
import html.parser, json, plistlib, sys
class Heading(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tag, self.text, self.tags = "", "", []
    def handle_starttag(self, tag, attributes):
        self.tag = tag
        self.tags.append(tag)
    def handle_data(self, data):
        if self.tag == "h1":
            self.text += data
    def handle_endtag(self, tag):
        self.tag = ""
files = json.load(sys.stdin)
root = plistlib.loads(files["mobileconfig"].encode())
vpn = root["PayloadContent"][0]
def heading(text):
    page = Heading()
    page.feed(text)
    page.close()
    return page
page = heading(files["page"])
json.dump({
    "titles": [root["PayloadDisplayName"], vpn["UserDefinedName"], json.loads(files["sswan"])["name"], page.text],
    "ssids": vpn["IKEv2"]["OnDemandRules"][0]["SSIDMatch"],
    "same": page.tags == heading(files["tame"]).tags,
}, sys.stdout)
"#;

fn check_readers(profile: &Profile, files: &[File], tame: &[File]) {
    let input = serde_json::json!({
        "mobileconfig": sample::text(files, "alice.phone.mobileconfig"),
        "sswan": sample::text(files, "alice.phone.sswan"),
        "page": sample::text(files, "README.html"),
        "tame": sample::text(tame, "README.html"),
    });
    let Some(read) = tools::python(READER, input.to_string().as_bytes()) else {
        return;
    };
    for title in read["titles"].as_array().expect("titles") {
        assert_eq!(title, &profile.title);
    }
    let ssids = &profile.on_demand.trusted_ssids;
    assert_eq!(read["ssids"], serde_json::json!(ssids));
    assert_eq!(read["same"], true, "the page has the same tags");
}

/// NetworkManager's own reader: the value comes back as it was written, so reading and writing agree on it, and it
/// is the title once GLib's escapes are undone.
fn check_key_file(profile: &Profile, text: &str) {
    let Some(values) = linux::read_key_file(text) else {
        return;
    };
    let id = &values[&("connection".to_owned(), "id".to_owned())];
    let mut title = String::new();
    let mut letters = id.chars();
    while let Some(letter) = letters.next() {
        title.push(match letter {
            '\\' => match letters.next().expect("an escape") {
                's' => ' ',
                '\\' => '\\',
                other => panic!("\\{other} in {id}"),
            },
            _ => letter,
        });
    }
    assert_eq!(title, profile.title);
}

/// The only line that is not as it is for any title, below the part that all comments have.
fn check_comment(text: &str, title: &str, tame: &str) {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(format!("# {title}").as_str()));
    let mut tame = tame.lines();
    tame.next();
    assert!(lines.eq(tame));
}

/// RouterOS: the title in its string, undone from hex digits, and all else as it is for any title.
fn check_routeros(text: &str, title: &str, tame: &str) {
    let prefix = ":local cygnetNote \"";
    let note = |text: &str| {
        let line = text.lines().find(|line| line.starts_with(prefix));
        line.expect("the note").to_owned()
    };
    let line = note(text);
    let quoted = line[prefix.len()..].strip_suffix('"').expect("it ends");
    let mut octets = Vec::new();
    let mut rest = quoted.bytes();
    while let Some(octet) = rest.next() {
        assert!(
            octet.is_ascii() && !b"\"$?;[]{}".contains(&octet),
            "{quoted}"
        );
        octets.push(match octet {
            b'\\' => {
                let hex = [rest.next(), rest.next()].map(|digit| digit.expect("two digits"));
                let hex = std::str::from_utf8(&hex).expect("ASCII");
                u8::from_str_radix(hex, 16).expect("hex digits")
            }
            _ => octet,
        });
    }
    assert_eq!(String::from_utf8(octets).expect("UTF-8"), title);
    assert_eq!(text.replace(&line, ""), tame.replace(&note(tame), ""));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_title_is_read_as_it_was_written(title in printable(), ssid in printable()) {
        let mut profile = sample::password();
        profile.on_demand.wifi = true;
        let mut end = ssid.len().min(32);
        while !ssid.is_char_boundary(end) {
            end -= 1;
        }
        let ssid = ssid[..end].to_owned();
        prop_assume!(!ssid.trim().is_empty());
        profile.on_demand.trusted_ssids = vec!["x".to_owned()];
        profile.title = "Tame".to_owned();
        let tame = files(&profile)?;
        profile.on_demand.trusted_ssids = vec![ssid];
        profile.title = title.clone();
        let files = files(&profile)?;
        check_readers(&profile, &files, &tame);
        check_key_file(&profile, sample::text(&files, "networkmanager/alice.phone.nmconnection"));
    }

}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_title_is_a_text_in_scripts(title in printable()) {
        let mut profile = sample::password();
        profile.title = "Tame".to_owned();
        let tame = files(&profile)?;
        profile.title = title.clone();
        let files = files(&profile)?;
        let of = |files: &[File], path: &str| sample::text(files, path).to_owned();
        let script = "windows/alice.phone.ps1";
        powershell::check(&of(&files, script), &title, &of(&tame, script));
        let swanctl = "swanctl/swanctl.conf";
        check_comment(&of(&files, swanctl), &title, &of(&tame, swanctl));
    }

    #[test]
    fn what_is_no_line_of_text_is_refused(text in broken()) {
        let refused = |change: &dyn Fn(&mut Profile)| {
            let mut profile = sample::password();
            change(&mut profile);
            let is_text = matches!(write::files(&profile), Err(Error::Text { .. }));
            prop_assert!(is_text);
            Ok(())
        };
        refused(&|profile| profile.title = text.clone())?;
        refused(&|profile| profile.on_demand.trusted_ssids = vec![text.clone()])?;
        refused(&|profile| profile.authority.common_name = text.clone())?;
    }

    #[test]
    fn names_that_programs_read_hold_no_signs(text in prop_oneof![printable(), broken()]) {
        let refused = |change: &dyn Fn(&mut Profile)| {
            let mut profile = sample::password();
            change(&mut profile);
            prop_assert!(write::files(&profile).is_err());
            Ok(())
        };
        // Between two letters, so that it is never a good name by accident.
        let text = format!("x {text} y");
        refused(&|profile| profile.remote = text.clone())?;
        refused(&|profile| profile.remote_identity = text.clone())?;
        refused(&|profile| profile.user = text.clone())?;
        refused(&|profile| profile.device = text.clone())?;
        refused(&|profile| profile.domains = vec![text.clone()])?;
        refused(&|profile| profile.ike = vec![text.clone()])?;
        refused(&|profile| profile.esp = vec![text.clone()])?;
    }
}

proptest! {
    // With keys and their `.p12` files, which are slow by intention.
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_a_certificate_as_well(title in printable(), password in password()) {
        let mut profile = sample::certificate();
        if let Login::Certificate { p12_password, .. } = &mut profile.login {
            *p12_password = Zeroizing::new(password.clone());
        }
        profile.title = "Tame".to_owned();
        let tame = files(&profile)?;
        profile.title = title.clone();
        let files = files(&profile)?;
        let of = |files: &[File], path: &str| sample::text(files, path).to_owned();
        let script = "routeros/alice.phone.rsc";
        check_routeros(&of(&files, script), &title, &of(&tame, script));
        let ipsec = "ipsec/ipsec.conf";
        check_comment(&of(&files, ipsec), &title, &of(&tame, ipsec));
        linux::check_ipsec(&of(&files, ipsec));
        linux::check_swanctl(&of(&files, "swanctl/swanctl.conf"));
        let open = ["pkcs12", "-passin", "env:P12", "-noenc"];
        let p12 = sample::bytes(&files, "alice.phone.p12");
        if let Some(said) = tools::run("openssl", &open, &[("P12", &password)], p12) {
            prop_assert!(said.success, "{password:?}: {}", said.stderr);
        }
    }
}
