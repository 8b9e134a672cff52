//! The rules: what must hold at every moment, and what must hold at the end.

use std::collections::BTreeSet;

use cygnet_ike::io::ChildSaId;
use cygnet_ike::status::Stage;
use cygnet_wire::header::ExchangeType;

use crate::datapath::Outbound;
use crate::scenario::{LIVENESS, RETRANSMIT, Side};
use crate::world::World;

impl World {
    /// At this moment, whatever a node would seal, its peer could open. Which inbound SPIs that
    /// are, and at whom.
    pub(crate) fn check_seals(&mut self) -> Result<Vec<(Side, u32)>, String> {
        let mut in_use = Vec::new();
        for side in Side::BOTH {
            for child in 0..self.scenario.children {
                let name = format!("child{child}");
                let Some(outbound) = self.node(side).datapath.sender(&name) else {
                    if self.steady && self.stats.deaths == 0 {
                        return Err(format!("{side} has nothing to seal on for {name}"));
                    }
                    continue;
                };
                let spi = outbound.params.spi_out;
                match self.judge(side, outbound) {
                    Verdict::Fits => in_use.push((side.other(), spi)),
                    Verdict::Late => self.stats.excused_late += 1,
                    Verdict::Dead => self.stats.excused_deaths += 1,
                    Verdict::Early => self.stats.excused_early += 1,
                    Verdict::Wrong(what) => {
                        return Err(format!(
                            "{side} would seal on {spi:08x} for {name}, but {what}"
                        ));
                    }
                }
            }
        }
        Ok(in_use)
    }

    /// Whether what is sealed on a Child SA of `side` now can be opened.
    pub(crate) fn fits(&self, side: Side, child: ChildSaId) -> bool {
        let outbound = self.node(side).datapath.outbound.get(&child);
        outbound.is_some_and(|outbound| matches!(self.judge(side, outbound), Verdict::Fits))
    }

    fn judge(&self, side: Side, outbound: &Outbound) -> Verdict {
        let peer = self.node(side.other());
        let spi = outbound.params.spi_out;
        // The core has done its part when it orders the end of sending; a data path that is slow
        // to obey would be at fault by itself.
        if self.node(side).datapath.is_leaving(outbound.params.id) {
            return Verdict::Late;
        }
        if let Some(inbound) = peer.datapath.inbound.get(&spi) {
            if !inbound.keys.ct_eq(outbound.keys.expose()) {
                return Verdict::Wrong("the peer has other keys".to_owned());
            }
            if inbound.params.spi_out != outbound.params.spi_in {
                return Verdict::Wrong("the peer pairs it with another SPI".to_owned());
            }
            return Verdict::Fits;
        }
        // A peer that has counted this node for dead, or forgot everything, has told it so or
        // could not: this node learns it by silence.
        if peer.abandoned.contains(&spi) {
            return Verdict::Dead;
        }
        // RFC 7296 §2.8 lets a responder seal as soon as it has sent its response. Where nothing
        // could be sealed before, the packets that overtake the response would be lost anyway;
        // where another Child SA serves, there is no excuse.
        let name = &outbound.params.policy.name;
        if peer.datapath.is_reserved(spi) {
            let others = self.node(side).datapath.sending.get(name);
            let served = others.into_iter().flatten().any(|id| {
                let datapath = &self.node(side).datapath;
                let other = datapath
                    .outbound
                    .get(id)
                    .filter(|_| !datapath.is_leaving(*id));
                other.is_some_and(|other| peer.datapath.inbound.contains_key(&other.params.spi_out))
            });
            if !served {
                return Verdict::Early;
            }
            return Verdict::Wrong(
                "the peer has only reserved it, while an older one still serves".to_owned(),
            );
        }
        Verdict::Wrong("the peer knows no such SPI".to_owned())
    }

