//! For the fuzz targets: the parsers of the supervisor that read what the engine, and the process that lends addresses,
//! have written; and what the process that answers for names makes of strangers' messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cygnet_dhcp::{Record, Standing};
use cygnet_gateway::Mac;

use crate::api::{ConnectionStatus, EngineStatus};
use crate::dhcp::{FromDhcp, State};
use crate::dns::messages::{LetOut, NoWay, Ways};
use crate::dns::{Handled, handle as dns_handle};
use crate::ipc::{Carried, CarriedChild, Changed, Selector, SupervisorAsk, ToSupervisor};

/// A message of the engine, written again after it was read; `None`: the bytes are none.
#[must_use]
pub fn engine_message(body: &[u8]) -> Option<Vec<u8>> {
    let message: ToSupervisor = postcard::from_bytes(body).ok()?;
    postcard::to_allocvec(&message).ok()
}

/// A message of the process that lends addresses, written again after it was read; `None`: the bytes are none.
#[must_use]
pub fn dhcp_message(body: &[u8]) -> Option<Vec<u8>> {
    let message: FromDhcp = postcard::from_bytes(body).ok()?;
    postcard::to_allocvec(&message).ok()
}

/// In the configuration of [`dns`], what goes direct by its name.
pub const DNS_DIRECT_DOMAIN: &str = "tv.example";

/// What became of a device's question.
#[derive(Debug)]
pub struct DnsHandled {
    /// What the device is sent.
    pub sent: Option<Vec<u8>>,
    /// Octets of that at most.
    pub most: usize,
    /// What goes direct before.
    pub let_out: Vec<DnsLetOut>,
}

/// A name, and addresses that go direct for it.
#[derive(Debug)]
pub struct DnsLetOut {
    /// As domains are written.
    pub name: String,
    /// At least one.
    pub addresses: Vec<IpAddr>,
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a thread can have a runtime");
}

/// A device asks `question`, and whoever is asked for it says `said`: what came of it, and the same from what was kept.
///
/// # Panics
/// Where a thread can have no runtime.
#[must_use]
pub fn dns(question: &[u8], said: &[u8]) -> Vec<DnsHandled> {
    let ways = Ways {
        tunnel: Err(NoWay::Down("home".to_owned())),
        tls: None,
        direct: vec!["corp.example".to_owned()],
        direct_resolvers: Vec::new(),
        direct_domains: vec![DNS_DIRECT_DOMAIN.to_owned()],
        lan_domains: vec!["lan".to_owned()],
        cache: 1,
    };
    let handled = RUNTIME.with(|runtime| runtime.block_on(dns_handle(&ways, question, said)));
    let public = |Handled { sent, let_out }| {
        let let_out =
            (let_out.into_iter()).map(|LetOut { name, addresses }| DnsLetOut { name, addresses });
        let (sent, most) = sent.unzip();
        DnsHandled {
            sent,
            most: most.unwrap_or_default(),
            let_out: let_out.collect(),
        }
    };
    handled.into_iter().map(public).collect()
}

/// One message of each kind of the process that lends addresses.
#[must_use]
pub fn dhcp_messages() -> Vec<Vec<u8>> {
    let lease = Mac::new([2, 0, 0, 0, 0, 9]).map(|mac| Record {
        address: Ipv4Addr::new(192, 168, 1, 100),
        mac,
        client: Some(vec![0, 1, 2]),
        name: Some("phone".to_owned()),
        remaining_s: 3600,
    });
    let messages = [
        FromDhcp::State(State {
            standing: Standing::Silent,
            others: vec![Ipv4Addr::new(192, 168, 1, 1)],
            full: false,
        }),
        FromDhcp::Leases(lease.into_iter().collect()),
    ];
    (messages.iter())
        .filter_map(|message| postcard::to_allocvec(message).ok())
        .collect()
}

