//! Proposals as operators write them: `aes128gcm16-prfsha512-ecp256`, `aes256-sha256-modp2048-esn`.
//!
//! Words are joined by `-`; several of a kind are alternatives, the first is preferred. As in strongSwan, an
//! integrity algorithm also names the PRF where no PRF is named, and beside combined modes it does only that.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{Encryption, Group, Integrity, Prf, registry};

/// Algorithms for an IKE SA; of each kind any one may be chosen, the first is preferred.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeProposal {
    /// Encryption algorithms: all combined modes, or none of them.
    pub encryption: Vec<Encryption>,
    /// Integrity algorithms; empty for combined modes.
    pub integrity: Vec<Integrity>,
    /// Pseudorandom functions.
    pub prf: Vec<Prf>,
    /// Key exchange methods.
    pub group: Vec<Group>,
}

/// Algorithms for a Child SA; of each kind any one may be chosen, the first is preferred.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EspProposal {
    /// Encryption algorithms: all combined modes, or none of them.
    pub encryption: Vec<Encryption>,
    /// Integrity algorithms; empty for combined modes.
    pub integrity: Vec<Integrity>,
    /// Key exchange methods for perfect forward secrecy; empty: none. Not used by the Child SA that IKE_AUTH makes.
    pub group: Vec<Group>,
    /// Extended sequence numbers: `true` is ESN. A string that names neither allows both and prefers ESN.
    pub esn: Vec<bool>,
}

/// A proposal string that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposalError {
    /// A word that names no algorithm.
    #[error("\"{keyword}\" is no algorithm; known are {known}")]
    Unknown {
        /// The word.
        keyword: String,
        /// What is known.
        known: String,
    },
    /// An algorithm that exists but is refused.
    #[error("\"{keyword}\" is refused: {reason}; known are {known}")]
    Refused {
        /// The word.
        keyword: String,
        /// Why.
        reason: &'static str,
        /// What is known.
        known: String,
    },
    /// An algorithm of a kind that this proposal does not take.
    #[error("\"{keyword}\" does not belong into a proposal for {protocol}")]
    Misplaced {
        /// The word.
        keyword: String,
        /// "IKE" or "ESP".
        protocol: &'static str,
    },
    /// A kind of algorithm is missing.
    #[error("\"{proposal}\" names no {missing}; add one of {known}")]
    Missing {
        /// The proposal.
        proposal: String,
        /// The missing kind.
        missing: &'static str,
        /// What would do.
        known: String,
    },
    /// Combined modes and others in one proposal.
    #[error(
        "\"{proposal}\" mixes {aead}, which includes integrity, with {cbc}, which does not: write two proposals"
    )]
    Mixed {
        /// The proposal.
        proposal: String,
        /// A combined mode of it.
        aead: Encryption,
        /// Another algorithm of it.
        cbc: Encryption,
    },
}

/// One or more IKE proposals, separated by commas.
pub fn parse_ike_list(text: &str) -> Result<Vec<IkeProposal>, ProposalError> {
    text.split(',')
        .map(|proposal| proposal.trim().parse())
        .collect()
}

/// One or more ESP proposals, separated by commas.
pub fn parse_esp_list(text: &str) -> Result<Vec<EspProposal>, ProposalError> {
    text.split(',')
        .map(|proposal| proposal.trim().parse())
        .collect()
}

impl FromStr for IkeProposal {
    type Err = ProposalError;

    fn from_str(proposal: &str) -> Result<Self, ProposalError> {
        let words = Words::read(proposal, Protocol::Ike)?;
        let (encryption, aead) = words.encryption(proposal)?;
        if words.prf.is_empty() && words.integrity.is_empty() {
            return Err(missing(
                proposal,
                "pseudorandom function",
                Prf::ALL.map(Prf::keyword),
            ));
        }
        if words.group.is_empty() {
            return Err(missing(
                proposal,
                "key exchange method",
                Group::ALL.map(Group::keyword),
            ));
        }
        let prf = if words.prf.is_empty() {
            words
                .integrity
                .iter()
                .map(|integrity| integrity.prf())
                .collect()
        } else {
            words.prf
        };
        let integrity = integrity(proposal, words.integrity, aead)?;
        Ok(IkeProposal {
            encryption,
            integrity,
            prf,
            group: words.group,
        })
    }
}

impl FromStr for EspProposal {
    type Err = ProposalError;

