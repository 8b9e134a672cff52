//! What is wished for: by flags, by answers, and by what the configuration says already.

use cygnet_config::Gateway;
use cygnet_gateway::{Device, DevicePolicy};
use toml::{Table, Value};

use super::ask::{Answers, Ended, yes_or_no};
use super::facts::Facts;
use super::words;
use crate::args::gateway::{Setup, YesNo};

/// Of a configuration in which strangers are blocked, which is not asked for here.
const AS_IT_IS: &str = "as it is";

/// A gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) tunnel: String,
    pub(super) lan: Vec<String>,
    /// What is true of devices that are not named.
    pub(super) default: DevicePolicy,
    pub(super) tunnelled: Vec<String>,
    pub(super) direct: Vec<String>,
    pub(super) blocked: Vec<String>,
    /// Devices' questions for names are answered.
    pub(super) dns: bool,
    /// Addresses that are lent.
    pub(super) dhcp: Option<String>,
    /// Without that: this machine is advertised as router for IPv6.
    pub(super) advertise: bool,
}

/// Why there is no wish.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoWish {
    /// Somebody went away.
    Ended,
    /// A sentence.
    Refused(String),
}

impl From<Ended> for NoWish {
    fn from(_: Ended) -> Self {
        Self::Ended
    }
}

/// What the configuration says of a gateway at present.
#[derive(Debug, Clone, Default)]
pub(super) struct Present {
    gateway: Option<Gateway>,
    /// As it is written.
    default: Option<String>,
    tunnelled: Vec<String>,
    direct: Vec<String>,
    blocked: Vec<String>,
    dhcp: Option<String>,
}

impl Present {
    pub(super) fn of(gateway: Option<&Gateway>, text: &str) -> Self {
        let table: Table = text.parse().unwrap_or_default();
        let section = table.get("gateway").and_then(Value::as_table);
        let list = |key: &str| match section.and_then(|section| section.get(key)) {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(several)) => several
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        };
        let dhcp = section.and_then(|section| section.get("dhcp")?.as_table());
        let word = |table: Option<&Table>, key: &str| table?.get(key)?.as_str().map(str::to_owned);
        Self {
            gateway: gateway.cloned(),
            default: word(section, "default"),
            tunnelled: list("tunnelled"),
            direct: list("direct"),
            blocked: list("blocked"),
            dhcp: word(dhcp, "range"),
        }
    }

    /// Whether this is a device, by itself or by a name that the configuration has.
    fn device(&self, text: &str) -> Result<String, String> {
        let names = self.gateway.iter().flat_map(|it| it.devices.names.keys());
        if text.parse::<Device>().is_ok() || names.into_iter().any(|name| name == text) {
            return Ok(text.to_owned());
        }
        Err(format!(
            "`{text}` is no device: expected a MAC address (aa:bb:cc:dd:ee:ff), an address, a network, or a name in \
             [gateway.devices]"
        ))
    }

    /// A list of devices, by commas or blanks; `none` is an empty one.
    fn devices(&self, text: &str) -> Result<Vec<String>, String> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Vec::new());
        }
        items(text).map(|item| self.device(item)).collect()
    }

    /// Which go through the tunnel, as the default and the exceptions to it.
    fn through(&self, text: &str) -> Result<(DevicePolicy, Vec<String>), String> {
        match text.to_ascii_lowercase().as_str() {
            "all" if self.default.is_none() => {
                Ok((DevicePolicy::Tunnelled, self.tunnelled.clone()))
            }
            "all" => Ok((DevicePolicy::Tunnelled, Vec::new())),
            "none" => Ok((DevicePolicy::Direct, Vec::new())),
            AS_IT_IS => Ok((DevicePolicy::Blocked, self.tunnelled.clone())),
            _ => {
                let list = self
                    .devices(text)
                    .map_err(|why| format!("{why}; or `all`, or `none`"))?;
                Ok((DevicePolicy::Direct, list))
            }
        }
    }
}

