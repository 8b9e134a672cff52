//! `[tunnel.NAME]`: one connection, its children, its network.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use cygnet_gateway::Mapping;
use cygnet_ike::io::WantedAddress;
use cygnet_ike::policy::{
    ChildPolicy, Connection, EapLogin, IdentityPattern, LocalAuth, Remote, Retransmit,
    SelectorTemplate, Server, Start,
};
use ipnet::IpNet;
use toml::Spanned;

use super::auth::{AuthKeys, LogIn};
use super::hook::HookKeys;
use super::map::NetworkKeys;
use super::{
    Builder, CHILD_LIFETIME, IKE_LIFETIME, KEEPALIVE, LIVENESS, default_interface,
    default_retransmit, everything, templates,
};
use crate::raw::{OneOrMany, RawChild, RawRetransmit, RawTunnel, VirtualAddress};
use crate::{SERVER, Tunnel, parse, units};

/// Servers of one tunnel.
const SERVERS_MAX: usize = 16;

impl Builder<'_> {
    pub(super) fn tunnel(
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
        let everywhere = raw.remote_identity.as_ref().map(|w| self.patterns(w));
        let mut remote = self.remote(raw, everywhere.as_ref(), name.span());
        let remote_identity = self.remote_identity(raw, everywhere, &mut remote, name.span());
        let auth = self.auth(&AuthKeys {
            owner: name.get_ref(),
            span: name.span(),
            certificate: raw.certificate.as_ref(),
            key: raw.key.as_ref(),
            ca: raw.ca.as_ref(),
            crl: raw.crl.as_ref(),
            psk: raw.psk.as_ref(),
            log_in: LogIn::Own {
                user: raw.user.as_ref(),
                password: raw.password.as_ref(),
                method: raw.eap.as_ref(),
            },
            allow_sha1: raw.verify_sha1.unwrap_or(false),
            rsa_pss: raw.rsa_pss.unwrap_or(false),
        });
        let request_virtual = self.request_virtual(raw.virtual_address.as_ref());
        let (children, maps) = self.children(raw, &remote, !request_virtual.is_empty());
        let local_identity = raw
            .identity
            .as_ref()
            .and_then(|w| self.value(w, parse::identification));
        let default = default_interface(name.get_ref());
        let interface = self.value_or(raw.interface.as_ref(), default, units::interface);
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
        let hook = self.hook(&HookKeys {
            command: raw.hook.as_ref(),
            timeout: raw.hook_timeout.as_ref(),
            user: raw.hook_user.as_ref(),
        });
        if let (Remote::Any, Some(written)) = (&remote, raw.user.as_ref().or(raw.eap.as_ref()))
            && raw.remote.is_some()
        {
            self.mistake_with_help(
                written.span(),
                "the tunnel waits for its peer, and only who calls can log in",
                "name the remote",
            );
        }
        let auth = auth?;
        self.proven(raw.identity.as_ref(), local_identity.as_ref(), &auth.local);
        let local_identity = local_identity
            .or_else(|| auth.subject.map(parse::dn_identity))
            .or_else(|| parse::identity_of_login(&auth.local));
        let local_auth = match raw.eap {
            Some(_) => in_tls(auth.local),
            None => auth.local,
        };
        if self.mistakes.len() > before {
            return None;
        }
        let network = Tunnel {
            interface,
            mtu,
            remote_networks: fixed_networks(&children, |c| &c.remote),
            local_networks: as_here(fixed_networks(&children, |c| &c.local), &maps),
            maps,
            virtual_address: !request_virtual.is_empty(),
            standby_for: raw.standby_for.as_ref().map(|w| w.get_ref().clone()),
            hook,
        };
        let connection = Connection {
            name: name.get_ref().clone(),
            remote,
            local_address: None,
            local_identity,
            remote_identity,
            local_auth,
            remote_auth: auth.remote,
            eap: auth.eap,
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
            search_mtu: raw.search_mtu.unwrap_or(true),
            mobike: raw.mobike.unwrap_or(true),
            keepalive: KEEPALIVE,
            unique: raw.unique.unwrap_or(true),
        };
        Some((connection, network))
    }

    /// Where the peer is, and who must answer there: `all`, unless it is said of one.
    fn remote(
        &mut self,
        raw: &RawTunnel,
        all: Option<&IdentityPattern>,
        name: Range<usize>,
    ) -> Remote {
        let Some(written) = &raw.remote else {
            self.mistake_with_help(
                name,
                "the tunnel has no `remote`",
                "write remote = \"vpn.example.org\", or remote = \"any\" to wait for the other side",
            );
            return Remote::Any;
        };
        if let [only] = written.places.as_slice()
            && only.address.get_ref() == "any"
            && only.identity.is_none()
        {
            return Remote::Any;
        }
        if written.places.is_empty() || written.places.len() > SERVERS_MAX {
            self.mistake(
                written.span.clone(),
                format!("`remote` names no server, or too many: expected 1 to {SERVERS_MAX}"),
            );
        }
        let mut servers: Vec<Server> = Vec::new();
        for place in &written.places {
            if place.address.get_ref() == "any" {
                self.mistake_with_help(
                    place.address.span(),
                    "`any` stands among servers: whoever waits for its peer calls nobody",
                    "write remote = \"any\" alone, or name the servers",
                );
                continue;
            }
            let host = self.value(&place.address, parse::host);
            let own = place.identity.as_ref().map(|w| self.patterns(w));
            let Some(host) = host else { continue };
            if servers.iter().any(|server| server.host == host) {
                self.mistake(
                    place.address.span(),
                    format!("`{host}` stands in the list twice"),
                );
            }
            let named = || {
                all.cloned()
                    .unwrap_or_else(|| parse::identity_of_host(&host))
            };
            let identity = Some(own.unwrap_or_else(named));
            servers.push(Server { host, identity });
        }
        Remote::Hosts {
            servers,
            port: raw.remote_port.as_ref().map_or(500, |p| *p.get_ref()),
        }
    }

    fn patterns(&mut self, written: &OneOrMany) -> IdentityPattern {
        any_of(self.values(written.iter(), parse::identity_pattern))
    }

    /// Who the peer is, wherever it is. What is the same at every server is said once.
    fn remote_identity(
        &mut self,
        raw: &RawTunnel,
        all: Option<IdentityPattern>,
        remote: &mut Remote,
        name: Range<usize>,
    ) -> IdentityPattern {
        let Remote::Hosts { servers, .. } = remote else {
            // That it has no `remote` was told already.
            if all.is_none() && raw.remote.is_some() {
                self.mistake_with_help(
                    name,
                    "the tunnel waits for its peer but does not say who that is",
                    "write remote_identity = \"office-b.example.org\"",
                );
            }
            return all.unwrap_or(IdentityPattern::Any);
        };
        let mut each: Vec<IdentityPattern> = Vec::new();
        for identity in servers.iter().filter_map(|server| server.identity.as_ref()) {
            if !each.contains(identity) {
                each.push(identity.clone());
            }
        }
        if each.len() == 1 {
            for server in servers {
                server.identity = None;
            }
        }
        any_of(each)
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
    ) -> (Vec<Arc<ChildPolicy>>, Vec<Mapping>) {
        if raw.child.is_empty() {
            let child = RawChild {
                local_networks: raw.local_networks.clone(),
                local_map: raw.local_map.clone(),
                remote_networks: raw.remote_networks.clone(),
                ..RawChild::default()
            };
            let (child, maps) = self.child("net", &child, raw, remote, virtual_address);
            return (vec![Arc::new(child)], maps);
        }
        let networks = [&raw.local_networks, &raw.remote_networks].into_iter();
        let firsts = networks.flatten().map(|list| list.first());
        let map = raw.local_map.iter().map(|map| map.iter().next());
        for first in firsts.chain(map) {
            let span = first.map_or(0..0, Spanned::span);
            self.mistake_with_help(
                span,
                "the tunnel has networks of its own beside its [tunnel.NAME.child.…] sections",
                "move them into a child",
            );
        }
        let children = raw.child.iter().map(|(name, child)| {
            if !parse::is_name(name.get_ref()) {
                self.mistake(
                    name.span(),
                    format!(
                        "`{}` is no name: expected letters, digits, `-` and `_`, 32 at most",
                        name.get_ref()
                    ),
                );
            }
            let (name, child) = (name.get_ref(), child.get_ref());
            let (child, maps) = self.child(name, child, raw, remote, virtual_address);
            (Arc::new(child), maps)
        });
        let (children, maps): (Vec<_>, Vec<_>) = children.unzip();
        let mut maps = maps.concat();
        maps.sort();
        maps.dedup();
        self.one_name_each(raw, &children, &maps);
        (children, maps)
    }

    /// A child's own keys come first, then its tunnel's, then the defaults.
    fn child(
        &mut self,
        name: &str,
        raw: &RawChild,
        tunnel: &RawTunnel,
        remote: &Remote,
        virtual_address: bool,
    ) -> (ChildPolicy, Vec<Mapping>) {
        let maps = self.maps(&NetworkKeys {
            local: raw.local_networks.as_deref(),
            map: raw.local_map.as_ref(),
            remote: raw.remote_networks.as_deref(),
        });
        let local = match &raw.local_networks {
            Some(list) => templates(&as_shown(self.networks(list), &maps)),
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
        let child = ChildPolicy {
            name: name.to_owned(),
            local,
            remote: remote_ts,
            esp_proposals: self.esp_proposals(raw.esp.as_deref().or(tunnel.esp.as_deref())),
            start,
            lifetime,
            replay_window: self
                .replay_window(raw.replay_window.as_ref().or(tunnel.replay_window.as_ref())),
        };
        (child, maps)
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
}

/// One pattern, or whichever of several.
fn any_of(mut patterns: Vec<IdentityPattern>) -> IdentityPattern {
    match patterns.len() {
        1 => patterns.remove(0),
        _ => IdentityPattern::AnyOf(patterns),
    }
}

/// The same certificate, shown in EAP-TLS.
fn in_tls(local: LocalAuth) -> LocalAuth {
    match local {
        LocalAuth::Certificate {
            credential,
            key,
            chain,
            ..
        } => LocalAuth::Eap(EapLogin::Certificate {
            credential,
            key,
            chain,
        }),
        // What was given beside `eap` is told as a mistake.
        other => other,
    }
}

/// Networks of ours by the names that the other side has for them.
fn as_shown(networks: Vec<IpNet>, maps: &[Mapping]) -> Vec<IpNet> {
    let name = |net: IpNet| {
        maps.iter()
            .find(|map| map.own() == net)
            .map_or(net, Mapping::shown)
    };
    networks.into_iter().map(name).collect()
}

/// The reverse.
fn as_here(networks: Vec<IpNet>, maps: &[Mapping]) -> Vec<IpNet> {
    let name = |net: IpNet| {
        maps.iter()
            .find(|map| map.shown() == net)
            .map_or(net, Mapping::own)
    };
    let mut networks: Vec<IpNet> = networks.into_iter().map(name).collect();
    networks.sort();
    networks.dedup();
    networks
}

pub(super) fn fixed_networks(
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
