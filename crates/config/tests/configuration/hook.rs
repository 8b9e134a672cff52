//! Programs that are run when a tunnel goes up or down.

use std::time::Duration;

use super::{OFFICE, mistakes, parse};

#[test]
fn a_hook_is_a_program_with_its_arguments() {
    let hook = |lines: &str| {
        let config = parse(&format!("{OFFICE}{lines}\n")).unwrap();
        config.hook_of("office").cloned()
    };
    assert_eq!(hook(""), None);
    let expected = cygnet_config::Hook {
        program: "/usr/local/lib/cygnet/updown".to_owned(),
        arguments: Vec::new(),
        timeout: Duration::from_secs(10),
        user: None,
    };
    assert_eq!(
        hook("hook = \"/usr/local/lib/cygnet/updown\""),
        Some(expected.clone())
    );
    let all = "hook = [\"/usr/local/lib/cygnet/updown\", \"iptables\"]\nhook_timeout = \"90s\"\nhook_user = \"nobody\"";
    let given = cygnet_config::Hook {
        arguments: vec!["iptables".to_owned()],
        timeout: Duration::from_secs(90),
        user: Some("nobody".to_owned()),
        ..expected.clone()
    };
    assert_eq!(hook(all), Some(given));
    let server = "[server]\npsk = \"k\"\npools = [\"10.99.0.0/24\"]\nhook = \"/usr/local/lib/cygnet/updown\"\n";
    let config = parse(server).unwrap();
    assert_eq!(config.hook_of("server"), Some(&expected));
    assert_eq!(config.hook_of("office"), None);
}

#[test]
fn a_hook_that_cannot_be_one_is_told() {
    for (lines, expected) in [
        ("hook = \"updown\"", "expected a path from the root"),
        ("hook = \"updown iptables\"", "items of a list"),
        ("hook = []", "empty list"),
        ("hook_timeout = \"5s\"", "there is no `hook`"),
        ("hook_user = \"nobody\"", "there is no `hook`"),
        (
            "hook = \"/x\"\nhook_timeout = \"1h\"",
            "ten minutes at most",
        ),
        ("hook = [\"/x\", \"a\\u0000b\"]", "NUL"),
    ] {
        let text = format!("{OFFICE}{lines}\n");
        let told = mistakes(&text).join("\n");
        assert!(told.contains(expected), "{lines}: {told}");
    }
}
