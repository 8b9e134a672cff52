//! What the worlds of these tests are set up with: identities, policies, commands.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::signature::SigningKey;
use cygnet_ike::io::{Command, Path, Transport};
use cygnet_ike::policy::{
    ChildPolicy, Connection, CredentialId, EapLogin, EapMethods, Host, IdentityPattern, Lifetime,
    LocalAuth, Policy, Remote, RemoteAuth, Retransmit, SelectorTemplate, Start, TrustId,
};
use cygnet_wire::id::Identification;
use cygnet_wire::ts::TrafficSelector;

use super::{A, B, End, World};

pub fn path(local: SocketAddr, remote: SocketAddr) -> Path {
    Path {
        transport: Transport::Udp,
        local,
        remote,
        interface: 0,
    }
}

pub fn identity(end: End) -> Identification {
    Identification::fqdn(match end {
        A => "a.example.org",
        B => "b.example.org",
    })
}

/// Not DER; whoever validates here knows it by its octets.
pub fn certificate(end: End) -> Vec<u8> {
    format!("certificate of {end:?}").into_bytes()
}

pub fn subnet(text: &str) -> SelectorTemplate {
    let (address, len) = text.split_once('/').unwrap();
    let len = len.parse().unwrap();
    SelectorTemplate::Fixed(TrafficSelector::from_prefix(address.parse().unwrap(), len))
}

pub const FOREVER: Lifetime = Lifetime {
    time: Duration::from_secs(1_000_000),
    bytes: None,
    packets: None,
    jitter_percent: 0,
    hard_percent: 10,
};

pub fn child(end: End, name: &str, start: Start) -> ChildPolicy {
    let (a, b) = match name {
        "two" => ("10.1.2.0/24", "10.2.2.0/24"),
        "three" => ("10.1.3.0/24", "10.2.3.0/24"),
        _ => ("10.1.1.0/24", "10.2.1.0/24"),
    };
    let (local, remote) = match end {
        A => (a, b),
        B => (b, a),
    };
    ChildPolicy {
        name: name.to_owned(),
        local: vec![subnet(local)],
        remote: vec![subnet(remote)],
        esp_proposals: cygnet_ike::proposal::default_esp(true),
        start,
        lifetime: FOREVER,
        replay_window: 4096,
    }
}

/// A connection with a pre-shared key between A and B; A calls.
pub fn connection(end: End) -> Connection {
    let start = match end {
        A => Start::Always,
        B => Start::Manual,
    };
    Connection {
        name: "link".to_owned(),
        remote: match end {
            A => hosts(B.address()),
            B => Remote::Any,
        },
        local_address: None,
        local_identity: Some(identity(end)),
        remote_identity: IdentityPattern::Exactly(identity(end.other())),
        local_auth: LocalAuth::Psk(CredentialId("psk".to_owned())),
        remote_auth: RemoteAuth::Psk(CredentialId("psk".to_owned())),
        eap: EapMethods::default(),
        ike_proposals: cygnet_ike::proposal::default_ike(),
        children: vec![Arc::new(child(end, "one", start))],
        request_virtual: Vec::new(),
        pool: None,
        lifetime: FOREVER,
        reauthenticate: None,
        liveness: Duration::from_secs(30),
        retransmit: Retransmit {
            first: Duration::from_secs(1),
            factor: 1.5,
            most: Duration::from_secs(10),
            tries: 5,
        },
        claim_nat: false,
        fragment_size: 1280,
        search_mtu: false,
        mobike: false,
        keepalive: Duration::from_secs(20),
        unique: true,
    }
}

pub fn hosts(address: IpAddr) -> Remote {
    list(&[address])
}

/// Several servers, in this order.
pub fn list(addresses: &[IpAddr]) -> Remote {
    let servers = addresses.iter().map(|a| Host::Address(*a).into());
    Remote::Hosts {
        servers: servers.collect(),
        port: 500,
    }
}

/// The same connection, with certificates.
pub fn with_certificates(end: End) -> Connection {
    let key = SigningKey::from_pem(KEYS[end as usize]).unwrap();
    Connection {
        local_auth: LocalAuth::Certificate {
            credential: CredentialId("key".to_owned()),
            key: key.kind(),
            pss: false,
            chain: vec![certificate(end)],
            identities: Vec::new(),
        },
        remote_auth: RemoteAuth::Certificate {
            trust: TrustId("ca".to_owned()),
            authorities: vec![[7; 20]],
            allow_sha1: false,
        },
        ..connection(end)
    }
}

/// The same connection: A logs in by EAP with its password, B proves itself with a certificate.
pub fn with_password(end: End) -> Connection {
    match end {
        A => Connection {
            local_auth: LocalAuth::Eap(EapLogin::Password {
                user: "alice".to_owned(),
                credential: CredentialId("link/password".to_owned()),
            }),
            ..with_certificates(A)
        },
        B => Connection {
            remote_identity: IdentityPattern::Any,
            eap: EapMethods {
                passwords: Some(CredentialId("passwords".to_owned())),
                tls: false,
                shared: false,
            },
            ..with_certificates(B)
        },
    }
}

pub fn policy(connection: Connection) -> Policy {
    Policy {
        connections: vec![Arc::new(connection)],
        ..Policy::default()
    }
}

/// A world in which A has called B and all is up.
pub fn up() -> World {
    up_with(connection(A), connection(B))
}

#[track_caller]
pub fn up_with(a: Connection, b: Connection) -> World {
    up_seeded(a, b, 1)
}

#[track_caller]
pub fn up_seeded(a: Connection, b: Connection, seed: u64) -> World {
    let mut world = World::seeded(policy(a), policy(b), seed);
    world.seconds(2);
    let names: Vec<_> = {
        let now = world.now;
        let mut names: Vec<_> = world.a.child_sas(now).into_iter().map(|c| c.name).collect();
        names.sort();
        names
    };
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert!(!names.is_empty(), "{}", world.tail());
    world.assert_in_step(&names);
    world
}

pub fn rekey_child(child: &str) -> Command {
    Command::RekeyChild {
        connection: "link".to_owned(),
        child: child.to_owned(),
    }
}

pub fn rekey_ike() -> Command {
    Command::RekeyIke {
        connection: "link".to_owned(),
    }
}

pub fn down(child: Option<&str>) -> Command {
    Command::Down {
        connection: "link".to_owned(),
        child: child.map(str::to_owned),
    }
}

pub fn bring_up(child: Option<&str>) -> Command {
    Command::Up {
        connection: "link".to_owned(),
        child: child.map(str::to_owned),
    }
}

/// Made for these tests with `openssl genpkey`; they open nothing.
pub(super) const KEYS: [&str; 2] = [
    "\
-----BEGIN PRIVATE KEY-----\n\
MC4CAQAwBQYDK2VwBCIEIKRU6Pj7EFOYsLv5/COBv6DxaMCnEkg44h9rtgsWk6zw\n\
-----END PRIVATE KEY-----\n\
",
    "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg0ixVw/dN5MFYxHRu\n\
h1fFRi0iu48eU/4tQjlf0rZ8OVOhRANCAATrjub96eWR9tKTdOYAleZbMazvdsyI\n\
iAn7nzaMTG+TKwzzBileIi5Ev1iQ260Gr4mU2gXBq6XVVgS7Q+jlAnJ/\n\
-----END PRIVATE KEY-----\n\
",
];
