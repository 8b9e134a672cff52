//! What an engine, or a process that lends addresses, may send the supervisor, which is root, once somebody took it over.

use cygnet_daemon::fuzzing;

use crate::seeds::Seed;

/// The body of a message: it is one, and then the same when written and read again, or it is none.
pub fn ipc(data: &[u8]) {
    if let Some(written) = fuzzing::engine_message(data) {
        let again = fuzzing::engine_message(&written);
        assert_eq!(again.as_ref(), Some(&written));
    }
    if let Some(written) = fuzzing::dhcp_message(data) {
        let again = fuzzing::dhcp_message(&written);
        assert_eq!(again.as_ref(), Some(&written));
    }
}

pub(crate) fn seeds(seeds: &mut Vec<Seed>) {
    for (number, message) in fuzzing::engine_messages().into_iter().enumerate() {
        seeds.push(("ipc", format!("message{number:02}"), message));
    }
    for (number, message) in fuzzing::dhcp_messages().into_iter().enumerate() {
        seeds.push(("ipc", format!("dhcp{number:02}"), message));
    }
}
