//! What `[gateway]` says of the LAN's devices.

mod through;

use std::collections::BTreeMap;
use std::ops::Range;

use cygnet_gateway::{Device, DevicePolicy, Devices};
use ipnet::IpNet;
use toml::{Spanned, Table, Value};

use crate::guard::strings;
use crate::raw::{OneOrMany, RawGateway};
use crate::{Mistake, parse, units};

pub use through::Through;

/// Devices, what they are called, and what they reach around the tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LanDevices {
    /// Which of them go where.
    pub policies: Devices,
    /// What a name stands for; a device may have several network cards.
    pub names: BTreeMap<String, Vec<Device>>,
    /// Networks outside the LAN that every device but a blocked one reaches around the tunnel.
    pub direct_networks: Vec<IpNet>,
    /// Domains of which, and of all below them, the same is true: lower case, no final dot.
    pub direct_domains: Vec<String>,
    /// Other tunnels than the gateway's that devices may be given, by name.
    pub through: BTreeMap<String, Through>,
    /// While the gateway's tunnel is down, what is tunnelled by it goes direct.
    pub direct_on_failure: bool,
}

impl LanDevices {
    /// Domains that go direct at most.
    pub const MAX_DIRECT_DOMAINS: usize = 64;

    /// Whether anything of the LAN may leave in clear.
    #[must_use]
    pub fn lets_out(&self) -> bool {
        self.policies.any(DevicePolicy::Direct)
            || !self.direct_networks.is_empty()
            || !self.direct_domains.is_empty()
            || self.direct_on_failure
    }

    /// What is written, and every mistake in it.
    pub(crate) fn read(raw: &RawGateway) -> (Self, Vec<Mistake>) {
        let mut reader = Reader::default();
        reader.names(raw);
        if let Some(written) = &raw.default
            && let Some(policy) = reader.value(written, |t| t.parse::<DevicePolicy>())
        {
            reader.found.policies.default = policy;
        }
        for (policy, list) in [
            (DevicePolicy::Tunnelled, &raw.tunnelled),
            (DevicePolicy::Direct, &raw.direct),
            (DevicePolicy::Blocked, &raw.blocked),
        ] {
            for written in list.iter().flat_map(OneOrMany::iter) {
                reader.give(policy, None, written);
            }
        }
        for written in raw.direct_networks.iter().flatten() {
            let network = reader.value(written, direct_network);
            reader.found.direct_networks.extend(network);
        }
        reader.domains(raw);
        reader.through(raw);
        let on_failure = raw.on_failure.as_ref();
        let direct = on_failure.and_then(|written| reader.value(written, goes_direct));
        reader.found.direct_on_failure = direct.unwrap_or(false);
        (reader.found, reader.mistakes)
    }

    /// What of a section can be read that may have mistakes. Where there are any, nobody goes direct, and whoever is
    /// known to be blocked is.
    pub(crate) fn read_leniently(section: &Table) -> Self {
        let text = toml::to_string(section).unwrap_or_default();
        if let Ok(raw) = toml::from_str::<RawGateway>(&text) {
            let (found, mistakes) = Self::read(&raw);
            return match mistakes.is_empty() {
                true => found,
                false => found.closed(),
            };
        }
        let mut found = Self::default();
        let names = section.get("devices").and_then(Value::as_table);
        for (name, value) in names.into_iter().flatten() {
            let devices = strings(Some(value)).filter_map(|text| text.parse().ok());
            found.names.insert(name.clone(), devices.collect());
        }
        through::read_leniently(&mut found, section);
        if section.get("default").and_then(Value::as_str) == Some(DevicePolicy::Blocked.as_str()) {
            found.policies.default = DevicePolicy::Blocked;
        }
        for text in strings(section.get("blocked")) {
            for device in meant_leniently(&found, text) {
                found.policies.give(device, DevicePolicy::Blocked, None);
            }
        }
        found
    }

    /// For when it is not certain what was meant: nobody goes direct, and nothing does. Who goes through another tunnel
    /// than the gateway's still does.
    #[must_use]
    pub fn closed(self) -> Self {
        Self {
            policies: self.policies.without_direct(),
            direct_networks: Vec::new(),
            direct_domains: Vec::new(),
            direct_on_failure: false,
            ..self
        }
    }
}

/// Names whose addresses no resolver has (RFC 6761, RFC 6762, RFC 7686).
const NOBODYS: [&str; 4] = ["invalid", "local", "localhost", "onion"];

#[derive(Default)]
struct Reader {
    found: LanDevices,
    mistakes: Vec<Mistake>,
}

impl Reader {
    fn mistake(&mut self, span: Range<usize>, message: String, help: Option<String>) {
        self.mistakes.push(Mistake {
            span,
            message,
            help,
        });
    }

