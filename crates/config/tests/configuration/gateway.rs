//! `[gateway]` and `[gateway.dns]`.

use super::{mistakes, parse};

#[test]
fn a_gateway_names_a_tunnel_that_exists() {
    let seen = mistakes("[gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n");
    assert!(seen[0].contains("there is no tunnel `home`"), "{seen:?}");
}

#[test]
fn a_gateway_goes_through_a_tunnel_that_reaches_more_than_its_peer() {
    let with = |keys: &str| {
        format!(
            "[gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n[tunnel.home]\nremote = \"b\"\npsk = \"k\"\n{keys}\n"
        )
    };
    for keys in ["", "virtual_address = false", "virtual_address = []"] {
        let seen = mistakes(&with(keys));
        assert_eq!(
            seen,
            [
                "cygnet.toml:2:10: tunnel `home` reaches only its peer, so devices of the LAN would have no \
                 internet through it; write virtual_address = true in [tunnel.home], or say with \
                 remote_networks what it reaches"
            ]
        );
    }
    for keys in [
        "virtual_address = true",
        "virtual_address = [\"10.99.0.7\"]",
        "remote_networks = [\"0.0.0.0/0\"]",
        "[tunnel.home.child.all]\nremote_networks = [\"0.0.0.0/0\"]",
    ] {
        assert!(parse(&with(keys)).is_ok(), "{keys}");
    }
}

const GATEWAY: &str = "[tunnel.home]\nremote = \"b\"\npsk = \"k\"\nvirtual_address = true\n\
                       [gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n";

#[test]
fn what_the_box_itself_may_send_is_what_it_needs_unless_all_is_said() {
    use cygnet_config::OwnTraffic;
    let own = |line: &str| {
        let config = parse(&format!("{GATEWAY}{line}")).unwrap();
        config.gateway.unwrap().own_traffic
    };
    assert_eq!(own(""), OwnTraffic::Needed);
    assert_eq!(own("own_traffic = \"needed\"\n"), OwnTraffic::Needed);
    assert_eq!(own("own_traffic = \"all\"\n"), OwnTraffic::All);
    let seen = mistakes(&format!("{GATEWAY}own_traffic = \"none\"\n"));
    assert!(
        seen[0].starts_with("cygnet.toml:8:15: `none` is no choice for this machine's own traffic: expected \"needed\""),
        "{seen:?}"
    );
}

#[test]
fn what_a_gateway_answers_has_defaults_that_keep_questions_in() {
    let dns = |keys: &str| {
        let config = parse(&format!("{GATEWAY}{keys}")).unwrap();
        config.gateway.unwrap().dns
    };
    assert_eq!(dns(""), None);
    let plain = dns("[gateway.dns]\n").unwrap();
    assert!(plain.resolvers.is_empty() && plain.tls.is_none() && plain.direct.is_empty());
    assert!(plain.lan_domains.is_empty());
    assert_eq!((plain.dot, plain.cache), (cygnet_config::Dot::Tunnel, 4096));
    let full = dns(
        "[gateway.dns]\nresolvers = [\"9.9.9.9\", \"2620:fe::fe\"]\ntls = \"dns.quad9.net\"\n\
         direct = \"Corp.Example.\"\ndirect_resolvers = \"127.0.0.53\"\nlan_domains = \"lan\"\n\
         block = [\"ads.hosts\", \"/srv/more.hosts\"]\ndot = \"refuse\"\ncache = 0\n",
    )
    .unwrap();
    assert_eq!(full.resolvers.len(), 2);
    assert_eq!(full.tls.unwrap().name, "dns.quad9.net");
    assert_eq!(full.direct, ["corp.example"]);
    assert_eq!(full.block, ["ads.hosts", "/srv/more.hosts"]);
    assert_eq!(full.lan_domains, ["lan"]);
    assert_eq!((full.dot, full.cache), (cygnet_config::Dot::Refuse, 0));
}

#[test]
fn mistakes_of_a_gateways_dns_point_at_their_line() {
    let seen = |keys: &str| mistakes(&format!("{GATEWAY}[gateway.dns]\n{keys}\n"));
    for (keys, place, told) in [
        ("resolvers = [\"dns.example\"]", "9:14", "is no address"),
        (
            "resolvers = \"127.0.0.1\"",
            "9:13",
            "no resolver can be reached there",
        ),
        ("tls = \"dns.example\"", "9:7", "`tls` without `resolvers`"),
        ("ca = \"ca.crt\"", "9:6", "without `tls`"),
        ("direct = [\"a b\"]", "9:11", "is no domain name"),
        (
            "direct = \"a\"\nlan_domains = \"A\"",
            "10:15",
            "in `direct` as well",
        ),
        ("block = \"\"", "9:9", "has no name"),
        ("dot = \"no\"", "9:7", "expected \"tunnel\""),
        ("cache = 16385", "9:9", "expected 0 to 16384"),
        (
            "resolvers = \"9.9.9.9\"\ntls = \"a\"\nca = \"gone.crt\"",
            "11:6",
            "cannot read gone.crt",
        ),
        (
            "resolvers = [\"1.1.1.1\", \"1.1.1.2\", \"1.1.1.3\", \"1.1.1.4\", \"1.1.1.5\"]",
            "9:58",
            "names too many",
        ),
    ] {
        let seen = seen(keys);
        let expected = format!("cygnet.toml:{place}: ");
        assert!(seen[0].starts_with(&expected), "{keys}: {seen:?}");
        assert!(seen[0].contains(told), "{keys}: {seen:?}");
    }
    assert!(seen("dsn = 1")[0].contains("dsn"));
}
