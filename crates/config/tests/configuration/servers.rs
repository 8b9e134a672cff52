//! Several servers in the place of one.

use super::{mistakes, parse};

/// Servers of the first tunnel, each with who must answer there, then who may answer anywhere.
fn servers(lines: &str) -> (Vec<String>, String) {
    let config = parse(&format!("[tunnel.a]\npsk = \"k\"\n{lines}\n")).unwrap();
    let connection = &config.policy.connections[0];
    let servers = connection.remote.servers();
    let each = (0..).zip(servers).map(|(place, server)| {
        let identity = connection.identity_of(place);
        format!("{} is {identity}", server.host)
    });
    (each.collect(), connection.remote_identity.to_string())
}

#[test]
fn each_of_several_servers_is_who_it_is_called_unless_it_is_said_otherwise() {
    let (each, anywhere) = servers("remote = [\"vpn1.example\", \"203.0.113.11\"]");
    assert_eq!(
        each,
        [
            "vpn1.example is vpn1.example",
            "203.0.113.11 is 203.0.113.11"
        ]
    );
    assert!(anywhere.contains("vpn1.example"), "{anywhere}");
    assert!(anywhere.contains("203.0.113.11"), "{anywhere}");
    let (each, anywhere) = servers(
        "remote = [\"203.0.113.10\", { address = \"203.0.113.11\", identity = \"b.example\" }]\n\
         remote_identity = \"a.example\"",
    );
    assert_eq!(
        each,
        ["203.0.113.10 is a.example", "203.0.113.11 is b.example"]
    );
    assert!(anywhere.contains("b.example"), "{anywhere}");
    let (each, anywhere) =
        servers("remote = [\"vpn1.example\", \"vpn2.example\"]\nremote_identity = \"vpn.example\"");
    assert_eq!(
        each,
        ["vpn1.example is vpn.example", "vpn2.example is vpn.example"]
    );
    assert_eq!(anywhere, "vpn.example");
    let (each, _) = servers(
        "remote = { address = \"vpn1.example\", identity = [\"a.example\", \"b.example\"] }",
    );
    assert_eq!(each.len(), 1);
}

#[test]
fn a_list_of_servers_that_cannot_be_is_told_where_it_is_wrong() {
    for (remote, told) in [
        (
            "[\"a.example\", \"any\"]",
            "whoever waits for its peer calls nobody",
        ),
        (
            "[\"a.example\", \"b.example\", \"a.example\"]",
            "`a.example` stands in the list twice",
        ),
        ("[]", "expected 1 to 16"),
        ("[[\"a.example\"]]", "expected a server"),
        ("[{ identity = \"b\" }]", "lacks `address`"),
        ("[{ address = \"b\", psk = \"c\" }]", "psk"),
        ("[\"a.example\", 5]", "expected a server"),
        ("[\"203.0.113.300\"]", "neither a host name nor an address"),
    ] {
        let seen = mistakes(&format!("[tunnel.a]\nremote = {remote}\npsk = \"k\"\n"));
        assert_eq!(seen.len(), 1, "{remote}: {seen:?}");
        assert!(seen[0].contains(told), "{remote}: {seen:?}");
        assert!(
            seen[0].contains("cygnet.toml:2") || seen[0].contains(":2:"),
            "{seen:?}"
        );
    }
}
