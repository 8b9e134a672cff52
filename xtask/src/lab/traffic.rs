//! Traffic between hosts, and what became of it.

use super::failure::{Context, Failure, Result};
use super::namespace::Namespace;
use super::process::{Exec, Process, wait_for};
use std::time::Duration;

/// What `ping` found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PingReport {
    /// Echo requests sent.
    pub sent: u32,
    /// Answers received.
    pub received: u32,
    /// Average round trip in milliseconds, when there was one.
    pub average_ms: Option<f64>,
}

/// Pings `count` times, five a second.
pub fn ping(from: &Namespace, to: &str, count: u32) -> Result<PingReport> {
    let count = count.to_string();
    let finished = from.finish(["ping", "-n", "-c", &count, "-i", "0.2", "-W", "2", to])?;
    parse_ping(&finished.stdout)
        .ok_or_else(|| Failure::new(format!("ping {to}: {}{}", finished.stdout, finished.stderr)))
}

/// Pings until the first answer; for waiting until a path works.
pub fn ping_until_answered(from: &Namespace, to: &str, patience: Duration) -> Result<()> {
    wait_for(&format!("{} reaches {to}", from.name()), patience, || {
        let once = from.finish(["ping", "-n", "-c", "1", "-W", "1", to])?;
        Ok(once.success().then_some(()))
    })
}

/// Pings and fails unless every request is answered, within five seconds each: of several `ping` waits for the last no
/// longer than twice a round trip.
pub fn ping_all(from: &Namespace, to: &str, count: u32) -> Result<PingReport> {
    let mut round_trips = 0.0;
    for request in 1..=count {
        let once = from.finish(["ping", "-n", "-c", "1", "-W", "5", to])?;
        let report = parse_ping(&once.stdout).filter(|_| once.success());
        let Some(average_ms) = report.and_then(|report| report.average_ms) else {
            return Err(Failure::new(format!(
                "{} pings {to}: request {request} of {count} is not answered: {}{}",
                from.name(),
                once.stdout,
                once.stderr
            )));
        };
        round_trips += average_ms;
    }
    Ok(PingReport {
        sent: count,
        received: count,
        average_ms: (count > 0).then(|| round_trips / f64::from(count)),
    })
}

fn parse_ping(text: &str) -> Option<PingReport> {
    let summary = text
        .lines()
        .find(|line| line.contains("packets transmitted"))?;
    let mut parts = summary.split(", ");
    let number = |part: Option<&str>| part?.split_whitespace().next()?.parse().ok();
    let sent = number(parts.next())?;
    let received = number(parts.next())?;
    let average_ms = text
        .lines()
        .find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "))
        .and_then(|times| times.split('/').nth(1)?.parse().ok());
    Some(PingReport {
        sent,
        received,
        average_ms,
    })
}

/// Which way bulk data flows, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From client to server.
    Upload,
    /// From server to client.
    Download,
}

/// TCP throughput in Mbit/s, as the receiver counts it. Starts the server on `server` for this alone.
pub fn throughput(
    client: &Namespace,
    server: &Namespace,
    address: &str,
    seconds: u32,
    direction: Direction,
) -> Result<f64> {
    throughput_by(client, server, (address, address), seconds, direction)
}

/// The same where the server's address is another one (the first) than the one it is called by.
pub fn throughput_by(
    client: &Namespace,
    server: &Namespace,
    (own, address): (&str, &str),
    seconds: u32,
    direction: Direction,
) -> Result<f64> {
    let _server = iperf_server(server, own)?;
    let seconds_text = seconds.to_string();
    let mut argv = vec!["iperf3", "-J", "-c", address, "-t", &seconds_text];
    if direction == Direction::Download {
        argv.push("-R");
    }
    let patience = Duration::from_secs(u64::from(seconds) + 15);
    let text = client.place(Exec::new(argv).patience(patience)).run()?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    bits.map(|bits| bits / 1e6)
        .ok_or_else(|| Failure::new(format!("iperf3 reported no throughput: {text}")))
}