    fn from_str(proposal: &str) -> Result<Self, ProposalError> {
        let words = Words::read(proposal, Protocol::Esp)?;
        let (encryption, aead) = words.encryption(proposal)?;
        let integrity = integrity(proposal, words.integrity, aead)?;
        let esn = if words.esn.is_empty() {
            vec![true, false]
        } else {
            words.esn
        };
        Ok(EspProposal {
            encryption,
            integrity,
            group: words.group,
            esn,
        })
    }
}

impl IkeProposal {
    /// What is offered and accepted when nothing is configured.
    pub fn defaults() -> Vec<Self> {
        vec![IkeProposal {
            encryption: MODERN.to_vec(),
            integrity: Vec::new(),
            prf: vec![Prf::HmacSha2_256, Prf::HmacSha2_384, Prf::HmacSha2_512],
            group: vec![
                Group::Curve25519,
                Group::EcpP256,
                Group::EcpP384,
                Group::EcpP521,
            ],
        }]
    }
}

impl EspProposal {
    /// What is offered and accepted when nothing is configured; first what this machine does fastest,
    /// which `aes_is_fast` decides ([`aes_is_fast`]).
    pub fn defaults(aes_is_fast: bool) -> Vec<Self> {
        let mut encryption = MODERN.to_vec();
        encryption.sort_by_key(|cipher| {
            let is_aes = *cipher != Encryption::ChaCha20Poly1305;
            (is_aes != aes_is_fast, cipher.key_len())
        });
        vec![EspProposal {
            encryption,
            integrity: Vec::new(),
            group: vec![
                Group::Curve25519,
                Group::EcpP256,
                Group::EcpP384,
                Group::EcpP521,
            ],
            esn: vec![true, false],
        }]
    }
}

/// Whether this processor has instructions for AES-GCM. Without them (many small ARM cores)
/// ChaCha20-Poly1305 is two to four times as fast.
pub fn aes_is_fast() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// What needs no configuration to be used.
const MODERN: [Encryption; 3] = [
    Encryption::AesGcm16_256,
    Encryption::AesGcm16_128,
    Encryption::ChaCha20Poly1305,
];

impl fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(
            f,
            (self.encryption.iter().map(|e| e.keyword()))
                .chain(self.integrity.iter().map(|i| i.keyword()))
                .chain(self.prf.iter().map(|p| p.keyword()))
                .chain(self.group.iter().map(|g| g.keyword())),
        )
    }
}

impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(
            f,
            (self.encryption.iter().map(|e| e.keyword()))
                .chain(self.integrity.iter().map(|i| i.keyword()))
                .chain(self.group.iter().map(|g| g.keyword()))
                .chain(
                    self.esn
                        .iter()
                        .map(|&esn| if esn { "esn" } else { "noesn" }),
                ),
        )
    }
}

fn join<'a>(f: &mut fmt::Formatter<'_>, words: impl Iterator<Item = &'a str>) -> fmt::Result {
    for (n, word) in words.enumerate() {
        if n > 0 {
            f.write_str("-")?;
        }
        f.write_str(word)?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Ike,
    Esp,
}

/// The words of a proposal, sorted by kind, in the order they were written.
#[derive(Default)]
struct Words {
    encryption: Vec<Encryption>,
    integrity: Vec<Integrity>,
    prf: Vec<Prf>,
    group: Vec<Group>,
    esn: Vec<bool>,
}

