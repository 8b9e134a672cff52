//! `cygnet site remove`: what `cygnet site add` wrote here, or the import of its file, is taken away again.

use std::path::Path;

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
    if let Some(told) = handed_over(name, site.was_added) {
        println!("{told}");
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

/// What is to be done about the files for the other office, which lie wherever `cygnet site add` was run.
fn handed_over(name: &str, was_added: bool) -> Option<String> {
    let folder = format!("{name}-other-end");
    let remove = "it holds what the other office proves itself with: remove it, too";
    match (Path::new(&folder).exists(), was_added) {
        (true, _) => Some(format!("{folder} is still here, and {remove}.")),
        (false, true) => Some(format!(
            "If {folder}, which `cygnet site add` wrote in the folder it was run in (or that --out named), still lies \
             somewhere: {remove}."
        )),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_for_the_other_office_are_spoken_of_where_there_were_any() {
        assert_eq!(handed_over("no-such-office", false), None);
        let told = handed_over("no-such-office", true).unwrap();
        assert!(told.starts_with("If no-such-office-other-end, "), "{told}");
    }
}
