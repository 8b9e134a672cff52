//! What holds whatever clients say, in whatever order, and across restarts.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use cygnet_dhcp::{Handled, Mac, Message, MessageType, Record, Server, Settings};
use proptest::prelude::*;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Clients, of which the first has a reservation.
const CLIENTS: u8 = 12;

fn mac(client: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, client + 10]).unwrap()
}

/// Lends eight addresses, one of which is reserved; more clients than that.
fn settings() -> Settings {
    Settings {
        server: SERVER,
        mac: Mac::new([2, 0, 0, 0, 0, 2]).unwrap(),
        network: "10.0.0.0/24".parse().unwrap(),
        first: [10, 0, 0, 10].into(),
        last: [10, 0, 0, 17].into(),
        lease_time: Duration::from_secs(3600),
        dns: vec![SERVER],
        reservations: [(mac(0), [10, 0, 0, 12].into())].into(),
        excluded: [[10, 0, 0, 1].into()].into(),
    }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Discover {
        client: u8,
        wish: u8,
    },
    /// Takes what it was offered last.
    Take {
        client: u8,
    },
    /// Asks for an address outright: as after a reboot, or to renew.
    Want {
        client: u8,
        address: u8,
        renew: bool,
    },
    Release {
        client: u8,
    },
    Decline {
        client: u8,
    },
    Wait {
        seconds: u32,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    let address = || 0u8..24;
    prop_oneof![
        4 => (client(), address()).prop_map(|(client, wish)| Step::Discover { client, wish }),
        4 => client().prop_map(|client| Step::Take { client }),
        4 => (client(), address(), any::<bool>())
            .prop_map(|(client, address, renew)| Step::Want { client, address, renew }),
        1 => client().prop_map(|client| Step::Release { client }),
        1 => client().prop_map(|client| Step::Decline { client }),
        2 => (1u32..4000).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Restart),
    ]
}

/// What the clients believe: who was told which address until when.
struct Lan {
    server: Server,
    now: Duration,
    offered: BTreeMap<u8, Ipv4Addr>,
    believed: BTreeMap<u8, (Ipv4Addr, Duration)>,
}

impl Lan {
    fn new() -> Self {
        Self {
            server: Server::new(settings(), &[], Duration::ZERO),
            now: Duration::ZERO,
            offered: BTreeMap::new(),
            believed: BTreeMap::new(),
        }
    }

    fn ask(&mut self, client: u8, message: &Message) {
        // As it would come from the network.
        let message = Message::parse(&message.emit()).expect("our own message");
        let Handled { reply, .. } = self.server.handle_message(self.now, &message);
        let Some(reply) = reply else { return };
        let answer = Message::parse(&reply.message.emit()).expect("its own message");
        assert!(answer.reply && answer.mac == mac(client));
        match answer.kind {
            MessageType::Offer => {
                self.offered.insert(client, answer.yiaddr);
            }
            MessageType::Ack => {
                let seconds = answer.options.lease_time.expect("a lease has an end");
                let until = self.now + Duration::from_secs(seconds.into());
                self.believed.insert(client, (answer.yiaddr, until));
            }
            MessageType::Nak => {
                // RFC 2131 §3.1: it begins anew.
                self.believed.remove(&client);
                self.offered.remove(&client);
            }
            other => panic!("{other:?} is no answer"),
        }
    }

    fn take(&mut self, step: Step) {
        let address = |last: u8| Ipv4Addr::new(10, 0, 0, last);
        match step {
            Step::Discover { client, wish } => {
                let mut message = Message::request(MessageType::Discover, mac(client), 1);
                message.options.requested = Some(address(wish));
                self.ask(client, &message);
            }
            Step::Take { client } => {
                let Some(offered) = self.offered.remove(&client) else {
                    return;
                };
                let mut message = Message::request(MessageType::Request, mac(client), 1);
                message.options.server = Some(SERVER);
                message.options.requested = Some(offered);
                self.ask(client, &message);
            }
            Step::Want {
                client,
                address: last,
                renew,
            } => {
                let mut message = Message::request(MessageType::Request, mac(client), 1);
                match renew {
                    true => message.ciaddr = address(last),
                    false => message.options.requested = Some(address(last)),
                }
                self.ask(client, &message);
            }
            Step::Release { client } => {
                if let Some((address, _)) = self.believed.remove(&client) {
                    let mut message = Message::request(MessageType::Release, mac(client), 1);
                    message.ciaddr = address;
                    self.ask(client, &message);
                }
            }
            Step::Decline { client } => {
                if let Some((address, _)) = self.believed.remove(&client) {
                    let mut message = Message::request(MessageType::Decline, mac(client), 1);
                    message.options.server = Some(SERVER);
                    message.options.requested = Some(address);
                    self.ask(client, &message);
                }
            }
            Step::Wait { seconds } => self.now += Duration::from_secs(seconds.into()),
            Step::Restart => {
                let kept = self.server.records(self.now);
                // Time since boot goes on; offers are forgotten.
                self.server = Server::new(settings(), &kept, self.now);
            }
        }
        let now = self.now;
        self.believed.retain(|_, (_, until)| *until > now);
    }

    fn holds(&self) -> Result<(), TestCaseError> {
        let mut whose = BTreeMap::new();
        for (client, (address, _)) in &self.believed {
            let other = whose.insert(*address, *client);
            prop_assert_eq!(other, None, "{} is {}'s as well", address, client);
            let last = address.octets()[3];
            prop_assert!((10..=17).contains(&last), "{address}");
            prop_assert!(
                *client == 0 || last != 12,
                "{client} has the address of another"
            );
        }
        let records: Vec<Record> = self.server.records(self.now);
        prop_assert!(records.len() <= 8);
        let mut macs: Vec<Mac> = records.iter().map(|record| record.mac).collect();
        macs.sort();
        macs.dedup();
        prop_assert_eq!(macs.len(), records.len());
        for (client, (address, until)) in &self.believed {
            let kept = records.iter().find(|record| record.address == *address);
            let kept =
                kept.map(|kept| (kept.mac, self.now + Duration::from_secs(kept.remaining_s)));
            prop_assert_eq!(kept.map(|kept| kept.0), Some(mac(*client)));
            prop_assert!(kept.is_some_and(|kept| kept.1 >= *until));
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_address_is_two_clients(steps in prop::collection::vec(step(), 1..200)) {
        let mut lan = Lan::new();
        for step in steps {
            lan.take(step);
            lan.holds()?;
        }
    }

    #[test]
    fn who_has_a_lease_gets_the_same_address_again(
        steps in prop::collection::vec(step(), 1..100),
        client in 1..CLIENTS,
    ) {
        let mut lan = Lan::new();
        for step in steps {
            lan.take(step);
        }
        if let Some((address, _)) = lan.believed.get(&client).copied() {
            lan.take(Step::Restart);
            lan.take(Step::Discover { client, wish: 11 });
            prop_assert_eq!(lan.offered.get(&client), Some(&address));
            lan.take(Step::Want { client, address: address.octets()[3], renew: true });
            prop_assert!(lan.believed.contains_key(&client));
        }
    }

    #[test]
    fn any_bytes_get_no_answer_that_cannot_be_read(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut server = Server::new(settings(), &[], Duration::ZERO);
        if let Ok(message) = Message::parse(&bytes)
            && let Some(reply) = server.handle_message(Duration::ZERO, &message).reply
        {
            prop_assert!(Message::parse(&reply.message.emit()).is_ok());
        }
    }
}
