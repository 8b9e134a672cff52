//! strongSwan at either end, with everything around it done by hand: addresses translated, MSS
//! clamped, forwarding closed, policy routing mended.

use super::end::{Certificates, GATEWAY_NAME, POOL, SERVER_NAME, VpnEnd, accept_rules};
use crate::lab::process::last_lines;
use crate::lab::strongswan::{Auth, Child, Config, Connection, Setup, StrongSwan};
use crate::lab::world::{LAN, SERVER, World};
use crate::lab::{Failure, Lab, Namespace, Result};

const PROPOSALS: [&str; 3] = [
    "aes128gcm16-prfsha256-x25519",
    "aes256gcm16-prfsha384-ecp384",
    "aes128gcm16-prfsha512-ecp256",
];
const ESP_PROPOSALS: [&str; 2] = ["aes128gcm16", "aes256gcm16"];

/// A strongSwan as gateway or server.
pub(super) struct StrongSwanEnd {
    namespace: Namespace,
    setup: Setup,
    role: Role,
    peer: Option<StrongSwan>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Gateway,
    Server,
}

impl StrongSwanEnd {
    pub(super) fn server(world: &World, certificates: &Certificates) -> Self {
        let child = esp(Child::new("internet", &["0.0.0.0/0"], &[]));
        let connection = ike(Connection::new("clients", SERVER, "%any"))
            .local(Auth::certificate("server", SERVER_NAME))
            .remote(Auth::public_key("%any"))
            .pool("clients")
            .child(child);
        Self {
            namespace: world.server.clone(),
            setup: Setup {
                config: Config::of(connection).pool("clients", POOL),
                credentials: vec![("server".to_owned(), certificates.server.clone())],
                authorities: vec![certificates.authority.clone()],
                ..Setup::default()
            },
            role: Role::Server,
            peer: None,
        }
    }

    pub(super) fn gateway(world: &World, certificates: &Certificates) -> Self {
        let child = esp(Child::new("internet", &[], &["0.0.0.0/0"]));
        let connection = ike(Connection::new("home", "%any", SERVER))
            .local(Auth::certificate("gateway", GATEWAY_NAME))
            .remote(Auth::public_key(SERVER_NAME))
            .virtual_address("0.0.0.0")
            .child(child);
        Self {
            namespace: world.gateway.clone(),
            setup: Setup {
                config: Config::of(connection),
                credentials: vec![("gateway".to_owned(), certificates.gateway.clone())],
                authorities: vec![certificates.authority.clone()],
                ..Setup::default()
            },
            role: Role::Gateway,
            peer: None,
        }
    }

    fn prepare_server(&self) -> Result<()> {
        self.namespace.nft(&format!(
            "table inet vpn {{
chain forward {{
type filter hook forward priority 0;
iifname \"ipsec0\" tcp flags syn tcp option maxseg size set 1360
oifname \"ipsec0\" tcp flags syn tcp option maxseg size set 1360
}}
chain post {{
type nat hook postrouting priority 100;
ip saddr {POOL} oifname \"eth0\" masquerade
}}
}}
"
        ))
    }

    fn prepare_gateway(&self) -> Result<()> {
        // One leg: the kernel would tell the laptop of the router it came by.
        self.namespace
            .shell("for f in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 > $f; done")?;
        // charon's table 220 sends everything into the tunnel: not what is for the LAN or the server.
        // (The latter serves the reverse-path filter, which knows nothing of charon's mark.)
        self.namespace
            .ip(&format!("rule add pref 100 to {LAN} lookup main"))?;
        self.namespace
            .ip(&format!("rule add pref 101 to {SERVER} lookup main"))?;
        self.namespace.nft(
            "table inet vpn {
chain forward {
type filter hook forward priority 0; policy drop;
oifname \"ipsec0\" tcp flags syn tcp option maxseg size set 1360
iifname \"ipsec0\" tcp flags syn tcp option maxseg size set 1360
iifname \"ipsec0\" accept
oifname \"ipsec0\" accept
}
chain post {
type nat hook postrouting priority 100;
oifname \"ipsec0\" masquerade
}
}
",
        )
    }
}

impl VpnEnd for StrongSwanEnd {
    fn start(&mut self, lab: &Lab) -> Result<()> {
        match self.role {
            Role::Server => self.prepare_server()?,
            Role::Gateway => self.prepare_gateway()?,
        }
        self.peer = Some(StrongSwan::start(lab, &self.namespace, &self.setup)?);
        Ok(())
    }

    fn up(&mut self) -> Result<()> {
        let peer = self
            .peer
            .as_ref()
            .ok_or_else(|| Failure::new("strongSwan was not started"))?;
        match self.role {
            Role::Gateway => peer.initiate("internet"),
            Role::Server => Ok(()),
        }
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(peer) = &mut self.peer {
            peer.stop();
        }
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        self.peer
            .as_ref()
            .and_then(StrongSwan::pid)
            .into_iter()
            .collect()
    }

    fn firewall_advice(&self) -> Result<Vec<String>> {
        // What the operator of a strongSwan has to know.
        Ok(accept_rules("ipsec0"))
    }

    fn last_words(&self) -> String {
        self.peer
            .as_ref()
            .map_or_else(String::new, |peer| last_lines(&peer.log(), 20))
    }
}

fn ike(connection: Connection) -> Connection {
    PROPOSALS.iter().fold(connection, |connection, proposal| {
        connection.proposal(proposal)
    })
}

fn esp(child: Child) -> Child {
    ESP_PROPOSALS
        .iter()
        .fold(child, |child, proposal| child.proposal(proposal))
}
