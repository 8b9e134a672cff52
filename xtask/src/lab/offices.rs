//! Two gateways with a network behind each:
//! `lana - gwa == (nata ==) (natb ==) gwb - lanb`, where every `==` is a watched [`Link`].

use super::failure::Result;
use super::link::{Link, LinkCounters};
use super::namespace::{End, Namespace, wire};
use super::{Lab, nat};

/// Which of the gateways sit behind a router that translates addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nat {
    /// None: both have public addresses.
    #[default]
    None,
    /// `gwa` does.
    BeforeA,
    /// `gwb` does; its router forwards UDP 500 and 4500.
    BeforeB,
    /// Both do.
    BeforeBoth,
}

/// One side of the two.
#[derive(Debug)]
pub struct Office {
    /// The gateway, where the VPN runs. Interfaces `lan`, `lan2`, `wan`.
    pub gateway: Namespace,
    /// A host behind it, at `host4` and `host6`.
    pub host: Namespace,
    /// A host in its second subnet, at `second_host4`.
    pub second_host: Namespace,
    /// The network behind it.
    pub lan4: &'static str,
    /// The same, IPv6.
    pub lan6: &'static str,
    /// Its second network.
    pub second_lan4: &'static str,
    /// The gateway's address in that network.
    pub inner4: &'static str,
    /// The same, IPv6.
    pub inner6: &'static str,
    /// The host's address.
    pub host4: &'static str,
    /// The same, IPv6.
    pub host6: &'static str,
    /// The second host's address.
    pub second_host4: &'static str,
    /// The gateway's own outer address.
    pub outer4: &'static str,
    /// The same, IPv6; only without NAT.
    pub outer6: &'static str,
    /// The address at which others reach it: its own, or that of the router before it.
    pub public4: &'static str,
}

/// The whole network.
#[derive(Debug)]
pub struct Offices {
    /// The first office.
    pub a: Office,
    /// The second.
    pub b: Office,
    /// The router before `a`, if there is one. Interfaces `in` and `out`.
    pub nat_a: Option<Namespace>,
    /// The router before `b`.
    pub nat_b: Option<Namespace>,
    /// The links from `gwa` to `gwb`, in this order.
    pub links: Vec<Link>,
}

impl Offices {
    /// Builds it.
    pub fn build(lab: &Lab, nat: Nat) -> Result<Self> {
        let behind_a = matches!(nat, Nat::BeforeA | Nat::BeforeBoth);
        let behind_b = matches!(nat, Nat::BeforeB | Nat::BeforeBoth);
        let a = Office {
            gateway: lab.router("gwa")?,
            host: lab.host("lana")?,
            second_host: lab.host("lana2")?,
            lan4: "10.1.0.0/24",
            lan6: "fd00:1::/64",
            second_lan4: "10.1.1.0/24",
            inner4: "10.1.0.1",
            inner6: "fd00:1::1",
            host4: "10.1.0.10",
            host6: "fd00:1::10",
            second_host4: "10.1.1.10",
            outer4: if behind_a { "10.9.1.2" } else { "192.0.2.1" },
            outer6: "2001:db8::1",
            public4: "192.0.2.1",
        };
        let b = Office {
            gateway: lab.router("gwb")?,
            host: lab.host("lanb")?,
            second_host: lab.host("lanb2")?,
            lan4: "10.2.0.0/24",
            lan6: "fd00:2::/64",
            second_lan4: "10.2.1.0/24",
            inner4: "10.2.0.1",
            inner6: "fd00:2::1",
            host4: "10.2.0.10",
            host6: "fd00:2::10",
            second_host4: "10.2.1.10",
            outer4: if behind_b { "10.9.2.2" } else { "192.0.2.2" },
            outer6: "2001:db8::2",
            public4: "192.0.2.2",
        };
        a.furnish("10.1.1.1")?;
        b.furnish("10.2.1.1")?;
        let mut offices = Self {
            nat_a: if behind_a {
                Some(lab.router("nata")?)
            } else {
                None
            },
            nat_b: if behind_b {
                Some(lab.router("natb")?)
            } else {
                None
            },
            links: Vec::new(),
            a,
            b,
        };
        offices.connect(lab)?;
        Ok(offices)
    }

    /// What has passed all links together.
    pub fn counters(&self) -> Result<LinkCounters> {
        let mut each = self.links.iter().map(Link::counters);
        each.try_fold(LinkCounters::default(), |sum, counters| Ok(sum + counters?))
    }

    /// Sets the counters of all links to zero.
    pub fn reset_counters(&self) -> Result<()> {
        self.links.iter().try_for_each(Link::reset)
    }

    /// Makes all links drop whatever is not the tunnel, so that only the tunnel can carry.
    pub fn block_all_but_tunnel(&mut self) -> Result<()> {
        self.links
            .iter_mut()
            .try_for_each(|link| link.block_all_but_tunnel(true))
    }

