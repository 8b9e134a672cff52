//! The server: strongSwan with its starter, configured as Algo configures it.

use super::super::failure::Result;
use super::super::strongswan::Starter;
use super::super::{Lab, Namespace};
use super::{Deployment, Year, write};
use std::fs;

/// What Algo enables, in strongSwan's own order, and ESP in user space, which has to come before kernel-netlink.
const PLUGINS: &str = "aes sha1 sha2 random nonce x509 revocation pubkey pkcs1 pkcs7 pkcs8 pkcs12 pgp pem openssl hmac \
    kdf gcm kernel-libipsec kernel-netlink socket-default stroke";

/// Starts it on `namespace`; returns when it waits for clients.
pub fn serve(lab: &Lab, namespace: &Namespace, deployment: &Deployment) -> Result<Starter> {
    let mut starter = Starter::prepare(lab, namespace)?;
    write_all(&starter, deployment)?;
    namespace.nft(&rules(deployment.year))?;
    // Today's authority has constraints of kinds that strongSwan does not know.
    let relaxed = match deployment.year {
        Year::Y2017 => "",
        Year::Y2026 => "x509 { enforce_critical = no }",
    };
    let settings = format!(
        "close_ike_on_child_failure = yes
  half_open_timeout = 5
  inactivity_close_ike = yes
  keep_alive = 25s
  {relaxed}"
    );
    starter.start(PLUGINS, &settings, "added configuration 'ikev2-pubkey'")?;
    Ok(starter)
}

fn write_all(starter: &Starter, deployment: &Deployment) -> Result<()> {
    let to = |name: &str| starter.directory().join(name);
    let address = &deployment.address;
    for (from, name) in [
        ("cacert.pem".to_owned(), "ipsec.d/cacerts/ca.crt".to_owned()),
        (
            format!("certs/{address}.crt"),
            format!("ipsec.d/certs/{address}.crt"),
        ),
        (
            format!("private/{address}.key"),
            format!("ipsec.d/private/{address}.key"),
        ),
    ] {
        write(&to(&name), fs::read(deployment.pki.join(from))?)?;
    }
    write(&to("ipsec.secrets"), format!(": ECDSA {address}.key\n"))?;
    write(&to("ipsec.conf"), conf(deployment))
}

fn conf(deployment: &Deployment) -> String {
    let address = &deployment.address;
    let (ike, esp) = deployment.year.proposals();
    let (v4, v6) = deployment.year.pools();
    let lifetimes = match deployment.year {
        Year::Y2017 => "",
        Year::Y2026 => "    lifetime=3h\n    ikelifetime=12h\n",
    };
    format!(
        "config setup
    uniqueids=never

conn %default
    fragmentation=yes
    rekey=no
    dpdaction=clear
    keyexchange=ikev2
    compress=yes
    dpddelay=35s
{lifetimes}
    ike={ike}
    esp={esp}

    left=%any
    leftauth=pubkey
    leftid={address}
    leftcert={address}.crt
    leftsendcert=always
    leftsubnet=0.0.0.0/0,::/0

    right=%any
    rightauth=pubkey
    rightsourceip={v4},{v6}
    rightdns=1.1.1.1,1.0.0.1

conn ikev2-pubkey
    auto=add
"
    )
}

/// Addresses of clients are translated, and TCP is made to fit the tunnel.
fn rules(year: Year) -> String {
    let (v4, _) = year.pools();
    format!(
        "table inet vpn {{
chain forward {{
type filter hook forward priority 0;
iifname \"ipsec0\" tcp flags syn tcp option maxseg size set 1360
oifname \"ipsec0\" tcp flags syn tcp option maxseg size set 1360
}}
chain post {{
type nat hook postrouting priority 100;
ip saddr {v4} oifname \"eth0\" masquerade
}}
}}
"
    )
}
