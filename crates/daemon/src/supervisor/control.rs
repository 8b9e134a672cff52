//! The control socket: HTTP and JSON on a Unix socket, `docs/api.md`.
//!
//! Who calls is known by `SO_PEERCRED`: root (and the user the supervisor runs as) may do
//! everything, nobody else anything. Handlers only carry a request to the supervisor's loop and
//! its answer back; they hold no state.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use cygnet_gateway::DevicePolicy;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::api::{DeviceChanged, DevicesStatus, Status};
use crate::ipc::Control;

/// What a caller wants; the reply goes back through the channel that comes with it.
#[derive(Debug)]
pub(super) enum ControlRequest {
    /// `GET /v1/status`
    Status(oneshot::Sender<Status>),
    /// `POST /v1/connections/…`
    Engine(Control, oneshot::Sender<Result<(), Refusal>>),
    /// `POST /v1/reload`
    Reload(oneshot::Sender<Result<(), Refusal>>),
    /// `GET /v1/devices`
    Devices(oneshot::Sender<Result<DevicesStatus, Refusal>>),
    /// `POST /v1/devices/…`
    Device(DeviceOrder, oneshot::Sender<Result<DeviceChanged, Refusal>>),
}

/// What is to become of a device.
#[derive(Debug)]
pub(super) struct DeviceOrder {
    /// A name, a MAC address, an address or a network, as somebody wrote it.
    pub(super) device: String,
    /// Its policy from now on; `None`: forget what was ordered before.
    pub(super) policy: Option<DevicePolicy>,
    /// With `Tunnelled`, by which tunnel; `None`: the gateway's.
    pub(super) through: Option<String>,
}

/// Why a request was not carried out; the sentence goes to the caller.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// HTTP status.
    #[serde(skip)]
    pub status: u16,
    /// What is wrong and what to do.
    pub error: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            error: error.into(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
    }
}

/// The caller's user id, as the kernel vouches for it.
#[derive(Clone, Copy, Debug)]
struct Caller {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self {
            uid: stream.io().peer_cred().ok().map(|c| c.uid()),
        }
    }
}

/// What a supervisor was about to start when it was killed has its files, and with them the directory, until it is
/// another program.
const LEFT: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(10);

/// Takes the directory for this process alone, until the file is closed or the process ends in
/// whatever way. Asking whether somebody answers on the socket would not do: of two that start
/// together, one would remove the other's.
pub(super) fn lock(run_dir: &Path) -> Result<File, String> {
    let failed = |e: &dyn std::fmt::Display| format!("cannot lock {}: {e}", run_dir.display());
    let directory = File::open(run_dir).map_err(|e| failed(&e))?;
    let until = Instant::now() + LEFT;
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(directory),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(AGAIN),
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "another cygnet runs with {}: stop it first, or choose another [daemon] run_dir",
                    run_dir.display()
                ));
            }
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
    }
}

/// Binds the socket, replacing one that a dead supervisor left behind.
pub(super) fn bind(path: &Path) -> Result<UnixListener, String> {
    only_ours(path.parent().unwrap_or(Path::new("/")))?;
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(format!("cannot remove {}: {e}", path.display())),
    }
    UnixListener::bind(path).map_err(|e| format!("cannot listen on {}: {e}", path.display()))
}

/// Whoever may write in the directory could put a socket of his own, or a journal of what is to be
/// taken back, in the place of ours.
fn only_ours(directory: &Path) -> Result<(), String> {
    let shown = directory.display();
    let metadata =
        std::fs::symlink_metadata(directory).map_err(|e| format!("cannot look at {shown}: {e}"))?;
    if !metadata.is_dir() {
        return Err(format!(
            "[daemon] run_dir {shown}: expected a directory; choose another"
        ));
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != own {
        return Err(format!(
            "[daemon] run_dir {shown} belongs to user {}; expected root: `chown root {shown}`",
            metadata.uid()
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(format!(
            "[daemon] run_dir {shown} has mode {:03o}: others may write there; `chmod 700 {shown}`",
            metadata.mode() & 0o777
        ));
    }
    Ok(())
}

/// Serves until the process ends.
pub(super) async fn serve(listener: UnixListener, requests: mpsc::Sender<ControlRequest>) {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/reload", post(reload))
        .route("/v1/connections/{name}/{verb}", post(connection))
        .route("/v1/devices", get(devices))
        .route("/v1/devices/set", post(set_device))
        .route("/v1/devices/forget", post(forget_device))
        .fallback(|| async {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "no such path; docs/api.md lists them all",
            )
        })
        .layer(middleware::from_fn(only_the_operator))
        .with_state(requests);
    let service = router.into_make_service_with_connect_info::<Caller>();
    if let Err(error) = axum::serve(listener, service).await {
        tracing::error!("the control socket ended: {error}");
    }
}

async fn only_the_operator(
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let own = rustix::process::geteuid().as_raw();
    match caller.uid {
        Some(uid) if uid == 0 || uid == own => next.run(request).await,
        _ => Refusal::new(
            StatusCode::FORBIDDEN,
            "only root may control cygnet; try again with sudo",
        )
        .into_response(),
    }
}

type Requests = State<mpsc::Sender<ControlRequest>>;

async fn ask<T>(
    requests: &mpsc::Sender<ControlRequest>,
    request: impl FnOnce(oneshot::Sender<T>) -> ControlRequest,
) -> Result<T, Refusal> {
    let gone = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "cygnet is ending");
    let (reply, answer) = oneshot::channel();
    requests.send(request(reply)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())
}

async fn status(State(requests): Requests) -> Result<Json<Status>, Refusal> {
    ask(&requests, ControlRequest::Status).await.map(Json)
}

async fn reload(State(requests): Requests) -> Result<Json<Done>, Refusal> {
    ask(&requests, ControlRequest::Reload).await??;
    Ok(Json(Done { ok: true }))
}

/// Body of an answer that has nothing else to say.
#[derive(Debug, Serialize)]
struct Done {
    ok: bool,
}

/// Body of a request about a connection; may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    child: Option<String>,
}

