//! Which address is whose: leases, offers, addresses that somebody else has.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::pool::Pool;
use crate::server::Settings;
use crate::{Mac, Record};

/// How long an offered address is kept for the client.
const OFFERED: Duration = Duration::from_secs(30);
/// Offers at once. With more the oldest is no promise any more: strangers that ask and take nothing must not keep
/// others from an address.
const OFFERS_MAX: usize = 64;
/// How long an address that somebody else has is lent to nobody.
const DECLINED: Duration = Duration::from_secs(600);

/// Whom an address is lent to (RFC 2131 §2): the client identifier, else the hardware address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    Mac(Mac),
    Id(Vec<u8>),
}

impl Client {
    /// Of a client that has this hardware address and says this identifier.
    pub(crate) fn of(mac: Mac, id: Option<&[u8]>) -> Self {
        match id {
            // RFC 2132 §9.14: type 1 is the hardware address once more.
            Some([1, octets @ ..]) if *octets == mac.octets() => Self::Mac(mac),
            Some(id) => Self::Id(id.to_vec()),
            None => Self::Mac(mac),
        }
    }

    /// A number that is the same for the same client, always: its first choice among the addresses.
    fn number(&self) -> u32 {
        let mac;
        let octets: &[u8] = match self {
            Self::Mac(of) => {
                mac = of.octets();
                &mac
            }
            Self::Id(id) => id,
        };
        // FNV-1a.
        octets.iter().fold(0x811c_9dc5, |hash: u32, octet| {
            (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193)
        })
    }
}

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) client: &'a Client,
    pub(crate) mac: Mac,
}

#[derive(Clone, Debug)]
struct Lease {
    client: Client,
    mac: Mac,
    name: Option<String>,
    /// Over from then on; who had it gets it again as long as nobody else needs it.
    until: Duration,
}

#[derive(Clone, Debug)]
struct Offer {
    client: Client,
    until: Duration,
}

/// The table. An address has one lease at most, and a client one address: `by_client` is the other way round of
/// `leases`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases {
    leases: BTreeMap<Ipv4Addr, Lease>,
    by_client: BTreeMap<Client, Ipv4Addr>,
    offers: BTreeMap<Ipv4Addr, Offer>,
    /// Until when it is lent to nobody.
    declined: BTreeMap<Ipv4Addr, Duration>,
    /// Whose an address is by reservation: the other way round of what the settings say.
    owners: BTreeMap<Ipv4Addr, Mac>,
    /// The addresses of all others, with `leases` by their ends.
    pool: Pool,
}

impl Leases {
    /// With what was kept; of two records of one address or one client the first counts.
    pub(crate) fn with(settings: &Settings, records: &[Record], now: Duration) -> Self {
        let owners = settings.reservations.iter();
        let owners: BTreeMap<_, _> = owners.map(|(mac, address)| (*address, *mac)).collect();
        let is_anybodys = |a: &Ipv4Addr| settings.is_a_devices(*a) && !owners.contains_key(a);
        let pool = Pool::of(settings.range().filter(is_anybodys).collect());
        let mut leases = Self {
            owners,
            pool,
            ..Self::default()
        };
        for record in records {
            let client = match settings.reservations.contains_key(&record.mac) {
                true => Client::Mac(record.mac),
                false => Client::of(record.mac, record.client.as_deref()),
            };
            let known = leases.leases.contains_key(&record.address)
                || leases.by_client.contains_key(&client);
            let lendable = leases.is_lendable(settings, record.address, record.mac);
            if known || !lendable || !record.is_plausible() {
                continue;
            }
            let remaining = Duration::from_secs(record.remaining_s).min(settings.lease_time);
            leases.by_client.insert(client.clone(), record.address);
            let lease = Lease {
                client,
                mac: record.mac,
                name: record.name.clone(),
                until: now.saturating_add(remaining),
            };
            leases.put(record.address, Some(lease));
        }
        leases
    }

    pub(crate) fn records(&self, now: Duration) -> Vec<Record> {
        let all = self.leases.iter().map(|(address, lease)| Record {
            address: *address,
            mac: lease.mac,
            client: match &lease.client {
                Client::Mac(_) => None,
                Client::Id(id) => Some(id.clone()),
            },
            name: lease.name.clone(),
            // Rounded up: over is over.
            remaining_s: lease.until.saturating_sub(now).as_millis().div_ceil(1000) as u64,
        });
        all.collect()
    }

    /// Enters the lease of an address, or strikes it out. Which one there was.
    fn put(&mut self, address: Ipv4Addr, lease: Option<Lease>) -> Option<Lease> {
        let until = lease.as_ref().map(|lease| lease.until);
        let before = match lease {
            Some(lease) => self.leases.insert(address, lease),
            None => self.leases.remove(&address),
        };
        let ended = before.as_ref().map(|lease| lease.until);
        self.pool.lease(address, ended, until);
        before
    }

    /// The address that this client has, or had last.
    pub(crate) fn of(&self, client: &Client) -> Option<Ipv4Addr> {
        self.by_client.get(client).copied()
    }

    /// Whether the address can be lent to this device at all.
    fn is_lendable(&self, settings: &Settings, address: Ipv4Addr, mac: Mac) -> bool {
        let its = match self.owners.get(&address) {
            Some(owner) => *owner == mac,
            None => settings.is_in_range(address),
        };
        its && settings.is_a_devices(address)
    }

