//! Events of the core as log lines: one a thing that matters, with the tunnel, the peer, what
//! happened and why. Addresses stand at DEBUG only.

use std::time::Duration;

use cygnet_ike::event::{Event, EventKind, Failed, Reason};
use cygnet_ike::identity;

/// Longest part of a line that a peer can choose: its identity may have 64 KiB.
const PART_MAX: usize = 400;

/// Writes the line. `stays`: it is an end beside which another of the same stands.
pub(crate) fn log(event: &Event, stays: bool) {
    let who = short(&who(event));
    if let Some(path) = &event.path {
        tracing::debug!("{who}: path {path}");
    }
    match &event.kind {
        EventKind::Connecting { attempt: 1 } => tracing::info!("{who}: connecting"),
        EventKind::Connecting { attempt } => tracing::debug!("{who}: connecting, try {attempt}"),
        EventKind::IkeUp {
            suite,
            nat_local,
            nat_remote,
            replaces,
        } => {
            let nat = match (nat_local, nat_remote) {
                (true, true) => ", NAT at both ends",
                (true, false) => ", NAT before us",
                (false, true) => ", NAT before the peer",
                (false, false) => "",
            };
            let verb = if replaces.is_some() {
                "IKE keys renewed"
            } else {
                "peer authenticated"
            };
            tracing::info!("{who}: {verb} ({suite}{nat})");
        }
        EventKind::IkeDown { reason } => match reason {
            reason if reason.is_replaced() => {
                tracing::debug!("{who}: old IKE SA ended: {reason}");
            }
            reason if stays => tracing::info!(
                "{who}: another connection to the same peer ended, and the tunnel stays up: {}",
                short(reason)
            ),
            Reason::Operator | Reason::DeletedByPeer => tracing::info!("{who}: down: {reason}"),
            _ => tracing::warn!("{who}: down: {}", short(reason)),
        },
        EventKind::ChildUp {
            name,
            suite,
            selectors,
            replaces,
            ..
        } => {
            if replaces.is_some() {
                tracing::info!("{who}: {name}: keys renewed");
            } else {
                tracing::info!("{who}: {name} up: {selectors} ({suite})");
            }
        }
        EventKind::ChildDown { name, reason, .. } => match reason {
            reason if reason.is_replaced() => tracing::debug!("{who}: {name}: old keys removed"),
            reason if stays => tracing::debug!(
                "{who}: {name} ended on one connection, and goes on on another: {}",
                short(reason)
            ),
            Reason::Operator | Reason::DeletedByPeer => {
                tracing::info!("{who}: {name} down: {reason}");
            }
            _ => tracing::warn!("{who}: {name} down: {}", short(reason)),
        },
        EventKind::PeerMoved { from } => {
            tracing::info!("{who}: the peer's address changed");
            tracing::debug!("{who}: it was {from}");
        }
        EventKind::Moved { from } => {
            tracing::info!("{who}: the tunnel goes another way, and stays up");
            tracing::debug!("{who}: it was {from}");
        }
        EventKind::Refused { reason } => tracing::warn!("{who}: refused: {}", short(reason)),
        EventKind::Unexamined { reason } => tracing::warn!(
            "{who}: its certificate could not be judged again and it stays; `cygnet reload` tries \
             again: {}",
            short(reason)
        ),
        EventKind::ServerFailed(failed) => {
            tracing::warn!("{who}: {}; the next server is called", short(failed));
        }
        EventKind::Retry { after, reason } => match not_up(reason, *after) {
            Some(why) => tracing::warn!("{who}: {why}"),
            None => tracing::debug!("{who}: not up: {reason}"),
        },
        EventKind::Cookies { on: true } => {
            tracing::warn!("many half-open connections: cookies are asked for");
        }
        EventKind::Cookies { on: false } => {
            tracing::info!("half-open connections are few again: no cookies any more");
        }
        EventKind::Drained => tracing::debug!("every SA is deleted"),
    }
}

/// Why a tunnel is not up, and when it is tried again; `None`: somebody wished it, and that it is down was said.
fn not_up(reason: &Reason, after: Duration) -> Option<String> {
    if *reason == Reason::Operator {
        return None;
    }
    let when = match after.as_secs_f32() {
        ..0.05 => "at once".to_owned(),
        seconds => format!("in {seconds:.1} s"),
    };
    Some(format!("not up: {}; next try {when}", short(reason)))
}

/// Why, without what differs a little each time: how long a call has waited.
pub(crate) fn steady(reason: &Reason) -> String {
    match reason {
        Reason::NoAnswer { .. } => "no answer".to_owned(),
        Reason::EachServer(all) => {
            let all: Vec<String> = all.iter().map(steady_failure).collect();
            all.join("; ")
        }
        reason => reason.to_string(),
    }
}

/// The same of one server.
pub(crate) fn steady_failure(failed: &Failed) -> String {
    format!("{}: {}", failed.server, steady(&failed.reason))
}

/// The text, cut where it is longer than a line should be.
pub(crate) fn short(text: &impl std::fmt::Display) -> String {
    let mut text = text.to_string();
    if let Some((cut, _)) = text.char_indices().nth(PART_MAX) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

pub(crate) fn who(event: &Event) -> String {
    match (&event.connection, &event.peer) {
        (Some(connection), Some(peer)) => {
            format!("{connection} [{}]", identity::display(peer))
        }
        (Some(connection), None) => connection.clone(),
        (None, Some(peer)) => format!("[{}]", identity::display(peer)),
        (None, None) => "unknown peer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_cannot_fill_the_log_with_its_name() {
        let long = "ä".repeat(60_000);
        assert_eq!(short(&long).chars().count(), PART_MAX + 1);
        assert_eq!(short(&"alice"), "alice");
    }

    #[test]
    fn what_the_operator_asked_for_is_no_failure_and_no_try_is_in_no_seconds() {
        let told = |reason, milliseconds| not_up(&reason, Duration::from_millis(milliseconds));
        assert_eq!(told(Reason::Operator, 1), None);
        for (milliseconds, expected) in [(1, "at once"), (49, "at once"), (1500, "in 1.5 s")] {
            let expected = format!("not up: {}; next try {expected}", Reason::DeletedByPeer);
            assert_eq!(told(Reason::DeletedByPeer, milliseconds), Some(expected));
        }
    }
}
