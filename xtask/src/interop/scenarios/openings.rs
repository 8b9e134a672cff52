//! Initial exchanges that take a detour: cookies, another group, fragments, a lossy link.

use super::super::Scenario;
use super::super::pair::{Pair, SOON};
use super::super::plan::{NET, OFFICE, Plan, Proof, Role};
use crate::ensure;
use crate::lab::pki::{Authority, Credential, KeyKind, Request};
use crate::lab::{Failure, Lab, Namespace, Result, join, on_host, wait_for};
use std::net::{IpAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = vec![
        Scenario::new(
            "cookie-initiator",
            "strongSwan has half-open IKE SAs and wants a cookie",
            cookie_initiator,
        ),
        Scenario::new(
            "cookie-responder",
            "Cygnet has half-open IKE SAs and wants a cookie",
            cookie_responder,
        ),
    ];
    for role in Role::BOTH {
        let mut add = |name: &str, about: &str, play: fn(&Lab, Role) -> Result<String>| {
            let name = format!("{name}-{}", role.name());
            all.push(Scenario::new(name, about, move |lab| play(lab, role)));
        };
        add(
            "invalid-ke",
            "the initiator guesses a group that the responder does not have",
            invalid_ke,
        );
        add(
            "invalid-ke-child-by-cygnet",
            "Cygnet rekeys a child with a group that strongSwan does not have",
            |lab, role| invalid_ke_child(lab, role, true),
        );
        add(
            "invalid-ke-child-by-strongswan",
            "strongSwan rekeys a child with a group that Cygnet does not have",
            |lab, role| invalid_ke_child(lab, role, false),
        );
        add(
            "defaults",
            "neither end has proposals of its own, MOBIKE is offered",
            defaults,
        );
        add(
            "no-certreq",
            "strongSwan does not ask for our certificate, but needs it",
            |lab, role| {
                let plan = Plan::certificates(role, KeyKind::EcP256)?;
                let plan = plan.swan_set("send_certreq", "no");
                Pair::connected(lab, plan)?.carry()
            },
        );
        add(
            "big-chain",
            "RSA of 4096 bits below two intermediates: both send IKE fragments",
            |lab, role| big_chain(lab, role, true),
        );
        add(
            "big-chain-unfragmented",
            "the same with a strongSwan that knows no IKE fragments: IP fragments",
            |lab, role| big_chain(lab, role, false),
        );
        add(
            "lossy-link",
            "a tenth of all packets is lost while the tunnel comes up and is rekeyed",
            lossy,
        );
    }
    all
}

/// A proposal whose KE payload may hold any 32 octets.
const ANY_KEY: &str = "aes128gcm16-prfsha256-x25519";

fn cookie_initiator(lab: &mut Lab) -> Result<String> {
    let plan = Plan::shared_key(Role::Initiator)
        .suite(ANY_KEY, "aes128gcm16")
        .swan_daemon("cookie_threshold = 1");
    let pair = Pair::start(lab, plan)?;
    let (near, far) = (pair.near(), pair.far());
    knock(&near.gateway, near.outer4, far.outer4, 1)?;
    pair.swan.wait_for_log("IKE_SA_INIT response", SOON)?;
    pair.connect()?;
    let line = pair.swan.wait_for_log("[ N(COOKIE) SA", SOON)?;
    pair.carry()?;
    Ok(told(&line))
}

fn cookie_responder(lab: &mut Lab) -> Result<String> {
    let plan = Plan::shared_key(Role::Responder).suite(ANY_KEY, "aes128gcm16");
    let mut pair = Pair::start(lab, plan)?;
    let target = pair.near().outer4;
    let knocker = pair.far().gateway.clone();
    // More strangers than one address may have half open.
    for link in &mut pair.offices.links {
        link.block_all_but_tunnel(false)?;
    }
    for last in 100..110 {
        let source = format!("192.0.2.{last}");
        knocker.ip(&format!("addr add {source}/24 dev wan"))?;
        knock(&knocker, &source, target, 8)?;
    }
    pair.cygnet
        .wait_for_log("cookies are asked for", SOON)
        .map_err(|failure| pair.with_log(failure))?;
    pair.offices.block_all_but_tunnel()?;
    pair.connect()?;
    let line = pair.swan.wait_for_log("response 0 [ N(COOKIE) ]", SOON)?;
    pair.carry()?;
    Ok(told(&line))
}

