//! `cygnet site remove`: what `cygnet site add` wrote here, or the import of its file, is taken away again.

use std::path::PathBuf;

use super::super::import::sections::Sections;
use super::super::import::{commit, lock};
use crate::args::site::Remove;

pub(super) fn remove(options: &Remove) -> Result<(), String> {
    cygnet_daemon::keep_keys_in_memory();
    let (name, config) = (&options.name, &options.file.config);
    let _lock = lock(config)?;
    let sections = Sections::read(config)?;
    let site = sections.site(name).map_err(|why| {
        format!(
            "{}: {why}; `cygnet site remove` takes out only what `cygnet site add`, or an import of its file, wrote",
            config.display()
        )
    })?;
    let folder = site.folder.map(|folder| config.with_file_name(folder));
    if !options.yes {
        let files = folder
            .as_ref()
            .map(|it| format!(", and its secret in {}", it.display()));
        super::super::ask::confirm(&format!(
            "This removes [tunnel.{name}] from {}{}. The two offices reach each other no more by it.",
            config.display(),
            files.unwrap_or_default()
        ))?;
    }
    commit::replace(config, &sections, &site.rest)?;
    if let Some(folder) = &folder {
        commit::remove_folder(folder);
    }
    let secret = folder.as_ref().map_or("", |_| " and its secret");
    println!("Removed: [tunnel.{name}]{secret}.");
    if let Some(folder) = folder.filter(|it| it.exists()) {
        println!(
            "{} holds something else as well, and stays.",
            folder.display()
        );
    }
    let handed_over = PathBuf::from(format!("{name}-other-end"));
    if handed_over.exists() {
        println!(
            "{} holds what the other office was given: remove it, too.",
            handed_over.display()
        );
    }
    println!("A cygnet that runs here forgets the tunnel with: sudo cygnet reload");
    println!(
        "The other office still has its end, and calls in vain. There:
  cygnet      sudo cygnet site remove {name} && sudo cygnet reload
  strongSwan  remove /etc/swanctl/conf.d/{name}.conf (and {name}.crt, {name}-ca.crt, {name}.key, if there are), then swanctl --load-all && swanctl --terminate --ike {name}
  libreswan   remove {name}.conf and {name}.secrets from /etc/ipsec.d, then ipsec restart (and its certificate out of the store: certutil -F)
  RouterOS    remove what has the name or comment cygnet-{name} below /ip ipsec and /ip firewall nat, and its certificates
and, with a map, on strongSwan and libreswan: nft delete table inet cygnet_site_{}",
        name.replace('-', "_")
    );
    Ok(())
}
