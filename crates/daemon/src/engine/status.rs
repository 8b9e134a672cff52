//! The core's and the data path's view of things, as the control socket tells it.

use std::time::Duration;

use cygnet_ike::event::Reason;
use cygnet_ike::identity;
use cygnet_ike::policy::Start;
use cygnet_ike::status::{self, Stage, Status};
use cygnet_ike::time::Instant;

use super::datapath::Datapath;
use super::renewals::Renewals;
use crate::api::{
    ChildStatus, ConnectionStatus, Count, EngineStatus, IkeSaStatus, InFlight, RefusedCall,
};

/// The report.
pub(super) fn report(
    status: &Status,
    now: Instant,
    datapath: &Datapath,
    renewals: &Renewals,
) -> EngineStatus {
    let carried = datapath.carried();
    let connections = status.connections.iter().map(|connection| {
        let sas = status
            .ike_sas
            .iter()
            .filter(|sa| sa.connection.as_ref() == Some(&connection.name));
        let sas: Vec<_> = sas.collect();
        let traffic = carried.get(&connection.name).copied().unwrap_or_default();
        let renewed = renewals.of(&connection.name);
        let state = state(connection, &sas);
        let why = connection.why.as_ref();
        ConnectionStatus {
            name: connection.name.clone(),
            state: state.to_owned(),
            reason: why
                .filter(|why| !is_whole(connection) && is_told(state, why))
                .map(ToString::to_string),
            retry_in_s: connection.next_try.map(seconds),
            packets_in: traffic.packets_in,
            bytes_in: traffic.bytes_in,
            packets_out: traffic.packets_out,
            bytes_out: traffic.bytes_out,
            ike_rekeys: renewed.ike_sas,
            child_rekeys: renewed.child_sas,
            ike_sas: sas.into_iter().map(|sa| ike_sa(sa, datapath)).collect(),
        }
    });
    let drops = datapath.drops().into_iter();
    EngineStatus {
        connections: connections.collect(),
        drops: drops.map(|(name, count)| Count { name, count }).collect(),
        refused: status
            .refused
            .iter()
            .map(|call| refused(call, now))
            .collect(),
        ike_counters: ike_counters(status),
    }
}

fn refused(call: &cygnet_ike::refused::RefusedCall, now: Instant) -> RefusedCall {
    RefusedCall {
        from: call.from,
        client: call.client.name().map(str::to_owned),
        offered: call.offered.clone(),
        remedy: call.remedy.clone(),
        count: call.count,
        ago_s: seconds(now.since(call.last)),
    }
}

/// Whoever listens does what he is to, though the operator ended something before.
fn is_told(state: &str, why: &Reason) -> bool {
    state != "listening" || *why != Reason::Operator
}

/// Up with every child that is to be up.
fn is_whole(connection: &status::ConnectionStatus) -> bool {
    let mut wanted = connection.children.iter().filter(|child| child.wanted);
    connection.up && wanted.all(|child| child.installed > 0)
}

fn state(connection: &status::ConnectionStatus, sas: &[&status::IkeSaStatus]) -> &'static str {
    let connecting = sas.iter().any(|sa| sa.stage == Stage::Connecting);
    let wanted = connection.children.iter().any(|child| child.wanted);
    let by_itself = |start| start == Start::Always;
    if is_whole(connection) {
        "up"
    } else if connection.up && connection.why.is_some() {
        // A child was refused; it is tried again.
        "waiting"
    } else if connecting {
        "connecting"
    } else if connection.next_try.is_some() {
        "waiting"
    } else if !connection.calls {
        "listening"
    } else if wanted {
        "connecting"
    } else if connection
        .children
        .iter()
        .any(|child| by_itself(child.start))
    {
        // It would be up, had nobody taken it down.
        "down"
    } else {
        "idle"
    }
}

