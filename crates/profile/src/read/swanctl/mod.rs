//! `swanctl.conf`: strongSwan's newer form, with its folders `x509`, `private`, `x509ca` beside it.

mod syntax;

use zeroize::Zeroizing;

use super::draft::{Draft, Login, Said, duration, is_sane, listed, networks};
use super::legacy::decoded;
use super::material::{Material, Named, Secret, SecretKind, base_name};
use super::proposals;
use super::{Error, File, Note, Options, Place, Surroundings};
use syntax::{Node, Section, Setting};

pub(super) fn read(
    file: &File,
    material: &mut Material,
    around: &mut dyn Surroundings,
    options: &Options,
) -> Result<Draft, Error> {
    let mut draft = Draft::default();
    let root = syntax::parse(file, &mut draft.notes)?;
    let reader = Reader { file: &file.name };
    let connection = reader.choose(&root, options)?;
    draft.title = Some(connection.name.clone());
    reader.connection(connection, &mut draft)?;
    reader.child(connection, &mut draft)?;
    if let Some(secrets) = root.section("secrets") {
        reader.secrets(&secrets.node, material, &mut draft.notes);
    }
    if draft.certificates.is_empty() && matches!(draft.login, Login::Certificate) {
        // strongSwan finds one by its identity; ours is the one that has its key here.
        for name in around.list("x509") {
            material.find(&name, &["x509"], around)?;
        }
    }
    Ok(draft)
}

struct Reader<'a> {
    file: &'a str,
}

