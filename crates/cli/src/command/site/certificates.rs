//! Certificates for both ends of a tunnel, of an authority that is made for them and signs nothing else: its key is
//! forgotten with the command.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cygnet_crypto::Random;
use cygnet_pki::UnixTime;
use cygnet_pki::authority::{Authority, KeyKind, Purpose, Request, Validity, draw_serial};
use cygnet_pki::load;
use cygnet_profile::site::{Certified, End, Pair};
use cygnet_server::{Address, password};
use zeroize::Zeroizing;

const DAY: Duration = Duration::from_secs(86_400);
/// Nobody renews them by themselves, and who has a file of this tunnel has its key: they are good as long as a tunnel
/// of offices is likely to be.
pub(super) const VALID_YEARS: u32 = 10;
/// Clocks of other machines are slow sometimes.
const BACKDATED: Duration = DAY;

/// `name`: the tunnel's. `kind`: what both ends understand.
pub(super) fn make(
    name: &str,
    here: &End,
    there: &End,
    kind: KeyKind,
    now: UnixTime,
    random: &mut dyn Random,
) -> Result<Pair, String> {
    let seconds = |at: Duration| UnixTime::since_unix_epoch(at);
    let now = Duration::from_secs(now.as_secs());
    let validity = Validity {
        not_before: seconds(now.saturating_sub(BACKDATED)),
        not_after: seconds(now.saturating_add(DAY * 365 * VALID_YEARS)),
    };
    let id = draw_serial(random);
    let id: String = id.iter().take(4).map(|it| format!("{it:02x}")).collect();
    let failed = |error: cygnet_pki::authority::AuthorityError| error.to_string();
    // A name that no other authority has: peers that hold two of one name have to try both keys.
    let authority = format!("Cygnet site {name} {id}");
    let authority =
        Authority::create(&authority, &draw_serial(random), validity, kind).map_err(failed)?;
    let mut certified = |end: &End, which: &str| {
        let common_name = format!("cygnet-site-{id}-{which}");
        let identity: Address = end.identity.parse().map_err(|e| format!("{e}"))?;
        let issued = authority.issue(&Request {
            common_name: &common_name,
            names: &identity.subject_alt_names(),
            // Either calls the other, so each has the usage that says nothing of a role (RFC 4945 §5.1.3.12).
            purpose: Purpose::Server,
            serial: &draw_serial(random),
            validity,
            key: kind,
        });
        let issued = issued.map_err(failed)?;
        let key = load::private_key(issued.key_pem.as_bytes(), Path::new("the new key"));
        let key = key.map_err(|error| error.to_string())?;
        Ok::<_, String>(Arc::new(Certified {
            common_name,
            certificate: issued.certificate_der,
            key: Zeroizing::new(key.pkcs8().to_vec()),
        }))
    };
    let (here, there) = (certified(here, "here")?, certified(there, "there")?);
    Ok(Pair {
        authority: authority.certificate_der().to_vec(),
        here,
        there,
        p12_password: Arc::new(password::readable(random)),
    })
}

#[cfg(test)]
mod tests {
    use cygnet_crypto::SystemRandom;
    use cygnet_pki::certificate_contains;

    use super::*;

    fn end(identity: &str) -> End {
        End {
            address: None,
            identity: identity.to_owned(),
            networks: Vec::new(),
        }
    }

    #[test]
    fn each_end_has_a_certificate_for_itself_and_no_other() {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let (main, branch) = (end("203.0.113.1"), end("branch.example.org"));
        for kind in [KeyKind::EcdsaP256, KeyKind::Rsa3072] {
            let pair = make("branch", &main, &branch, kind, now, &mut SystemRandom).unwrap();
            // ID_IPV4_ADDR and ID_FQDN (RFC 7296 §3.5).
            let is_main =
                |it: &Certified| certificate_contains(&it.certificate, 1, &[203, 0, 113, 1]);
            let is_branch =
                |it: &Certified| certificate_contains(&it.certificate, 2, b"branch.example.org");
            assert!(is_main(&pair.here).is_ok() && is_branch(&pair.there).is_ok());
            assert!(is_main(&pair.there).is_err() && is_branch(&pair.here).is_err());
            let validity = cygnet_pki::validity(&pair.here.certificate).unwrap();
            assert!(validity.not_before < 1_800_000_000);
            assert_eq!(validity.not_after, 1_800_000_000 + 3650 * 86_400);
            assert_ne!(*pair.here.key, *pair.there.key);
            assert_ne!(pair.here.common_name, pair.there.common_name);
        }
    }
}