/// UDP at a constant rate, in the background.
#[derive(Debug)]
pub struct UdpFlow {
    client: Process,
    _server: Process,
    seconds: u32,
}

/// What became of a [`UdpFlow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that did not arrive.
    pub lost: u64,
}

impl UdpFlow {
    /// Starts `mbit_s` of 1200-byte datagrams from `from` to `to` (at `address`), for `seconds`.
    pub fn start(
        from: &Namespace,
        to: &Namespace,
        address: &str,
        mbit_s: u32,
        seconds: u32,
    ) -> Result<Self> {
        let server = iperf_server(to, address)?;
        let (rate, time) = (format!("{mbit_s}M"), seconds.to_string());
        let client = from.spawn([
            "iperf3", "-J", "-u", "-l", "1200", "-b", &rate, "-c", address, "-t", &time,
        ])?;
        Ok(Self {
            client,
            _server: server,
            seconds,
        })
    }

    /// Waits for the end of the flow and counts.
    pub fn finish(mut self) -> Result<FlowReport> {
        let status = self
            .client
            .wait(Duration::from_secs(u64::from(self.seconds) + 20))?;
        let text = self.client.log();
        if !status.success() {
            return Err(Failure::new(format!("the UDP flow broke: {text}")));
        }
        parse_flow(&text).context("UDP flow")
    }
}

fn parse_flow(text: &str) -> Result<FlowReport> {
    let report: serde_json::Value = serde_json::from_str(text)?;
    let sum = &report["end"]["sum"];
    match (sum["packets"].as_u64(), sum["lost_packets"].as_u64()) {
        (Some(sent), Some(lost)) => Ok(FlowReport { sent, lost }),
        _ => Err(Failure::new(format!("iperf3 reported no packets: {text}"))),
    }
}

fn iperf_server(on: &Namespace, address: &str) -> Result<Process> {
    let mut server = on.spawn(["iperf3", "-s", "-B", address])?;
    wait_for("iperf3 listens", Duration::from_secs(5), || {
        if !server.is_running() {
            return Err(Failure::new(format!(
                "iperf3 -s ended: {}",
                server.last_words()
            )));
        }
        Ok(on.listens_tcp(5201)?.then_some(()))
    })?;
    Ok(server)
}

/// Gets a page over HTTP.
pub fn fetch(from: &Namespace, url: &str) -> Result<String> {
    let page = from.exec(["curl", "-sS", "-g", "--fail", "--max-time", "5", url])?;
    Ok(page.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_ping_is_read() {
        let text = "PING 10.0.0.2 (10.0.0.2) 56(84) bytes of data.\n\n--- 10.0.0.2 ping statistics ---\n\
            5 packets transmitted, 4 received, 20% packet loss, time 805ms\n\
            rtt min/avg/max/mdev = 0.040/0.052/0.071/0.011 ms\n";
        let expected = PingReport {
            sent: 5,
            received: 4,
            average_ms: Some(0.052),
        };
        assert_eq!(parse_ping(text), Some(expected));
        let none = "2 packets transmitted, 0 received, +2 errors, 100% packet loss, time 10ms\n";
        let expected = PingReport {
            sent: 2,
            received: 0,
            average_ms: None,
        };
        assert_eq!(parse_ping(none), Some(expected));
        assert_eq!(parse_ping("ping: unknown host"), None);
    }

    #[test]
    fn the_losses_of_a_flow_are_read() {
        let text =
            r#"{"end": {"sum": {"packets": 5000, "lost_packets": 3, "lost_percent": 0.06}}}"#;
        assert_eq!(
            parse_flow(text).unwrap(),
            FlowReport {
                sent: 5000,
                lost: 3
            }
        );
        assert!(parse_flow(r#"{"error": "unable to connect"}"#).is_err());
    }
}
