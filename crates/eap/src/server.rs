//! The server's side: asks who the peer is, then how it proves that.

use cygnet_crypto::Random;
use cygnet_wire::eap::{EapCode, EapPayload, EapType};

use crate::mschapv2::{self, Attempt, CHALLENGE_LEN, Message, Verified};
use crate::tls::{Handshake, Turn};
use crate::{Login, Proof, USER_MAX};

/// What happens next; an [`Attempt`] is answered with [`Server::verified`].
pub type Step = crate::Step<Attempt>;

/// One conversation with a peer.
pub struct Server {
    /// Who we are, for people.
    name: String,
    /// How peers may log in, for people.
    offered: String,
    /// Those that were not tried yet.
    methods: Methods,
    /// Of the request that is out.
    identifier: u8,
    state: State,
}

/// How peers may log in. Passwords are tried first; a peer that would rather show a certificate says so.
pub struct Methods {
    /// By EAP-MSCHAPv2.
    pub passwords: bool,
    /// By EAP-TLS.
    pub tls: Option<Box<Handshake>>,
}

impl Methods {
    /// By passwords alone.
    pub fn passwords() -> Self {
        Self {
            passwords: true,
            tls: None,
        }
    }

    fn names(&self) -> String {
        match (self.passwords, &self.tls) {
            (true, Some(_)) => "user name and password (EAP-MSCHAPv2) or certificate (EAP-TLS)",
            (true, None) => "user name and password (EAP-MSCHAPv2)",
            (false, _) => "certificate (EAP-TLS)",
        }
        .to_owned()
    }
}

enum State {
    New,
    /// Who is it?
    Identity,
    /// What does it answer to this challenge?
    Challenge([u8; CHALLENGE_LEN]),
    /// Does the answer prove this user's password?
    Attempt(String),
    /// The peer is to acknowledge our proof.
    Success(Login),
    /// The handshake goes on; whether the peer has answered it yet.
    Tls(Box<Handshake>, bool),
    /// The peer is to acknowledge the failure.
    Failure(String),
    Over,
}

impl Server {
    /// A conversation; `name` is what peers show their users.
    pub fn new(name: &str, methods: Methods) -> Self {
        let offered = methods.names();
        Self {
            name: name.chars().take(USER_MAX).filter(char::is_ascii).collect(),
            offered,
            methods,
            identifier: 0,
            state: State::New,
        }
    }

