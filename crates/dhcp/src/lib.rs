//! What a gateway says to its LAN so that devices use it: DHCPv4 answers and router advertisements.
//!
//! Three pure state machines; time is an argument (since any beginning, suspend included), sockets and files are outside:
//!
//! - [`Server`] lends addresses: [`Server::handle_message`] takes a message and yields what to answer.
//! - [`Lookout`] finds out whether another DHCP server answers on the LAN. Two servers that do not know of each other
//!   lend one address twice and send devices past the gateway, so [`Server`] is asked only while
//!   [`Lookout::standing`] is [`Standing::Alone`].
//! - [`Advertiser`] says when a router advertisement is due, and what it says.
//!
//! [`Message`] is the message itself, bytes to fields and back; it never panics, whatever the bytes.
//!
//! ```
//! use std::time::Duration;
//! use cygnet_dhcp::{Message, MessageType, Server, Settings};
//!
//! let settings = Settings {
//!     server: [192, 168, 1, 2].into(),
//!     mac: "02:00:00:00:00:01".parse()?,
//!     network: "192.168.1.0/24".parse()?,
//!     first: [192, 168, 1, 100].into(),
//!     last: [192, 168, 1, 199].into(),
//!     lease_time: Duration::from_secs(3600),
//!     dns: vec![[192, 168, 1, 2].into()],
//!     reservations: Default::default(),
//!     excluded: Default::default(),
//! };
//! let mut server = Server::new(settings, &[], Duration::ZERO);
//! let discover = Message::request(MessageType::Discover, "02:00:00:00:00:09".parse()?, 7);
//! let came = Message::parse(&discover.emit())?;
//! let offer = server.handle_message(Duration::ZERO, &came).reply.ok_or("no answer")?;
//! assert_eq!(offer.message.kind, MessageType::Offer);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod advertiser;
mod leases;
mod lookout;
mod message;
mod pool;
mod record;
mod server;

pub use advertiser::Advertiser;
pub use cygnet_gateway::Mac;
pub use lookout::{Lookout, Standing};
pub use message::{Message, MessageType, Options, ParseError};
pub use record::Record;
pub use server::{Event, Handled, Reply, Server, Settings};

/// Addresses that one server lends at most.
pub const ADDRESSES_MAX: u32 = 4096;
/// UDP port of servers.
pub const SERVER_PORT: u16 = 67;
/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;
