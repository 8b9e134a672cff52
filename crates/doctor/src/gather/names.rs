//! The names that an installation knows, for a mask. Names of tunnels and interfaces stay: without them nobody could
//! say what is to be done where.

use std::collections::BTreeSet;

use cygnet_config::Config;
use cygnet_ike::identity;
use cygnet_ike::policy::{EapLogin, Host, IdentityPattern, LocalAuth};

use crate::facts::Facts;
use crate::probe::web::Url;

pub(super) fn of(config: Option<&Config>, facts: &Facts, url: Option<&Url>) -> Vec<String> {
    let mut names = BTreeSet::new();
    names.extend(url.map(|url| url.host.clone()));
    if let Some(config) = config {
        configured(config, &mut names);
    }
    for certificate in &facts.certificates {
        subject(&certificate.whose, &mut names);
    }
    if let Ok(status) = &facts.status {
        for connection in facts.connections() {
            for sa in &connection.ike_sas {
                names.extend(
                    [&sa.peer, &sa.user, &sa.device]
                        .into_iter()
                        .flatten()
                        .cloned(),
                );
                names.extend(sa.domains.iter().cloned());
            }
        }
        for lease in &status.leases {
            names.insert(lease.identity.clone());
            names.extend([&lease.user, &lease.device].into_iter().flatten().cloned());
        }
    }
    names.into_iter().collect()
}

fn configured(config: &Config, names: &mut BTreeSet<String>) {
    for connection in &config.policy.connections {
        for server in connection.remote.servers() {
            if let Host::Name(name) = &server.host {
                names.insert(name.clone());
            }
            if let Some(identity) = &server.identity {
                pattern(identity, names);
            }
        }
        names.extend(connection.local_identity.iter().map(identity::display));
        pattern(&connection.remote_identity, names);
        match &connection.local_auth {
            LocalAuth::Certificate { identities, .. } => {
                names.extend(identities.iter().map(identity::display));
            }
            LocalAuth::Eap(EapLogin::Password { user, .. }) => {
                names.insert(user.clone());
            }
            LocalAuth::Psk(_) | LocalAuth::Eap(EapLogin::Certificate { .. }) => {}
        }
    }
    for device in config.server.iter().flat_map(|server| &server.devices) {
        names.extend([&device.user, &device.device, &device.identity].map(String::clone));
    }
    let gateway = config.gateway.iter();
    let devices = gateway.map(|gateway| &gateway.devices);
    names.extend(devices.flat_map(|devices| {
        let domains = devices.direct_domains.iter();
        domains.chain(devices.names.keys()).cloned()
    }));
    for trust in config.trusts.values() {
        let hosts = trust.crl_urls.iter().filter_map(|url| {
            let rest = url.split_once("://")?.1;
            rest.split(['/', ':']).next().map(str::to_owned)
        });
        names.extend(hosts);
    }
    let domains = config.pools.values().flat_map(|pool| &pool.domains);
    names.extend(domains.cloned());
}

fn pattern(of: &IdentityPattern, names: &mut BTreeSet<String>) {
    match of {
        IdentityPattern::Any => {}
        IdentityPattern::AnyOf(all) => all.iter().for_each(|one| pattern(one, names)),
        one => {
            names.insert(one.to_string());
        }
    }
}

/// Of words about a certificate: the subject in parentheses, and what that is made of.
fn subject(whose: &str, names: &mut BTreeSet<String>) {
    let Some((_, rest)) = whose.split_once('(') else {
        return;
    };
    let subject = rest.rsplit_once(')').map_or(rest, |(subject, _)| subject);
    names.insert(subject.to_owned());
    let parts = subject.split(',').filter_map(|part| part.split_once('='));
    names.extend(parts.map(|(_, value)| value.trim().to_owned()));
}

/// What stands between quotes in a configuration that cannot be read.
pub(super) fn literals(text: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let literals = line.split(['"', '\'']).skip(1).step_by(2);
        // Shorter ones are numbers and units.
        let long = literals.filter(|literal| literal.len() >= 4);
        long.map(str::to_owned).collect::<Vec<_>>()
    };
    text.lines().flat_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::healthy;

    #[test]
    fn all_that_the_installation_knows_by_name() {
        let devices = r#"{"version":1,"devices":[{"user":"alice","device":"phone","serial":"1","identity":"phone.alice","not_after":1}]}"#;
        let text = "[server]\nidentity = \"us.example\"\npsk = \"k\"\npools = [\"10.99.0.0/24\"]\ndevices = \"d\"\n\
                    [tunnel.home]\nremote = [\"vpn.example\", { address = \"192.0.2.1\", identity = \"spare.example\" }]\nremote_identity = \"*.peer.example\"\n\
                    identity = \"box@lan.example\"\npsk = \"k\"\nvirtual_address = true\n\
                    [gateway]\ntunnel = \"home\"\nlan = \"eth0\"\ndirect_domains = \"tv.example\"\n\
                    [gateway.dns]\n[gateway.devices]\nnursery = \"192.168.1.9\"\n";
        let read = &mut |_: &str| Ok(devices.as_bytes().to_vec());
        let config = Config::parse("t", text, read).unwrap();
        let url = Url::parse("http://web.example/").unwrap();
        let names = of(Some(&config), &healthy(), Some(&url));
        for name in [
            "us.example",
            "vpn.example",
            "spare.example",
            "tv.example",
            "*.peer.example",
            "box@lan.example",
            "alice",
            "phone",
            "phone.alice",
            "web.example",
            "nursery",
            "vpn.example.org",
            "CN=box",
            "box",
        ] {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
        assert!(
            !names
                .iter()
                .any(|name| name == "home" || name.contains("192.0.2.1"))
        );
    }

    #[test]
    fn what_a_broken_configuration_holds_between_quotes() {
        let text = "[tunnel.home\nremote = \"vpn.example\" # it's\npsk = 'hunter22', x = [\"a\", \"bcde\"]\n\"";
        assert_eq!(literals(text), ["vpn.example", "hunter22", "bcde"]);
    }
}
