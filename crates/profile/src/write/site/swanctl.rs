//! strongSwan: a file below `/etc/swanctl/conf.d`, and with certificates those in the folders beside it.

use super::{about, list, secret_file};
use crate::site::{Proof, Site};
use crate::write::File;

pub(super) fn files(site: &Site) -> Vec<File> {
    let Site {
        name, here, there, ..
    } = site;
    // A trap holds packets for the other office back from the internet while the tunnel is down, and calls; one that waits
    // for a call has nobody to call.
    let actions: &[(&str, &str)] = match (&there.address, site.on_demand) {
        (None, _) => &[("start", "none")],
        (Some(_), true) => &[("start", "trap")],
        // Whoever ends the tunnel calls again by himself. If both did, each would end what the other one has called.
        (Some(_), false) if here.address.is_some() => {
            &[("start", "trap|start"), ("dpd", "restart")]
        }
        (Some(_), false) => &[
            ("start", "trap|start"),
            ("dpd", "restart"),
            ("close", "start"),
        ],
    };
    let actions: String = actions
        .iter()
        .map(|(at, action)| format!("                {at}_action = {action}\n"))
        .collect();
    let (own_proof, their_proof) = match &site.proof {
        Proof::PreShared(_) => ("auth = psk".to_owned(), "auth = psk".to_owned()),
        Proof::Certificates(_) => (
            format!("auth = pubkey\n            certs = {name}.crt"),
            // Of all authorities that strongSwan knows, the one that was made for this alone.
            format!("auth = pubkey\n            cacerts = {name}-ca.crt"),
        ),
    };
    let beside = match &site.proof {
        Proof::PreShared(_) => "",
        Proof::Certificates(_) => {
            "# The certificates beside it: NAME.crt to /etc/swanctl/x509, NAME-ca.crt to x509ca, NAME.key to private.\n"
        }
    };
    let before = format!(
        "\
# {about}
# For strongSwan (5.9.6 or newer): goes to /etc/swanctl/conf.d/{name}.conf, mode 600; then: swanctl --load-all
{beside}\
# encap: the other end's ESP travels in UDP alone.

connections {{
    {name} {{
        version = 2
        remote_addrs = {remote}
        proposals = aes256gcm16-prfsha384-ecp384, aes128gcm16-prfsha256-ecp256
        encap = yes
        fragmentation = yes
        dpd_delay = 30s
        keyingtries = 0
        unique = replace
        local {{
            {own_proof}
            id = \"{own_identity}\"
        }}
        remote {{
            {their_proof}
            id = \"{their_identity}\"
        }}
        children {{
            {name} {{
                local_ts = {local}
                remote_ts = {networks}
                esp_proposals = aes256gcm16-ecp384, aes128gcm16-ecp256, aes256gcm16
{actions}            }}
        }}
    }}
}}
",
        beside = beside.replace("NAME", name),
        about = about(site),
        remote = there.address.as_deref().unwrap_or("%any"),
        own_identity = here.identity,
        their_identity = there.identity,
        local = list(&here.shown(), ", "),
        networks = list(&there.shown(), ", "),
    );
    let path = format!("{name}.conf");
    match &site.proof {
        Proof::PreShared(psk) => {
            let secrets = format!(
                "
secrets {{
    ike-{name} {{
        id-here = \"{}\"
        id-there = \"{}\"
        secret = \"",
                here.identity, there.identity
            );
            vec![secret_file(
                path,
                &[&before, &secrets, psk, "\"\n    }\n}\n"],
            )]
        }
        Proof::Certificates(pair) => vec![
            secret_file(path, &[&before]),
            secret_file(format!("{name}.crt"), &[&pair.here.certificate_pem()]),
            secret_file(format!("{name}-ca.crt"), &[&pair.authority_pem()]),
            secret_file(format!("{name}.key"), &[&pair.here.key_pem()]),
        ],
    }
}
