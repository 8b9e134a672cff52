//! Who is asked for the date.

use cygnet_config::Daemon;

use super::{mistakes, parse};

fn asked(line: &str) -> Vec<String> {
    let config = parse(&format!("[daemon]\n{line}\n")).unwrap();
    config.daemon.time_servers
}

#[test]
fn some_are_asked_where_none_are_named_and_nobody_where_the_list_is_empty() {
    assert_eq!(asked(""), Daemon::TIME_SERVERS);
    assert_eq!(asked("time_servers = []"), [""; 0]);
    assert_eq!(
        asked("time_servers = [\"NTP.example\", \"192.0.2.1\"]"),
        ["ntp.example", "192.0.2.1"]
    );
    assert_eq!(asked("time_servers = \"2001:DB8::1\""), ["2001:db8::1"]);
}

#[test]
fn what_is_no_server_is_refused() {
    let nine: Vec<String> = (0..9).map(|n| format!("\"s{n}.example\"")).collect();
    for (list, told) in [
        ("\"a b\"".to_owned(), "neither a host name nor an address"),
        (
            "\"a.example\", \"A.example\"".to_owned(),
            "a.example is named twice",
        ),
        (nine.join(", "), "expected 8 at most"),
    ] {
        let seen = mistakes(&format!("[daemon]\ntime_servers = [{list}]\n"));
        assert_eq!(seen.len(), 1, "{seen:#?}");
        assert!(
            seen[0].contains(":2:") && seen[0].contains(told),
            "{seen:#?}"
        );
    }
}
