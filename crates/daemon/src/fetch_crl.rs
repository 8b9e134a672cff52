//! `cygnet fetch-crl URL`: gets a revocation list over HTTP and judges it, in a process of its own.
//!
//! A list is bytes from a network until its signature is checked, and the check itself parses them: the
//! supervisor must not, and the engine has no way to fetch. This process has nothing to lose. What it hands
//! back is dates and a list that one of the authorities has signed; the supervisor keeps the list without
//! looking into it, and the engine judges it again.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use cygnet_crypto::digest;
use cygnet_pki::{SignedCrl, TrustAnchors, load};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fetch::{self, Limits};
use crate::helper;

/// The longest list, in octets.
pub(crate) const LIST_MAX: usize = 8 << 20;
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    whole: Duration::from_secs(20),
    body: LIST_MAX,
    redirects: 3,
};
/// A process that has not ended by itself by then is ended.
const PATIENCE: Duration = Duration::from_secs(30);
/// Octets of an errand (authorities, and the lists that are had) and of what comes of it.
const MESSAGE_MAX: u64 = 16 << 20;
/// Memory of the process: a list of this size, decoded.
const MEMORY_MAX: u64 = 1 << 30;
/// Seconds it may compute.
const COMPUTING_MAX: u64 = 30;

/// What the supervisor wants to know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Errand {
    /// One of these has to have signed the list (DER).
    pub(crate) anchors: Vec<Vec<u8>>,
    /// The lists that are had (DER): an older one than its own predecessor is not taken.
    pub(crate) held: Vec<Vec<u8>>,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Of each list that is had, if these authorities vouch for it.
    pub(crate) held: Vec<(Name, Option<Dates>)>,
    /// A list, or a sentence why there is none.
    pub(crate) fetched: Result<Fetched, String>,
}

/// A list that came, as new as what it replaces, or newer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fetched {
    pub(crate) dates: Dates,
    pub(crate) der: Vec<u8>,
    /// The list that it takes the place of: of the same authority, key and scope; else one that none of the
    /// authorities vouches for any more. Any other stays: who is between chooses which one comes.
    pub(crate) replaces: Option<Name>,
}

/// Of a list: its SHA-256.
pub(crate) type Name = [u8; 32];

pub(crate) fn name(der: &[u8]) -> Name {
    digest::sha256(&[der])
}

/// Of a list, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dates {
    /// When it was made.
    pub(crate) this_update: i64,
    /// When the next one is there at the latest.
    pub(crate) next_update: Option<i64>,
}

impl Dates {
    fn of(list: &SignedCrl) -> Self {
        Self {
            this_update: list.this_update(),
            next_update: list.next_update(),
        }
    }
}