async fn connection(
    State(requests): Requests,
    UrlPath((connection, verb)): UrlPath<(String, String)>,
    body: axum::body::Bytes,
) -> Result<Json<Done>, Refusal> {
    let about: About = if body.is_empty() {
        About::default()
    } else {
        understood(&body, "{\"child\": \"NAME\"} or nothing")?
    };
    let control = match (verb.as_str(), about.child) {
        ("up", child) => Control::Up { connection, child },
        ("down", child) => Control::Down { connection, child },
        ("rekey", None) => Control::RekeyIke { connection },
        ("rekey", Some(child)) => Control::RekeyChild { connection, child },
        ("reauthenticate", None) => Control::Reauthenticate { connection },
        _ => {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!("`{verb}` is not known; expected up, down, rekey or reauthenticate"),
            ));
        }
    };
    ask(&requests, |reply| ControlRequest::Engine(control, reply)).await??;
    Ok(Json(Done { ok: true }))
}

fn understood<T: DeserializeOwned>(body: &[u8], expected: &str) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("the body is not understood: {e}; expected {expected}"),
        )
    })
}

async fn devices(State(requests): Requests) -> Result<Json<DevicesStatus>, Refusal> {
    ask(&requests, ControlRequest::Devices).await?.map(Json)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    device: String,
    policy: DevicePolicy,
    #[serde(default)]
    through: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Forget {
    device: String,
}

async fn set_device(
    State(requests): Requests,
    body: axum::body::Bytes,
) -> Result<Json<DeviceChanged>, Refusal> {
    let expected = "{\"device\": \"NAME, MAC address or address\", \"policy\": \"tunnelled, direct or blocked\"}, and \
                    with tunnelled \"through\": \"TUNNEL\" if it is not the gateway's";
    let Set {
        device,
        policy,
        through,
    } = understood(&body, expected)?;
    let policy = Some(policy);
    let order = DeviceOrder {
        device,
        policy,
        through,
    };
    change_device(&requests, order).await
}

async fn forget_device(
    State(requests): Requests,
    body: axum::body::Bytes,
) -> Result<Json<DeviceChanged>, Refusal> {
    let expected = "{\"device\": \"NAME, MAC address or address\"}";
    let Forget { device } = understood(&body, expected)?;
    let order = DeviceOrder {
        device,
        policy: None,
        through: None,
    };
    change_device(&requests, order).await
}

async fn change_device(
    requests: &mpsc::Sender<ControlRequest>,
    order: DeviceOrder,
) -> Result<Json<DeviceChanged>, Refusal> {
    let request = |reply| ControlRequest::Device(order, reply);
    ask(requests, request).await?.map(Json)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_is_left_of_a_killed_one_is_waited_for_and_one_that_runs_is_not() {
        let run_dir = std::env::temp_dir().join(format!("cygnet-lock-{}", std::process::id()));
        std::fs::create_dir_all(&run_dir).unwrap();
        let held = lock(&run_dir).unwrap();
        let refused = lock(&run_dir).map(drop);
        let left = std::thread::spawn(move || {
            std::thread::sleep(AGAIN * 5);
            drop(held);
        });
        let taken = lock(&run_dir).map(drop);
        left.join().unwrap();
        std::fs::remove_dir_all(&run_dir).unwrap();
        assert!(refused.unwrap_err().contains("another cygnet runs"));
        assert_eq!(taken, Ok(()));
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let base = std::env::temp_dir().join(format!("cygnet-run-dir-{}", std::process::id()));
        let own = base.join("own");
        std::fs::create_dir_all(&own).unwrap();
        let mode = |mode| {
            std::fs::set_permissions(&own, std::fs::Permissions::from_mode(mode)).unwrap();
            only_ours(&own)
        };
        assert_eq!(mode(0o700), Ok(()));
        assert_eq!(mode(0o755), Ok(()));
        assert!(mode(0o777).unwrap_err().contains("777"));
        assert!(mode(0o770).is_err());
        mode(0o700).unwrap();
        let link = base.join("link");
        symlink(&own, &link).unwrap();
        assert!(only_ours(&link).unwrap_err().contains("a directory"));
        std::fs::remove_dir_all(&base).unwrap();
    }
}
