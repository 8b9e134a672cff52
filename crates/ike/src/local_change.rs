//! What follows when this machine's addresses or ways out change: whom we called has to show soon that
//! the way still leads there, and whoever waits to be called again is called now.

use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::event::Reason;
use crate::keeper::Dial;
use crate::policy::Retransmit;
use crate::sa::IkeSa;

/// How long an answer may take: gone after two seconds.
const SOON: Retransmit = Retransmit {
    first: Duration::from_millis(250),
    factor: 1.5,
    most: Duration::from_millis(800),
    tries: 3,
};

impl Endpoint {
    /// Those who called us look after themselves: they cannot be called.
    pub(crate) fn handle_local_change(&mut self) {
        let now = self.cx.boot();
        let called = self.sas.values().filter(|sa| {
            let state = sa.established();
            state.is_some_and(|state| state.peering.dialed && state.is_live())
        });
        let called: Vec<_> = called.map(IkeSa::id).collect();
        for id in called {
            self.change(id, |state, _, cx| state.doubt(cx));
            self.change(id, |_, channel, _| channel.window.reschedule(now, SOON));
        }
        let names: Vec<String> = self.keeper.kept.keys().cloned().collect();
        for name in names {
            self.call_anew(&name);
        }
    }

    /// Begins a call from its beginning: the address it goes out from may have gone.
    fn call_anew(&mut self, name: &str) {
        let Some(kept) = self.keeper.kept.get_mut(name) else {
            return;
        };
        let dial = std::mem::replace(&mut kept.dial, Dial::Idle);
        if matches!(dial, Dial::Idle) {
            return;
        }
        kept.backoff = None;
        if let Dial::Dialing { sa, .. } = dial {
            let reason = "this machine's addresses changed".to_owned();
            self.delete_ike_sa(sa, Reason::Unreachable(reason));
        }
        self.keep(name);
    }
}
