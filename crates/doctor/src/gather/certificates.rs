//! The certificates of a configuration: our own, and of each set of authorities the one that lasts longest.

use cygnet_config::{Config, SERVER};
use cygnet_ike::policy::RemoteAuth;
use cygnet_pki::{Validity, validity};

use crate::facts::Certificate;

pub(super) fn of(config: &Config) -> Vec<Certificate> {
    let mut all = Vec::new();
    for connection in &config.policy.connections {
        let whose = match connection.name.as_str() {
            SERVER => "the server".to_owned(),
            name => format!("tunnel {name}"),
        };
        let leaf = connection.local_auth.leaf();
        all.extend(leaf.and_then(|leaf| validity(leaf).ok()).map(|own| {
            let whose = format!("the certificate of {whose} ({})", own.subject);
            certificate(whose, &own)
        }));
        if let RemoteAuth::Certificate { trust, .. } = &connection.remote_auth
            && let Some(trust) = config.trusts.get(trust)
        {
            let authorities = trust.anchors.iter().filter_map(|ca| validity(ca).ok());
            let last = authorities.max_by_key(|ca| ca.not_after);
            all.extend(last.map(|ca| {
                let whose = format!(
                    "the authority ({}) that vouches for the peers of {whose}",
                    ca.subject
                );
                certificate(whose, &ca)
            }));
        }
    }
    all
}

fn certificate(whose: String, validity: &Validity) -> Certificate {
    Certificate {
        whose,
        not_before: validity.not_before,
        not_after: validity.not_after,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cygnet_pki::UnixTime;
    use cygnet_pki::authority::{self, Authority, KeyKind};

    use super::*;

    #[test]
    fn authorities_are_judged_by_the_last_of_them() {
        let until = |seconds| authority::Validity {
            not_before: UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000)),
            not_after: UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        };
        let make = |name: &str, seconds| {
            let key = KeyKind::EcdsaP256;
            let authority = Authority::create(name, &[1], until(seconds), key).unwrap();
            authority.certificate_pem().to_owned()
        };
        let (old, new) = (make("Old", 1_800_000_000), make("New", 1_900_000_000));
        let text = "[tunnel.home]\nremote = \"203.0.113.5\"\nvirtual_address = true\n\
                    user = \"alice\"\npassword = \"p\"\nca = [\"old.crt\", \"new.crt\"]\n";
        let read = &mut |path: &str| match path {
            "old.crt" => Ok(old.clone().into_bytes()),
            _ => Ok(new.clone().into_bytes()),
        };
        let config = Config::parse("t", text, read).unwrap();
        let found = of(&config);
        let expected = Certificate {
            whose: "the authority (CN=New) that vouches for the peers of tunnel home".into(),
            not_before: 1_700_000_000,
            not_after: 1_900_000_000,
        };
        assert_eq!(found, [expected]);
    }
}