/// What a line of a log says, without time and thread.
fn told(line: &str) -> String {
    line.split_once("> ")
        .map_or(line, |(_, text)| text)
        .trim()
        .to_owned()
}

/// Sends IKE_SA_INIT requests from nowhere, which leave half-open IKE SAs behind.
fn knock(host: &Namespace, from: &str, to: &str, times: u8) -> Result<()> {
    let from: IpAddr = from.parse()?;
    let to: IpAddr = to.parse()?;
    let thread = on_host(host, move || {
        let socket = UdpSocket::bind((from, 0))?;
        let salt = from.to_string();
        for number in 1..=times {
            socket.send_to(&init_request(number, salt.as_bytes()), (to, 500))?;
        }
        Ok(())
    });
    join(thread)
}

/// IKE_SA_INIT (RFC 7296 §1.2) that proposes [`ANY_KEY`].
fn init_request(number: u8, salt: &[u8]) -> Vec<u8> {
    let transforms: [&[u8]; 3] = [
        // ENCR_AES_GCM_16 with a key of 128 bits, PRF_HMAC_SHA2_256, Curve25519
        &[3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 0, 128],
        &[3, 0, 0, 8, 2, 0, 0, 5],
        &[0, 0, 0, 8, 4, 0, 0, 31],
    ];
    let transforms = transforms.concat();
    let length = u8::try_from(transforms.len()).unwrap_or_default();
    let proposal = [&[0, 0, 0, length + 8, 1, 1, 0, 3][..], &transforms].concat();
    let sa = [&[34, 0, 0, length + 12][..], &proposal].concat();
    let ke = [&[40, 0, 0, 40, 0, 31, 0, 0][..], &[number; 32]].concat();
    let nonce = [&[41, 0, 0, 36][..], &[number; 32]].concat();
    // NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP, of a caller behind a NAT.
    let source = [&[41, 0, 0, 28, 0, 0, 0x40, 4][..], &[number; 20]].concat();
    let destination = [&[0, 0, 0, 28, 0, 0, 0x40, 5][..], &[number; 20]].concat();
    let mut spi = [number; 8];
    for (octet, salt) in spi.iter_mut().zip(salt.iter().rev()) {
        *octet ^= salt;
    }
    let body = [sa, ke, nonce, source, destination].concat();
    let total = u8::try_from(28 + body.len()).unwrap_or_default();
    let header = [
        &spi[..],
        &[0; 8],
        &[33, 0x20, 34, 0x08],
        &[0; 4],
        &[0, 0, 0, total],
    ];
    [header.concat(), body].concat()
}

fn invalid_ke(lab: &Lab, role: Role) -> Result<String> {
    let mut plan = Plan::shared_key(role);
    let both = vec!["aes128gcm16-prfsha256-x25519-ecp384".to_owned()];
    let one = vec!["aes128gcm16-prfsha256-ecp384".to_owned()];
    (plan.cygnet.ike, plan.swan.ike) = match role {
        Role::Initiator => (both, one),
        Role::Responder => (one, both),
    };
    let pair = Pair::connected(lab, plan)?;
    let line = pair.swan.wait_for_log(
        match role {
            Role::Initiator => "N(INVAL_KE)",
            Role::Responder => "it requested ECP_384",
        },
        SOON,
    )?;
    pair.carry()?;
    Ok(told(&line))
}

fn invalid_ke_child(lab: &Lab, role: Role, by_cygnet: bool) -> Result<String> {
    let mut plan = Plan::shared_key(role);
    let both = vec!["aes128gcm16-x25519-ecp384".to_owned()];
    let one = vec!["aes128gcm16-ecp384".to_owned()];
    (plan.cygnet.esp, plan.swan.esp) = if by_cygnet { (both, one) } else { (one, both) };
    let pair = Pair::connected(lab, plan)?;
    let old = pair.wait_for_child(NET)?;
    if by_cygnet {
        pair.cygnet.request(OFFICE, "rekey", Some(NET))?;
    } else {
        pair.swan.rekey_child(NET)?;
    }
    wait_for("the child has new keys", SOON, || {
        Ok((pair.wait_for_child(NET)?.spi_in != old.spi_in).then_some(()))
    })
    .map_err(|failure| pair.with_log(failure))?;
    let child = pair.swan.child(NET)?;
    ensure!(
        child.facts.get("dh-group").map(String::as_str) == Some("ECP_384"),
        "strongSwan has {:?}",
        child.facts
    );
    pair.carry()
}

