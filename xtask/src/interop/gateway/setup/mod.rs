//! `cygnet gateway setup`, as a person types it; whatever is not confirmed is taken back, and `gateway off` takes back what
//! was.

mod kept;
mod machine;
mod refused;
mod trials;
mod typist;

use super::super::Scenario;

pub(super) fn scenarios() -> Vec<Scenario> {
    [kept::scenarios(), trials::scenarios(), refused::scenarios()].concat()
}
