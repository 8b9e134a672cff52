//! Which algorithms the two sides agree on (RFC 7296 §2.7, §3.3), and why not.
//!
//! As responder, the initiator's order decides: its first proposal that any of ours meets, and in
//! it, of each transform type, its first transform that ours has. Three things come before that
//! order: a suite without CBC and MODP wherever one is offered; the group whose public value is
//! already in the message, which saves a round trip; 64-bit sequence numbers.

use cygnet_crypto::suite::{
    Encryption, EspSuite, Group, IkeSuite, Integrity, Prf, transform_keyword,
};
pub use cygnet_crypto::suite::{EspProposal, IkeProposal, ProposalError};
use cygnet_wire::header::{ChildSpi, Spi};
use cygnet_wire::sa::{
    Proposal, ProposalSpi, ProtocolId, SaPayload, Transform, TransformId, TransformType,
};
use thiserror::Error;

mod selection;

pub use selection::{Explanation, Mismatch};

/// Which exchange makes a Child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildExchange {
    /// It has no key exchange of its own, so groups are neither offered nor looked at
    /// (RFC 7296 §1.2).
    IkeAuth,
    /// With a key exchange where the proposals have groups.
    CreateChildSa,
}

/// Algorithms for an IKE SA that both sides can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeChoice {
    /// The algorithms.
    pub suite: IkeSuite,
    /// The peer's SPI for the new IKE SA, when one is being rekeyed.
    pub peer_spi: Option<Spi>,
    chosen: Proposal,
}

/// Algorithms for a Child SA that both sides can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspChoice {
    /// The algorithms.
    pub suite: EspSuite,
    /// The key exchange of CREATE_CHILD_SA, if there is to be one.
    pub group: Option<Group>,
    /// The peer's SPI: what we send carries it.
    pub peer_spi: ChildSpi,
    chosen: Proposal,
}

/// An answer that does not pick from what we offered (RFC 7296 §2.7, §3.3.6).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// Not one proposal.
    #[error("the peer answered with {got} proposals, expected the one it has chosen")]
    Count {
        /// How many.
        got: usize,
    },
    /// A number or protocol that was not offered.
    #[error("the peer chose proposal {number} for {protocol}, which was not offered")]
    NotOffered {
        /// Its number.
        number: u8,
        /// Its protocol.
        protocol: ProtocolId,
    },
    /// A transform that was not offered, or not one of each type that was.
    #[error("the peer chose {got} for {kind}, expected one of {offered}")]
    Transform {
        /// Such as "key exchange".
        kind: &'static str,
        /// What it chose.
        got: String,
        /// What was offered.
        offered: String,
    },
    /// An SPI of the wrong length, or zero.
    #[error("the peer's answer has no usable SPI")]
    Spi,
}

/// What we offer and accept when nothing is configured: modern algorithms alone.
pub fn default_ike() -> Vec<IkeProposal> {
    IkeProposal::defaults()
}

/// What we offer and accept when nothing is configured: modern algorithms alone. A key exchange of
/// its own for each new Child SA is wanted but not demanded, because many peers are set up without.
/// First comes what is fast here: see [`cygnet_crypto::suite::aes_is_fast`].
pub fn default_esp(aes_is_fast: bool) -> Vec<EspProposal> {
    let with_group = EspProposal::defaults(aes_is_fast);
    let mut proposals = with_group.clone();
    proposals.extend(with_group.into_iter().map(|proposal| EspProposal {
        group: Vec::new(),
        ..proposal
    }));
    proposals
}

/// The SA payload that offers `proposals`; `spi` is [`ProposalSpi::None`] in IKE_SA_INIT, the new
/// SPI when an IKE SA is rekeyed. Combined modes and others come out as proposals of their own
/// (RFC 7296 §3.3).
pub fn offer_ike(proposals: &[IkeProposal], spi: ProposalSpi) -> SaPayload {
    numbered(
        ProtocolId::IKE,
        &spi,
        proposals.iter().flat_map(ike_transforms),
    )
}

