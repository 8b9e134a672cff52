use super::*;

fn leases(networks: &[&str]) -> Leases {
    let mut leases = Leases::default();
    let pool = Pool {
        networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
        dns: vec!["10.99.0.1".parse().unwrap()],
        domains: vec!["corp.example".to_owned()],
        speedtest: true,
    };
    leases.configure([("server".to_owned(), pool)].into());
    leases
}

const V4: Wanted = Wanted {
    v4: Some(None),
    v6: None,
};
const BOTH: Wanted = Wanted {
    v4: Some(None),
    v6: Some(None),
};

fn lend(l: &mut Leases, who: &str, holder: u64, wanted: Wanted) -> Vec<String> {
    let who = Borrower {
        identity: who,
        device: None,
        here: &[],
    };
    let Lent { addresses, .. } = l.lend("server", who, holder, wanted).unwrap();
    addresses.iter().map(ToString::to_string).collect()
}

/// One of the devices that share an identity.
fn lend_at(l: &mut Leases, place: &str, holder: u64, wanted: Wanted) -> String {
    lend_beside(l, place, &[], holder, wanted)
}

/// The same where these holders are at this very place.
fn lend_beside(l: &mut Leases, place: &str, here: &[u64], holder: u64, wanted: Wanted) -> String {
    let who = Borrower {
        identity: "family",
        device: Some(place.parse().unwrap()),
        here,
    };
    let Lent { addresses, .. } = l.lend("server", who, holder, wanted).unwrap();
    addresses[0].to_string()
}

fn wish(address: &str) -> Wanted {
    Wanted {
        v4: Some(Some(address.parse().unwrap())),
        v6: None,
    }
}

#[test]
fn devices_of_one_identity_have_addresses_of_their_own() {
    let mut l = leases(&["10.99.0.0/24"]);
    // Behind one router, and elsewhere.
    assert_eq!(lend_at(&mut l, "192.0.2.1:4500", 1, V4), "10.99.0.2");
    assert_eq!(lend_at(&mut l, "192.0.2.1:1025", 2, V4), "10.99.0.3");
    assert_eq!(lend_at(&mut l, "192.0.2.9:4500", 3, V4), "10.99.0.4");
    // One that authenticates anew, or whose end was not noticed, keeps its own.
    assert_eq!(
        lend_beside(&mut l, "192.0.2.1:1025", &[2, 77], 4, V4),
        "10.99.0.3"
    );
    // Wherever it was when it got it; who is there now is another one.
    assert_eq!(
        lend_beside(&mut l, "203.0.113.5:4500", &[3], 13, V4),
        "10.99.0.4"
    );
    assert_eq!(lend_at(&mut l, "192.0.2.9:4500", 14, V4), "10.99.0.5");
    l.release(14);
    l.release(2);
    assert_eq!(lend_at(&mut l, "192.0.2.7:4500", 5, V4), "10.99.0.5");
    // Another identity has nothing to do with it.
    assert_eq!(lend(&mut l, "bob", 6, V4), ["10.99.0.6"]);
}

#[test]
fn one_identity_does_not_take_the_whole_pool() {
    let mut l = leases(&["10.99.0.0/16"]);
    for holder in 0..DEVICES_MAX as u64 {
        lend_at(&mut l, &format!("192.0.2.1:{}", 1024 + holder), holder, V4);
    }
    let more = |l: &mut Leases, here: &[u64]| {
        let who = Borrower {
            identity: "family",
            device: Some("192.0.2.2:4500".parse().unwrap()),
            here,
        };
        l.lend("server", who, 1000, V4)
    };
    let error = more(&mut l, &[]).unwrap_err();
    assert!(error.contains("64 devices"), "{error}");
    lend(&mut l, "bob", 2000, V4);
    // One that is there already, and one in the place of another that has gone.
    assert!(more(&mut l, &[7]).is_ok());
    l.release(1000);
    l.release(8);
    assert!(more(&mut l, &[]).is_ok());
}

#[test]
fn device_of_a_shared_identity_gets_its_address_again() {
    let mut l = leases(&["10.99.0.0/24"]);
    for (holder, place) in [
        (1, "192.0.2.1:4500"),
        (2, "192.0.2.2:4500"),
        (3, "192.0.2.3:4500"),
    ] {
        lend_at(&mut l, place, holder, V4);
        l.release(holder);
        if holder < 3 {
            // All three at once.
            let at = format!("198.51.100.{holder}:4500");
            lend_at(&mut l, &at, 10 + holder, V4);
        }
    }
    for holder in 1..20 {
        l.release(holder);
    }
    // By its wish, by its place, by nothing but being the last.
    assert_eq!(
        lend_at(&mut l, "203.0.113.1:4500", 21, wish("10.99.0.3")),
        "10.99.0.3"
    );
    assert_eq!(lend_at(&mut l, "198.51.100.1:999", 22, V4), "10.99.0.2");
    assert_eq!(lend_at(&mut l, "203.0.113.3:4500", 23, V4), "10.99.0.4");
    // What another one has is not granted.
    assert_eq!(
        lend_at(&mut l, "203.0.113.4:4500", 24, wish("10.99.0.3")),
        "10.99.0.5"
    );
}

