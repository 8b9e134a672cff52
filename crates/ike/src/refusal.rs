//! Sentences for what a peer refuses: its notification, what that usually means, what to do.

use cygnet_wire::notify::{NotifyPayload, NotifyType};

use crate::event::Reason;

/// Why an exchange failed, by the peer's error notification.
pub(crate) fn reason(notify: &NotifyPayload<'_>, offered: impl FnOnce() -> String) -> Reason {
    match notify.ty {
        NotifyType::NO_PROPOSAL_CHOSEN => Reason::NoProposal(format!(
            "the peer accepts none of our proposals (NO_PROPOSAL_CHOSEN); offered was {}; its log \
             says what it would accept",
            offered()
        )),
        NotifyType::TS_UNACCEPTABLE => Reason::NoSelectors(format!(
            "the peer accepts none of our traffic selectors (TS_UNACCEPTABLE); offered was {}; \
             compare with what the peer is configured for",
            offered()
        )),
        NotifyType::AUTHENTICATION_FAILED => Reason::AuthenticationRefused(
            "the peer refused our proof of identity (AUTHENTICATION_FAILED): it has no connection \
             for our identity, or does not accept our certificate or pre-shared key; its log says \
             which"
                .to_owned(),
        ),
        NotifyType::INTERNAL_ADDRESS_FAILURE => Reason::PeerRefused(
            "the peer has no virtual address for us (INTERNAL_ADDRESS_FAILURE): its pool is \
             exhausted, or it has none for this family"
                .to_owned(),
        ),
        NotifyType::FAILED_CP_REQUIRED => Reason::PeerRefused(
            "the peer wants us to ask for a virtual address (FAILED_CP_REQUIRED)".to_owned(),
        ),
        NotifyType::NO_ADDITIONAL_SAS => Reason::PeerRefused(
            "the peer makes no more Child SAs on this IKE SA (NO_ADDITIONAL_SAS)".to_owned(),
        ),
        NotifyType::SINGLE_PAIR_REQUIRED => Reason::NoSelectors(
            "the peer makes a Child SA for a single pair of addresses only \
             (SINGLE_PAIR_REQUIRED)"
                .to_owned(),
        ),
        NotifyType::INVALID_SYNTAX => {
            Reason::PeerRefused("the peer could not read our message (INVALID_SYNTAX)".to_owned())
        }
        NotifyType::TEMPORARY_FAILURE => {
            Reason::PeerRefused("the peer is busy (TEMPORARY_FAILURE)".to_owned())
        }
        ty => Reason::PeerRefused(format!("the peer refused with {ty}")),
    }
}
