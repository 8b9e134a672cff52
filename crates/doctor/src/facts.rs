//! What is known of an installation: what the checks judge, and all that they judge by.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cygnet_daemon::api::{ClockStatus, ConnectionStatus, Status};
use cygnet_daemon::survey::Leg;
use cygnet_gateway::Lan;
use cygnet_linux::{GuardState, UdpOffloads};
use ipnet::IpNet;

use crate::probe::{ike, web};

/// Everything.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) configuration: Configuration,
    /// What the running program says; the error says why it does not.
    pub(crate) status: Asked<Status>,
    pub(crate) units: Units,
    pub(crate) clock: Clock,
    pub(crate) certificates: Vec<Certificate>,
    /// A sentence for each certificate that has ended, or will within the month.
    pub(crate) expiring: Vec<String>,
    pub(crate) tunnels: Vec<Tunnel>,
    pub(crate) network: Network,
    pub(crate) leaks: Leaks,
    pub(crate) machine: Machine,
}

impl Facts {
    /// Connections of the running program.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &ConnectionStatus> {
        connections(&self.status)
    }

    pub(crate) fn is_up(&self, tunnel: &str) -> bool {
        let mut connections = self.connections();
        connections.any(|it| it.name == tunnel && it.state == "up")
    }
}

/// Connections of the running program, none where it says nothing.
pub(crate) fn connections(status: &Asked<Status>) -> impl Iterator<Item = &ConnectionStatus> {
    let engine = status.as_ref().ok().and_then(|s| s.engine.as_ref());
    engine.into_iter().flat_map(|engine| &engine.connections)
}

/// An answer, or one sentence why there is none.
pub(crate) type Asked<T> = Result<T, String>;

/// The file, and what it makes of this machine.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// Its name, from the root of the file system.
    pub(crate) path: String,
    /// There is such a file.
    pub(crate) exists: bool,
    /// One line that sums it up.
    pub(crate) read: Asked<String>,
    /// Interfaces of the LAN that it is the gateway of.
    pub(crate) lan: Vec<String>,
    /// The gateway's tunnel.
    pub(crate) gateway: Option<String>,
    /// Names that devices of the LAN ask for are asked through the tunnel.
    pub(crate) answers: bool,
    /// Addresses are lent to devices of the LAN.
    pub(crate) lends: Option<Lends>,
    /// Devices are told that this machine is the router for IPv6.
    pub(crate) advertises: bool,
    pub(crate) server: bool,
    /// A tunnel of it is a site's.
    pub(crate) site: bool,
    /// All TUNs of it.
    pub(crate) interfaces: Vec<String>,
}

impl Configuration {
    /// Whether packets are forwarded here.
    pub(crate) fn is_router(&self) -> bool {
        self.gateway.is_some() || self.server || self.site
    }
}

/// What devices are told with the addresses that they are lent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lends {
    /// Whom to ask for names; `None`: this machine.
    pub(crate) resolvers: Option<Vec<IpAddr>>,
}

/// What starts it at boot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Units {
    /// systemd does not run here.
    NoSystemd,
    /// They start it with another configuration.
    OtherConfiguration,
    /// Each unit that is needed, and whether it is started at boot.
    Are(Vec<(&'static str, bool)>),
}

/// A unit of the program's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// `cygnet.service`.
    pub name: &'static str,
    /// Its text, with what is dropped in; `None`: it is not installed.
    pub text: Option<String>,
    /// systemd starts it at boot.
    pub enabled: bool,
}

/// The date.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Seconds since 1970; the error says why that cannot be right.
    pub(crate) date: Asked<i64>,
    /// Somebody keeps it right.
    pub(crate) synchronised: bool,
    /// What a web host said, and how far ahead of it we are, in seconds.
    pub(crate) ahead: Option<(String, i64)>,
    /// By whose date the running program judges while ours cannot be right.
    pub(crate) servers: Option<ClockStatus>,
}

impl Clock {
    /// The date: that of time servers where it counts, else ours.
    pub(crate) fn known(&self) -> Option<i64> {
        let servers = self.servers.as_ref().map(|servers| servers.date);
        servers.or(self.date.as_ref().ok().copied())
    }
}

/// A certificate that a tunnel, the server or an authority has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Whose, in words.
    pub(crate) whose: String,
    /// In seconds since 1970.
    pub(crate) not_before: i64,
    /// In seconds since 1970.
    pub(crate) not_after: i64,
}

