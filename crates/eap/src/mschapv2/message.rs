//! What EAP type 26 carries (draft-kamath-pppext-eap-mschapv2 §2).

use super::{CHALLENGE_LEN, RESPONSE_LEN};
use crate::USER_MAX;

const CHALLENGE: u8 = 1;
const RESPONSE: u8 = 2;
const SUCCESS: u8 = 3;
const FAILURE: u8 = 4;
const CHANGE_PASSWORD: u8 = 7;

/// Octets of a response: the peer's challenge, eight that are reserved, the answer, flags.
const VALUE_LEN: usize = CHALLENGE_LEN + 8 + RESPONSE_LEN + 1;

/// A message of the method.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |    OpCode     |  MS-CHAPv2-ID |  MS-Length                    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Value-Size   |  Value …                       Name …
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
///
/// Success and failure have text in the place of value and name, and their acknowledgement is the OpCode alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// From the server.
    Challenge {
        id: u8,
        challenge: [u8; CHALLENGE_LEN],
        /// Who the server is.
        name: Vec<u8>,
    },
    /// From the peer.
    Response {
        id: u8,
        peer_challenge: [u8; CHALLENGE_LEN],
        nt_response: [u8; RESPONSE_LEN],
        /// Who the user is, perhaps with a domain.
        name: Vec<u8>,
    },
    /// From the server: its proof.
    Success { id: u8, text: Vec<u8> },
    /// The peer has understood.
    SuccessAck,
    /// From the server.
    Failure { id: u8, text: Vec<u8> },
    /// The peer has understood.
    FailureAck,
    /// The peer wants another password.
    ChangePassword,
}

impl Message {
    /// Reads what follows the EAP type; `None`: it is none of these.
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        let (op, rest) = data.split_first()?;
        // The length repeats what EAP's says already; peers are not agreed on how.
        let body = rest
            .first_chunk::<3>()
            .map(|[id, ..]| *id)
            .zip(rest.get(3..));
        match (*op, body) {
            (CHALLENGE, Some((id, body))) => {
                let (challenge, name) = value::<CHALLENGE_LEN>(body)?;
                Some(Self::Challenge {
                    id,
                    challenge: *challenge,
                    name: name.to_vec(),
                })
            }
            (RESPONSE, Some((id, body))) => {
                let (value, name) = value::<VALUE_LEN>(body)?;
                let (peer_challenge, rest) = value.split_first_chunk::<CHALLENGE_LEN>()?;
                let nt_response = rest.get(8..)?.first_chunk::<RESPONSE_LEN>()?;
                Some(Self::Response {
                    id,
                    peer_challenge: *peer_challenge,
                    nt_response: *nt_response,
                    name: name.to_vec(),
                })
            }
            (SUCCESS, Some((id, text))) => Some(Self::Success {
                id,
                text: text.to_vec(),
            }),
            (FAILURE, Some((id, text))) => Some(Self::Failure {
                id,
                text: text.to_vec(),
            }),
            (SUCCESS, None) => Some(Self::SuccessAck),
            (FAILURE, None) => Some(Self::FailureAck),
            (CHANGE_PASSWORD, _) => Some(Self::ChangePassword),
            _ => None,
        }
    }

    /// What follows the EAP type.
    pub(crate) fn emit(&self) -> Vec<u8> {
        match self {
            Self::Challenge {
                id,
                challenge,
                name,
            } => {
                let length = [u8::try_from(CHALLENGE_LEN).unwrap_or(u8::MAX)];
                with_header(CHALLENGE, *id, &[&length, challenge, name])
            }
            Self::Response {
                id,
                peer_challenge,
                nt_response,
                name,
            } => {
                let length = [u8::try_from(VALUE_LEN).unwrap_or(u8::MAX)];
                let parts: [&[u8]; 6] = [&length, peer_challenge, &[0; 8], nt_response, &[0], name];
                with_header(RESPONSE, *id, &parts)
            }
            Self::Success { id, text } => with_header(SUCCESS, *id, &[text]),
            Self::Failure { id, text } => with_header(FAILURE, *id, &[text]),
            Self::SuccessAck => vec![SUCCESS],
            Self::FailureAck => vec![FAILURE],
            Self::ChangePassword => vec![CHANGE_PASSWORD],
        }
    }
}

/// A value of the expected size behind its length, and the name that follows.
fn value<const N: usize>(body: &[u8]) -> Option<(&[u8; N], &[u8])> {
    let (length, rest) = body.split_first()?;
    let (value, name) = rest.split_first_chunk::<N>()?;
    (usize::from(*length) == N && name.len() <= USER_MAX).then_some((value, name))
}

fn with_header(op: u8, id: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u16::try_from(body.len() + 4).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    [&[op, id, high, low], body.as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn octets() {
        let challenge = Message::Challenge {
            id: 7,
            challenge: [0xab; 16],
            name: b"vpn".to_vec(),
        };
        let octets = [&[1, 7, 0, 24, 16][..], &[0xab; 16], b"vpn"].concat();
        assert_eq!(challenge.emit(), octets);
        assert_eq!(Message::parse(&octets), Some(challenge));

        let response = Message::Response {
            id: 7,
            peer_challenge: [1; 16],
            nt_response: [2; 24],
            name: b"alice".to_vec(),
        };
        let octets = [
            &[2, 7, 0, 59, 49][..],
            &[1; 16],
            &[0; 8],
            &[2; 24],
            &[0],
            b"alice",
        ]
        .concat();
        assert_eq!(response.emit(), octets);
        assert_eq!(Message::parse(&octets), Some(response));
    }

    #[test]
    fn what_is_cut_off_or_of_another_size_is_no_message() {
        let response = [&[2, 7, 0, 59, 48][..], &[0; 49]].concat();
        assert_eq!(Message::parse(&response), None);
        let long = [&[1, 7, 0, 24, 16][..], &[0; 16], &[b'a'; USER_MAX + 1]].concat();
        assert_eq!(Message::parse(&long), None);
        assert_eq!(Message::parse(&[]), None);
        assert_eq!(Message::parse(&[9, 0, 0, 4]), None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(data in proptest::collection::vec(any::<u8>(), 0..90)) {
            if let Some(message) = Message::parse(&data) {
                prop_assert_eq!(Message::parse(&message.emit()), Some(message));
            }
        }
    }
}
