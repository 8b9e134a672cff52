//! A link that carries less than 1500 octets, whether its routers tell or not: large transfers go through both
//! ways, and in whole packets once the size is known.

use super::super::Scenario;
use super::super::pair::{Pair, same};
use super::super::plan::{Plan, Role};
use super::home::{Home, SERVER6, TUNNEL, WEB6, gateway_setup};
use super::https::{Https, LARGE};
use crate::ensure;
use crate::lab::link::counter;
use crate::lab::world::{SERVER, WEB};
use crate::lab::{Failure, Lab, Link, Namespace, Process, Result, wait_for};
use std::time::{Duration, Instant};

/// How far below its MTU the packets of a transfer over a link may be: inner TCP is rounded to the cipher's blocks.
const SLACK: u32 = 40;
/// Packets of this length and more that a transfer consists of, at least.
const FULL: u64 = 6000;

/// How a link treats what is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// The router before it says so by ICMP.
    Tells,
    /// It is dropped.
    Silent,
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (server, family) in [(SERVER, "ipv4"), (SERVER6, "ipv6")] {
        for (manner, how) in [(Manner::Tells, "told"), (Manner::Silent, "silent")] {
            for mtu in [1500, 1492, 1400, 1280] {
                all.push(Scenario::new(
                    format!("mtu-{mtu}-{how}-{family}"),
                    "10 MB by HTTPS both ways over such a link, without fragments once its MTU is known",
                    move |lab| transfers(lab, server, mtu, manner),
                ));
            }
            all.push(Scenario::new(
                format!("mtu-shrinks-{how}-{family}"),
                "the link becomes narrower in the middle of a download, and again of an upload: both come to their end",
                move |lab| shrinks(lab, server, manner),
            ));
        }
    }
    for fragmentation in [true, false] {
        all.push(Scenario::new(
            match fragmentation {
                true => "mtu-1400-silent-strongswan",
                false => "mtu-1400-silent-strongswan-whole",
            },
            "a strongSwan with IKE fragmentation tells Cygnet the MTU, one without is not asked; either keeps its IKE SA",
            move |lab| strongswan(lab, fragmentation),
        ));
    }
    all
}

/// What has passed, or has not, since a link is narrow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    /// IP fragments.
    fragments: u64,
    /// Dropped for their length.
    pub(super) dropped: u64,
    /// Of the full length, nearly.
    full: u64,
    /// IKE messages of more than 700 octets.
    long_ike: u64,
    /// Such of the full length, nearly: from the near end, and from the far one.
    filled_ike: [u64; 2],
}

/// Nothing longer than `mtu` passes this link from now on, and all that passes is counted; without a word, or
/// by the word of the routers before it, which are not touched here.
pub(super) fn narrow(link: &Link, mtu: u32, manner: Manner) -> Result<()> {
    let too_long = match manner {
        Manner::Tells => String::new(),
        Manner::Silent => format!("meta length > {mtu} counter name dropped drop\n"),
    };
    let full = mtu - SLACK;
    let chain = |port: &str| {
        format!(
            "chain {port} {{\ntype filter hook ingress device \"{port}\" priority -10; policy accept;\n\
             ip frag-off & 0x3fff != 0 counter name fragments\n\
             exthdr frag exists counter name fragments\n\
             udp dport {{ 500, 4500 }} @th,64,32 0 meta length > 700 counter name long_ike\n\
             {too_long}\
             udp dport {{ 500, 4500 }} @th,64,32 0 meta length > {full} counter name filled_{port}\n\
             meta length > {full} counter name full\n}}\n"
        )
    };
    let counters: String = COUNTERS
        .map(|name| format!("counter {name} {{ }}\n"))
        .concat();
    let (near, far) = (chain("near"), chain("far"));
    link.namespace().nft(&format!(
        "table netdev narrow\ndelete table netdev narrow\ntable netdev narrow {{\n{counters}{near}{far}}}\n"
    ))
}