/// The SA payload that offers `proposals` for a Child SA with our inbound SPI.
pub fn offer_esp(proposals: &[EspProposal], spi: u32, exchange: ChildExchange) -> SaPayload {
    let spi = ProposalSpi::Child(ChildSpi(spi));
    let transforms = proposals
        .iter()
        .flat_map(|proposal| esp_transforms(proposal, exchange));
    numbered(ProtocolId::ESP, &spi, transforms)
}

/// Chooses from `theirs` what any of `ours`, the proposals of all connections that come into
/// question, allows. `sent` is the method of the KE payload in the message; when the choice has
/// another group, ask for that one with INVALID_KE_PAYLOAD ([`IkeChoice::wrong_group`]).
pub fn select_ike(
    ours: &[&[IkeProposal]],
    theirs: &SaPayload,
    sent: Option<TransformId>,
) -> Result<IkeChoice, Explanation> {
    let ours: Vec<_> = ours
        .iter()
        .flat_map(|set| set.iter())
        .flat_map(ike_transforms)
        .collect();
    selection::select(ProtocolId::IKE, &ours, theirs, sent, |chosen| {
        IkeChoice::new(chosen).ok()
    })
}

/// Chooses from `theirs` what `ours` allows; see [`select_ike`]. In IKE_AUTH, groups are ignored.
pub fn select_esp(
    ours: &[EspProposal],
    theirs: &SaPayload,
    exchange: ChildExchange,
    sent: Option<TransformId>,
) -> Result<EspChoice, Explanation> {
    let ours: Vec<_> = ours
        .iter()
        .flat_map(|proposal| esp_transforms(proposal, exchange))
        .collect();
    let mut theirs = theirs.clone();
    if exchange == ChildExchange::IkeAuth {
        for proposal in &mut theirs.proposals {
            proposal.transforms.retain(|t| t.ty != TransformType::KE);
        }
    }
    selection::select(ProtocolId::ESP, &ours, &theirs, sent, |chosen| {
        EspChoice::new(chosen).ok()
    })
}

/// What the peer chose of `offered`, our own offer.
pub fn accept_ike(offered: &SaPayload, answer: &SaPayload) -> Result<IkeChoice, AnswerError> {
    IkeChoice::new(accepted(offered, answer)?)
}

/// What the peer chose of `offered`, our own offer.
pub fn accept_esp(offered: &SaPayload, answer: &SaPayload) -> Result<EspChoice, AnswerError> {
    EspChoice::new(accepted(offered, answer)?)
}

/// Whether the policy of a peer, once it is known who it is, allows what was chosen before.
pub fn allows_ike(proposals: &[IkeProposal], suite: &IkeSuite) -> bool {
    proposals.iter().any(|proposal| {
        proposal.encryption.contains(&suite.encryption)
            && suite
                .integrity
                .is_none_or(|integrity| proposal.integrity.contains(&integrity))
            && proposal.prf.contains(&suite.prf)
            && proposal.group.contains(&suite.group)
    })
}

/// The group to begin with, unless the peer asked for another: the first of the first proposal.
pub fn first_ike_group(proposals: &[IkeProposal]) -> Option<Group> {
    proposals.iter().find_map(|p| p.group.first()).copied()
}

/// Whether INVALID_KE_PAYLOAD may ask for this group: only for one that was offered, or else
/// anyone on the path could choose (RFC 7296 §1.2).
pub fn offers_ike_group(proposals: &[IkeProposal], group: Group) -> bool {
    proposals.iter().any(|p| p.group.contains(&group))
}

/// The group of CREATE_CHILD_SA to begin with where nothing is known of the peer; `None`: no key
/// exchange.
pub fn first_esp_group(proposals: &[EspProposal]) -> Option<Group> {
    proposals.first().and_then(|p| p.group.first()).copied()
}

/// See [`offers_ike_group`].
pub fn offers_esp_group(proposals: &[EspProposal], group: Group) -> bool {
    proposals.iter().any(|p| p.group.contains(&group))
}