/// One message of each kind.
#[must_use]
pub fn engine_messages() -> Vec<Vec<u8>> {
    let connection = || "office".to_owned();
    let addresses: Vec<IpAddr> = vec![
        Ipv4Addr::new(10, 99, 0, 2).into(),
        Ipv6Addr::LOCALHOST.into(),
    ];
    let status = EngineStatus {
        connections: vec![ConnectionStatus {
            name: connection(),
            state: "waiting".to_owned(),
            reason: Some("no answer".to_owned()),
            retry_in_s: Some(1.5),
            packets_in: 812,
            bytes_in: 1_021_833,
            packets_out: 640,
            bytes_out: 90_211,
            ike_rekeys: 1,
            child_rekeys: 4,
            ike_sas: Vec::new(),
        }],
        ..EngineStatus::default()
    };
    let asks = [
        SupervisorAsk::Sign {
            credential: connection(),
            scheme: 3,
            octets: vec![1; 32],
        },
        SupervisorAsk::PskAuth {
            credential: connection(),
            prf: 5,
            octets: vec![2; 32],
        },
        SupervisorAsk::EapVerify {
            credential: connection(),
            user: "alice".to_owned(),
            source: Ipv4Addr::new(203, 0, 113, 9).into(),
            challenges: [[3; 16], [4; 16]],
            nt_response: [5; 24],
        },
        SupervisorAsk::EapRespond {
            credential: connection(),
            user: "alice".to_owned(),
            challenges: [[3; 16], [4; 16]],
        },
        SupervisorAsk::Resolve {
            name: "vpn.example.org".to_owned(),
        },
        SupervisorAsk::Lease {
            pool: "server".to_owned(),
            identity: "alice".to_owned(),
            device: Some(([203, 0, 113, 9], 4500).into()),
            here: vec![5],
            ike_sa: 7,
            v4: Some(Some(Ipv4Addr::new(10, 99, 0, 2))),
            v6: Some(None),
        },
    ];
    let mut messages = vec![
        ToSupervisor::Ready,
        ToSupervisor::ReleaseLease { ike_sa: 7 },
        ToSupervisor::SetVirtual {
            connection: connection(),
            addresses: addresses.clone(),
            dns: addresses.clone(),
        },
        ToSupervisor::Reach {
            connection: connection(),
            remote: vec![ipnet::Ipv4Net::default().into()],
            mtu: 1400,
            endpoint: addresses.first().copied(),
        },
        ToSupervisor::Carried {
            ike_sa: 7,
            carried: Some(Box::new(carried(connection(), addresses))),
        },
        ToSupervisor::Carried {
            ike_sa: 7,
            carried: None,
        },
        ToSupervisor::Status { request: 1, status },
        ToSupervisor::Heartbeat,
        ToSupervisor::Drained,
    ];
    let why = || "no answer from 203.0.113.9 for 8 s".to_owned();
    let (local, remote) = (
        ([192, 0, 2, 1], 4500).into(),
        ([203, 0, 113, 9], 4500).into(),
    );
    let changes = [
        Changed::Up {
            local,
            remote,
            server: None,
        },
        Changed::Moved {
            local,
            remote,
            server: Some(2),
        },
        Changed::Failed { why: why() },
        Changed::Down { why: why() },
    ];
    messages.extend(changes.map(|change| ToSupervisor::Changed {
        connection: connection(),
        change,
    }));
    messages.extend(
        (1..)
            .zip(asks)
            .map(|(id, ask)| ToSupervisor::Ask { id, ask }),
    );
    (messages.iter())
        .filter_map(|message| postcard::to_allocvec(message).ok())
        .collect()
}

/// What a hook is told of.
fn carried(connection: String, addresses: Vec<IpAddr>) -> Carried {
    let selector = |address: Ipv4Addr| Selector {
        first: address.into(),
        last: address.into(),
        protocol: 17,
        ports: (53, 53),
    };
    Carried {
        connection,
        local: ([192, 0, 2, 1], 4500).into(),
        remote: ([203, 0, 113, 9], 4500).into(),
        local_identity: "box".to_owned(),
        remote_identity: "vpn.example.org".to_owned(),
        claimed_identity: Some("10.0.2.15".to_owned()),
        assigned: addresses.clone(),
        dns: addresses.clone(),
        lent: addresses,
        children: vec![CarriedChild {
            name: "net".to_owned(),
            local: vec![selector(Ipv4Addr::new(10, 99, 0, 2))],
            remote: vec![selector(Ipv4Addr::new(10, 1, 0, 1))],
        }],
    }
}
