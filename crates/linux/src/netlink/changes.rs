//! Word of changes that others made to this machine's links, addresses and routes.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteProtocol;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};

use crate::{Error, Result};

/// What came is not told, only that something did: look at what is now.
pub struct Changes {
    messages: BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>,
}

impl Changes {
    /// Listens from now on. Made on a tokio runtime, used on the same; of the network namespace of
    /// the thread that made it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn listen() -> Result<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(|e| Error::io("listen to changes of the network", e))?;
        // Ends when `messages` is dropped.
        tokio::spawn(connection);
        let messages = messages.map(|(message, _)| message).boxed();
        Ok(Self { messages })
    }

    /// Waits for the next change; `false`: there will be none any more. May be given up at any time.
    pub async fn next(&mut self) -> bool {
        while let Some(message) = self.messages.next().await {
            if !is_ours(&message.payload) {
                return true;
            }
        }
        false
    }
}

fn is_ours(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    let ours = [
        cygnet_gateway::PLAN_PROTOCOL,
        cygnet_gateway::GUARD_PROTOCOL,
    ];
    match payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => ours
            .iter()
            .any(|protocol| route.header.protocol == RouteProtocol::from(*protocol)),
        // Some were lost, too.
        _ => false,
    }
}
