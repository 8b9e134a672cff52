//! Answers what a core asks, as a supervisor would: with keys, anchors and a pool.

use std::net::IpAddr;
use std::sync::OnceLock;

use cygnet_crypto::psk::psk_auth;
use cygnet_crypto::signature::SigningKey;
use cygnet_ike::io::{Answer, Ask, ChainError, Lease, Path, PeerKey, Transport};
use cygnet_ike::time::UtcTime;

use crate::datapath::Datapath;
use crate::scenario::{LENT, Scenario, Side, certificate, identity};

/// The date during every run.
pub(crate) const TODAY: UtcTime = UtcTime(1_800_000_000);

/// `own` is the address that `side` has.
pub(crate) fn answer(
    scenario: &Scenario,
    (side, own): (Side, IpAddr),
    datapath: &mut Datapath,
    ask: Ask,
) -> Answer {
    let path = |local, remote| Path {
        transport: Transport::Udp,
        local,
        remote,
        interface: 0,
    };
    match ask {
        Ask::Resolve { server, .. } => {
            let way = scenario.way_out(side, own, server);
            let way = way.map(|(local, remote)| path(local, remote));
            Answer::Paths(Ok(way.into_iter().collect()))
        }
        Ask::Ways { from, to, .. } => {
            let ways = to
                .into_iter()
                .map(|remote| path((own, from).into(), remote));
            Answer::Paths(Ok(ways.collect()))
        }
        Ask::Sign { scheme, octets, .. } => {
            let signed = key(side).and_then(|key| {
                let signed = key.sign(scheme, &octets);
                signed.map_err(|error| error.to_string())
            });
            Answer::Signed(signed)
        }
        Ask::PskAuth { prf, octets, .. } => {
            Answer::Mac(Ok(psk_auth(prf, b"correct horse battery staple", &octets)))
        }
        Ask::ValidateChain {
            certificates,
            identity: claimed,
            ..
        } => {
            let peer = side.other();
            let is_peer = certificates.first() == Some(&certificate(peer));
            let verdict = match key(peer) {
                Ok(key) if is_peer && claimed == identity(peer) => Ok(PeerKey {
                    spki: key.public_key_spki().to_vec(),
                    subject: peer.to_string(),
                    not_after: UtcTime(TODAY.0 + 86_400),
                }),
                Ok(_) => Err(ChainError::Invalid(
                    "that is not the peer's certificate".to_owned(),
                )),
                Err(error) => Err(ChainError::Unavailable(error)),
            };
            Answer::Chain(verdict)
        }
        Ask::Eap { .. } => Answer::Eap(Err("nobody logs in by EAP here".to_owned())),
        Ask::Lease { ike_sa, .. } => {
            datapath.lent.insert(ike_sa);
            Answer::Leased(Ok(Lease {
                addresses: vec![LENT.into()],
                ..Lease::default()
            }))
        }
    }
}

/// Ed25519, whose signatures repeat as everything else does.
fn key(side: Side) -> Result<&'static SigningKey, String> {
    static KEYS: OnceLock<[Result<SigningKey, String>; 2]> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        Side::BOTH.map(|side| {
            // RFC 8410 §7: a private key is an OCTET STRING in an OCTET STRING.
            let mut der = vec![
                0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
            ];
            der.extend([side.index() as u8 + 1; 32]);
            SigningKey::from_der(&der).map_err(|error| error.to_string())
        })
    });
    let [a, b] = keys;
    let key = if side == Side::A { a } else { b };
    key.as_ref().map_err(Clone::clone)
}
