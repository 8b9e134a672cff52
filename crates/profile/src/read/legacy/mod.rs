//! `ipsec.conf` with its `ipsec.secrets`: strongSwan's older form, which Algo hands out.

mod secrets;
mod syntax;

use std::collections::BTreeMap;

pub(super) use secrets::read as secrets;

use super::draft::{Draft, Login, Said, duration, is_sane, listed, networks};
use super::material::{Material, base_name};
use super::proposals;
use super::{Error, File, Note, Options, Place, Surroundings};
pub(super) use secrets::decoded;
use syntax::{Section, Setting};

/// `also=` within `also=` within …
const DEPTH: usize = 8;

/// The settings of one connection, those of `also=` and `conn %default` among them.
type Settings<'a> = BTreeMap<&'a str, &'a Setting>;

pub(super) fn read(
    file: &File,
    material: &mut Material,
    around: &mut dyn Surroundings,
    options: &Options,
) -> Result<Draft, Error> {
    let mut draft = Draft::default();
    let sections = syntax::parse(file, &mut draft.notes)?;
    let (section, settings) = choose(file, &sections, options, &mut draft.notes)?;
    draft.title = Some(section.name.clone());
    let reader = Reader {
        file: &file.name,
        settings,
    };
    reader.refuse_what_cannot_be(section)?;
    reader.remote(&mut draft, section)?;
    reader.ourselves(&mut draft)?;
    reader.traffic(&mut draft);
    reader.proposals(&mut draft);
    reader.what_is_not_obeyed(&mut draft);
    for authority in sections.iter().filter(|it| it.kind == "ca") {
        let setting = authority.settings.iter().find(|it| it.key == "cacert");
        draft.authorities.extend(setting.map(|it| reader.said(it)));
    }
    beside(file, material, around)?;
    Ok(draft)
}

/// The secrets, if they were not given: under the same name, or the usual one.
fn beside(
    file: &File,
    material: &mut Material,
    around: &mut dyn Surroundings,
) -> Result<(), Error> {
    if material.has_secrets() {
        return Ok(());
    }
    let stem = file.name.rsplit_once('.').map_or("ipsec", |(stem, _)| stem);
    for name in [format!("{stem}.secrets"), "ipsec.secrets".to_owned()] {
        if material.find(&name, &[""], around)? {
            break;
        }
    }
    Ok(())
}

/// The connection that was asked for, or the only one there is.
fn choose<'a>(
    file: &File,
    sections: &'a [Section],
    options: &Options,
    notes: &mut Vec<Note>,
) -> Result<(&'a Section, Settings<'a>), Error> {
    let place = Place::file(&file.name);
    let all: Vec<&Section> = sections
        .iter()
        .filter(|it| it.kind == "conn" && it.name != "%default")
        .collect();
    let names = |list: &[&Section]| listed(list.iter().map(|it| it.name.as_str()));
    if let Some(wanted) = &options.connection {
        let found = all.iter().find(|it| it.name == *wanted);
        let found = found.ok_or_else(|| {
            let text = format!("there is no conn {wanted}; there are: {}", names(&all));
            Error::at(&place, text)
        })?;
        let settings = effective(file, found, sections, notes);
        return Ok((found, settings));
    }
    // Some only lend their settings to others.
    let calls = |it: &&&Section| {
        let settings = effective(file, it, sections, &mut Vec::new());
        settings.get("right").is_some_and(|it| is_host(&it.value))
    };
    let callable: Vec<&Section> = all.iter().filter(calls).copied().collect();
    match callable.as_slice() {
        [one] => Ok((one, effective(file, one, sections, notes))),
        [] if all.is_empty() => Err(Error::at(
            &place,
            "no connection: expected a line such as `conn home` with indented settings below it",
        )),
        [] => Err(Error::at(
            &place,
            format!(
                "none of its connections ({}) calls a server: expected right=ADDRESS, the server's; \
                 is this the server's own file?",
                names(&all)
            ),
        )),
        several => Err(Error::at(
            &place,
            format!(
                "several connections call a server: say which with --connection: {}",
                names(several)
            ),
        )),
    }
}

