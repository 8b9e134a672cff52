//! What a seed decides beforehand: who the two nodes are, what lies between them, what is tried.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::signature::KeyKind;
use cygnet_ike::io::WantedAddress;
use cygnet_ike::policy::{
    ChildPolicy, Connection, CredentialId, EapMethods, Host, IdentityPattern, Lifetime, Limits,
    LocalAuth, Policy, PoolId, Remote, RemoteAuth, Retransmit, SelectorTemplate, Server, Start,
    TrustId,
};
use cygnet_ike::proposal::{EspProposal, IkeProposal};
use cygnet_wire::id::Identification;
use cygnet_wire::ts::TrafficSelector;

use crate::dice::{Dice, Stream};

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// May sit behind a NAT.
    A,
    /// Never does.
    B,
}

impl Side {
    /// Both.
    pub const BOTH: [Side; 2] = [Side::A, Side::B];

    /// The peer.
    pub fn other(self) -> Self {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::A => "A",
            Side::B => "B",
        })
    }
}

/// What is wrong with B's data path, in runs that are to fail: a simulator that finds nothing wrong
/// proves little unless it is seen to find these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Installs other keys than it was told.
    OtherKeys,
    /// Stops receiving on a Child SA when it stops sending on it.
    ForgetsEarly,
    /// Never finishes a `SwitchOut`.
    LosesAnswers,
    /// Goes on sending to where the peer was.
    StaysBehind,
    /// Keeps what it is told to remove.
    KeepsAll,
}

/// Name of the one connection, at both ends.
pub(crate) const CONNECTION: &str = "peer";
/// Largest address the pool lends.
pub(crate) const LENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 7);

/// Silence after which an end asks whether its peer is there.
pub(crate) const LIVENESS: Duration = Duration::from_secs(8);

/// Patient, so that two nodes that are both well seldom count each other for dead: with 30 % lost
/// each way a try fails with probability 0.51, all of them with 5e-8.
pub(crate) const RETRANSMIT: Retransmit = Retransmit {
    first: Duration::from_millis(500),
    factor: 1.5,
    most: Duration::from_secs(4),
    tries: 24,
};

/// How a run is set up.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// A calls B, which only answers; otherwise each calls the other.
    pub roadwarrior: bool,
    /// A NAT before A; it implies `roadwarrior`.
    pub nat: bool,
    /// A asks B for an address.
    pub lease: bool,
    /// IPv6 outside.
    pub v6: bool,
    /// Certificates instead of a pre-shared key.
    pub certificates: bool,
    /// A chain so long that IKE_AUTH travels in fragments.
    pub long_chain: bool,
    /// 1 or 2.
    pub children: usize,
    /// Children come up by traffic.
    pub traps: bool,
    /// B starts the children as well.
    pub both_start: bool,
    /// A key exchange for each Child SA.
    pub pfs: bool,
    /// A prefers groups that B refuses.
    pub group_mismatch: bool,
    /// B asks everybody for a cookie.
    pub cookies: bool,
    /// Both claim a NAT, so that ESP travels in UDP.
    pub claim_nat: bool,
    /// SAs live for less than the run.
    pub short_lives: bool,
    /// SAs carry few packets.
    pub few_packets: bool,
    /// Reauthentication by the clock.
    pub reauthenticate: bool,
    /// Nothing is taken down and nobody falls silent for long, so traffic must never stop.
    pub calm: bool,
    /// Nodes lose their memory now and then, or shut down and start anew.
    pub reboots: bool,
    /// Once, nothing passes for so long that each counts the other for dead.
    pub long_outage: bool,
    /// CBC with HMAC instead of a combined mode.
    pub cbc: bool,
    /// Percent of datagrams lost, from A and from B.
    pub loss: [u64; 2],
    /// Percent of datagrams that arrive twice.
    pub duplicates: u64,
    /// Percent of datagrams that are overtaken by later ones.
    pub reordered: u64,
    /// Usual one-way delay, least and most, in milliseconds.
    pub delay: (u64, u64),
    /// Answers to questions and orders take this long at most, in milliseconds.
    pub slowness: u64,
    /// How long things are done and go wrong.
    pub chaos: Duration,
    /// Both do MOBIKE.
    pub mobike: bool,
    /// A, which calls B, is at another address now and then.
    pub moves: bool,
    /// No larger IP packet passes, and nobody says so.
    pub path_mtu: u16,
    /// A server that is not there stands before B in the list of whoever calls B.
    pub dead_first: bool,
    /// Never drawn; for runs that are to fail.
    pub sabotage: Option<Sabotage>,
}

impl Scenario {
    /// That of a seed.
    pub fn of(seed: u64) -> Self {
        Self::draw(&mut Dice::new(seed, Stream::Scenario))
    }