/// A tunnel of the configuration.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) name: String,
    /// MTU of its interface, or what it will have.
    pub(crate) mtu: u16,
    /// While it is up it finds out by itself how large packets may be.
    pub(crate) searches_mtu: bool,
    /// A suite that it is set up to offer first: `aes256gcm16`.
    pub(crate) offers: String,
    /// Whom it calls; empty where the peer calls.
    pub(crate) hosts: Vec<Host>,
}

/// A host that a tunnel calls.
#[derive(Debug)]
pub(crate) struct Host {
    /// As it is written.
    pub(crate) name: String,
    /// Where that is.
    pub(crate) servers: Asked<Vec<Server>>,
}

/// One address of a host.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: IpAddr,
    /// The interface by which packets of the tunnel leave.
    pub(crate) route: Asked<String>,
    /// A strict reverse-path filter keeps answers to anybody but the program away.
    pub(crate) hidden: bool,
    pub(crate) found: Asked<ike::Found>,
}

/// The network of this machine.
#[derive(Debug)]
pub(crate) struct Network {
    /// Settings of the kernel, by their paths below /proc/sys.
    pub(crate) settings: BTreeMap<String, String>,
    /// What of the guard is in place; `None`: none is wanted.
    pub(crate) guard: Option<Asked<GuardState>>,
    /// Other programs' firewalls that are in the way.
    pub(crate) firewalls: Asked<Vec<String>>,
    /// The LAN that this machine is the gateway of, with the policies that count for its devices.
    pub(crate) lan: Option<Lan>,
    /// Why policies given by command are not known.
    pub(crate) policies: Asked<()>,
    /// Each interface of the LAN.
    pub(crate) legs: Vec<Leg>,
}

/// What may go past a tunnel.
#[derive(Debug)]
pub(crate) struct Leaks {
    /// Of each way that was tried.
    pub(crate) egress: Vec<Egress>,
    /// Resolvers of this machine; a stub's are those that it asks.
    pub(crate) resolvers: Asked<Vec<Resolver>>,
    /// A program of this machine answers others at the port of DNS.
    pub(crate) answerer: bool,
    /// Addresses of this machine with their networks.
    pub(crate) local: Vec<IpNet>,
    /// Tunnels that all of this machine's own traffic takes while they are up.
    pub(crate) own: Vec<Own>,
    /// The interface by which this machine reaches the internet by IPv6.
    pub(crate) ipv6: Option<String>,
    /// Interfaces where a router announces IPv6.
    pub(crate) announced: Asked<Vec<String>>,
}

/// Who is asked for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolver {
    pub(crate) address: IpAddr,
    /// The interface by which a query leaves, if there is a way.
    pub(crate) leaves: Option<String>,
}

/// A tunnel that all of this machine's own traffic takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Own {
    /// The tunnel.
    pub(crate) tunnel: String,
    /// Its interface.
    pub(crate) interface: String,
}

/// A web host, seen through a tunnel and around it.
#[derive(Debug)]
pub(crate) struct Egress {
    /// The tunnel.
    pub(crate) tunnel: String,
    pub(crate) ipv6: bool,
    pub(crate) through: Asked<web::Seen>,
    pub(crate) around: Asked<web::Seen>,
}

/// Processor and kernel.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The processor has instructions for AES-GCM.
    pub(crate) aes: bool,
    /// Of the kernel.
    pub(crate) release: String,
    pub(crate) tun: bool,
    pub(crate) offloads: UdpOffloads,
    /// Datagrams that a socket of ours had no room for: port, and how many.
    pub(crate) overflows: Vec<(u16, u64)>,
    /// Packets that interfaces of tunnels have passed, both ways.
    pub(crate) passed: u64,
}

