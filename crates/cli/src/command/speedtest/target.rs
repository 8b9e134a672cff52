//! Which tunnel is measured, and against whom.

use std::net::{IpAddr, SocketAddr};

use cygnet_config::SERVER;
use cygnet_daemon::api::{ConnectionStatus, IkeSaStatus, Status};
use cygnet_daemon::speedtest::{Errand, Surroundings};
use cygnet_speedtest::{DOWN, LOAD, PING, PORT, UP, WARM_UP};
use ipnet::IpNet;

use crate::args::speedtest::Speedtest;

/// More than is counted: a download must not end before it is measured.
const SPARE: u64 = 8;

/// What is measured through a tunnel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) tunnel: String,
    /// Who is at the other end.
    pub(super) shown: String,
    pub(super) errand: Errand,
}

/// What is to be measured through which tunnel; else a sentence why that cannot be.
pub(super) fn through(
    options: &Speedtest,
    status: &Status,
    known: &Surroundings,
) -> Result<Target, String> {
    let urls = [
        &options.url,
        &options.upload_url,
        &options.direct_url,
        &options.direct_upload_url,
    ];
    for url in urls.into_iter().flatten() {
        if !url.starts_with("http://") {
            return Err(format!(
                "`{url}`: expected http://…; https would measure how fast this machine deciphers"
            ));
        }
    }
    let engine = status.engine.as_ref();
    let engine = engine.ok_or("the engine is being restarted; try again in a moment")?;
    let connection = choose(options.tunnel.as_deref(), &engine.connections)?;
    let tunnel = connection.name.clone();
    let interface = known.interfaces.get(&tunnel).ok_or_else(|| {
        format!(
            "{} has no tunnel {tunnel}: `cygnet reload`",
            status.config.display()
        )
    })?;
    // The newest has the address that is in force.
    let mut sas = connection.ike_sas.iter().rev();
    let sa = sas
        .find(|sa| sa.state == "up")
        .ok_or_else(|| format!("{tunnel} is not up; `cygnet up {tunnel}`"))?;
    let errand = |ping: String, down, up, load| Errand {
        interface: interface.clone(),
        sources: sources(sa),
        ping,
        down,
        up,
        load,
        seconds: options.seconds,
        streams: options.streams,
    };
    if let Some(url) = &options.url {
        return Ok(Target {
            tunnel,
            shown: url.clone(),
            errand: errand(
                url.clone(),
                Some(url.clone()),
                options.upload_url.clone(),
                None,
            ),
        });
    }
    let server = endpoint(&tunnel, sa)?;
    let at = |path: &str| format!("http://{}{path}", SocketAddr::new(server, PORT));
    let seconds = WARM_UP.as_secs() + u64::from(options.seconds) + SPARE;
    Ok(Target {
        tunnel,
        shown: server.to_string(),
        errand: errand(
            at(PING),
            Some(at(&format!("{DOWN}?seconds={seconds}"))),
            Some(at(UP)),
            Some(at(LOAD)),
        ),
    })
}

/// The same around the tunnel, against a file.
pub(super) fn around(options: &Speedtest, url: &str, uplink: &str) -> Errand {
    Errand {
        interface: uplink.to_owned(),
        sources: Vec::new(),
        ping: url.to_owned(),
        down: Some(url.to_owned()),
        up: options.direct_upload_url.clone(),
        load: None,
        seconds: options.seconds,
        streams: options.streams,
    }
}

fn choose<'a>(
    name: Option<&str>,
    connections: &'a [ConnectionStatus],
) -> Result<&'a ConnectionStatus, String> {
    let tunnels = || connections.iter().filter(|c| c.name != SERVER);
    let names = |those: &[&ConnectionStatus]| {
        let names: Vec<&str> = those.iter().map(|c| c.name.as_str()).collect();
        names.join(", ")
    };
    if let Some(name) = name {
        return tunnels().find(|c| c.name == name).ok_or_else(|| {
            let all: Vec<_> = tunnels().collect();
            match all.is_empty() {
                true => format!("there is no tunnel `{name}`: none is configured"),
                false => format!("there is no tunnel `{name}`; configured: {}", names(&all)),
            }
        });
    }
    let up: Vec<_> = tunnels().filter(|c| c.state == "up").collect();
    match up.as_slice() {
        [one] => Ok(one),
        [] if tunnels().next().is_none() => Err(
            "there is no tunnel here to measure: a server's clients measure, `cygnet speedtest` on theirs".to_owned(),
        ),
        [] => Err("no tunnel is up; `cygnet up`, or `cygnet status` says why not".to_owned()),
        several => Err(format!(
            "several tunnels are up: name one of {}",
            names(several)
        )),
    }
}

