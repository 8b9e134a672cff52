//! Who gives way when both ends rekey the same SA at the same time (RFC 7296 §2.8.1, §2.8.2).

/// The two nonces of one CREATE_CHILD_SA exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nonces {
    pub(crate) initiator: Vec<u8>,
    pub(crate) responder: Vec<u8>,
}

impl Nonces {
    /// RFC 7296 §2.8.1: octet by octet; a nonce that ends first is the lower one. That is how
    /// slices compare.
    fn lowest(&self) -> &[u8] {
        self.initiator.as_slice().min(&self.responder)
    }

    /// Whether the SA made in this exchange stays when `theirs` made another: the one with the
    /// lowest of the four nonces goes.
    pub(crate) fn wins_against(&self, theirs: &Nonces) -> bool {
        self.lowest() > theirs.lowest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonces(initiator: &[u8], responder: &[u8]) -> Nonces {
        Nonces {
            initiator: initiator.to_vec(),
            responder: responder.to_vec(),
        }
    }

    #[test]
    fn exchange_with_the_lowest_of_four_nonces_loses() {
        let a = nonces(&[1, 9], &[7, 7]);
        let b = nonces(&[2, 0], &[3, 0]);
        assert!(b.wins_against(&a));
        assert!(!a.wins_against(&b));
    }

    #[test]
    fn nonce_that_ends_first_is_lower() {
        let a = nonces(&[1, 2], &[9]);
        let b = nonces(&[1, 2, 0], &[9]);
        assert!(b.wins_against(&a));
        assert!(!a.wins_against(&b));
    }
}