/// The process itself.
pub(crate) fn run(url: &str) -> u8 {
    let done = helper::confine(MEMORY_MAX, Some(COMPUTING_MAX)).and_then(|()| {
        let mut errand = Vec::new();
        std::io::stdin()
            .take(MESSAGE_MAX)
            .read_to_end(&mut errand)?;
        let errand = postcard::from_bytes(&errand).map_err(std::io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()?;
        let bytes = runtime.block_on(fetch::get(url, &LIMITS));
        // A resolver that does not answer is not waited for.
        runtime.shutdown_background();
        let found = postcard::to_allocvec(&judge(&errand, bytes)).map_err(std::io::Error::other)?;
        std::io::stdout().write_all(&found)
    });
    u8::from(done.is_err())
}

fn judge(errand: &Errand, bytes: Result<Vec<u8>, String>) -> Found {
    let mut anchors = TrustAnchors::new();
    for anchor in &errand.anchors {
        // Those of the configuration decode.
        let _ = anchors.add(anchor.clone());
    }
    let held = errand.held.iter().map(|der| {
        let list = SignedCrl::verify(der, &anchors).ok();
        (name(der), list)
    });
    let held: Vec<_> = held.collect();
    let fetched = bytes.and_then(|bytes| {
        let der = only_list(&bytes)?;
        // By no date: one that is forged, and before the list, would keep out what disproves it.
        let list = SignedCrl::verify(&der, &anchors).map_err(|e| e.to_string())?;
        let mut vouched = held
            .iter()
            .filter_map(|(name, held)| Some((name, held.as_ref()?)));
        let before = vouched.find(|(_, held)| list.is_of_series(held));
        if before.is_some_and(|(_, held)| list.is_older_than(held)) {
            return Err(
                "what came is an older revocation list than the one that is had".to_owned(),
            );
        }
        Ok(Fetched {
            dates: Dates::of(&list),
            der,
            replaces: match before {
                Some((name, _)) => Some(*name),
                None => (held.iter().find(|(_, held)| held.is_none())).map(|(name, _)| *name),
            },
        })
    });
    let held = (held.iter()).map(|(name, list)| (*name, list.as_ref().map(Dates::of)));
    Found {
        held: held.collect(),
        fetched,
    }
}

/// PEM or DER to DER.
fn only_list(bytes: &[u8]) -> Result<Vec<u8>, String> {
    const EXPECTED: &str = "expected one revocation list in DER or PEM";
    if bytes.trim_ascii_start().starts_with(b"<") {
        return Err(format!(
            "what came is a web page: {EXPECTED}; open the URL in a browser to see what it says"
        ));
    }
    let lists = load::crls(bytes, std::path::Path::new("what came"));
    let mut lists = lists.map_err(|e| format!("{EXPECTED}, what came is {}", e.found))?;
    match (lists.pop(), lists.len()) {
        (Some(list), 0) => Ok(list),
        (_, more) => Err(format!("{EXPECTED}, what came is {} of them", more + 1)),
    }
}

/// Sends such a process, as that user and group.
pub(crate) async fn send(url: &str, errand: &Errand, user: (u32, u32)) -> Result<Found, String> {
    let failed = |e: &dyn std::fmt::Display| format!("the process that fetches it failed: {e}");
    let errand = postcard::to_allocvec(errand).map_err(|e| failed(&e))?;
    let mut child = helper::command("fetch-crl", url, user)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|e| failed(&e))?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed(&"no pipe"));
    };
    let mut found = Vec::new();
    let asked = async {
        stdin.write_all(&errand).await?;
        drop(stdin);
        stdout.take(MESSAGE_MAX).read_to_end(&mut found).await?;
        child.wait().await
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(Ok(status)) => return Err(failed(&status)),
        Ok(Err(e)) => return Err(failed(&e)),
        Err(_) => {
            return Err(failed(&format!("not done within {} s", PATIENCE.as_secs())));
        }
    }
    postcard::from_bytes(&found).map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_list_is_named() {
        let errand = Errand {
            anchors: Vec::new(),
            held: Vec::new(),
        };
        for (bytes, expected) in [
            (&b"\n<!DOCTYPE html><title>Log in</title>"[..], "a web page"),
            (b"", "expected one revocation list"),
            (b"\x30\x03\x02\x01\x01", "do not decode"),
            (
                b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
                "do not decode",
            ),
        ] {
            let told = judge(&errand, Ok(bytes.to_vec())).fetched.unwrap_err();
            assert!(told.contains(expected), "{told}");
        }
        let failed = judge(&errand, Err("no answer".to_owned()));
        assert_eq!(failed.fetched, Err("no answer".to_owned()));
        assert_eq!(failed.held, []);
    }
    #[test]
    fn a_list_replaces_its_own_predecessor_alone() {
        use cygnet_pki::UnixTime;
        use cygnet_pki::authority::{Authority, KeyKind, Validity};
        const NOW: u64 = 1_795_651_200;
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let validity = Validity {
            not_before: at(NOW - 1_000_000),
            not_after: at(NOW + 1_000_000),
        };
        let authority = |name| Authority::create(name, &[1], validity, KeyKind::default()).unwrap();
        let (a, b) = (authority("A"), authority("B"));
        let list = |of: &Authority, number: u64| {
            let made = NOW - 1000 + number;
            of.crl(&[], number, at(made), at(made + 86_400)).unwrap()
        };
        let (a1, a2, b1, b2) = (list(&a, 1), list(&a, 2), list(&b, 1), list(&b, 2));
        let errand = |held: &[&Vec<u8>]| Errand {
            anchors: vec![a.certificate_der().to_vec(), b.certificate_der().to_vec()],
            held: held.iter().map(|list| list.to_vec()).collect(),
        };
        let replaced = |held: &[&Vec<u8>], came: &Vec<u8>| {
            let found = judge(&errand(held), Ok(came.clone()));
            assert_eq!(found.held.len(), held.len());
            found.fetched.map(|fetched| fetched.replaces)
        };
        assert_eq!(replaced(&[], &a1), Ok(None));
        assert_eq!(replaced(&[&a1], &b2), Ok(None));
        assert_eq!(replaced(&[&a1, &b1], &b2), Ok(Some(name(&b1))));
        assert_eq!(replaced(&[&b2, &a1], &a2), Ok(Some(name(&a1))));
        assert_eq!(replaced(&[&b2, &a1], &a1), Ok(Some(name(&a1))));
        let gone = list(&authority("A"), 3);
        assert_eq!(replaced(&[&gone, &a1], &a2), Ok(Some(name(&a1))));
        assert_eq!(replaced(&[&a1, &gone], &b1), Ok(Some(name(&gone))));
        // By no date: where it is wrong here, the list says so.
        let (later, until) = (at(NOW + 400_000_000), at(NOW + 400_086_400));
        let later = a.crl(&[], 3, later, until).unwrap();
        assert_eq!(replaced(&[&a2], &later), Ok(Some(name(&a2))));
        let older = replaced(&[&b2, &a2], &a1).unwrap_err();
        assert!(older.contains("older"), "{older}");
    }
}