    /// Whether the address can be this client's, as far as others are concerned.
    fn is_free(&self, address: Ipv4Addr, asker: Asker<'_>, now: Duration) -> bool {
        let client = asker.client;
        let lent = self.leases.get(&address);
        let offered = self.offers.get(&address);
        let declined = self.declined.get(&address);
        lent.is_none_or(|lease| lease.client == *client || lease.until <= now)
            && offered.is_none_or(|offer| offer.client == *client || offer.until <= now)
            && declined.is_none_or(|until| *until <= now)
    }

    /// Whether a client that wants to keep or take this address may.
    pub(crate) fn may_have(
        &self,
        settings: &Settings,
        address: Ipv4Addr,
        asker: Asker<'_>,
        now: Duration,
    ) -> bool {
        let is_good = |address| {
            self.is_free(address, asker, now) && self.is_lendable(settings, address, asker.mac)
        };
        let reserved = settings.reservations.get(&asker.mac).copied();
        // As soon as its own address is free a device is to have that.
        is_good(address) && !reserved.is_some_and(|own| own != address && is_good(own))
    }

    /// The address for a client, and whether there is one: its own, the one that it had, the one it asks for, one
    /// that nobody had, one that is over for the longest time.
    pub(crate) fn choose(
        &self,
        settings: &Settings,
        asker: Asker<'_>,
        requested: Option<Ipv4Addr>,
        now: Duration,
    ) -> Option<Ipv4Addr> {
        let offered = self.offers.iter();
        let offered =
            offered.filter(|(_, offer)| offer.client == *asker.client && offer.until > now);
        let first = [
            settings.reservations.get(&asker.mac).copied(),
            self.of(asker.client),
            offered.map(|(address, _)| *address).next(),
            requested.filter(|address| !self.leases.contains_key(address)),
        ];
        let is_good = |address: &Ipv4Addr| self.may_have(settings, *address, asker, now);
        if let Some(address) = first.into_iter().flatten().find(is_good) {
            return Some(address);
        }
        let first = settings.at(asker.client.number());
        let mut all = self.pool.new_from(first).chain(self.pool.over(now));
        all.find(is_good)
    }

    /// Keeps the address for the client until it takes it.
    pub(crate) fn offer(&mut self, address: Ipv4Addr, client: &Client, now: Duration) {
        self.offers
            .retain(|_, offer| offer.until > now && offer.client != *client);
        if self.offers.len() >= OFFERS_MAX {
            let oldest = self.offers.iter().min_by_key(|(_, offer)| offer.until);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.offers.remove(&oldest);
            }
        }
        let offer = Offer {
            client: client.clone(),
            until: now.saturating_add(OFFERED),
        };
        self.offers.insert(address, offer);
    }

    /// The client took another server's offer.
    pub(crate) fn take_offer_back(&mut self, client: &Client) {
        self.offers.retain(|_, offer| offer.client != *client);
    }

    /// Lends the address, which [`Leases::may_have`] allows.
    pub(crate) fn lend(
        &mut self,
        address: Ipv4Addr,
        asker: Asker<'_>,
        name: Option<String>,
        until: Duration,
    ) {
        let Asker { client, mac } = asker;
        self.take_offer_back(client);
        self.offers.remove(&address);
        let before = self.by_client.insert(client.clone(), address);
        if let Some(before) = before.filter(|before| *before != address) {
            self.put(before, None);
        }
        let mut lease = Lease {
            client: client.clone(),
            mac,
            name,
            until,
        };
        match self.put(address, None) {
            // Not every message says the name again.
            Some(had) if had.client == *client => lease.name = lease.name.or(had.name),
            Some(had) => {
                self.by_client.remove(&had.client);
            }
            None => {}
        }
        self.put(address, Some(lease));
    }

    /// The client needs the address no more; it is remembered whose it was. Whether it was the client's.
    pub(crate) fn release(&mut self, address: Ipv4Addr, client: &Client, now: Duration) -> bool {
        match self.leases.get(&address) {
            Some(lease) if lease.client == *client && lease.until > now => {
                let over = Lease {
                    until: now,
                    ..lease.clone()
                };
                self.put(address, Some(over));
                true
            }
            _ => false,
        }
    }

    /// The client found that somebody else has the address that it was lent or offered: it is lent to nobody for a
    /// while. Whether it was.
    pub(crate) fn decline(
        &mut self,
        settings: &Settings,
        address: Ipv4Addr,
        client: &Client,
        now: Duration,
    ) -> bool {
        let lent = self.leases.get(&address);
        let lent = lent.is_some_and(|lease| lease.client == *client);
        let offered = self.offers.get(&address);
        let offered = offered.is_some_and(|offer| offer.client == *client);
        if !lent && !offered {
            return false;
        }
        if lent {
            self.put(address, None);
            self.by_client.remove(client);
        }
        self.offers.remove(&address);
        self.declined.retain(|_, until| *until > now);
        // A quarter of the addresses at most: whoever declines one after the other must not take them all away.
        if self.declined.len() >= (settings.size() as usize / 4).max(1) {
            let oldest = self.declined.iter().min_by_key(|(_, until)| **until);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.declined.remove(&oldest);
            }
        }
        self.declined.insert(address, now.saturating_add(DECLINED));
        true
    }
}
