//! A revocation list that the server fetches over HTTP: openssl makes it, Python serves it, strongSwan is the
//! client that it revokes.

use super::super::Scenario;
use super::{NET, SOON, everything};
use crate::ensure;
use crate::lab::cygnet::{Cygnet, Setup};
use crate::lab::pki::{Authority, Credential, KeyKind, Request};
use crate::lab::process::{Exec, Process};
use crate::lab::strongswan::{self, Auth, Config, StrongSwan};
use crate::lab::world::WEB;
use crate::lab::{Failure, Lab, Namespace, Result, traffic, wait_for};
use std::fs;
use std::path::{Path, PathBuf};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "fetched-crl",
        "a revocation list fetched over HTTP by an unprivileged process: whoever it comes to revoke is out after the \
         next fetch, and stays out when an older list is served, or none",
        fetched,
    )]
}

const PORT: u16 = 8080;

pub(super) fn server(authority: &Authority, own: &Credential) -> Setup {
    Setup::new(format!(
        "[server]
identity = \"vpn.lab\"
certificate = \"own.crt\"
key = \"own.key\"
ca = \"ca.crt\"
crl = \"http://{WEB}:{PORT}/list.crl\"
pools = [\"10.99.0.0/24\", \"fd99::/112\"]
"
    ))
    .credential("own", own)
    .file("ca.crt", authority.certificate.clone())
}

/// The authority as openssl knows it, and what its web host serves.
pub(super) struct Publisher {
    directory: PathBuf,
}

/// What `openssl ca -gencrl` wants to be told.
const SETTINGS: &str = "[ca]
default_ca = lab
[lab]
database = index.txt
crlnumber = number
default_md = sha256
crl_extensions = extensions
[extensions]
authorityKeyIdentifier = keyid
";

impl Publisher {
    pub(super) fn new(lab: &Lab, authority: &Authority) -> Result<Self> {
        let directory = lab.subdirectory("publisher")?;
        fs::create_dir_all(directory.join("web"))?;
        fs::write(directory.join("ca.crt"), &authority.certificate)?;
        fs::write(directory.join("ca.key"), authority.key())?;
        fs::write(directory.join("ca.cnf"), SETTINGS)?;
        fs::write(directory.join("number"), "01\n")?;
        Ok(Self { directory })
    }

    pub(super) fn list(&self) -> PathBuf {
        self.directory.join("web/list.crl")
    }

    fn publish(&self, revoked: &[&Credential]) -> Result<()> {
        self.publish_at("+0", revoked)
    }

    /// By a clock that is off by what libfaketime understands.
    pub(super) fn publish_at(&self, offset: &str, revoked: &[&Credential]) -> Result<()> {
        let line = |it: &&Credential| {
            format!(
                "R\t360101000000Z\t260101000000Z\t{:04X}\tunknown\t/CN=x\n",
                it.serial()
            )
        };
        let index: String = revoked.iter().map(line).collect();
        fs::write(self.directory.join("index.txt"), index)?;
        let directory = self.directory.display();
        Exec::shell(&format!(
            "cd {directory} && faketime -f {offset} openssl ca -gencrl -config ca.cnf -keyfile ca.key -cert ca.crt -crldays 30 -out list.pem \
             2>&1 && openssl crl -in list.pem -outform DER -out web/new && mv web/new web/list.crl"
        ))
        .run()
        .map(drop)
    }

    pub(super) fn serve(&self, web: &Namespace) -> Result<Process> {
        let (port, directory) = (PORT.to_string(), self.directory.join("web"));
        let directory = directory.to_string_lossy();
        let host = web.spawn([
            "python3",
            "-m",
            "http.server",
            &port,
            "--directory",
            &*directory,
        ])?;
        wait_for("the publisher listens", SOON, || {
            Ok(web.listens_tcp(PORT)?.then_some(()))
        })?;
        Ok(host)
    }
}

/// Counts who on this host sends to the publisher.
fn count_senders(host: &Namespace) -> Result<()> {
    host.nft(&format!(
        "table inet senders {{
            counter root {{}}
            counter others {{}}
            chain out {{
                type filter hook output priority 0;
                tcp dport {PORT} meta skuid 0 counter name root
                tcp dport {PORT} meta skuid != 0 counter name others
            }}
        }}"
    ))
}

