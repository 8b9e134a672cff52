//! MikroTik's RouterOS 7: a script. It has one network on each side.

use cygnet_pki::pkcs12::Encryption;

use super::{about, p12, secret_file};
use crate::site::{Proof, Site};
use crate::write::routeros::typed_id;
use crate::write::{Error, File};

pub(super) fn files(site: &Site) -> Result<Vec<File>, Error> {
    let Site {
        name, here, there, ..
    } = site;
    let peer = match &there.address {
        Some(address) => format!("address=\"{address}\""),
        None => "address=0.0.0.0/0 passive=yes".to_owned(),
    };
    let mut pairs = String::new();
    let mut families = Vec::new();
    for local in &here.networks {
        for remote in &there.networks {
            if local.own.addr().is_ipv4() != remote.own.addr().is_ipv4() {
                continue;
            }
            let far = remote.shown;
            let family = if far.addr().is_ipv4() { "ip" } else { "ipv6" };
            pairs.push_str(&format!(
                "/ip ipsec policy add peer=$cygnetName comment=$cygnetName proposal=$cygnetName tunnel=yes level=unique \
                 src-address={} dst-address={far}\n",
                local.shown
            ));
            if !families.contains(&family) {
                families.push(family);
            }
            // Before the rule that hides the LAN behind the router's address.
            let rules = match local.own == local.shown {
                true => vec![format!(
                    "chain=srcnat action=accept src-address={} dst-address={far}",
                    local.own
                )],
                false => vec![
                    format!(
                        "chain=srcnat action=netmap src-address={} dst-address={far} to-addresses={}",
                        local.own, local.shown
                    ),
                    format!(
                        "chain=dstnat action=netmap src-address={far} dst-address={} to-addresses={}",
                        local.shown, local.own
                    ),
                ],
            };
            for rule in rules {
                pairs.push_str(&format!(
                    "/{family} firewall nat add comment=$cygnetName {rule}\n"
                ));
            }
        }
    }
    // Behind what is there already they would come too late; where nothing is there is nothing to be before.
    for family in &families {
        let first = first(family);
        pairs.push_str(&format!(
            ":if ([:len ${first}] > 0) do={{ /{family} firewall nat move [find where comment=$cygnetName] \
             destination=[:pick ${first} 0] }}\n"
        ));
    }
    let (upload, certificate, method) = match &site.proof {
        Proof::PreShared(_) => (
            format!(
                "# Upload this file (Files), then in a terminal:\n#   /import file-name={name}.rsc\n"
            ),
            String::new(),
            "pre-shared-key",
        ),
        Proof::Certificates(pair) => (
            format!(
                "# Upload {name}.p12 and this file (Files), then in a terminal:\n\
                 #   /certificate import file-name={name}.p12\n\
                 #   /import file-name={name}.rsc\n\
                 # The first command asks for the password of the .p12 file.\n"
            ),
            format!(
                ":local cygnetCertificate [/certificate find where common-name=\"{}\"]\n\
                 :if ([:len $cygnetCertificate] = 0) do={{ :error \"first: /certificate import file-name={name}.p12\" }}\n\
                 :local cygnetOwn [/certificate get ($cygnetCertificate->0) name]\n",
                pair.here.common_name
            ),
            "digital-signature certificate=$cygnetOwn",
        ),
    };
    let before = format!(
        "\
# RouterOS 7: {about}
{upload}\
# If the firewall's input chain drops what is new from the internet, let UDP 500 and 4500 in.
:local cygnetName \"cygnet-{name}\"
{certificate}\
/ip ipsec policy remove [find where comment=$cygnetName]
/ip ipsec identity remove [find where peer=$cygnetName]
/ip ipsec peer remove [find where name=$cygnetName]
/ip ipsec proposal remove [find where name=$cygnetName]
/ip ipsec profile remove [find where name=$cygnetName]
/ip firewall nat remove [find where comment=$cygnetName]
/ipv6 firewall nat remove [find where comment=$cygnetName]
{firsts}/ip ipsec profile add name=$cygnetName enc-algorithm=aes-256 hash-algorithm=sha256 prf-algorithm=sha256 dh-group=ecp384 \
lifetime=4h dpd-interval=30s dpd-maximum-failures=4 nat-traversal=yes
/ip ipsec proposal add name=$cygnetName enc-algorithms=aes-256-gcm auth-algorithms=\"\" pfs-group=ecp384 lifetime=1h
/ip ipsec peer add name=$cygnetName {peer} exchange-mode=ike2 profile=$cygnetName
{pairs}\
/ip ipsec identity add peer=$cygnetName auth-method={method} my-id=\"{my_id}\" remote-id=\"{remote_id}\"",
        about = about(site),
        firsts = families
            .iter()
            .map(|family| {
                let first = first(family);
                format!(":local {first} [/{family} firewall nat find where dynamic=no]\n")
            })
            .collect::<String>(),
        my_id = typed_id(&here.identity),
        remote_id = typed_id(&there.identity),
    );
    let path = format!("{name}.rsc");
    Ok(match &site.proof {
        Proof::PreShared(psk) => {
            vec![secret_file(path, &[&before, " secret=\"", psk, "\"\n"])]
        }
        Proof::Certificates(pair) => vec![
            secret_file(path, &[&before, "\n"]),
            p12(site, pair, Encryption::TripleDes)?,
        ],
    })
}

/// The variable that has the rules which are there before.
fn first(family: &str) -> &'static str {
    match family {
        "ip" => "cygnetFirst4",
        _ => "cygnetFirst6",
    }
}