impl Reader<'_> {
    fn place(&self, setting: &Setting) -> Place {
        Place::line(self.file, setting.line)
    }

    fn said(&self, setting: &Setting) -> Said<String> {
        Said {
            value: setting.value.as_str().to_owned(),
            place: self.place(setting),
        }
    }

    fn choose<'n>(&self, root: &'n Node, options: &Options) -> Result<&'n Section, Error> {
        let place = Place::file(self.file);
        let all = root
            .section("connections")
            .map(|it| it.node.sections.as_slice());
        let all = all.unwrap_or_default();
        let names = |list: &[&Section]| listed(list.iter().map(|it| it.name.as_str()));
        let calls = |it: &&Section| it.node.text("remote_addrs").is_some_and(is_host);
        let mut callable: Vec<&Section> = all.iter().filter(calls).collect();
        if let Some(wanted) = &options.connection {
            callable.retain(|it| it.name == *wanted);
        }
        match callable.as_slice() {
            [one] => Ok(one),
            [] => {
                let all: Vec<&Section> = all.iter().collect();
                Err(Error::at(
                    &place,
                    format!(
                        "none of its connections ({}) calls a server{}: expected connections {{ NAME {{ remote_addrs = ADDRESS }} }}",
                        names(&all),
                        options
                            .connection
                            .as_ref()
                            .map_or(String::new(), |it| format!(" and is called {it}")),
                    ),
                ))
            }
            several => Err(Error::at(
                &place,
                format!(
                    "several connections call a server: say which with --connection: {}",
                    names(several)
                ),
            )),
        }
    }

    fn connection(&self, connection: &Section, draft: &mut Draft) -> Result<(), Error> {
        let node = &connection.node;
        if let Some(version) = node
            .setting("version")
            .filter(|it| it.value.as_str() == "1")
        {
            let text =
                "the connection speaks IKEv1, which is not spoken here: expected version = 2";
            return Err(Error::at(&self.place(version), text));
        }
        for setting in &node.settings {
            let value = setting.value.as_str();
            let place = self.place(setting);
            match setting.key.as_str() {
                "remote_addrs" => {
                    let hosts = value.split(',').map(str::trim).filter(|it| is_host(it));
                    draft.remote.extend(hosts.take(8).map(str::to_owned));
                }
                "remote_port" => draft.take_port("remote_port", value, place),
                "proposals" => draft.ike = proposals::ike(value, &place, &mut draft.notes),
                "vips" => draft.virtual_address = !value.is_empty(),
                "rekey_time" => match duration(value) {
                    // Ours is the time at which new keys are made, too, so two thirds of a span half as long again.
                    Some(time) if !time.is_zero() => draft.ike_lifetime = Some(time + time / 2),
                    _ => self.not_obeyed(setting, REKEY, draft),
                },
                "keyingtries" if value != "0" => {
                    self.not_obeyed(
                        setting,
                        "calls are repeated for ever, with growing pauses",
                        draft,
                    );
                }
                "encap" | "mobike" | "version" | "dpd_delay" | "dpd_timeout" | "fragmentation"
                | "send_certreq" | "send_cert" | "unique" | "reauth_time" | "over_time"
                | "rand_time" | "keyingtries" | "aggressive" | "pull" | "dscp" | "childless" => {}
                "local_addrs" if value.starts_with('%') => {}
                "local_addrs" => {
                    self.not_obeyed(
                        setting,
                        "calls leave by whatever address leads to the server",
                        draft,
                    );
                }
                _ => self.not_read(setting, draft),
            }
        }
        let mut locals = node.sections_of("local");
        let local = locals.next();
        if let Some(second) = locals.next() {
            let text = "a second authentication (RFC 4739) is not spoken here";
            return Err(Error::at(&Place::line(self.file, second.line), text));
        }
        if let Some(local) = local {
            self.local(local, draft)?;
        }
        if let Some(remote) = node.sections_of("remote").next() {
            self.remote(remote, draft);
        }
        Ok(())
    }

    fn local(&self, local: &Section, draft: &mut Draft) -> Result<(), Error> {
        let node = &local.node;
        draft.identity = node.setting("id").map(|it| self.said(it));
        self.files(node, "certs", "cert", |it| draft.certificates.push(it));
        draft.login = match node.setting("auth") {
            None => Login::Certificate,
            Some(auth) => {
                let text = auth.value.as_str();
                let name = node.text("eap_id").map(str::to_owned);
                Login::of_auth(text, name).ok_or_else(|| {
                    let text = format!(
                        "auth = {text} is not spoken here: expected pubkey, psk or eap-mschapv2"
                    );
                    Error::at(&self.place(auth), text)
                })?
            }
        };
        for setting in &node.settings {
            match setting.key.as_str() {
                "id" | "auth" | "certs" | "eap_id" | "round" => {}
                _ => self.not_read(setting, draft),
            }
        }
        Ok(())
    }

    fn remote(&self, remote: &Section, draft: &mut Draft) {
        let node = &remote.node;
        draft.remote_identity = node.setting("id").map(|it| self.said(it));
        // Without an id strongSwan accepts whoever the authority vouches for.
        if draft.remote_identity.is_none() {
            draft.remote_identity = Some(Said {
                value: "%any".to_owned(),
                place: Place::line(self.file, remote.line),
            });
        }
        self.files(node, "cacerts", "cacert", |it| draft.authorities.push(it));
        self.files(node, "certs", "cert", |it| draft.authorities.push(it));
        for setting in &node.settings {
            match setting.key.as_str() {
                "id" | "auth" | "cacerts" | "certs" | "revocation" | "round" => {}
                _ => self.not_read(setting, draft),
            }
        }
    }

    /// Files by a list, or in sections: `certs = a.crt, b.crt`, `cert1 { file = a.crt }`.
    fn files(&self, node: &Node, list: &str, section: &str, mut take: impl FnMut(Said<String>)) {
        let settings = node.setting(list).into_iter().flat_map(|it| {
            it.value
                .split(',')
                .map(str::trim)
                .map(move |name| (name, it))
        });
        let sections = node.sections_of(section);
        let sections = sections
            .filter_map(|it| it.node.setting("file"))
            .map(|it| (it.value.as_str(), it));
        for (name, setting) in settings.chain(sections).take(16) {
            if let Some(name) = base_name(name) {
                take(Said {
                    value: name.to_owned(),
                    place: self.place(setting),
                });
            }
        }
    }

    fn child(&self, connection: &Section, draft: &mut Draft) -> Result<(), Error> {
        let children = connection.node.section("children");
        let children = children
            .map(|it| it.node.sections.as_slice())
            .unwrap_or_default();
        let Some((child, others)) = children.split_first() else {
            let text = format!(
                "{}: expected children {{ NAME {{ remote_ts = … }} }}",
                connection.name
            );
            return Err(Error::at(&Place::line(self.file, connection.line), text));
        };
        for other in others {
            draft.notes.push(Note::NotRead(
                Place::line(self.file, other.line),
                format!(
                    "only the first child, {}, is taken over; {} is not",
                    child.name, other.name
                ),
            ));
        }
        let mut remote = false;
        for setting in &child.node.settings {
            let value = setting.value.as_str();
            let place = self.place(setting);
            match setting.key.as_str() {
                "remote_ts" => {
                    remote = true;
                    draft.networks = networks(value, &place, &mut draft.notes);
                }
                "local_ts" => draft.local_networks = networks(value, &place, &mut draft.notes),
                "esp_proposals" => draft.esp = proposals::esp(value, &place, &mut draft.notes),
                "ah_proposals" => {
                    return Err(Error::at(
                        &place,
                        "AH is not spoken here: expected esp_proposals",
                    ));
                }
                "mode" if value != "tunnel" => {
                    return Err(Error::at(
                        &place,
                        "only tunnels can be made: expected mode = tunnel",
                    ));
                }
                "rekey_time" => match duration(value) {
                    Some(time) if !time.is_zero() => draft.child_lifetime = Some(time + time / 2),
                    _ => self.not_obeyed(setting, REKEY, draft),
                },
                "life_time" => {
                    if draft.child_lifetime.is_none() {
                        draft.child_lifetime = duration(value);
                    }
                }
                "dpd_action" if value != "restart" && value != "start" => {
                    self.not_obeyed(
                        setting,
                        "a server that is gone is called again until it answers",
                        draft,
                    );
                }
                "close_action" if value != "start" => {
                    self.not_obeyed(
                        setting,
                        "a server that ends the connection is called again",
                        draft,
                    );
                }
                "start_action" if !value.contains("start") => {
                    self.not_obeyed(setting, "the tunnel comes up by itself and stays up", draft);
                }
                "ipcomp" if value == "yes" => {
                    self.not_obeyed(setting, "compression (IPComp) is never offered", draft);
                }
                "updown" => {
                    self.not_obeyed(
                        setting,
                        "Cygnet sets routes and firewall rules itself",
                        draft,
                    );
                }
                "mode" | "dpd_action" | "close_action" | "start_action" | "ipcomp"
                | "hostaccess" | "rand_time" | "rekey_bytes" | "rekey_packets" | "life_bytes"
                | "life_packets" | "rand_bytes" | "rand_packets" | "replay_window"
                | "hw_offload" | "copy_df" | "copy_ecn" | "copy_dscp" | "sha256_96"
                | "policies" => {}
                _ => self.not_read(setting, draft),
            }
        }
        if !remote && !draft.virtual_address {
            let text = format!(
                "{}: expected remote_ts, the networks behind the server",
                child.name
            );
            draft
                .notes
                .push(Note::NotRead(Place::line(self.file, child.line), text));
        }
        Ok(())
    }

    fn secrets(&self, node: &Node, material: &mut Material, notes: &mut Vec<Note>) {
        for section in node.sections.iter().take(256) {
            let kind = section.name.split(['-', '_']).next().unwrap_or_default();
            let kind = kind.trim_end_matches(|c: char| c.is_ascii_digit());
            let place = Place::line(self.file, section.line);
            let value = section.node.text("secret").unwrap_or_default();
            match kind {
                "ike" | "eap" => {
                    let ids = section
                        .node
                        .settings
                        .iter()
                        .filter(|it| it.key.starts_with("id"));
                    let ids = ids
                        .map(|it| it.value.as_str().to_owned())
                        .take(16)
                        .collect();
                    let value = match value.starts_with("0x") || value.starts_with("0s") {
                        true => decoded(value),
                        false => Ok(Zeroizing::new(value.as_bytes().to_vec())),
                    };
                    match value {
                        Ok(value) if !value.is_empty() => material.secrets.push(Secret {
                            kind: if kind == "ike" {
                                SecretKind::PreShared
                            } else {
                                SecretKind::Eap
                            },
                            ids,
                            value,
                        }),
                        Ok(_) => notes.push(Note::NotRead(
                            place,
                            "expected secret = …; it is left out".into(),
                        )),
                        Err(text) => notes.push(Note::NotRead(place, text)),
                    }
                }
                "private" | "rsa" | "ecdsa" | "pkcs8" | "pkcs12" => {
                    let Some(file) = section.node.text("file").and_then(base_name) else {
                        notes.push(Note::NotRead(
                            place,
                            "expected file = NAME; it is left out".into(),
                        ));
                        continue;
                    };
                    material.named.push(Named {
                        file: file.to_owned(),
                        place,
                        p12: kind == "pkcs12",
                        password: (!value.is_empty()).then(|| Zeroizing::new(value.to_owned())),
                    });
                }
                _ => {
                    let text = format!("a secret of kind {kind} is not used here; it is left out");
                    notes.push(Note::NotRead(place, text));
                }
            }
        }
    }

    fn not_obeyed(&self, setting: &Setting, instead: &str, draft: &mut Draft) {
        let text = format!("{} = {}: {instead}", setting.key, setting.value.as_str());
        draft.notes.push(Note::NotObeyed(self.place(setting), text));
    }

    fn not_read(&self, setting: &Setting, draft: &mut Draft) {
        let text = format!(
            "{} = {} is not known here; it is left out",
            setting.key,
            setting.value.as_str()
        );
        draft.notes.push(Note::NotRead(self.place(setting), text));
    }
}

const REKEY: &str = "new keys are made in time, well before the server ends the connection";

fn is_host(text: &str) -> bool {
    let first = text.split(',').next().unwrap_or_default().trim();
    is_sane(first)
        && !first.starts_with('%')
        && !first.contains('/')
        && first != "0.0.0.0"
        && first != "::"
}
