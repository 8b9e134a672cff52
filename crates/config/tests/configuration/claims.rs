//! Two tunnels to one network.

use super::{mistakes, parse};

/// A tunnel between sites to these networks.
fn site(name: &str, networks: &str, more: &str) -> String {
    format!(
        "[tunnel.{name}]\nremote = \"{name}.example\"\npsk = \"k\"\nremote_networks = [{networks}]\n{more}"
    )
}

const NET: &str = "\"10.2.0.0/24\"";

#[test]
fn a_network_has_one_way() {
    let both = |first: &str, second: &str| site("a", first, "") + &site("b", second, "");
    let seen = mistakes(&both(NET, "\"10.3.0.0/24\", \"10.2.0.0/24\""));
    assert_eq!(
        seen,
        [
            "cygnet.toml:8:35: `10.2.0.0/24` is the other side of tunnel `a` already; take it out of one of the two; or, if `b` \
             is to carry what `a` carries while that is down, write standby_for = \"a\" in [tunnel.b]"
        ]
    );
    // Whatever the networks of this side: a route knows the other side's alone.
    let locals = site("a", NET, "local_networks = [\"10.1.0.0/24\"]\n")
        + &site("b", NET, "local_networks = [\"10.1.1.0/24\"]\n");
    assert_eq!(mistakes(&locals).len(), 1);
    let child = "[tunnel.b]\nremote = \"b\"\npsk = \"k\"\n[tunnel.b.child.x]\nremote_networks = [\"::/0\"]\n";
    let seen = mistakes(&(site("a", "\"::/0\"", "") + child));
    assert!(
        seen.len() == 1 && seen[0].starts_with("cygnet.toml:9:20: "),
        "{seen:?}"
    );
    let lent = site("b", NET, "virtual_address = true\n");
    assert_eq!(mistakes(&(site("a", NET, "") + &lent)).len(), 1);

    // The narrower one has its way within the other.
    parse(&both(NET, "\"10.0.0.0/8\", \"0.0.0.0/0\"")).unwrap();
    // Two children of one tunnel.
    let one = site("a", NET, "").replace("remote_networks", "[tunnel.a.child.x]\nremote_networks")
        + &format!(
            "[tunnel.a.child.y]\nlocal_networks = [\"10.1.0.0/24\"]\nremote_networks = [{NET}]\n"
        );
    parse(&one).unwrap();
    // By the lent address it is told which one is meant.
    let client = |name: &str| site(name, NET, "virtual_address = true\n");
    parse(&(client("a") + &client("b"))).unwrap();
    let everything = "[tunnel.b]\nremote = \"b\"\npsk = \"k\"\nvirtual_address = true\n";
    parse(&(site("a", "\"0.0.0.0/0\"", "") + everything)).unwrap();
}

#[test]
fn a_tunnel_may_stand_in_for_another() {
    let standby = |name: &str, of: &str| site(name, NET, &format!("standby_for = \"{of}\"\n"));
    let config = parse(&(standby("a", "z") + &standby("b", "z") + &site("z", NET, ""))).unwrap();
    assert_eq!(config.tunnels["a"].standby_for.as_deref(), Some("z"));
    assert_eq!(config.tunnels["z"].standby_for, None);
    for (text, told) in [
        (
            standby("a", "z") + &site("b", NET, ""),
            "5:15: there is no tunnel `z`; expected one of: b",
        ),
        (
            standby("a", "a"),
            "5:15: a tunnel cannot stand in for itself; take the key out: there is one tunnel",
        ),
        (
            standby("a", "b") + &standby("b", "c") + &site("c", NET, ""),
            "5:15: `b` itself stands in for another tunnel; name that one: standby_for = \"c\"",
        ),
    ] {
        let seen = mistakes(&text);
        assert!(
            seen.iter()
                .any(|line| line == &format!("cygnet.toml:{told}")),
            "{seen:#?}"
        );
    }
    // A third one that nothing is said of.
    let seen = mistakes(&(standby("a", "b") + &site("b", NET, "") + &site("c", NET, "")));
    assert_eq!(seen.len(), 2, "{seen:?}");
}
