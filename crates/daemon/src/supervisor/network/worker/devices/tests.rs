//! Orders about devices, in a network namespace of their own.

use std::path::{Path, PathBuf};

use cygnet_gateway::{DevicePolicy, GUARD_NFT_TABLE, PLAN_TABLE};
use cygnet_linux::nft;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::alone::alone;
use crate::supervisor::network::{Network, guard};

const SETUP: &str = "ip link set lo up; ip link add eth0 type veth peer name far0; ip link set far0 addrgenmode none up; ip addr add 192.168.1.2/24 dev eth0; \
    ip link set eth0 up; ip neigh add 192.168.1.77 lladdr 02:00:00:00:00:77 dev eth0 nud reachable; \
    ip neigh add 192.168.1.1 lladdr 02:00:00:00:00:01 dev eth0 nud reachable; \
    ip route add default via 192.168.1.1";

const SECTIONS: &str = "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n\
    [gateway]\ntunnel = \"home\"\nlan = \"eth0\"\ndirect = [\"tv\", \"192.168.1.9\"]\n\
    [gateway.devices]\ntv = [\"02:00:00:00:00:78\", \"02:00:00:00:00:79\"]\n";

/// A directory for state and run.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("cygnet-{name}-{}", std::process::id())))
    }

    fn config(&self, sections: &str) -> Config {
        let state = self.0.join("state");
        let text = format!("[daemon]\nstate_dir = \"{}\"\n{sections}", state.display());
        Config::parse("t", &text, &mut |p| Err(format!("no {p}"))).unwrap()
    }

    async fn start(&self) -> (Network, Config) {
        self.start_with(SECTIONS).await
    }

    async fn start_with(&self, sections: &str) -> (Network, Config) {
        let config = self.config(sections);
        std::fs::create_dir_all(self.run_dir()).unwrap();
        let (done, _) = mpsc::unbounded_channel();
        let network = Network::set_up(&config, &self.run_dir(), done).await;
        (network.unwrap(), config)
    }

    fn run_dir(&self) -> PathBuf {
        Path::new(&self.0).join("run")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn order(
    network: &Network,
    device: &str,
    policy: Option<DevicePolicy>,
) -> Result<DeviceChanged, Refusal> {
    let (reply, answer) = oneshot::channel();
    let device = device.to_owned();
    network.order(
        DeviceOrder {
            device,
            policy,
            through: None,
        },
        reply,
    );
    answer.await.unwrap()
}

/// What is told of devices, a line each.
async fn told(network: &Network) -> Vec<String> {
    let (reply, answer) = oneshot::channel();
    network.devices(BTreeMap::new(), reply);
    let devices = answer.await.unwrap().unwrap().devices.into_iter();
    let told = devices.map(|d| {
        let seen = d.last_seen_s.map_or("", |_| " seen");
        let name = d.name.as_deref().unwrap_or("-");
        format!(
            "{} {name} {} {:?}{seen} {:?}",
            d.device, d.policy, d.from, d.addresses
        )
    });
    told.collect()
}

/// What the kernel does with what comes from this MAC address: by the marks, and by the filter. Sorted: a listing has a
/// table's chains in any order.
fn verdicts(mac: &str) -> Vec<String> {
    let tables = [PLAN_TABLE, GUARD_NFT_TABLE].map(|table| nft::list_table(table).unwrap());
    let lines = tables.iter().flatten().flat_map(|text| text.lines());
    let of_mac = lines.filter(|line| line.contains("ether saddr") && line.contains(mac));
    let mut verdicts: Vec<String> = of_mac
        .map(|line| {
            line.split_whitespace()
                .last()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    verdicts.sort();
    verdicts
}

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work);
}

#[test]
fn an_order_is_obeyed_by_both_layers_and_by_the_next_start() {
    alone(
        "supervisor::network::worker::devices::tests::an_order_is_obeyed_by_both_layers_and_by_the_next_start",
        SETUP,
        || run(obeyed()),
    );
}

async fn obeyed() {
    let place = Place::new("orders");
    let (mut network, _) = place.start().await;
    // The router is no device.
    assert_eq!(
        told(&network).await,
        [
            "02:00:00:00:00:77 - tunnelled Default seen [192.168.1.77]",
            "02:00:00:00:00:78 tv direct Configuration []",
            "02:00:00:00:00:79 tv direct Configuration []",
            "192.168.1.9 - direct Configuration []",
        ]
    );
    let (mac, direct) = (
        "02:00:00:00:00:77",
        ["mark_direct", "mark_direct", "return"],
    );
    // Marked twice, so that the guard's is the last word; then filtered.
    assert_eq!(verdicts("02:00:00:00:00:78"), direct);
    let changed = order(&network, "192.168.1.77", Some(DevicePolicy::Blocked)).await;
    assert_eq!(changed.unwrap().devices, [mac]);
    assert_eq!(verdicts(mac), ["drop", "return", "return"]);
    let changed = order(&network, "tv", Some(DevicePolicy::Tunnelled))
        .await
        .unwrap();
    assert_eq!(changed.devices.len(), 2);
    let by_address = order(&network, "192.168.1.9", Some(DevicePolicy::Blocked)).await;
    assert_eq!(by_address.unwrap().devices, ["192.168.1.9"]);
    assert!(
        order(&network, "radio", Some(DevicePolicy::Direct))
            .await
            .is_err()
    );
    let ordered = [
        "02:00:00:00:00:77 - blocked Command seen [192.168.1.77]",
        "02:00:00:00:00:78 tv tunnelled Command []",
        "02:00:00:00:00:79 tv tunnelled Command []",
        "192.168.1.9 - blocked Command []",
    ];
    assert_eq!(told(&network).await, ordered);

    network.take_back().await;
    drop(network);
    let (network, config) = place.start().await;
    assert_eq!(told(&network).await, ordered);
    assert_eq!(verdicts(mac), ["drop", "return", "return"]);
    // The guard that is kept for a broken configuration is of the configuration, not of orders.
    let last = guard::recall(&config.daemon.state_dir).unwrap().devices();
    assert_eq!(last.policies, config.gateway.unwrap().devices.policies);
    let forgotten = order(&network, mac, None).await.unwrap();
    assert_eq!(forgotten.policy, DevicePolicy::Tunnelled);
    let forgotten = order(&network, "tv", None).await.unwrap();
    assert_eq!(forgotten.policy, DevicePolicy::Direct);
    assert!(order(&network, "tv", None).await.is_err(), "once");
    assert_eq!(verdicts("02:00:00:00:00:78"), direct);
    assert!(verdicts(mac).is_empty());
}

#[test]
fn what_the_operator_took_away_is_not_put_back_by_an_order() {
    alone(
        "supervisor::network::worker::devices::tests::what_the_operator_took_away_is_not_put_back_by_an_order",
        SETUP,
        || run(not_put_back()),
    );
}

async fn not_put_back() {
    let place = Place::new("orders-off");
    let (network, _) = place.start().await;
    let mut own = cygnet_linux::Network::open(&place.run_dir()).unwrap();
    own.remove_guard().await.unwrap();
    order(&network, "02:00:00:00:00:77", Some(DevicePolicy::Blocked))
        .await
        .unwrap();
    assert_eq!(nft::list_table(GUARD_NFT_TABLE).unwrap(), None);
    assert_eq!(
        verdicts("02:00:00:00:00:77"),
        ["return"],
        "by its marks alone"
    );
}

fn neighbour(address: &str, mac: &str) {
    let words = [
        "neigh",
        "replace",
        address,
        "lladdr",
        mac,
        "dev",
        "eth0",
        "nud",
        "reachable",
    ];
    let done = std::process::Command::new("ip").args(words).status();
    assert!(done.unwrap().success());
}

/// What is true now by an answer, and its notes.
fn now(changed: &DeviceChanged) -> (Vec<String>, String) {
    let now = changed.now.iter();
    let now = now.map(|n| format!("{} {} {:?}", n.device, n.policy, n.addresses));
    (now.collect(), changed.notes.join("; "))
}

#[test]
fn an_address_stands_for_the_device_whatever_is_said_of_the_address() {
    alone(
        "supervisor::network::worker::devices::tests::an_address_stands_for_the_device_whatever_is_said_of_the_address",
        SETUP,
        || run(stands_for_the_device()),
    );
}

async fn stands_for_the_device() {
    let place = Place::new("orders-address");
    let (network, _) = place.start().await;
    let set = async |device: &str, policy| order(&network, device, Some(policy)).await.unwrap();
    // The configuration names it, and it was seen.
    neighbour("192.168.1.9", "02:00:00:00:00:09");
    let changed = set("192.168.1.9", DevicePolicy::Blocked).await;
    let of_mac = "02:00:00:00:00:09 blocked [192.168.1.9]".to_owned();
    assert_eq!(now(&changed), (vec![of_mac], String::new()));
    assert_eq!(verdicts("02:00:00:00:00:09"), ["drop", "return", "return"]);
    // An order named it before it was seen.
    let changed = set("192.168.1.50", DevicePolicy::Blocked).await;
    let (told_of, notes) = now(&changed);
    assert_eq!(told_of, ["192.168.1.50 blocked []"]);
    assert!(
        notes.starts_with("no device with 192.168.1.50 was seen: "),
        "{notes}"
    );
    neighbour("192.168.1.50", "02:00:00:00:00:50");
    let changed = set("192.168.1.50", DevicePolicy::Direct).await;
    let of_mac = "02:00:00:00:00:50 direct [192.168.1.50]".to_owned();
    assert_eq!(now(&changed), (vec![of_mac], String::new()));
    let listed = told(&network).await.join("\n");
    assert!(
        listed.contains("02:00:00:00:00:50 - direct Command seen [192.168.1.50]"),
        "{listed}"
    );
    assert!(!listed.contains("192.168.1.50 - blocked"), "{listed}");
    // Both kinds of an order are forgotten by the address.
    set("192.168.1.60", DevicePolicy::Blocked).await;
    neighbour("192.168.1.60", "02:00:00:00:00:60");
    let forgotten = order(&network, "192.168.1.60", None).await.unwrap();
    let of_mac = "02:00:00:00:00:60 tunnelled [192.168.1.60]".to_owned();
    assert_eq!(now(&forgotten), (vec![of_mac], String::new()));
}

#[test]
fn what_is_true_after_forgetting_is_told_of_each_address() {
    alone(
        "supervisor::network::worker::devices::tests::what_is_true_after_forgetting_is_told_of_each_address",
        SETUP,
        || run(told_after_forgetting()),
    );
}

async fn told_after_forgetting() {
    let place = Place::new("orders-forget");
    let sections = SECTIONS.replace(
        "direct = [\"tv\", \"192.168.1.9\"]",
        "default = \"direct\"\ntunnelled = \"192.168.1.64/26\"",
    );
    let (network, _) = place.start_with(&sections).await;
    neighbour("192.168.1.20", "02:00:00:00:00:77");
    for device in ["02:00:00:00:00:77", "192.168.1.65"] {
        let ordered = order(&network, device, Some(DevicePolicy::Blocked)).await;
        assert_eq!(ordered.unwrap().policy, DevicePolicy::Blocked);
    }
    let forgotten = order(&network, "02:00:00:00:00:77", None).await.unwrap();
    let (told_of, _) = now(&forgotten);
    assert_eq!(
        told_of,
        [
            "02:00:00:00:00:77 tunnelled [192.168.1.77]",
            "02:00:00:00:00:77 direct [192.168.1.20]"
        ]
    );
    // The network decides of the address, not the default.
    let forgotten = order(&network, "192.168.1.65", None).await.unwrap();
    assert_eq!(now(&forgotten).0, ["192.168.1.65 tunnelled []"]);
}

#[test]
fn a_mac_address_of_several_goes_direct_by_that_mac_address_alone() {
    alone(
        "supervisor::network::worker::devices::tests::a_mac_address_of_several_goes_direct_by_that_mac_address_alone",
        SETUP,
        || run(of_several()),
    );
}

async fn of_several() {
    let place = Place::new("orders-several");
    let (network, _) = place.start().await;
    let mac = "02:00:00:00:00:81";
    for address in ["192.168.1.81", "192.168.1.82"] {
        neighbour(address, mac);
    }
    let warnings = async || {
        let (reply, answer) = oneshot::channel();
        network.devices(BTreeMap::new(), reply);
        answer.await.unwrap().unwrap().warnings
    };
    let refused = order(&network, "192.168.1.81", Some(DevicePolicy::Direct)).await;
    let refused = format!("{:?}", refused.unwrap_err());
    for part in [mac, "192.168.1.81, 192.168.1.82", "Wi-Fi repeater"] {
        assert!(refused.contains(part), "{part} not in {refused}");
    }
    assert!(verdicts(mac).is_empty() && warnings().await.is_empty());
    let closed = order(&network, "192.168.1.81", Some(DevicePolicy::Blocked)).await;
    assert_eq!(closed.unwrap().devices, [mac]);
    let meant = order(&network, mac, Some(DevicePolicy::Direct))
        .await
        .unwrap();
    assert!(
        meant.notes[0].contains("all of them go direct"),
        "{:?}",
        meant.notes
    );
    assert_eq!(warnings().await, meant.notes);
}

#[test]
fn a_reload_that_is_refused_leaves_the_guard_as_it_was() {
    alone(
        "supervisor::network::worker::devices::tests::a_reload_that_is_refused_leaves_the_guard_as_it_was",
        SETUP,
        || run(refused_reload()),
    );
}

async fn refused_reload() {
    let place = Place::new("orders-refused");
    let closed = SECTIONS.replace("direct = [\"tv\", \"192.168.1.9\"]\n", "");
    let (mut network, config) = place.start_with(&closed).await;
    let guard = || nft::list_table(GUARD_NFT_TABLE).unwrap().unwrap();
    let before = guard();
    // Marks need a setting, and settings are written down there first.
    std::fs::remove_dir_all(place.run_dir()).unwrap();
    assert!(network.obey(&place.config(SECTIONS)).await.is_err());
    assert_eq!(
        guard(),
        before,
        "the guard of the configuration that was refused"
    );
    let last = guard::recall(&config.daemon.state_dir).unwrap().devices();
    assert_eq!(last, cygnet_config::LanDevices::default());
    std::fs::create_dir_all(place.run_dir()).unwrap();
    network.obey(&place.config(SECTIONS)).await.unwrap();
    assert_ne!(guard(), before);
}
