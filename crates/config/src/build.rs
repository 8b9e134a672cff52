//! From what was written to what it means.

mod advertise;
mod auth;
mod claims;
mod dhcp;
mod dns;
mod hook;
mod map;
mod server;
mod through;
mod tunnel;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use cygnet_ike::policy::{
    CredentialId, Host, Lifetime, Limits, Policy, PoolId, Ports, Retransmit, SelectorTemplate,
    TrustId,
};
use ipnet::IpNet;
use toml::Spanned;

use crate::raw::{OneOrMany, RawConfig, RawDaemon, RawGateway, RawTunnel};
use crate::{
    Config, CredentialFile, Daemon, Gateway, LanDevices, LogLevel, Mistake, OwnTraffic, Pool,
    Server, Trust, Tunnel, parse, units,
};

/// `run_dir` of `[daemon]` where it is not said.
pub const RUN_DIR: &str = "/run/cygnet";
/// `state_dir` of `[daemon]` where it is not said.
pub const STATE_DIR: &str = "/var/lib/cygnet";
pub(crate) const SERVER_INTERFACE: &str = "cyg-srv";
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
            .and_then(|g| self.gateway(g.get_ref(), &raw.tunnel, &tunnels, server.as_ref()));
        self.interfaces_differ(raw, &tunnels, server.as_ref());
        self.standbys(raw);
        self.one_way_each(raw, &tunnels);
        if self.mistakes.is_empty() {
            Ok(Config {
                server,
                tunnels,
                gateway,
                policy: Arc::new(Policy {
                    connections,
                    limits: Limits {
                        ports: Ports {
                            ike: daemon.ike_port,
                            nat_t: daemon.natt_port,
                        },
                        ..Limits::default()
                    },
                    esp_in_udp_only: true,
                }),
                credentials: self.credentials,
                trusts: self.trusts,
                pools: self.pools,
                daemon,
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
        let workers = raw.workers.as_ref().map(|written| {
            if !(1..=Daemon::MAX_WORKERS).contains(written.get_ref()) {
                self.mistake(
                    written.span(),
                    format!("workers: expected 1 to {}", Daemon::MAX_WORKERS),
                );
            }
            usize::from(*written.get_ref())
        });
        Daemon {
            workers,
            time_servers: self.time_servers(raw.time_servers.as_ref()),
            run_dir: text(&raw.run_dir, RUN_DIR),
            state_dir: text(&raw.state_dir, STATE_DIR),
            log,
            engine_user: raw.engine_user.as_ref().map(|w| w.get_ref().clone()),
            ike_port,
            natt_port,
            listen,
        }
    }

    fn time_servers(&mut self, raw: Option<&OneOrMany>) -> Vec<String> {
        let Some(written) = raw else {
            return Daemon::TIME_SERVERS.map(str::to_owned).to_vec();
        };
        let mut servers: Vec<String> = Vec::new();
        for (nth, one) in written.iter().enumerate() {
            if nth >= Daemon::MAX_TIME_SERVERS {
                let most = Daemon::MAX_TIME_SERVERS;
                self.mistake(one.span(), format!("time_servers: expected {most} at most"));
                break;
            }
            let Some(host) = self.value(one, parse::host) else {
                continue;
            };
            let name = match host {
                Host::Address(address) => address.to_string(),
                Host::Name(name) => name.to_ascii_lowercase(),
            };
            if servers.contains(&name) {
                let twice =
                    format!("time_servers: {name} is named twice; it cannot agree with itself");
                self.mistake(one.span(), twice);
            }
            servers.push(name);
        }
        servers
    }

    fn gateway(
        &mut self,
        raw: &RawGateway,
        tunnels: &BTreeMap<Spanned<String>, Spanned<RawTunnel>>,
        built: &BTreeMap<String, Tunnel>,
        server: Option<&Server>,
    ) -> Option<Gateway> {
        let named = tunnels
            .iter()
            .find(|(name, _)| name.get_ref() == raw.tunnel.get_ref());
        if let Some((name, tunnel)) = named {
            if !tunnel.get_ref().leads_on() {
                let name = name.get_ref();
                self.mistake_with_help(
                    raw.tunnel.span(),
                    format!(
                        "tunnel `{name}` reaches only its peer, so devices of the LAN would have no internet through it"
                    ),
                    format!(
                        "write virtual_address = true in [tunnel.{name}], or say with remote_networks what it reaches"
                    ),
                );
            }
        } else {
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
        let (mut devices, mistakes) = LanDevices::read(raw);
        self.mistakes.extend(mistakes);
        self.through(raw, &mut devices, tunnels, built, server);
        self.on_failure(raw, named.map(|(_, tunnel)| tunnel.get_ref()));
        let dhcp = raw.dhcp.as_ref();
        let dhcp = dhcp.and_then(|dhcp| self.dhcp(dhcp, &lan, networks.as_deref()));
        let advertise = raw.advertise.as_ref();
        let advertise = advertise.and_then(|advertise| self.advertise(raw, advertise, &lan));
        Some(Gateway {
            tunnel: raw.tunnel.get_ref().clone(),
            lan,
            networks,
            guard: raw.guard.unwrap_or(true),
            own_traffic: self.value_or(
                raw.own_traffic.as_ref(),
                OwnTraffic::default(),
                OwnTraffic::parse,
            ),
            devices,
            dns: raw.dns.as_ref().map(|dns| self.dns(dns.get_ref())),
            dhcp,
            advertise,
        })
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
            Some(w) if (32..=65_536).contains(w.get_ref()) => *w.get_ref(),
            Some(w) => {
                self.mistake(
                    w.span(),
                    "`replay_window` is out of range: expected 32 to 65536 packets",
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

/// The TUN of a tunnel that names none: 15 letters, as many as the kernel allows.
#[must_use]
pub fn default_interface(tunnel: &str) -> String {
    format!("cyg-{tunnel}").chars().take(15).collect()
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

fn templates(networks: &[IpNet]) -> Vec<SelectorTemplate> {
    networks
        .iter()
        .map(|n| SelectorTemplate::Fixed(parse::selector(n)))
        .collect()
}