/// Counts what a router says of packets that are too big.
const TELLING: &str = "table inet telling
delete table inet telling
table inet telling {
counter told { }
chain output {
type filter hook output priority 0; policy accept;
icmp type destination-unreachable icmp code frag-needed counter name told
icmpv6 type packet-too-big counter name told
}
}
";

/// See [`Passed`].
const COUNTERS: [&str; 6] = [
    "fragments",
    "dropped",
    "full",
    "long_ike",
    "filled_near",
    "filled_far",
];

pub(super) fn passed(link: &Link) -> Result<Passed> {
    let text = link
        .namespace()
        .exec(["nft", "-j", "list", "counters", "table", "netdev", "narrow"])?;
    let [fragments, dropped, full, long_ike, near, far] = COUNTERS.map(|name| counter(&text, name));
    Ok(Passed {
        fragments: fragments?,
        dropped: dropped?,
        full: full?,
        long_ike: long_ike?,
        filled_ike: [near?, far?],
    })
}

/// Makes these interfaces cut what they send: a batch would pass a link as one packet.
pub(super) fn single(hosts: &[(&Namespace, &[&str])]) -> Result<()> {
    for (host, interfaces) in hosts {
        for interface in *interfaces {
            let off = "tso off gso off gro off tx-udp-segmentation off";
            host.shell(&format!("ethtool -K {interface} {off}"))?;
        }
    }
    Ok(())
}

/// A home beyond a link of which something is known.
struct Narrow {
    home: Home,
    https: Https,
}

impl Narrow {
    /// The gateway is not started yet.
    fn prepare(lab: &Lab, server: &str) -> Result<Self> {
        let mut setup = gateway_setup("", "");
        setup.config = setup.config.replace(SERVER, server);
        let home = Home::prepare(lab, &setup)?;
        let world = &home.world;
        single(&[
            (&world.laptop, &["eth0"]),
            (&world.gateway, &["eth0"]),
            (&world.router, &["lan", "wan"]),
            (&world.internet, &["home", "web", "rented"]),
            (&world.web, &["eth0"]),
            (&world.server_router, &["inside", "outside"]),
            (&world.server, &["eth0"]),
            (world.provider.namespace(), &["near", "far"]),
        ])?;
        let https = Https::start(lab, &world.web)?;
        Ok(Self { home, https })
    }

    /// Nothing longer than `mtu` passes between home and provider from now on.
    fn narrow(&self, mtu: u32, manner: Manner) -> Result<()> {
        let world = &self.home.world;
        // Counted from before they have something to say.
        for router in [&world.router, &world.internet] {
            router.nft(TELLING)?;
        }
        if manner == Manner::Tells {
            world.router.ip(&format!("link set wan mtu {mtu}"))?;
            world.internet.ip(&format!("link set home mtu {mtu}"))?;
        }
        narrow(&world.provider, mtu, manner)
    }

    /// How often the routers said that a packet is too big.
    fn told(&self) -> Result<u64> {
        let world = &self.home.world;
        let mut all = 0;
        for router in [&world.router, &world.internet] {
            let text =
                router.exec(["nft", "-j", "list", "counters", "table", "inet", "telling"])?;
            all += counter(&text, "told")?;
        }
        Ok(all)
    }

    /// What was told at first, when no more than 1280 octets was known to arrive, hosts believe for ten minutes
    /// (RFC 1191 §6.3).
    fn forget(&self) -> Result<()> {
        for host in [&self.home.world.laptop, &self.home.world.web] {
            for family in ["-4", "-6"] {
                host.exec(["ip", family, "route", "flush", "cache"])?;
            }
        }
        Ok(())
    }

    /// Takes the file from the web host, or gives it.
    fn start(&self, host: &str, gives: bool, more: &str) -> Result<Process> {
        self.https
            .start_transfer(&self.home.world.laptop, host, gives, more)
    }

