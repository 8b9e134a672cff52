//! What a description says, before it is matched with keys and certificates.

use std::net::IpAddr;
use std::time::Duration;

use cygnet_ike::identity as ike_identity;
use cygnet_pki::identity::is_self_issued;
use cygnet_pki::{
    CrlPolicy, Crls, DistinguishedName, PeerRole, TrustAnchors, certificate_contains, identity,
    validate_chain,
};
use cygnet_wire::id::Identification;
use ipnet::IpNet;
use zeroize::Zeroizing;

use super::imported::{Credentials, Subject};
use crate::write::PASSWORD_GOES_HERE;

use super::material::{CERTIFICATES, Material, Own, P12S, SecretKind, base_name};
use super::{Error, Imported, Note, Options, Place, Surroundings};

/// Servers that do not rekey end an IKE SA after 3 hours (strongSwan's default), a Child SA after one: new keys have to
/// be there well before.
const IKE_LIFETIME: Duration = Duration::from_secs(2 * 3600);
const CHILD_LIFETIME: Duration = Duration::from_secs(40 * 60);
/// Shorter than this nobody means.
const SHORTEST: Duration = Duration::from_secs(5 * 60);
/// When an expiry comes near enough to be told.
const SOON: u64 = 30 * 24 * 3600;
/// What is longer names nothing.
const TEXT_MAX: usize = 1024;

/// Something a file says, and where.
pub(super) struct Said<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// How we prove ourselves.
#[derive(Default)]
pub(super) enum Login {
    #[default]
    Certificate,
    PreShared,
    /// By user name, if it is told.
    User(Option<String>),
}

impl Login {
    /// By strongSwan's word for it. `None` is a way that is not spoken here: of EAP, all that prove more than a password,
    /// or do so otherwise than by MSCHAPv2.
    pub(super) fn of_auth(text: &str, name: Option<String>) -> Option<Self> {
        // Such as `rsa-2048-sha256`, and what narrows it further.
        const BY_CERTIFICATE: [&str; 5] = ["pubkey", "rsa", "ecdsa", "ed25519", "ike:"];
        match text {
            "psk" => Some(Self::PreShared),
            "eap" | "eap-mschapv2" | "eap-dynamic" => Some(Self::User(name)),
            text if BY_CERTIFICATE.iter().any(|it| text.starts_with(it)) => Some(Self::Certificate),
            _ => None,
        }
    }
}

#[derive(Default)]
pub(super) struct Draft {
    /// What the file calls it.
    pub(super) title: Option<String>,
    pub(super) remote: Vec<String>,
    pub(super) remote_port: Option<u16>,
    pub(super) remote_identity: Option<Said<String>>,
    pub(super) identity: Option<Said<String>>,
    pub(super) login: Login,
    /// Files of our own certificate.
    pub(super) certificates: Vec<Said<String>>,
    /// Files of the server's authority.
    pub(super) authorities: Vec<Said<String>>,
    pub(super) virtual_address: bool,
    pub(super) local_networks: Vec<IpNet>,
    pub(super) local_map: Vec<IpNet>,
    pub(super) on_demand: bool,
    pub(super) networks: Vec<IpNet>,
    pub(super) dns: Vec<IpAddr>,
    pub(super) ike: Vec<String>,
    pub(super) esp: Vec<String>,
    /// The lifetimes that the file has for our side.
    pub(super) ike_lifetime: Option<Duration>,
    pub(super) child_lifetime: Option<Duration>,
    pub(super) mtu: Option<u16>,
    pub(super) notes: Vec<Note>,
}

impl Draft {
    /// Takes the server's port as a file writes it.
    pub(super) fn take_port(&mut self, key: &str, value: &str, place: Place) {
        self.remote_port = value.parse().ok();
        if self.remote_port.is_none() {
            let text =
                format!("{key}: {value} is no port, expected a number up to 65535; it is left out");
            self.notes.push(Note::NotRead(place, text));
        }
    }

