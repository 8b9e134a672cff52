//! Reasons of revocation that occur here, as numbers (RFC 5280 §5.3.1).

use cygnet_pki::authority::RevocationReason;

pub(crate) const SUPERSEDED: i64 = 4;
pub(crate) const CEASED: i64 = 5;
pub(crate) const HOLD: i64 = 6;

pub(crate) fn of(number: i64) -> RevocationReason {
    match number {
        SUPERSEDED => RevocationReason::Superseded,
        CEASED => RevocationReason::CessationOfOperation,
        HOLD => RevocationReason::CertificateHold,
        _ => RevocationReason::Unspecified,
    }
}
