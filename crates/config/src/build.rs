//! From what was written to what it means.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use cygnet_ike::io::WantedAddress;
use cygnet_ike::policy::{
    ChildPolicy, Connection, CredentialId, Host, IdentityPattern, Lifetime, Limits, LocalAuth,
    Policy, PoolId, Remote, RemoteAuth, Retransmit, SelectorTemplate, Start, TrustId,
};
use ipnet::IpNet;
use toml::Spanned;

use crate::parse;
use crate::raw::{
    OneOrMany, RawChild, RawConfig, RawDaemon, RawGateway, RawRetransmit, RawServer, RawTunnel,
    VirtualAddress,
};
use crate::{
    Config, CredentialFile, Daemon, Gateway, LogLevel, Mistake, Pool, SERVER, Server, Trust,
    Tunnel, units,
};

const IKE_LIFETIME: Duration = Duration::from_secs(4 * 3600);
const CHILD_LIFETIME: Duration = Duration::from_secs(3600);
const LIVENESS: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(20);
const FRAGMENT_SIZE: u16 = 1280;
const REPLAY_WINDOW: u32 = 4096;

/// Collects what the sections mean, and every mistake met on the way.
pub(crate) struct Builder<'r> {
    read: &'r mut dyn FnMut(&str) -> Result<Vec<u8>, String>,
    mistakes: Vec<Mistake>,
    credentials: BTreeMap<CredentialId, CredentialFile>,
    trusts: BTreeMap<TrustId, Trust>,
    pools: BTreeMap<PoolId, Pool>,
}

/// The keys by which one end proves itself and judges the other, wherever they are written.
struct AuthKeys<'a> {
    owner: &'a str,
    span: Range<usize>,
    certificate: Option<&'a Spanned<String>>,
    key: Option<&'a Spanned<String>>,
    ca: Option<&'a OneOrMany>,
    crl: Option<&'a OneOrMany>,
    psk: Option<&'a Spanned<String>>,
    allow_sha1: bool,
}

/// What [`Builder::auth`] finds out.
struct Auth {
    local: LocalAuth,
    remote: RemoteAuth,
    /// DER of the own certificate's subject: the default identity.
    subject: Option<Vec<u8>>,
}

impl<'r> Builder<'r> {
    pub(crate) fn new(read: &'r mut dyn FnMut(&str) -> Result<Vec<u8>, String>) -> Self {
        Self {
            read,
            mistakes: Vec::new(),
            credentials: BTreeMap::new(),
            trusts: BTreeMap::new(),
            pools: BTreeMap::new(),
        }
    }

    pub(crate) fn build(mut self, raw: &RawConfig) -> Result<Config, Vec<Mistake>> {
        let daemon = self.daemon(&raw.daemon);
        let mut connections = Vec::new();
        let mut tunnels = BTreeMap::new();
        for (name, tunnel) in &raw.tunnel {
            if let Some((connection, network)) = self.tunnel(name, tunnel) {
                connections.push(Arc::new(connection));
                tunnels.insert(name.get_ref().clone(), network);
            }
        }
        // Last among the candidates for an incoming call: a tunnel names its peer, the server
        // takes whoever its CA vouches for.
        let mut server = None;
        if let Some(raw) = &raw.server
            && let Some((connection, network)) = self.server(raw)
        {
            connections.push(Arc::new(connection));
            server = Some(network);
        }
        let gateway = raw
            .gateway
            .as_ref()
            .and_then(|g| self.gateway(g.get_ref(), &raw.tunnel));
        self.interfaces_differ(raw, &tunnels, server.as_ref());
        if self.mistakes.is_empty() {
            Ok(Config {
                daemon,
                server,
                tunnels,
                gateway,
                policy: Arc::new(Policy {
                    connections,
                    limits: Limits::default(),
                }),
                credentials: self.credentials,
                trusts: self.trusts,
                pools: self.pools,
            })
        } else {
            Err(self.mistakes)
        }
    }

    fn mistake(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.mistakes.push(Mistake {
            span,
            message: message.into(),
            help: None,
        });
    }

    fn mistake_with_help(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.mistakes.push(Mistake {
            span,
            message: message.into(),
            help: Some(help.into()),
        });
    }