    /// Matches it with what there is to prove oneself with.
    pub(super) fn finish(
        mut self,
        mut material: Material,
        around: &mut dyn Surroundings,
        options: &Options,
    ) -> Result<Imported, Error> {
        for wanted in std::mem::take(&mut self.authorities) {
            self.find_authority(&wanted, &mut material, around)?;
        }
        let nothing_described = self.remote.is_empty() && self.title.is_none();
        let credentials = match std::mem::take(&mut self.login) {
            Login::Certificate => self.by_certificate(&mut material, around, options)?,
            Login::PreShared => self.by_secret(&material)?,
            Login::User(name) => self.by_password(name, &mut material, around)?,
        };
        if !material.found.is_empty() {
            let names = material.found.join(", ");
            let text = format!("taken as well, from beside the files given: {names}");
            self.notes.push(Note::Concluded(text));
        }
        if nothing_described {
            // A `.p12` alone: whoever has one is a client that is lent an address.
            self.virtual_address = true;
        }
        if let Some(remote) = &options.remote {
            self.remote = vec![remote.clone()];
        } else if self.remote.is_empty() {
            self.remote = vec![self.guessed_remote(&credentials)?];
        }
        if !self.remote.iter().all(|it| is_sane(it)) {
            return Err(Error::new(format!("the server's name or address: {UNFIT}")));
        }
        let remote_identity = self.remote_identity()?;
        let identity = self.identity(&credentials)?;
        self.notes.sort_by_key(Note::line);
        let title = self.title.as_deref();
        let title = title.or(self.remote.first().map(String::as_str));
        Ok(Imported {
            name: tunnel_name(title.unwrap_or_default()),
            identity,
            remote_identity,
            remote: self.remote,
            remote_port: self.remote_port,
            credentials,
            virtual_address: self.virtual_address,
            local_networks: self.local_networks,
            local_map: self.local_map,
            on_demand: self.on_demand,
            networks: self.networks,
            dns: self.dns,
            ike: self.ike,
            esp: self.esp,
            ike_lifetime: lifetime(self.ike_lifetime, IKE_LIFETIME),
            child_lifetime: lifetime(self.child_lifetime, CHILD_LIFETIME),
            mtu: self.mtu,
            notes: self.notes,
        })
    }

    fn find_authority(
        &mut self,
        wanted: &Said<String>,
        material: &mut Material,
        around: &mut dyn Surroundings,
    ) -> Result<(), Error> {
        let name = base_name(&wanted.value).unwrap_or_default();
        if !material.has_certificate(name) && !material.find_authority(name, around)? {
            let text = format!(
                "the authority's certificate {name} is neither among the files given nor beside them"
            );
            self.notes.push(Note::NotRead(wanted.place.clone(), text));
        }
        Ok(())
    }

    fn by_certificate(
        &mut self,
        material: &mut Material,
        around: &mut dyn Surroundings,
        options: &Options,
    ) -> Result<Credentials, Error> {
        let mut names = Vec::new();
        let mut missing = None;
        for wanted in &self.certificates {
            let name = base_name(&wanted.value).unwrap_or_default();
            names.push(name.to_owned());
            if material.has_certificate(name) || material.find(name, CERTIFICATES, around)? {
                continue;
            }
            // Algo hands out no `alice.crt` beside the `alice.conf` that names it, but an `alice.p12`.
            let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
            let found = material.find(&format!("{stem}.p12"), P12S, around)?;
            missing = Some((wanted, name, found));
        }
        let own = material.own(&names, around)?;
        let Some(own) = own else {
            return Err(match missing {
                Some((wanted, name, _)) => Error::at(
                    &wanted.place,
                    format!(
                        "{name} is neither among the files given nor beside them: name it as well, or the .p12 \
                         that holds certificate and key"
                    ),
                ),
                None => Error::new(
                    "no certificate with its private key: name the .p12, or both files (PEM), as well",
                ),
            });
        };
        if let Some((_, name, true)) = missing {
            let text = format!("{name} is not there: certificate and key are taken from the .p12");
            self.notes.push(Note::Concluded(text));
        }
        let ca = material.trusted(Some(&own), around)?;
        if ca.is_empty() {
            return Err(Error::new(NO_AUTHORITY));
        }
        self.judge(&own, &ca, options);
        let leaf = own.chain.first().map(Vec::as_slice).unwrap_or_default();
        let text = |name: Result<DistinguishedName, _>| match name {
            Ok(name) => name.to_string(),
            Err::<_, cygnet_pki::NotACertificate>(error) => error.to_string(),
        };
        let subject = Subject {
            name: text(identity::subject(leaf)),
            issuer: text(identity::issuer(leaf)),
        };
        Ok(Credentials::Certificate {
            chain: own.chain,
            key: own.key,
            ca,
            subject,
        })
    }

