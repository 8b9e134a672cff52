//! The peer's side: says who it is, proves it, and has the server prove itself, too.

use cygnet_crypto::{Random, Secret};
use cygnet_wire::eap::{EapCode, EapPayload, EapType};

use crate::mschapv2::{self, CHALLENGE_LEN, Challenges, Message, Responded};
use crate::tls::{Handshake, Turn};
use crate::{Login, Proof};

/// What happens next; [`Challenges`] are answered with [`Peer::responded`].
pub type Step = crate::Step<Challenges>;

/// One conversation with a server.
pub struct Peer {
    /// As configured, perhaps with a domain.
    user: String,
    log_in: LogIn,
    state: State,
}

/// How it logs in.
pub enum LogIn {
    /// By EAP-MSCHAPv2.
    Password,
    /// By EAP-TLS.
    Tls(Box<Handshake>),
}

impl LogIn {
    fn method(&self) -> EapType {
        match self {
            Self::Password => EapType::MSCHAPV2,
            Self::Tls(_) => EapType::TLS,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Password => "user name and password (EAP-MSCHAPv2)",
            Self::Tls(_) => "certificate (EAP-TLS)",
        }
    }
}

enum State {
    /// Nothing is proven.
    Begun,
    /// The answer to these is being made; identifiers of EAP's and the method's request.
    Asked {
        identifier: u8,
        id: u8,
        peer_challenge: [u8; CHALLENGE_LEN],
    },
    /// The server is to prove itself by this.
    Sent {
        expected: [u8; 20],
        msk: Secret,
    },
    /// It has.
    Proven(Secret),
    /// It said why it does not let us in.
    Refused(String),
    Over,
}

impl Peer {
    /// A conversation as this user.
    pub fn new(user: &str, log_in: LogIn) -> Self {
        Self {
            user: user.to_owned(),
            log_in,
            state: State::Begun,
        }
    }

    /// What the server sent.
    pub fn handle(&mut self, packet: &EapPayload<'_>, random: &mut dyn Random) -> Step {
        match (packet.code, packet.ty) {
            (EapCode::SUCCESS, _) => match std::mem::replace(&mut self.state, State::Over) {
                State::Proven(msk) => Step::Success {
                    packet: None,
                    login: Login {
                        proof: Proof::Password(self.user.clone()),
                        msk,
                    },
                },
                _ => self.shaken_hands(),
            },
            (EapCode::FAILURE, _) => {
                let tls = match &self.log_in {
                    LogIn::Tls(handshake) => handshake.failure().map(str::to_owned),
                    LogIn::Password => None,
                };
                match (std::mem::replace(&mut self.state, State::Over), tls) {
                    (State::Refused(why), _) | (_, Some(why)) => fail(&why),
                    _ => fail(
                        "the server ended the log-in (EAP Failure) without saying why; its log may tell",
                    ),
                }
            }
            (EapCode::REQUEST, Some(EapType::IDENTITY)) => {
                let user = self.user.clone().into_bytes();
                respond(packet, EapType::IDENTITY, user)
            }
            // RFC 3748 §5.2: shown to people, if there are any, and always answered.
            (EapCode::REQUEST, Some(EapType::NOTIFICATION)) => {
                respond(packet, EapType::NOTIFICATION, Vec::new())
            }
            (EapCode::REQUEST, Some(ty)) if ty != self.log_in.method() => {
                let own = self.log_in.name();
                self.state = State::Refused(format!(
                    "the server wants {ty}, and this tunnel logs in by {own}"
                ));
                // RFC 3748 §5.3.1: what we would rather do.
                respond(packet, EapType::NAK, vec![self.log_in.method().0])
            }
            (EapCode::REQUEST, Some(EapType::TLS)) => self.shake_hands(packet),
            (EapCode::REQUEST, Some(_)) => match Message::parse(&packet.data) {
                Some(message) => self.handle_message(packet, message, random),
                None => fail("the server's EAP-MSCHAPv2 message is malformed"),
            },
            _ => fail("the server sent no EAP request"),
        }
    }

    fn shake_hands(&mut self, packet: &EapPayload<'_>) -> Step {
        let LogIn::Tls(handshake) = &mut self.log_in else {
            return fail("the server sent TLS out of turn");
        };
        // What was refused before was another method.
        self.state = State::Begun;
        match handshake.handle(&packet.data) {
            Turn::Send(data) => respond(packet, EapType::TLS, data),
            Turn::Done => fail("the server goes on after the end of the TLS handshake"),
            Turn::Failed(why) => fail(&why),
        }
    }