/// Of the addresses that the peer lent us, one of each family.
fn sources(sa: &IkeSaStatus) -> Vec<IpAddr> {
    let first = |v4: bool| {
        let mut lent = sa.virtual_addresses.iter();
        lent.find(|address| address.is_ipv4() == v4).copied()
    };
    first(true).into_iter().chain(first(false)).collect()
}

/// The address at which the server measures.
fn endpoint(tunnel: &str, sa: &IkeSaStatus) -> Result<IpAddr, String> {
    let own = sources(sa);
    let mut told = (sa.speedtest.iter())
        .filter(|address| own.iter().any(|o| o.is_ipv4() == address.is_ipv4()));
    let Some(first) = told.clone().next() else {
        return Err(format!(
            "the server of {tunnel} names no speed test. A Cygnet server does with `speedtest = true` in its [server] \
             section, after `cygnet reload` there and `cygnet down {tunnel}`, `cygnet up {tunnel}` here; with any other, \
             name a large file on a web server behind it: `cygnet speedtest {tunnel} --url http://…`"
        ));
    };
    let remote = || sa.children.iter().flat_map(|child| &child.remote);
    let reached = |address: &&IpAddr| {
        // What is no network (a range, ports) may hold it.
        remote().any(|net| {
            net.parse()
                .map_or(true, |net: IpNet| net.contains(*address))
        })
    };
    told.find(reached).copied().ok_or_else(|| {
        let remote: Vec<&str> = remote().map(String::as_str).collect();
        format!(
            "the server of {tunnel} measures at {first}, which is in none of the networks that the tunnel reaches ({}): \
             add it to `networks` in its [server] section, or name a large file with --url",
            remote.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Speedtest,
    }

    fn options(line: &str) -> Speedtest {
        let words = ["speedtest"].into_iter().chain(line.split_whitespace());
        Line::parse_from(words).options
    }

    fn tunnel(name: &str, state: &str) -> serde_json::Value {
        json!({"name": name, "state": state, "reason": null, "retry_in_s": null, "ike_sas": [{
            "id": 1, "initiator_spi": "", "responder_spi": "", "initiator": true, "state": state, "peer": "vpn",
            "local": "192.0.2.1:4500", "remote": "192.0.2.2:4500", "nat_local": false, "nat_remote": false,
            "suite": null, "virtual_addresses": ["10.99.0.7", "fd99::7"], "speedtest": ["10.99.0.1", "fd99::1"],
            "age_s": 1.0, "rekey_in_s": null, "children": [{
                "id": 1, "name": "net", "state": "up", "spi_in": "", "spi_out": "", "suite": "", "local": [],
                "remote": ["0.0.0.0/0", "::/0"], "packets_in": 0, "bytes_in": 0, "packets_out": 0, "bytes_out": 0,
                "age_s": 1.0, "rekey_in_s": null}]}]})
    }

    fn status(tunnels: &[serde_json::Value]) -> Status {
        let status = json!({
            "version": "1", "config": "/etc/cygnet/cygnet.toml", "processes": {"supervisor": 1, "engine": 2},
            "uptime_s": 1, "engine_restarts": 0, "guard": "not-configured", "warnings": [], "leases": [],
            "engine": {"connections": tunnels, "drops": [], "ike_counters": []},
        });
        serde_json::from_value(status).unwrap()
    }

    fn measured(line: &str, status: &Status) -> Result<Target, String> {
        let interfaces = ["home", "work"].map(|name| (name.to_owned(), format!("cyg-{name}")));
        let known = Surroundings {
            state_dir: "/nowhere".into(),
            user: (1, 1),
            interfaces: BTreeMap::from(interfaces),
        };
        through(&options(line), status, &known)
    }

    #[test]
    fn the_servers_own_endpoint_is_measured_from_the_lent_addresses() {
        let status = status(&[tunnel("home", "up"), tunnel(SERVER, "listening")]);
        let target = measured("", &status).unwrap();
        let errand = target.errand;
        assert_eq!((&*target.tunnel, &*target.shown), ("home", "10.99.0.1"));
        assert_eq!(errand.interface, "cyg-home");
        let lent: [IpAddr; 2] = ["10.99.0.7", "fd99::7"].map(|a| a.parse().unwrap());
        assert_eq!(errand.sources, lent);
        assert_eq!(errand.ping, "http://10.99.0.1:25465/v1/ping");
        let down = "http://10.99.0.1:25465/v1/down?seconds=20";
        assert_eq!(errand.down.as_deref(), Some(down));
        assert_eq!(errand.up.as_deref(), Some("http://10.99.0.1:25465/v1/up"));
        assert_eq!((errand.seconds, errand.streams), (10, 4));
    }

    #[test]
    fn a_family_that_is_not_lent_is_not_used() {
        let mut home = tunnel("home", "up");
        home["ike_sas"][0]["virtual_addresses"] = json!(["fd99::7"]);
        let target = measured("home", &status(&[home])).unwrap();
        assert_eq!(target.errand.ping, "http://[fd99::1]:25465/v1/ping");
    }

    #[test]
    fn a_file_is_measured_where_one_is_named() {
        let mut home = tunnel("home", "up");
        home["ike_sas"][0]["speedtest"] = json!([]);
        let status = status(&[home]);
        let file = "http://h/big";
        let errand = measured(&format!("--url {file}"), &status).unwrap().errand;
        assert_eq!(
            (errand.ping.as_str(), errand.down.as_deref()),
            (file, Some(file))
        );
        assert_eq!((errand.up, errand.load), (None, None));
        let line = format!("--url {file} --upload-url http://h/up --seconds 3 --streams 1");
        let errand = measured(&line, &status).unwrap().errand;
        assert_eq!(errand.up.as_deref(), Some("http://h/up"));
        assert_eq!((errand.seconds, errand.streams), (3, 1));
        let direct = around(&options(&format!("--direct-url {file}")), file, "eth0");
        assert_eq!(
            (direct.interface.as_str(), direct.sources.len()),
            ("eth0", 0)
        );
        assert_eq!((direct.down.as_deref(), direct.up), (Some(file), None));
    }

    #[test]
    fn what_cannot_be_measured_is_told_with_what_to_do() {
        let silent = {
            let mut home = tunnel("home", "up");
            home["ike_sas"][0]["speedtest"] = json!([]);
            status(&[home])
        };
        let narrow = {
            let mut home = tunnel("home", "up");
            home["ike_sas"][0]["children"][0]["remote"] = json!(["10.1.0.0/16"]);
            status(&[home])
        };
        let both = status(&[tunnel("home", "up"), tunnel("work", "up")]);
        let down = status(&[tunnel("home", "connecting")]);
        for (line, status, expected) in [
            ("", &silent, "`speedtest = true` in its [server] section"),
            (
                "",
                &narrow,
                "measures at 10.99.0.1, which is in none of the networks that the tunnel reaches (10.1.0.0/16)",
            ),
            ("", &both, "name one of home, work"),
            (
                "nix",
                &both,
                "there is no tunnel `nix`; configured: home, work",
            ),
            ("", &down, "no tunnel is up"),
            ("home", &down, "home is not up"),
            (
                "",
                &status(&[tunnel(SERVER, "listening")]),
                "there is no tunnel here",
            ),
            (SERVER, &both, "there is no tunnel `server`"),
            ("", &status(&[tunnel("other", "up")]), "has no tunnel other"),
            (
                "home --url https://h/big",
                &both,
                "`https://h/big`: expected http://",
            ),
            (
                "home --direct-url h/big",
                &both,
                "`h/big`: expected http://",
            ),
        ] {
            let told = measured(line, status).unwrap_err();
            assert!(told.contains(expected), "{told}");
        }
        assert!(measured("home", &both).is_ok());
    }

    #[test]
    fn what_makes_no_sense_is_no_line() {
        for line in [
            "--seconds 2",
            "--seconds 61",
            "--streams 0",
            "--streams 9",
            "--upload-url http://h/",
            "--direct-upload-url http://h/",
            "--history home",
            "--history --svg f",
        ] {
            let words = ["speedtest"].into_iter().chain(line.split_whitespace());
            assert!(Line::try_parse_from(words).is_err(), "{line}");
        }
        assert!(options("--history --json").history);
    }
}
