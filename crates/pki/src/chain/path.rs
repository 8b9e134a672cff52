//! Path building: depth first over names and signatures, trusted issuers before those the peer sent.
//!
//! What a complete path is worth is not decided here: each one is handed to the judge, and the search goes on when it
//! is refused, so that one expired cross certificate does not hide a good path.

use super::{Certificate, ChainError, MAX_PATH, MAX_SIGNATURES, ValidatedPeer, signature};

/// Signature checks left for this peer.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Budget {
    /// Takes one check; false when none is left.
    pub(super) fn take(&mut self) -> bool {
        let left = self.0.checked_sub(1);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// Finds a path from the end entity to an anchor that `judge` accepts.
///
/// `judge` gets the path, end entity first and anchor last; a path of one is an end entity that is an anchor itself.
pub(super) fn find<'a, 'c: 'a>(
    end_entity: &'a Certificate<'c>,
    sent: &'a [Certificate<'c>],
    anchors: &'a [Certificate<'c>],
    judge: impl FnMut(&[&Certificate<'c>], &mut Budget) -> Result<ValidatedPeer, ChainError>,
) -> Result<ValidatedPeer, ChainError> {
    let mut search = Search {
        sent,
        anchors,
        budget: Budget(MAX_SIGNATURES),
        judge,
        refusal: None,
    };
    let mut path = vec![end_entity];
    let found = if anchors.iter().any(|anchor| anchor.der == end_entity.der) {
        search.conclude(&path)
    } else {
        search.extend(&mut path)
    };
    match (found, search.refusal) {
        (Some(peer), _) => Ok(peer),
        (None, Some((_, error))) => Err(error),
        (None, None) => Err(ChainError::UnknownIssuer {
            subject: end_entity.subject_text(),
            issuer: end_entity.issuer_text(),
        }),
    }
}

/// How much a refusal explains; the first of the highest kind is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// No issuer was at hand.
    DeadEnd,
    /// An issuer was at hand, but the path did not go through it.
    Broken,
    /// A complete path was judged.
    Judged,
}

struct Search<'a, 'c, J> {
    sent: &'a [Certificate<'c>],
    anchors: &'a [Certificate<'c>],
    budget: Budget,
    judge: J,
    refusal: Option<(Weight, ChainError)>,
}

impl<'a, 'c: 'a, J> Search<'a, 'c, J>
where
    J: FnMut(&[&Certificate<'c>], &mut Budget) -> Result<ValidatedPeer, ChainError>,
{
    fn refuse(&mut self, weight: Weight, error: ChainError) {
        if self
            .refusal
            .as_ref()
            .is_none_or(|(known, _)| *known < weight)
        {
            self.refusal = Some((weight, error));
        }
    }

    fn conclude(&mut self, path: &[&'a Certificate<'c>]) -> Option<ValidatedPeer> {
        match (self.judge)(path, &mut self.budget) {
            Ok(peer) => Some(peer),
            Err(error) => {
                self.refuse(Weight::Judged, error);
                None
            }
        }
    }

    /// Tries every issuer of the path's last certificate; recursion is bounded by [`MAX_PATH`].
    fn extend(&mut self, path: &mut Vec<&'a Certificate<'c>>) -> Option<ValidatedPeer> {
        let (&end_entity, &last) = (path.first()?, path.last()?);
        let mut again = None;
        let mut dead_end = true;
        for (issuer, trusted) in self.issuers(last) {
            let known =
                |it: &&&Certificate<'c>| it.subject == issuer.subject && it.spki() == issuer.spki();
            // A trusted key that was also sent in another certificate ends the path, so it is no loop.
            if let Some(known) = path.iter().find(known).filter(|_| !trusted) {
                again = Some(*known);
                continue;
            }
            dead_end = false;
            if path.len() == MAX_PATH {
                self.refuse(
                    Weight::Broken,
                    ChainError::TooLong {
                        subject: end_entity.subject_text(),
                        limit: MAX_PATH,
                    },
                );
                return None;
            }
            if !self.budget.take() {
                self.refuse(
                    Weight::Broken,
                    ChainError::TooComplex {
                        subject: end_entity.subject_text(),
                        limit: MAX_SIGNATURES,
                    },
                );
                return None;
            }
            if let Err(error) = signature::check_certificate(last, issuer) {
                self.refuse(Weight::Broken, error);
                continue;
            }
            path.push(issuer);
            let found = match trusted {
                true => self.conclude(path),
                false => self.extend(path),
            };
            path.pop();
            if found.is_some() {
                return found;
            }
        }
        if dead_end {
            let (weight, error) = match again {
                Some(at) if !std::ptr::eq(at, last) => (
                    Weight::Broken,
                    ChainError::Loop {
                        subject: end_entity.subject_text(),
                        at: at.subject_text(),
                    },
                ),
                _ if last.is_self_issued() => (
                    Weight::DeadEnd,
                    ChainError::SelfSigned {
                        subject: last.subject_text(),
                    },
                ),
                _ => (
                    Weight::DeadEnd,
                    ChainError::UnknownIssuer {
                        subject: last.subject_text(),
                        issuer: last.issuer_text(),
                    },
                ),
            };
            self.refuse(weight, error);
        }
        None
    }

    /// Certificates whose subject is the issuer's name, best first: trusted before sent, and those whose key identifier
    /// fits (RFC 5280 §4.2.1.1) before the others.
    fn issuers(&self, of: &Certificate<'c>) -> Vec<(&'a Certificate<'c>, bool)> {
        let trusted = self.anchors.iter().map(|it| (it, true));
        let is_anchor = |der| self.anchors.iter().any(|it| it.der == der);
        let sent = self.sent.iter().filter(|it| !is_anchor(it.der));
        let mut found: Vec<_> = trusted
            .chain(sent.map(|it| (it, false)))
            .filter(|(it, _)| it.subject == of.issuer)
            .collect();
        let key = &of.extensions.authority_key_id;
        found.sort_by_key(|(it, _)| key.is_some() && it.extensions.subject_key_id != *key);
        found
    }
}
