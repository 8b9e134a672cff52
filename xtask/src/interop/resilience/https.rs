//! A host that gives and takes a large file by HTTPS, and who fetches it there.

use super::home::SOON;
use crate::lab::{Failure, Lab, Namespace, Process, Result, wait_for};
use std::fs;
use std::time::Duration;

/// Octets of a transfer.
pub(super) const LARGE: usize = 10_000_000;
/// Seconds that it may take.
const PATIENCE: u64 = 60;

/// Takes and gives large files by HTTPS.
const HTTPS: &str = r"
import hashlib, http.server, socket, ssl, sys
large = bytes(range(251)) * (int(sys.argv[1]) // 251 + 1)
large = large[:int(sys.argv[1])]
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(large)
    def do_PUT(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        self.answer(hashlib.sha256(body).hexdigest().encode())
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
server = Server(('::', 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
";

/// That host.
pub(super) struct Https {
    _process: Process,
    file: String,
    sum: String,
}

impl Https {
    /// Returns when it listens.
    pub(super) fn start(lab: &Lab, host: &Namespace) -> Result<Self> {
        let directory = lab.directory();
        let at = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let (key, certificate, file) = (at("web.key"), at("web.crt"), at("large"));
        host.exec([
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=web.lab",
            "-days",
            "2",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ])?;
        let large: Vec<u8> = (0..LARGE).map(|n| (n % 251) as u8).collect();
        fs::write(&file, large)?;
        let sum = host.exec(["sha256sum", &file])?;
        let sum = sum.split(' ').next().unwrap_or_default().to_owned();
        let octets = LARGE.to_string();
        let process = host.spawn(["python3", "-c", HTTPS, &octets, &certificate, &key])?;
        wait_for("the HTTPS host listens", SOON, || {
            Ok(host.listens_tcp(443)?.then_some(()))
        })?;
        Ok(Self {
            _process: process,
            file,
            sum,
        })
    }

    /// `from` takes the file, or gives it; `more` are options of curl.
    pub(super) fn start_transfer(
        &self,
        from: &Namespace,
        host: &str,
        gives: bool,
        more: &str,
    ) -> Result<Process> {
        let url = match host.contains(':') {
            true => format!("https://[{host}]/"),
            false => format!("https://{host}/"),
        };
        let what = match gives {
            true => format!("-T {} {url}", self.file),
            false => format!("{url} | sha256sum"),
        };
        let line = format!("curl -sS -g -k --fail --max-time {PATIENCE} {more} {what}");
        from.spawn(["sh", "-c", &line])
    }

    /// Waits for the end of a transfer; fails unless what came is what was sent.
    pub(super) fn ends(&self, transfer: &mut Process) -> Result<()> {
        transfer.wait(Duration::from_secs(PATIENCE + 10))?;
        let said = transfer.log();
        match said.contains(&self.sum) {
            true => Ok(()),
            false => Err(Failure::new(format!(
                "what came is not what was sent: {said}"
            ))),
        }
    }
}