/// A list of devices of which none is something else already.
fn apart(devices: Vec<String>, others: &[&Vec<String>]) -> Result<Vec<String>, String> {
    let is_other = |device: &&String| others.iter().any(|list| list.contains(device));
    match devices.iter().find(is_other) {
        Some(device) => Err(format!(
            "{device} cannot be two things at once: through the tunnel, beside it, or blocked"
        )),
        None => Ok(devices),
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ', '\t']).filter(|item| !item.is_empty())
}

fn shown(list: &[String]) -> String {
    match list {
        [] => "none".to_owned(),
        some => some.join(", "),
    }
}

/// Of each thing the flag, or an answer to a question, or with `--yes` what would stand in its brackets.
pub(super) fn find<F: std::os::fd::AsFd>(
    options: &Setup,
    facts: &Facts,
    present: &Present,
    answers: &mut Answers<F>,
) -> Result<Wish, NoWish> {
    let mut asker = Asker {
        quiet: options.yes,
        answers,
    };
    let gateway = present.gateway.as_ref();

    let default = match gateway {
        Some(gateway) => gateway.tunnel.clone(),
        None => facts.tunnels.first().cloned().unwrap_or_default(),
    };
    let tunnel = |name: &str| match facts.tunnels.iter().any(|tunnel| tunnel == name) {
        true => Ok(name.to_owned()),
        false => Err(format!(
            "there is no tunnel `{name}`; there is {}",
            words::list(&facts.tunnels)
        )),
    };
    let tunnel = asker.find(
        ("--tunnel", options.tunnel.as_deref()),
        "Through which tunnel?",
        &default,
        tunnel,
    )?;

    let default = match gateway {
        Some(gateway) => gateway.lan.join(", "),
        None => facts
            .lans()
            .first()
            .map(|leg| leg.name.clone())
            .unwrap_or_default(),
    };
    let lan = |text: &str| {
        let names: Vec<String> = items(text).map(str::to_owned).collect();
        if names.is_empty() {
            return Err("expected the interface of the LAN".to_owned());
        }
        for name in &names {
            let leg = facts.leg(name).ok_or_else(|| {
                let known: Vec<String> = facts.legs.iter().map(|leg| leg.name.clone()).collect();
                format!(
                    "there is no interface `{name}` that could be a LAN's; there is {}",
                    words::list(&known)
                )
            })?;
            if leg.networks().is_empty() || leg.v4.is_empty() {
                return Err(format!(
                    "{name} has no address in a private network, such as 192.168.1.2/24: give it one first, fixed"
                ));
            }
        }
        Ok(names)
    };
    let given = (!options.lan.is_empty()).then(|| options.lan.join(","));
    if given.is_none() && !asker.quiet {
        print!("{}", words::legs(facts));
    }
    let lan = asker.find(
        ("--lan", given.as_deref()),
        "Which interface is the LAN's?",
        &default,
        lan,
    )?;

    if options.devices.is_none() && !asker.quiet {
        print!("{}", words::seen(facts, &lan));
    }
    let default = match present.default.as_deref() {
        Some("direct") if present.tunnelled.is_empty() => "none".to_owned(),
        Some("direct") => present.tunnelled.join(", "),
        Some("blocked") => AS_IT_IS.to_owned(),
        _ => "all".to_owned(),
    };
    let (default, tunnelled) = asker.find(
        ("--devices", options.devices.as_deref()),
        "Which devices go through the tunnel: all, none, or a list?",
        &default,
        |text| present.through(text),
    )?;
    let direct = match default {
        DevicePolicy::Tunnelled => asker.find(
            ("--direct", options.direct.as_deref()),
            "Which of them go beside it, in clear: none, or a list (an address counts for itself alone, a MAC address for the device)?",
            &shown(&present.direct),
            |text| apart(present.devices(text)?, &[&tunnelled]),
        )?,
        _ => match &options.direct {
            Some(text) => present
                .devices(text)
                .and_then(|direct| apart(direct, &[&tunnelled]))
                .map_err(|why| NoWish::Refused(format!("--direct: {why}")))?,
            // Nobody is asked for what is so by default.
            None => {
                let direct = present.direct.iter();
                direct.filter(|it| !tunnelled.contains(it)).cloned().collect()
            }
        },
    };
    let blocked = asker.find(
        ("--blocked", options.blocked.as_deref()),
        "Which have no internet at all: none, or a list?",
        &shown(&present.blocked),
        |text| apart(present.devices(text)?, &[&tunnelled, &direct]),
    )?;

    let answers_names = gateway.is_some_and(|gateway| gateway.dns.is_some());
    let given = options.dns.map(|dns| match dns {
        YesNo::Yes => "y",
        YesNo::No => "n",
    });
    let dns = asker.find(
        ("--dns", given),
        "Answer the devices' questions for names here, through the tunnel (section [gateway.dns])?",
        if answers_names { "y" } else { "n" },
        |text| {
            let yes = yes_or_no(text)?;
            let domains = gateway.is_some_and(|it| !it.devices.direct_domains.is_empty());
            match domains && !yes {
                true => Err(
                    "the configuration has `direct_domains`, for which names have to be answered here: yes, or take that key \
                     out of [gateway] first"
                        .to_owned(),
                ),
                false => Ok(yes),
            }
        },
    )?;
    let dhcp = dhcp(options, facts, present, &lan, &mut asker)?;
    let advertise = advertise(options, facts, present, (&lan, dhcp.is_some()), &mut asker)?;
    Ok(Wish {
        tunnel,
        lan,
        default,
        tunnelled,
        direct,
        blocked,
        dns,
        dhcp,
        advertise,
    })
}

/// Asked where no addresses are lent, with which it goes, and the LAN has IPv6.
fn advertise<F: std::os::fd::AsFd>(
    options: &Setup,
    facts: &Facts,
    present: &Present,
    (lan, lends): (&[String], bool),
    asker: &mut Asker<'_, F>,
) -> Result<bool, NoWish> {
    let gateway = present.gateway.as_ref();
    let now = gateway.is_some_and(|gateway| gateway.advertise.is_some());
    let one = match lan {
        [one] => facts.leg(one),
        _ => None,
    };
    match (options.advertise, lends) {
        (Some(YesNo::Yes), true) => {
            return Err(NoWish::Refused(
                "--advertise: where addresses are lent (--dhcp) this machine is advertised already"
                    .into(),
            ));
        }
        (Some(YesNo::Yes), false) if one.is_none() && !now => {
            return Err(NoWish::Refused(
                "--advertise: the LAN has several interfaces; write [gateway.advertise] with `interface` into the \
                 configuration"
                    .into(),
            ));
        }
        (_, true) => return Ok(false),
        (Some(given), false) => return Ok(given == YesNo::Yes),
        (None, false) => {}
    }
    match one.filter(|leg| facts.has_ipv6(leg)) {
        None => Ok(now),
        Some(_) => asker.find(
            ("--advertise", None),
            "Advertise this machine as IPv6 router, to be preferred, to all devices of the LAN (section [gateway.advertise])? \
             Without, their IPv6 goes on to the router that advertises itself, past the tunnel.",
            if now { "y" } else { "n" },
            yes_or_no,
        ),
    }
}

fn dhcp<F: std::os::fd::AsFd>(
    options: &Setup,
    facts: &Facts,
    present: &Present,
    lan: &[String],
    asker: &mut Asker<'_, F>,
) -> Result<Option<String>, NoWish> {
    let leg = match lan {
        [one] => facts.leg(one),
        _ => None,
    };
    let suggested = leg.and_then(|leg| {
        cygnet_daemon::survey::suggested_range(*leg.v4.first()?, &facts.routers(leg))
    });
    let understand = |text: &str| match text.to_ascii_lowercase().as_str() {
        "no" | "n" | "none" => Ok(None),
        "yes" | "y" => match (&present.dhcp, &suggested) {
            (Some(range), _) | (None, Some(range)) => Ok(Some(range.clone())),
            (None, None) => Err("expected a range, first and last address".to_owned()),
        },
        // Whether it fits the LAN is judged with the whole configuration.
        _ if text.contains('-') => Ok(Some(text.replace(' ', ""))),
        _ => Err(format!(
            "expected no, or a range such as {}",
            suggested
                .as_deref()
                .unwrap_or("192.168.1.100-192.168.1.199")
        )),
    };
    if options.dhcp.is_some() && lan.len() > 1 && present.dhcp.is_none() {
        return Err(NoWish::Refused(
            "--dhcp: the LAN has several interfaces; write [gateway.dhcp] with `interface` into the configuration"
                .into(),
        ));
    }
    let default = present.dhcp.clone().unwrap_or_else(|| "no".to_owned());
    // With several interfaces it takes more than a range.
    if options.dhcp.is_none() && leg.is_none() {
        return Ok(present.dhcp.clone());
    }
    let question = format!(
        "Lend addresses to the LAN; the router's DHCP server has to be off then (section [gateway.dhcp]): no, or a range such \
         as {}?",
        suggested.as_deref().unwrap_or("FIRST-LAST")
    );
    asker.find(
        ("--dhcp", options.dhcp.as_deref()),
        &question,
        &default,
        understand,
    )
}

struct Asker<'a, F> {
    /// Nothing is asked.
    quiet: bool,
    answers: &'a mut Answers<F>,
}

