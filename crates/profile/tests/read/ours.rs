//! What this program hands to devices, read back: every file that tells enough is the same tunnel.

use cygnet_profile::Profile;
use cygnet_profile::read::{Credentials, Note};

use crate::lab::{Folder, is_good, text_of};
use crate::sample;

/// The device's folder; what is in a folder of it lies beside the file in that folder.
fn folder(profile: &Profile, inside: &str) -> Folder {
    let mut folder = Folder::new();
    for file in sample::files(profile) {
        let path = file.path.strip_prefix(inside).unwrap_or(&file.path);
        folder.files.insert(path.to_owned(), file.bytes.to_vec());
    }
    folder
}

/// The file of this name or ending.
fn named(folder: &Folder, ending: &str) -> String {
    let mut names = folder
        .files
        .keys()
        .filter(|it| !it.contains('/') && it.ends_with(ending));
    names
        .next()
        .unwrap_or_else(|| panic!("no {ending} among {:?}", folder.files.keys()))
        .clone()
}

#[test]
fn every_file_for_a_device_with_a_certificate_is_the_same_tunnel() {
    let mut profile = sample::certificate();
    profile.networks = vec!["10.9.0.0/16".parse().expect("a network")];
    for (inside, ending) in [
        ("", ".mobileconfig"),
        ("", ".sswan"),
        ("swanctl/", "swanctl.conf"),
        ("ipsec/", "ipsec.conf"),
        ("", ".cygnet"),
    ] {
        let mut folder = folder(&profile, inside).password(sample::P12_PASSWORD);
        let name = named(&folder, ending);
        let imported = folder.import(&[&name]);
        let imported = imported.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(imported.remote, ["vpn.example.org"], "{name}");
        assert_eq!(
            imported.identity.as_deref(),
            Some(sample::IDENTITY),
            "{name}"
        );
        assert_eq!(
            imported.networks.is_empty(),
            ending == ".mobileconfig",
            "{name}"
        );
        assert!(imported.virtual_address, "{name}");
        let told = text_of(&imported.notes);
        let strange = |it: &&Note| matches!(it, Note::NotRead(..) | Note::Warning(_));
        assert_eq!(
            imported.notes.iter().filter(strange).count(),
            0,
            "{name}: {told}"
        );
        is_good(&imported);
    }
}

#[test]
fn every_file_for_a_device_with_a_password_asks_for_it() {
    for (inside, ending) in [
        ("", ".mobileconfig"),
        ("", ".sswan"),
        ("swanctl/", "swanctl.conf"),
    ] {
        let mut folder = folder(&sample::password(), inside).password("typed");
        let name = named(&folder, ending);
        let imported = folder.import(&[&name]);
        let imported = imported.unwrap_or_else(|error| panic!("{name}: {error}"));
        let Credentials::User {
            name: user,
            password,
            ..
        } = &imported.credentials
        else {
            panic!("{name}: by another way");
        };
        assert_eq!((user.as_str(), password.as_str()), ("alice", "typed"));
        is_good(&imported);
    }
}