/// An offer in strongSwan's words, for reports: `aes256gcm16-prfsha384-x25519, …`.
pub fn describe(sa: &SaPayload) -> String {
    let proposal = |proposal: &Proposal| {
        let words: Vec<_> = proposal.transforms.iter().map(keyword).collect();
        words.join("-")
    };
    let proposals: Vec<_> = sa.proposals.iter().map(proposal).collect();
    proposals.join(", ")
}

/// Algorithms named of one kind in a [`summary`].
const NAMED: usize = 12;

/// The algorithms of an offer, each once, kind by kind, however they are combined: what a peer knows.
/// Anybody may have sent it: it is short, whatever types there are in it.
pub fn summary(sa: &SaPayload) -> String {
    let mut kinds: Vec<(&str, Vec<String>, bool)> = Vec::new();
    for transform in sa.proposals.iter().flat_map(|p| &p.transforms) {
        let kind = kind(transform.ty);
        let at = kinds.iter().position(|(known, ..)| *known == kind);
        let at = at.unwrap_or_else(|| {
            kinds.push((kind, Vec::new(), false));
            kinds.len() - 1
        });
        let Some((_, known, more)) = kinds.get_mut(at) else {
            continue;
        };
        if *more {
            continue;
        }
        let word = keyword(transform);
        if known.contains(&word) {
            continue;
        }
        if known.len() < NAMED {
            known.push(word);
        } else {
            *more = true;
        }
    }
    let words = kinds.iter().map(|(kind, known, more)| {
        let more = if *more { " and more" } else { "" };
        format!("{kind} {}{more}", list(known))
    });
    words.collect::<Vec<_>>().join("; ")
}

impl IkeChoice {
    /// The SA payload of our response; `spi` as in [`offer_ike`].
    pub fn answer(&self, spi: ProposalSpi) -> SaPayload {
        answer(&self.chosen, spi)
    }

    /// The number of the peer's proposal.
    pub fn number(&self) -> u8 {
        self.chosen.number
    }

    /// The group to ask for with INVALID_KE_PAYLOAD, when the KE payload is of another.
    pub fn wrong_group(&self, sent: TransformId) -> Option<Group> {
        (self.suite.group.to_wire() != sent.0).then_some(self.suite.group)
    }

    fn new(chosen: Proposal) -> Result<Self, AnswerError> {
        let peer_spi = match &chosen.spi {
            ProposalSpi::None => None,
            ProposalSpi::Ike(spi) if !spi.is_zero() => Some(*spi),
            _ => return Err(AnswerError::Spi),
        };
        Ok(Self {
            suite: IkeSuite {
                encryption: encryption(&chosen)?,
                integrity: integrity(&chosen)?,
                prf: one(&chosen, TransformType::PRF, |t| Prf::from_wire(t.id.0))?,
                group: one(&chosen, TransformType::KE, |t| Group::from_wire(t.id.0))?,
            },
            peer_spi,
            chosen,
        })
    }
}

impl EspChoice {
    /// The SA payload of our response, with our inbound SPI.
    pub fn answer(&self, spi: u32) -> SaPayload {
        answer(&self.chosen, ProposalSpi::Child(ChildSpi(spi)))
    }

    /// The number of the peer's proposal.
    pub fn number(&self) -> u8 {
        self.chosen.number
    }

    /// The group to ask for with INVALID_KE_PAYLOAD, when there is to be a key exchange and the KE
    /// payload is absent or of another group.
    pub fn wrong_group(&self, sent: Option<TransformId>) -> Option<Group> {
        self.group
            .filter(|group| sent != Some(TransformId(group.to_wire())))
    }