    fn connect(&mut self, lab: &Lab) -> Result<()> {
        let (a, b) = (&self.a, &self.b);
        let a_outer = [with_length(a.outer4), with_length(a.outer6)];
        let b_outer = [with_length(b.outer4), with_length(b.outer6)];
        let gwa = End::new(&a.gateway, "wan", &[&a_outer[0], &a_outer[1]]);
        let gwb = End::new(&b.gateway, "wan", &[&b_outer[0], &b_outer[1]]);
        let mut hops: Vec<(End<'_>, End<'_>, Vec<&str>, Vec<&str>)> = Vec::new();
        let mut towards_b = gwa;
        if let Some(router) = &self.nat_a {
            let inside = End::new(router, "in", &["10.9.1.1/24"]);
            hops.push((towards_b, inside, vec![a.outer4], vec![b.public4]));
            towards_b = End::new(router, "out", &["192.0.2.1/24"]);
        }
        if let Some(router) = &self.nat_b {
            let outside = End::new(router, "out", &["192.0.2.2/24"]);
            hops.push((towards_b, outside, vec![a.public4], vec![b.public4]));
            towards_b = End::new(router, "in", &["10.9.2.1/24"]);
        }
        let near = if self.nat_a.is_some() || self.nat_b.is_some() {
            vec![a.public4]
        } else {
            vec![a.outer4, a.outer6]
        };
        hops.push((towards_b, gwb, near, vec![b.outer4, b.outer6]));
        for (number, (one, other, near, far)) in hops.iter().enumerate() {
            let middle = lab.host(&format!("link{number}"))?;
            self.links.push(Link::join(middle, one, other, near, far)?);
        }
        // Default routes towards the other side: what is not tunnelled leaves in clear and is counted.
        a.gateway.default_route(if self.nat_a.is_some() {
            "10.9.1.1"
        } else {
            "192.0.2.2"
        })?;
        b.gateway.default_route(if self.nat_b.is_some() {
            "10.9.2.1"
        } else {
            "192.0.2.1"
        })?;
        if self.nat_a.is_none() && self.nat_b.is_none() {
            a.gateway.default_route(b.outer6)?;
            b.gateway.default_route(a.outer6)?;
        }
        if let Some(router) = &self.nat_a {
            router.default_route("192.0.2.2")?;
            nat::masquerade(router, "out")?;
        }
        if let Some(router) = &self.nat_b {
            router.default_route("192.0.2.1")?;
            nat::masquerade(router, "out")?;
            nat::forward_ike(router, "out", b.outer4)?;
        }
        Ok(())
    }
}

impl Office {
    fn furnish(&self, second_inner4: &str) -> Result<()> {
        wire(
            &End::new(
                &self.host,
                "eth0",
                &[&with_length(self.host4), &with_length(self.host6)],
            ),
            &End::new(
                &self.gateway,
                "lan",
                &[&with_length(self.inner4), &with_length(self.inner6)],
            ),
        )?;
        wire(
            &End::new(
                &self.second_host,
                "eth0",
                &[&with_length(self.second_host4)],
            ),
            &End::new(&self.gateway, "lan2", &[&with_length(second_inner4)]),
        )?;
        self.host.default_route(self.inner4)?;
        self.host.default_route(self.inner6)?;
        self.second_host.default_route(second_inner4)
    }
}

/// Every network here is a /24 or a /64.
fn with_length(address: &str) -> String {
    let length = if address.contains(':') { 64 } else { 24 };
    format!("{address}/{length}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::traffic::ping_all;

    #[test]
    fn clear_packets_between_the_offices_are_counted_and_blocked() {
        let lab = Lab::new().unwrap();
        let mut offices = Offices::build(&lab, Nat::None).unwrap();
        ping_all(&offices.a.host, offices.b.host4, 1).unwrap();
        ping_all(&offices.a.second_host, offices.b.second_host4, 1).unwrap();
        ping_all(&offices.a.host, offices.b.host6, 1).unwrap();
        assert_eq!(offices.counters().unwrap().leaked, 6);
        offices.block_all_but_tunnel().unwrap();
        assert!(ping_all(&offices.a.host, offices.b.host4, 1).is_err());
    }

    #[test]
    fn routers_before_both_translate() {
        let lab = Lab::new().unwrap();
        let offices = Offices::build(&lab, Nat::BeforeBoth).unwrap();
        assert_eq!(offices.links.len(), 3);
        ping_all(&offices.a.gateway, offices.b.public4, 1).unwrap();
        let send = "import socket,sys; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 500)); s.sendto(b'x', ('192.0.2.2', 500))";
        let receive = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 500)); print(s.recvfrom(9)[1][0], flush=True)";
        let mut receiver = offices.b.gateway.spawn(["python3", "-c", receive]).unwrap();
        crate::lab::wait_for(
            "receiver listens",
            std::time::Duration::from_secs(5),
            || {
                let listening = offices.b.gateway.exec(["ss", "-Hlun", "sport = :500"])?;
                Ok((!listening.is_empty()).then_some(()))
            },
        )
        .unwrap();
        offices.a.gateway.exec(["python3", "-c", send]).unwrap();
        receiver.wait(std::time::Duration::from_secs(5)).unwrap();
        assert_eq!(receiver.log().trim(), "192.0.2.1");
        assert_eq!(offices.counters().unwrap().tunnel, 3);
    }
}