/// A gateway with nothing wrong, for tests of the checks.
#[cfg(test)]
pub(crate) fn healthy() -> Facts {
    use cygnet_daemon::survey::There;
    use serde_json::json;

    use crate::probe::ike::{Answer, Found, Mtu, Outcome};

    let child = json!({
        "id": 1, "name": "net", "state": "up", "spi_in": "1", "spi_out": "2",
        "suite": "aes256gcm16-esn", "local": [], "remote": [],
        "packets_in": 600_000, "bytes_in": 1, "packets_out": 400_000, "bytes_out": 1,
        "age_s": 60.0, "rekey_in_s": null,
    });
    let sa = json!({
        "id": 1, "initiator_spi": "1", "responder_spi": "2", "initiator": true, "state": "up",
        "peer": "vpn.example.org", "local": "192.168.1.2:4500", "remote": "203.0.113.5:4500",
        "nat_local": true, "nat_remote": false, "suite": "aes256gcm16-prfsha384-ecp384",
        "virtual_addresses": ["10.99.0.2"], "dns": ["9.9.9.9"], "age_s": 60.0,
        "rekey_in_s": null, "children": [child],
    });
    let home = json!({
        "name": "home", "state": "up", "reason": null, "retry_in_s": null, "ike_sas": [sa],
    });
    let version = env!("CARGO_PKG_VERSION");
    let status = json!({
        "version": version, "config": "/etc/cygnet/cygnet.toml",
        "processes": {"supervisor": 1, "engine": 2}, "uptime_s": 3600, "engine_restarts": 0,
        "guard": "on", "warnings": [], "leases": [],
        "engine": {"drops": [], "ike_counters": [], "connections": [home]},
    });
    let settings = [
        ("net/ipv4/conf/all/forwarding", "1"),
        ("net/ipv4/conf/eth0/forwarding", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv6/conf/eth0/forwarding", "1"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/eth0/send_redirects", "0"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/eth0/accept_redirects", "1"),
        ("net/ipv6/conf/eth0/accept_redirects", "0"),
        ("net/ipv4/conf/all/rp_filter", "1"),
        ("net/ipv4/conf/eth0/rp_filter", "1"),
        ("net/ipv4/conf/cyg-home/rp_filter", "2"),
    ];
    let answered = Outcome::Answered(Answer::Accepted);
    Facts {
        configuration: Configuration {
            path: "/etc/cygnet/cygnet.toml".into(),
            exists: true,
            read: Ok("tunnel home; gateway for eth0 through home.".into()),
            lan: vec!["eth0".into()],
            gateway: Some("home".into()),
            answers: false,
            lends: None,
            advertises: false,
            server: false,
            site: false,
            interfaces: vec!["cyg-home".into()],
        },
        status: serde_json::from_value(status).map_err(|e| e.to_string()),
        units: Units::Are(vec![
            ("cygnet.service", true),
            ("cygnet-guard.service", true),
        ]),
        clock: Clock {
            date: Ok(1_795_651_200),
            synchronised: true,
            ahead: None,
            servers: None,
        },
        certificates: vec![Certificate {
            whose: "the certificate of tunnel home (CN=box)".into(),
            not_before: 1_795_000_000,
            not_after: 1_830_000_000,
        }],
        expiring: Vec::new(),
        tunnels: vec![Tunnel {
            name: "home".into(),
            mtu: 1438,
            searches_mtu: true,
            offers: "aes256gcm16".into(),
            hosts: vec![Host {
                name: "vpn.example.org".into(),
                servers: Ok(vec![Server {
                    address: IpAddr::from([203, 0, 113, 5]),
                    route: Ok("eth0".into()),
                    hidden: false,
                    found: Ok(Found {
                        ports: vec![(500, answered), (4500, answered)],
                        mtu: Mtu::Passes(1500),
                    }),
                }]),
            }],
        }],
        network: Network {
            settings: settings
                .map(|(path, value)| (path.to_owned(), value.to_owned()))
                .into(),
            guard: Some(Ok(GuardState {
                routing: true,
                filter: true,
                absent: false,
            })),
            firewalls: Ok(Vec::new()),
            lan: Some(Lan {
                interfaces: vec!["eth0".parse().unwrap()],
                networks: vec!["192.168.1.0/24".parse().unwrap()],
                ..Lan::default()
            }),
            policies: Ok(()),
            legs: vec![Leg {
                interface: "eth0".into(),
                there: Ok(There {
                    up: true,
                    carrier: true,
                    addresses: vec!["192.168.1.2/24".parse().unwrap()],
                }),
            }],
        },
        leaks: Leaks {
            egress: Vec::new(),
            resolvers: Ok(vec![Resolver {
                address: IpAddr::from([9, 9, 9, 9]),
                leaves: Some("eth0".into()),
            }]),
            answerer: false,
            local: vec!["192.168.1.2/24".parse().unwrap()],
            own: Vec::new(),
            ipv6: Some("eth0".into()),
            announced: Ok(Vec::new()),
        },
        machine: Machine {
            aes: true,
            release: "6.1.0-18-amd64".into(),
            tun: true,
            offloads: UdpOffloads {
                segmentation: true,
                receive: true,
            },
            overflows: Vec::new(),
            passed: 0,
        },
    }
}
