//! What `[gateway.through.NAME]` and `on_failure` need of the tunnels that they are about.

use std::collections::BTreeMap;

use toml::Spanned;

use super::Builder;
use crate::raw::{OneOrMany, RawGateway, RawTunnel};
use crate::{LanDevices, Server, Tunnel, units};

impl Builder<'_> {
    /// Which TUN each of the sections is about; every tunnel that is not good for it is a mistake.
    pub(super) fn through(
        &mut self,
        raw: &RawGateway,
        devices: &mut LanDevices,
        written: &BTreeMap<Spanned<String>, Spanned<RawTunnel>>,
        tunnels: &BTreeMap<String, Tunnel>,
        server: Option<&Server>,
    ) {
        for (name, section) in &raw.through {
            let tunnel = name.get_ref();
            if tunnel == raw.tunnel.get_ref() {
                self.mistake_with_help(
                    name.span(),
                    format!("`{tunnel}` is the gateway's tunnel already"),
                    "devices and networks go through it unless something else is said of them: take the section out",
                );
                continue;
            }
            if !written.keys().any(|known| known.get_ref() == tunnel) {
                let good = tunnels
                    .iter()
                    .filter(|(other, t)| t.virtual_address && *other != raw.tunnel.get_ref());
                let good: Vec<&str> = good.map(|(other, _)| other.as_str()).collect();
                let expected = match good.as_slice() {
                    [] => format!("write a [tunnel.{tunnel}] section first"),
                    good => format!("expected one of: {}", good.join(", ")),
                };
                let message = format!("there is no tunnel `{tunnel}`; {expected}");
                self.mistake(name.span(), message);
                continue;
            }
            // One with mistakes of its own is told of where these are.
            let Some(found) = tunnels.get(tunnel) else {
                continue;
            };
            if !found.virtual_address {
                self.mistake_with_help(
                    name.span(),
                    format!(
                        "tunnel `{tunnel}` is one between two networks: what lies behind it is reached through it by \
                         every device that is not blocked, and nothing else is"
                    ),
                    "name a tunnel with virtual_address = true",
                );
                continue;
            }
            if let Some(through) = devices.through.get_mut(tunnel) {
                through.interface.clone_from(&found.interface);
            }
            for written in section.get_ref().networks.iter().flat_map(OneOrMany::iter) {
                self.network_through(written, tunnel, found, tunnels, server);
            }
        }
    }

    /// Whether a network can be reached by its tunnel, and is nobody else's.
    fn network_through(
        &mut self,
        written: &Spanned<String>,
        name: &str,
        tunnel: &Tunnel,
        tunnels: &BTreeMap<String, Tunnel>,
        server: Option<&Server>,
    ) {
        // What reads as none, or is everything, was told of.
        let net = units::network(written.get_ref());
        let Some(net) = net.ok().filter(|net| net.prefix_len() > 0) else {
            return;
        };
        if !tunnel
            .remote_networks
            .iter()
            .any(|remote| remote.contains(&net))
        {
            let reached: Vec<String> = tunnel
                .remote_networks
                .iter()
                .map(ToString::to_string)
                .collect();
            self.mistake_with_help(
                written.span(),
                format!(
                    "{net} is not behind tunnel `{name}`, which reaches {}",
                    reached.join(", ")
                ),
                format!("write it in `remote_networks` of [tunnel.{name}] as well"),
            );
        }
        let mut sites = tunnels.iter().filter(|(_, other)| !other.virtual_address);
        let site = sites.find(|(_, site)| site.remote_networks.contains(&net));
        if let Some((site, _)) = site {
            self.mistake_with_help(
                written.span(),
                format!("{net} is behind tunnel `{site}` already"),
                "a network goes through one tunnel; of two that differ the narrower decides",
            );
        }
        if server.is_some_and(|server| server.pools.contains(&net)) {
            let message = format!("{net} is lent to clients of this machine's server");
            self.mistake_with_help(
                written.span(),
                message,
                "clients are reached where they are",
            );
        }
    }

    /// A tunnel that waits for traffic would wait for ever where that goes direct.
    pub(super) fn on_failure(&mut self, raw: &RawGateway, tunnel: Option<&RawTunnel>) {
        let Some(written) = raw.on_failure.as_ref().filter(|w| w.get_ref() == "direct") else {
            return;
        };
        let starts = tunnel.into_iter().flat_map(|tunnel| {
            let children = tunnel.child.values().map(|child| &child.get_ref().start);
            children.chain([&tunnel.start]).flatten()
        });
        if starts.into_iter().any(|start| start.get_ref() == "traffic") {
            let name = raw.tunnel.get_ref();
            self.mistake_with_help(
                written.span(),
                format!(
                    "on_failure = \"direct\" needs a tunnel that starts by itself: `{name}` waits for traffic, which goes \
                     direct while it waits"
                ),
                format!("take start = \"traffic\" out of [tunnel.{name}]"),
            );
        }
    }
}
