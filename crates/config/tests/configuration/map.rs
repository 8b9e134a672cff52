//! Networks that the other side knows by other addresses.

use cygnet_ike::policy::SelectorTemplate;

use super::{mistakes, parse};

/// What stands in a tunnel between two offices that both have 192.168.1.0/24.
fn mapped(lines: &str) -> String {
    format!("[tunnel.branch]\nremote = \"203.0.113.7\"\npsk = \"k\"\n{lines}\n")
}

#[test]
fn a_network_is_negotiated_by_the_name_that_the_other_side_has_for_it() {
    let config = parse(&mapped(
        "local_networks = [\"192.168.1.0/24\", \"10.7.0.0/24\", \"fd00:1::/64\"]\n\
         local_map = [\"10.201.1.0/24\", \"10.7.0.0/24\", \"fdc9::/64\"]\n\
         remote_networks = [\"10.202.1.0/24\", \"fdca::/64\"]",
    ))
    .unwrap();
    let child = &config.policy.connection("branch").unwrap().children[0];
    let shown: Vec<String> = child.local.iter().map(|t| format!("{t:?}")).collect();
    let selectors = ["10.201.1.0/24", "10.7.0.0/24", "fdc9::/64"].map(|net| {
        let net: ipnet::IpNet = net.parse().unwrap();
        let selector = cygnet_wire::ts::TrafficSelector::from_prefix(net.addr(), net.prefix_len());
        format!("{:?}", SelectorTemplate::Fixed(selector))
    });
    assert_eq!(shown, selectors);
    let tunnel = &config.tunnels["branch"];
    let own: Vec<String> = tunnel
        .local_networks
        .iter()
        .map(|n| n.to_string())
        .collect();
    assert_eq!(own, ["10.7.0.0/24", "192.168.1.0/24", "fd00:1::/64"]);
    let maps: Vec<String> = (tunnel.maps.iter())
        .map(|map| format!("{} as {}", map.own(), map.shown()))
        .collect();
    assert_eq!(
        maps,
        [
            "192.168.1.0/24 as 10.201.1.0/24",
            "fd00:1::/64 as fdc9::/64"
        ]
    );
    // One network needs no list.
    let one = "local_networks = [\"192.168.1.0/24\"]\nlocal_map = \"10.201.1.0/24\"\n\
               remote_networks = [\"10.202.1.0/24\"]";
    assert_eq!(parse(&mapped(one)).unwrap().tunnels["branch"].maps.len(), 1);
}

#[test]
fn a_map_that_cannot_be_is_told_with_its_place_and_what_would_do() {
    let local = "local_networks = [\"192.168.1.0/24\"]\n";
    for (lines, place, told) in [
        (
            format!("{local}remote_networks = [\"192.168.1.0/24\"]"),
            "cygnet.toml:5:20: ",
            "`192.168.1.0/24` is on both sides of this tunnel; let each appear to the other as another network: write \
             local_map = \"10.201.1.0/24\" here",
        ),
        (
            format!("{local}local_map = \"10.201.1.0/24\"\nremote_networks = [\"192.168.1.0/24\"]"),
            "cygnet.toml:6:20: ",
            "is on both sides of this tunnel; write here what the other side has in its `local_map`",
        ),
        (
            format!("{local}local_map = \"10.201.0.0/16\"\nremote_networks = [\"10.202.1.0/24\"]"),
            "cygnet.toml:5:13: ",
            "`10.201.0.0/16` cannot stand for `192.168.1.0/24`: expected a prefix of the same length, such as `10.201.0.0/24`",
        ),
        (
            format!("{local}local_map = \"fd00:1::/64\""),
            "cygnet.toml:5:13: ",
            "one is IPv4, the other IPv6",
        ),
        (
            format!("{local}local_map = \"10.201.1.7/24\""),
            "cygnet.toml:5:13: ",
            "did you mean `10.201.1.0/24`?",
        ),
        (
            format!("{local}local_map = [\"10.201.1.0/24\", \"10.202.1.0/24\"]"),
            "cygnet.toml:5:14: ",
            "`local_map` has 2 networks, and `local_networks` 1; write one for each",
        ),
        (
            "local_map = \"10.201.1.0/24\"".to_owned(),
            "cygnet.toml:4:13: ",
            "`local_map` has 1 networks, and `local_networks` 0",
        ),
        (
            format!("{local}local_map = []"),
            "cygnet.toml:4:19: ",
            "`local_map` has 0 networks, and `local_networks` 1",
        ),
        (
            format!("{local}local_map = \"10.202.1.0/24\"\nremote_networks = [\"10.202.0.0/16\"]"),
            "cygnet.toml:5:13: ",
            "`10.202.1.0/24` overlaps `10.202.0.0/16`, which this tunnel has, too; `10.201.1.0/24` would be free",
        ),
        (
            "local_networks = [\"192.168.1.0/24\", \"192.168.2.0/24\"]\nlocal_map = [\"10.201.1.0/24\", \"10.201.1.0/24\"]"
                .to_owned(),
            "cygnet.toml:5:14: ",
            "`10.201.1.0/24` overlaps `10.201.1.0/24`, which this tunnel has, too; `10.202.1.0/24` would be free",
        ),
        (
            "local_map = \"10.201.1.0/24\"\n[tunnel.branch.child.a]\nremote_networks = [\"10.2.0.0/24\"]".to_owned(),
            "cygnet.toml:4:13: ",
            "networks of its own beside its [tunnel.NAME.child.…] sections; move them into a child",
        ),
        (
            format!(
                "[tunnel.branch.child.a]\n{local}local_map = \"10.201.1.0/24\"\n\
                 [tunnel.branch.child.b]\n{local}local_map = \"10.203.1.0/24\""
            ),
            "cygnet.toml:6:13: ",
            "`192.168.1.0/24` appears as `10.201.1.0/24` in one child of this tunnel, and otherwise in another",
        ),
        (
            format!(
                "[tunnel.branch.child.a]\n{local}local_map = \"10.201.1.0/24\"\n[tunnel.branch.child.b]\n{local}"
            ),
            "cygnet.toml:6:13: ",
            "and otherwise in another; write the same in each child",
        ),
    ] {
        let seen = mistakes(&mapped(&lines));
        assert!(seen[0].starts_with(place) && seen[0].contains(told), "{lines}\n{seen:#?}");
    }
}
