//! `cygnet gateway setup`, as a person types it; whatever is not confirmed is taken back, and `gateway off` takes back what
//! was.

mod booted;
mod kept;
mod machine;
mod refused;
mod serving;
mod trials;
mod typist;

use super::super::Scenario;

pub(super) fn scenarios() -> Vec<Scenario> {
    [
        trials::scenarios(),
        kept::scenarios(),
        booted::scenarios(),
        serving::scenarios(),
        refused::scenarios(),
    ]
    .concat()
}
