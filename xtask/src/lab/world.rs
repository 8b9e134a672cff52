//! The demo's world: a home, a provider, an internet, and a rented machine.
//!
//! ```text
//!  laptop .20 ──┐
//!  phone  .21 ──┤ switch         home router            internet              server's router
//!  gateway .2 ──┤ 192.168.1.0/24 .1 ├─ NAT ─┤ 203.0.113.2 ═══ .1 │ 192.0.2.1 ─── .2 │ .17 ── server
//!               └────────────────┘                               │                     192.0.2.18
//!                                                                └─ web host 198.51.100.80
//! ```
//!
//! The gateway has one leg. At first laptop and phone send everything to the home router.

use super::Lab;
use super::failure::{Context, Result};
use super::link::{Link, LinkCounters};
use super::namespace::{End, Namespace, Switch, wire};
use super::nat::{self, ForwardWatch};
use super::process::{Process, wait_for};
use super::traffic::fetch;
use crate::project;
use std::time::Duration;

/// The home network.
pub const LAN: &str = "192.168.1.0/24";
/// The home router in it.
pub const ROUTER: &str = "192.168.1.1";
/// The gateway box in it.
pub const GATEWAY: &str = "192.168.1.2";
/// What the internet sees of the home.
pub const HOME_PUBLIC: &str = "203.0.113.2";
/// The VPN server.
pub const SERVER: &str = "192.0.2.18";
/// The web host.
pub const WEB: &str = "198.51.100.80";
/// The port of the web host.
pub const WEB_PORT: u16 = 80;

/// All hosts of it.
#[derive(Debug)]
pub struct World {
    /// A host of the LAN that knows nothing of VPNs.
    pub laptop: Namespace,
    /// Another one.
    pub phone: Namespace,
    /// The box; its one interface is `eth0`.
    pub gateway: Namespace,
    /// The home router: `lan` and `wan`.
    pub router: Namespace,
    /// The router in the middle.
    pub internet: Namespace,
    /// The web host.
    pub web: Namespace,
    /// The rented machine; its one interface is `eth0`.
    pub server: Namespace,
    /// The router before it.
    pub server_router: Namespace,
    /// The wire between the home router and its provider.
    pub provider: Link,
    switch: Switch,
    _web_host: Process,
}

impl World {
    /// Builds it; all hosts can talk when this returns.
    pub fn build(lab: &Lab) -> Result<Self> {
        let switch = Switch::on(lab.host("switch")?)?;
        let laptop = lab.host("laptop")?;
        let phone = lab.host("phone")?;
        let gateway = lab.host("gateway")?;
        let router = lab.router("router")?;
        let internet = lab.router("internet")?;
        let web = lab.host("web")?;
        let server_router = lab.router("srouter")?;
        let server = lab.host("server")?;

        let home = [
            (&router, "lan", "192.168.1.1/24", "fd00:192:168:1::1/64"),
            (&gateway, "eth0", "192.168.1.2/24", "fd00:192:168:1::2/64"),
            (&laptop, "eth0", "192.168.1.20/24", "fd00:192:168:1::20/64"),
            (&phone, "eth0", "192.168.1.21/24", "fd00:192:168:1::21/64"),
        ];
        for (host, interface, v4, v6) in home {
            switch.plug(&End::new(host, interface, &[v4, v6]))?;
        }
        let provider = Link::join(
            lab.host("provider")?,
            &End::new(&router, "wan", &["203.0.113.2/30"]),
            &End::new(&internet, "home", &["203.0.113.1/30"]),
            &[HOME_PUBLIC],
            &[SERVER],
        )?;
        wire(
            &End::new(&internet, "web", &["198.51.100.1/24"]),
            &End::new(&web, "eth0", &["198.51.100.80/24"]),
        )?;
        wire(
            &End::new(&internet, "rented", &["192.0.2.1/30"]),
            &End::new(&server_router, "outside", &["192.0.2.2/30"]),
        )?;
        wire(
            &End::new(&server_router, "inside", &["192.0.2.17/28"]),
            &End::new(&server, "eth0", &["192.0.2.18/28"]),
        )?;
        for host in [&laptop, &phone, &gateway] {
            host.default_route(ROUTER)?;
        }
        router.default_route("203.0.113.1")?;
        nat::masquerade(&router, "wan")?;
        web.default_route("198.51.100.1")?;
        internet.ip("route add 192.0.2.16/28 via 192.0.2.2")?;
        server_router.default_route("192.0.2.1")?;
        server.default_route("192.0.2.17")?;

        let listen = format!("[::]:{WEB_PORT}");
        let mut web_host =
            web.spawn_exec(project::own_command(&["webhost", "--listen", &listen]))?;
        wait_for("the web host listens", Duration::from_secs(5), || {
            crate::ensure!(
                web_host.is_running(),
                "the web host ended: {}",
                web_host.last_words()
            );
            Ok(web.listens_tcp(WEB_PORT)?.then_some(()))
        })?;
        Ok(Self {
            laptop,
            phone,
            gateway,
            router,
            internet,
            web,
            server,
            server_router,
            provider,
            switch,
            _web_host: web_host,
        })
    }

