//! Two tunnels that lead to one network: a mistake, unless it is said which of them carries it.

use std::collections::BTreeMap;
use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;

use super::Builder;
use crate::raw::{RawConfig, RawTunnel};
use crate::{Tunnel, units};

type Written<'r> = (&'r Spanned<String>, &'r RawTunnel);

impl Builder<'_> {
    /// `standby_for` names a tunnel that carries something itself.
    pub(super) fn standbys(&mut self, raw: &RawConfig) {
        for (name, tunnel) in &raw.tunnel {
            let Some(written) = &tunnel.get_ref().standby_for else {
                continue;
            };
            let first = written.get_ref();
            let names = || raw.tunnel.keys().map(|t| t.get_ref().as_str());
            let others: Vec<&str> = names().filter(|other| other != name.get_ref()).collect();
            let Some((_, of)) = by_name(raw, first).filter(|_| first != name.get_ref()) else {
                let what = match first == name.get_ref() {
                    true => "a tunnel cannot stand in for itself".to_owned(),
                    false => format!("there is no tunnel `{first}`"),
                };
                let help = match others.is_empty() {
                    true => "take the key out: there is one tunnel".to_owned(),
                    false => format!("expected one of: {}", others.join(", ")),
                };
                self.mistake_with_help(written.span(), what, help);
                continue;
            };
            if let Some(further) = &of.standby_for {
                self.mistake_with_help(
                    written.span(),
                    format!("`{first}` itself stands in for another tunnel"),
                    format!("name that one: standby_for = \"{}\"", further.get_ref()),
                );
            }
        }
    }

    /// A narrower network within another has its own way, so only what is equal is in dispute. Tunnels that lend us an
    /// address may lead to the same, as to everything: what has the address as its source takes its tunnel.
    pub(super) fn one_way_each(&mut self, raw: &RawConfig, tunnels: &BTreeMap<String, Tunnel>) {
        for (at, (second, b)) in tunnels.iter().enumerate() {
            let others = tunnels.iter().take(at);
            for (first, a) in others.filter(|(first, _)| !agreed(tunnels, first, second)) {
                let lent = u8::from(a.virtual_address) + u8::from(b.virtual_address);
                let disputed = |net: &&IpNet| match lent {
                    0 => a.remote_networks.contains(net),
                    1 => net.prefix_len() > 0 && a.remote_networks.contains(net),
                    _ => false,
                };
                let Some(net) = b.remote_networks.iter().find(disputed) else {
                    continue;
                };
                let span = by_name(raw, second).map_or(0..0, |written| place(written, net));
                self.mistake_with_help(
                    span,
                    format!("`{net}` is the other side of tunnel `{first}` already"),
                    format!(
                        "take it out of one of the two; or, if `{second}` is to carry what `{first}` carries while that is \
                         down, write standby_for = \"{first}\" in [tunnel.{second}]"
                    ),
                );
            }
        }
    }
}

/// Whether it is said which of the two comes first, or that both come after a third.
fn agreed(tunnels: &BTreeMap<String, Tunnel>, first: &str, second: &str) -> bool {
    let of = |name: &str| tunnels.get(name).and_then(|t| t.standby_for.as_deref());
    let (a, b) = (of(first), of(second));
    a == Some(second) || b == Some(first) || (a.is_some() && a == b)
}

fn by_name<'r>(raw: &'r RawConfig, name: &str) -> Option<Written<'r>> {
    let mut all = raw.tunnel.iter();
    let (written, tunnel) = all.find(|(written, _)| written.get_ref() == name)?;
    Some((written, tunnel.get_ref()))
}

/// Where a network is written in a tunnel or a child of it.
fn place((name, tunnel): Written<'_>, net: &IpNet) -> Range<usize> {
    let children = tunnel.child.values().map(|c| &c.get_ref().remote_networks);
    let mut all = [&tunnel.remote_networks].into_iter().chain(children);
    let is = |w: &&Spanned<String>| units::network(w.get_ref()).as_ref() == Ok(net);
    let written = all.find_map(|list| list.iter().flatten().find(is));
    written.map_or(name.span(), Spanned::span)
}
