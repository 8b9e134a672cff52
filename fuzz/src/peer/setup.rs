//! What the two are set up with: suite, secrets, identities, and the endpoint's policy.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::Random;
use cygnet_crypto::kex::Ephemeral;
use cygnet_crypto::signature::SigningKey;
use cygnet_crypto::suite::{Encryption, Group, IkeSuite, Prf};
use cygnet_ike::io::WantedAddress;
use cygnet_ike::policy::{
    ChildPolicy, Connection, CredentialId, EapLogin, EapMethods, Host, IdentityPattern, Lifetime,
    Limits, LocalAuth, Policy, PoolId, Remote, RemoteAuth, Retransmit, SelectorTemplate, Start,
    TrustId,
};
use cygnet_ike::proposal::{EspProposal, IkeProposal};
use cygnet_wire::id::Identification;
use cygnet_wire::ts::TrafficSelector;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{CONNECTION, log_in};

pub(super) const SUITE: IkeSuite = IkeSuite {
    encryption: Encryption::AesGcm16_128,
    integrity: None,
    prf: Prf::HmacSha2_256,
    group: Group::Curve25519,
};
pub(super) const SECRET: &[u8] = b"correct horse battery staple";

/// How the endpoint is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// The endpoint calls; else the peer does.
    pub(crate) endpoint_calls: bool,
    /// The peer has a certificate.
    pub(crate) certificate: bool,
    /// Everybody is asked for a cookie.
    pub(crate) cookies: bool,
    /// Who calls may log in by EAP: at the endpoint, or the endpoint at the peer.
    pub(crate) log_in: bool,
}

impl Setup {
    pub(crate) fn of(bits: u8) -> Self {
        Self {
            endpoint_calls: bits & 1 != 0,
            certificate: bits & 2 != 0,
            cookies: bits & 4 != 0,
            log_in: bits & 8 != 0,
        }
    }
}

pub(super) struct Repeating(ChaCha8Rng);

impl Repeating {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }
}

impl Random for Repeating {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }
}

/// The peer's share in every key exchange.
pub(crate) fn share() -> Ephemeral {
    Ephemeral::generate(Group::Curve25519, &mut Repeating::new(7))
}

pub(crate) fn ike_proposals() -> Vec<IkeProposal> {
    parsed("aes128gcm16-prfsha256-x25519")
}

pub(crate) fn esp_proposals() -> Vec<EspProposal> {
    let mut proposals = parsed::<EspProposal>("aes128gcm16-x25519");
    proposals.extend(parsed::<EspProposal>("aes128gcm16"));
    proposals
}

fn parsed<P: std::str::FromStr>(text: &str) -> Vec<P> {
    text.parse().into_iter().collect()
}

/// The peer's certificate; the endpoint never looks inside.
pub(crate) const CERTIFICATE: &[u8] = b"certificate of the peer";

pub(super) fn key() -> SigningKey {
    // RFC 8410 §7.
    let mut der = vec![
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    der.extend([9; 32]);
    SigningKey::from_der(&der).expect("thirty-two octets are an Ed25519 key")
}

pub(crate) fn peer_identity() -> Identification {
    Identification::fqdn("peer.example")
}

pub(super) fn policy(setup: Setup, peer: IpAddr) -> Policy {
    let lifetime = Lifetime {
        time: Duration::from_secs(3600),
        bytes: None,
        packets: None,
        jitter_percent: 0,
        hard_percent: 10,
    };
    let child = |name: &str, start: Start, local: SelectorTemplate, remote: SelectorTemplate| {
        Arc::new(ChildPolicy {
            name: name.to_owned(),
            local: vec![local],
            remote: vec![remote],
            esp_proposals: esp_proposals(),
            start,
            lifetime,
            replay_window: 64,
        })
    };
    let always = if setup.endpoint_calls {
        Start::Always
    } else {
        Start::Manual
    };
    let network = |third| SelectorTemplate::Fixed(subnet(third));
    let connection = Connection {
        name: CONNECTION.to_owned(),
        remote: if setup.endpoint_calls {
            Remote::Hosts {
                servers: vec![Host::Address(peer).into()],
                port: 500,
            }
        } else {
            Remote::Any
        },
        local_address: None,
        local_identity: Some(Identification::fqdn("endpoint.example")),
        remote_identity: IdentityPattern::Any,
        local_auth: if setup.log_in && setup.endpoint_calls {
            LocalAuth::Eap(EapLogin::Password {
                user: log_in::USER.to_owned(),
                credential: CredentialId("password".to_owned()),
            })
        } else {
            LocalAuth::Psk(CredentialId("psk".to_owned()))
        },
        remote_auth: if setup.certificate {
            RemoteAuth::Certificate {
                trust: TrustId("anchors".to_owned()),
                authorities: vec![[3; 20]],
                allow_sha1: true,
            }
        } else {
            RemoteAuth::Psk(CredentialId("psk".to_owned()))
        },
        eap: EapMethods {
            passwords: (setup.log_in && !setup.endpoint_calls)
                .then(|| CredentialId("users".to_owned())),
            ..EapMethods::default()
        },
        ike_proposals: ike_proposals(),
        children: vec![
            child("one", always, network(1), network(2)),
            child("two", Start::Manual, network(3), network(4)),
            child(
                "lent",
                Start::Manual,
                SelectorTemplate::Dynamic,
                SelectorTemplate::Dynamic,
            ),
        ],
        request_virtual: if setup.endpoint_calls {
            vec![WantedAddress::V4(None), WantedAddress::V6(None)]
        } else {
            Vec::new()
        },
        pool: (!setup.endpoint_calls).then(|| PoolId("pool".to_owned())),
        lifetime,
        reauthenticate: Some(Duration::from_secs(7200)),
        liveness: Duration::from_secs(30),
        retransmit: Retransmit {
            first: Duration::from_secs(1),
            factor: 2.0,
            most: Duration::from_secs(8),
            tries: 4,
        },
        claim_nat: true,
        fragment_size: 1280,
        search_mtu: false,
        mobike: true,
        keepalive: Duration::from_secs(20),
        unique: true,
    };
    let mut limits = Limits::default();
    if setup.cookies {
        limits.cookie_threshold = 0;
    }
    Policy {
        connections: vec![Arc::new(connection)],
        limits,
        esp_in_udp_only: false,
    }
}

pub(crate) fn subnet(third: u8) -> TrafficSelector {
    TrafficSelector::from_prefix(Ipv4Addr::new(10, 0, third, 0).into(), 24)
}
