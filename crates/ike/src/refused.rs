//! Callers that were refused because they offer only what is not accepted here: who, what, how often. They
//! are mostly people who want in, with a device that is set up by its maker and not for this server.

use std::fmt;
use std::net::IpAddr;

use crate::time::Instant;

/// Remembered at once; the one longest ago makes room.
const MOST: usize = 16;

/// Whose implementation calls, by its Vendor ID (RFC 7296 §3.12); Apple's and Android's have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Client {
    /// Windows: "MS NT5 ISAKMPOAKLEY" and a version.
    Windows,
    /// strongSwan, where `send_vendor_id` is set.
    StrongSwan,
    /// Anybody else.
    #[default]
    Unknown,
}

impl Client {
    const WINDOWS: [u8; 16] = [
        0x1e, 0x2b, 0x51, 0x69, 0x05, 0x99, 0x1c, 0x7d, 0x7c, 0x96, 0xfc, 0xbf, 0xb5, 0x87, 0xe4,
        0x61,
    ];
    const STRONGSWAN: [u8; 16] = [
        0x88, 0x2f, 0xe5, 0x6d, 0x6f, 0xd2, 0x0d, 0xbc, 0x22, 0x51, 0x61, 0x3b, 0x2e, 0xbe, 0x5b,
        0xeb,
    ];

    /// Whose Vendor ID this is, if it says so.
    pub(crate) fn of(vid: &[u8]) -> Option<Self> {
        if vid.starts_with(&Self::WINDOWS) {
            Some(Self::Windows)
        } else if vid == Self::STRONGSWAN {
            Some(Self::StrongSwan)
        } else {
            None
        }
    }

    /// Its name; `None`: nobody knows.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Windows => Some("Windows"),
            Self::StrongSwan => Some("strongSwan"),
            Self::Unknown => None,
        }
    }
}

/// A caller, and what it offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCall {
    /// Where it called from.
    pub from: IpAddr,
    /// Whose implementation it is.
    pub client: Client,
    /// All of its algorithms: "encryption 3des, aes256; …; key exchange modp1024".
    pub offered: String,
    /// What to do.
    pub remedy: String,
    /// How often.
    pub count: u64,
    /// When last.
    pub last: Instant,
}

impl RefusedCall {
    /// `offered` is what its proposals have in sum, `accepted` are ours.
    pub(crate) fn new<P: ToString>(
        now: Instant,
        from: IpAddr,
        client: Client,
        offered: String,
        accepted: impl IntoIterator<Item = P>,
    ) -> Self {
        Self {
            from,
            client,
            offered,
            remedy: remedy(client, accepted),
            count: 1,
            last: now,
        }
    }
}

impl fmt::Display for RefusedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.client.name() {
            Some(name) => write!(f, "{name} at {}", self.from)?,
            None => write!(f, "the caller at {}", self.from)?,
        }
        // What to do first: a line of the log may be cut.
        write!(f, ": {}; it offers only {}", self.remedy, self.offered)
    }
}

fn remedy<P: ToString>(client: Client, proposals: impl IntoIterator<Item = P>) -> String {
    if client == Client::Windows {
        return "set its proposals with the `.ps1` file from `cygnet user export`".to_owned();
    }
    // The best of ours alone: who has the choice takes it, and a line of the log is short.
    let best = proposals.into_iter().next();
    let best = best.map_or_else(|| "what is configured".to_owned(), |it| it.to_string());
    format!("let it offer some of {best}, as the files from `cygnet user export` do")
}

/// The latest of them, one for each place and offer.
#[derive(Default)]
pub(crate) struct Refused {
    calls: Vec<RefusedCall>,
}

impl Refused {
    /// Notes a call; the latest are at the end.
    pub(crate) fn note(&mut self, mut call: RefusedCall) {
        let same = |known: &RefusedCall| {
            (known.from, known.client) == (call.from, call.client) && known.offered == call.offered
        };
        if let Some(at) = self.calls.iter().position(same) {
            call.count = self.calls.remove(at).count.saturating_add(1);
        } else if self.calls.len() >= MOST {
            self.calls.remove(0);
        }
        self.calls.push(call);
    }

    /// The latest first.
    pub(crate) fn list(&self) -> Vec<RefusedCall> {
        self.calls.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn call(last_octet: u8, offered: &str, seconds: u64) -> RefusedCall {
        RefusedCall {
            from: IpAddr::from([203, 0, 113, last_octet]),
            client: Client::Unknown,
            offered: offered.to_owned(),
            remedy: String::new(),
            count: 1,
            last: Instant::from_boot(Duration::from_secs(seconds)),
        }
    }

    #[test]
    fn the_same_again_is_counted() {
        let mut refused = Refused::default();
        for (from, offered) in [(1, "3des"), (2, "3des"), (1, "des"), (1, "3des")] {
            refused.note(call(from, offered, 7));
        }
        let list = refused.list();
        let seen: Vec<_> = list.iter().map(|c| (c.offered.as_str(), c.count)).collect();
        assert_eq!(seen, [("3des", 2), ("des", 1), ("3des", 1)]);
    }

    #[test]
    fn strangers_cannot_fill_the_memory() {
        let mut refused = Refused::default();
        for n in 0..200 {
            refused.note(call(n, "3des", u64::from(n)));
        }
        let list = refused.list();
        assert_eq!(list.len(), MOST);
        assert_eq!(list[0], call(199, "3des", 199));
        assert_eq!(list[MOST - 1], call(184, "3des", 184));
    }

    #[test]
    fn windows_says_that_it_is_windows() {
        let mut vid = Client::WINDOWS.to_vec();
        vid.extend([0, 0, 0, 9]);
        assert_eq!(Client::of(&vid), Some(Client::Windows));
        assert_eq!(Client::of(&Client::STRONGSWAN), Some(Client::StrongSwan));
        assert_eq!(Client::of(&Client::WINDOWS[..15]), None);
        assert_eq!(Client::of(b""), None);
    }
}
