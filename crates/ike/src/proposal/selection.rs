//! The responder's choice, and why there is none (RFC 7296 §2.7, §3.3.6).

use std::fmt;

use cygnet_crypto::suite::{Encryption, Group};
use cygnet_wire::sa::{Proposal, ProtocolId, SaPayload, Transform, TransformId, TransformType};

use super::{is_none, keyword, kind, list};

/// Why no proposal was chosen: what stands between the two in the peer's proposal that comes
/// closest, transform type by transform type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// "IKE" or "ESP".
    pub protocol: &'static str,
    /// Number of the peer's proposal, and of how many.
    pub closest: Option<(u8, usize)>,
    /// What the two do not share.
    pub mismatches: Vec<Mismatch>,
    /// A proposal would have done, but its SPI has the wrong length or a reserved value.
    pub unusable_spi: bool,
}

/// A transform type in which the two sides share nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Such as "key exchange".
    pub kind: &'static str,
    /// What the peer offers, as keywords; empty: none.
    pub offered: Vec<String>,
    /// What this side accepts; empty: none.
    pub accepted: Vec<String>,
}

/// The first of `theirs` that any of `ours` meets, and why there is none.
pub(super) fn select<C>(
    protocol: ProtocolId,
    ours: &[Vec<Transform>],
    theirs: &SaPayload,
    sent: Option<TransformId>,
    choice: impl Fn(Proposal) -> Option<C>,
) -> Result<C, Explanation> {
    let candidates = theirs.proposals.iter().filter(|p| p.protocol == protocol);
    let mut closest: Option<(u8, Vec<Mismatch>)> = None;
    let mut unusable_spi = false;
    for modern in [true, false] {
        for their in candidates.clone() {
            for our in ours {
                let (our, left_out): (Vec<_>, Vec<_>) =
                    our.iter().partition(|t| !modern || is_modern(t));
                // A type of which nothing is modern is not a type of which nothing is needed.
                let missing = |t: &&Transform| our.iter().all(|kept| kept.ty != t.ty);
                if left_out.iter().any(missing) {
                    continue;
                }
                match meet(&our, their, sent) {
                    Ok(transforms) => {
                        let chosen = Proposal {
                            transforms,
                            ..their.clone()
                        };
                        match choice(chosen) {
                            Some(choice) => return Ok(choice),
                            None => unusable_spi = true,
                        }
                    }
                    Err(mismatches) => {
                        let closer = closest
                            .as_ref()
                            .is_none_or(|(_, least)| mismatches.len() < least.len());
                        if !modern && closer {
                            closest = Some((their.number, mismatches));
                        }
                    }
                }
            }
        }
    }
    let (number, mismatches) = closest.unzip();
    Err(Explanation {
        protocol: if protocol == ProtocolId::IKE {
            "IKE"
        } else {
            "ESP"
        },
        closest: number.map(|number| (number, candidates.count())),
        mismatches: mismatches.unwrap_or_default(),
        unusable_spi,
    })
}

/// One transform of each type in `their`, or the types in which there is none for both.
fn meet(
    our: &[&Transform],
    their: &Proposal,
    sent: Option<TransformId>,
) -> Result<Vec<Transform>, Vec<Mismatch>> {
    let mut types: Vec<_> = our.iter().map(|t| t.ty).collect();
    types.extend(their.transforms.iter().map(|t| t.ty));
    types.sort_unstable();
    types.dedup();
    let mut chosen = Vec::new();
    let mut mismatches = Vec::new();
    for ty in types {
        let accepted: Vec<_> = our.iter().copied().filter(|t| t.ty == ty).collect();
        // RFC 7296 §3.3.6: transforms with attributes nobody here understands are passed over.
        let offered: Vec<_> = their
            .transforms_of(ty)
            .filter(|t| !t.has_unknown_attributes())
            .collect();
        let common = |t: &&Transform| match accepted.as_slice() {
            [] => is_none(t),
            accepted => accepted.contains(t),
        };
        let preferred = offered.iter().copied().filter(common).find(|t| match ty {
            TransformType::KE => Some(t.id) == sent,
            TransformType::SN => t.id == TransformId::SN_64_BIT,
            _ => false,
        });
        match preferred.or_else(|| offered.iter().copied().find(common)) {
            Some(transform) => chosen.push(transform.clone()),
            // The type is not in the proposal and we want none of it.
            None if accepted.is_empty() && their.transforms_of(ty).next().is_none() => {}
            None => mismatches.push(Mismatch {
                kind: kind(ty),
                offered: their.transforms_of(ty).map(keyword).collect(),
                accepted: accepted.iter().map(|t| keyword(t)).collect(),
            }),
        }
    }
    if mismatches.is_empty() {
        Ok(chosen)
    } else {
        Err(mismatches)
    }
}

/// Whether a transform belongs to a suite that is taken before all others.
fn is_modern(transform: &Transform) -> bool {
    match transform.ty {
        TransformType::ENCR => Encryption::from_wire(transform.id.0, transform.key_length())
            .is_some_and(|e| e.is_aead()),
        TransformType::KE => !matches!(
            Group::from_wire(transform.id.0),
            Some(Group::Modp2048 | Group::Modp3072 | Group::Modp4096)
        ),
        _ => true,
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needs = match self.accepted.as_slice() {
            [] | [_] => "this side needs",
            _ => "this side needs one of",
        };
        write!(
            f,
            "{}: peer offers {}; {needs} {}",
            self.kind,
            list(&self.offered),
            list(&self.accepted)
        )
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {} proposal in common", self.protocol)?;
        if self.unusable_spi {
            return f.write_str(": the SPI of the peer's proposal has a wrong length or value");
        }
        match self.closest {
            None => write!(f, ": peer offers none for {}", self.protocol)?,
            Some((number, count)) if count > 1 => {
                write!(f, " (proposal {number} of {count} comes closest)")?;
            }
            Some(_) => {}
        }
        self.mismatches
            .iter()
            .enumerate()
            .try_for_each(|(i, mismatch)| {
                write!(f, "{} {mismatch}", if i == 0 { ":" } else { "," })
            })
    }
}