    fn ends(&self, mut transfer: Process, what: &str) -> Result<()> {
        let with_log = |failure: Failure| {
            let log = crate::lab::process::last_lines(&self.home.gateway.log(), 20);
            failure.while_doing(format!("{what}; the gateway's last words:\n{log}\n"))
        };
        self.https.ends(&mut transfer).map_err(with_log)
    }

    /// What `status` of both ends says.
    fn path_mtus(&self) -> Result<(Option<u32>, Option<u32>)> {
        let of = |end: &crate::lab::cygnet::Cygnet, connection| -> Result<_> {
            let children = end.children(connection)?;
            Ok(children.iter().find_map(|child| child.path_mtu))
        };
        Ok((
            of(&self.home.gateway, TUNNEL)?,
            of(&self.home.server, "server")?,
        ))
    }

    /// Waits until both ends know what the link carries.
    fn settles(&self, mtu: u32) -> Result<Duration> {
        let since = Instant::now();
        let mut seen = (None, None);
        wait_for(&format!("both ends know the MTU {mtu}"), PATIENCE, || {
            seen = self.path_mtus()?;
            Ok((seen == (Some(mtu), Some(mtu))).then_some(()))
        })
        .map_err(|failure| failure.while_doing(format!("the two ends know {seen:?}\n")))?;
        // What is known by chance, or taken for granted, was not measured: a packet of that size passed, from either end.
        wait_for("each end has measured it", PATIENCE, || {
            let filled = passed(&self.home.world.provider)?.filled_ike;
            Ok(filled.iter().all(|count| *count > 0).then_some(()))
        })?;
        // What is known at once is what most links carry: until nothing larger is tried, and routes and MSS follow.
        let mut asked = passed(&self.home.world.provider)?.long_ike;
        let mut last = Instant::now();
        wait_for("nothing larger is tried", PATIENCE, || {
            let now = passed(&self.home.world.provider)?.long_ike;
            if std::mem::replace(&mut asked, now) != now {
                last = Instant::now();
            }
            Ok((last.elapsed() > Duration::from_secs(4)).then_some(()))
        })?;
        ensure!(
            self.path_mtus()? == (Some(mtu), Some(mtu)),
            "the search ended elsewhere than at {mtu}: {:?}",
            self.path_mtus()?
        );
        Ok(since.elapsed())
    }

    /// Nobody took a lost probe for a lost peer.
    fn undisturbed(&self) -> Result<()> {
        for end in [&self.home.gateway, &self.home.server] {
            let log = end.log();
            ensure!(!log.contains("no answer"), "the IKE SA was lost:\n{log}");
        }
        Ok(())
    }

    /// Transfers of both families and both directions, in whole packets that fill the link.
    fn settled(&self, mtu: u32, manner: Manner) -> Result<()> {
        self.narrow(mtu, manner)?;
        self.forget()?;
        for (host, gives) in [(WEB, false), (WEB, true), (WEB6, false), (WEB6, true)] {
            let before = passed(&self.home.world.provider)?;
            self.ends(self.start(host, gives, "")?, "a transfer once settled")?;
            let after = passed(&self.home.world.provider)?;
            ensure!(
                after.fragments == 0 && after.dropped == 0 && after.full >= before.full + FULL,
                "on the outer link, {} {host}: {before:?}, then {after:?}",
                if gives { "to" } else { "from" }
            );
        }
        Ok(())
    }
}

/// How long the search may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

