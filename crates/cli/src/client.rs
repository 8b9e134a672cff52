//! Talks to the control socket of a running cygnet.

use std::path::Path;

use cygnet_profile::read::printable;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Sends one request; the answer's body, or one sentence.
pub(crate) fn call(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<Vec<u8>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    runtime.block_on(ask(socket, method, path, body))
}

/// The same where other things are waited for meanwhile.
pub(crate) async fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<Vec<u8>, String> {
    let body = body.map_or_else(Bytes::new, |b| Bytes::from(b.to_string()));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "cygnet")
        .header("content-type", "application/json")
        .body(Full::new(body))
        .map_err(|e| format!("cannot ask for {path}: {e}"))?;
    exchange(socket, request).await
}

async fn exchange(socket: &Path, request: Request<Full<Bytes>>) -> Result<Vec<u8>, String> {
    let stream = UnixStream::connect(socket).await.map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                "is cygnet running? (systemctl status cygnet)"
            }
            std::io::ErrorKind::PermissionDenied => "try again with sudo",
            _ => "is this the control socket of a running cygnet?",
        };
        format!("cannot reach {}: {e}; {hint}", socket.display())
    })?;
    let broken = |e: hyper::Error| format!("{} broke off: {e}", socket.display());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(broken)?
        .to_bytes();
    driver.abort();
    if status.is_success() {
        return Ok(body.to_vec());
    }
    let refusal = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|v| v.get("error").and_then(|e| e.as_str()).map(str::to_owned));
    // The engine's words may be in it.
    let refusal = refusal.map(|refusal| printable(&refusal));
    Err(refusal.unwrap_or_else(|| format!("cygnet answered {status}")))
}
