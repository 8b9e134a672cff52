//! Cygnet's own form, for another machine that runs it.

use zeroize::{Zeroize, Zeroizing};

use super::{Error, File, facts::Facts};
use crate::bundle::{Bundle, VERSION};
use crate::read::tunnel_name;

pub(super) fn file(facts: &Facts<'_>) -> Result<Option<File>, Error> {
    let Some(certificate) = &facts.certificate else {
        return Ok(None);
    };
    let profile = facts.profile;
    let mut bundle = Bundle {
        cygnet: VERSION,
        name: tunnel_name(&profile.remote),
        remote: profile.remote.clone(),
        remote_identity: profile.remote_identity.clone(),
        identity: certificate.identity.to_owned(),
        ca: facts.ca.clone(),
        certificate: certificate.pem.clone(),
        key: certificate.key.as_ref().map(|key| key.pem().to_string()),
        networks: profile.networks.clone(),
        dns: profile.dns.clone(),
    };
    // Large enough at once, so that no copy of the key is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024));
    let written = serde_json::to_writer_pretty(&mut *bytes, &bundle);
    bundle.key.zeroize();
    written.map_err(|error| Error::Format {
        format: "Cygnet bundle",
        why: error.to_string(),
    })?;
    bytes.push(b'\n');
    Ok(Some(File::secret(format!("{}.cygnet", facts.stem), bytes)))
}
