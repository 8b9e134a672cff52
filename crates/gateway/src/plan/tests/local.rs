//! Networks that somebody lends this machine, and tunnels that are to carry them.

use super::*;

fn client() -> Inputs {
    let mut inputs = gateway();
    inputs.lan = None;
    inputs.tunnels[0].own_traffic = true;
    inputs
}

fn site(remote: &str) -> Inputs {
    let mut inputs = client();
    let tunnel = &mut inputs.tunnels[0];
    tunnel.client = false;
    tunnel.virtual_addresses.clear();
    tunnel.remote = vec![net(remote)];
    inputs
}

fn lend(mut inputs: Inputs, lent: &str) -> Inputs {
    inputs.local_networks.push(net(lent));
    inputs.without_overlaps().0
}

fn thrown(inputs: &Inputs) -> Vec<String> {
    let plan = NetworkPlan::new(inputs).unwrap();
    let routes = plan.routes.iter();
    let thrown = routes.filter(|r| r.kind == RouteKind::Throw);
    thrown.map(|r| r.destination.to_string()).collect()
}

fn at_155(inputs: &Inputs) -> Vec<String> {
    let plan = NetworkPlan::new(inputs).unwrap();
    let rules = plan.rules.iter().filter(|r| r.priority == 155);
    rules
        .map(|r| {
            assert_eq!(r.ip_protocol, Some(6));
            format!("{} from {}", shown(r), r.from.unwrap())
        })
        .collect()
}

#[test]
fn a_lent_public_network_stays_in_a_tunnel_to_everything() {
    for (lent, of_the_lan) in [
        ("93.184.0.5/15", "93.184.0.0/15"),
        ("2001:db8:1::5/64", "2001:db8:1::/64"),
    ] {
        let mut inputs = lend(client(), lent);
        let virtual_addresses = &mut inputs.tunnels[0].virtual_addresses;
        virtual_addresses.push("fd99::2".parse().unwrap());
        let expected = [
            "169.254.0.0/16",
            "192.168.1.0/24",
            "224.0.0.0/4",
            "fe80::/10",
        ];
        assert_eq!(thrown(&inputs), expected, "{lent}");
        let own = lent.split('/').next().unwrap();
        let around = inputs.not_around();
        assert!(
            around[0].to_string().starts_with(&format!(
                "{of_the_lan}, a network of this machine, is public"
            )),
            "{around:?}"
        );
        let host = net(lent).max_prefix_len();
        assert_eq!(
            at_155(&inputs),
            [format!(
                "155 all to {of_the_lan} Lookup(254) by no default from {own}/{host}"
            )]
        );
    }
    // IPv6 that finds no way takes an address of ours and looks again, with that.
    let not_carried = lend(client(), "2001:db8:1::5/64");
    assert!(!thrown(&not_carried).contains(&"2001:db8:1::/64".to_owned()));
    assert!(at_155(&not_carried).is_empty());
    let told = not_carried.not_around()[0].to_string();
    assert!(told.ends_with("who calls from there, too"), "{told}");
    let private = lend(client(), "fd00:7::5/64");
    assert!(thrown(&private).contains(&"fd00:7::/64".to_owned()));
    assert!(private.not_around().is_empty() && at_155(&private).is_empty());
    // An address alone has no neighbours.
    let alone = lend(client(), "93.184.0.5/32");
    assert!(alone.not_around().is_empty() && at_155(&alone).is_empty());
}

#[test]
fn who_lends_everything_closes_nothing() {
    let inputs = lend(client(), "93.184.0.5/0");
    let routes = in_table(&NetworkPlan::new(&inputs).unwrap(), SHARED_TABLE);
    assert!(
        routes[0].starts_with("0.0.0.0/0 Device"),
        "{routes:?}: the tunnel stays"
    );
    assert!(!routes.iter().any(|r| r.starts_with("0.0.0.0/0 Throw")));
    assert!(at_155(&inputs).is_empty());
    let mut inputs = client();
    inputs.server = Some(server::server());
    inputs.local_networks = vec![net("93.184.0.5/0")];
    assert_eq!(inputs.clone().without_overlaps(), (inputs, Vec::new()));
}

#[test]
fn what_a_tunnel_names_it_has_whatever_is_lent() {
    for lent in ["10.2.0.9/25", "10.2.0.200/26"] {
        let inputs = lend(site("10.2.0.0/24"), lent);
        assert!(thrown(&inputs).is_empty(), "{lent}");
        assert!(at_155(&inputs).is_empty(), "{lent}: the source may be that");
        let told = inputs.not_around()[0].to_string();
        assert!(told.contains("is within 10.2.0.0/24"), "{told}");
    }
    // Beside a tunnel to everything, too.
    let mut both = client();
    both.tunnels.push(Tunnel {
        interface: name("cyg1"),
        source: vec!["192.168.1.2".parse().unwrap()],
        ..site("10.2.0.0/24").tunnels.remove(0)
    });
    let both = lend(both, "10.2.0.9/25");
    assert!(!thrown(&both).contains(&"10.2.0.0/25".to_owned()));
    assert_eq!(
        at_155(&both),
        ["155 all to 10.2.0.0/25 Lookup(254) by no default from 10.2.0.9/32"]
    );
    // A wider one: what is nearer decides.
    let wider = lend(site("10.2.0.0/24"), "10.2.0.9/16");
    assert!(thrown(&wider).is_empty());
}

#[test]
fn what_is_lent_exactly_is_closed_and_never_in_clear() {
    let mut inputs = site("10.2.0.0/24");
    inputs.local_networks.push(net("10.2.0.9/24"));
    let (inputs, told) = inputs.without_overlaps();
    assert_eq!(told.len(), 1);
    assert_eq!(
        in_table(&NetworkPlan::new(&inputs).unwrap(), SHARED_TABLE),
        ["10.2.0.0/24 Unreachable 4294967295"]
    );
    // Who calls from there by TCP is answered, as IPv4 takes no other source where there is no way.
    assert_eq!(
        at_155(&inputs),
        ["155 all to 10.2.0.0/24 Lookup(254) by no default from 10.2.0.9/32"]
    );
    // Beside a tunnel to everything nothing is left to that one.
    let mut both = client();
    both.tunnels.push(Tunnel {
        interface: name("cyg1"),
        ..site("10.2.0.0/24").tunnels.remove(0)
    });
    let both = lend(both, "10.2.0.9/24");
    assert_eq!(both.closed, [net("10.2.0.0/24")]);
    assert!(both.not_around().is_empty());
}

#[test]
fn what_the_configuration_calls_ours_more_narrowly_is_reached() {
    let branch = |named: &str| {
        let mut inputs = site("10.0.0.0/8");
        inputs.named = vec![net(named)];
        lend(inputs, "10.1.0.1/24")
    };
    for (named, reached) in [
        ("10.1.0.0/24", true),
        ("10.1.0.0/16", true),
        ("10.0.0.0/8", false),
        ("0.0.0.0/0", false),
        ("10.2.0.0/24", false),
    ] {
        let thrown = thrown(&branch(named));
        assert_eq!(!thrown.is_empty(), reached, "{named}: {thrown:?}");
    }
    let mut public = client();
    public.named = vec![net("203.0.113.0/24")];
    let public = lend(public, "203.0.113.9/24");
    assert!(thrown(&public).contains(&"203.0.113.0/24".to_owned()));
}