fn transfers(lab: &Lab, server: &str, mtu: u32, manner: Manner) -> Result<String> {
    let mut narrow = Narrow::prepare(lab, server)?;
    narrow.narrow(mtu, manner)?;
    narrow.home.gateway.restart()?;
    narrow.home.online(&narrow.home.world.laptop)?;
    let since = Instant::now();
    narrow.ends(narrow.start(WEB, false, "")?, "the first download")?;
    narrow.ends(narrow.start(WEB, true, "")?, "the first upload")?;
    let first = since.elapsed();
    narrow.settles(mtu)?;
    let at_first = passed(&narrow.home.world.provider)?;
    let said = narrow.told()?;
    let (told, dropped) = match manner {
        _ if mtu == 1500 => (false, false),
        Manner::Tells => (true, false),
        Manner::Silent => (false, true),
    };
    ensure!(
        (said > 0, at_first.dropped > 0) == (told, dropped),
        "the link is not what it should be: {at_first:?}"
    );
    narrow.settled(mtu, manner)?;
    narrow.undisturbed()?;
    Ok(format!(
        "the first 2 x {} MB in {:.1} s, 4 x more without a fragment; {} dropped, {} told",
        LARGE / 1_000_000,
        first.as_secs_f64(),
        at_first.dropped,
        said
    ))
}

fn shrinks(lab: &Lab, server: &str, manner: Manner) -> Result<String> {
    let mut narrow = Narrow::prepare(lab, server)?;
    narrow.narrow(1500, manner)?;
    narrow.home.gateway.restart()?;
    narrow.home.online(&narrow.home.world.laptop)?;
    narrow.settles(1500)?;
    let mut took = Vec::new();
    for (gives, mtu) in [(false, 1400), (true, 1280)] {
        narrow.forget()?;
        let since = Instant::now();
        let mut transfer = narrow.start(WEB, gives, "--limit-rate 2M")?;
        std::thread::sleep(Duration::from_secs(1));
        ensure!(transfer.is_running(), "it was too fast: {}", transfer.log());
        narrow.narrow(mtu, manner)?;
        narrow.ends(transfer, "the transfer")?;
        took.push(since.elapsed().as_secs_f64());
        let passed = passed(&narrow.home.world.provider)?;
        ensure!(
            (narrow.told()? > 0, passed.dropped > 0)
                == (manner == Manner::Tells, manner == Manner::Silent),
            "the link is not what it should be: {passed:?}"
        );
        narrow.settles(mtu)?;
    }
    narrow.settled(1280, manner)?;
    narrow.undisturbed()?;
    Ok(format!(
        "5 s of download took {:.1} s, of upload {:.1} s",
        took[0], took[1]
    ))
}

fn strongswan(lab: &Lab, fragmentation: bool) -> Result<String> {
    let mut plan = Plan::shared_key(Role::Initiator);
    if !fragmentation {
        plan = plan.swan_set("fragmentation", "no");
    }
    let mut pair = Pair::connected(lab, plan)?;
    let old = pair.ike_sa()?.0;
    narrow(first(&mut pair)?, 1400, Manner::Silent)?;
    let near = pair.near().host.clone();
    let mut traffic = near.spawn(["ping", "-n", "-q", "-i0.2", pair.far().host4])?;
    if fragmentation {
        let found = pair
            .cygnet
            .wait_for_log("path MTU 1400, measured", PATIENCE);
        found.map_err(|failure| pair.with_log(failure))?;
        // What was found goes on being confirmed, and of the answers some are lost.
        first(&mut pair)?.lose(10)?;
    }
    std::thread::sleep(PATIENCE);
    first(&mut pair)?.lose(0)?;
    traffic.kill();
    let new = pair.ike_sa()?.0;
    ensure!(
        same(&new.initiator_spi, &old.initiator_spi),
        "the IKE SA is another one"
    );
    let passed = passed(first(&mut pair)?)?;
    ensure!(
        (passed.long_ike > 0, passed.dropped > 0) == (fragmentation, fragmentation),
        "strongSwan {fragmentation} was sent {passed:?}"
    );
    let carried = pair.carry()?;
    Ok(format!(
        "{} long IKE messages, {} dropped; {carried}",
        passed.long_ike, passed.dropped
    ))
}

pub(super) fn first(pair: &mut Pair) -> Result<&mut Link> {
    let link = pair.offices.links.first_mut();
    link.ok_or_else(|| Failure::new("the offices are not joined"))
}
