//! The file as written: every key, with its place, before it means anything.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::Nat;

/// One string or several.
#[derive(Clone, Debug)]
pub(crate) enum OneOrMany {
    /// `"a"`
    One(Spanned<String>),
    /// `["a", "b"]`
    Many(Vec<Spanned<String>>),
}

impl OneOrMany {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Spanned<String>> {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many.as_slice(),
        }
        .iter()
    }
}

/// `true`, `false`, or the addresses wished for.
#[derive(Clone, Debug)]
pub(crate) enum VirtualAddress {
    Any(bool),
    These(Vec<Spanned<String>>),
}

/// `true`, `false`, or one family.
#[derive(Clone, Debug)]
pub(crate) struct RawNat(pub(crate) Nat);

/// What TOML has where several kinds of value are allowed. serde's own untagged enums lose the
/// places of what they hold, so the choice is made by hand.
enum Choice {
    Flag(bool),
    Text(String),
    List(Vec<Spanned<String>>),
}

struct ChoiceVisitor {
    expected: &'static str,
}

impl<'de> Visitor<'de> for ChoiceVisitor {
    type Value = Choice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Choice, E> {
        Ok(Choice::Flag(flag))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Choice, E> {
        Ok(Choice::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Choice, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Choice::List(list))
    }
}

/// Where a tunnel is answered: one place, or several in order.
#[derive(Clone, Debug)]
pub(crate) struct RawRemote {
    pub(crate) places: Vec<RawPlace>,
    pub(crate) span: Range<usize>,
}

/// `"vpn.example.org"`, or `{ address = "vpn.example.org", identity = "…" }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPlace {
    pub(crate) address: Spanned<String>,
    pub(crate) identity: Option<OneOrMany>,
}

impl RawPlace {
    fn named(address: Spanned<String>) -> Self {
        let identity = None;
        Self { address, identity }
    }
}

/// What stands in the place of one or of several of them.
enum Places {
    Text(String),
    Table(RawPlace),
    List(Vec<OnePlace>),
}

/// One of a list: no list itself.
struct OnePlace(RawPlace);

struct PlacesVisitor;

impl<'de> Visitor<'de> for PlacesVisitor {
    type Value = Places;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PLACES)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Places, E> {
        Ok(Places::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Places, A::Error> {
        RawPlace::deserialize(MapAccessDeserializer::new(map)).map(Places::Table)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Places, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Places::List(list))
    }
}

const PLACE: &str = "a server, or { address = \"…\", identity = \"…\" }";
const PLACES: &str = "a server, { address = \"…\", identity = \"…\" }, or a list of them";

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlacesVisitor)
    }
}

impl<'de> Deserialize<'de> for OnePlace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Places>::deserialize(deserializer)?;
        let span = spanned.span();
        match spanned.into_inner() {
            Places::Text(text) => Ok(Self(RawPlace::named(Spanned::new(span, text)))),
            Places::Table(place) => Ok(Self(place)),
            Places::List(_) => Err(de::Error::invalid_type(Unexpected::Seq, &PLACE)),
        }
    }
}

impl<'de> Deserialize<'de> for RawRemote {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Places>::deserialize(deserializer)?;
        let span = spanned.span();
        let places = match spanned.into_inner() {
            Places::Text(text) => vec![RawPlace::named(Spanned::new(span.clone(), text))],
            Places::Table(place) => vec![place],
            Places::List(list) => list.into_iter().map(|one| one.0).collect(),
        };
        Ok(Self { places, span })
    }
}

const STRINGS: &str = "a string or a list of strings";

struct Strings(Choice);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = ChoiceVisitor { expected: STRINGS };
        deserializer.deserialize_any(visitor).map(Self)
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Strings>::deserialize(deserializer)?;
        let span = spanned.span();
        match spanned.into_inner().0 {
            Choice::Text(text) => Ok(Self::One(Spanned::new(span, text))),
            Choice::List(list) => Ok(Self::Many(list)),
            Choice::Flag(flag) => Err(de::Error::invalid_type(Unexpected::Bool(flag), &STRINGS)),
        }
    }
}

impl<'de> Deserialize<'de> for VirtualAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "true, false, or a list of addresses such as [\"10.99.0.7\"]";
        match deserializer.deserialize_any(ChoiceVisitor { expected: EXPECTED })? {
            Choice::Flag(flag) => Ok(Self::Any(flag)),
            Choice::List(list) => Ok(Self::These(list)),
            Choice::Text(text) => Err(de::Error::invalid_type(Unexpected::Str(&text), &EXPECTED)),
        }
    }
}

