//! The interfaces by which devices reach this machine.

use cygnet_daemon::survey::Leg;

use crate::facts::Facts;
use crate::report::Check;

/// Each: whether it is there, up, and has an address.
pub(super) fn legs(facts: &Facts) -> Vec<Check> {
    let legs = facts.network.legs.iter();
    legs.map(|leg| self::leg(leg).of(&leg.interface)).collect()
}

fn leg(leg: &Leg) -> Check {
    let name = "lan";
    let interface = &leg.interface;
    let there = match &leg.there {
        Ok(there) => there,
        Err(missing) => {
            return Check::wrong(
                name,
                missing,
                "plug it in, or name the right one in `lan` of [gateway], and `cygnet reload`",
            );
        }
    };
    if !there.up {
        return Check::wrong(
            name,
            "it is down: no device reaches this machine by it",
            format!(
                "`ip link set {interface} up`, and see that the machine's network settings do so at boot"
            ),
        );
    }
    let addresses: Vec<String> = there.addresses.iter().map(ToString::to_string).collect();
    if addresses.is_empty() {
        return Check::wrong(
            name,
            "it has no address: no device can have this machine as its gateway, or ask it anything",
            "give it a fixed address of the LAN in the machine's network settings",
        );
    }
    let addresses = addresses.join(", ");
    match there.carrier {
        true => Check::good(name, format!("it is up, with {addresses}")),
        false => Check::unknown(
            name,
            format!("it is up, with {addresses}, and nobody is at its other end"),
        )
        .try_this("is the cable in, and what is at its other end switched on?"),
    }
}

#[cfg(test)]
mod tests {
    use cygnet_daemon::survey::There;

    use super::super::testing::{expect, found};
    use super::*;

    fn eth0(change: impl FnOnce(&mut There)) -> impl FnOnce(&mut Facts) {
        move |f: &mut Facts| change(f.network.legs[0].there.as_mut().unwrap())
    }

    #[test]
    fn an_interface_that_reaches_nobody_is_named() {
        expect(
            eth0(|there| {
                there.up = false;
                there.carrier = false;
                there.addresses.clear();
            }),
            "Wrong lan eth0: it is down",
            &["`ip link set eth0 up`"],
        );
        expect(
            eth0(|there| there.addresses.clear()),
            "Wrong lan eth0: it has no address",
            &["fixed address"],
        );
        expect(
            eth0(|there| there.carrier = false),
            "Unknown lan eth0: it is up, with 192.168.1.2/24, and nobody",
            &["cable"],
        );
        assert!(found(eth0(|_| ())).is_empty());
    }

    #[test]
    fn one_that_is_not_there_is_told_once() {
        let missing = "[gateway] lan = \"eth0\": there is no such interface (yet)";
        expect(
            |f| {
                f.network.legs[0].there = Err(missing.to_owned());
                f.status.as_mut().unwrap().warnings = vec![missing.to_owned()];
            },
            "Wrong lan eth0: [gateway] lan",
            &["`cygnet reload`"],
        );
    }
}