fn defaults(lab: &Lab, role: Role) -> Result<String> {
    let mut plan = Plan::certificates(role, KeyKind::EcP256)?.swan_set("mobike", "yes");
    for party in [&mut plan.cygnet, &mut plan.swan] {
        (party.ike, party.esp) = (Vec::new(), Vec::new());
    }
    let pair = Pair::connected(lab, plan)?;
    let suite = pair.ike_sa()?.0.suite.unwrap_or_default();
    ensure!(
        suite.contains("gcm16") || suite.contains("chacha20poly1305"),
        "the suite is {suite}"
    );
    let child = pair.wait_for_child(NET)?.suite;
    pair.carry()?;
    Ok(format!("{suite}, {child}"))
}

/// A root, two authorities below it, and a certificate for each end; RSA keys of this size take
/// seconds to make, so they are made once.
fn long_chains() -> Result<(String, Credential, Credential)> {
    static MADE: Mutex<Option<(String, Credential, Credential)>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(made) = &*made {
        return Ok(made.clone());
    }
    let root = Authority::root(KeyKind::Rsa4096, "old root")?;
    let upper = root.intermediate(KeyKind::Rsa4096, "upper authority")?;
    let lower = upper.intermediate(KeyKind::Rsa4096, "lower authority")?;
    let issue = |name: &str| lower.issue(&Request::new(KeyKind::Rsa4096, name).name(name));
    let (cygnet, swan) = (
        issue(super::super::plan::CYGNET)?,
        issue(super::super::plan::SWAN)?,
    );
    Ok(made.insert((root.certificate, cygnet, swan)).clone())
}

fn big_chain(lab: &Lab, role: Role, fragments: bool) -> Result<String> {
    let (root, cygnet, swan) = long_chains()?;
    let mut plan = Plan::shared_key(role);
    for (party, credential) in [(&mut plan.cygnet, cygnet), (&mut plan.swan, swan)] {
        party.proof = Proof::Certificate(Box::new(credential));
        party.trusts = vec![root.clone()];
    }
    if !fragments {
        plan = plan.swan_set("fragmentation", "no");
    }
    let pair = Pair::connected(lab, plan)?;
    let log = pair.swan.log();
    let sent = log
        .lines()
        .find(|line| line.contains("splitting IKE message"));
    let received = log
        .lines()
        .find(|line| line.contains("received fragment #"));
    ensure!(
        sent.is_some() == fragments && received.is_some() == fragments,
        "fragments sent by strongSwan: {sent:?}, received: {received:?}"
    );
    let carried = pair.carry()?;
    Ok(sent.map_or(carried, told))
}

fn lossy(lab: &Lab, role: Role) -> Result<String> {
    let plan = Plan::shared_key(role)
        .cygnet_line("retransmit = { first = \"0.2s\", factor = 1.2, tries = 12 }")
        .swan_daemon("retransmit_timeout = 0.2")
        .swan_daemon("retransmit_base = 1.2")
        .swan_daemon("retransmit_tries = 12");
    let mut pair = Pair::start(lab, plan)?;
    pair.offices
        .links
        .iter_mut()
        .try_for_each(|link| link.lose(10))?;
    pair.connect()?;
    for by_cygnet in [true, false] {
        let old = pair.wait_for_child(NET)?;
        if by_cygnet {
            pair.cygnet.request(OFFICE, "rekey", Some(NET))?;
        } else {
            pair.swan.rekey_child(NET)?;
        }
        wait_for("the child has new keys", SOON, || {
            Ok((pair.wait_for_child(NET)?.spi_in != old.spi_in).then_some(()))
        })
        .map_err(|failure| pair.with_log(failure))?;
    }
    pair.offices
        .links
        .iter_mut()
        .try_for_each(|link| link.lose(0))?;
    // A request that was still being repeated is over when the one after it is answered.
    wait_for("pings are answered", Duration::from_secs(5), || {
        let near = &pair.near().host;
        let once = near.finish(["ping", "-n", "-c1", "-W1", pair.far().host4])?;
        Ok(once.success().then_some(()))
    })?;
    pair.carry()
        .map_err(|failure| Failure::new(format!("after the losses: {failure}")))
}
