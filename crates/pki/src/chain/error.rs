//! Why a chain was refused: one line each, naming the certificate, what is wrong with it, and what to do.

/// Why [`validate_chain`](super::validate_chain) refused a peer's certificate.
///
/// Subjects and issuers are distinguished names as text, safe to log: control characters are escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// UTC is unknown, so no validity period can be judged.
    #[error(
        "the clock is not set, so the validity of certificate {subject} cannot be judged; \
         wait for time synchronisation, or set the clock"
    )]
    ClockNotSet {
        /// The end entity.
        subject: String,
    },
    /// The bytes are no X.509 certificate, or one of its extensions cannot be decoded.
    #[error("certificate {subject} is malformed: {what}; have its issuer issue it again")]
    Malformed {
        /// The subject where it could be read, else `<unreadable>`.
        subject: String,
        /// What was expected and what came.
        what: String,
    },
    /// `notAfter` has passed.
    #[error("certificate {subject} expired {on}; {remedy}", remedy = renew(*.authority))]
    Expired {
        /// The certificate's subject.
        subject: String,
        /// Day of expiry, `YYYY-MM-DD` (UTC).
        on: String,
        /// Whether it is an authority's certificate rather than the peer's own.
        authority: bool,
    },
    /// `notBefore` has not come.
    #[error(
        "certificate {subject} is not valid before {from}, and it is {now} here; \
         check this machine's clock, or wait"
    )]
    NotYetValid {
        /// The certificate's subject.
        subject: String,
        /// Start of validity (UTC).
        from: String,
        /// This machine's time (UTC).
        now: String,
    },
    /// No certificate at hand has the issuer's name.
    #[error(
        "certificate {subject} was issued by {issuer}, which is neither trusted here nor sent by the peer; \
         add that authority's certificate to `ca`, or have the peer send its intermediate certificates"
    )]
    UnknownIssuer {
        /// The certificate at which the path ends.
        subject: String,
        /// The issuer it names.
        issuer: String,
    },
    /// The path ends in a self-signed certificate that is not trusted here.
    #[error(
        "certificate {subject} is self-signed and not trusted here; \
         add it to `ca` if it is the right authority, or give the peer a certificate of a trusted one"
    )]
    SelfSigned {
        /// The self-signed certificate's subject.
        subject: String,
    },
    /// An authority of the right name did not sign this certificate.
    #[error(
        "certificate {subject} does not carry a valid signature of {issuer}; \
         the authority's key differs from the one trusted here, or the certificate was altered: issue it again"
    )]
    BadSignature {
        /// The certificate whose signature failed.
        subject: String,
        /// The authority it names.
        issuer: String,
    },
    /// The signature algorithm or the issuer's key is unknown or too weak.
    #[error(
        "certificate {subject} is signed with {algorithm}, which is not accepted; \
         issue it again with ECDSA, Ed25519, or RSA of 2048 bits or more, and SHA-256 or stronger"
    )]
    UnsupportedSignature {
        /// The certificate's subject.
        subject: String,
        /// The algorithm, by name where known, else by object identifier.
        algorithm: String,
    },
    /// A certificate without CA rights issued another one.
    #[error(
        "certificate {subject} issued {issued} but is no authority (basicConstraints CA is not set); \
         issue {issued} with a real authority"
    )]
    NotAnAuthority {
        /// The certificate that is no authority.
        subject: String,
        /// The certificate below it.
        issued: String,
    },
    /// More authorities lie below this one than its path length allows.
    #[error(
        "authority {subject} allows {allowed} further authorities below it, this chain has {found}; \
         issue the peer's certificate higher up, or the authority's with a larger path length"
    )]
    PathLength {
        /// The authority with the constraint.
        subject: String,
        /// Its `pathLenConstraint`.
        allowed: u32,
        /// How many authorities, not counting self-issued ones, lie below.
        found: u32,
    },
    /// No anchor within [`MAX_PATH`](super::MAX_PATH) certificates.
    #[error(
        "the chain of certificate {subject} is longer than {limit} certificates; use fewer intermediate authorities"
    )]
    TooLong {
        /// The end entity.
        subject: String,
        /// The limit.
        limit: usize,
    },
    /// The peer sent more certificates, or more candidates of one name, than are looked at.
    #[error(
        "the peer sent so many certificates that no path from {subject} was found within {limit} signature checks; \
         have it send only its own certificate and its intermediates"
    )]
    TooComplex {
        /// The end entity.
        subject: String,
        /// The limit.
        limit: usize,
    },
    /// The issuers sent form a circle.
    #[error(
        "the issuers of certificate {subject} form a loop at {at} and never reach a trusted authority; \
         have the peer send its intermediate certificates only, and add their authority to `ca`"
    )]
    Loop {
        /// The end entity.
        subject: String,
        /// The certificate that occurs again.
        at: String,
    },
    /// keyUsage forbids what the certificate is used for.
    #[error(
        "certificate {subject} may not be used for this: its keyUsage lacks {needed}; issue it again with {needed}"
    )]
    KeyUsage {
        /// The certificate's subject.
        subject: String,
        /// The missing usage.
        needed: &'static str,
    },
    /// extendedKeyUsage leaves no purpose that fits.
    #[error(
        "certificate {subject} may not be used for this: its extendedKeyUsage allows {found}; \
         expected one of {needed}"
    )]
    ExtendedKeyUsage {
        /// The certificate at which no purpose was left.
        subject: String,
        /// The purposes it allows.
        found: String,
        /// The purposes that would do.
        needed: String,
    },
    /// A critical extension this program does not process (RFC 5280 §4.2).
    #[error(
        "certificate {subject} has the critical extension {oid}, which is not understood here; \
         issue it again without it, or not critical"
    )]
    UnknownCriticalExtension {
        /// The certificate's subject.
        subject: String,
        /// Object identifier of the extension.
        oid: String,
    },
    /// A name outside what an authority above may certify.
    #[error(
        "certificate {subject} contains {name}, which the name constraints of authority {authority} {verb}; \
         issue it again with a name the authority may certify",
        verb = if *.excluded { "exclude" } else { "do not permit" }
    )]
    NameConstraint {
        /// The certificate's subject.
        subject: String,
        /// The offending name, such as `DNS:evil.example`.
        name: String,
        /// The authority whose constraint it violates.
        authority: String,
        /// Whether it lies in an excluded subtree, else outside the permitted ones.
        excluded: bool,
    },
    /// A constraint on a kind of name this program cannot compare.
    #[error(
        "certificate {subject} contains {name}, and authority {authority} constrains names of that kind, \
         which cannot be judged here; issue the certificate again without that name"
    )]
    UnsupportedNameConstraint {
        /// The certificate's subject.
        subject: String,
        /// The name.
        name: String,
        /// The authority with the constraint.
        authority: String,
    },
    /// The issuer revoked the certificate.
    #[error(
        "certificate {subject} (serial {serial}) was revoked by its issuer on {on}, reason: {reason}; \
         issue a new one if the peer is still welcome"
    )]
    Revoked {
        /// The certificate's subject.
        subject: String,
        /// Serial number in hexadecimal.
        serial: String,
        /// Day of revocation (UTC).
        on: String,
        /// Reason as in RFC 5280 §5.3.1, such as `keyCompromise`.
        reason: String,
    },
    /// Policy is [`CrlPolicy::Required`](super::CrlPolicy::Required) and no current list covers the certificate.
    #[error(
        "certificate {subject} cannot be checked for revocation: {why}; \
         install a current CRL of {issuer}, or set `crl = \"if-present\"`"
    )]
    NoCurrentCrl {
        /// The certificate's subject.
        subject: String,
        /// Its issuer.
        issuer: String,
        /// What is missing or stale.
        why: String,
    },
}

fn renew(authority: bool) -> &'static str {
    if authority {
        "the authority itself has to be renewed, and then everything below it"
    } else {
        "renew it on the server (the authority that issued it)"
    }
}