    fn value<T, E: ToString>(
        &mut self,
        written: &Spanned<String>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(written.get_ref()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistake(written.span(), error.to_string(), None);
                None
            }
        }
    }

    fn names(&mut self, raw: &RawGateway) {
        for (name, written) in &raw.devices {
            if !parse::is_name(name.get_ref()) {
                let message = format!(
                    "`{}` is no name of a device: expected 1 to 32 letters, digits, `-` or `_`",
                    name.get_ref()
                );
                self.mistake(name.span(), message, None);
            }
            if written.iter().next().is_none() {
                let message = format!("`{}` is the name of no device", name.get_ref());
                self.mistake(name.span(), message, None);
            }
            let mut devices = Vec::new();
            for written in written.iter() {
                let Some(device) = self.value(written, |t| t.parse::<Device>()) else {
                    continue;
                };
                let mut others = self.found.names.iter();
                let other = others.find(|(_, devices)| devices.contains(&device));
                if let Some((other, _)) = other {
                    let message = format!("{device} is called `{other}` already");
                    let help = "give a device one name".to_owned();
                    self.mistake(written.span(), message, Some(help));
                }
                devices.push(device);
            }
            self.found.names.insert(name.get_ref().clone(), devices);
        }
    }

    /// Domains that go direct: they are known by what this machine answers itself.
    fn domains(&mut self, raw: &RawGateway) {
        let written: Vec<_> = (raw.direct_domains.iter().flat_map(OneOrMany::iter)).collect();
        let lan = raw.dns.iter().flat_map(|dns| &dns.get_ref().lan_domains);
        let lan = lan.flat_map(OneOrMany::iter);
        let lan: Vec<String> = lan
            .filter_map(|w| units::domain(w.get_ref()).ok())
            .collect();
        if let (Some(first), None) = (written.first(), &raw.dns) {
            self.mistake(
                first.span(),
                "`direct_domains` without [gateway.dns]: which addresses a domain has is known where this machine \
                 answers the devices' questions itself"
                    .to_owned(),
                Some("write a section [gateway.dns], which may be empty".to_owned()),
            );
        }
        if let Some(more) = written.get(LanDevices::MAX_DIRECT_DOMAINS) {
            let message = format!(
                "`direct_domains` names too many: expected {} at most",
                LanDevices::MAX_DIRECT_DOMAINS
            );
            let help = "name what is above several of them".to_owned();
            self.mistake(more.span(), message, Some(help));
        }
        for written in written {
            let Some(domain) = self.value(written, units::domain) else {
                continue;
            };
            let within = |above: &str| {
                let rest = domain.strip_suffix(above);
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            let nobodys = NOBODYS.into_iter().any(within);
            if nobodys || lan.iter().any(|lan| within(lan)) {
                let whose = match nobodys {
                    true => "no resolver is asked for it",
                    false => "it is within `lan_domains`",
                };
                let message = format!("`{}` cannot go direct: {whose}", written.get_ref());
                let help =
                    "name a domain of the internet; what is on the LAN is always reached there";
                self.mistake(written.span(), message, Some(help.to_owned()));
            }
            if self.found.direct_domains.contains(&domain) {
                let message = format!("`{}` is in `direct_domains` twice", written.get_ref());
                self.mistake(written.span(), message, Some("keep it once".to_owned()));
            }
            self.found.direct_domains.push(domain);
        }
    }

    /// A device, or all that a name stands for, gets a policy, and a tunnel if it is another than the gateway's.
    fn give(&mut self, policy: DevicePolicy, tunnel: Option<&str>, written: &Spanned<String>) {
        let text = written.get_ref();
        let named = self.found.names.get(text).cloned();
        let is_name = parse::is_name(text);
        let devices = match named {
            Some(devices) => devices,
            None if is_name && text.parse::<Device>().is_err() => {
                self.mistake(
                    written.span(),
                    format!("no device is called `{text}`{}", self.known()),
                    Some(format!(
                        "name it in [gateway.devices], such as {text} = \"aa:bb:cc:dd:ee:ff\""
                    )),
                );
                return;
            }
            None => Vec::from_iter(self.value(written, |t| t.parse::<Device>())),
        };
        for device in devices {
            let policies = &self.found.policies;
            let present = policies.named.get(&device).copied();
            let through = policies.through(Some(&device));
            if let Some(present) = present.filter(|p| (*p, through) != (policy, tunnel)) {
                let who = match text == &device.to_string() {
                    true => format!("`{text}`"),
                    false => format!("`{text}` ({device})"),
                };
                let place = |policy: DevicePolicy, tunnel: Option<&str>| match tunnel {
                    None => format!("`{policy}`"),
                    Some(tunnel) => format!("[gateway.through.{tunnel}]"),
                };
                let (here, there) = (place(policy, tunnel), place(present, through));
                let message = format!("{who} is in {here}, and in {there} already");
                let help = "a device has one policy".to_owned();
                self.mistake(written.span(), message, Some(help));
            }
            // As long as it is a mistake, the stricter counts.
            if present != Some(DevicePolicy::Blocked) {
                let tunnel = tunnel.map(str::to_owned);
                self.found.policies.give(device, policy, tunnel);
            }
        }
    }

    fn known(&self) -> String {
        let known: Vec<&str> = self.found.names.keys().map(String::as_str).collect();
        match known.as_slice() {
            [] => String::new(),
            known => format!("; there are: {}", known.join(", ")),
        }
    }
}

