//! The traffic selectors of a policy or of a Child SA, in both directions.

use cygnet_wire::ts::{ANY_PORT, TrafficSelector};

use crate::flow::Flow;

/// Which packets belong: one end's address in a local selector, the other's in a remote one.
///
/// Every local selector pairs with every remote one, as negotiated TSi and TSr do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selectors {
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    needs_ports: bool,
}

impl Selectors {
    /// Our side's selectors and the peer's.
    pub fn new(local: Vec<TrafficSelector>, remote: Vec<TrafficSelector>) -> Self {
        let needs_ports = local
            .iter()
            .chain(&remote)
            .any(|selector| selector.ports != ANY_PORT || selector.protocol != 0);
        Self {
            local,
            remote,
            needs_ports,
        }
    }

    /// Everything of both families.
    pub fn any() -> Self {
        let both = vec![TrafficSelector::any_v4(), TrafficSelector::any_v6()];
        Self::new(both.clone(), both)
    }

    /// Our side.
    pub fn local(&self) -> &[TrafficSelector] {
        &self.local
    }

    /// The peer's side.
    pub fn remote(&self) -> &[TrafficSelector] {
        &self.remote
    }

    /// Whether a packet that leaves belongs: its source is local, its destination remote.
    pub fn match_outbound(&self, flow: &Flow) -> bool {
        any(&self.remote, flow, Flow::dst_port, flow.dst)
            && any(&self.local, flow, Flow::src_port, flow.src)
    }

    /// Whether a packet that came belongs: its source is remote, its destination local
    /// (RFC 4301 §5.2 step 4).
    pub fn match_inbound(&self, flow: &Flow) -> bool {
        any(&self.remote, flow, Flow::src_port, flow.src)
            && any(&self.local, flow, Flow::dst_port, flow.dst)
    }

    /// Whether protocol or ports decide anything, so that later fragments, which do not show them,
    /// have to be matched through their first fragment (RFC 4301 §7).
    pub fn needs_ports(&self) -> bool {
        self.needs_ports
    }
}

fn any(
    selectors: &[TrafficSelector],
    flow: &Flow,
    port: impl Fn(&Flow) -> Option<u16>,
    addr: std::net::IpAddr,
) -> bool {
    let port = port(flow);
    selectors
        .iter()
        .any(|selector| selector.contains(addr, flow.protocol, port))
}