/// A section's own settings, then those of the sections it names, then those of `conn %default`.
fn effective<'a>(
    file: &File,
    section: &'a Section,
    sections: &'a [Section],
    notes: &mut Vec<Note>,
) -> Settings<'a> {
    let mut out = Settings::new();
    let mut waiting = vec![(section, 0)];
    let mut seen = vec![section.line];
    while let Some((section, depth)) = waiting.pop() {
        take(&mut out, section);
        for also in section.settings.iter().filter(|it| it.key == "also") {
            let named = |it: &&Section| it.kind == "conn" && it.name == also.value;
            match sections.iter().find(named) {
                Some(other) if depth < DEPTH && !seen.contains(&other.line) => {
                    seen.push(other.line);
                    waiting.insert(0, (other, depth + 1));
                }
                Some(_) => {}
                None => notes.push(Note::NotRead(
                    Place::line(&file.name, also.line),
                    format!("also={}: there is no such conn", also.value),
                )),
            }
        }
    }
    let default = |it: &&Section| it.kind == "conn" && it.name == "%default";
    for section in sections.iter().filter(default) {
        take(&mut out, section);
    }
    out.retain(|_, it| !it.value.is_empty());
    out
}

/// Takes what is not there yet; of several in one section the last counts.
fn take<'a>(out: &mut Settings<'a>, section: &'a Section) {
    for setting in section.settings.iter().rev() {
        out.entry(setting.key.as_str()).or_insert(setting);
    }
}

fn is_host(text: &str) -> bool {
    is_sane(text) && !text.starts_with('%') && text != "0.0.0.0" && text != "::"
}

struct Reader<'a> {
    file: &'a str,
    settings: Settings<'a>,
}

/// Settings that say how strongSwan does what Cygnet does in its own way, and harm nobody.
const OF_NO_CONSEQUENCE: &[&str] = &[
    "also",
    "authby",
    "charondebug",
    "dpddelay",
    "dpdtimeout",
    "forceencaps",
    "fragmentation",
    "ikedscp",
    "inactivity",
    "installpolicy",
    "interfaces",
    "leftallowany",
    "leftnexthop",
    "leftsendcert",
    "margintime",
    "mediated_by",
    "mobike",
    "rekeyfuzz",
    "rekeymargin",
    "reauth",
    "replay_window",
    "rightallowany",
    "rightnexthop",
    "rightsendcert",
    "sha256_96",
    "marginbytes",
    "marginpackets",
    "leftikeport",
    "keyexchange",
    "type",
    "left",
    "right",
    "leftauth",
    "rightauth",
    "leftid",
    "rightid",
    "leftcert",
    "rightcert",
    "leftsubnet",
    "rightsubnet",
    "leftsourceip",
    "ike",
    "esp",
    "ikelifetime",
    "lifetime",
    "keylife",
    "eap_identity",
    "rekey",
    "dpdaction",
    "closeaction",
    "auto",
    "compress",
    "keyingtries",
    "leftfirewall",
    "leftupdown",
    "lefthostaccess",
    "rightikeport",
    "leftdns",
];