/// What a name stands for, or what reads as a device.
fn meant_leniently(found: &LanDevices, text: &str) -> Vec<Device> {
    let named = found.names.get(text).cloned();
    named.unwrap_or_else(|| text.parse().into_iter().collect())
}

fn goes_direct(text: &str) -> Result<bool, String> {
    match text {
        "blocked" => Ok(false),
        "direct" => Ok(true),
        _ => Err(format!(
            "`{text}` says nothing about a tunnel that is down: expected \"blocked\" (tunnelled devices are offline then) \
             or \"direct\" (they go past it, in clear)"
        )),
    }
}

fn direct_network(text: &str) -> Result<IpNet, String> {
    let network = units::network(text)?;
    match network.prefix_len() {
        0 => Err(format!(
            "`{text}` is everything: for devices that are to go around the tunnel write them in `direct`, or \
             default = \"direct\""
        )),
        _ => Ok(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    const TUNNEL: &str =
        "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n";

    fn config(section: &str) -> Result<Config, String> {
        let text = format!("{TUNNEL}[gateway]\ntunnel = \"home\"\nlan = \"eth0\"\n{section}");
        Config::parse("t", &text, &mut |p| Err(format!("no {p}"))).map_err(|e| e.to_string())
    }

    fn leniently(section: &str) -> LanDevices {
        let section = format!("tunnel = \"home\"\nlan = \"eth0\"\n{section}");
        LanDevices::read_leniently(&section.replace("[gateway.", "[").parse().unwrap())
    }

    const GOOD: &str = r#"
default = "tunnelled"
direct = ["tv", "192.168.1.50", "AA-BB-CC-DD-EE-01"]
blocked = "children"
tunnelled = "192.168.1.64/26"
direct_networks = ["198.51.100.0/24", "2001:db8::/32"]
direct_domains = ["Example.org.", "xn--mnchen-3ya.example"]
[gateway.devices]
tv = "aa:bb:cc:dd:ee:02"
children = ["aa:bb:cc:dd:ee:03", "aa:bb:cc:dd:ee:04"]
[gateway.dns]
direct = "example.org"
"#;

    #[test]
    fn devices_are_named_by_mac_address_address_network_and_name() {
        let gateway = config(GOOD).unwrap().gateway.unwrap();
        let named = gateway.devices.policies.named.iter();
        let named: Vec<String> = named.map(|(d, policy)| format!("{d} {policy}")).collect();
        assert_eq!(
            named,
            [
                "aa:bb:cc:dd:ee:01 direct",
                "aa:bb:cc:dd:ee:02 direct",
                "aa:bb:cc:dd:ee:03 blocked",
                "aa:bb:cc:dd:ee:04 blocked",
                "192.168.1.50 direct",
                "192.168.1.64/26 tunnelled",
            ]
        );
        assert_eq!(gateway.devices.names["children"].len(), 2);
        assert_eq!(gateway.devices.direct_networks.len(), 2);
        let domains = ["example.org", "xn--mnchen-3ya.example"];
        assert_eq!(gateway.devices.direct_domains, domains);
        assert_eq!(leniently(GOOD), gateway.devices);
        let plain = config("").unwrap().gateway.unwrap();
        assert_eq!(plain.devices, LanDevices::default());
    }

    #[test]
    fn mistakes_are_told_with_their_line_and_nobody_goes_direct_by_them() {
        for (section, told) in [
            (
                "direct = \"tv\"\n",
                "t:8:10: no device is called `tv`; name it in [gateway.devices], such as tv = ",
            ),
            (
                "direct = [\"tv\"]\n[gateway.devices]\nradio = \"aa:bb:cc:dd:ee:01\"\n",
                "t:8:11: no device is called `tv`; there are: radio; name it",
            ),
            (
                "direct = [\"aa:bb:cc:dd:ee\"]\n",
                "t:8:11: `aa:bb:cc:dd:ee` is no device: expected a MAC address",
            ),
            (
                "[gateway.devices]\ntv = \"aa:bb:cc:dd:ee:0g\"\n",
                "t:9:6: `aa:bb:cc:dd:ee:0g` is no device: expected a MAC address",
            ),
            (
                "direct = \"aa:bb:cc:dd:ee:01\"\nblocked = [\"tv\"]\n[gateway.devices]\ntv = \"aa:bb:cc:dd:ee:01\"\n",
                "t:9:12: `tv` (aa:bb:cc:dd:ee:01) is in `blocked`, and in `direct` already; a device has one policy",
            ),
            (
                "tunnelled = \"192.168.1.9\"\nblocked = \"192.168.1.9/32\"\n",
                "t:9:11: `192.168.1.9/32` (192.168.1.9) is in `blocked`, and in `tunnelled` already",
            ),
            (
                "[gateway.devices]\nradio = \"192.168.1.9\"\ntv = \"192.168.1.9\"\n",
                "t:10:6: 192.168.1.9 is called `radio` already; give a device one name",
            ),
            (
                "[gateway.devices]\n\"my tv\" = \"192.168.1.9\"\n",
                "`my tv` is no name of a device",
            ),
            (
                "[gateway.devices]\ntv = []\n",
                "t:9:1: `tv` is the name of no device",
            ),
            (
                "default = \"open\"\n",
                "t:8:11: `open` is no policy: expected tunnelled, direct or blocked",
            ),
            (
                "direct = \"0.0.0.0/0\"\n",
                "t:8:10: `0.0.0.0/0` is every device: say with `default`",
            ),
            (
                "direct_networks = [\"::/0\"]\n",
                "t:8:20: `::/0` is everything",
            ),
            ("direct_networks = [\"10.0.0.0\"]\n", "has no prefix length"),
            (
                "direct_domains = \"example.org\"\n",
                "t:8:18: `direct_domains` without [gateway.dns]",
            ),
            (
                "direct_domains = [\"example.org\", \"münchen.example\"]\n[gateway.dns]\n",
                "t:8:34: `münchen.example` is no domain name: expected one such as \"corp.example\" (other letters than a \
                 to z as their xn-- form)",
            ),
            (
                "direct_domains = [\".\"]\n[gateway.dns]\n",
                "t:8:19: `.` is no domain name",
            ),
            (
                "direct_domains = \"printer.lan\"\n[gateway.dns]\nlan_domains = \"lan\"\n",
                "t:8:18: `printer.lan` cannot go direct: it is within `lan_domains`",
            ),
            (
                "direct_domains = \"a.local\"\n[gateway.dns]\n",
                "`a.local` cannot go direct: no resolver is asked for it",
            ),
            (
                "direct_domains = [\"a.example\", \"A.example.\"]\n[gateway.dns]\n",
                "`A.example.` is in `direct_domains` twice",
            ),
            ("tunneled = \"192.168.1.9\"\n", "did you mean `tunnelled`?"),
            ("direct = true\n", "a string or a list of strings"),
        ] {
            let error = config(section).unwrap_err();
            assert!(error.contains(told), "{section}: {error}");
            let open = match section.contains("default") {
                true => "",
                false => "default = \"direct\"\n",
            };
            let read = leniently(&format!("{open}{section}"));
            assert_eq!(read.policies.default, DevicePolicy::Tunnelled, "{section}");
            assert!(read.direct_networks.is_empty(), "{section}");
            assert!(read.direct_domains.is_empty(), "{section}");
            let mut policies = read.policies.named.values();
            assert!(!policies.any(|p| *p == DevicePolicy::Direct), "{section}");
        }
    }

    #[test]
    fn so_many_domains_go_direct_and_no_more() {
        let section = |count: usize| {
            let domains: Vec<String> = (0..count).map(|n| format!("\"d{n}.example\"")).collect();
            format!("direct_domains = [{}]\n[gateway.dns]\n", domains.join(", "))
        };
        let most = LanDevices::MAX_DIRECT_DOMAINS;
        assert!(config(&section(most)).is_ok());
        let error = config(&section(most + 1)).unwrap_err();
        assert!(
            error.contains("names too many: expected 64 at most"),
            "{error}"
        );
    }

    #[test]
    fn who_is_known_to_be_blocked_stays_so_whatever_else_is_wrong() {
        let read = leniently(
            "default = \"blocked\"\ndirect = \"192.168.1.7\"\nblocked = [\"tv\", \"192.168.1.9\", \"?\", 7]\n\
             [gateway.devices]\ntv = \"aa:bb:cc:dd:ee:01\"\n",
        );
        assert_eq!(read.policies.default, DevicePolicy::Blocked);
        let named: Vec<String> = (read.policies.named.iter())
            .map(|(device, policy)| format!("{device} {policy}"))
            .collect();
        let expected = ["aa:bb:cc:dd:ee:01 blocked", "192.168.1.9 blocked"];
        assert_eq!(named, expected);
    }
}
