//! Configurations good and bad, as a person would write them.

mod claims;
mod gateway;
mod hook;
mod map;
mod servers;
mod through;
mod time_servers;

use std::collections::BTreeMap;
use std::time::Duration;

use cygnet_config::{Config, ConfigError, CredentialFile, Nat};
use cygnet_crypto::suite::Group;
use cygnet_ike::policy::{Host, IdentityPattern, LocalAuth, Remote, SelectorTemplate, Start};
use cygnet_ike::proposal::{ChildExchange, offer_esp, offer_ike, select_esp, select_ike};
use cygnet_wire::sa::ProposalSpi;

fn parse(text: &str) -> Result<Config, ConfigError> {
    let files: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    Config::parse("cygnet.toml", text, &mut |path| {
        files
            .get(path)
            .cloned()
            .ok_or_else(|| format!("cannot read {path}: No such file or directory"))
    })
}

/// What a person sees, a line each.
fn mistakes(text: &str) -> Vec<String> {
    let error = parse(text).expect_err("a mistake");
    error.to_string().lines().map(str::to_owned).collect()
}

const OFFICE: &str = r#"
[tunnel.office]
remote = "203.0.113.7"
psk = "office.psk"
local_networks = ["10.1.0.0/24", "10.1.1.0/24"]
remote_networks = ["10.2.0.0/24"]
"#;

#[test]
fn an_empty_configuration_is_good_and_asks_for_nothing() {
    let config = parse("").unwrap();
    assert!(config.policy.connections.is_empty());
    assert_eq!(config.daemon.ike_port, 500);
    assert_eq!(config.daemon.run_dir, "/run/cygnet");
}

#[test]
fn an_office_tunnel_has_defaults_for_all_it_does_not_say() {
    let config = parse(OFFICE).unwrap();
    let connection = config.policy.connection("office").unwrap();
    assert_eq!(
        connection.remote,
        Remote::Hosts {
            servers: vec![Host::Address("203.0.113.7".parse().unwrap()).into()],
            port: 500
        }
    );
    assert!(matches!(
        connection.remote_identity,
        IdentityPattern::Exactly(_)
    ));
    assert!(matches!(connection.local_auth, LocalAuth::Psk(_)));
    assert!(connection.claim_nat);
    let child = &connection.children[0];
    assert_eq!(child.start, Start::Always);
    assert_eq!(child.lifetime.time, Duration::from_secs(3600));
    assert_eq!(child.replay_window, 4096);
    assert_eq!(child.local.len(), 2);
    let tunnel = &config.tunnels["office"];
    assert_eq!(tunnel.interface, "cyg-office");
    assert_eq!(tunnel.remote_networks, ["10.2.0.0/24".parse().unwrap()]);
    assert!(config.credentials.values().any(|c| *c
        == CredentialFile::Psk {
            path: "office.psk".into()
        }));
}

#[test]
fn both_ends_arrive_at_the_same_policy() {
    assert_eq!(parse(OFFICE).unwrap(), parse(OFFICE).unwrap());
}

#[test]
fn a_client_wants_everything_by_default() {
    let config =
        parse("[tunnel.home]\nremote = \"vpn.example.org\"\npsk = \"k\"\nvirtual_address = true\n")
            .unwrap();
    let connection = config.policy.connection("home").unwrap();
    assert_eq!(connection.request_virtual.len(), 2);
    assert_eq!(connection.children[0].local, [SelectorTemplate::Dynamic]);
    assert_eq!(connection.children[0].remote.len(), 2);
}

#[test]
fn the_path_mtu_is_searched_unless_it_may_not_be() {
    let server = "[server]\npsk = \"k\"\npools = [\"10.99.0.0/24\"]\n";
    for (line, searched) in [("", true), ("search_mtu = false", false)] {
        let config = parse(&format!("{server}{OFFICE}{line}\n")).unwrap();
        let [server, office] = ["server", "office"].map(|name| config.policy.connection(name));
        assert!(server.unwrap().search_mtu);
        assert_eq!(office.unwrap().search_mtu, searched);
    }
}

/// RFC 4555 §3.11 suggests five minutes.
#[test]
fn a_server_waits_for_clients_that_move_unless_they_may_not() {
    for (line, mobike, patient) in [("", true, true), ("mobike = false", false, false)] {
        let server = format!("[server]\npsk = \"k\"\npools = [\"10.99.0.0/24\"]\n{line}\n");
        let config = parse(&format!("{server}{OFFICE}{line}\n")).unwrap();
        let [server, office] = ["server", "office"].map(|name| config.policy.connection(name));
        let (server, office) = (server.unwrap(), office.unwrap());
        assert_eq!((server.mobike, office.mobike), (mobike, mobike));
        let five_minutes = Duration::from_secs(300);
        assert_eq!(server.retransmit.patience() >= five_minutes, patient);
        assert!(office.retransmit.patience() < five_minutes);
    }
}

