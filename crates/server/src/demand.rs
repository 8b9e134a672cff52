//! When Apple's devices connect by themselves: as text in the state, and as a profile holds it.

use cygnet_profile::OnDemand;
use cygnet_profile::write::check_ssid;
use rusqlite::params;

use crate::error::{Error, Result};
use crate::name::Name;
use crate::server::Server;
use crate::user::{PASSWORD, known_user};

/// Refuses what no device could be handed.
pub fn check(on_demand: &OnDemand) -> Result<()> {
    for ssid in &on_demand.trusted_ssids {
        check_ssid(ssid).map_err(|error| Error::Refused(error.to_string()))?;
    }
    Ok(())
}

/// As the state holds it; nothing where a person connects by hand.
pub(crate) fn stored(on_demand: &OnDemand) -> Option<String> {
    (on_demand.cellular || on_demand.wifi)
        .then(|| serde_json::to_string(on_demand).expect("strings and truths are JSON"))
}

pub(crate) fn of(stored: Option<&str>) -> OnDemand {
    stored
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

impl Server {
    /// Notes when a user's devices, or the one named, connect by themselves; for their next files. The daemon has no
    /// part in it.
    pub fn set_on_demand(
        &mut self,
        name: &Name,
        device: Option<&Name>,
        on_demand: &OnDemand,
    ) -> Result<()> {
        check(on_demand)?;
        let error = self.store.error();
        let state = &self.store.connection;
        let user = known_user(state, name).map_err(|flaw| flaw.with(&error))?;
        let stored = stored(on_demand);
        let mut changed = 0;
        if device.is_none_or(|device| device.as_str() != PASSWORD) {
            changed += state
                .execute(
                    "UPDATE device SET on_demand = ?1 WHERE user = ?2 AND (?3 IS NULL OR name = ?3)",
                    params![stored, user, device.map(Name::as_str)],
                )
                .map_err(&error)?;
        }
        if device.is_none_or(|device| device.as_str() == PASSWORD) {
            changed += state
                .execute(
                    "UPDATE user SET on_demand = ?1 WHERE id = ?2",
                    params![stored, user],
                )
                .map_err(&error)?;
        }
        match changed {
            0 => Err(Error::Refused(format!(
                "{name} has no such device; `cygnet user show {name}` lists them"
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back() {
        let on_demand = OnDemand {
            cellular: true,
            wifi: false,
            trusted_ssids: vec!["Home & \"Garden\"".to_owned(), "büro".to_owned()],
        };
        assert_eq!(of(stored(&on_demand).as_deref()), on_demand);
        assert_eq!(stored(&OnDemand::default()), None);
        assert_eq!(of(None), OnDemand::default());
        for bad in ["", " ", "a\nb", "a\u{2028}b", &"x".repeat(33)] {
            let bad = OnDemand {
                trusted_ssids: vec![bad.to_owned()],
                ..on_demand.clone()
            };
            assert!(check(&bad).is_err());
        }
    }
}
