//! The server of RFC 2131 §4.3, for one LAN, without relays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::leases::{Asker, Client, Leases};
use crate::{ADDRESSES_MAX, Mac, Message, MessageType, Options, Record};

/// A client may wish for a shorter lease, but not for one that has it ask all the time.
const SHORTEST: Duration = Duration::from_secs(60);

/// What is lent, and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// This machine's address on the LAN: the server's identifier, and the router that devices are told.
    pub server: Ipv4Addr,
    /// This machine's hardware address there; what comes from it is not answered.
    pub mac: Mac,
    /// The LAN's network.
    pub network: Ipv4Net,
    /// First address that is lent to whoever comes.
    pub first: Ipv4Addr,
    /// The last one; of more than [`ADDRESSES_MAX`] the first so many count.
    pub last: Ipv4Addr,
    /// How long an address is lent.
    pub lease_time: Duration,
    /// Resolvers that devices are told.
    pub dns: Vec<Ipv4Addr>,
    /// Devices with an address of their own, inside or outside of the range.
    pub reservations: BTreeMap<Mac, Ipv4Addr>,
    /// Addresses that are lent to nobody: those of routers, and further ones of this machine.
    pub excluded: BTreeSet<Ipv4Addr>,
}

impl Settings {
    /// How many addresses the range has.
    #[must_use]
    pub fn size(&self) -> u32 {
        let (first, last) = (self.first.to_bits(), self.last.to_bits());
        let size = last.saturating_sub(first).saturating_add(1);
        size.min(ADDRESSES_MAX)
    }

    /// All addresses of the range.
    pub(crate) fn range(&self) -> impl Iterator<Item = Ipv4Addr> {
        (0..self.size()).map(|number| self.at(number))
    }

    /// An address of the range, another one for each number up to the range's size.
    pub(crate) fn at(&self, number: u32) -> Ipv4Addr {
        let offset = number % self.size();
        Ipv4Addr::from_bits(self.first.to_bits().wrapping_add(offset))
    }

    /// Whether the address is one of the range.
    pub(crate) fn is_in_range(&self, address: Ipv4Addr) -> bool {
        let offset = address.to_bits().checked_sub(self.first.to_bits());
        offset.is_some_and(|offset| offset < self.size())
    }

    /// Whether a device of the LAN can have the address.
    pub(crate) fn is_a_devices(&self, address: Ipv4Addr) -> bool {
        self.network.contains(&address)
            && address != self.network.network()
            && address != self.network.broadcast()
            && address != self.server
            && !self.excluded.contains(&address)
    }
}

/// What came of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// What to send.
    pub reply: Option<Reply>,
    /// What to tell others.
    pub event: Option<Event>,
}

/// An answer, to be sent from port 67 to port 68.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Everybody on the LAN, or a client that has this address already.
    pub destination: Ipv4Addr,
    /// What it says.
    pub message: Message,
}

/// What somebody beside the client may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Leases are other than they were: [`Server::records`] has them.
    Changed,
    /// There is no address left.
    Full,
    /// A client took the offer of another server.
    Elsewhere {
        /// Which, as the client says.
        server: Ipv4Addr,
    },
}

/// The server of one LAN.
#[derive(Clone, Debug)]
pub struct Server {
    settings: Settings,
    leases: Leases,
}

impl Server {
    /// With leases of an earlier run, as far as they still fit.
    #[must_use]
    pub fn new(settings: Settings, kept: &[Record], now: Duration) -> Self {
        let leases = Leases::with(&settings, kept, now);
        Self { settings, leases }
    }

    /// Every lease, those that are over included, by address.
    #[must_use]
    pub fn records(&self, now: Duration) -> Vec<Record> {
        self.leases.records(now)
    }

    /// Takes a message of a client.
    pub fn handle_message(&mut self, now: Duration, message: &Message) -> Handled {
        let relayed = !message.giaddr.is_unspecified();
        if message.reply || relayed || message.mac == self.settings.mac {
            return Handled::default();
        }
        // A reservation is the device's, whatever runs on it says.
        let client = match self.settings.reservations.contains_key(&message.mac) {
            true => Client::Mac(message.mac),
            false => Client::of(message.mac, message.options.client.as_deref()),
        };
        let asker = Asker {
            client: &client,
            mac: message.mac,
        };
        match message.kind {
            MessageType::Discover => self.discover(now, message, asker),
            MessageType::Request => self.request(now, message, asker),
            MessageType::Decline => self.decline(now, message, &client),
            MessageType::Release => self.release(now, message, &client),
            MessageType::Inform => self.inform(message),
            MessageType::Offer | MessageType::Ack | MessageType::Nak => Handled::default(),
        }
    }

