//! A [`Profile`](crate::Profile) as files for each family of devices.
