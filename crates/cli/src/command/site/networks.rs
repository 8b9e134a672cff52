//! Which networks the two offices have, by which names they know each other's, and whether that can be.

use cygnet_gateway::{Mapping, overlap};
use cygnet_profile::site::Network;
use ipnet::IpNet;

use super::super::import::sections::Sections;
use super::super::server::network::{Around, around};
use crate::args::site::Add;

/// The networks of this office, and of the other.
pub(super) fn judge(
    options: &Add,
    sections: &Sections,
) -> Result<(Vec<Network>, Vec<Network>), String> {
    let around = around(&sections.interfaces()).map_err(|error| error.to_string())?;
    // What the other office sends there would go to the internet otherwise.
    around.leads_to(&options.local)?;
    let claimed = sections.remote_networks();
    let wanted = Wanted {
        local: &options.local,
        local_map: &options.local_map,
        remote: &options.remote_nets,
        remote_map: &options.remote_map,
    };
    let both = wanted.judge(&around, &claimed)?;
    let (local, remote) = &both;
    let several = |nets: &[Network]| nets.len() > 1;
    if (several(local) || several(remote))
        && !cygnet_profile::write::Gateway::from(options.program).takes_lists()
    {
        return Err(
            "such a gateway negotiates one network of each side at a time: give one --local-net and one --remote-net, and write \
             further pairs by hand, as [tunnel.NAME.child.CHILD]"
                .into(),
        );
    }
    Ok(both)
}

struct Wanted<'a> {
    local: &'a [IpNet],
    local_map: &'a [IpNet],
    remote: &'a [IpNet],
    remote_map: &'a [IpNet],
}

impl Wanted<'_> {
    /// `claimed`: where other tunnels lead.
    fn judge(
        &self,
        machine: &Around,
        claimed: &[(String, IpNet)],
    ) -> Result<(Vec<Network>, Vec<Network>), String> {
        self.need_maps(machine, claimed)?;
        let local = pairs(self.local, self.local_map, "--local-map", "--local-net")?;
        let remote = pairs(self.remote, self.remote_map, "--remote-map", "--remote-net")?;
        let mut names: Vec<IpNet> = Vec::new();
        for net in local.iter().chain(&remote) {
            if let Some(other) = names.iter().find(|other| overlap(other, &net.shown)) {
                return Err(format!(
                    "{} and {other} overlap: of the networks by which the offices know each other, none may",
                    net.shown
                ));
            }
            names.push(net.shown);
        }
        for (option, of, mapped, present) in [
            (
                "--remote-map",
                self.remote,
                &remote,
                [self.local, &machine.interfaces[..]],
            ),
            ("--local-map", self.local, &local, [self.remote, &[][..]]),
        ] {
            for net in mapped.iter().filter(|net| net.own != net.shown) {
                let mut present = present.iter().copied().flatten();
                if let Some(other) = present.find(|other| overlap(other, &net.shown)) {
                    return Err(format!(
                        "{option} {} overlaps {other}, a network of the office that is to know it by that name{}",
                        net.shown,
                        self.offer(option, of, machine, claimed)
                    ));
                }
            }
        }
        for net in &remote {
            // A tunnel to everything leaves room for an office; a network within another is written by hand.
            let other = (claimed.iter()).find(|(_, other)| {
                *other == net.shown || (other.prefix_len() > 0 && overlap(other, &net.shown))
            });
            if let Some((tunnel, other)) = other {
                let what = match *other == net.shown {
                    true => format!("{other} already"),
                    false => format!("{other}, which overlaps {}", net.shown),
                };
                return Err(format!(
                    "the tunnel {tunnel} leads to {what}: take that one out of the configuration, or have the other office \
                     known by another network{}",
                    self.offer("--remote-map", self.remote, machine, claimed)
                ));
            }
        }
        Ok((local, remote))
    }

    /// Where a network of the other office is one of this office, too, each has to be known by another name in the other.
    fn need_maps(&self, machine: &Around, claimed: &[(String, IpNet)]) -> Result<(), String> {
        let local = || self.local.iter().chain(&machine.interfaces);
        let clash = self
            .remote
            .iter()
            .find_map(|net| Some((net, local().find(|own| overlap(own, net))?)));
        let Some((net, own)) = clash else {
            return Ok(());
        };
        let mut taken = Vec::new();
        let mut missing = String::new();
        for (option, of, given) in [
            ("--local-map", self.local, self.local_map),
            ("--remote-map", self.remote, self.remote_map),
        ] {
            if !given.is_empty() {
                taken.extend_from_slice(given);
                continue;
            }
            match self.free(of, machine, claimed, &mut taken) {
                Some(free) => missing.push_str(&format!(" {option} {free}")),
                None => {
                    return Err(format!(
                        "{net} of the other office overlaps {own} of this one, and no network of that size is free to stand for \
                         it: renumber one of the two"
                    ));
                }
            }
        }
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "{net} of the other office overlaps {own} of this one: let each be known to the other by another network, which is \
                 translated host by host. These are free here:{missing}\n(make sure that the other office does not have them; a \
                 larger network around a smaller one is written by hand, as [tunnel.NAME])"
            )),
        }
    }

    fn offer(
        &self,
        option: &str,
        of: &[IpNet],
        machine: &Around,
        claimed: &[(String, IpNet)],
    ) -> String {
        match self.free(of, machine, claimed, &mut Vec::new()) {
            Some(free) => format!(" ({option} {free} is free here)"),
            None => String::new(),
        }
    }

    /// A free network for each, with commas between them.
    fn free(
        &self,
        of: &[IpNet],
        machine: &Around,
        claimed: &[(String, IpNet)],
        taken: &mut Vec<IpNet>,
    ) -> Option<String> {
        for known in [
            &machine.interfaces[..],
            &machine.routed[..],
            self.local,
            self.remote,
            self.local_map,
            self.remote_map,
        ] {
            taken.extend_from_slice(known);
        }
        taken.extend(
            claimed
                .iter()
                .map(|(_, net)| *net)
                .filter(|net| net.prefix_len() > 0),
        );
        let mut free = Vec::new();
        for net in of {
            let proposed = Mapping::propose(net, taken)?;
            taken.push(proposed);
            free.push(proposed.to_string());
        }
        Some(free.join(","))
    }
}