    fn discover(&mut self, now: Duration, message: &Message, asker: Asker<'_>) -> Handled {
        let requested = message.options.requested;
        let chosen = self.leases.choose(&self.settings, asker, requested, now);
        let Some(address) = chosen else {
            return Handled {
                reply: None,
                event: Some(Event::Full),
            };
        };
        self.leases.offer(address, asker.client, now);
        let mut offer = self.lending(MessageType::Offer, message);
        offer.yiaddr = address;
        Handled {
            reply: Some(Reply {
                // Before it has the address it answers to no ARP, and entering it in the kernel's table takes a
                // privilege: RFC 1542 §4.1.2 allows this for either value of the flag.
                destination: Ipv4Addr::BROADCAST,
                message: offer,
            }),
            event: None,
        }
    }

    /// RFC 2131 §4.3.2: the fields tell which of the four states the client is in.
    fn request(&mut self, now: Duration, message: &Message, asker: Asker<'_>) -> Handled {
        if let Some(server) = message
            .options
            .server
            .filter(|s| *s != self.settings.server)
        {
            self.leases.take_offer_back(asker.client);
            return Handled {
                reply: None,
                event: Some(Event::Elsewhere { server }),
            };
        }
        let has_one = !message.ciaddr.is_unspecified();
        let address = match message.options.requested {
            Some(requested) if !has_one => requested,
            _ if has_one => message.ciaddr,
            _ => return Handled::default(),
        };
        // A server that does not know the client would be silent, for the sake of others that may. There are none: a
        // client that an earlier server of the LAN lent a good address keeps it.
        if !self.leases.may_have(&self.settings, address, asker, now) {
            return Handled {
                reply: Some(self.nak(message)),
                event: None,
            };
        }
        let lease = self.lease_time(message);
        let name = message.options.host_name.clone();
        self.leases
            .lend(address, asker, name, now.saturating_add(lease));
        let mut ack = self.lending(MessageType::Ack, message);
        (ack.ciaddr, ack.yiaddr) = (message.ciaddr, address);
        Handled {
            reply: Some(Reply {
                destination: match has_one {
                    // It is one of the LAN: `may_have` saw to that.
                    true => message.ciaddr,
                    false => Ipv4Addr::BROADCAST,
                },
                message: ack,
            }),
            event: Some(Event::Changed),
        }
    }

    fn decline(&mut self, now: Duration, message: &Message, client: &Client) -> Handled {
        let ours = message.options.server == Some(self.settings.server);
        let address = message.options.requested.filter(|_| ours);
        let declined = address
            .is_some_and(|address| self.leases.decline(&self.settings, address, client, now));
        Handled {
            reply: None,
            event: declined.then_some(Event::Changed),
        }
    }

    fn release(&mut self, now: Duration, message: &Message, client: &Client) -> Handled {
        let server = message.options.server;
        let ours = server.is_none_or(|server| server == self.settings.server);
        let released = ours && self.leases.release(message.ciaddr, client, now);
        Handled {
            reply: None,
            event: released.then_some(Event::Changed),
        }
    }

    /// RFC 2131 §4.3.5: no address and no times. An address elsewhere would have the answer leave the LAN.
    fn inform(&self, message: &Message) -> Handled {
        if !self.settings.network.contains(&message.ciaddr) {
            return Handled::default();
        }
        let mut ack = self.answer(MessageType::Ack, message);
        ack.ciaddr = message.ciaddr;
        self.parameters(&mut ack.options);
        Handled {
            reply: Some(Reply {
                destination: message.ciaddr,
                message: ack,
            }),
            event: None,
        }
    }

    fn nak(&self, message: &Message) -> Reply {
        let mut nak = self.answer(MessageType::Nak, message);
        nak.broadcast = true;
        Reply {
            destination: Ipv4Addr::BROADCAST,
            message: nak,
        }
    }

    /// An answer with all but the address.
    fn lending(&self, kind: MessageType, message: &Message) -> Message {
        let mut answer = self.answer(kind, message);
        let lease = self.lease_time(message);
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        answer.options.lease_time = Some(seconds(lease));
        // RFC 2131 §4.4.5.
        answer.options.renewal = Some(seconds(lease / 2));
        answer.options.rebinding = Some(seconds(lease - lease / 8));
        self.parameters(&mut answer.options);
        answer
    }

    fn answer(&self, kind: MessageType, message: &Message) -> Message {
        Message {
            reply: true,
            broadcast: message.broadcast,
            options: Options {
                server: Some(self.settings.server),
                // RFC 6842.
                client: message.options.client.clone(),
                ..Options::default()
            },
            ..Message::request(kind, message.mac, message.xid)
        }
    }

    fn parameters(&self, options: &mut Options) {
        options.mask = Some(self.settings.network.netmask());
        options.routers = vec![self.settings.server];
        options.dns = self.settings.dns.clone();
        options.broadcast = Some(self.settings.network.broadcast());
    }

    fn lease_time(&self, message: &Message) -> Duration {
        let most = self.settings.lease_time;
        let wished = message.options.lease_time;
        wished.map_or(most, |wished| {
            Duration::from_secs(wished.into()).max(SHORTEST).min(most)
        })
    }
}

#[cfg(test)]
mod tests;