    fn new(chosen: Proposal) -> Result<Self, AnswerError> {
        // RFC 4303 §2.1: 0 to 255 are reserved.
        let peer_spi = chosen
            .spi
            .child()
            .filter(|spi| spi.0 > 255)
            .ok_or(AnswerError::Spi)?;
        let group = match only(&chosen, TransformType::KE) {
            None => None,
            Some(_) => Some(one(&chosen, TransformType::KE, |t| {
                Group::from_wire(t.id.0)
            })?),
        };
        Ok(Self {
            suite: EspSuite {
                encryption: encryption(&chosen)?,
                integrity: integrity(&chosen)?,
                esn: one(&chosen, TransformType::SN, |t| match t.id {
                    TransformId::SN_32_BIT => Some(false),
                    TransformId::SN_64_BIT => Some(true),
                    _ => None,
                })?,
            },
            group,
            peer_spi,
            chosen,
        })
    }
}

/// Our transforms for IKE SAs: combined modes, then the others, as far as there are any.
fn ike_transforms(proposal: &IkeProposal) -> Vec<Vec<Transform>> {
    let mut shared: Vec<_> = proposal
        .prf
        .iter()
        .map(|prf| Transform::new(TransformType::PRF, TransformId(prf.to_wire())))
        .collect();
    shared.extend(group_transforms(&proposal.group));
    by_mode(&proposal.encryption, &proposal.integrity, &shared)
}

/// Our transforms for Child SAs.
fn esp_transforms(proposal: &EspProposal, exchange: ChildExchange) -> Vec<Vec<Transform>> {
    let mut shared = match exchange {
        ChildExchange::IkeAuth => Vec::new(),
        ChildExchange::CreateChildSa => group_transforms(&proposal.group),
    };
    shared.extend(proposal.esn.iter().map(|esn| {
        let id = if *esn {
            TransformId::SN_64_BIT
        } else {
            TransformId::SN_32_BIT
        };
        Transform::new(TransformType::SN, id)
    }));
    by_mode(&proposal.encryption, &proposal.integrity, &shared)
}

fn group_transforms(groups: &[Group]) -> Vec<Transform> {
    groups
        .iter()
        .map(|group| Transform::new(TransformType::KE, TransformId(group.to_wire())))
        .collect()
}

fn by_mode(
    encryption: &[Encryption],
    integrity: &[Integrity],
    shared: &[Transform],
) -> Vec<Vec<Transform>> {
    let of_mode = |aead: bool| {
        let ciphers = encryption.iter().filter(move |e| e.is_aead() == aead);
        ciphers.map(|cipher| match cipher.to_wire() {
            (id, Some(bits)) => {
                Transform::with_key_length(TransformType::ENCR, TransformId(id), bits)
            }
            (id, None) => Transform::new(TransformType::ENCR, TransformId(id)),
        })
    };
    let integrity = integrity
        .iter()
        .map(|i| Transform::new(TransformType::INTEG, TransformId(i.to_wire())));
    let aead: Vec<_> = of_mode(true).collect();
    let cbc: Vec<_> = of_mode(false).collect();
    let mut proposals = Vec::new();
    if !aead.is_empty() {
        proposals.push([aead.as_slice(), shared].concat());
    }
    if !cbc.is_empty() {
        proposals.push(
            cbc.into_iter()
                .chain(integrity)
                .chain(shared.to_vec())
                .collect(),
        );
    }
    proposals
}

fn numbered(
    protocol: ProtocolId,
    spi: &ProposalSpi,
    transforms: impl IntoIterator<Item = Vec<Transform>>,
) -> SaPayload {
    let mut distinct: Vec<Vec<Transform>> = Vec::new();
    for transforms in transforms {
        // In IKE_AUTH, proposals that differ in their groups are the same.
        if !distinct.contains(&transforms) {
            distinct.push(transforms);
        }
    }
    let proposals = (1..=u8::MAX)
        .zip(distinct)
        .map(|(number, transforms)| Proposal {
            number,
            protocol,
            spi: spi.clone(),
            transforms,
        })
        .collect();
    SaPayload { proposals }
}

fn answer(chosen: &Proposal, spi: ProposalSpi) -> SaPayload {
    SaPayload {
        proposals: vec![Proposal {
            spi,
            ..chosen.clone()
        }],
    }
}