fn ike_sa(sa: &status::IkeSaStatus, datapath: &Datapath) -> IkeSaStatus {
    let state = match sa.stage {
        Stage::Connecting => "connecting",
        Stage::Established => "up",
        Stage::Replaced => "rekeyed",
        Stage::Deleting => "deleting",
    };
    let virtual_addresses = sa.assigned.addresses.iter().chain(&sa.lent.addresses);
    IkeSaStatus {
        id: sa.id.0,
        initiator_spi: format!("{:016x}", sa.spi_i.0),
        responder_spi: format!("{:016x}", sa.spi_r.0),
        initiator: sa.dialed,
        state: state.to_owned(),
        peer: sa
            .peer
            .as_ref()
            .map(|peer| identity::display(peer).to_string()),
        // The supervisor knows.
        user: None,
        device: None,
        local: sa.path.local,
        remote: sa.path.remote,
        server: sa.server.map(super::changes::place),
        nat_local: sa.nat_local,
        nat_remote: sa.nat_remote,
        mobike: sa.mobike,
        suite: sa.suite.clone(),
        virtual_addresses: virtual_addresses.copied().collect(),
        dns: sa.assigned.dns.clone(),
        domains: sa.assigned.domains.clone(),
        speedtest: sa.assigned.speedtest.clone(),
        age_s: sa.age.map_or(0.0, seconds),
        rekey_in_s: sa.rekey_in.map(seconds),
        in_flight: sa.in_flight.as_ref().map(in_flight),
        children: sa.children.iter().map(|c| child(c, datapath)).collect(),
    }
}

fn in_flight(request: &status::InFlightStatus) -> InFlight {
    InFlight {
        exchange: request.exchange.to_string(),
        since_s: seconds(request.since),
        sent: request.sent,
    }
}

fn child(child: &status::ChildSaStatus, datapath: &Datapath) -> ChildStatus {
    let traffic = datapath.traffic(child.id).unwrap_or_default();
    let room = datapath.room(child.id);
    let state = match (child.installed, child.sending) {
        (true, true) => "up",
        // Its successor carries what we send, or its predecessor does until the peer uses this one.
        (true, false) => "rekeyed",
        (false, _) => "deleting",
    };
    ChildStatus {
        id: child.id.0,
        name: child.name.clone(),
        state: state.to_owned(),
        spi_in: format!("{:08x}", child.spi_in),
        spi_out: format!("{:08x}", child.spi_out),
        suite: child.suite.to_string(),
        local: child.local_ts.iter().map(ToString::to_string).collect(),
        remote: child.remote_ts.iter().map(ToString::to_string).collect(),
        packets_in: traffic.packets_in,
        bytes_in: traffic.bytes_in,
        packets_out: traffic.packets_out,
        bytes_out: traffic.bytes_out,
        mtu: room.map(|room| room.inner),
        path_mtu: room.map(|room| room.outer),
        age_s: seconds(child.age),
        rekey_in_s: child.rekey_in.map(seconds),
    }
}

fn ike_counters(status: &Status) -> Vec<Count> {
    let counters = &status.counters;
    let counts = [
        ("half-open", status.half_open as u64),
        ("stray", counters.stray),
        ("forged", counters.forged),
        ("repeated", counters.repeated),
        ("dropped", counters.dropped),
        ("cookies", counters.cookies),
        ("refused", counters.refused),
        ("retransmitted", counters.retransmitted),
        ("established", counters.established),
        ("children", counters.children),
    ];
    let count = |(name, count): (&str, u64)| Count {
        name: name.to_owned(),
        count,
    };
    counts.into_iter().map(count).collect()
}

/// To the millisecond, which is more than anybody reads.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use cygnet_wire::header::ExchangeType;

    use super::*;

    #[test]
    fn what_the_operator_ended_is_no_reason_to_listen() {
        assert!(!is_told("listening", &Reason::Operator));
        assert!(is_told("down", &Reason::Operator));
        assert!(is_told("listening", &Reason::DeletedByPeer));
    }

    #[test]
    fn a_request_in_flight_is_told_as_the_api_documents_it() {
        let told = in_flight(&status::InFlightStatus {
            exchange: ExchangeType::CREATE_CHILD_SA,
            since: Duration::from_micros(1_234_567),
            sent: 2,
        });
        let json = serde_json::to_string(&told).unwrap();
        assert_eq!(
            json,
            r#"{"exchange":"CREATE_CHILD_SA","since_s":1.235,"sent":2}"#
        );
    }
}