impl<'de> Deserialize<'de> for RawNat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "true, false, or \"ipv4\"";
        let wrong = |what: Unexpected<'_>| Err(de::Error::invalid_type(what, &EXPECTED));
        match deserializer.deserialize_any(ChoiceVisitor { expected: EXPECTED })? {
            Choice::Flag(true) => Ok(Self(Nat::Both)),
            Choice::Flag(false) => Ok(Self(Nat::Off)),
            Choice::Text(text) if text == "ipv4" => Ok(Self(Nat::Ipv4)),
            Choice::Text(text) => wrong(Unexpected::Str(&text)),
            Choice::List(_) => wrong(Unexpected::Seq),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawConfig {
    #[serde(default)]
    pub(crate) daemon: RawDaemon,
    pub(crate) server: Option<Spanned<RawServer>>,
    #[serde(default)]
    pub(crate) tunnel: BTreeMap<Spanned<String>, Spanned<RawTunnel>>,
    pub(crate) gateway: Option<Spanned<RawGateway>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDaemon {
    pub(crate) run_dir: Option<Spanned<String>>,
    pub(crate) state_dir: Option<Spanned<String>>,
    pub(crate) log: Option<Spanned<String>>,
    pub(crate) engine_user: Option<Spanned<String>>,
    pub(crate) ike_port: Option<Spanned<u16>>,
    pub(crate) natt_port: Option<Spanned<u16>>,
    pub(crate) listen: Option<OneOrMany>,
    pub(crate) workers: Option<Spanned<u16>>,
    pub(crate) time_servers: Option<OneOrMany>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawServer {
    pub(crate) identity: Option<Spanned<String>>,
    pub(crate) certificate: Option<Spanned<String>>,
    pub(crate) key: Option<Spanned<String>>,
    pub(crate) ca: Option<OneOrMany>,
    pub(crate) crl: Option<OneOrMany>,
    pub(crate) psk: Option<Spanned<String>>,
    pub(crate) passwords: Option<Spanned<String>>,
    pub(crate) eap_tls: Option<Spanned<bool>>,
    pub(crate) pools: Vec<Spanned<String>>,
    #[serde(default)]
    pub(crate) dns: Vec<Spanned<String>>,
    pub(crate) networks: Option<Vec<Spanned<String>>>,
    pub(crate) uplink: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) domains: Vec<Spanned<String>>,
    pub(crate) nat: Option<RawNat>,
    pub(crate) unique: Option<bool>,
    pub(crate) mobike: Option<bool>,
    pub(crate) host_access: Option<bool>,
    pub(crate) client_to_client: Option<bool>,
    pub(crate) block_private: Option<bool>,
    pub(crate) devices: Option<Spanned<String>>,
    pub(crate) speedtest: Option<bool>,
    pub(crate) ike: Option<Vec<Spanned<String>>>,
    pub(crate) esp: Option<Vec<Spanned<String>>>,
    pub(crate) verify_sha1: Option<bool>,
    pub(crate) rsa_pss: Option<bool>,
    pub(crate) ike_lifetime: Option<Spanned<String>>,
    pub(crate) child_lifetime: Option<Spanned<String>>,
    pub(crate) liveness: Option<Spanned<String>>,
    pub(crate) fragment_size: Option<Spanned<u16>>,
    pub(crate) replay_window: Option<Spanned<u32>>,
    pub(crate) interface: Option<Spanned<String>>,
    pub(crate) mtu: Option<Spanned<u16>>,
    pub(crate) hook: Option<OneOrMany>,
    pub(crate) hook_timeout: Option<Spanned<String>>,
    pub(crate) hook_user: Option<Spanned<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTunnel {
    pub(crate) remote: Option<RawRemote>,
    pub(crate) remote_port: Option<Spanned<u16>>,
    pub(crate) remote_identity: Option<OneOrMany>,
    pub(crate) identity: Option<Spanned<String>>,
    pub(crate) certificate: Option<Spanned<String>>,
    pub(crate) key: Option<Spanned<String>>,
    pub(crate) ca: Option<OneOrMany>,
    pub(crate) crl: Option<OneOrMany>,
    pub(crate) psk: Option<Spanned<String>>,
    pub(crate) user: Option<Spanned<String>>,
    pub(crate) password: Option<Spanned<String>>,
    pub(crate) eap: Option<Spanned<String>>,
    pub(crate) virtual_address: Option<VirtualAddress>,
    pub(crate) local_networks: Option<Vec<Spanned<String>>>,
    pub(crate) local_map: Option<OneOrMany>,
    pub(crate) remote_networks: Option<Vec<Spanned<String>>>,
    pub(crate) standby_for: Option<Spanned<String>>,
    pub(crate) start: Option<Spanned<String>>,
    pub(crate) ike: Option<Vec<Spanned<String>>>,
    pub(crate) esp: Option<Vec<Spanned<String>>>,
    pub(crate) verify_sha1: Option<bool>,
    pub(crate) rsa_pss: Option<bool>,
    pub(crate) force_udp: Option<bool>,
    pub(crate) unique: Option<bool>,
    pub(crate) mobike: Option<bool>,
    pub(crate) ike_lifetime: Option<Spanned<String>>,
    pub(crate) child_lifetime: Option<Spanned<String>>,
    pub(crate) child_bytes: Option<Spanned<String>>,
    pub(crate) child_packets: Option<Spanned<u64>>,
    pub(crate) reauth: Option<Spanned<String>>,
    pub(crate) liveness: Option<Spanned<String>>,
    pub(crate) retransmit: Option<RawRetransmit>,
    pub(crate) fragment_size: Option<Spanned<u16>>,
    pub(crate) search_mtu: Option<bool>,
    pub(crate) replay_window: Option<Spanned<u32>>,
    pub(crate) interface: Option<Spanned<String>>,
    pub(crate) mtu: Option<Spanned<u16>>,
    pub(crate) hook: Option<OneOrMany>,
    pub(crate) hook_timeout: Option<Spanned<String>>,
    pub(crate) hook_user: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) child: BTreeMap<Spanned<String>, Spanned<RawChild>>,
}

impl RawTunnel {
    /// Whether it reaches more than its peer's outer address.
    pub(crate) fn leads_on(&self) -> bool {
        let lent = match &self.virtual_address {
            None => false,
            Some(VirtualAddress::Any(wanted)) => *wanted,
            Some(VirtualAddress::These(list)) => !list.is_empty(),
        };
        let children = self.child.values().map(|c| &c.get_ref().remote_networks);
        let mut networks = children.chain([&self.remote_networks]).flatten();
        lent || networks.any(|list| !list.is_empty())
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawChild {
    pub(crate) local_networks: Option<Vec<Spanned<String>>>,
    pub(crate) local_map: Option<OneOrMany>,
    pub(crate) remote_networks: Option<Vec<Spanned<String>>>,
    pub(crate) start: Option<Spanned<String>>,
    pub(crate) esp: Option<Vec<Spanned<String>>>,
    pub(crate) child_lifetime: Option<Spanned<String>>,
    pub(crate) child_bytes: Option<Spanned<String>>,
    pub(crate) child_packets: Option<Spanned<u64>>,
    pub(crate) replay_window: Option<Spanned<u32>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRetransmit {
    pub(crate) first: Option<Spanned<String>>,
    pub(crate) factor: Option<Spanned<f32>>,
    pub(crate) most: Option<Spanned<String>>,
    pub(crate) tries: Option<Spanned<u32>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawGateway {
    pub(crate) tunnel: Spanned<String>,
    pub(crate) lan: OneOrMany,
    pub(crate) networks: Option<Vec<Spanned<String>>>,
    pub(crate) guard: Option<bool>,
    pub(crate) own_traffic: Option<Spanned<String>>,
    pub(crate) default: Option<Spanned<String>>,
    pub(crate) tunnelled: Option<OneOrMany>,
    pub(crate) direct: Option<OneOrMany>,
    pub(crate) blocked: Option<OneOrMany>,
    pub(crate) direct_networks: Option<Vec<Spanned<String>>>,
    pub(crate) direct_domains: Option<OneOrMany>,
    pub(crate) on_failure: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) through: BTreeMap<Spanned<String>, Spanned<RawThrough>>,
    #[serde(default)]
    pub(crate) devices: BTreeMap<Spanned<String>, OneOrMany>,
    pub(crate) dns: Option<Spanned<RawDns>>,
    pub(crate) dhcp: Option<Spanned<RawDhcp>>,
    pub(crate) advertise: Option<Spanned<RawAdvertise>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawAdvertise {
    pub(crate) interface: Option<Spanned<String>>,
    pub(crate) dns: Option<Vec<Spanned<String>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawThrough {
    pub(crate) devices: Option<OneOrMany>,
    pub(crate) networks: Option<OneOrMany>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDns {
    pub(crate) resolvers: Option<OneOrMany>,
    pub(crate) tls: Option<Spanned<String>>,
    pub(crate) ca: Option<Spanned<String>>,
    pub(crate) direct: Option<OneOrMany>,
    pub(crate) direct_resolvers: Option<OneOrMany>,
    pub(crate) lan_domains: Option<OneOrMany>,
    pub(crate) block: Option<OneOrMany>,
    pub(crate) dot: Option<Spanned<String>>,
    pub(crate) cache: Option<Spanned<u32>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDhcp {
    pub(crate) interface: Option<Spanned<String>>,
    pub(crate) range: Spanned<String>,
    pub(crate) lease_time: Option<Spanned<String>>,
    pub(crate) dns: Option<Vec<Spanned<String>>>,
    pub(crate) router_advertisements: Option<bool>,
    #[serde(default)]
    pub(crate) reservations: BTreeMap<Spanned<String>, Spanned<String>>,
}
