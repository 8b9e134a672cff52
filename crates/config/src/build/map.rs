//! `local_map`: the networks by which the other side knows ours.

use std::ops::Range;
use std::sync::Arc;

use cygnet_gateway::{Mapping, overlap};
use cygnet_ike::policy::ChildPolicy;
use ipnet::IpNet;
use toml::Spanned;

use super::Builder;
use super::tunnel::fixed_networks;
use crate::raw::{OneOrMany, RawTunnel};
use crate::units;

/// The keys of a child that are about networks.
pub(super) struct NetworkKeys<'r> {
    pub(super) local: Option<&'r [Spanned<String>]>,
    pub(super) map: Option<&'r OneOrMany>,
    pub(super) remote: Option<&'r [Spanned<String>]>,
}

impl NetworkKeys<'_> {
    /// Where `local_map` is written, or as near as can be told.
    fn map_span(&self) -> Range<usize> {
        let mut written = self.map.into_iter().flat_map(OneOrMany::iter);
        let local = self.local.and_then(<[_]>::first);
        written.next().or(local).map_or(0..0, Spanned::span)
    }
}

impl Builder<'_> {
    /// The networks that are the other side's names for others of ours. What stands for itself is not among them.
    pub(super) fn maps(&mut self, keys: &NetworkKeys<'_>) -> Vec<Mapping> {
        let own = known(keys.local);
        let remote = known(keys.remote);
        self.no_network_on_both_sides(&own, &remote, keys.map.is_some());
        let Some(map) = keys.map else {
            return Vec::new();
        };
        let written: Vec<&Spanned<String>> = map.iter().collect();
        let shown: Vec<Option<IpNet>> = written
            .iter()
            .map(|w| self.value(w, units::network))
            .collect();
        let expected = keys.local.map_or(0, <[_]>::len);
        if written.len() != expected {
            let message = format!(
                "`local_map` has {} networks, and `local_networks` {expected}",
                written.len()
            );
            let help = "write one for each of `local_networks`, in their order; what needs no other name is written as it is";
            self.mistake_with_help(keys.map_span(), message, help);
            return Vec::new();
        }
        let shown: Option<Vec<IpNet>> = shown.into_iter().collect();
        let Some(shown) = shown.filter(|_| own.len() == expected) else {
            // What is no network is told already.
            return Vec::new();
        };
        let mut maps = Vec::new();
        for (at, ((own_net, _), shown_net)) in own.iter().zip(&shown).enumerate() {
            if own_net == shown_net {
                continue;
            }
            let span = written[at].span();
            let others = shown.iter().enumerate().filter(|(other, _)| *other != at);
            let others = others.map(|(_, net)| net);
            let nets = own.iter().chain(&remote).map(|(net, _)| net);
            let used: Vec<IpNet> = others.chain(nets).copied().collect();
            if let Some(other) = used.iter().find(|other| overlap(other, shown_net)) {
                let message =
                    format!("`{shown_net}` overlaps `{other}`, which this tunnel has, too");
                let help = match Mapping::propose(own_net, &used) {
                    Some(free) => format!("`{free}` would be free"),
                    None => "choose one that is used nowhere else".to_owned(),
                };
                self.mistake_with_help(span, message, help);
                continue;
            }
            match Mapping::new(*own_net, *shown_net) {
                Ok(mapping) => maps.push(mapping),
                Err(message) => self.mistake(span, message),
            }
        }
        maps
    }

    /// All children of a tunnel have one interface, so a network of ours has one name in all of them.
    pub(super) fn one_name_each(
        &mut self,
        raw: &RawTunnel,
        children: &[Arc<ChildPolicy>],
        maps: &[Mapping],
    ) {
        let as_itself = fixed_networks(children, |c| &c.local);
        for (at, map) in maps.iter().enumerate() {
            let own = map.own();
            let again = maps.iter().skip(at + 1).any(|other| other.own() == own);
            if again || as_itself.contains(&own) {
                let written = raw.child.values().map(|child| &child.get_ref().local_map);
                let written = written.flatten().flat_map(OneOrMany::iter).next();
                self.mistake_with_help(
                    written.map_or(0..0, Spanned::span),
                    format!("`{own}` appears as `{}` in one child of this tunnel, and otherwise in another", map.shown()),
                    "write the same in each child, or make two tunnels of them",
                );
            }
        }
    }

    /// Of a network that both sides have, each thinks that it is its own.
    fn no_network_on_both_sides(
        &mut self,
        own: &[SpannedNetwork],
        remote: &[SpannedNetwork],
        mapped: bool,
    ) {
        for (net, span) in remote {
            if !own.iter().any(|(own, _)| own == net) {
                continue;
            }
            let used: Vec<IpNet> = own.iter().chain(remote).map(|(net, _)| *net).collect();
            let help = match Mapping::propose(net, &used) {
                _ if mapped => "write here what the other side has in its `local_map`".to_owned(),
                Some(free) => format!(
                    "let each appear to the other as another network: write local_map = \"{free}\" here, another one on the \
                     other side, and that one here, in `remote_networks`"
                ),
                None => "renumber one of the two".to_owned(),
            };
            let message = format!("`{net}` is on both sides of this tunnel");
            self.mistake_with_help(span.clone(), message, help);
        }
    }
}

type SpannedNetwork = (IpNet, Range<usize>);

/// Those that are networks; what is none is told where the selectors are made of it.
fn known(written: Option<&[Spanned<String>]>) -> Vec<SpannedNetwork> {
    let written = written.unwrap_or_default().iter();
    written
        .filter_map(|w| Some((units::network(w.get_ref()).ok()?, w.span())))
        .collect()
}
