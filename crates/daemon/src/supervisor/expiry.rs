//! Certificates that expire: told in time, while there is still one to renew.

use cygnet_config::{Config, SERVER};
use cygnet_ike::policy::RemoteAuth;
use cygnet_ike::time::UtcTime;
use cygnet_pki::validity;

use crate::clock::{NotSet, day};

const DAY: i64 = 86_400;
const TWO_DAYS: i64 = 2 * DAY;
/// So long before the end it is told.
const AHEAD: i64 = 30 * DAY;
/// Devices named one by one; of more the number is told.
const NAMED: usize = 16;

/// A sentence for each certificate of this configuration that expires within the month, or has expired,
/// the earliest first. Without a date there is only that to say.
pub(crate) fn warnings(config: &Config, date: Result<UtcTime, NotSet>) -> Vec<String> {
    match date {
        Ok(UtcTime(now)) => expiring(config, now),
        Err(not_set) if needs_a_date(config) => vec![not_set.to_string()],
        Err(_) => Vec::new(),
    }
}

/// Whether anything of this configuration is judged by a date.
pub(super) fn needs_a_date(config: &Config) -> bool {
    let mut connections = config.policy.connections.iter();
    connections.any(|c| {
        c.local_auth.leaf().is_some() || matches!(c.remote_auth, RemoteAuth::Certificate { .. })
    })
}

fn expiring(config: &Config, now: i64) -> Vec<String> {
    let mut own: Vec<(i64, String)> = Vec::new();
    for connection in &config.policy.connections {
        let name = &connection.name;
        let whose = match name.as_str() {
            SERVER => "the server".to_owned(),
            _ => format!("tunnel {name}"),
        };
        let leaf = connection.local_auth.leaf();
        if let Some(leaf) = leaf.and_then(|leaf| validity(leaf).ok()) {
            let what = format!("the certificate of {whose} ({})", leaf.subject);
            let remedy = match name.as_str() {
                SERVER => "renew it (`cygnet server renew`, if Cygnet made it), or nobody gets in",
                _ => "have it renewed, or the peer refuses us",
            };
            own.extend(sentence(&what, leaf.not_after, now, remedy));
        }
        if let RemoteAuth::Certificate { trust, .. } = &connection.remote_auth
            && let Some(trust) = config.trusts.get(trust)
        {
            // Of several, as long as one goes on, the others may end.
            let authorities = trust.anchors.iter().filter_map(|ca| validity(ca).ok());
            if let Some(ca) = authorities.max_by_key(|ca| ca.not_after) {
                let what = format!(
                    "the authority ({}) that vouches for the peers of {whose}",
                    ca.subject
                );
                let remedy = "whoever it vouches for needs a certificate of another one by then";
                own.extend(sentence(&what, ca.not_after, now, remedy));
            }
        }
    }
    let mut devices: Vec<(i64, String)> = Vec::new();
    for device in config.server.iter().flat_map(|server| &server.devices) {
        let what = format!("the certificate of {}'s {}", device.user, device.device);
        let remedy = format!(
            "renew it with `cygnet user renew {}` and hand out the new profile",
            device.user
        );
        devices.extend(sentence(&what, device.not_after, now, &remedy));
    }
    own.sort();
    devices.sort();
    let more = devices.len().saturating_sub(NAMED);
    devices.truncate(NAMED);
    let mut told: Vec<String> = own
        .into_iter()
        .chain(devices)
        .map(|(_, told)| told)
        .collect();
    if more > 0 {
        told.push(format!(
            "the certificates of {more} more devices expire soon or have expired; `cygnet user list` names them"
        ));
    }
    told
}