impl Words {
    fn read(proposal: &str, protocol: Protocol) -> Result<Self, ProposalError> {
        let mut words = Words::default();
        for keyword in proposal.split('-') {
            // Aliases as strongSwan has them.
            let lower = keyword.to_ascii_lowercase();
            let canonical = match lower.as_str() {
                "aes" => "aes128",
                "aes128gcm" | "aes128gcm128" => "aes128gcm16",
                "aes256gcm" | "aes256gcm128" => "aes256gcm16",
                "sha2_256" => "sha256",
                "sha2_384" => "sha384",
                "sha2_512" => "sha512",
                "x25519" => "curve25519",
                other => other,
            };
            if let Some(e) = Encryption::ALL
                .into_iter()
                .find(|e| e.keyword() == canonical)
            {
                push_new(&mut words.encryption, e);
            } else if let Some(i) = Integrity::ALL
                .into_iter()
                .find(|i| i.keyword() == canonical)
            {
                push_new(&mut words.integrity, i);
            } else if let Some(g) = Group::ALL.into_iter().find(|g| g.keyword() == canonical) {
                push_new(&mut words.group, g);
            } else if let Some(p) = Prf::ALL.into_iter().find(|p| p.keyword() == canonical) {
                if protocol == Protocol::Esp {
                    return Err(misplaced(keyword, "ESP"));
                }
                push_new(&mut words.prf, p);
            } else if canonical == "esn" || canonical == "noesn" {
                if protocol == Protocol::Ike {
                    return Err(misplaced(keyword, "IKE"));
                }
                push_new(&mut words.esn, canonical == "esn");
            } else if let Some(reason) = registry::refusal(canonical) {
                let known = known(protocol);
                return Err(ProposalError::Refused {
                    keyword: keyword.into(),
                    reason,
                    known,
                });
            } else {
                let known = known(protocol);
                return Err(ProposalError::Unknown {
                    keyword: keyword.into(),
                    known,
                });
            }
        }
        Ok(words)
    }

    /// The encryption algorithms, and the combined mode they begin with when all are combined modes.
    fn encryption(
        &self,
        proposal: &str,
    ) -> Result<(Vec<Encryption>, Option<Encryption>), ProposalError> {
        let aead = self.encryption.iter().copied().find(|e| e.is_aead());
        let cbc = self.encryption.iter().copied().find(|e| !e.is_aead());
        match (aead, cbc) {
            (None, None) => {
                let known = Encryption::ALL.map(Encryption::keyword);
                Err(missing(proposal, "encryption algorithm", known))
            }
            (Some(aead), Some(cbc)) => Err(ProposalError::Mixed {
                proposal: proposal.into(),
                aead,
                cbc,
            }),
            _ => Ok((self.encryption.clone(), aead)),
        }
    }
}

