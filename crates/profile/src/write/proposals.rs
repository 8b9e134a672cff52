//! Of what the server accepts, the one thing a system is told to use, where a system takes no list.

use cygnet_crypto::suite::proposal::{EspProposal, IkeProposal};
use cygnet_crypto::suite::{Encryption, Group, Integrity, Prf};

/// What a system knows, what is best on it first.
pub(super) struct Known {
    pub(super) ike_encryption: &'static [Encryption],
    pub(super) esp_encryption: &'static [Encryption],
    /// Also the integrity of AES-CBC: systems have one word for both.
    pub(super) prf: &'static [Prf],
    pub(super) group: &'static [Group],
}

/// One choice for an IKE SA. With AES-CBC, the integrity algorithm is the one of the same hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ike {
    pub(super) encryption: Encryption,
    pub(super) prf: Prf,
    pub(super) group: Group,
}

/// One choice for Child SAs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Esp {
    pub(super) encryption: Encryption,
    /// Perfect forward secrecy, if the server does it.
    pub(super) group: Option<Group>,
}

/// What a system is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) ike: Ike,
    pub(super) esp: Esp,
}

impl Known {
    /// `None` if the server accepts nothing that this system knows.
    pub(super) fn choose(&self, ike: &[IkeProposal], esp: &[EspProposal]) -> Option<Choice> {
        Some(Choice {
            ike: ike.iter().find_map(|proposal| self.ike(proposal))?,
            esp: esp.iter().find_map(|proposal| self.esp(proposal))?,
        })
    }

    fn ike(&self, proposal: &IkeProposal) -> Option<Ike> {
        let encryption = first(self.ike_encryption, &proposal.encryption)?;
        let group = first(self.group, &proposal.group)?;
        let hashes = proposal.integrity.iter().copied().map(Integrity::prf);
        let hashes: Vec<Prf> = hashes.collect();
        let prf = self.prf.iter().copied().find(|prf| {
            proposal.prf.contains(prf) && (encryption.is_aead() || hashes.contains(prf))
        })?;
        Some(Ike {
            encryption,
            prf,
            group,
        })
    }

    fn esp(&self, proposal: &EspProposal) -> Option<Esp> {
        let encryption = first(self.esp_encryption, &proposal.encryption)?;
        let group = match proposal.group.as_slice() {
            [] => None,
            groups => Some(first(self.group, groups)?),
        };
        Some(Esp { encryption, group })
    }
}

fn first<T: PartialEq + Copy>(known: &[T], accepted: &[T]) -> Option<T> {
    known.iter().copied().find(|one| accepted.contains(one))
}

/// ESP proposals in strongSwan's words. Extended sequence numbers are left out: its user-space ESP (Android) has none.
pub(super) fn strongswan_esp(esp: &[EspProposal]) -> Vec<String> {
    let plain = esp.iter().map(|proposal| EspProposal {
        esn: Vec::new(),
        ..proposal.clone()
    });
    plain.map(|proposal| proposal.to_string()).collect()
}

/// IKE proposals in strongSwan's words.
pub(super) fn strongswan_ike(ike: &[IkeProposal]) -> Vec<String> {
    ike.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known = Known {
        ike_encryption: &[Encryption::AesGcm16_256, Encryption::AesCbc256],
        esp_encryption: &[Encryption::AesGcm16_256],
        prf: &[Prf::HmacSha2_384, Prf::HmacSha2_256],
        group: &[Group::EcpP384, Group::EcpP256],
    };

    #[test]
    fn the_system_s_order_counts_within_a_proposal() {
        let choice = KNOWN.choose(&IkeProposal::defaults(), &EspProposal::defaults(true));
        let choice = choice.expect("the defaults serve");
        assert_eq!(choice.ike.encryption, Encryption::AesGcm16_256);
        assert_eq!(choice.ike.prf, Prf::HmacSha2_384);
        assert_eq!(choice.ike.group, Group::EcpP384);
        assert_eq!(choice.esp.group, Some(Group::EcpP384));
    }

    #[test]
    fn aes_cbc_needs_the_integrity_of_its_hash() {
        let esp = EspProposal::defaults(true);
        let cbc = |text: &str| KNOWN.choose(&[text.parse().expect("a proposal")], &esp);
        assert_eq!(
            cbc("aes256-sha256-ecp256").map(|choice| choice.ike.prf),
            Some(Prf::HmacSha2_256)
        );
        assert_eq!(cbc("aes256-sha512-prfsha256-ecp256"), None);
        assert_eq!(cbc("aes256-sha256-modp2048"), None);
    }

    #[test]
    fn without_forward_secrecy_there_is_no_group() {
        let esp = ["aes256gcm16".parse().expect("a proposal")];
        let choice = KNOWN.choose(&IkeProposal::defaults(), &esp).expect("one");
        assert_eq!(choice.esp.group, None);
        assert_eq!(strongswan_esp(&esp), ["aes256gcm16"]);
    }
}
