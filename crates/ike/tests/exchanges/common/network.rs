//! The network between the two: what becomes of a datagram, and which way it takes.

use std::net::SocketAddr;
use std::time::Duration;

use cygnet_ike::io::Path;
use cygnet_wire::header::{ExchangeType, IkeHeader};

use super::{A, B, End, World, path};

/// A datagram on its way.
#[derive(Clone, Debug)]
pub struct Flight {
    pub to: End,
    pub path: Path,
    pub datagram: Vec<u8>,
}

impl Flight {
    pub fn header(&self) -> Option<IkeHeader> {
        IkeHeader::parse(&self.datagram).ok().map(|(h, _, _)| h)
    }

    pub fn is(&self, exchange: ExchangeType, response: bool) -> bool {
        self.header()
            .is_some_and(|h| h.exchange == exchange && h.flags.is_response() == response)
    }
}

/// What happens to a datagram.
pub enum Fate {
    Deliver,
    Drop,
    Delay(Duration),
    Twice,
}

impl World {
    pub(super) fn send(&mut self, from: End, path: Path, datagram: Vec<u8>) {
        let Some(seen) = self.translate(from, path) else {
            return;
        };
        let flight = Flight {
            to: from.other(),
            path: seen,
            datagram,
        };
        if let Some(h) = flight.header() {
            let line = format!(
                "{:8.3} {from:?} -> {} {} {} {} ({} octets)",
                self.now.as_secs_f64(),
                h.exchange,
                h.message_id,
                if h.flags.is_response() {
                    "response"
                } else {
                    "request"
                },
                path,
                flight.datagram.len()
            );
            self.log.push(line);
        }
        let arrives = self.now + self.delay;
        match (self.fate)(&flight) {
            Fate::Deliver => self.fly(arrives, flight),
            Fate::Drop => self.log.push("         (lost)".to_owned()),
            Fate::Delay(by) => self.fly(arrives + by, flight),
            Fate::Twice => {
                self.fly(arrives, flight.clone());
                self.fly(arrives + self.delay, flight);
            }
        }
    }

    pub fn fly(&mut self, arrives: Duration, flight: Flight) {
        self.sent += 1;
        self.flights.insert((arrives, self.sent), flight);
    }

    /// The path as the receiver sees it; `None`: it leads nowhere.
    fn translate(&self, from: End, sent: Path) -> Option<Path> {
        let (mut source, mut target) = (sent.local, sent.remote);
        let (us, them) = match from {
            A => (&self.a, &self.b),
            B => (&self.b, &self.a),
        };
        if !us.own.contains(&source.ip()) {
            return None;
        }
        if let Some((outside, shift)) = self.nat {
            match from {
                A => source = SocketAddr::new(outside, source.port() + shift),
                B => {
                    if target.ip() != outside || target.port() < shift {
                        return None;
                    }
                    target = SocketAddr::new(*self.a.own.first()?, target.port() - shift);
                }
            }
        }
        if let Some(outside) = self.forwarded {
            match from {
                A if target.ip() == outside => target.set_ip(B.address()),
                A => return None,
                B => source.set_ip(outside),
            }
        }
        (them.own.contains(&target.ip()) && matches!(target.port(), 500 | 4500))
            .then(|| path(target, source))
    }
}
