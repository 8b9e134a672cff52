//! What happened, line by line, for people who look into a failed run.

use std::fmt::{self, Write as _};

use cygnet_ike::io::{Ask, DataCommand};
use cygnet_ike::time::Instant;
use cygnet_wire::message::Message;

/// Keeps lines only when asked to: most runs succeed and nobody reads them.
pub(crate) struct Journal {
    lines: Option<Vec<String>>,
}

impl Journal {
    pub(crate) fn new(keeps: bool) -> Self {
        Self {
            lines: keeps.then(Vec::new),
        }
    }

    pub(crate) fn line(&mut self, now: Instant, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let mut line = String::new();
            // Writing to a string does not fail.
            let _ = write!(line, "{:>11.6}  {}", now.since_boot().as_secs_f64(), text());
            lines.push(line);
        }
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

/// An IKE message in a few words; what is encrypted stays hidden.
pub(crate) struct Sketch<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Sketch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(message) = Message::parse(self.0) else {
            return write!(f, "{} octets, no IKE message", self.0.len());
        };
        let header = message.header;
        let kind = if header.flags.is_response() {
            "response"
        } else {
            "request"
        };
        let role = if header.flags.is_initiator() {
            'i'
        } else {
            'r'
        };
        write!(
            f,
            "{} {kind} {} of {:04x}.{:04x} ({role}, {} octets)",
            header.exchange,
            header.message_id.0,
            header.initiator_spi.0 >> 48,
            header.responder_spi.0 >> 48,
            self.0.len(),
        )
    }
}

/// A question in a few words.
pub(crate) fn question(ask: &Ask) -> String {
    match ask {
        Ask::Lease { ike_sa, .. } => format!("Lease for {ike_sa:?}"),
        other => format!("{other:?}"),
    }
}

/// An order in a few words.
pub(crate) fn describe(order: &DataCommand) -> String {
    match order {
        DataCommand::InstallIn { child, .. } => format!(
            "InstallIn of {:?}, {:08x}, for {:?}",
            child.id, child.spi_in, child.ike_sa
        ),
        DataCommand::SwitchOut { child, .. } => format!(
            "SwitchOut of {:?}, {:08x}, for {:?}",
            child.id, child.spi_out, child.ike_sa
        ),
        DataCommand::RemoveOut { child } => format!("RemoveOut of {child:?}"),
        DataCommand::RemoveIn { child } => format!("RemoveIn of {child:?}"),
        DataCommand::UpdatePath { child, path } => format!("UpdatePath of {child:?} to {path}"),
        DataCommand::FreeSpi { spi } => format!("FreeSpi of {spi:08x}"),
        DataCommand::ReleaseLease { ike_sa } => format!("ReleaseLease of {ike_sa:?}"),
        DataCommand::SetVirtual { ike_sa, lease, .. } => {
            format!("SetVirtual of {ike_sa:?} to {:?}", lease.addresses)
        }
        other => format!("{other:?}"),
    }
}