impl<F: std::os::fd::AsFd> Asker<'_, F> {
    fn find<T>(
        &mut self,
        (flag, given): (&str, Option<&str>),
        question: &str,
        default: &str,
        understand: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, NoWish> {
        let by =
            |text: &str| understand(text).map_err(|why| NoWish::Refused(format!("{flag}: {why}")));
        match given {
            Some(given) => by(given),
            None if self.quiet => by(default),
            None => Ok(self.answers.ask(question, default, understand)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use clap::Parser;

    use super::super::facts::tests::{facts, leg};
    use super::*;
    use crate::args::gateway::Gateway as Order;
    use crate::args::{Args, Command};

    fn options(flags: &[&str]) -> Setup {
        let words = [&["cygnet", "gateway", "setup"], flags].concat();
        match Args::try_parse_from(words).map(|args| args.command) {
            Ok(Command::Gateway(Order::Setup(options))) => *options,
            other => panic!("{other:?}"),
        }
    }

    fn found(flags: &[&str], typed: &str) -> Result<Wish, NoWish> {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(typed.as_bytes()).unwrap();
        drop(writer);
        let facts = facts(vec![
            leg("eth0", "192.168.1.2/24"),
            leg("eth1", "10.1.0.1/24"),
        ]);
        let mut answers = Answers::of(reader);
        find(&options(flags), &facts, &Present::default(), &mut answers)
    }

    #[test]
    fn enter_takes_what_is_likeliest() {
        let wish = found(&[], "\n\n\n\n\n\n\n").unwrap();
        assert_eq!(
            (wish.tunnel.as_str(), wish.lan.as_slice()),
            ("home", &["eth1".to_owned()][..])
        );
        assert_eq!(wish.default, DevicePolicy::Tunnelled);
        assert_eq!(wish, found(&["--yes"], "").unwrap());
        assert!(!wish.dns && wish.dhcp.is_none() && wish.direct.is_empty());
        assert!(!wish.advertise);
    }

    #[test]
    fn who_declines_dhcp_is_asked_for_advertisements_where_there_is_ipv6() {
        let find = |flags: &[&str], typed: &str, announced: bool| {
            let (reader, mut writer) = std::io::pipe().unwrap();
            writer.write_all(typed.as_bytes()).unwrap();
            drop(writer);
            let mut facts = facts(vec![leg("eth0", "192.168.1.2/24")]);
            facts.announced.extend(announced.then(|| "eth0".to_owned()));
            let mut answers = Answers::of(reader);
            find(&options(flags), &facts, &Present::default(), &mut answers)
        };
        let advertised = |found: Result<Wish, NoWish>| found.map(|wish| wish.advertise);
        assert_eq!(advertised(find(&[], "\n\n\n\n\n\n\ny\n", true)), Ok(true));
        assert_eq!(advertised(find(&[], "\n\n\n\n\n\n\n\n", true)), Ok(false));
        // Not asked: there is no IPv6, or it goes with the addresses.
        assert_eq!(advertised(find(&[], "\n\n\n\n\n\n\n", false)), Ok(false));
        assert_eq!(advertised(find(&[], "\n\n\n\n\n\nyes\n", true)), Ok(false));
        assert_eq!(advertised(find(&["--yes"], "", true)), Ok(false));
        let flags = ["--yes", "--advertise", "yes"];
        assert_eq!(advertised(find(&flags, "", false)), Ok(true));
        let both = [&flags[..], &["--dhcp", "yes"]].concat();
        assert!(matches!(find(&both, "", true), Err(NoWish::Refused(_))));
    }

    #[test]
    fn answers_and_flags_are_judged_alike() {
        let typed = "work\nhome\neth7\neth0\nall\n192.168.1.9, 02:00:00:00:00:09\ntv\nnone\ny\nperhaps\nyes\n";
        let wish = found(&[], typed).unwrap();
        assert_eq!(wish.lan, ["eth0"]);
        assert_eq!(wish.direct, ["192.168.1.9", "02:00:00:00:00:09"]);
        assert!(wish.dns && wish.blocked.is_empty());
        assert_eq!(wish.dhcp.as_deref(), Some("192.168.1.100-192.168.1.199"));
        for (flags, expected) in [
            (
                &["--tunnel", "work"][..],
                "--tunnel: there is no tunnel `work`",
            ),
            (&["--lan", "eth7"], "--lan: there is no interface `eth7`"),
            (&["--devices", "tv"], "--devices: `tv` is no device"),
            (&["--dhcp", "perhaps"], "--dhcp: expected no"),
            (
                &["--devices", "192.168.1.9", "--blocked", "192.168.1.9"],
                "two things at once",
            ),
        ] {
            let flags = [flags, &["--yes"]].concat();
            let Err(NoWish::Refused(told)) = found(&flags, "") else {
                panic!("{flags:?} is taken");
            };
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn a_device_that_is_two_things_is_asked_for_again() {
        let typed = "\n\n192.168.1.9\n192.168.1.9\n192.168.1.8\n\n\n";
        let wish = found(&[], typed).unwrap();
        assert_eq!(
            (wish.tunnelled, wish.blocked),
            (
                vec!["192.168.1.9".to_owned()],
                vec!["192.168.1.8".to_owned()]
            )
        );
        let typed = "\n\nall\n192.168.1.9\n192.168.1.9\nnone\n\n\n";
        let wish = found(&[], typed).unwrap();
        assert_eq!(wish.direct, ["192.168.1.9"]);
        assert!(wish.blocked.is_empty());
    }

    #[test]
    fn names_that_go_elsewhere_need_somebody_who_answers() {
        let text = "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n\
            [gateway]\ntunnel = \"home\"\nlan = \"eth0\"\ndirect_domains = [\"example.org\"]\n[gateway.dns]\n";
        let config = cygnet_config::Config::parse("t", text, &mut |p| Err(format!("no {p}")));
        let present = Present::of(config.unwrap().gateway.as_ref(), text);
        let facts = facts(vec![leg("eth0", "192.168.1.2/24")]);
        let wish = |flags: &[&str], typed: &str| {
            let (reader, mut writer) = std::io::pipe().unwrap();
            writer.write_all(typed.as_bytes()).unwrap();
            drop(writer);
            find(&options(flags), &facts, &present, &mut Answers::of(reader))
        };
        let asked = wish(&[], "\n\n\n\n\nn\ny\n\n");
        assert!(asked.is_ok_and(|it| it.dns));
        let Err(NoWish::Refused(told)) = wish(&["--yes", "--dns", "no"], "") else {
            panic!("taken");
        };
        assert!(
            told.contains("--dns: the configuration has `direct_domains`"),
            "{told}"
        );
    }

    #[test]
    fn who_goes_away_wishes_nothing() {
        assert_eq!(found(&[], "home\n"), Err(NoWish::Ended));
    }

    #[test]
    fn what_is_configured_stands_in_the_brackets() {
        for default in ["direct", "blocked"] {
            let text = &format!(
                "[tunnel.home]\nremote = \"203.0.113.5\"\npsk = \"k\"\nvirtual_address = true\n\
                 [gateway]\ntunnel = \"home\"\nlan = \"eth0\"\ndefault = \"{default}\"\ntunnelled = [\"tv\"]\n\
                 blocked = \"192.168.1.8\"\n[gateway.devices]\ntv = \"02:00:00:00:00:07\"\n[gateway.dns]\n\
                 [gateway.dhcp]\nrange = \"192.168.1.50-192.168.1.60\"\n"
            );
            let config = cygnet_config::Config::parse("t", text, &mut |p| Err(format!("no {p}")));
            let present = Present::of(config.unwrap().gateway.as_ref(), text);
            let facts = facts(vec![leg("eth0", "192.168.1.2/24")]);
            let (reader, _writer) = std::io::pipe().unwrap();
            let mut answers = Answers::of(reader);
            let wish = find(&options(&["--yes"]), &facts, &present, &mut answers).unwrap();
            assert_eq!(super::super::edit::with(text, &wish).as_ref(), Ok(text));
        }
    }
}
