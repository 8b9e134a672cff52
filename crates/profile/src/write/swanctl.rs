//! `swanctl.conf` and its files, in the layout of `/etc/swanctl`.

use super::proposals::{strongswan_esp, strongswan_ike};
use super::{File, facts::Facts};

/// Where a person writes the password, and what stands there before.
pub(crate) const PASSWORD_GOES_HERE: &str = "write your password here";

/// Everything below `swanctl/`.
pub(super) fn files(facts: &Facts<'_>) -> Vec<File> {
    let stem = &facts.stem;
    let path = |name: String| format!("swanctl/{name}");
    let mut files = vec![
        File::public(path("swanctl.conf".into()), configuration(facts)),
        File::public(path(format!("x509ca/{stem}-ca.crt")), facts.ca.clone()),
    ];
    if let Some(certificate) = &facts.certificate {
        let crt = path(format!("x509/{stem}.crt"));
        files.push(File::public(crt, certificate.pem.clone()));
        if let Some(key) = &certificate.key {
            let path = path(format!("private/{stem}.key"));
            files.push(File::secret(path, key.pem_bytes()));
        }
    }
    files
}

/// Every value is of letters that mean nothing to the parser (see `text`), but for those in quotes.
fn configuration(facts: &Facts<'_>) -> String {
    let profile = facts.profile;
    // A dot would begin a subsection where sections are named by paths.
    let name = facts.stem.replace('.', "-");
    let local = match &facts.certificate {
        Some(certificate) => format!(
            "auth = pubkey\n            certs = {}.crt\n            id = \"{}\"",
            facts.stem, certificate.identity
        ),
        None => format!(
            "auth = eap-mschapv2\n            id = {user}\n            eap_id = {user}",
            user = profile.user
        ),
    };
    let secrets = match &facts.certificate {
        Some(_) => String::new(),
        None => format!(
            "\nsecrets {{\n    eap-{name} {{\n        id = {}\n        secret = \"{PASSWORD_GOES_HERE}\"\n    }}\n}}\n",
            profile.user
        ),
    };
    format!(
        "\
# {title}
# For strongSwan: goes into /etc/swanctl, as do the folders beside it; then: swanctl --load-all

connections {{
    {name} {{
        version = 2
        remote_addrs = {remote}
        vips = 0.0.0.0, ::
        proposals = {ike}
        fragmentation = yes
        mobike = yes
        send_cert = always
        dpd_delay = 30s
        keyingtries = 0
        rekey_time = {ike_rekey}s
        over_time = {ike_over}s
        local {{
            {local}
        }}
        remote {{
            auth = pubkey
            id = \"{remote_identity}\"
            cacerts = {stem}-ca.crt
        }}
        children {{
            {name} {{
                remote_ts = {networks}
                esp_proposals = {esp}
                rekey_time = {child_rekey}s
                life_time = {child_life}s
                start_action = start
                dpd_action = restart
                close_action = start
            }}
        }}
    }}
}}
{secrets}",
        title = profile.title,
        remote = profile.remote,
        remote_identity = profile.remote_identity,
        stem = facts.stem,
        ike = strongswan_ike(&facts.ike).join(", "),
        esp = strongswan_esp(&facts.esp).join(", "),
        networks = facts.networks().join(", "),
        ike_rekey = facts.ike_rekey().as_secs(),
        // Given up before the server would.
        ike_over = facts.ike_rekey().as_secs() / 10,
        child_rekey = facts.child_rekey().as_secs(),
        child_life = facts.child_rekey().as_secs() / 10 * 11,
    )
}