    /// What the server will think of our certificate, as far as that can be known before it is asked.
    fn judge(&mut self, own: &Own, ca: &[Vec<u8>], options: &Options) {
        let Some((leaf, above)) = own.chain.split_first() else {
            return;
        };
        let last = own.chain.last().and_then(|it| identity::issuer(it).ok());
        let ours = |it: &&Vec<u8>| identity::subject(it).ok() == last;
        let mut anchors = TrustAnchors::new();
        for root in ca.iter().filter(ours) {
            let _ = anchors.add(root.as_slice());
        }
        if anchors.is_empty() {
            // Another authority than the server's has issued it, which is not here.
            return;
        }
        let Some(now) = options.now else {
            self.notes.push(Note::Warning(
                "the clock is not set, so nothing can be said about expiry".into(),
            ));
            return;
        };
        let above: Vec<&[u8]> = above.iter().map(Vec::as_slice).collect();
        let crls = Crls::new(CrlPolicy::Ignore);
        let verdict = validate_chain(
            leaf,
            &above,
            &anchors,
            &crls,
            PeerRole::Initiator,
            Some(now),
        );
        match verdict {
            Err(error) => {
                let text = format!("a server will refuse this certificate: {error}");
                self.notes.push(Note::Warning(text));
            }
            Ok(peer) => {
                let left = peer.not_after.as_secs().saturating_sub(now.as_secs());
                if left < SOON {
                    let days = left / (24 * 3600);
                    let text = format!(
                        "the certificate, or its authority's, expires in {days} days: ask for a new one"
                    );
                    self.notes.push(Note::Warning(text));
                }
            }
        }
    }

    fn by_secret(&mut self, material: &Material) -> Result<Credentials, Error> {
        let mut ids: Vec<&str> = self.remote.iter().map(String::as_str).collect();
        let said = [&self.identity, &self.remote_identity];
        ids.extend(said.into_iter().flatten().map(|it| it.value.as_str()));
        match material.secret(SecretKind::PreShared, &ids) {
            Some(secret) => Ok(Credentials::PreShared(secret.value.clone())),
            None => Err(Error::new(
                "no pre-shared key for this connection: name the ipsec.secrets that holds it (a line such as \
                 `203.0.113.5 : PSK \"…\"`) as well",
            )),
        }
    }

    fn by_password(
        &mut self,
        name: Option<String>,
        material: &mut Material,
        around: &mut dyn Surroundings,
    ) -> Result<Credentials, Error> {
        let said = || self.identity.as_ref().map(|it| it.value.clone());
        let name = name.or_else(said).filter(|it| !it.starts_with('%'));
        let name = name.ok_or_else(|| {
            Error::new("no user name for the login by name and password (EAP): expected eap_identity, eap_id or AuthName")
        })?;
        if !is_sane(&name) {
            return Err(Error::new(format!("the user name: {UNFIT}")));
        }
        let secret = material.secret(SecretKind::Eap, &[&name]);
        let told = secret
            .and_then(|it| std::str::from_utf8(&it.value).ok())
            // Where a file of ours leaves it to the person to write it there.
            .filter(|it| *it != PASSWORD_GOES_HERE)
            .map(|it| Zeroizing::new(it.to_owned()));
        let password = told.or_else(|| around.password(&format!("the user {name}"), 1));
        let password = password.filter(|it| is_sane(it)).ok_or_else(|| {
            let text = "expected its password, on one line";
            Error::new(format!("the login by the user name {name}: {text}"))
        })?;
        let ca = material.trusted(None, around)?;
        if ca.is_empty() {
            return Err(Error::new(NO_AUTHORITY));
        }
        Ok(Credentials::User { name, password, ca })
    }

    /// Algo, and whoever follows it, calls the authority by the server's address.
    fn guessed_remote(&mut self, credentials: &Credentials) -> Result<String, Error> {
        let named = match credentials {
            Credentials::Certificate { ca, .. } | Credentials::User { ca, .. } => ca.first(),
            Credentials::PreShared(_) => None,
        };
        let name = named
            .and_then(|der| identity::subject(der).ok())
            .and_then(|subject| subject.common_name());
        let is_host = |it: &String| it.parse::<IpAddr>().is_ok() || looks_like_host(it);
        let Some(name) = name.filter(is_host) else {
            return Err(Error::new(
                "the files do not tell the server's name or address: say it with --remote",
            ));
        };
        self.notes.push(Note::Concluded(format!(
            "the server is called {name}, after its authority; if it is another one, say it with --remote"
        )));
        Ok(name)
    }

