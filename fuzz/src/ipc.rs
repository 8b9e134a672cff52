//! What an engine that somebody took over may send the supervisor, which is root.

use cygnet_daemon::fuzzing;

use crate::seeds::Seed;

/// The body of a message: it is one, and then the same when written and read again, or it is none.
pub fn ipc(data: &[u8]) {
    if let Some(written) = fuzzing::engine_message(data) {
        let again = fuzzing::engine_message(&written);
        assert_eq!(again.as_ref(), Some(&written));
    }
}

pub(crate) fn seeds(seeds: &mut Vec<Seed>) {
    for (number, message) in fuzzing::engine_messages().into_iter().enumerate() {
        seeds.push(("ipc", format!("message{number:02}"), message));
    }
}