#[test]
fn a_server_takes_new_keys_with_a_key_exchange_and_without_and_leaves_the_first_move_to_clients() {
    let server = "[server]\npsk = \"k\"\npools = [\"10.99.0.0/24\"]\n";
    let config = parse(server).unwrap();
    let connection = &config.policy.connections[0];
    let child = &connection.children[0];
    let exchange = ChildExchange::CreateChildSa;
    for (offer, group) in [
        ("aes256gcm16", None),
        ("aes256gcm16-ecp384", Some(Group::EcpP384)),
        ("aes256-sha256", None),
        ("aes256-sha256-modp2048", Some(Group::Modp2048)),
    ] {
        let offered = offer_esp(&[offer.parse().unwrap()], 0x1000, exchange);
        let chosen = select_esp(&child.esp_proposals, &offered, exchange, None);
        assert_eq!(chosen.map(|chosen| chosen.group), Ok(group), "{offer}");
    }
    let ours = &connection.ike_proposals[..];
    for offer in ["aes256gcm16-prfsha256-ecp384", "aes256-sha256-modp2048"] {
        let offered = offer_ike(&[offer.parse().unwrap()], ProposalSpi::None);
        assert!(select_ike(&[ours], &offered, None).is_ok(), "{offer}");
    }
    let hours = |n: u64| Duration::from_secs(n * 3600);
    assert_eq!(child.lifetime.time, hours(2));
    assert_eq!(connection.lifetime.time, hours(9));
}

#[test]
fn a_server_lends_addresses_of_the_families_that_are_reached() {
    let lent = |lines: &str| {
        let pools = "pools = [\"10.99.0.0/24\", \"fd99::/112\"]";
        let config = parse(&format!("[server]\npsk = \"k\"\n{pools}\n{lines}\n")).unwrap();
        let pool = config.pools.values().next().unwrap();
        let networks: Vec<String> = pool.networks.iter().map(ToString::to_string).collect();
        networks.join(" ")
    };
    assert_eq!(lent(""), "10.99.0.0/24 fd99::/112");
    assert_eq!(lent("networks = [\"10.0.0.0/16\"]"), "10.99.0.0/24");
    assert_eq!(lent("networks = [\"fd00::/48\"]"), "fd99::/112");
    let together = "networks = [\"10.0.0.0/16\"]\nclient_to_client = true";
    assert_eq!(lent(together), "10.99.0.0/24 fd99::/112");
}

#[test]
fn a_server_measures_speed_where_asked_to() {
    let measures = |lines: &str| {
        let text = format!("[server]\npsk = \"k\"\npools = [\"10.99.0.0/24\"]\n{lines}");
        let config = parse(&text).unwrap();
        let pool = config.pools.values().next().unwrap();
        assert_eq!(pool.speedtest, config.server.unwrap().speedtest);
        pool.speedtest
    };
    assert!(!measures(""));
    assert!(!measures("speedtest = false"));
    assert!(measures("speedtest = true"));
}