    /// Who the server has to prove to be. `None` means "what it is called by", which is what is meant by its absence too.
    fn remote_identity(&mut self) -> Result<Option<String>, Error> {
        let Some(said) = &self.remote_identity else {
            return Ok(None);
        };
        let text = plain_identity(&said.value);
        if text == "any" {
            let note = "whoever the server is, it is accepted if the authority vouches for it";
            self.notes.push(Note::Concluded(note.into()));
            return Ok(Some(text));
        }
        let wrong = |error: String| Error::at(&said.place, error);
        if !is_sane(&text) {
            return Err(wrong(format!("the server's identity: {UNFIT}")));
        }
        if ike_identity::is_distinguished_name(&text) {
            let name = text.parse::<DistinguishedName>();
            name.map_err(|error| wrong(error.to_string()))?;
        } else {
            ike_identity::parse_pattern(&text).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(Some(text))
    }

    /// Who we say we are, if it is other than the certificate's subject.
    fn identity(&mut self, credentials: &Credentials) -> Result<Option<String>, Error> {
        let Some(said) = &self.identity else {
            return Ok(None);
        };
        let text = plain_identity(&said.value);
        if text == "any" {
            return Ok(None);
        }
        if !is_sane(&text) {
            let text = format!("our identity: {UNFIT}");
            return Err(Error::at(&said.place, text));
        }
        let parsed = if ike_identity::is_distinguished_name(&text) {
            let name = text.parse::<DistinguishedName>();
            name.map(|it| Identification::dn(it.as_der()))
                .map_err(|error| error.to_string())
        } else {
            ike_identity::parse(&text).map_err(|error| error.to_string())
        };
        let Credentials::Certificate { chain, .. } = credentials else {
            let wrong = |error: String| Error::at(&said.place, error);
            return parsed.map_err(wrong).map(|_| Some(text));
        };
        let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
        // One that the certificate does not hold would be refused; the subject it holds for certain.
        let held = parsed.and_then(|it| {
            certificate_contains(leaf, it.ty.0, &it.data).map_err(|error| error.to_string())
        });
        match held {
            Ok(()) => Ok(Some(text)),
            Err(error) => {
                let text = format!(
                    "the identity {text} is not used, the certificate's subject is: {error}"
                );
                self.notes.push(Note::NotObeyed(said.place.clone(), text));
                Ok(None)
            }
        }
    }
}

/// A line break in one would be a line of its own in `cygnet.toml`.
const UNFIT: &str =
    "expected text on one line, found nothing, a control character, or more than 1024 bytes";

const NO_AUTHORITY: &str = "no certificate of the authority that vouches for the server: name it as well (Algo calls it cacert.pem)";

/// strongSwan's forms of an identity as ours: `@name` and `fqdn:name` are names, `%any` is anybody.
fn plain_identity(text: &str) -> String {
    let text = text.trim();
    for prefix in [
        "fqdn:", "dns:", "email:", "rfc822:", "ipv4:", "ipv6:", "asn1dn:",
    ] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return rest.trim_start_matches('@').to_owned();
        }
    }
    match text {
        "%any" | "%any4" | "%any6" | "*" | "%fromcert" | "" => "any".to_owned(),
        // A leading % means that an IKEv1 peer may say another one first.
        text => {
            let text = text.strip_prefix('%').unwrap_or(text);
            text.strip_prefix('@').unwrap_or(text).to_owned()
        }
    }
}

fn looks_like_host(text: &str) -> bool {
    let label =
        |it: &str| !it.is_empty() && it.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    text.contains('.') && text.len() <= 253 && text.split('.').all(label)
}

/// Ours, or two thirds of theirs where that is less.
fn lifetime(theirs: Option<Duration>, ours: Duration) -> Duration {
    let most = theirs.map_or(ours, |it| it / 3 * 2);
    ours.min(most).max(SHORTEST)
}

