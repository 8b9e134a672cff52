//! Orders about devices, in a network namespace of their own.

use std::path::{Path, PathBuf};

use cygnet_gateway::{DevicePolicy, GUARD_NFT_TABLE, PLAN_TABLE};
use cygnet_linux::nft;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::alone::alone;
use crate::supervisor::network::Network;

const SETUP: &str = "ip link set lo up; ip link add eth0 type veth peer name far0; ip link set far0 up; ip addr add 192.168.1.2/24 dev eth0; \
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

    async fn start(&self) -> (Network, Config) {
        let state = self.0.join("state");
        let text = format!("[daemon]\nstate_dir = \"{}\"\n{SECTIONS}", state.display());
        let config = Config::parse("t", &text, &mut |p| Err(format!("no {p}"))).unwrap();
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
    network.order(DeviceOrder { device, policy }, reply);
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
    let last = guard::last_devices(&config.daemon.state_dir).unwrap();
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
