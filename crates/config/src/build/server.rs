//! `[server]`: the connection that takes whoever the CA vouches for.

use std::sync::Arc;
use std::time::Duration;

use cygnet_gateway::overlap;
use cygnet_ike::policy::{
    ChildPolicy, Connection, EapMethods, IdentityPattern, PoolId, Remote, Retransmit,
    SelectorTemplate, Start,
};
use cygnet_ike::proposal::EspProposal;
use ipnet::IpNet;
use toml::Spanned;

use super::auth::{AuthKeys, LogIn};
use super::hook::HookKeys;
use super::{
    Builder, KEEPALIVE, LIVENESS, SERVER_INTERFACE, default_retransmit, everything, templates,
};
use crate::raw::RawServer;
use crate::{Nat, Pool, SERVER, Server, devices, parse, units};

/// Behind the combined modes, for devices that have none (RouterOS), or do not offer them before they are told to
/// (iPhones and Macs without a profile), for IKE and for ESP: what RFC 8247 §2 and RFC 8221 §5 and §6 want everybody
/// to have.
const COMMON: &str =
    "aes256-aes128-sha256-sha384-sha512-curve25519-ecp256-ecp384-ecp521-modp2048-modp3072";

/// Longer than devices keep their keys by themselves (mostly one hour, and eight): they go first. Windows
/// behind a NAT does not take new ESP keys that the server begins with.
const CLIENTS_CHILD_LIFETIME: Duration = Duration::from_secs(2 * 3600);
/// The same for IKE SAs.
const CLIENTS_IKE_LIFETIME: Duration = Duration::from_secs(9 * 3600);

