//! What other devices import, and what other VPNs hand out.
//!
//! Pure: text and bytes in, text and bytes out. Nothing here reads a file or a clock, and randomness goes only into
//! the salts of `.p12` files.
//!
//! - [`model`]: what a device needs to know to connect: one [`Profile`] per device, the source of every file.
//! - [`write`]: that profile as files for each family of devices.
//! - [`read`]: the files of Algo and others, as a tunnel of ours.
//! - [`site`]: a tunnel between two offices, for either end.
//! - [`bundle`]: Cygnet's own one-file form, which [`write`] makes and [`read`] takes.

pub mod bundle;
pub mod model;
pub mod read;
pub mod site;
pub mod write;

pub use bundle::{Bundle, SiteBundle};
pub use model::{Authority, Login, OnDemand, Profile};
pub use site::Site;