/// The one proposal of `answer`, if it picks from `offered` as RFC 7296 §3.3.6 says.
fn accepted(offered: &SaPayload, answer: &SaPayload) -> Result<Proposal, AnswerError> {
    let [chosen] = answer.proposals.as_slice() else {
        return Err(AnswerError::Count {
            got: answer.proposals.len(),
        });
    };
    let offer = offered
        .proposals
        .iter()
        .find(|offer| offer.number == chosen.number && offer.protocol == chosen.protocol)
        .ok_or(AnswerError::NotOffered {
            number: chosen.number,
            protocol: chosen.protocol,
        })?;
    let mut types: Vec<_> = offer.transforms.iter().map(|t| t.ty).collect();
    types.extend(chosen.transforms.iter().map(|t| t.ty));
    types.sort_unstable();
    types.dedup();
    for ty in types {
        let choices: Vec<_> = chosen.transforms_of(ty).collect();
        let right = match choices.as_slice() {
            // "None" said aloud of a type that was not offered says nothing.
            [one] if offer.transforms_of(ty).next().is_none() => is_none(one),
            [one] => offer.transforms_of(ty).any(|t| t == *one),
            _ => false,
        };
        if !right {
            return Err(AnswerError::Transform {
                kind: kind(ty),
                got: list(&choices.into_iter().map(keyword).collect::<Vec<_>>()),
                offered: list(&offer.transforms_of(ty).map(keyword).collect::<Vec<_>>()),
            });
        }
    }
    Ok(chosen.clone())
}

/// NONE, of the types that have it: integrity, key exchange, additional key exchanges.
fn is_none(transform: &Transform) -> bool {
    transform.id.0 == 0
        && (transform.ty == TransformType::INTEG
            || transform.ty == TransformType::KE
            || transform.ty.is_additional_ke())
}

/// The transform of a type in a choice; `None` where it says NONE.
fn only(chosen: &Proposal, ty: TransformType) -> Option<&Transform> {
    chosen.transforms_of(ty).find(|t| !is_none(t))
}

fn one<T>(
    chosen: &Proposal,
    ty: TransformType,
    known: impl Fn(&Transform) -> Option<T>,
) -> Result<T, AnswerError> {
    let transform = only(chosen, ty);
    transform
        .and_then(known)
        .ok_or_else(|| AnswerError::Transform {
            kind: kind(ty),
            got: transform.map_or_else(|| "none".into(), keyword),
            offered: "those this side knows".into(),
        })
}

fn encryption(chosen: &Proposal) -> Result<Encryption, AnswerError> {
    one(chosen, TransformType::ENCR, |t| {
        Encryption::from_wire(t.id.0, t.key_length())
    })
}

/// The integrity algorithm, exactly where the cipher needs one.
fn integrity(chosen: &Proposal) -> Result<Option<Integrity>, AnswerError> {
    if encryption(chosen)?.is_aead() && only(chosen, TransformType::INTEG).is_none() {
        return Ok(None);
    }
    if encryption(chosen)?.is_aead() {
        return one(chosen, TransformType::INTEG, |_| None);
    }
    one(chosen, TransformType::INTEG, |t| {
        Integrity::from_wire(t.id.0)
    })
    .map(Some)
}

fn keyword(transform: &Transform) -> String {
    transform_keyword(transform.ty.0, transform.id.0, transform.key_length()).into_owned()
}

fn kind(ty: TransformType) -> &'static str {
    match ty {
        TransformType::ENCR => "encryption",
        TransformType::PRF => "pseudorandom function",
        TransformType::INTEG => "integrity",
        TransformType::KE => "key exchange",
        TransformType::SN => "sequence numbers",
        ty if ty.is_additional_ke() => "additional key exchange",
        _ => "a transform type unknown to this side",
    }
}

fn list(words: &[String]) -> String {
    match words {
        [] => "none".into(),
        words => words.join(", "),
    }
}

#[cfg(test)]
mod tests;
