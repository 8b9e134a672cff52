//! Answers for tests.

use cygnet_daemon::api::{Count, Status};
use serde_json::json;

use super::view::Look;

/// Text alone, at Greenwich.
pub(super) const LOOK: Look = Look {
    colour: false,
    zone: None,
    keys: true,
};

/// Tunnels that are up, with an IKE SA and a Child SA each; they count from 1.
pub(super) fn status(tunnels: &[&str]) -> Status {
    let connection = |(number, name): (u64, &&str)| {
        let child = json!({
            "id": number, "name": "net", "state": "up", "spi_in": "3", "spi_out": "4", "suite": "aes128gcm16",
            "local": ["10.99.0.2/32"], "remote": ["0.0.0.0/0"], "packets_in": 0, "bytes_in": 0,
            "packets_out": 0, "bytes_out": 0, "mtu": 1438, "path_mtu": 1500, "age_s": 63.0, "rekey_in_s": 3301.5,
        });
        let ike_sa = json!({
                "id": number, "initiator_spi": "1", "responder_spi": "2", "initiator": true, "state": "up",
                "peer": "vpn.example.org", "local": "192.168.1.2:4500", "remote": "203.0.113.5:4500",
                "nat_local": true, "nat_remote": false, "suite": "aes128gcm16-prfsha256-curve25519",
                "virtual_addresses": ["10.99.0.2"], "age_s": 63.0, "rekey_in_s": 13890.0,
                "children": [child],
        });
        json!({
            "name": name, "state": "up", "reason": null, "retry_in_s": null,
            "packets_in": 0, "bytes_in": 0, "packets_out": 0, "bytes_out": 0, "ike_rekeys": 1, "child_rekeys": 4,
            "ike_sas": [ike_sa],
        })
    };
    let connections: Vec<_> = (1..).zip(tunnels).map(connection).collect();
    let status = json!({
        "version": "0.1.0", "config": "c", "processes": {"supervisor": 1, "engine": 2}, "uptime_s": 4711,
        "engine_restarts": 0, "guard": "on", "warnings": [], "leases": [],
        "engine": { "connections": connections, "drops": [], "ike_counters": [] },
    });
    serde_json::from_value(status).unwrap()
}

/// So many octets through a tunnel.
pub(super) fn carry(status: &mut Status, tunnel: usize, received: u64, sent: u64) {
    let connection = &mut status.engine.as_mut().unwrap().connections[tunnel];
    connection.bytes_in += received;
    connection.bytes_out += sent;
    let child = &mut connection.ike_sas[0].children[0];
    child.bytes_in += received;
    child.bytes_out += sent;
}

/// So many packets dropped.
pub(super) fn drop(status: &mut Status, reason: &str, count: u64) {
    let drops = &mut status.engine.as_mut().unwrap().drops;
    drops.push(Count {
        name: reason.to_owned(),
        count,
    });
}