/// Each network with the name it has in the other office.
fn pairs(nets: &[IpNet], map: &[IpNet], option: &str, of: &str) -> Result<Vec<Network>, String> {
    if map.is_empty() {
        let pair = |net: &IpNet| Network {
            own: *net,
            shown: *net,
        };
        return Ok(nets.iter().map(pair).collect());
    }
    if map.len() != nets.len() {
        return Err(format!(
            "{option} names {} networks, and {of} {}: give one for each, in their order",
            map.len(),
            nets.len()
        ));
    }
    let pair = |(own, shown): (&IpNet, &IpNet)| {
        let map = Mapping::new(*own, *shown).map_err(|error| format!("{option}: {error}"))?;
        Ok(Network {
            own: map.own(),
            shown: map.shown(),
        })
    };
    nets.iter().zip(map).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts
            .iter()
            .map(|text| text.parse().expect("a network"))
            .collect()
    }

    /// The names by which both are known, or what is told.
    fn judge(
        local: &[&str],
        local_map: &[&str],
        remote: &[&str],
        remote_map: &[&str],
    ) -> Result<String, String> {
        let machine = Around {
            interfaces: nets(&["192.168.1.0/24", "192.0.2.0/24"]),
            routed: nets(&["192.168.1.0/24", "10.201.0.0/16"]),
        };
        let claimed = [
            (
                "third".to_owned(),
                "10.3.0.0/24".parse().expect("a network"),
            ),
            ("all".to_owned(), "0.0.0.0/0".parse().expect("a network")),
        ];
        let (local, local_map, remote, remote_map) =
            (nets(local), nets(local_map), nets(remote), nets(remote_map));
        let wanted = Wanted {
            local: &local,
            local_map: &local_map,
            remote: &remote,
            remote_map: &remote_map,
        };
        let names = |nets: &[Network]| {
            let names: Vec<String> = nets.iter().map(|net| net.shown.to_string()).collect();
            names.join(",")
        };
        let (local, remote) = wanted.judge(&machine, &claimed)?;
        Ok(format!("{} {}", names(&local), names(&remote)))
    }

    #[test]
    fn offices_with_networks_of_their_own_need_no_other_names() {
        let both = judge(
            &["192.168.1.0/24"],
            &[],
            &["10.2.0.0/24", "fd00:2::/64"],
            &[],
        );
        assert_eq!(
            both.as_deref(),
            Ok("192.168.1.0/24 10.2.0.0/24,fd00:2::/64")
        );
        let mapped = judge(
            &["192.168.1.0/24"],
            &["10.7.1.0/24"],
            &["192.168.1.0/24"],
            &["10.8.1.0/24"],
        );
        assert_eq!(mapped.as_deref(), Ok("10.7.1.0/24 10.8.1.0/24"));
    }

    #[test]
    fn what_cannot_be_is_told_with_what_would_do() {
        let same = &["192.168.1.0/24"][..];
        for (told, expected) in [
            // 10.201.0.0/16 is in use here.
            (
                judge(same, &[], same, &[]),
                "These are free here: --local-map 10.202.1.0/24 --remote-map 10.203.1.0/24\n",
            ),
            (
                judge(same, &["10.202.1.0/24"], same, &[]),
                "free here: --remote-map 10.203.1.0/24\n",
            ),
            (
                judge(same, &[], &["192.168.0.0/16"], &[]),
                "192.168.0.0/16 of the other office overlaps 192.168.1.0/24",
            ),
            // Not named, and there all the same.
            (
                judge(&["10.1.0.0/24"], &[], &["192.0.2.0/24"], &[]),
                "192.0.2.0/24 of the other office overlaps",
            ),
            (
                judge(&["10.0.0.0/8"], &[], &["10.0.0.0/8"], &[]),
                "renumber one of the two",
            ),
            (
                judge(same, &["10.7.0.0/16"], same, &["10.8.1.0/24"]),
                "--local-map: `10.7.0.0/16` cannot stand for",
            ),
            (
                judge(same, &["10.7.1.0/24"], same, &["192.0.2.0/24"]),
                "--remote-map 192.0.2.0/24 overlaps 192.0.2.0/24, a network of the office",
            ),
            (
                judge(same, &["10.2.0.0/24"], &["10.2.0.0/24"], &["10.8.0.0/24"]),
                "--local-map 10.2.0.0/24 overlaps 10.2.0.0/24",
            ),
            (
                judge(same, &["10.7.1.0/24"], same, &["10.7.1.0/24"]),
                "10.7.1.0/24 and 10.7.1.0/24 overlap",
            ),
            (
                judge(
                    same,
                    &["10.7.1.0/24", "10.8.1.0/24"],
                    same,
                    &["10.9.1.0/24"],
                ),
                "--local-map names 2 networks, and --local-net 1",
            ),
            (
                judge(same, &[], &["10.3.0.0/24"], &[]),
                "the tunnel third leads to 10.3.0.0/24 already",
            ),
            (
                judge(same, &[], &["10.3.0.64/26"], &[]),
                "the tunnel third leads to 10.3.0.0/24, which overlaps 10.3.0.64/26: take that one out",
            ),
            (
                judge(same, &[], &["10.2.0.0/15"], &[]),
                "which overlaps 10.2.0.0/15: take that one out",
            ),
        ] {
            let told = told.expect_err(expected);
            assert!(told.contains(expected), "{told}");
        }
        let machine = Around {
            interfaces: nets(&["192.168.1.0/24"]),
            routed: nets(&["10.8.0.0/24"]),
        };
        let told = machine.leads_to(&nets(&["192.168.1.0/25", "10.8.0.0/24", "10.9.0.0/24"]));
        let told = told.expect_err("not here");
        assert_eq!(
            told,
            "no interface of this machine is in 10.9.0.0/24, and no route leads there; it is in 192.168.1.0/24"
        );
    }
}