    /// The first request.
    pub fn begin(&mut self, random: &mut dyn Random) -> EapPayload<'static> {
        let mut first = [0];
        random.fill(&mut first);
        [self.identifier] = first;
        self.state = State::Identity;
        self.request(EapType::IDENTITY, Vec::new())
    }

    /// The peer's response.
    pub fn handle(&mut self, response: &EapPayload<'_>, random: &mut dyn Random) -> Step {
        let state = std::mem::replace(&mut self.state, State::Over);
        let Some(ty) = response.ty.filter(|_| response.code == EapCode::RESPONSE) else {
            return self.fail("the peer sent no EAP response");
        };
        if response.identifier != self.identifier {
            return self.fail("the peer answers another EAP request than the one that was sent");
        }
        match (state, ty) {
            (State::Identity, EapType::IDENTITY) => match self.methods.passwords {
                true => self.challenge(random),
                false => self.start_tls(),
            },
            (State::Challenge(_) | State::Tls(_, false), EapType::NAK) => {
                self.refused(&response.data, random)
            }
            (State::Tls(handshake, _), EapType::TLS) => self.shake_hands(handshake, &response.data),
            (state, EapType::MSCHAPV2) => match Message::parse(&response.data) {
                Some(message) => self.handle_message(state, message),
                None => self.fail("the peer's EAP-MSCHAPv2 message is malformed"),
            },
            (_, ty) => self.fail(&format!("the peer answered by {ty} out of turn")),
        }
    }

    fn challenge(&mut self, random: &mut dyn Random) -> Step {
        self.methods.passwords = false;
        let mut challenge = [0; CHALLENGE_LEN];
        random.fill(&mut challenge);
        self.state = State::Challenge(challenge);
        self.identifier = self.identifier.wrapping_add(1);
        let message = Message::Challenge {
            id: self.identifier,
            challenge,
            name: self.name.clone().into_bytes(),
        };
        Step::Send(self.request(EapType::MSCHAPV2, message.emit()))
    }

    fn start_tls(&mut self) -> Step {
        let Some(handshake) = self.methods.tls.take() else {
            return self.fail("there is no method by which anybody could log in");
        };
        self.identifier = self.identifier.wrapping_add(1);
        self.state = State::Tls(handshake, false);
        Step::Send(self.request(EapType::TLS, Handshake::start()))
    }

    fn shake_hands(&mut self, mut handshake: Box<Handshake>, data: &[u8]) -> Step {
        match handshake.handle(data) {
            Turn::Send(data) => {
                self.identifier = self.identifier.wrapping_add(1);
                let packet = self.request(EapType::TLS, data);
                let failure = handshake.failure().map(str::to_owned);
                self.state = State::Tls(handshake, true);
                match failure {
                    Some(why) => Step::Reject { packet, why },
                    None => Step::Send(packet),
                }
            }
            Turn::Done => match handshake.msk() {
                Ok(msk) => Step::Success {
                    packet: Some(self.bare(EapCode::SUCCESS)),
                    login: Login {
                        proof: Proof::Certificates(handshake.certificates()),
                        msk,
                    },
                },
                Err(why) => self.fail(&why),
            },
            Turn::Failed(why) => self.fail(&why),
        }
    }

    fn handle_message(&mut self, state: State, message: Message) -> Step {
        match (state, message) {
            (
                State::Challenge(challenge),
                Message::Response {
                    id,
                    peer_challenge,
                    nt_response,
                    name,
                },
            ) if id == self.identifier => {
                // Octets that are no text are no user's name; what they are told is the same.
                let name = String::from_utf8_lossy(&name);
                let user = mschapv2::without_domain(&name).to_owned();
                self.state = State::Attempt(user.clone());
                Step::Ask(Attempt {
                    user,
                    challenges: [challenge, peer_challenge],
                    nt_response,
                })
            }
            (State::Success(login), Message::SuccessAck | Message::Success { .. }) => {
                Step::Success {
                    packet: Some(self.bare(EapCode::SUCCESS)),
                    login,
                }
            }
            // A peer that does not believe our proof says so by a failure.
            (State::Success(_), Message::FailureAck | Message::Failure { .. }) => {
                self.fail("the device does not accept our proof that we know the password")
            }
            (State::Failure(why), _) => self.fail(&why),
            (_, Message::ChangePassword) => self
                .fail("the device wants to change the password, which is done at the server alone"),
            _ => self.fail("the peer sent an EAP-MSCHAPv2 message out of turn"),
        }
    }

    /// The answer to [`Step::Ask`]; `None`: it is not the user's password, or there is no such user.
    pub fn verified(&mut self, verified: Option<Verified>) -> Step {
        let State::Attempt(user) = std::mem::replace(&mut self.state, State::Over) else {
            return self.fail("an answer came to a question that was not asked");
        };
        let id = self.identifier;
        self.identifier = self.identifier.wrapping_add(1);
        match verified {
            Some(Verified {
                authenticator_response,
                msk,
            }) => {
                let proof = Proof::Password(user);
                self.state = State::Success(Login { proof, msk });
                let proof: String = authenticator_response
                    .iter()
                    .map(|octet| format!("{octet:02X}"))
                    .collect();
                let text = format!("S={proof} M=Welcome").into_bytes();
                let message = Message::Success { id, text };
                Step::Send(self.request(EapType::MSCHAPV2, message.emit()))
            }
            None => {
                let why = format!(
                    "the user name or the password is wrong (user {})",
                    user.escape_debug()
                );
                self.state = State::Failure(why.clone());
                // RFC 2759 §6: 691 is a failed authentication, R=0 allows no other try in this conversation.
                let text = format!(
                    "E=691 R=0 C={} V=3 M=Wrong user or password",
                    "0".repeat(32)
                );
                let text = text.into_bytes();
                let message = Message::Failure { id, text };
                let packet = self.request(EapType::MSCHAPV2, message.emit());
                Step::Reject { packet, why }
            }
        }
    }

    /// The peer does not do what it was asked for (RFC 3748 §5.3.1).
    fn refused(&mut self, wanted: &[u8], random: &mut dyn Random) -> Step {
        if wanted.contains(&EapType::TLS.0) && self.methods.tls.is_some() {
            return self.start_tls();
        }
        if wanted.contains(&EapType::MSCHAPV2.0) && self.methods.passwords {
            return self.challenge(random);
        }
        let wanted: Vec<String> = wanted
            .iter()
            .filter(|ty| **ty != 0)
            .take(8)
            .map(|ty| EapType(*ty).to_string())
            .collect();
        let wanted = match wanted.as_slice() {
            [] => "another method".to_owned(),
            some => some.join(" or "),
        };
        self.fail(&format!(
            "the device wants {wanted}, and this server lets in by {}; set the device to that",
            self.offered
        ))
    }

    fn fail(&mut self, why: &str) -> Step {
        self.state = State::Over;
        Step::Failure {
            packet: Some(self.bare(EapCode::FAILURE)),
            why: why.to_owned(),
        }
    }

    fn request(&self, ty: EapType, data: Vec<u8>) -> EapPayload<'static> {
        EapPayload::new(EapCode::REQUEST, self.identifier, ty, data)
    }

    /// RFC 3748 §4.2: the identifier of the response that led to it.
    fn bare(&self, code: EapCode) -> EapPayload<'static> {
        EapPayload::bare(code, self.identifier)
    }
}