fn sent_by(host: &Namespace, counter: &str) -> Result<bool> {
    let text = host.exec(["nft", "list", "counter", "inet", "senders", counter])?;
    Ok(!text.contains("packets 0 "))
}

fn client(lab: &Lab, host: &Namespace, ca: &Authority, own: &Credential) -> Result<StrongSwan> {
    let connection = everything("192.168.1.20", Auth::certificate("own", "laptop@lab"))
        .remote(Auth::public_key("vpn.lab"));
    let setup = strongswan::Setup {
        config: Config::of(connection),
        credentials: vec![("own".to_owned(), own.clone())],
        authorities: vec![ca.certificate.clone()],
        settings: vec!["retransmit_tries = 1".to_owned()],
        ..strongswan::Setup::default()
    };
    StrongSwan::start(lab, host, &setup)
}

/// What a client is told whose certificate is revoked.
const REFUSED: &str = "AUTHENTICATION_FAILED";

fn clients(server: &Cygnet) -> Result<Vec<String>> {
    let sas = server.connection("server")?.ike_sas;
    Ok(sas.into_iter().map(|sa| sa.initiator_spi).collect())
}

/// The only list that it keeps.
pub(super) fn kept(server: &Cygnet) -> Result<PathBuf> {
    let directory = server.directory().join("state/crl");
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(file),
        (_, others) => Err(Failure::new(format!(
            "{} holds {others} other files, or none",
            directory.display()
        ))),
    }
}

fn same(one: &Path, other: &Path) -> Result<bool> {
    Ok(fs::read(one)? == fs::read(other)?)
}

fn fetched(lab: &mut Lab) -> Result<String> {
    let world = super::world(lab)?;
    let authority = Authority::root(KeyKind::EcP256, "lab root")?;
    let issue =
        |name: &str, san: &str| authority.issue(&Request::new(KeyKind::EcP256, name).name(san));
    let (own, laptop) = (issue("vpn.lab", "vpn.lab")?, issue("laptop", "laptop@lab")?);
    let publisher = Publisher::new(lab, &authority)?;
    let host = publisher.serve(&world.web)?;
    count_senders(&world.server)?;

    // There is none yet: nobody is kept out for that, and it is said.
    let mut server = Cygnet::start(lab, &world.server, &server(&authority, &own))?;
    let missing = server.wait_for_warning("`404 Not Found`", SOON)?;
    ensure!(missing.ends_with("are judged without it"), "{missing}");
    let swan = client(lab, &world.laptop, &authority, &laptop)?;
    swan.initiate(NET)?;
    traffic::ping_until_answered(&world.laptop, WEB, SOON)?;
    let before = clients(&server)?;

    publisher.publish(&[])?;
    let first = fs::read(publisher.list())?;
    server.reload()?;
    server.wait_for_log("is in force", SOON)?;
    let quiet = server.status()?.warnings;
    ensure!(quiet.is_empty(), "{quiet:?}");
    ensure!(
        clients(&server)? == before,
        "a list of nobody ends somebody"
    );

    publisher.publish(&[&laptop])?;
    server.reload()?;
    wait_for("the client is out", SOON, || {
        Ok(clients(&server)?.is_empty().then_some(()))
    })?;
    let line = server.wait_for_log("down: certificate", SOON)?;
    swan.is_refused(NET, REFUSED)?;
    ensure!(
        same(&kept(&server)?, &publisher.list())?,
        "another list is kept"
    );

    // Whoever is between cannot undo it.
    fs::write(publisher.list(), first)?;
    server.reload()?;
    let older = server.wait_for_warning("older revocation list", SOON)?;
    ensure!(older.contains("are judged by the one of"), "{older}");
    swan.is_refused(NET, REFUSED)?;
    drop(host);
    server.restart()?;
    server.wait_for_warning("cannot connect", SOON)?;
    swan.is_refused(NET, REFUSED)?;
    ensure!(
        sent_by(&world.server, "others")? && !sent_by(&world.server, "root")?,
        "root has fetched, or nobody"
    );
    Ok(line)
}
