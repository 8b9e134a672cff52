//! What is shown against real strongSwan, a file for each theme.

mod addresses;
mod algorithms;
mod auth;
mod deletes;
mod eap;
mod esn;
mod history;
mod hooks;
mod import;
mod marks;
mod mobike;
mod networks;
mod openings;
mod outages;
mod refusals;
mod rekeys;
mod selectors;
mod sites;
mod top;

use super::Scenario;

/// All of them.
pub(super) fn all() -> Vec<Scenario> {
    [
        auth::scenarios(),
        eap::scenarios(),
        algorithms::scenarios(),
        networks::scenarios(),
        marks::scenarios(),
        addresses::scenarios(),
        mobike::scenarios(),
        selectors::scenarios(),
        sites::scenarios(),
        openings::scenarios(),
        rekeys::scenarios(),
        deletes::scenarios(),
        outages::scenarios(),
        refusals::scenarios(),
        esn::scenarios(),
        import::scenarios(),
        hooks::scenarios(),
        history::scenarios(),
        top::scenarios(),
    ]
    .concat()
}
