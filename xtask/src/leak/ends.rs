//! Both ends of the tunnel: how the box is configured, and the server, Cygnet or strongSwan.

use super::world::{Legs, OTHERS_MACS, RESOLVERS, SERVERS};
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::namespace::mac_text;
use crate::lab::pki::{Authority, Credential, KeyKind, Request, Validity};
use crate::lab::process::last_lines;
use crate::lab::strongswan::{self, Auth, Child, Config, Connection, StrongSwan};
use crate::lab::{Lab, Namespace, Result};

/// The box's tunnel.
pub(super) const TUNNEL: &str = "home";

const BOX_NAME: &str = "box.lab";
const SERVER_NAME: &str = "vpn.lab";
const POOLS: [&str; 2] = ["10.99.0.0/24", "fd99::/112"];

/// Who is who; for all rounds.
pub(super) struct Certificates {
    authority: String,
    server: Credential,
    gateway: Credential,
    /// Valid from tomorrow on: to whoever has it the clock is a day behind.
    of_tomorrow: Credential,
}

impl Certificates {
    pub(super) fn issue() -> Result<Self> {
        let authority = Authority::root(KeyKind::EcP256, "leak")?;
        let issue = |name: &str, validity| {
            let request = Request::new(KeyKind::EcP256, name).name(name);
            authority.issue(&request.validity(validity))
        };
        Ok(Self {
            server: issue(SERVER_NAME, Validity::Now)?,
            gateway: issue(BOX_NAME, Validity::Now)?,
            of_tomorrow: issue(BOX_NAME, Validity::NotYet)?,
            authority: authority.certificate,
        })
    }
}

/// What the box's configuration is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    Good,
    /// The same with other lifetimes: a reload has something to do.
    Changed,
    /// Its own certificate says that it must be later than the clock does.
    ClockBehind,
    Broken(Broken),
}

/// What is wrong with the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// No TOML.
    Unreadable,
    /// A key that does not exist.
    Typo,
    /// A file that does not exist.
    Missing,
}

impl Broken {
    pub(super) const ALL: [Self; 3] = [Self::Unreadable, Self::Typo, Self::Missing];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "no TOML",
            Self::Typo => "an unknown key",
            Self::Missing => "a missing certificate",
        }
    }
}

/// What the box does beside the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extras {
    /// It answers the devices' questions for names.
    pub(super) answers: bool,
    /// One device goes direct, one is blocked.
    pub(super) policies: bool,
}

/// The box's configuration.
pub(super) fn box_setup(
    certificates: &Certificates,
    legs: Legs,
    extras: Extras,
    guarded: bool,
    variant: Variant,
) -> Setup {
    let lifetime = match variant {
        Variant::Changed => "50m",
        _ => "55m",
    };
    let certificate = match variant {
        Variant::Broken(Broken::Missing) => "gone",
        _ => "own",
    };
    let extra = match variant {
        Variant::Broken(Broken::Unreadable) => "liveness = \"",
        Variant::Broken(Broken::Typo) => "livelyness = \"1s\"",
        _ => "",
    };
    let [server, _] = SERVERS;
    let lan = legs.lan();
    let policies = match extras.policies {
        true => {
            let [direct, blocked] = OTHERS_MACS.map(mac_text);
            format!("direct = \"{direct}\"\nblocked = \"{blocked}\"\n")
        }
        false => String::new(),
    };
    let dns = match extras.answers {
        true => "\n[gateway.dns]\n",
        false => "",
    };
    let config = format!(
        "[tunnel.{TUNNEL}]
remote = \"{server}\"
remote_identity = \"{SERVER_NAME}\"
identity = \"{BOX_NAME}\"
certificate = \"{certificate}.crt\"
key = \"own.key\"
ca = \"ca.crt\"
virtual_address = true
child_lifetime = \"{lifetime}\"
liveness = \"1s\"
retransmit = {{ first = \"0.2s\", factor = 1.3, most = \"0.5s\", tries = 4 }}
{extra}

[gateway]
tunnel = \"{TUNNEL}\"
lan = \"{lan}\"
guard = {guarded}
{policies}{dns}"
    );
    let own = match variant {
        Variant::ClockBehind => &certificates.of_tomorrow,
        _ => &certificates.gateway,
    };
    Setup::new(config)
        .credential("own", own)
        .file("ca.crt", certificates.authority.clone())
}

/// Which program the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Cygnet,
    StrongSwan,
}

impl Program {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cygnet => "cygnet",
            Self::StrongSwan => "strongswan",
        }
    }
}