fn sentence(what: &str, not_after: i64, now: i64, remedy: &str) -> Option<(i64, String)> {
    let left = not_after.saturating_sub(now);
    let on = day(not_after);
    let when = match left {
        ..0 => format!("expired on {on}"),
        0..DAY => format!("expires today ({on})"),
        DAY..TWO_DAYS => format!("expires tomorrow ({on})"),
        TWO_DAYS..AHEAD => format!("expires on {on}, in {} days", left / DAY),
        _ => return None,
    };
    Some((not_after, format!("{what} {when}: {remedy}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use cygnet_pki::authority::{Authority, KeyKind, Purpose, Request, Validity};
    use cygnet_pki::{SubjectAltName, UnixTime};

    use super::*;

    /// 2026-11-26.
    const TODAY: i64 = 1_795_651_200;

    fn list(not_after: &[i64]) -> String {
        let devices: Vec<String> = (not_after.iter().enumerate())
            .map(|(n, not_after)| {
                format!(
                    r#"{{"user":"alice","device":"phone{n}","serial":"{n}","identity":"i{n}","not_after":{not_after}}}"#
                )
            })
            .collect();
        format!(r#"{{"version":1,"devices":[{}]}}"#, devices.join(","))
    }

    fn config(not_after: &[i64]) -> Config {
        let list = list(not_after);
        let text =
            "[server]\npsk = \"k\"\npools = [\"10.99.0.0/24\"]\ndevices = \"devices.json\"\n";
        Config::parse("t", text, &mut |_| Ok(list.clone().into_bytes())).unwrap()
    }

    #[test]
    fn a_month_ahead_it_is_told() {
        let after = [31, 30, 29, 1, 0, -2].map(|days| TODAY + days * DAY + 60);
        let told = warnings(&config(&after), Ok(UtcTime(TODAY)));
        let expected = [
            "alice's phone5 expired on 2026-11-24: ",
            "alice's phone4 expires today (2026-11-26): ",
            "alice's phone3 expires tomorrow (2026-11-27): ",
            "alice's phone2 expires on 2026-12-25, in 29 days: ",
        ];
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.contains(expected), "{told}");
            assert!(told.contains("`cygnet user renew alice`"), "{told}");
        }
    }

    #[test]
    fn our_own_certificates_are_told_first_and_authorities_when_the_last_of_them_ends() {
        let until = |days: i64| {
            let at = |days: i64| {
                let seconds = u64::try_from(TODAY + days * DAY + 60).unwrap();
                UnixTime::since_unix_epoch(Duration::from_secs(seconds))
            };
            Validity {
                not_before: at(-400),
                not_after: at(days),
            }
        };
        let key = KeyKind::EcdsaP256;
        let old = Authority::create("Old", &[1], until(1), key).unwrap();
        let new = Authority::create("New", &[2], until(400), key).unwrap();
        let issue = |name: &str, days| {
            let issued = new.issue(&Request {
                common_name: name,
                names: &[SubjectAltName::Dns(name.into())],
                purpose: Purpose::Server,
                serial: &[3],
                validity: until(days),
                key,
            });
            issued.unwrap().certificate_pem
        };
        let files = BTreeMap::from([
            ("server.crt", issue("vpn.example.org", 10)),
            ("work.crt", issue("branch.example.org", 20)),
            ("old.crt", old.certificate_pem().to_owned()),
            ("new.crt", new.certificate_pem().to_owned()),
            ("devices.json", list(&[TODAY + DAY])),
        ]);
        let told = |ca: &str, date| {
            let text = format!(
                "[server]\ncertificate = \"server.crt\"\nkey = \"k\"\nca = {ca}\n\
                 pools = [\"10.99.0.0/24\"]\ndevices = \"devices.json\"\n\
                 [tunnel.work]\nremote = \"vpn.example.net\"\ncertificate = \"work.crt\"\nkey = \"k\"\n\
                 ca = {ca}\neap = \"tls\"\nvirtual_address = true\n"
            );
            let read = &mut |path: &str| Ok(files[path].clone().into_bytes());
            warnings(&Config::parse("t", &text, read).unwrap(), date)
        };
        let expect = |told: &[String], expected: &[&str]| {
            assert_eq!(told.len(), expected.len(), "{told:#?}");
            for (told, expected) in told.iter().zip(expected) {
                assert!(told.starts_with(expected), "{told}");
            }
        };
        let server = "the certificate of the server (CN=vpn.example.org) expires on 2026-12-06, in 10 days: ";
        let tunnel = "the certificate of tunnel work (CN=branch.example.org) expires on 2026-12-16, in 20 days: ";
        let device = "the certificate of alice's phone0 expires tomorrow (2026-11-27): ";
        let today = Ok(UtcTime(TODAY));
        let both = r#"["old.crt", "new.crt"]"#;
        expect(&told(both, today), &[server, tunnel, device]);
        let ends =
            "the authority (CN=Old) that vouches for the peers of the server expires tomorrow";
        let ends_too = ends.replace("the server", "tunnel work");
        let all = [ends, &ends_too, server, tunnel, device];
        expect(&told(r#""old.crt""#, today), &all);

        let not_set = NotSet::Program { says: 0 };
        assert_eq!(told(both, Err(not_set)), [not_set.to_string()]);
    }

    #[test]
    fn of_many_devices_the_number_is_told() {
        let told = warnings(&config(&[TODAY; 100]), Ok(UtcTime(TODAY)));
        assert_eq!(told.len(), NAMED + 1);
        assert!(told[NAMED].contains(" 84 more devices"), "{told:?}");
    }

    #[test]
    fn with_a_wrong_clock_nothing_expires() {
        let not_set = NotSet::Program { says: 0 };
        assert_eq!(
            warnings(&config(&[TODAY]), Err(not_set)),
            Vec::<String>::new()
        );
        assert!(warnings(&config(&[TODAY]), Ok(UtcTime(0))).is_empty());
    }
}
