//! Which connection a peer that called is for: nobody knows before it has said who it is.

use cygnet_crypto::suite::IkeSuite;
use cygnet_wire::auth::AuthMethod;
use cygnet_wire::id::{IdPayload, Identification};

use crate::event::Reason;
use crate::identity;
use crate::policy::{Connection, LocalAuth, RemoteAuth};
use crate::proposal;
use crate::sa::channel::Channel;
use crate::sa::proof::Claim;

/// Whether the connection may be meant: who we are to be, who the peer says it is, how it proves
/// it, and the algorithms that were chosen before this was known.
pub(crate) fn fits(
    connection: &Connection,
    claim: &Claim,
    wanted: Option<&IdPayload>,
    channel: &Channel,
    suite: &IkeSuite,
) -> Result<(), Reason> {
    let name = &connection.name;
    let peer = identity::display(&claim.id.id);
    if own_identity(connection, channel, wanted).is_none() {
        let wanted = wanted.map(|wanted| identity::display(&wanted.id));
        let own = identity::display(&configured(connection, channel));
        let more = match &connection.local_auth {
            LocalAuth::Certificate { .. } => ", and its certificate says nothing else",
            LocalAuth::Psk(_) | LocalAuth::Eap(_) => "",
        };
        return Err(Reason::NoConnection(format!(
            "the peer {peer} wants to talk to {}, connection {name} is {own}{more}",
            wanted.unwrap_or_default()
        )));
    }
    // Who logs in by EAP says there who it is, and may say anything here.
    let Some(auth) = &claim.auth else {
        if !connection.eap.any() {
            return Err(Reason::PeerAuthentication(format!(
                "the peer {peer} wants to log in by EAP, connection {name} expects a certificate or a \
                 pre-shared key"
            )));
        }
        return allowed(connection, &peer, suite);
    };
    if !connection.remote_identity.matches(&claim.id.id) {
        return Err(Reason::NoConnection(format!(
            "the peer is {peer}, connection {name} expects {}",
            connection.remote_identity
        )));
    }
    let with_psk = auth.method == AuthMethod::SHARED_KEY_MIC;
    match (&connection.remote_auth, with_psk) {
        (RemoteAuth::Psk(_), true) | (RemoteAuth::Certificate { .. }, false) => {}
        (RemoteAuth::Psk(_), false) => {
            return Err(Reason::PeerAuthentication(format!(
                "the peer {peer} proves itself with a certificate, connection {name} expects a \
                 pre-shared key"
            )));
        }
        (RemoteAuth::Certificate { .. }, true) => {
            return Err(Reason::PeerAuthentication(format!(
                "the peer {peer} proves itself with a pre-shared key, connection {name} expects a \
                 certificate"
            )));
        }
    }
    if !with_psk && claim.certificates.is_empty() {
        return Err(Reason::PeerAuthentication(format!(
            "the peer {peer} sent no certificate; set it to send its own"
        )));
    }
    allowed(connection, &peer, suite)
}

fn allowed(connection: &Connection, peer: &str, suite: &IkeSuite) -> Result<(), Reason> {
    if proposal::allows_ike(&connection.ike_proposals, suite) {
        return Ok(());
    }
    let name = &connection.name;
    Err(Reason::NoProposal(format!(
        "{suite} was agreed on with {peer}, connection {name} does not allow it"
    )))
}

/// Who we are to a peer that called `connection` and wants to talk to `wanted`: as configured, or as
/// our certificate has it. `None`: somebody else is meant.
pub(crate) fn own_identity(
    connection: &Connection,
    channel: &Channel,
    wanted: Option<&IdPayload>,
) -> Option<Identification> {
    let own = configured(connection, channel);
    let wanted = match wanted {
        None => return Some(own),
        Some(wanted) if identity::same(&own, &wanted.id) => return Some(own),
        Some(wanted) => &wanted.id,
    };
    match &connection.local_auth {
        LocalAuth::Certificate { identities, .. } => {
            let proven = identities.iter().find(|id| identity::same(id, wanted));
            proven.cloned()
        }
        // A shared key says nothing about who has it.
        LocalAuth::Psk(_) | LocalAuth::Eap(_) => None,
    }
}

/// Whether the peer names us as `connection` does, and not only as our certificate does.
pub(crate) fn is_named(connection: &Connection, channel: &Channel, wanted: &IdPayload) -> bool {
    identity::same(&configured(connection, channel), &wanted.id)
}

fn configured(connection: &Connection, channel: &Channel) -> Identification {
    let outer = || Identification::address(channel.path.local.ip());
    connection.local_identity.clone().unwrap_or_else(outer)
}
