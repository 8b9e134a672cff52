//! Others' proposals as ours.

use cygnet_crypto::suite::{EspProposal, Group, IkeProposal};

use super::{Note, Place};

/// More alternatives than anyone writes.
const MOST: usize = 32;

/// `aes128gcm16-prfsha512-ecp256!`: a list as strongSwan writes it. What is not spoken here is noted and left out; empty
/// where nothing remains, or `default` stands there.
pub(super) fn ike(list: &str, place: &Place, notes: &mut Vec<Note>) -> Vec<String> {
    translate(list, "IKE", place, notes, |text| {
        text.parse::<IkeProposal>().map(drop)
    })
}

/// See [`ike`].
pub(super) fn esp(list: &str, place: &Place, notes: &mut Vec<Note>) -> Vec<String> {
    translate(list, "ESP", place, notes, |text| {
        text.parse::<EspProposal>().map(drop)
    })
}

fn translate<E: std::fmt::Display>(
    list: &str,
    protocol: &str,
    place: &Place,
    notes: &mut Vec<Note>,
    judge: impl Fn(&str) -> Result<(), E>,
) -> Vec<String> {
    // A `!` at the end means "these alone", which ours always mean.
    let list = list.trim().trim_end_matches('!').trim_end();
    let mut kept: Vec<String> = Vec::new();
    let mut left_out = 0;
    let named = list.split(',').map(str::trim);
    for proposal in named
        .filter(|it| !it.is_empty() && *it != "default")
        .take(MOST)
    {
        match judge(proposal) {
            Ok(()) if kept.iter().any(|it| it == proposal) => {}
            Ok(()) => kept.push(proposal.to_owned()),
            Err(error) => {
                left_out += 1;
                let text = format!("the {protocol} proposal {proposal} is left out: {error}");
                notes.push(Note::NotRead(place.clone(), text));
            }
        }
    }
    if kept.is_empty() && left_out > 0 {
        let text = format!("no {protocol} proposal is left; Cygnet's own are offered instead");
        notes.push(Note::Concluded(text));
    }
    kept
}

/// Apple's names for the algorithms of one SA.
pub(super) struct Apple<'a> {
    pub(super) encryption: &'a str,
    pub(super) integrity: &'a str,
    pub(super) group: u64,
}

impl Apple<'_> {
    /// As a proposal for IKE.
    pub(super) fn ike(&self) -> Result<String, String> {
        let (encryption, aead) = self.encryption()?;
        let integrity = self.integrity()?;
        let group = self.group()?;
        Ok(if aead {
            // Beside a combined mode it names the PRF.
            format!("{encryption}-prf{integrity}-{group}")
        } else {
            format!("{encryption}-{integrity}-prf{integrity}-{group}")
        })
    }

    /// As a proposal for ESP, with a key exchange of its own or without.
    pub(super) fn esp(&self, pfs: bool) -> Result<String, String> {
        let (encryption, aead) = self.encryption()?;
        let mut proposal = encryption.to_owned();
        if !aead {
            proposal = format!("{proposal}-{}", self.integrity()?);
        }
        if pfs {
            proposal = format!("{proposal}-{}", self.group()?);
        }
        Ok(proposal)
    }

    fn encryption(&self) -> Result<(&'static str, bool), String> {
        Ok(match self.encryption {
            "AES-128-GCM" => ("aes128gcm16", true),
            "AES-256-GCM" => ("aes256gcm16", true),
            "ChaCha20Poly1305" => ("chacha20poly1305", true),
            "AES-128" => ("aes128", false),
            "AES-256" => ("aes256", false),
            other => return Err(format!("EncryptionAlgorithm {other} is not spoken here")),
        })
    }

    fn integrity(&self) -> Result<&'static str, String> {
        Ok(match self.integrity {
            "SHA2-256" => "sha256",
            "SHA2-384" => "sha384",
            "SHA2-512" => "sha512",
            other => return Err(format!("IntegrityAlgorithm {other} is not spoken here")),
        })
    }

    fn group(&self) -> Result<&'static str, String> {
        let group = u16::try_from(self.group).ok().and_then(Group::from_wire);
        let unknown = || format!("DiffieHellmanGroup {} is not spoken here", self.group);
        group.map(Group::keyword).ok_or_else(unknown)
    }
}