    /// One more host of the LAN, with this number in its addresses, that sends everything to the box.
    pub fn plug_in(&self, lab: &Lab, name: &str, number: u8) -> Result<Namespace> {
        let host = lab.host(name)?;
        let v4 = format!("192.168.1.{number}/24");
        let v6 = format!("fd00:192:168:1::{number}/64");
        self.switch.plug(&End::new(&host, "eth0", &[&v4, &v6]))?;
        host.default_route(GATEWAY)?;
        Ok(host)
    }

    /// The address that the web host sees when `host` asks.
    pub fn seen_as(&self, host: &Namespace) -> Result<String> {
        fetch(host, &format!("http://{WEB}/")).context(format!("{} asks the web host", host.name()))
    }

    /// The box's cable, out or in. It is the second that was plugged in.
    pub fn plug_box(&self, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        let switch = self.switch.namespace();
        switch.ip(&format!("link set port1 {state}")).map(drop)
    }

    /// Makes laptop and phone send what is not for the LAN to the box, as its DHCP server would.
    pub fn route_through_gateway(&self) -> Result<()> {
        [&self.laptop, &self.phone]
            .iter()
            .try_for_each(|host| host.default_route(GATEWAY))
    }

    /// Makes laptop and phone send it to the home router again.
    pub fn route_directly(&self) -> Result<()> {
        [&self.laptop, &self.phone]
            .iter()
            .try_for_each(|host| host.default_route(ROUTER))
    }

    /// Starts to count what the home sends to and gets from its provider.
    pub fn watch(&self) -> Result<Watch<'_>> {
        self.provider.reset()?;
        Ok(Watch {
            before_nat: ForwardWatch::start(&self.router, "wan", GATEWAY, SERVER)?,
            provider: &self.provider,
        })
    }
}

/// Two counts of the same: in the home router before its NAT, and on the provider's link behind it.
#[derive(Debug)]
pub struct Watch<'a> {
    before_nat: ForwardWatch<'a>,
    provider: &'a Link,
}

impl Watch<'_> {
    /// What passed so far; of what was counted at both places, the larger number.
    pub fn counters(&self) -> Result<LinkCounters> {
        let (before_nat, link) = (self.before_nat.counters()?, self.provider.counters()?);
        Ok(LinkCounters {
            // The link's own count holds what the router never forwarded, too.
            tunnel: before_nat.tunnel,
            icmp_errors: before_nat.icmp_errors.max(link.icmp_errors),
            leaked: before_nat.leaked.max(link.leaked),
        })
    }

    /// Who sent what leaked, as far as the provider's link saw it.
    pub fn leaks(&self) -> Result<String> {
        self.provider.leaks()
    }

    /// Octets of the tunnel's packets, as the router forwards them.
    pub fn tunnelled_octets(&self) -> Result<u64> {
        self.before_nat.tunnelled_octets()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::traffic::ping_all;

    // The web host is a command of the program itself, which a test binary does not have: this
    // builds everything else through the same steps by hand of `ping`.
    #[test]
    fn a_leak_is_counted_before_the_routers_nat() {
        let lab = Lab::new().unwrap();
        let (host, router, far) = (
            lab.host("host").unwrap(),
            lab.router("router").unwrap(),
            lab.host("far").unwrap(),
        );
        wire(
            &End::new(&host, "eth0", &["192.168.1.2/24"]),
            &End::new(&router, "lan", &["192.168.1.1/24"]),
        )
        .unwrap();
        wire(
            &End::new(&router, "wan", &["192.0.2.17/24"]),
            &End::new(&far, "eth0", &["192.0.2.18/24"]),
        )
        .unwrap();
        host.default_route("192.168.1.1").unwrap();
        nat::masquerade(&router, "wan").unwrap();
        let watch = ForwardWatch::start(&router, "wan", GATEWAY, SERVER).unwrap();
        ping_all(&host, SERVER, 2).unwrap();
        let seen = watch.counters().unwrap();
        assert_eq!((seen.tunnel, seen.leaked), (0, 4));
        let send = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('192.0.2.18', 4500))";
        host.exec(["python3", "-c", send]).unwrap();
        let seen = watch.counters().unwrap();
        // Nobody listens there: an ICMP error comes back, which quotes the tunnel's datagram.
        assert_eq!((seen.tunnel, seen.icmp_errors, seen.leaked), (1, 1, 4));
    }
}