    /// The server says that we are in.
    fn shaken_hands(&self) -> Step {
        let LogIn::Tls(handshake) = &self.log_in else {
            return fail("the server lets us in without having proven that it knows the password");
        };
        if !handshake.is_done() {
            return fail(
                "the server lets us in without having proven that it is the one we called",
            );
        }
        match handshake.msk() {
            Ok(msk) => Step::Success {
                packet: None,
                login: Login {
                    proof: Proof::Certificates(handshake.certificates()),
                    msk,
                },
            },
            Err(why) => fail(&why),
        }
    }

    fn handle_message(
        &mut self,
        packet: &EapPayload<'_>,
        message: Message,
        random: &mut dyn Random,
    ) -> Step {
        match (std::mem::replace(&mut self.state, State::Over), message) {
            // Refused: it was another method before, which we did not want.
            (State::Begun | State::Refused(_), Message::Challenge { id, challenge, .. }) => {
                let mut peer_challenge = [0; CHALLENGE_LEN];
                random.fill(&mut peer_challenge);
                self.state = State::Asked {
                    identifier: packet.identifier,
                    id,
                    peer_challenge,
                };
                Step::Ask(Challenges {
                    user: mschapv2::without_domain(&self.user).to_owned(),
                    challenges: [challenge, peer_challenge],
                })
            }
            (State::Sent { expected, msk }, Message::Success { text, .. }) => {
                if !proves(&text, &expected) {
                    return fail(
                        "the server could not prove that it knows our password: it is not the one that it claims to be",
                    );
                }
                self.state = State::Proven(msk);
                respond(packet, EapType::MSCHAPV2, Message::SuccessAck.emit())
            }
            (State::Sent { .. }, Message::Failure { text, .. }) => {
                self.state = State::Refused(refusal(&text));
                respond(packet, EapType::MSCHAPV2, Message::FailureAck.emit())
            }
            _ => fail("the server sent an EAP-MSCHAPv2 message out of turn"),
        }
    }

    /// The answer to [`Step::Ask`].
    pub fn responded(&mut self, responded: Responded) -> Step {
        let State::Asked {
            identifier,
            id,
            peer_challenge,
        } = std::mem::replace(&mut self.state, State::Over)
        else {
            return fail("an answer came to a question that was not asked");
        };
        let Responded {
            nt_response,
            authenticator_response,
            msk,
        } = responded;
        self.state = State::Sent {
            expected: authenticator_response,
            msk,
        };
        let message = Message::Response {
            id,
            peer_challenge,
            nt_response,
            name: self.user.clone().into_bytes(),
        };
        Step::Send(EapPayload::new(
            EapCode::RESPONSE,
            identifier,
            EapType::MSCHAPV2,
            message.emit(),
        ))
    }
}

fn respond(to: &EapPayload<'_>, ty: EapType, data: Vec<u8>) -> Step {
    Step::Send(EapPayload::new(EapCode::RESPONSE, to.identifier, ty, data))
}

fn fail(why: &str) -> Step {
    Step::Failure {
        packet: None,
        why: why.to_owned(),
    }
}

/// `S=` and forty hexadecimal digits (RFC 2759 §5).
fn proves(text: &[u8], expected: &[u8; 20]) -> bool {
    let digit = |octet: u8| char::from(octet).to_digit(16);
    let proof = text
        .strip_prefix(b"S=")
        .and_then(|rest| rest.first_chunk::<40>());
    let Some(proof) = proof else {
        return false;
    };
    let (pairs, _) = proof.as_chunks::<2>();
    let octets = pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    // No secret: it was sent over a channel that the server was proven for already.
    octets
        .zip(expected)
        .all(|(octet, expected)| octet == Some(u32::from(*expected)))
}

/// What the server says in its failure, such as `E=691 R=0 C=… V=3 M=…` (RFC 2759 §6).
fn refusal(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let code = text
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("E="));
    let said = match code {
        Some("646") => "logging in is not allowed at this hour",
        Some("647") => "the account is disabled",
        Some("648") => "the password has expired: change it at the server",
        Some("649") => "this user may not log in from outside",
        Some("709") => "the password could not be changed",
        _ => "the user name or the password is wrong",
    };
    match code {
        Some(code) if code.len() <= 10 && code.bytes().all(|b| b.is_ascii_digit()) => {
            format!("the server does not let us in: {said} (error {code})")
        }
        _ => format!("the server does not let us in: {said}"),
    }
}