/// The VPN server.
pub(super) enum Server {
    Cygnet(Box<Cygnet>),
    StrongSwan(Box<StrongSwan>),
}

impl Server {
    pub(super) fn start(
        lab: &Lab,
        host: &Namespace,
        certificates: &Certificates,
        program: Program,
    ) -> Result<Self> {
        match program {
            Program::Cygnet => {
                let cygnet = Cygnet::start(lab, host, &cygnet_setup(certificates))?;
                Ok(Self::Cygnet(Box::new(cygnet)))
            }
            Program::StrongSwan => {
                host.nft(&translation())?;
                let swan = StrongSwan::start(lab, host, &strongswan_setup(certificates))?;
                Ok(Self::StrongSwan(Box::new(swan)))
            }
        }
    }

    /// Without a word to its clients.
    pub(super) fn kill(&mut self) -> Result<()> {
        match self {
            Self::Cygnet(cygnet) => cygnet.kill_supervisor(),
            Self::StrongSwan(swan) => swan.kill(),
        }
    }

    pub(super) fn restart(&mut self) -> Result<()> {
        match self {
            Self::Cygnet(cygnet) => cygnet.restart(),
            Self::StrongSwan(swan) => swan.restart(),
        }
    }

    pub(super) fn last_words(&self) -> String {
        let log = match self {
            Self::Cygnet(cygnet) => cygnet.log(),
            Self::StrongSwan(swan) => swan.log(),
        };
        last_lines(&log, 8)
    }
}

fn cygnet_setup(certificates: &Certificates) -> Setup {
    let [v4, v6] = POOLS;
    let [dns4, dns6] = RESOLVERS;
    let config = format!(
        "[server]
identity = \"{SERVER_NAME}\"
certificate = \"own.crt\"
key = \"own.key\"
ca = \"ca.crt\"
pools = [\"{v4}\", \"{v6}\"]
dns = [\"{dns4}\", \"{dns6}\"]
"
    );
    Setup::new(config)
        .credential("own", &certificates.server)
        .file("ca.crt", certificates.authority.clone())
}

fn strongswan_setup(certificates: &Certificates) -> strongswan::Setup {
    let child = Child::new("internet", &["0.0.0.0/0", "::/0"], &[]).proposal("aes128gcm16");
    let [server, _] = SERVERS;
    let connection = Connection::new("clients", server, "%any")
        .proposal("aes128gcm16-prfsha256-x25519")
        .local(Auth::certificate("own", SERVER_NAME))
        .remote(Auth::public_key("%any"))
        .pool("pool4")
        .pool("pool6")
        // A box that was killed calls again as the same one.
        .set("unique", "replace")
        .set("mobike", "yes")
        .child(child);
    let [v4, v6] = POOLS;
    let mut config = Config::of(connection).pool("pool4", v4).pool("pool6", v6);
    for (pool, resolver) in config.pools.iter_mut().zip(RESOLVERS) {
        pool.dns = vec![resolver.to_owned()];
    }
    strongswan::Setup {
        config,
        credentials: vec![("own".to_owned(), certificates.server.clone())],
        authorities: vec![certificates.authority.clone()],
        ..strongswan::Setup::default()
    }
}

/// What an operator of strongSwan adds: addresses of clients are translated, TCP is made to fit.
fn translation() -> String {
    let [v4, v6] = POOLS;
    format!(
        "table inet vpn {{
chain forward {{
type filter hook forward priority 0;
iifname \"ipsec0\" tcp flags syn tcp option maxseg size set 1320
oifname \"ipsec0\" tcp flags syn tcp option maxseg size set 1320
}}
chain post {{
type nat hook postrouting priority 100;
ip saddr {v4} oifname \"eth0\" masquerade
ip6 saddr {v6} oifname \"eth0\" masquerade
}}
}}
"
    )
}
