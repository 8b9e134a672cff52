//! Devices of the LAN: how each is told from the others, and where what it sends may go.
//!
//! A MAC address stands for all of a device, whatever IPv4 and IPv6 addresses it has by now; an address or a network
//! for what has it as its source. Of several that fit, the MAC address decides, then the narrowest network, then what
//! is said of all others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Family;

/// Where what a device sends may go. The LAN itself is reached whatever it says.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum DevicePolicy {
    /// Into the tunnel, or nowhere.
    #[default]
    Tunnelled,
    /// The machine's ordinary way, in clear.
    Direct,
    /// Nowhere.
    Blocked,
}

impl DevicePolicy {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Tunnelled, Self::Direct, Self::Blocked];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tunnelled => "tunnelled",
            Self::Direct => "direct",
            Self::Blocked => "blocked",
        }
    }
}

impl fmt::Display for DevicePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DevicePolicy {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let mut all = Self::ALL.into_iter();
        all.find(|policy| policy.as_str() == text)
            .ok_or_else(|| DeviceError::Policy(text.to_owned()))
    }
}

/// Where what a sender sends goes, and by which tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way<'a> {
    /// Into the gateway's tunnel, or nowhere.
    Tunnelled,
    /// Into the tunnel of this name, which is another, or nowhere.
    Through(&'a str),
    /// The machine's ordinary way, in clear.
    Direct,
    /// Nowhere.
    Blocked,
}

/// The hardware address of one network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// `None` for what no card has: an address of a group, or zeros.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Option<Self> {
        match octets {
            [0, 0, 0, 0, 0, 0] => None,
            // IEEE 802: the lowest bit of the first octet marks a group.
            [first, ..] if first & 1 == 1 => None,
            _ => Some(Self(octets)),
        }
    }

    /// As it stands in a frame.
    #[must_use]
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

/// `aa:bb:cc:dd:ee:ff`, or with hyphens.
impl FromStr for Mac {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let octets = octets(text).ok_or_else(|| DeviceError::NoMac(text.to_owned()))?;
        Self::new(octets).ok_or_else(|| DeviceError::Group(text.to_owned()))
    }
}

impl TryFrom<String> for Mac {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What a device, or several, are told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// One network card.
    Mac(Mac),
    /// Whoever sends from there; of one address as a rule.
    Network(IpNet),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => mac.fmt(f),
            Self::Network(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Network(net) => net.fmt(f),
        }
    }
}

/// `aa:bb:cc:dd:ee:ff` (or with hyphens), `192.168.1.9`, `fd00::9`, `192.168.1.64/26`.
impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(IpNet::from(address)));
        }
        if let Ok(net) = text.parse::<IpNet>() {
            return match net.prefix_len() {
                0 => Err(DeviceError::Everybody(text.to_owned())),
                _ if net != net.trunc() => Err(DeviceError::HostBits(text.to_owned(), net.trunc())),
                _ => Ok(Self::Network(net)),
            };
        }
        text.parse().map(Self::Mac).map_err(|error| match error {
            DeviceError::NoMac(text) => DeviceError::NoDevice(text),
            error => error,
        })
    }
}

fn octets(text: &str) -> Option<[u8; 6]> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts = text.split(separator).map(|part| {
        let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(part, 16).ok())?
    });
    parts.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

impl TryFrom<String> for Device {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

/// What names no device, or no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Neither kind of address.
    #[error(
        "`{0}` is no device: expected a MAC address (\"aa:bb:cc:dd:ee:ff\"), an address (\"192.168.1.9\") or a network \
         (\"192.168.1.64/26\"); `cygnet device list` shows those that were seen"
    )]
    NoDevice(String),
    /// None of a network card where nothing else will do.
    #[error("`{0}` is no MAC address: expected six pairs such as \"3c:22:fb:01:02:03\"")]
    NoMac(String),
    /// A MAC address that no device sends from.
    #[error(
        "`{0}` is the MAC address of no device (zeros, or of a group): expected the one that `ip neigh` shows beside its address"
    )]
    Group(String),
    /// `0.0.0.0/0` and the like.
    #[error("`{0}` is every device: say with `default` what is true of all that are not named")]
    Everybody(String),
    /// Bits behind the prefix.
    #[error("`{0}` has bits set behind its prefix; did you mean `{1}`?")]
    HostBits(String, IpNet),
    /// No word for a policy.
    #[error("`{0}` is no policy: expected tunnelled, direct or blocked")]
    Policy(String),
}

/// Which device goes where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Devices {
    /// Those that are not named, see [`Self::unnamed`].
    pub default: DevicePolicy,
    /// Those that are.
    pub named: BTreeMap<Device, DevicePolicy>,
    /// Of those that are tunnelled, the ones that go through another tunnel than the gateway's: its name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub through: BTreeMap<Device, String>,
}