/// The integrity algorithms: at least one for CBC, none beside combined modes.
fn integrity(
    proposal: &str,
    named: Vec<Integrity>,
    aead: Option<Encryption>,
) -> Result<Vec<Integrity>, ProposalError> {
    if aead.is_some() {
        Ok(Vec::new())
    } else if named.is_empty() {
        Err(missing(
            proposal,
            "integrity algorithm",
            Integrity::ALL.map(Integrity::keyword),
        ))
    } else {
        Ok(named)
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn known(protocol: Protocol) -> String {
    let mut words: Vec<&str> = Encryption::ALL.map(Encryption::keyword).to_vec();
    words.extend(Integrity::ALL.map(Integrity::keyword));
    if protocol == Protocol::Ike {
        words.extend(Prf::ALL.map(Prf::keyword));
    }
    words.extend(Group::ALL.map(Group::keyword));
    if protocol == Protocol::Esp {
        words.extend(["esn", "noesn"]);
    }
    words.join(", ")
}

fn misplaced(keyword: &str, protocol: &'static str) -> ProposalError {
    ProposalError::Misplaced {
        keyword: keyword.into(),
        protocol,
    }
}

fn missing<const N: usize>(
    proposal: &str,
    missing: &'static str,
    known: [&str; N],
) -> ProposalError {
    ProposalError::Missing {
        proposal: proposal.into(),
        missing,
        known: known.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suites_of_algo() {
        let ike: IkeProposal = "aes128gcm16-prfsha512-ecp256".parse().unwrap();
        assert_eq!(
            ike,
            IkeProposal {
                encryption: vec![Encryption::AesGcm16_128],
                integrity: vec![],
                prf: vec![Prf::HmacSha2_512],
                group: vec![Group::EcpP256],
            }
        );
        let esp: EspProposal = "aes256gcm16-ecp384".parse().unwrap();
        assert_eq!(
            esp,
            EspProposal {
                encryption: vec![Encryption::AesGcm16_256],
                integrity: vec![],
                group: vec![Group::EcpP384],
                esn: vec![true, false],
            }
        );
    }

    #[test]
    fn alternatives_keep_their_order_and_repetitions_fall_away() {
        let esp: EspProposal = "aes256-aes128-aes256-sha512-sha256-modp2048-noesn"
            .parse()
            .unwrap();
        assert_eq!(
            esp.encryption,
            [Encryption::AesCbc256, Encryption::AesCbc128]
        );
        assert_eq!(
            esp.integrity,
            [Integrity::HmacSha2_512_256, Integrity::HmacSha2_256_128]
        );
        assert_eq!(esp.group, [Group::Modp2048]);
        assert_eq!(esp.esn, [false]);
    }

    #[test]
    fn an_integrity_algorithm_names_the_prf_where_none_is_named() {
        let cbc: IkeProposal = "aes256-sha384-modp3072".parse().unwrap();
        assert_eq!(cbc.integrity, [Integrity::HmacSha2_384_192]);
        assert_eq!(cbc.prf, [Prf::HmacSha2_384]);
        let aead: IkeProposal = "chacha20poly1305-sha256-x25519".parse().unwrap();
        assert!(aead.integrity.is_empty());
        assert_eq!(aead.prf, [Prf::HmacSha2_256]);
    }

    #[test]
    fn what_is_printed_reads_back() {
        for ike in IkeProposal::defaults() {
            assert_eq!(ike.to_string().parse(), Ok(ike));
        }
        for esp in [true, false].into_iter().flat_map(EspProposal::defaults) {
            assert_eq!(esp.to_string().parse(), Ok(esp));
        }
        let text = "aes128-aes256-sha256-prfsha512-modp4096-ecp521";
        assert_eq!(text.parse::<IkeProposal>().unwrap().to_string(), text);
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let list = parse_ike_list("aes128gcm16-prfsha256-ecp256, aes128-sha256-modp2048").unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(
            parse_esp_list("aes128gcm16,aes128-sha256-esn").unwrap()[1].esn,
            [true]
        );
    }

    #[test]
    fn errors_name_the_word_and_what_is_known() {
        let error = |text: &str| text.parse::<IkeProposal>().unwrap_err().to_string();
        assert_eq!(
            error("aes128gcm16-prfsha257-ecp256"),
            "\"prfsha257\" is no algorithm; known are aes256gcm16, aes128gcm16, chacha20poly1305, aes256, aes128, \
             sha256, sha384, sha512, prfsha256, prfsha384, prfsha512, curve25519, ecp256, ecp384, ecp521, modp2048, \
             modp3072, modp4096"
        );
        assert!(error("3des-sha256-modp2048").starts_with("\"3des\" is refused: it is too weak"));
        assert!(error("aes128-sha1-modp2048").starts_with("\"sha1\" is refused: it is too weak"));
        assert!(error("aes128-md5-modp2048").starts_with("\"md5\" is refused: it is too weak"));
        assert!(
            error("aes128-sha256-modp1024").starts_with("\"modp1024\" is refused: it is too weak")
        );
        assert!(
            error("aes192-sha256-modp2048").starts_with("\"aes192\" is refused: Cygnet does not")
        );
        assert_eq!(
            error("aes128gcm16-ecp256"),
            "\"aes128gcm16-ecp256\" names no pseudorandom function; add one of prfsha256, prfsha384, prfsha512"
        );
        assert_eq!(
            error("aes128-prfsha256-ecp256"),
            "\"aes128-prfsha256-ecp256\" names no integrity algorithm; add one of sha256, sha384, sha512"
        );
        assert!(error("aes128gcm16-prfsha256").contains("names no key exchange method"));
        assert!(error("prfsha256-ecp256").contains("names no encryption algorithm"));
        assert_eq!(
            error("aes128gcm16-aes128-sha256-ecp256"),
            "\"aes128gcm16-aes128-sha256-ecp256\" mixes aes128gcm16, which includes integrity, with aes128, \
             which does not: write two proposals"
        );
        assert_eq!(
            error("aes128-sha256-ecp256-esn"),
            "\"esn\" does not belong into a proposal for IKE"
        );
        let error = "aes128gcm16-prfsha256"
            .parse::<EspProposal>()
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "\"prfsha256\" does not belong into a proposal for ESP"
        );
        assert!(matches!(
            "".parse::<EspProposal>(),
            Err(ProposalError::Unknown { .. })
        ));
    }

    #[test]
    fn the_fastest_cipher_of_this_machine_comes_first() {
        use Encryption::{AesGcm16_128, AesGcm16_256, ChaCha20Poly1305};
        let order = |aes_is_fast| EspProposal::defaults(aes_is_fast)[0].encryption.clone();
        assert_eq!(order(true), [AesGcm16_128, AesGcm16_256, ChaCha20Poly1305]);
        assert_eq!(order(false), [ChaCha20Poly1305, AesGcm16_128, AesGcm16_256]);
    }
}
