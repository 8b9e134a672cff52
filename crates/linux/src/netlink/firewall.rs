//! Word of changes to nftables, by whomever: a foreign `nft flush ruleset` is heard of as it happens.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};

use crate::{Error, Result};

/// Longer than a message of the kernel's; what is cut off is not read anyway.
const MESSAGE: usize = 8192;

/// What came is not told, only that something did, our own changes too. The old iptables tells nothing here.
pub struct FirewallChanges {
    socket: TokioSocket,
    message: Vec<u8>,
}

impl FirewallChanges {
    /// Listens from now on. Made on a tokio runtime, used on the same; of the network namespace of
    /// the thread that made it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn listen() -> Result<Self> {
        let open = || {
            let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
            socket.socket_mut().bind_auto()?;
            let group = libc::NFNLGRP_NFTABLES.cast_unsigned();
            socket.socket_mut().add_membership(group)?;
            Ok(socket)
        };
        let socket =
            open().map_err(|e: io::Error| Error::io("listen to changes of nftables", e))?;
        Ok(Self {
            socket,
            message: Vec::with_capacity(MESSAGE),
        })
    }

    /// Waits for the next change; `false`: it cannot be waited for. May be given up at any time.
    pub async fn next(&mut self) -> bool {
        self.message.clear();
        match self.socket.recv(&mut self.message).await {
            Ok(_) => true,
            // So many came at once that some are lost: something changed.
            Err(error) => error.raw_os_error() == Some(libc::ENOBUFS),
        }
    }
}
