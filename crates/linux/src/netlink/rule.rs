//! Policy rules of ours.

use cygnet_gateway::{Family, InterfaceName, Rule, RuleAction};
use ipnet::IpNet;
use netlink_packet_route::IpProtocol;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{
    RuleAction as KernelAction, RuleAttribute, RuleMessage, RulePortRange,
};
use rtnetlink::IpVersion;

use super::{Netlink, Owner, absent_is_fine, collect, error, family};
use crate::{Error, Result};

impl Netlink {
    /// Adds a rule; one that is there already is no error.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn add_rule(&self, rule: &Rule, owner: Owner) -> Result<()> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = message(rule, owner);
        let what = format!("add the policy rule {}", rule.priority);
        match request.execute().await.map_err(|e| error(what, e)) {
            Err(Error::Netlink { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {
                Ok(())
            }
            other => other,
        }
    }

    /// Removes a rule; one that is not there is no error.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn remove_rule(&self, rule: &Rule, owner: Owner) -> Result<()> {
        let what = format!("remove the policy rule {}", rule.priority);
        absent_is_fine(
            what,
            self.handle.rule().del(message(rule, owner)).execute().await,
        )
    }

    /// Rules that carry the owner's protocol number.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub async fn rules(&self, owner: Owner) -> Result<Vec<Rule>> {
        let ours = RuleAttribute::Protocol(RouteProtocol::from(owner.protocol()));
        let mut rules = Vec::new();
        for (version, family) in [(IpVersion::V4, Family::V4), (IpVersion::V6, Family::V6)] {
            let messages = collect(
                "list policy rules",
                self.handle.rule().get(version).execute(),
            )
            .await?;
            rules.extend(
                messages
                    .iter()
                    .filter(|m| m.attributes.contains(&ours))
                    .filter_map(|m| parse(m, family)),
            );
        }
        rules.sort();
        Ok(rules)
    }
}

fn message(rule: &Rule, owner: Owner) -> RuleMessage {
    let mut m = RuleMessage::default();
    m.header.family = family(rule.family == Family::V6);
    let all = &mut m.attributes;
    all.push(RuleAttribute::Priority(rule.priority));
    all.push(RuleAttribute::Protocol(RouteProtocol::from(
        owner.protocol(),
    )));
    if let Some(name) = &rule.iif {
        all.push(RuleAttribute::Iifname(name.to_string()));
    }
    if let Some(net) = rule.from {
        m.header.src_len = net.prefix_len();
        all.push(RuleAttribute::Source(net.addr()));
    }
    if let Some(net) = rule.to {
        m.header.dst_len = net.prefix_len();
        all.push(RuleAttribute::Destination(net.addr()));
    }
    if let Some(mark) = rule.fwmark {
        all.push(RuleAttribute::FwMark(mark));
        all.push(RuleAttribute::FwMask(u32::MAX));
    }
    all.extend(
        rule.ip_protocol
            .map(|p| RuleAttribute::IpProtocol(IpProtocol::from(p))),
    );
    all.extend(rule.source_port.map(|port| {
        RuleAttribute::SourcePortRange(RulePortRange {
            start: port,
            end: port,
        })
    }));
    all.extend(
        rule.suppress_prefix_length
            .map(RuleAttribute::SuppressPrefixLen),
    );
    match rule.action {
        RuleAction::Lookup(table) => {
            m.header.action = KernelAction::ToTable;
            match u8::try_from(table) {
                Ok(table) => m.header.table = table,
                Err(_) => all.push(RuleAttribute::Table(table)),
            }
        }
        RuleAction::Unreachable => m.header.action = KernelAction::Unreachable,
        RuleAction::Blackhole => m.header.action = KernelAction::Blackhole,
    }
    m
}

fn parse(m: &RuleMessage, family: Family) -> Option<Rule> {
    let mut rule = Rule::new(0, family, RuleAction::Unreachable);
    let mut table = u32::from(m.header.table);
    for attribute in &m.attributes {
        match attribute {
            RuleAttribute::Priority(p) => rule.priority = *p,
            RuleAttribute::Iifname(name) => rule.iif = Some(InterfaceName::new(name).ok()?),
            RuleAttribute::Source(a) => rule.from = Some(IpNet::new(*a, m.header.src_len).ok()?),
            RuleAttribute::Destination(a) => {
                rule.to = Some(IpNet::new(*a, m.header.dst_len).ok()?);
            }
            RuleAttribute::FwMark(mark) => rule.fwmark = Some(*mark),
            RuleAttribute::IpProtocol(p) => rule.ip_protocol = Some(u8::from(*p)),
            RuleAttribute::SourcePortRange(range) if range.start == range.end => {
                rule.source_port = Some(range.start);
            }
            // The kernel shows -1 where nothing is suppressed.
            RuleAttribute::SuppressPrefixLen(n) if *n != u32::MAX => {
                rule.suppress_prefix_length = Some(*n);
            }
            RuleAttribute::Table(t) => table = *t,
            _ => {}
        }
    }
    rule.action = match m.header.action {
        KernelAction::ToTable => RuleAction::Lookup(table),
        KernelAction::Blackhole => RuleAction::Blackhole,
        _ => RuleAction::Unreachable,
    };
    Some(rule)
}