    fn draw(dice: &mut Dice) -> Self {
        let roadwarrior = dice.chance(50);
        let nat = roadwarrior && dice.chance(60);
        let certificates = dice.chance(15);
        let calm = dice.chance(30);
        let lossy = dice.chance(70);
        let mut loss = || if lossy { dice.below(31) } else { 0 };
        let loss = [loss(), loss()];
        let least = dice.below(60);
        Self {
            roadwarrior,
            nat,
            lease: roadwarrior && dice.chance(40),
            v6: !nat && dice.chance(20),
            certificates,
            long_chain: certificates && dice.chance(50),
            children: if dice.chance(40) { 2 } else { 1 },
            traps: dice.chance(20),
            both_start: !roadwarrior && dice.chance(60),
            pfs: dice.chance(40),
            group_mismatch: dice.chance(15),
            cookies: dice.chance(15),
            claim_nat: dice.chance(60),
            short_lives: dice.chance(25),
            few_packets: dice.chance(15),
            reauthenticate: dice.chance(15),
            calm,
            reboots: !calm && dice.chance(15),
            long_outage: !calm && dice.chance(5),
            cbc: dice.chance(10),
            loss,
            duplicates: if dice.chance(60) { dice.below(16) } else { 0 },
            reordered: if dice.chance(60) { dice.below(16) } else { 0 },
            delay: (least, least + dice.below(100)),
            slowness: dice.pick(&[0, 5, 50, 500]).unwrap_or(0),
            chaos: Duration::from_secs(40 + dice.below(100)),
            mobike: dice.chance(60),
            moves: roadwarrior && dice.chance(50),
            path_mtu: dice.pick(&[1500, 1500, 1492, 1431, 1280]).unwrap_or(1500),
            dead_first: dice.chance(25),
            sabotage: None,
        }
    }

    /// Address of A as itself knows it after so many moves.
    pub(crate) fn place(&self, moves: u16) -> IpAddr {
        match self.address(Side::A) {
            IpAddr::V4(first) => {
                let ([a, b, c, d], [more, _]) = (first.octets(), moves.to_le_bytes());
                Ipv4Addr::new(a, b, c.wrapping_add(more), d).into()
            }
            IpAddr::V6(first) => {
                let [a, b, c, d, e, f, g, h] = first.segments();
                Ipv6Addr::new(a, b, c, d.wrapping_add(moves), e, f, g, h).into()
            }
        }
    }

