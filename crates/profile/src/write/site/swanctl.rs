//! strongSwan: one file below `/etc/swanctl/conf.d`.

use super::{about, list, secret_file};
use crate::site::Site;
use crate::write::File;

pub(super) fn file(site: &Site) -> File {
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
    let before = format!(
        "\
# {about}
# For strongSwan (5.9.6 or newer): goes to /etc/swanctl/conf.d/{name}.conf, mode 600; then: swanctl --load-all
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
            auth = psk
            id = \"{own_identity}\"
        }}
        remote {{
            auth = psk
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

secrets {{
    ike-{name} {{
        id-here = \"{own_identity}\"
        id-there = \"{their_identity}\"
        secret = \"",
        about = about(site),
        remote = there.address.as_deref().unwrap_or("%any"),
        own_identity = here.identity,
        their_identity = there.identity,
        local = list(&here.shown(), ", "),
        networks = list(&there.shown(), ", "),
    );
    secret_file(
        format!("{name}.conf"),
        &[&before, &site.psk, "\"\n    }\n}\n"],
    )
}
