//! `cygnet dhcp leases`

use std::fmt::Write as _;
use std::process::ExitCode;

use cygnet_daemon::api::{DhcpState, DhcpStatus};
use hyper::Method;

use super::status::{duration, parse};
use crate::args::Dhcp;
use crate::client;

pub(super) fn dhcp(what: &Dhcp) -> ExitCode {
    let Dhcp::Leases(options) = what;
    let body = match client::call(&options.socket.socket, Method::GET, "/v1/status", None) {
        Ok(body) => body,
        Err(message) => return super::fail(&message),
    };
    let status = match parse(&body) {
        Ok(status) => status,
        Err(message) => return super::fail(&message),
    };
    if options.json {
        return match serde_json::to_string(&status.dhcp) {
            Ok(json) => {
                println!("{json}");
                ExitCode::SUCCESS
            }
            Err(error) => super::fail(&error.to_string()),
        };
    }
    let Some(dhcp) = &status.dhcp else {
        return super::fail(
            "this machine lends no addresses: write a [gateway.dhcp] section, or name a range in `cygnet gateway setup`, then `cygnet reload`",
        );
    };
    for warning in status
        .warnings
        .iter()
        .filter(|w| w.starts_with("[gateway.dhcp]"))
    {
        eprintln!("cygnet: {warning}");
    }
    print!("{}", table(dhcp));
    ExitCode::SUCCESS
}

/// One line for `cygnet status`.
pub(super) fn line(dhcp: &DhcpStatus) -> String {
    let interface = dhcp.interface.as_deref().unwrap_or("the LAN");
    let range = dhcp.range.as_deref().unwrap_or("no addresses");
    match dhcp.state {
        DhcpState::Looking => {
            format!("DHCP on {interface}: looking whether another server answers")
        }
        DhcpState::Serving => format!(
            "DHCP on {interface}: lending {range}, {} lent",
            dhcp.leases.len()
        ),
        DhcpState::Silent => format!("DHCP on {interface}: silent, another server answers"),
        DhcpState::Stopped => "DHCP: stopped".to_owned(),
    }
}

fn table(dhcp: &DhcpStatus) -> String {
    let mut out = line(dhcp);
    out.push('\n');
    for lease in &dhcp.leases {
        let name = lease.name.as_deref().unwrap_or("-");
        let reserved = if lease.reserved { ", reserved" } else { "" };
        let _ = writeln!(
            out,
            "  {:<15}  {}  {name:<24}  for {}{reserved}",
            lease.address.to_string(),
            lease.mac,
            duration(lease.expires_in_s as f64)
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use cygnet_daemon::api::DhcpLease;

    use clap::Parser;

    use super::*;
    use crate::args::Args;

    #[test]
    fn leases_have_no_history() {
        let parses = |option| Args::try_parse_from(["cygnet", "dhcp", "leases", option]).is_ok();
        assert!(parses("--json"));
        assert!(!parses("--history"));
    }

    #[test]
    fn a_lease_is_a_line() {
        let lease = |last: u8, name: Option<&str>, reserved| DhcpLease {
            address: [192, 168, 1, last].into(),
            mac: format!("3c:22:fb:01:02:{last:02x}"),
            name: name.map(str::to_owned),
            reserved,
            expires_in_s: 3000,
        };
        let mut dhcp = DhcpStatus {
            state: DhcpState::Serving,
            interface: Some("eth0".to_owned()),
            server: Some([192, 168, 1, 2].into()),
            range: Some("192.168.1.100-192.168.1.199".to_owned()),
            others: Vec::new(),
            router_advertisements: true,
            leases: vec![lease(100, Some("phone"), false), lease(9, None, true)],
        };
        let told = table(&dhcp);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines.first(),
            Some(&"DHCP on eth0: lending 192.168.1.100-192.168.1.199, 2 lent")
        );
        assert!(lines[1].contains("192.168.1.100"), "{told}");
        assert!(lines[1].contains("phone"), "{told}");
        assert!(lines[2].contains("3c:22:fb:01:02:09"), "{told}");
        assert!(lines[2].ends_with("reserved"), "{told}");
        dhcp.state = DhcpState::Silent;
        assert_eq!(line(&dhcp), "DHCP on eth0: silent, another server answers");
    }
}
