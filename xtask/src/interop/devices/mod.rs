//! A server made with `cygnet server init`, users added with `cygnet user add`, and devices no one here wrote,
//! each connected by exactly the files it was handed.

mod life;
mod readers;
mod strongswan;

use super::Scenario;

pub(super) fn all() -> Vec<Scenario> {
    [
        strongswan::scenarios(),
        readers::scenarios(),
        life::scenarios(),
    ]
    .concat()
}