impl Reader<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(|it| it.value.as_str())
    }

    fn place(&self, setting: &Setting) -> Place {
        Place::line(self.file, setting.line)
    }

    fn said(&self, setting: &Setting) -> Said<String> {
        Said {
            value: setting.value.clone(),
            place: self.place(setting),
        }
    }

    fn refuse_what_cannot_be(&self, section: &Section) -> Result<(), Error> {
        let refuse = |key: &str, text: &str| {
            let line = self.settings.get(key).map_or(section.line, |it| it.line);
            Err(Error::at(&Place::line(self.file, line), text))
        };
        match self.text("keyexchange") {
            None | Some("ike" | "ikev2") => {}
            Some(_) => {
                return refuse(
                    "keyexchange",
                    "the connection speaks IKEv1, which is not spoken here: expected keyexchange=ikev2",
                );
            }
        }
        match self.text("type") {
            None | Some("tunnel") => {}
            Some(_) => {
                return refuse("type", "only tunnels can be made: expected type=tunnel");
            }
        }
        if self.settings.contains_key("leftauth2") || self.settings.contains_key("rightauth2") {
            let key = match self.settings.contains_key("leftauth2") {
                true => "leftauth2",
                false => "rightauth2",
            };
            return refuse(key, "a second authentication (RFC 4739) is not spoken here");
        }
        Ok(())
    }

    fn remote(&self, draft: &mut Draft, section: &Section) -> Result<(), Error> {
        let Some(right) = self.settings.get("right").filter(|it| is_host(&it.value)) else {
            return Err(Error::at(
                &Place::line(self.file, section.line),
                format!(
                    "conn {} calls nobody: expected right=ADDRESS, the server's",
                    section.name
                ),
            ));
        };
        for host in right.value.split(',').map(str::trim).take(8) {
            if host.contains('/') || host.contains('-') && host.contains(':') {
                let text = format!("right: {host} is no single server; it is left out");
                draft.notes.push(Note::NotRead(self.place(right), text));
            } else {
                draft.remote.push(host.to_owned());
            }
        }
        draft.remote_identity = self.settings.get("rightid").map(|it| self.said(it));
        if let Some(port) = self.settings.get("rightikeport") {
            draft.take_port("rightikeport", &port.value, self.place(port));
        }
        draft
            .authorities
            .extend(self.settings.get("rightcert").map(|it| self.said(it)));
        Ok(())
    }

    fn ourselves(&self, draft: &mut Draft) -> Result<(), Error> {
        draft.identity = self.settings.get("leftid").map(|it| self.said(it));
        if let Some(certificate) = self.settings.get("leftcert") {
            for name in certificate.value.split(',').take(8) {
                let value = base_name(name.trim()).unwrap_or_default().to_owned();
                let place = self.place(certificate);
                draft.certificates.push(Said { value, place });
            }
        }
        let secret = matches!(self.text("authby"), Some("secret" | "psk"));
        let name = self.text("eap_identity").filter(|it| !it.starts_with('%'));
        draft.login = match self.settings.get("leftauth") {
            None if secret => Login::PreShared,
            None => Login::Certificate,
            Some(auth) => {
                Login::of_auth(&auth.value, name.map(str::to_owned)).ok_or_else(|| {
                    let text = format!(
                        "leftauth={} is not spoken here: expected pubkey, psk or eap-mschapv2",
                        auth.value
                    );
                    Error::at(&self.place(auth), text)
                })?
            }
        };
        Ok(())
    }

    fn traffic(&self, draft: &mut Draft) {
        if let Some(setting) = self.settings.get("leftsourceip") {
            draft.virtual_address = true;
            if setting.value.parse::<std::net::IpAddr>().is_ok() {
                draft.notes.push(Note::NotObeyed(
                    self.place(setting),
                    format!(
                        "leftsourceip={}: whatever address the server lends is taken",
                        setting.value
                    ),
                ));
            }
        }
        if let Some(setting) = self.settings.get("rightsubnet") {
            draft.networks = networks(&setting.value, &self.place(setting), &mut draft.notes);
        }
        if let Some(setting) = self.settings.get("leftsubnet") {
            draft.local_networks = networks(&setting.value, &self.place(setting), &mut draft.notes);
        }
    }

    fn proposals(&self, draft: &mut Draft) {
        if let Some(setting) = self.settings.get("ike") {
            draft.ike = proposals::ike(&setting.value, &self.place(setting), &mut draft.notes);
        }
        if let Some(setting) = self.settings.get("esp") {
            draft.esp = proposals::esp(&setting.value, &self.place(setting), &mut draft.notes);
        }
        draft.ike_lifetime = self.text("ikelifetime").and_then(duration);
        let child = self.text("lifetime").or_else(|| self.text("keylife"));
        draft.child_lifetime = child.and_then(duration);
    }

    /// What a gateway that runs day and night must not do, and what Cygnet does in its own way.
    fn what_is_not_obeyed(&self, draft: &mut Draft) {
        for (key, setting) in &self.settings {
            let value = setting.value.as_str();
            let instead = match (*key, value) {
                ("rekey", "no") => {
                    "new keys are made in time, well before the server ends the connection"
                }
                ("dpdaction", "clear" | "none" | "hold" | "trap") => {
                    "a server that is gone is called again until it answers"
                }
                ("closeaction", "clear" | "none" | "hold" | "trap") => {
                    "a server that ends the connection is called again"
                }
                ("auto", "add" | "ignore" | "route") => {
                    "the tunnel comes up by itself and stays up"
                }
                ("keyingtries", value) if value != "%forever" && value != "0" => {
                    "calls are repeated for ever, with growing pauses"
                }
                ("compress", "yes") => "compression (IPComp) is never offered",
                ("leftfirewall" | "lefthostaccess", "yes") | ("leftupdown", _) => {
                    "Cygnet sets routes and firewall rules itself"
                }
                ("left", value) if !value.starts_with('%') => {
                    "calls leave by whatever address leads to the server"
                }
                (key, _) if OF_NO_CONSEQUENCE.contains(&key) || key.starts_with("xauth") => {
                    continue;
                }
                _ => {
                    let text = format!("{key}={value} is not known here; it is left out");
                    draft.notes.push(Note::NotRead(self.place(setting), text));
                    continue;
                }
            };
            let text = format!("{key}={value}: {instead}");
            draft.notes.push(Note::NotObeyed(self.place(setting), text));
        }
    }
}