    /// The value `parse` makes of it; a mistake is noted at its place.
    fn value<T>(
        &mut self,
        written: &Spanned<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(written.get_ref()) {
            Ok(value) => Some(value),
            Err(message) => {
                self.mistake(written.span(), message);
                None
            }
        }
    }

    fn value_or<T>(
        &mut self,
        written: Option<&Spanned<String>>,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        match written {
            Some(written) => self.value(written, parse).unwrap_or(default),
            None => default,
        }
    }

    fn values<'a, T>(
        &mut self,
        written: impl IntoIterator<Item = &'a Spanned<String>>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        written
            .into_iter()
            .filter_map(|w| self.value(w, &parse))
            .collect()
    }

    fn daemon(&mut self, raw: &RawDaemon) -> Daemon {
        let text = |w: &Option<Spanned<String>>, default: &str| {
            w.as_ref()
                .map_or_else(|| default.to_owned(), |w| w.get_ref().clone())
        };
        let log = self.value_or(raw.log.as_ref(), LogLevel::Info, |t| match t {
            "error" => Ok(LogLevel::Error),
            "warn" => Ok(LogLevel::Warn),
            "info" => Ok(LogLevel::Info),
            "debug" => Ok(LogLevel::Debug),
            "trace" => Ok(LogLevel::Trace),
            _ => Err(format!(
                "`{t}` is no log level: expected error, warn, info, debug or trace"
            )),
        });
        let listen = match &raw.listen {
            None => vec![
                IpAddr::from(std::net::Ipv4Addr::UNSPECIFIED),
                IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED),
            ],
            Some(list) => self.values(list.iter(), units::address),
        };
        let port = |w: &Option<Spanned<u16>>, default| w.as_ref().map_or(default, |w| *w.get_ref());
        let (ike_port, natt_port) = (port(&raw.ike_port, 500), port(&raw.natt_port, 4500));
        for written in [&raw.ike_port, &raw.natt_port].into_iter().flatten() {
            if *written.get_ref() == 0 {
                self.mistake(written.span(), "port 0 is no port: expected 1 to 65535");
            }
        }
        if ike_port == natt_port {
            let span = raw
                .natt_port
                .as_ref()
                .or(raw.ike_port.as_ref())
                .map_or(0..0, Spanned::span);
            self.mistake(span, "`ike_port` and `natt_port` are the same: IKE with and without the NAT-T marker needs two ports");
        }
        Daemon {
            run_dir: text(&raw.run_dir, "/run/cygnet"),
            log,
            engine_user: text(&raw.engine_user, "nobody"),
            ike_port,
            natt_port,
            listen,
        }
    }

    fn tunnel(
        &mut self,
        name: &Spanned<String>,
        spanned: &Spanned<RawTunnel>,
    ) -> Option<(Connection, Tunnel)> {
        let raw = spanned.get_ref();
        let before = self.mistakes.len();
        if name.get_ref() == SERVER {
            self.mistake_with_help(
                name.span(),
                "a tunnel cannot be called `server`: that is the name of the [server] section",
                "give it another name",
            );
        }
        if !parse::is_name(name.get_ref()) {
            self.mistake(
                name.span(),
                format!(
                    "`{}` is no name: expected letters, digits, `-` and `_`, 32 at most",
                    name.get_ref()
                ),
            );
        }
        let remote = self.remote(raw, name.span());
        let auth = self.auth(&AuthKeys {
            owner: name.get_ref(),
            span: name.span(),
            certificate: raw.certificate.as_ref(),
            key: raw.key.as_ref(),
            ca: raw.ca.as_ref(),
            crl: raw.crl.as_ref(),
            psk: raw.psk.as_ref(),
            allow_sha1: raw.verify_sha1.unwrap_or(false),
        });
        let request_virtual = self.request_virtual(raw.virtual_address.as_ref());
        let children = self.children(raw, &remote, !request_virtual.is_empty());
        let remote_identity = self.remote_identity(raw, &remote, name.span());
        let local_identity = raw
            .identity
            .as_ref()
            .and_then(|w| self.value(w, parse::identification));
        let default_interface: String =
            format!("cyg-{}", name.get_ref()).chars().take(15).collect();
        let interface = self.value_or(raw.interface.as_ref(), default_interface, units::interface);
        let mtu = self.mtu(raw.mtu.as_ref());
        let lifetime = self.lifetime(raw.ike_lifetime.as_ref(), IKE_LIFETIME, None, None);
        let reauthenticate = raw.reauth.as_ref().and_then(|w| {
            if w.get_ref() == "never" {
                None
            } else {
                self.value(w, units::duration)
            }
        });
        let liveness = self.value_or(raw.liveness.as_ref(), LIVENESS, units::duration);
        let retransmit = self.retransmit(raw.retransmit.as_ref());
        let ike_proposals = self.ike_proposals(raw.ike.as_deref());
        let fragment_size = self.fragment_size(raw.fragment_size.as_ref());
        let auth = auth?;
        if self.mistakes.len() > before {
            return None;
        }
        let network = Tunnel {
            interface,
            mtu,
            remote_networks: fixed_networks(&children, |c| &c.remote),
            local_networks: fixed_networks(&children, |c| &c.local),
            virtual_address: !request_virtual.is_empty(),
        };
        let connection = Connection {
            name: name.get_ref().clone(),
            remote,
            local_address: None,
            local_identity: local_identity.or_else(|| auth.subject.map(parse::dn_identity)),
            remote_identity,
            local_auth: auth.local,
            remote_auth: auth.remote,
            ike_proposals,
            children,
            request_virtual,
            pool: None,
            lifetime,
            reauthenticate,
            liveness,
            retransmit,
            claim_nat: raw.force_udp.unwrap_or(true),
            fragment_size,
            keepalive: KEEPALIVE,
            unique: true,
        };
        Some((connection, network))
    }

    fn server(&mut self, spanned: &Spanned<RawServer>) -> Option<(Connection, Server)> {
        let raw = spanned.get_ref();
        let before = self.mistakes.len();
        let auth = self.auth(&AuthKeys {
            owner: SERVER,
            span: spanned.span(),
            certificate: raw.certificate.as_ref(),
            key: raw.key.as_ref(),
            ca: raw.ca.as_ref(),
            crl: raw.crl.as_ref(),
            psk: raw.psk.as_ref(),
            allow_sha1: raw.verify_sha1.unwrap_or(false),
        });
        let pools = self.networks(&raw.pools);
        for (i, pool) in pools.iter().enumerate() {
            if let Some(other) = pools[..i].iter().find(|o| overlap(o, pool)) {
                let span = raw.pools.get(i).map_or(0..0, Spanned::span);
                self.mistake(span, format!("pool {pool} overlaps pool {other}"));
            }
        }
        if raw.pools.is_empty() {
            self.mistake_with_help(
                spanned.span(),
                "the server has no pools: clients could get no address",
                "write for example pools = [\"10.99.0.0/24\", \"fd99::/112\"]",
            );
        }
        let dns = self.values(&raw.dns, units::address);
        let networks = match &raw.networks {
            Some(list) => self.networks(list),
            None => everything(),
        };
        let local = templates(&networks);
        let identity = match &raw.identity {
            Some(w) => self.value(w, parse::identification),
            None => None,
        };
        let interface = self.value_or(
            raw.interface.as_ref(),
            "cyg-srv".to_owned(),
            units::interface,
        );
        let uplink = raw
            .uplink
            .as_ref()
            .and_then(|w| self.value(w, units::interface));
        let child_lifetime = self.lifetime(raw.child_lifetime.as_ref(), CHILD_LIFETIME, None, None);
        let lifetime = self.lifetime(raw.ike_lifetime.as_ref(), IKE_LIFETIME, None, None);
        let liveness = self.value_or(raw.liveness.as_ref(), LIVENESS, units::duration);
        let ike_proposals = self.ike_proposals(raw.ike.as_deref());
        let esp_proposals = self.esp_proposals(raw.esp.as_deref());
        let fragment_size = self.fragment_size(raw.fragment_size.as_ref());
        let replay_window = self.replay_window(raw.replay_window.as_ref());
        let mtu = self.mtu(raw.mtu.as_ref());
        let auth = auth?;
        if self.mistakes.len() > before {
            return None;
        }
        let pool = PoolId(SERVER.to_owned());
        self.pools.insert(
            pool.clone(),
            Pool {
                networks: pools.clone(),
                dns,
            },
        );
        let child = ChildPolicy {
            name: "clients".to_owned(),
            local,
            remote: vec![SelectorTemplate::Dynamic],
            esp_proposals,
            start: Start::Manual,
            lifetime: child_lifetime,
            replay_window,
        };
        let connection = Connection {
            name: SERVER.to_owned(),
            remote: Remote::Any,
            local_address: None,
            local_identity: identity.or_else(|| auth.subject.map(parse::dn_identity)),
            remote_identity: IdentityPattern::Any,
            local_auth: auth.local,
            remote_auth: auth.remote,
            ike_proposals,
            children: vec![Arc::new(child)],
            request_virtual: Vec::new(),
            pool: Some(pool),
            lifetime,
            reauthenticate: None,
            liveness,
            retransmit: default_retransmit(),
            claim_nat: true,
            fragment_size,
            keepalive: KEEPALIVE,
            unique: true,
        };
        let network = Server {
            interface,
            mtu,
            pools,
            networks,
            uplink,
            nat: raw.nat.unwrap_or(true),
        };
        Some((connection, network))
    }

    fn gateway(
        &mut self,
        raw: &RawGateway,
        tunnels: &BTreeMap<Spanned<String>, Spanned<RawTunnel>>,
    ) -> Option<Gateway> {
        if !tunnels.keys().any(|t| t.get_ref() == raw.tunnel.get_ref()) {
            let known: Vec<&str> = tunnels.keys().map(|t| t.get_ref().as_str()).collect();
            self.mistake(
                raw.tunnel.span(),
                format!(
                    "there is no tunnel `{}`; {}",
                    raw.tunnel.get_ref(),
                    if known.is_empty() {
                        "write a [tunnel.NAME] section first".to_owned()
                    } else {
                        format!("expected one of: {}", known.join(", "))
                    }
                ),
            );
        }
        let lan = self.values(raw.lan.iter(), units::interface);
        let networks = raw.networks.as_ref().map(|list| self.networks(list));
        Some(Gateway {
            tunnel: raw.tunnel.get_ref().clone(),
            lan,
            networks,
            guard: raw.guard.unwrap_or(true),
        })
    }

    fn remote(&mut self, raw: &RawTunnel, name: Range<usize>) -> Remote {
        let Some(written) = &raw.remote else {
            self.mistake_with_help(
                name,
                "the tunnel has no `remote`",
                "write remote = \"vpn.example.org\", or remote = \"any\" to wait for the other side",
            );
            return Remote::Any;
        };
        let names: Vec<&Spanned<String>> = written.iter().collect();
        if let [one] = names.as_slice()
            && one.get_ref() == "any"
        {
            return Remote::Any;
        }
        let hosts: Vec<Host> = names
            .into_iter()
            .filter_map(|w| self.value(w, parse::host))
            .collect();
        Remote::Hosts {
            hosts,
            port: raw.remote_port.as_ref().map_or(500, |p| *p.get_ref()),
        }
    }

    fn remote_identity(
        &mut self,
        raw: &RawTunnel,
        remote: &Remote,
        name: Range<usize>,
    ) -> IdentityPattern {
        if let Some(written) = &raw.remote_identity {
            let mut patterns = self.values(written.iter(), parse::identity_pattern);
            return match patterns.len() {
                1 => patterns.remove(0),
                _ => IdentityPattern::AnyOf(patterns),
            };
        }
        match remote {
            Remote::Any => {
                self.mistake_with_help(
                    name,
                    "the tunnel waits for its peer but does not say who that is",
                    "write remote_identity = \"office-b.example.org\"",
                );
                IdentityPattern::Any
            }
            Remote::Hosts { hosts, .. } => {
                let mut all: Vec<IdentityPattern> =
                    hosts.iter().map(parse::identity_of_host).collect();
                match all.len() {
                    1 => all.remove(0),
                    _ => IdentityPattern::AnyOf(all),
                }
            }
        }
    }

    fn auth(&mut self, keys: &AuthKeys<'_>) -> Option<Auth> {
        if let Some(psk) = keys.psk {
            if let Some(other) = keys.certificate.or(keys.key) {
                self.mistake_with_help(
                    other.span(),
                    "both a pre-shared key and a certificate are given",
                    "keep either `psk`, or `certificate`, `key` and `ca`",
                );
            }
            let id = CredentialId(format!("{}/psk", keys.owner));
            let file = CredentialFile::Psk {
                path: psk.get_ref().clone(),
            };
            self.credentials.insert(id.clone(), file);
            return Some(Auth {
                local: LocalAuth::Psk(id.clone()),
                remote: RemoteAuth::Psk(id),
                subject: None,
            });
        }
        let (Some(certificate), Some(key), Some(ca)) = (keys.certificate, keys.key, keys.ca) else {
            let missing: Vec<&str> = [
                ("certificate", keys.certificate.is_none()),
                ("key", keys.key.is_none()),
                ("ca", keys.ca.is_none()),
            ]
            .into_iter()
            .filter_map(|(name, missing)| missing.then_some(name))
            .collect();
            self.mistake_with_help(
                keys.span.clone(),
                format!("`{}` lacks: {}", keys.owner, missing.join(", ")),
                "give `certificate`, `key` and `ca`, or `psk`",
            );
            return None;
        };
        let own = self.file(certificate, parse::certificate_chain);
        let anchors: Vec<Vec<u8>> = ca
            .iter()
            .filter_map(|w| self.file(w, parse::anchors))
            .flatten()
            .collect();
        let crls: Vec<Vec<u8>> = keys
            .crl
            .into_iter()
            .flat_map(OneOrMany::iter)
            .filter_map(|w| self.file(w, parse::crl))
            .collect();
        let own = own?;
        let authorities = anchors.iter().filter_map(|a| parse::key_hash(a)).collect();
        let credential = CredentialId(format!("{}/key", keys.owner));
        self.credentials.insert(
            credential.clone(),
            CredentialFile::Key {
                path: key.get_ref().clone(),
                certificate: certificate.get_ref().clone(),
            },
        );
        let trust = TrustId(keys.owner.to_owned());
        self.trusts.insert(trust.clone(), Trust { anchors, crls });
        Some(Auth {
            local: LocalAuth::Certificate {
                credential,
                key: own.key,
                chain: own.chain,
            },
            remote: RemoteAuth::Certificate {
                trust,
                authorities,
                allow_sha1: keys.allow_sha1,
            },
            subject: Some(own.subject),
        })
    }

    /// Reads a public file and parses it; both kinds of failure are noted at the file's name.
    fn file<T>(
        &mut self,
        path: &Spanned<String>,
        parse: impl FnOnce(&str, &[u8]) -> Result<T, String>,
    ) -> Option<T> {
        match (self.read)(path.get_ref()).and_then(|bytes| parse(path.get_ref(), &bytes)) {
            Ok(value) => Some(value),
            Err(message) => {
                self.mistake(path.span(), message);
                None
            }
        }
    }

    fn request_virtual(&mut self, raw: Option<&VirtualAddress>) -> Vec<WantedAddress> {
        match raw {
            None | Some(VirtualAddress::Any(false)) => Vec::new(),
            Some(VirtualAddress::Any(true)) => {
                vec![WantedAddress::V4(None), WantedAddress::V6(None)]
            }
            Some(VirtualAddress::These(list)) => self
                .values(list, units::address)
                .into_iter()
                .map(|a| match a {
                    IpAddr::V4(a) => WantedAddress::V4((!a.is_unspecified()).then_some(a)),
                    IpAddr::V6(a) => WantedAddress::V6((!a.is_unspecified()).then_some(a)),
                })
                .collect(),
        }
    }

    fn children(
        &mut self,
        raw: &RawTunnel,
        remote: &Remote,
        virtual_address: bool,
    ) -> Vec<Arc<ChildPolicy>> {
        if raw.child.is_empty() {
            let child = RawChild {
                local_networks: raw.local_networks.clone(),
                remote_networks: raw.remote_networks.clone(),
                ..RawChild::default()
            };
            return vec![Arc::new(self.child(
                "net",
                &child,
                raw,
                remote,
                virtual_address,
            ))];
        }
        for written in [&raw.local_networks, &raw.remote_networks]
            .into_iter()
            .flatten()
        {
            let span = written.first().map_or(0..0, Spanned::span);
            self.mistake_with_help(
                span,
                "the tunnel has networks of its own beside its [tunnel.NAME.child.…] sections",
                "move them into a child",
            );
        }
        raw.child
            .iter()
            .map(|(name, child)| {
                if !parse::is_name(name.get_ref()) {
                    self.mistake(
                        name.span(),
                        format!(
                            "`{}` is no name: expected letters, digits, `-` and `_`, 32 at most",
                            name.get_ref()
                        ),
                    );
                }
                Arc::new(self.child(
                    name.get_ref(),
                    child.get_ref(),
                    raw,
                    remote,
                    virtual_address,
                ))
            })
            .collect()
    }

    /// A child's own keys come first, then its tunnel's, then the defaults.
    fn child(
        &mut self,
        name: &str,
        raw: &RawChild,
        tunnel: &RawTunnel,
        remote: &Remote,
        virtual_address: bool,
    ) -> ChildPolicy {
        let local = match &raw.local_networks {
            Some(list) => templates(&self.networks(list)),
            None => vec![SelectorTemplate::Dynamic],
        };
        let remote_ts = match &raw.remote_networks {
            Some(list) => templates(&self.networks(list)),
            None if virtual_address => templates(&everything()),
            None => vec![SelectorTemplate::Dynamic],
        };
        let default_start = match remote {
            Remote::Any => Start::Manual,
            Remote::Hosts { .. } => Start::Always,
        };
        let written = raw.start.as_ref().or(tunnel.start.as_ref());
        let start = self.value_or(written, default_start, |t| match t {
            "always" => Ok(Start::Always),
            "traffic" => Ok(Start::Traffic),
            "manual" => Ok(Start::Manual),
            _ => Err(format!(
                "`{t}` is no way to start: expected \"always\", \"traffic\" or \"manual\""
            )),
        });
        if let (Remote::Any, Some(written)) = (remote, written)
            && start != Start::Manual
        {
            self.mistake_with_help(
                written.span(),
                "the tunnel cannot start by itself: its remote is \"any\"",
                "name the remote, or write start = \"manual\"",
            );
        }
        let lifetime = self.lifetime(
            raw.child_lifetime
                .as_ref()
                .or(tunnel.child_lifetime.as_ref()),
            CHILD_LIFETIME,
            raw.child_bytes.as_ref().or(tunnel.child_bytes.as_ref()),
            raw.child_packets.as_ref().or(tunnel.child_packets.as_ref()),
        );
        ChildPolicy {
            name: name.to_owned(),
            local,
            remote: remote_ts,
            esp_proposals: self.esp_proposals(raw.esp.as_deref().or(tunnel.esp.as_deref())),
            start,
            lifetime,
            replay_window: self
                .replay_window(raw.replay_window.as_ref().or(tunnel.replay_window.as_ref())),
        }
    }

    fn networks(&mut self, written: &[Spanned<String>]) -> Vec<IpNet> {
        self.values(written, units::network)
    }

    fn lifetime(
        &mut self,
        time: Option<&Spanned<String>>,
        default: Duration,
        bytes: Option<&Spanned<String>>,
        packets: Option<&Spanned<u64>>,
    ) -> Lifetime {
        if let Some(zero) = packets.filter(|p| *p.get_ref() == 0) {
            self.mistake(zero.span(), "a key that lives for 0 packets carries none");
        }
        Lifetime {
            time: self.value_or(time, default, units::duration),
            bytes: bytes.and_then(|w| self.value(w, units::size)),
            packets: packets.map(|p| *p.get_ref()),
            jitter_percent: 10,
            hard_percent: 10,
        }
    }

    fn retransmit(&mut self, raw: Option<&RawRetransmit>) -> Retransmit {
        let mut r = default_retransmit();
        let Some(raw) = raw else { return r };
        r.first = self.value_or(raw.first.as_ref(), r.first, units::duration);
        r.most = self.value_or(raw.most.as_ref(), r.most, units::duration);
        if let Some(factor) = &raw.factor {
            if (1.0..=10.0).contains(factor.get_ref()) {
                r.factor = *factor.get_ref();
            } else {
                self.mistake(
                    factor.span(),
                    "`factor` is out of range: expected 1.0 to 10.0",
                );
            }
        }
        if let Some(tries) = &raw.tries {
            if (1..=20).contains(tries.get_ref()) {
                r.tries = *tries.get_ref();
            } else {
                self.mistake(tries.span(), "`tries` is out of range: expected 1 to 20");
            }
        }
        r
    }

    fn ike_proposals(
        &mut self,
        written: Option<&[Spanned<String>]>,
    ) -> Vec<cygnet_ike::proposal::IkeProposal> {
        match written {
            Some(list) if !list.is_empty() => self.values(list, parse::ike_proposal),
            _ => parse::default_ike(),
        }
    }

    fn esp_proposals(
        &mut self,
        written: Option<&[Spanned<String>]>,
    ) -> Vec<cygnet_ike::proposal::EspProposal> {
        match written {
            Some(list) if !list.is_empty() => self.values(list, parse::esp_proposal),
            _ => parse::default_esp(),
        }
    }

    fn fragment_size(&mut self, written: Option<&Spanned<u16>>) -> u16 {
        match written {
            None => FRAGMENT_SIZE,
            Some(w) if *w.get_ref() == 0 || *w.get_ref() >= 576 => *w.get_ref(),
            Some(w) => {
                self.mistake(
                    w.span(),
                    "`fragment_size` is too small: expected 576 or more, or 0 for no fragmentation",
                );
                FRAGMENT_SIZE
            }
        }
    }

    fn replay_window(&mut self, written: Option<&Spanned<u32>>) -> u32 {
        match written {
            None => REPLAY_WINDOW,
            Some(w) if *w.get_ref() == 0 || (32..=65_536).contains(w.get_ref()) => *w.get_ref(),
            Some(w) => {
                self.mistake(
                    w.span(),
                    "`replay_window` is out of range: expected 32 to 65536 packets, or 0 for none",
                );
                REPLAY_WINDOW
            }
        }
    }

    fn mtu(&mut self, written: Option<&Spanned<u16>>) -> Option<u16> {
        let written = written?;
        if *written.get_ref() < 576 {
            self.mistake(written.span(), "`mtu` is too small: expected 576 or more");
        }
        Some(*written.get_ref())
    }

    fn interfaces_differ(
        &mut self,
        raw: &RawConfig,
        tunnels: &BTreeMap<String, Tunnel>,
        server: Option<&Server>,
    ) {
        let mut seen: BTreeSet<&str> = server.iter().map(|s| s.interface.as_str()).collect();
        for (name, tunnel) in tunnels {
            if !seen.insert(&tunnel.interface) {
                let span =
                    raw.tunnel
                        .iter()
                        .find(|(n, _)| n.get_ref() == name)
                        .map_or(0..0, |(n, t)| {
                            t.get_ref()
                                .interface
                                .as_ref()
                                .map_or(n.span(), Spanned::span)
                        });
                self.mistake_with_help(
                    span,
                    format!("interface `{}` is used twice", tunnel.interface),
                    "give this tunnel an `interface` of its own",
                );
            }
        }
    }
}

fn default_retransmit() -> Retransmit {
    Retransmit {
        first: Duration::from_millis(500),
        factor: 1.8,
        most: Duration::from_secs(10),
        tries: 6,
    }
}

fn everything() -> Vec<IpNet> {
    vec![
        IpNet::from(ipnet::Ipv4Net::default()),
        IpNet::from(ipnet::Ipv6Net::default()),
    ]
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn templates(networks: &[IpNet]) -> Vec<SelectorTemplate> {
    networks
        .iter()
        .map(|n| SelectorTemplate::Fixed(parse::selector(n)))
        .collect()
}

fn fixed_networks(
    children: &[Arc<ChildPolicy>],
    side: impl Fn(&ChildPolicy) -> &Vec<SelectorTemplate>,
) -> Vec<IpNet> {
    let mut all: Vec<IpNet> = children
        .iter()
        .flat_map(|c| side(c).iter())
        .filter_map(|t| match t {
            SelectorTemplate::Fixed(ts) => parse::network_of(ts),
            SelectorTemplate::Dynamic => None,
        })
        .collect();
    all.sort();
    all.dedup();
    all
}