    /// What keeps the two from having come to rest: one sentence, or nothing.
    pub(crate) fn unsettled(&self) -> Option<String> {
        let mut spis = Vec::new();
        for side in Side::BOTH {
            let node = self.node(side);
            let path = &node.datapath;
            if node.pending > 0 || path.is_busy() {
                return Some(format!("{side} waits for answers"));
            }
            if path.reserved() > 0 {
                return Some(format!("{side} has {} SPIs reserved", path.reserved()));
            }
            let children = self.scenario.children;
            let (inbound, outbound) = (path.inbound.len(), path.outbound.len());
            if (inbound, outbound) != (children, children) {
                return Some(format!(
                    "{side} has {inbound} inbound and {outbound} outbound halves of Child SAs, \
                     expected {children}"
                ));
            }
            for child in 0..children {
                let name = format!("child{child}");
                let Some(outbound) = path.sender(&name) else {
                    return Some(format!("{side} has nothing to seal on for {name}"));
                };
                if !self.fits(side, outbound.params.id) {
                    return Some(format!("the peer of {side} cannot open {name}"));
                }
                if self.quiet_since.is_some() && !node.delivered.contains_key(&name) {
                    return Some(format!("nothing came to {side} through {name}"));
                }
            }
            match self.status(side) {
                Ok(found) => spis.push(found),
                Err(what) => return Some(format!("{side}: {what}")),
            }
        }
        match spis.as_slice() {
            [a, b] if a == b => {}
            _ => return Some(format!("the two have different IKE SAs: {spis:016x?}")),
        }
        self.leases()
    }

    /// A's inner address is lent exactly once, where there is one.
    fn leases(&self) -> Option<String> {
        let lent = self.node(Side::B).datapath.lent.len();
        let assigned = self.node(Side::A).datapath.virtuals.len();
        let expected = usize::from(self.scenario.lease);
        ((lent, assigned) != (expected, expected)).then(|| {
            format!(
                "B lends {lent} and A has {assigned} sets of inner addresses, expected {expected}"
            )
        })
    }

    /// A request that the peer has not answered is repeated until the peer counts as gone, and no
    /// longer. (Before the peer is authenticated a cookie or another group begins anew.) What is asked before `liveness`
    /// is over, under traffic or to see how large packets may be, counts for nothing until then, and is repeated once
    /// more at most behind that.
    pub(crate) fn check_exchanges(&self) -> Result<(), String> {
        let patience = |exchange| match exchange {
            ExchangeType::INFORMATIONAL => RETRANSMIT.patience() + LIVENESS + RETRANSMIT.most,
            _ => RETRANSMIT.patience(),
        };
        for side in Side::BOTH {
            for sa in self.node(side).endpoint.status(self.clock()).ike_sas {
                let up = sa.stage != Stage::Connecting;
                if let Some(hangs) = sa
                    .in_flight
                    .filter(|e| up && e.since > patience(e.exchange))
                {
                    return Err(format!(
                        "an exchange of {side} hangs: {hangs:?} of {:?}",
                        sa.id
                    ));
                }
            }
        }
        Ok(())
    }

    /// What the core itself says: the SPIs of its one IKE SA, or why it is not at rest.
    fn status(&self, side: Side) -> Result<(u64, u64), String> {
        let status = self.node(side).endpoint.status(self.clock());
        if status.half_open > 0 {
            return Err(format!("{} IKE SAs are half open", status.half_open));
        }
        let [sa] = status.ike_sas.as_slice() else {
            let stages: Vec<_> = status.ike_sas.iter().map(|sa| (sa.id, sa.stage)).collect();
            return Err(format!("expected one IKE SA, found {stages:?}"));
        };
        if sa.stage != Stage::Established {
            return Err(format!("its IKE SA is {:?}", sa.stage));
        }
        let names: BTreeSet<_> = sa.children.iter().map(|child| &child.name).collect();
        if names.len() != self.scenario.children || names.len() != sa.children.len() {
            return Err(format!("its IKE SA holds {:?}", sa.children));
        }
        match sa.children.iter().find(|c| !c.installed || !c.sending) {
            Some(child) => Err(format!("{} is not in use", child.name)),
            None => Ok((sa.spi_i.0, sa.spi_r.0)),
        }
    }
}

enum Verdict {
    Fits,
    /// It was to stop already.
    Late,
    /// The peer has ended it without a word.
    Dead,
    /// The response that tells the peer about it is under way.
    Early,
    Wrong(String),
}
