//! DSCP and ECN between inner and outer header (RFC 4301 §5.1.2, RFC 6040).

use super::super::Scenario;
use super::super::pair::Pair;
use super::super::plan::{Plan, Role};
use crate::ensure;
use crate::lab::{Context, Failure, Lab, Namespace, Result};

pub(super) fn scenarios() -> Vec<Scenario> {
    Role::BOTH
        .into_iter()
        .map(|role| {
            Scenario::new(
                format!("dscp-ecn-{}", role.name()),
                "DSCP and ECN are copied outwards; congestion on the way is told inwards",
                move |lab| marks(lab, role),
            )
        })
        .collect()
}

/// Echo requests.
const PINGS: u64 = 5;
/// Expedited forwarding, ECT(1).
const MARKED: &str = "0xb9";

fn marks(lab: &Lab, role: Role) -> Result<String> {
    let pair = Pair::connected(lab, Plan::shared_key(role))?;
    let (near, far) = (pair.near(), pair.far());
    // Before strongSwan opens them; and as if a router on the way back were congested.
    far.gateway.nft(
        "table ip marks {\ncounter copied { }\n\
         chain in {\ntype filter hook prerouting priority -300;\n\
         udp dport { 500, 4500 } ip dscp ef ip ecn ect1 counter name copied\n}\n\
         chain out {\ntype filter hook output priority -150;\n\
         udp sport { 500, 4500 } ip ecn set ce\n}\n}\n",
    )?;
    near.host.nft(
        "table ip marks {\ncounter congested { }\ncounter answers { }\n\
         chain in {\ntype filter hook prerouting priority -300;\n\
         icmp type echo-reply counter name answers\n\
         icmp type echo-reply ip dscp ef ip ecn ce counter name congested\n}\n}\n",
    )?;
    let count = PINGS.to_string();
    let argv = [
        "ping", "-n", "-q", "-Q", MARKED, "-i", "0.2", "-c", &count, far.host4,
    ];
    near.host
        .exec(argv)
        .map_err(|failure| pair.with_log(failure))?;
    let copied = counted(&far.gateway, "copied")?;
    ensure!(
        copied == PINGS,
        "{PINGS} packets with DSCP EF and ECT(1) went in, {copied} came out of Cygnet so marked"
    );
    let (answers, congested) = (
        counted(&near.host, "answers")?,
        counted(&near.host, "congested")?,
    );
    ensure!(
        answers == PINGS && congested == PINGS,
        "of {answers} answers whose outer header said CE, {congested} said so inside"
    );
    // Who did not say that it understands ECN is not told of congestion but loses the packet.
    let dropped = near
        .host
        .finish(["ping", "-n", "-q", "-c", "1", "-W", "1", far.host4])?;
    let drops = pair.cygnet.drops_by("esp-ecn")?;
    ensure!(
        !dropped.success() && drops == 1,
        "a packet without ECN under CE outside should be dropped; {drops} were"
    );
    Ok(format!(
        "{PINGS} packets marked outside as inside, and back"
    ))
}

fn counted(host: &Namespace, name: &str) -> Result<u64> {
    let text = host.exec(["nft", "list", "counter", "ip", "marks", name])?;
    let mut words = text
        .split_whitespace()
        .skip_while(|word| *word != "packets");
    let count = words.nth(1).ok_or_else(|| Failure::new(text.clone()))?;
    count.parse().context(count)
}