impl Devices {
    /// Says something of a device; `through` only where it is tunnelled, by another tunnel than the gateway's.
    pub fn give(&mut self, device: Device, policy: DevicePolicy, through: Option<String>) {
        self.named.insert(device, policy);
        match through.filter(|_| policy == DevicePolicy::Tunnelled) {
            Some(tunnel) => self.through.insert(device, tunnel),
            None => self.through.remove(&device),
        };
    }

    /// The tunnel that what is said of this device leads into, if it is another than the gateway's.
    #[must_use]
    pub fn through(&self, said_of: Option<&Device>) -> Option<&str> {
        let device = said_of?;
        let tunnelled = self.named.get(device) == Some(&DevicePolicy::Tunnelled);
        let tunnel = self.through.get(device).filter(|_| tunnelled);
        tunnel.map(String::as_str)
    }

    /// Where what this one sends goes. `mac` as far as it is known.
    #[must_use]
    pub fn way(&self, mac: Option<Mac>, source: IpAddr) -> Way<'_> {
        let (said_of, policy) = self.decision(mac, source);
        self.way_of(said_of.as_ref(), policy)
    }

    /// Where it may go: one way, or where its MAC address is not known each that is said of any.
    pub(crate) fn possible_ways(&self, mac: Option<Mac>, source: IpAddr) -> BTreeSet<Way<'_>> {
        let mut ways = BTreeSet::from([self.way(mac, source)]);
        if mac.is_none() {
            let by_mac = self
                .ways()
                .filter(|(device, _)| matches!(device, Device::Mac(_)));
            ways.extend(by_mac.map(|(_, way)| way));
        }
        ways
    }

    fn way_of(&self, said_of: Option<&Device>, policy: DevicePolicy) -> Way<'_> {
        match (policy, self.through(said_of)) {
            (DevicePolicy::Tunnelled, Some(tunnel)) => Way::Through(tunnel),
            (DevicePolicy::Tunnelled, None) => Way::Tunnelled,
            (DevicePolicy::Direct, _) => Way::Direct,
            (DevicePolicy::Blocked, _) => Way::Blocked,
        }
    }

    /// All that something is said of, each with its way.
    pub(crate) fn ways(&self) -> impl Iterator<Item = (Device, Way<'_>)> {
        let named = self.named.iter();
        named.map(|(device, policy)| (*device, self.way_of(Some(device), *policy)))
    }

    /// Of those that are not named, in one family: see [`Self::unnamed`].
    pub(crate) fn unnamed_way(&self, family: Family) -> Way<'_> {
        self.way_of(None, self.unnamed(family))
    }

    /// Whether anybody goes through another tunnel than the gateway's.
    pub(crate) fn any_through(&self) -> bool {
        self.ways().any(|(_, way)| matches!(way, Way::Through(_)))
    }

    /// What decides about a sender, and how. `mac` as far as it is known.
    #[must_use]
    pub fn decision(&self, mac: Option<Mac>, source: IpAddr) -> (Option<Device>, DevicePolicy) {
        let by_mac = mac.map(Device::Mac);
        if let Some((device, policy)) = by_mac.and_then(|mac| self.named.get_key_value(&mac)) {
            return (Some(*device), *policy);
        }
        self.of_network(IpNet::from(source))
    }

    /// What decides about those who send from there, as far as no MAC address and nothing narrower does.
    #[must_use]
    pub fn of_network(&self, source: IpNet) -> (Option<Device>, DevicePolicy) {
        let mut narrowest: Option<(IpNet, DevicePolicy)> = None;
        for (device, policy) in &self.named {
            if let Device::Network(net) = device
                && net.contains(&source)
                && narrowest.is_none_or(|(found, _)| found.prefix_len() < net.prefix_len())
            {
                narrowest = Some((*net, *policy));
            }
        }
        match narrowest {
            Some((net, policy)) => (Some(Device::Network(net)), policy),
            None => (None, self.unnamed(Family::of_net(source))),
        }
    }

    /// Of devices that are not named, in one family. Where they go direct, and somebody who must not is named
    /// by addresses of the other family, this one is tunnelled whole: a device that is named by its IPv4 address
    /// has IPv6 addresses that nobody wrote down and that change by themselves (RFC 8981). What else is named in
    /// this family says nothing of that device, so it does not count.
    #[must_use]
    pub fn unnamed(&self, family: Family) -> DevicePolicy {
        let closed_in_the_other = self.named.iter().any(|(device, policy)| match device {
            Device::Network(net) => {
                Family::of_net(*net) != family && *policy != DevicePolicy::Direct
            }
            Device::Mac(_) => false,
        });
        match self.default {
            DevicePolicy::Direct if closed_in_the_other => DevicePolicy::Tunnelled,
            default => default,
        }
    }

    /// Nobody goes direct: for when it is not certain who may.
    #[must_use]
    pub fn without_direct(mut self) -> Self {
        self.named
            .retain(|_, policy| *policy != DevicePolicy::Direct);
        if self.default == DevicePolicy::Direct {
            self.default = DevicePolicy::Tunnelled;
        }
        self
    }

    /// Whether this policy is anybody's.
    #[must_use]
    pub fn any(&self, policy: DevicePolicy) -> bool {
        self.default == policy || self.named.values().any(|named| *named == policy)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn devices(default: DevicePolicy, named: &[(&str, DevicePolicy)]) -> Devices {
        let named = named
            .iter()
            .map(|(d, policy)| (d.parse().unwrap(), *policy));
        Devices {
            default,
            named: named.collect(),
            ..Devices::default()
        }
    }

    #[test]
    fn devices_are_written_as_they_are_read() {
        for (text, shown) in [
            ("AA-bb-CC-00-11-02", "aa:bb:cc:00:11:02"),
            ("aa:bb:cc:00:11:02", "aa:bb:cc:00:11:02"),
            ("192.168.1.9", "192.168.1.9"),
            ("192.168.1.9/32", "192.168.1.9"),
            ("192.168.1.64/26", "192.168.1.64/26"),
            ("fd00::9", "fd00::9"),
            ("fd00:1::/64", "fd00:1::/64"),
        ] {
            let device: Device = text.parse().unwrap();
            assert_eq!(device.to_string(), shown);
            let json = serde_json::to_string(&device).unwrap();
            assert_eq!(json, format!("\"{shown}\""));
            assert_eq!(serde_json::from_str::<Device>(&json).unwrap(), device);
        }
    }

    #[test]
    fn what_is_no_device_is_told_with_what_was_expected() {
        for (text, told) in [
            ("", "expected a MAC address"),
            ("aa:bb:cc:dd:ee", "expected a MAC address"),
            ("aa:bb:cc:dd:ee:ff:00", "expected a MAC address"),
            ("aa:bb:cc:dd:ee:fg", "expected a MAC address"),
            ("a:bb:cc:dd:ee:ff", "expected a MAC address"),
            ("+a:bb:cc:dd:ee:ff", "expected a MAC address"),
            ("aa-bb:cc-dd:ee-ff", "expected a MAC address"),
            (
                "192.168.1",
                "; `cygnet device list` shows those that were seen",
            ),
            ("01:00:5e:00:00:01", "of a group"),
            ("00:00:00:00:00:00", "of no device"),
            ("192.168.1.9/24", "did you mean `192.168.1.0/24`?"),
            ("0.0.0.0/0", "say with `default`"),
            ("::/0", "say with `default`"),
        ] {
            let error = text.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert_eq!("direct".parse(), Ok(DevicePolicy::Direct));
        let error = "Direct".parse::<DevicePolicy>().unwrap_err().to_string();
        assert!(error.contains("expected tunnelled, direct or blocked"));
    }

    #[test]
    fn the_mac_address_decides_then_the_narrowest_network_then_the_default() {
        use DevicePolicy::{Blocked, Direct, Tunnelled};
        let devices = devices(
            Tunnelled,
            &[
                ("02:00:00:00:00:01", Tunnelled),
                ("02:00:00:00:00:02", Blocked),
                ("192.168.1.0/24", Direct),
                ("192.168.1.64/26", Blocked),
                ("192.168.1.70", Tunnelled),
            ],
        );
        let decides = |mac: &str, source: &str| {
            let mac = match mac.parse() {
                Ok(Device::Mac(mac)) => Some(mac),
                _ => None,
            };
            let (device, policy) = devices.decision(mac, source.parse().unwrap());
            (device.map(|d| d.to_string()), policy)
        };
        for (mac, source, by, policy) in [
            (
                "02:00:00:00:00:01",
                "192.168.1.65",
                "02:00:00:00:00:01",
                Tunnelled,
            ),
            ("02:00:00:00:00:02", "fd00::7", "02:00:00:00:00:02", Blocked),
            (
                "02:00:00:00:00:03",
                "192.168.1.70",
                "192.168.1.70",
                Tunnelled,
            ),
            (
                "02:00:00:00:00:03",
                "192.168.1.71",
                "192.168.1.64/26",
                Blocked,
            ),
            ("", "192.168.1.9", "192.168.1.0/24", Direct),
        ] {
            assert_eq!(decides(mac, source), (Some(by.to_owned()), policy));
        }
        assert_eq!(decides("", "192.168.2.9"), (None, Tunnelled));
        assert_eq!(decides("02:00:00:00:00:03", "fd00::7"), (None, Tunnelled));
    }

    #[test]
    fn another_tunnel_is_a_devices_as_long_as_it_is_tunnelled() {
        use DevicePolicy::{Blocked, Tunnelled};
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        let device = Device::Mac(mac.unwrap());
        let mut devices = Devices::default();
        let source = "192.168.1.9".parse().unwrap();
        devices.give(device, Tunnelled, Some("work".to_owned()));
        assert_eq!(devices.way(mac, source), Way::Through("work"));
        assert_eq!(devices.way(None, source), Way::Tunnelled);
        let kept = serde_json::to_string(&devices).unwrap();
        assert_eq!(serde_json::from_str::<Devices>(&kept).unwrap(), devices);
        // Who is not sure what was meant opens nobody the gateway's tunnel.
        assert_eq!(devices.clone().without_direct(), devices);
        devices.give(device, Blocked, Some("work".to_owned()));
        assert_eq!(devices.way(mac, source), Way::Blocked);
        assert!(devices.through.is_empty() && !devices.any_through());
        devices.give(device, Tunnelled, None);
        assert_eq!(devices.way(mac, source), Way::Tunnelled);
    }

    #[test]
    fn naming_a_device_by_ipv4_alone_opens_no_ipv6() {
        use DevicePolicy::{Blocked, Direct, Tunnelled};
        let of = |named: &[(&str, DevicePolicy)]| {
            let devices = devices(Direct, named);
            Family::BOTH.map(|family| devices.unnamed(family))
        };
        assert_eq!(of(&[]), [Direct, Direct]);
        assert_eq!(of(&[("192.168.1.9", Direct)]), [Direct, Direct]);
        assert_eq!(of(&[("192.168.1.9", Tunnelled)]), [Direct, Tunnelled]);
        assert_eq!(of(&[("fd00::9", Blocked)]), [Tunnelled, Direct]);
        assert_eq!(
            of(&[("192.168.1.9", Tunnelled), ("fd00::/64", Tunnelled)]),
            [Tunnelled, Tunnelled]
        );
        assert_eq!(
            of(&[("192.168.1.9", Tunnelled), ("fd00::77", Blocked)]),
            [Tunnelled, Tunnelled]
        );
        assert_eq!(of(&[("02:00:00:00:00:01", Tunnelled)]), [Direct, Direct]);
    }

    /// Few of each, so that they meet.
    fn a_device() -> impl Strategy<Value = Device> {
        let of = [
            "02:00:00:00:00:01",
            "02:00:00:00:00:02",
            "192.168.1.9",
            "192.168.1.10",
            "192.168.1.8/30",
            "192.168.0.0/16",
            "fd00::9",
            "fd00::10",
            "fd00::/64",
        ];
        proptest::sample::select(of.map(|d| d.parse::<Device>().unwrap()).to_vec())
    }

    proptest! {
        #[test]
        fn whoever_is_closed_in_opens_nobody(
            default in proptest::sample::select(DevicePolicy::ALL.to_vec()),
            named in proptest::collection::btree_map(
                a_device(), proptest::sample::select(DevicePolicy::ALL.to_vec()), 0..6,
            ),
            more in a_device(),
            blocked: bool,
        ) {
            let before = Devices { default, named, ..Devices::default() };
            let mut after = before.clone();
            let policy = if blocked { DevicePolicy::Blocked } else { DevicePolicy::Tunnelled };
            after.named.insert(more, policy);
            for mac in [None, Mac::new([2, 0, 0, 0, 0, 1]), Mac::new([2, 0, 0, 0, 0, 3])] {
                for source in ["192.168.1.9", "192.168.1.11", "192.168.7.1", "fd00::9", "fd00::11", "2001:db8::1"] {
                    let direct = |devices: &Devices| {
                        devices.decision(mac, source.parse().unwrap()).1 == DevicePolicy::Direct
                    };
                    prop_assert!(direct(&before) || !direct(&after), "{mac:?} {source}: {before:?} and {more}");
                }
            }
        }
    }

    #[test]
    fn where_it_is_not_certain_who_goes_direct_nobody_does() {
        use DevicePolicy::{Blocked, Direct, Tunnelled};
        let closed = devices(
            Direct,
            &[("02:00:00:00:00:01", Direct), ("192.168.1.9", Blocked)],
        );
        let expected = devices(Tunnelled, &[("192.168.1.9", Blocked)]);
        assert_eq!(closed.without_direct(), expected);
        let blocked = devices(Blocked, &[]);
        assert_eq!(blocked.clone().without_direct(), blocked);
    }
}