/// What becomes the name of a tunnel: letters, digits, `-` and `_`, 32 at most.
pub(crate) fn tunnel_name(title: &str) -> String {
    let mut name = String::new();
    for c in title.chars() {
        match c {
            'a'..='z' | '0'..='9' | '_' => name.push(c),
            'A'..='Z' => name.push(c.to_ascii_lowercase()),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
        if name.len() == 32 {
            break;
        }
    }
    let name = name.trim_end_matches('-');
    // The one name that a tunnel cannot have.
    if name.is_empty() || name == "server" {
        return "vpn".to_owned();
    }
    name.to_owned()
}

/// Networks of a list as strongSwan writes it; `dynamic` and everything come out as nothing.
pub(super) fn networks(list: &str, place: &Place, notes: &mut Vec<Note>) -> Vec<IpNet> {
    let mut out = Vec::new();
    let mut everything = false;
    for written in list
        .split(',')
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .take(64)
    {
        // `10.1.0.0/24[tcp/80]` narrows further than a tunnel of ours does.
        let (network, narrower) = match written.split_once('[') {
            Some((network, _)) => (network.trim(), true),
            None => (written, false),
        };
        let parsed = network.parse::<IpNet>().or_else(|_| {
            let address = network.parse::<IpAddr>();
            address.map(IpNet::from)
        });
        if narrower {
            let text =
                format!("{written}: protocols and ports are left out, all of {network} counts");
            notes.push(Note::NotRead(place.clone(), text));
        }
        match parsed {
            _ if network == "dynamic" || network == "%dynamic" => {}
            Ok(network) if network.prefix_len() == 0 => everything = true,
            Ok(network) => out.push(network.trunc()),
            Err(_) => {
                let text = format!(
                    "{written} is no network: expected one such as 10.1.0.0/24; it is left out"
                );
                notes.push(Note::NotRead(place.clone(), text));
            }
        }
    }
    if everything { Vec::new() } else { out }
}

/// `3h`, `45m`, `20s`, `3600`, as strongSwan writes spans of time.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(at)?;
    let seconds = match unit.trim() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    let count: u64 = digits.parse().ok()?;
    Some(Duration::from_secs(count.checked_mul(seconds)?))
}

/// A text that a name, an address or an identity may have.
pub(super) fn is_sane(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= TEXT_MAX && !text.chars().any(char::is_control)
}

/// The first eight names, and how many more there are: a file may have hundreds.
pub(super) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let more = names.len().saturating_sub(SHOWN);
    let shown: Vec<&str> = names.take(SHOWN).collect();
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Authorities by name, for a person; one that is no root is unusual, and that is said.
pub(super) fn names_of(ca: &[Vec<u8>]) -> Vec<String> {
    let shown = |der: &Vec<u8>| {
        let name = identity::subject(der).map_or_else(|e| e.to_string(), |it| it.to_string());
        if is_self_issued(der) {
            name
        } else {
            format!("{name} (not a root)")
        }
    };
    ca.iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_becomes_a_name() {
        for (title, name) in [
            ("algovpn-203.0.113.5", "algovpn-203-0-113-5"),
            ("Algo VPN 203.0.113.5 IKEv2", "algo-vpn-203-0-113-5-ikev2"),
            ("server", "vpn"),
            ("../../etc/passwd", "etc-passwd"),
            ("日本", "vpn"),
            ("", "vpn"),
        ] {
            assert_eq!(tunnel_name(title), name, "{title}");
        }
        assert!(tunnel_name(&"a-".repeat(100)).len() <= 32);
    }

    #[test]
    fn times_and_networks_are_those_of_strongswan() {
        assert_eq!(duration("3h"), Some(Duration::from_secs(10_800)));
        assert_eq!(duration("45"), Some(Duration::from_secs(45)));
        assert_eq!(duration("99999999999999999999h"), None);
        assert_eq!(duration("h"), None);
        let mut notes = Vec::new();
        let place = Place::line("a.conf", 3);
        let list = "10.1.0.0/24, fd00::/8,10.2.0.1, nonsense, 10.3.0.0/16[tcp/80]";
        let found = networks(list, &place, &mut notes);
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            ["10.1.0.0/24", "fd00::/8", "10.2.0.1/32", "10.3.0.0/16"]
        );
        assert_eq!(notes.len(), 2);
        assert!(networks("10.0.0.0/8,0.0.0.0/0", &place, &mut notes).is_empty());
    }

    #[test]
    fn a_lifetime_stays_below_the_files_own() {
        let minutes = |count: u64| Duration::from_secs(count * 60);
        assert_eq!(lifetime(None, CHILD_LIFETIME), minutes(40));
        assert_eq!(lifetime(Some(minutes(30)), CHILD_LIFETIME), minutes(20));
        assert_eq!(lifetime(Some(minutes(1440)), CHILD_LIFETIME), minutes(40));
        assert_eq!(lifetime(Some(minutes(0)), CHILD_LIFETIME), SHORTEST);
    }
}
