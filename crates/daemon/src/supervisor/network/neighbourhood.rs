//! Devices that were seen in the LAN since the program started: which addresses belong to which MAC address.
//!
//! Anybody in the LAN can claim any address, and many, so there is an end to what is remembered, and only the
//! listing and the ending of connections go by it; where a packet may go is decided by what stands in the packet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use cygnet_gateway::Mac;

/// Devices remembered, and addresses of each; beyond that the one that was silent for longest is forgotten.
const DEVICES_MAX: usize = 1024;
const ADDRESSES_MAX: usize = 32;

/// A sign of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sign {
    pub(super) mac: Mac,
    pub(super) address: IpAddr,
    pub(super) at: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Neighbourhood {
    devices: BTreeMap<Mac, BTreeMap<IpAddr, Instant>>,
}

impl Neighbourhood {
    /// Takes note of a sign. An address belongs to whom it was last seen with.
    pub(super) fn learn(&mut self, sign: Sign) {
        let Sign { mac, address, at } = sign;
        let known = self.devices.get_mut(&mac);
        if let Some(seen) = known.and_then(|addresses| addresses.get_mut(&address)) {
            *seen = at.max(*seen);
            return;
        }
        for (other, addresses) in &mut self.devices {
            if *other != mac
                && let Some(seen) = addresses.get(&address)
            {
                if *seen > at {
                    return;
                }
                addresses.remove(&address);
            }
        }
        let addresses = self.devices.entry(mac).or_default();
        addresses.insert(address, at);
        if addresses.len() > ADDRESSES_MAX {
            forget_oldest(addresses, |seen| Some(*seen));
        }
        self.devices.retain(|_, addresses| !addresses.is_empty());
        if self.devices.len() > DEVICES_MAX {
            forget_oldest(&mut self.devices, |addresses| {
                addresses.values().max().copied()
            });
        }
    }

    /// The devices, with their addresses and when each was last seen.
    pub(super) fn devices(&self) -> impl Iterator<Item = (Mac, &BTreeMap<IpAddr, Instant>)> {
        self.devices
            .iter()
            .map(|(mac, addresses)| (*mac, addresses))
    }

    /// The addresses of one, with when each was last seen.
    pub(super) fn addresses(&self, mac: Mac) -> impl Iterator<Item = (IpAddr, Instant)> {
        let addresses = self.devices.get(&mac).into_iter().flatten();
        addresses.map(|(address, at)| (*address, *at))
    }

    /// Whose each address is.
    pub(super) fn owners(&self) -> BTreeMap<IpAddr, Mac> {
        let devices = self.devices();
        let owned = devices.flat_map(|(mac, all)| all.keys().map(move |a| (*a, mac)));
        owned.collect()
    }

    /// Forgets a device until it is seen again; whether it was known.
    pub(super) fn forget(&mut self, mac: Mac) -> bool {
        self.devices.remove(&mac).is_some()
    }
}

fn forget_oldest<K: Ord + Copy, V>(all: &mut BTreeMap<K, V>, at: impl Fn(&V) -> Option<Instant>) {
    let oldest = all.iter().min_by_key(|(_, value)| at(value));
    if let Some(key) = oldest.map(|(key, _)| *key) {
        all.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn mac(number: u32) -> Mac {
        let [a, b, c, d] = number.to_be_bytes();
        Mac::new([2, 0, a, b, c, d]).unwrap()
    }

    #[test]
    fn an_address_belongs_to_whom_it_was_last_seen_with() {
        let now = Instant::now();
        let mut seen = Neighbourhood::default();
        let address: IpAddr = "192.168.1.9".parse().unwrap();
        let mut learn = |number, seconds| {
            seen.learn(Sign {
                mac: mac(number),
                address,
                at: now + Duration::from_secs(seconds),
            });
            (seen.owners().get(&address).copied(), seen.devices().count())
        };
        assert_eq!(learn(1, 10), (Some(mac(1)), 1));
        assert_eq!(learn(2, 5), (Some(mac(1)), 1), "older");
        assert_eq!(learn(2, 20), (Some(mac(2)), 1));
        assert!(seen.forget(mac(2)) && !seen.forget(mac(1)));
        assert!(seen.owners().is_empty());
    }

    #[test]
    fn whoever_claims_many_addresses_fills_no_memory() {
        let now = Instant::now();
        let mut seen = Neighbourhood::default();
        for number in 0..3000u32 {
            for (device, host) in [(number, 0), (7, number)] {
                seen.learn(Sign {
                    mac: mac(device),
                    address: IpAddr::from((0x0a00_0000 + device * 4096 + host).to_be_bytes()),
                    at: now + Duration::from_millis(number.into()),
                });
            }
        }
        assert_eq!(seen.devices().count(), DEVICES_MAX);
        let (_, most) = seen
            .devices()
            .find(|(device, _)| *device == mac(7))
            .unwrap();
        assert_eq!(most.len(), ADDRESSES_MAX);
        assert!(seen.devices().any(|(device, _)| device == mac(2999)));
    }
}
