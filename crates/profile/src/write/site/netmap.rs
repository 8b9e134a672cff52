//! The translation that strongSwan and libreswan leave to the gateway's firewall.

use std::fmt::Write;

use ipnet::IpNet;

use super::{list, secret_file};
use crate::site::Site;
use crate::write::File;

/// Rules by address, which do the same whether ESP is the kernel's or has an interface. Before other translation: what
/// comes first decides.
pub(super) fn file(site: &Site) -> File {
    let table = format!("cygnet_site_{}", site.name.replace('-', "_"));
    let mut text = format!(
        "\
# The other office knows this one's networks by other addresses. This translates, on the gateway of this office:
#   nft -f {name}.nft
# To have it after a restart, too, name the file in /etc/nftables.conf: include \"/etc/{name}.nft\"
table inet {table}
delete table inet {table}
table inet {table} {{
",
        name = site.name
    );
    let theirs = site.there.shown();
    for (chain, hook, far, near, verb) in [
        (
            "inwards",
            "prerouting priority -110",
            "saddr",
            "daddr",
            "dnat",
        ),
        (
            "outwards",
            "postrouting priority 90",
            "daddr",
            "saddr",
            "snat",
        ),
    ] {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\tchain {chain} {{\n\t\ttype nat hook {hook}; policy accept;\n"
        );
        for net in site.here.networks.iter().filter(|net| net.own != net.shown) {
            let alike = |other: &IpNet| other.addr().is_ipv4() == net.own.addr().is_ipv4();
            let theirs: Vec<IpNet> = theirs.iter().copied().filter(alike).collect();
            if theirs.is_empty() {
                continue;
            }
            let keyword = if net.own.addr().is_ipv4() {
                "ip"
            } else {
                "ip6"
            };
            let (from, to) = match verb {
                "dnat" => (net.shown, net.own),
                _ => (net.own, net.shown),
            };
            let _ = writeln!(
                text,
                "\t\t{keyword} {far} {{ {} }} {keyword} {near} {from} {verb} {keyword} prefix to {to}",
                list(&theirs, ", ")
            );
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    secret_file(format!("{}.nft", site.name), &[&text])
}