impl Builder<'_> {
    pub(super) fn server(&mut self, spanned: &Spanned<RawServer>) -> Option<(Connection, Server)> {
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
            log_in: LogIn::Served {
                passwords: raw.passwords.as_ref(),
                tls: raw.eap_tls.as_ref(),
            },
            allow_sha1: raw.verify_sha1.unwrap_or(false),
            rsa_pss: raw.rsa_pss.unwrap_or(false),
        });
        let pools = self.networks(&raw.pools);
        for (i, pool) in pools.iter().enumerate() {
            if let Some(other) = pools[..i].iter().find(|o| overlap(o, pool)) {
                let span = raw.pools.get(i).map_or(0..0, Spanned::span);
                self.mistake_with_help(
                    span,
                    format!("pool {pool} overlaps pool {other}"),
                    "choose networks that share no address",
                );
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
        let domains = self.values(&raw.domains, units::domain);
        if let (Some(first), true) = (raw.domains.first(), raw.dns.is_empty()) {
            self.mistake_with_help(
                first.span(),
                "`domains` without `dns`: nobody is named who knows the names below them",
                "write the resolvers inside as `dns`, such as dns = [\"10.0.0.53\"]",
            );
        }
        let networks = match &raw.networks {
            Some(list) => self.networks(list),
            None => everything(),
        };
        let client_to_client = raw.client_to_client.unwrap_or(false);
        let mut reached = networks.clone();
        if client_to_client {
            let outside = |pool: &&IpNet| !networks.iter().any(|net| net.contains(*pool));
            reached.extend(pools.iter().filter(outside));
        }
        let local = templates(&reached);
        // The internet is no network that is here.
        let mut inside: Vec<IpNet> = networks
            .iter()
            .filter(|n| n.prefix_len() > 0)
            .copied()
            .collect();
        inside.extend(dns.iter().copied().map(IpNet::from));
        let devices = match &raw.devices {
            Some(path) => self.file(path, devices::parse).unwrap_or_default(),
            None => Vec::new(),
        };
        let identity = match &raw.identity {
            Some(w) => self.value(w, parse::identification),
            None => None,
        };
        let interface = self.value_or(
            raw.interface.as_ref(),
            SERVER_INTERFACE.to_owned(),
            units::interface,
        );
        let uplink = raw
            .uplink
            .as_ref()
            .and_then(|w| self.value(w, units::interface));
        let child_lifetime = self.lifetime(
            raw.child_lifetime.as_ref(),
            CLIENTS_CHILD_LIFETIME,
            None,
            None,
        );
        let lifetime = self.lifetime(raw.ike_lifetime.as_ref(), CLIENTS_IKE_LIFETIME, None, None);
        let liveness = self.value_or(raw.liveness.as_ref(), LIVENESS, units::duration);
        let mut ike_proposals = self.ike_proposals(raw.ike.as_deref());
        if raw.ike.is_none() {
            ike_proposals.extend(parse::ike_proposal(COMMON));
        }
        let mut esp_proposals = self.esp_proposals(raw.esp.as_deref());
        if raw.esp.is_none() {
            esp_proposals.extend(common_esp());
        }
        let fragment_size = self.fragment_size(raw.fragment_size.as_ref());
        let replay_window = self.replay_window(raw.replay_window.as_ref());
        let mtu = self.mtu(raw.mtu.as_ref());
        let mobike = raw.mobike.unwrap_or(true);
        let hook = self.hook(&HookKeys {
            command: raw.hook.as_ref(),
            timeout: raw.hook_timeout.as_ref(),
            user: raw.hook_user.as_ref(),
        });
        let auth = auth?;
        self.proven(raw.identity.as_ref(), identity.as_ref(), &auth.local);
        if self.mistakes.len() > before {
            return None;
        }
        let pool = PoolId(SERVER.to_owned());
        self.pools.insert(
            pool.clone(),
            Pool {
                networks: lent(&pools, &reached),
                dns,
                domains,
                speedtest: raw.speedtest.unwrap_or(false),
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
            eap: EapMethods {
                shared: auth.eap.passwords.is_some() && raw.unique != Some(true),
                ..auth.eap
            },
            ike_proposals,
            children: vec![Arc::new(child)],
            request_virtual: Vec::new(),
            pool: Some(pool),
            lifetime,
            reauthenticate: None,
            liveness,
            retransmit: match mobike {
                true => patient(),
                false => default_retransmit(),
            },
            claim_nat: true,
            fragment_size,
            search_mtu: true,
            mobike,
            keepalive: KEEPALIVE,
            unique: raw.unique.unwrap_or(true),
        };
        let network = Server {
            interface,
            mtu,
            pools,
            networks,
            uplink,
            nat: raw.nat.as_ref().map_or(Nat::Both, |nat| nat.0),
            host_access: raw.host_access.unwrap_or(true),
            client_to_client,
            block_private: raw.block_private.unwrap_or(true),
            inside,
            devices,
            hook,
            speedtest: raw.speedtest.unwrap_or(false),
        };
        Some((connection, network))
    }
}

/// [`COMMON`], with a key exchange of its own and without: who has no combined mode often has no
/// perfect forward secrecy either, and would lose its tunnel when the keys are made anew.
fn common_esp() -> Vec<EspProposal> {
    let Ok(with_group) = parse::esp_proposal(COMMON) else {
        return Vec::new();
    };
    let without = EspProposal {
        group: Vec::new(),
        ..with_group.clone()
    };
    vec![with_group, without]
}

/// RFC 4555 §3.11: a client that is between two networks says where it is when it is there. Five
/// minutes.
fn patient() -> Retransmit {
    Retransmit {
        most: Duration::from_secs(30),
        tries: 16,
        ..default_retransmit()
    }
}

/// The pools of those families of which something is reached. A client that is lent an address of the
/// other one, and no network, has none of its routes set up (iOS).
fn lent(pools: &[IpNet], reached: &[IpNet]) -> Vec<IpNet> {
    let of_use = |pool: &&IpNet| {
        let family = |net: &IpNet| matches!(net, IpNet::V4(_)) == matches!(pool, IpNet::V4(_));
        reached.iter().any(family)
    };
    pools.iter().filter(of_use).copied().collect()
}