    /// Address of a node at the start as itself knows it.
    pub(crate) fn address(&self, side: Side) -> IpAddr {
        match (side, self.v6, self.nat) {
            (Side::A, true, _) => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).into(),
            (Side::B, true, _) => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1).into(),
            (Side::A, false, true) => Ipv4Addr::new(192, 168, 1, 2).into(),
            (Side::A, false, false) => Ipv4Addr::new(192, 0, 2, 1).into(),
            (Side::B, false, _) => Ipv4Addr::new(198, 51, 100, 1).into(),
        }
    }

    /// Paths on which `side`, which is at `own`, tries to reach that server of its list.
    pub(crate) fn way_out(
        &self,
        side: Side,
        own: IpAddr,
        server: usize,
    ) -> Option<(SocketAddr, SocketAddr)> {
        let port = Limits::default().ports.ike;
        let servers = self.servers(side);
        let address = servers.get(server)?.host.address()?;
        Some(((own, port).into(), (address, port).into()))
    }

    /// Who starts children by itself.
    fn start(&self, side: Side) -> Start {
        match (side, self.traps) {
            (Side::B, _) if !self.both_start => Start::Manual,
            (_, true) => Start::Traffic,
            (_, false) => Start::Always,
        }
    }

    /// Each `revision` differs a little, so that a reload touches the connection.
    pub(crate) fn policy(&self, side: Side, revision: u64) -> Arc<Policy> {
        let mut connection = self.connection(side);
        connection.keepalive += Duration::from_millis(revision);
        let connection = Arc::new(connection);
        let mut limits = Limits::default();
        if self.cookies && side == Side::B {
            limits.cookie_threshold = 0;
        }
        Arc::new(Policy {
            connections: vec![connection],
            limits,
            esp_in_udp_only: false,
        })
    }

    fn connection(&self, side: Side) -> Connection {
        let calls = side == Side::A || !self.roadwarrior;
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Connection {
            name: CONNECTION.to_owned(),
            remote: if calls {
                Remote::Hosts {
                    servers: self.servers(side),
                    port: Limits::default().ports.ike,
                }
            } else {
                Remote::Any
            },
            local_address: None,
            local_identity: Some(identity(side)),
            remote_identity: IdentityPattern::Exactly(identity(side.other())),
            local_auth: self.local_auth(side),
            remote_auth: self.remote_auth(),
            eap: EapMethods::default(),
            ike_proposals: self.ike_proposals(side),
            children: (0..self.children)
                .map(|n| Arc::new(self.child(side, n)))
                .collect(),
            request_virtual: match side {
                Side::A if self.lease => vec![WantedAddress::V4(None)],
                _ => Vec::new(),
            },
            pool: (side == Side::B && self.lease).then(|| PoolId("pool".to_owned())),
            lifetime: self.lifetime(Duration::from_secs(45), minutes(240), None),
            reauthenticate: (self.reauthenticate && side == Side::A)
                .then_some(Duration::from_secs(50)),
            liveness: LIVENESS,
            retransmit: RETRANSMIT,
            claim_nat: self.claim_nat,
            fragment_size: if self.long_chain { 576 } else { 1280 },
            search_mtu: true,
            mobike: self.mobike,
            keepalive: Duration::from_secs(20),
            unique: true,
        }
    }

    fn servers(&self, side: Side) -> Vec<Server> {
        let dead = (side == Side::A && self.dead_first).then_some(self.nobody());
        let all = dead.into_iter().chain([self.address(side.other())]);
        all.map(|address| Host::Address(address).into()).collect()
    }

    /// Where nobody is.
    fn nobody(&self) -> IpAddr {
        match self.v6 {
            true => Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 1).into(),
            false => Ipv4Addr::new(198, 51, 100, 99).into(),
        }
    }

    fn local_auth(&self, side: Side) -> LocalAuth {
        if !self.certificates {
            return LocalAuth::Psk(CredentialId("psk".to_owned()));
        }
        let mut chain = vec![certificate(side)];
        if self.long_chain {
            chain.extend([vec![0x30; 1400], vec![0x31; 1700]]);
        }
        LocalAuth::Certificate {
            credential: CredentialId(side.to_string()),
            key: KeyKind::Ed25519,
            pss: false,
            chain,
            identities: Vec::new(),
        }
    }

    fn remote_auth(&self) -> RemoteAuth {
        if !self.certificates {
            return RemoteAuth::Psk(CredentialId("psk".to_owned()));
        }
        RemoteAuth::Certificate {
            trust: TrustId("anchors".to_owned()),
            authorities: vec![[7; 20]],
            allow_sha1: false,
        }
    }

    fn ike_proposals(&self, side: Side) -> Vec<IkeProposal> {
        let ciphers = if self.cbc {
            "aes256-sha256"
        } else {
            "aes128gcm16-prfsha256"
        };
        let groups = match (self.group_mismatch, side) {
            (true, Side::A) => "ecp256-x25519",
            _ => "x25519",
        };
        let text = format!("{ciphers}-{groups}");
        text.parse().into_iter().collect()
    }

    fn esp_proposals(&self, side: Side) -> Vec<EspProposal> {
        let ciphers = if self.cbc {
            "aes256-sha256"
        } else {
            "aes128gcm16"
        };
        let groups = match (self.pfs, self.group_mismatch, side) {
            (true, true, Side::A) => "-ecp256-x25519",
            (true, _, _) => "-x25519",
            (false, ..) => "",
        };
        let text = format!("{ciphers}{groups}");
        text.parse().into_iter().collect()
    }

    fn child(&self, side: Side, number: usize) -> ChildPolicy {
        let network = |of: Side| {
            if of == Side::A && self.lease {
                return match side {
                    Side::A => SelectorTemplate::Dynamic,
                    // What the client has been lent, and nothing else.
                    Side::B => SelectorTemplate::Dynamic,
                };
            }
            let third = (10 * number + of.index()) as u8;
            SelectorTemplate::Fixed(TrafficSelector::from_prefix(
                Ipv4Addr::new(10, 1, third, 0).into(),
                24,
            ))
        };
        ChildPolicy {
            name: format!("child{number}"),
            local: vec![network(side)],
            remote: vec![network(side.other())],
            esp_proposals: self.esp_proposals(side),
            start: self.start(side),
            lifetime: self.lifetime(
                Duration::from_secs(25),
                Duration::from_secs(3600),
                self.few_packets.then_some(25),
            ),
            replay_window: 4096,
        }
    }

    fn lifetime(&self, short: Duration, long: Duration, packets: Option<u64>) -> Lifetime {
        Lifetime {
            time: if self.short_lives { short } else { long },
            bytes: None,
            packets,
            jitter_percent: 20,
            // Room for a rekey whose messages are lost again and again.
            hard_percent: 200,
        }
    }
}

pub(crate) fn identity(side: Side) -> Identification {
    Identification::fqdn(match side {
        Side::A => "a.example",
        Side::B => "b.example",
    })
}

/// Stands for a certificate: the core passes certificates on without looking inside.
pub(crate) fn certificate(side: Side) -> Vec<u8> {
    format!("certificate of {side}").into_bytes()
}