#[test]
fn the_first_host_is_the_servers_own() {
    let mut l = leases(&["10.99.0.0/24", "fd99::/112"]);
    assert_eq!(lend(&mut l, "alice", 1, BOTH), ["10.99.0.2", "fd99::2"]);
    assert_eq!(lend(&mut l, "bob", 2, V4), ["10.99.0.3"]);
}

#[test]
fn where_speed_is_measured_is_told_if_it_is() {
    let mut l = leases(&["10.99.0.0/24", "fd99::/112", "192.0.2.9/32"]);
    let who = Borrower {
        identity: "alice",
        device: None,
        here: &[],
    };
    let told = l.lend("server", who, 1, V4).unwrap().speedtest;
    let own: [IpAddr; 2] = ["10.99.0.1", "fd99::1"].map(|a| a.parse().unwrap());
    assert_eq!(told, own);
    l.pools.get_mut("server").unwrap().speedtest = false;
    assert_eq!(
        l.lend("server", who, 1, V4).unwrap().speedtest,
        [] as [IpAddr; 0]
    );
}

#[test]
fn a_client_gets_its_address_again() {
    let mut l = leases(&["10.99.0.0/24"]);
    assert_eq!(lend(&mut l, "alice", 1, V4), ["10.99.0.2"]);
    l.release(1);
    assert_eq!(lend(&mut l, "bob", 2, V4), ["10.99.0.3"]);
    assert_eq!(lend(&mut l, "alice", 3, V4), ["10.99.0.2"]);
}

#[test]
fn a_reauthenticating_client_shares_with_itself() {
    let mut l = leases(&["10.99.0.0/24"]);
    assert_eq!(lend(&mut l, "alice", 1, V4), ["10.99.0.2"]);
    assert_eq!(lend(&mut l, "alice", 2, V4), ["10.99.0.2"]);
    l.release(1);
    assert!(l.list().all(|(_, _, online)| online));
    l.release(2);
    assert!(l.list().all(|(_, _, online)| !online));
}

#[test]
fn a_full_pool_takes_from_whoever_is_away_longest_and_else_refuses() {
    let mut l = leases(&["10.99.0.0/29"]);
    for (i, who) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        lend(&mut l, who, i as u64, V4);
    }
    let f = Borrower {
        identity: "f",
        device: None,
        here: &[],
    };
    let refusal = l.lend("server", f, 9, V4).unwrap_err();
    assert!(refusal.contains("10.99.0.0/29"), "{refusal}");
    l.release(1);
    l.release(3);
    assert_eq!(lend(&mut l, "f", 9, V4), ["10.99.0.3"]);
}

#[test]
fn those_who_are_away_are_not_remembered_without_end() {
    let mut l = leases(&["fd99::/64"]);
    let v6 = Wanted {
        v4: None,
        v6: Some(None),
    };
    for i in 0..REMEMBERED_MAX {
        // As if each had been there once.
        let key = ("server".to_owned(), format!("c{i}"), 0);
        let address = Ipv6Addr::from_bits((0xfd99 << 112) + 2 + i as u128);
        l.by_address.insert(address.into(), key.clone());
        let lease = Lease {
            v6: Some(address),
            last_used: i as u64,
            ..Lease::default()
        };
        l.leases.insert(key, lease);
    }
    l.clock = REMEMBERED_MAX as u64;
    lend(&mut l, "new", 1, v6);
    assert_eq!(l.leases.len(), REMEMBERED_MAX);
    assert_eq!(l.by_address.len(), REMEMBERED_MAX);
    assert!(l.list().all(|(who, _, _)| who != "c0"));
}

#[test]
fn no_identity_is_remembered_that_is_too_long_for_one() {
    let mut l = leases(&["10.99.0.0/24"]);
    let longest = "x".repeat(IDENTITY_MAX);
    assert_eq!(lend(&mut l, &longest, 1, V4), ["10.99.0.2"]);
    let longer = Borrower {
        identity: &(longest + "x"),
        device: None,
        here: &[],
    };
    let refusal = l.lend("server", longer, 2, V4).unwrap_err();
    assert!(refusal.contains("1025 octets"), "{refusal}");
    assert_eq!(l.list().count(), 1);
}

#[test]
fn a_wish_is_granted_while_it_is_free() {
    let mut l = leases(&["10.99.0.0/24"]);
    let wish = Wanted {
        v4: Some(Some("10.99.0.77".parse().unwrap())),
        v6: None,
    };
    assert_eq!(lend(&mut l, "alice", 1, wish), ["10.99.0.77"]);
    assert_eq!(lend(&mut l, "bob", 2, wish), ["10.99.0.2"]);
}

#[test]
fn a_huge_ipv6_pool_is_searched_by_its_gaps() {
    let mut l = leases(&["fd99::/48"]);
    let v6 = Wanted {
        v4: None,
        v6: Some(None),
    };
    for i in 0..200 {
        lend(&mut l, &format!("c{i}"), i, v6);
    }
    assert_eq!(lend(&mut l, "last", 999, v6), ["fd99::ca"]);
}