#[test]
fn children_inherit_from_their_tunnel() {
    let config = parse(
        r#"
[tunnel.office]
remote = "any"
remote_identity = "b.example.org"
psk = "k"
child_lifetime = "10m"
[tunnel.office.child.one]
remote_networks = ["10.2.0.0/24"]
[tunnel.office.child.two]
remote_networks = ["10.3.0.0/24"]
child_lifetime = "20m"
"#,
    )
    .unwrap();
    let children = &config.policy.connection("office").unwrap().children;
    assert_eq!(children[0].name, "one");
    assert_eq!(children[0].lifetime.time, Duration::from_secs(600));
    assert_eq!(children[0].start, Start::Manual);
    assert_eq!(children[1].lifetime.time, Duration::from_secs(1200));
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_what_is_expected() {
    let seen = mistakes("[tunnel.a]\nremote = \"b\"\nremot_identity = \"x\"\n");
    assert_eq!(seen.len(), 1);
    assert!(seen[0].starts_with("cygnet.toml:3:1: "), "{seen:?}");
    assert!(seen[0].contains("remot_identity"), "{seen:?}");
    assert!(seen[0].contains("remote_identity"), "{seen:?}");
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_text() {
    let seen = mistakes(
        r#"[tunnel.office]
remote = "203.0.113.300"
psk = "k"
remote_networks = ["10.2.0.7/24"]
child_lifetime = "1 hour"
ike = ["aes128gcm16-prfsha256-modp1024"]
"#,
    );
    assert_eq!(seen.len(), 4, "{seen:#?}");
    assert!(
        seen[0].contains(":2:10: `203.0.113.300` is neither"),
        "{seen:#?}"
    );
    assert!(seen[1].contains(":4:20: `10.2.0.7/24`"), "{seen:#?}");
    assert!(seen[1].contains("10.2.0.0/24"), "{seen:#?}");
    assert!(seen[2].contains(":5:18: `1 hour`"), "{seen:#?}");
    assert!(seen[3].contains(":6:8: "), "{seen:#?}");
    assert!(seen[3].contains("modp1024"), "{seen:#?}");
}

#[test]
fn a_wrong_type_is_named_with_its_place() {
    let seen = mistakes("[daemon]\nike_port = \"500\"\n");
    assert!(seen[0].starts_with("cygnet.toml:2:12: "), "{seen:?}");
    let seen = mistakes("[tunnel.a]\nremote_identity = 5\n");
    assert!(
        seen[0].contains("a string or a list of strings"),
        "{seen:?}"
    );
    let seen = mistakes("[tunnel.a]\nremote = 5\n");
    assert!(seen[0].starts_with("cygnet.toml:2:10: "), "{seen:?}");
    assert!(seen[0].contains("or a list of them"), "{seen:?}");
}

#[test]
fn missing_credentials_are_listed() {
    let seen = mistakes("[tunnel.a]\nremote = \"b\"\ncertificate = \"c.crt\"\n");
    assert!(
        seen[0].contains("[tunnel.a] lacks: key, ca; give `certificate`, `key` and `ca`, or `psk`"),
        "{seen:?}"
    );
    let seen = mistakes("[server]\npools = [\"10.99.0.0/24\"]\n");
    assert!(
        seen[0].contains("[server] lacks: certificate, key, ca; give "),
        "{seen:?}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named_where_it_is_written() {
    let seen = mistakes(
        "[tunnel.a]\nremote = \"b\"\ncertificate = \"c.crt\"\nkey = \"c.key\"\nca = \"ca.crt\"\n",
    );
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(
        seen[0].starts_with("cygnet.toml:3:15: cannot read c.crt"),
        "{seen:?}"
    );
    assert!(
        seen[1].starts_with("cygnet.toml:5:6: cannot read ca.crt"),
        "{seen:?}"
    );
}

#[test]
fn a_tunnel_without_remote_is_told_that_alone() {
    let seen = mistakes("[tunnel.a]\npsk = \"k\"\n");
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].contains("has no `remote`"), "{seen:?}");
}

#[test]
fn a_peer_that_calls_must_be_named() {
    let seen = mistakes("[tunnel.a]\nremote = \"any\"\npsk = \"k\"\n");
    assert!(seen[0].contains("does not say who that is"), "{seen:?}");
    let seen = mistakes(
        "[tunnel.a]\nremote = \"any\"\nremote_identity = \"b\"\npsk = \"k\"\nstart = \"always\"\n",
    );
    assert!(seen[0].starts_with("cygnet.toml:5:9: "), "{seen:?}");
}

#[test]
fn names_and_interfaces_do_not_collide() {
    let seen = mistakes("[tunnel.server]\nremote = \"b\"\npsk = \"k\"\n");
    assert!(seen[0].contains("[server] section"), "{seen:?}");
    let seen = mistakes(
        "[tunnel.a]\nremote = \"b\"\npsk = \"k\"\n[tunnel.b]\nremote = \"b\"\npsk = \"k\"\ninterface = \"cyg-a\"\n",
    );
    assert!(seen[0].contains("`cyg-a` is used twice"), "{seen:?}");
}

#[test]
fn overlapping_pools_are_refused() {
    let seen = mistakes(
        "[server]\nidentity = \"vpn.example.org\"\npsk = \"k\"\npools = [\"10.0.0.0/8\", \"10.99.0.0/24\"]\n",
    );
    assert!(
        seen[0].contains(
            "pool 10.99.0.0/24 overlaps pool 10.0.0.0/8; choose networks that share no address"
        ),
        "{seen:?}"
    );
}

#[test]
fn replay_protection_cannot_be_switched_off() {
    let seen = mistakes("[tunnel.a]\nremote = \"b\"\npsk = \"k\"\nreplay_window = 0\n");
    assert!(seen[0].starts_with("cygnet.toml:4:17: "), "{seen:?}");
    assert!(seen[0].contains("32 to 65536"), "{seen:?}");
}

#[test]
fn a_server_keeps_its_clients_apart_and_from_the_provider_unless_told_otherwise() {
    let server = |lines: &str| {
        let text = format!("[server]\npsk = \"k\"\npools = [\"10.99.0.0/24\"]\n{lines}");
        parse(&text).map(|config| (config.server.clone().unwrap(), config))
    };
    let (plain, config) = server("").unwrap();
    assert!(!plain.client_to_client && plain.block_private);
    assert_eq!(plain.nat, Nat::Both);
    assert!(plain.inside.is_empty() && plain.devices.is_empty());
    let local = |config: &Config| {
        config.policy.connection("server").unwrap().children[0]
            .local
            .len()
    };
    assert_eq!(local(&config), 2);
    let (told, config) = server(
        "nat = \"ipv4\"\nclient_to_client = true\nblock_private = false\nnetworks = [\"10.1.0.0/16\"]\n\
         dns = [\"10.0.0.53\"]\ndomains = [\"Corp.Example.\"]\n",
    )
    .unwrap();
    assert!(told.client_to_client && !told.block_private);
    assert_eq!(told.nat, Nat::Ipv4);
    let inside = ["10.1.0.0/16", "10.0.0.53/32"].map(|net| net.parse().unwrap());
    assert_eq!(told.inside, inside);
    assert_eq!(
        local(&config),
        2,
        "the other clients are among what a client may reach"
    );
    let pool = config.pools.values().next().unwrap();
    assert_eq!(pool.domains, ["corp.example"]);
    assert_eq!(server("nat = false\n").unwrap().0.nat, Nat::Off);
    for (line, expected) in [
        ("nat = \"ipv6\"", "expected true, false, or \"ipv4\""),
        ("domains = [\"corp.example\"]", "`domains` without `dns`"),
        (
            "dns = [\"10.0.0.53\"]\ndomains = [\"corp..example\"]",
            "no domain name",
        ),
        ("devices = \"devices.json\"", "cannot read devices.json"),
    ] {
        let error = server(line).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_log_in_by_password_is_one_proof_of_several_and_a_whole_one() {
    let base = "[tunnel.a]\nremote = \"b\"\n";
    let seen = mistakes(&format!("{base}user = \"alice\"\n"));
    assert!(
        seen[0].contains("[tunnel.a] lacks: password, ca"),
        "{seen:?}"
    );
    let seen = mistakes(&format!("{base}password = \"p\"\nca = \"ca.crt\"\n"));
    assert!(seen[0].contains("[tunnel.a] lacks: user"), "{seen:?}");
    let whole = "user = \"alice\"\npassword = \"p\"\nca = \"ca.crt\"\n";
    let seen = mistakes(&format!("{base}{whole}psk = \"k\"\n"));
    assert!(
        seen.iter()
            .any(|line| line.contains(":6:7: both a user name and another proof")),
        "{seen:?}"
    );
    let seen = mistakes(&format!(
        "[tunnel.a]\nremote = \"any\"\nremote_identity = \"b\"\n{whole}"
    ));
    assert!(
        seen.iter()
            .any(|line| line.contains(":4:8: the tunnel waits for its peer")),
        "{seen:?}"
    );
    let seen = mistakes(&format!("{base}{}", whole.replace("alice", "a\\nb")));
    assert!(seen[0].contains("that is no user name"), "{seen:?}");
}

#[test]
fn a_server_with_a_pre_shared_key_takes_no_passwords() {
    let seen = mistakes("[server]\npsk = \"k\"\npasswords = \"p\"\npools = [\"10.99.0.0/24\"]\n");
    assert!(
        seen[0].contains(":3:13: both a pre-shared key and a log-in are given"),
        "{seen:?}"
    );
}

#[test]
fn an_eap_method_is_one_that_is_there_and_the_only_proof() {
    let base = "[tunnel.a]\nremote = \"b\"\n";
    let seen = mistakes(&format!("{base}eap = \"peap\"\npsk = \"k\"\n"));
    assert!(
        seen[0].contains(":3:7: `peap` is no EAP method"),
        "{seen:?}"
    );
    let seen = mistakes(&format!("{base}eap = \"tls\"\npsk = \"k\"\n"));
    assert!(
        seen[0].contains(":3:7: both `eap` and a pre-shared key"),
        "{seen:?}"
    );
    let seen = mistakes(&format!(
        "{base}eap = \"tls\"\nuser = \"alice\"\npassword = \"p\"\nca = \"ca.crt\"\n"
    ));
    assert!(
        seen[0].contains(":3:7: both a user name and `eap`"),
        "{seen:?}"
    );
}
