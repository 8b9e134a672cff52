//! What a router does to packets: masquerading, forwarded ports, a foreign firewall.

use super::failure::Result;
use super::link::counter;
use super::namespace::Namespace;

/// Hides everything that leaves by `outside` behind the address of that interface.
pub fn masquerade(router: &Namespace, outside: &str) -> Result<()> {
    router.nft(&format!(
        "table ip nat_out {{\nchain post {{\ntype nat hook postrouting priority 100;\noifname \"{outside}\" masquerade\n}}\n}}\n"
    ))
}

/// Sends UDP 500 and 4500 that come in by `outside` to a host inside.
pub fn forward_ike(router: &Namespace, outside: &str, to: &str) -> Result<()> {
    router.nft(&format!(
        "table ip nat_in {{\nchain pre {{\ntype nat hook prerouting priority -100;\niifname \"{outside}\" udp dport {{ 500, 4500 }} dnat to {to}\n}}\n}}\n"
    ))
}

/// Forgets all mappings, as a router does that was restarted: the next packet gets a new port.
pub fn forget_mappings(router: &Namespace, first_port: u16, outside: &str) -> Result<()> {
    // A different port range makes sure that the new mapping differs from the old one.
    router.nft(&format!(
        "table ip nat_out\ndelete table ip nat_out\ntable ip nat_out {{\nchain post {{\ntype nat hook postrouting priority 100;\noifname \"{outside}\" ip protocol udp masquerade to :{first_port}-{}\noifname \"{outside}\" masquerade\n}}\n}}\n",
        first_port.saturating_add(500)
    ))?;
    flush_connections(router)
}

/// Empties the table of connections without `conntrack(8)`: the entries belong to a zone of rules that
/// this sysctl pair makes expire.
fn flush_connections(router: &Namespace) -> Result<()> {
    router.shell(
        "cd /proc/sys/net/netfilter; u=$(cat nf_conntrack_udp_timeout) s=$(cat nf_conntrack_udp_timeout_stream); \
         echo 0 > nf_conntrack_udp_timeout; echo 0 > nf_conntrack_udp_timeout_stream; sleep 1; \
         echo $u > nf_conntrack_udp_timeout; echo $s > nf_conntrack_udp_timeout_stream",
    )?;
    Ok(())
}

/// A firewall that is not ours, whose forward hook drops: what Docker, ufw or firewalld leave behind.
pub fn foreign_firewall(host: &Namespace) -> Result<()> {
    host.nft(
        "table inet foreign {\nchain forward {\ntype filter hook forward priority 0; policy drop;\nct state established,related accept\n}\n}\n",
    )
}

/// A router's own watch: of what it forwards to and from the provider, before its NAT touches it,
/// everything that is not UDP 500/4500 between `inside` and `outside_peer` is counted as leaked.
#[derive(Debug)]
pub struct ForwardWatch<'a> {
    router: &'a Namespace,
}

impl<'a> ForwardWatch<'a> {
    /// Starts to count on `router`, whose provider is at the interface `provider`.
    pub fn start(
        router: &'a Namespace,
        provider: &str,
        inside: &str,
        outside_peer: &str,
    ) -> Result<Self> {
        // Forward comes before postrouting, where the source is translated, and for answers after
        // prerouting, where the translation was undone: both directions show the inner address.
        router.nft(&format!(
            "table inet watch\ndelete table inet watch\ntable inet watch {{\n\
             counter tunnel {{ }}\ncounter leaked {{ }}\n\
             chain forward {{\ntype filter hook forward priority -5; policy accept;\n\
             oifname \"{provider}\" ip saddr {inside} ip daddr {outside_peer} udp dport {{ 500, 4500 }} counter name tunnel accept\n\
             iifname \"{provider}\" ip saddr {outside_peer} ip daddr {inside} udp sport {{ 500, 4500 }} counter name tunnel accept\n\
             oifname \"{provider}\" counter name leaked accept\n\
             iifname \"{provider}\" counter name leaked accept\n}}\n}}\n"
        ))?;
        Ok(Self { router })
    }

    /// Packets of the tunnel, and packets of anything else, so far.
    pub fn counts(&self) -> Result<(u64, u64)> {
        let text = self
            .router
            .exec(["nft", "-j", "list", "counters", "table", "inet", "watch"])?;
        Ok((counter(&text, "tunnel")?, counter(&text, "leaked")?))
    }
}
