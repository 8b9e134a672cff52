//! HTTP requests on one way: from these addresses, by this interface.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{HOST, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::fetch::Place;

/// To connect to one address.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// For a small answer; the queues in front of it may be long.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Octets of a small answer: the load of hundreds of processors.
const ANSWER_LENGTH: usize = 64 << 10;
/// Octets read ahead, heads included.
const BUFFER: usize = 512 << 10;

/// Which way packets go.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) interface: String,
    pub(super) sources: Vec<IpAddr>,
}

impl Way {
    /// Where a place is, for a family that this way has.
    pub(super) async fn resolve(&self, place: &Place) -> Result<Vec<SocketAddr>, String> {
        let found = tokio::net::lookup_host((place.name(), place.port)).await;
        let found = found.map_err(|e| format!("cannot resolve {}: {e}", place.host))?;
        let has = |address: &SocketAddr| {
            let mut sources = self.sources.iter();
            self.sources.is_empty() || sources.any(|s| s.is_ipv4() == address.is_ipv4())
        };
        let found: Vec<SocketAddr> = found.filter(has).take(ADDRESSES_MAX).collect();
        match found.is_empty() {
            true => Err(format!(
                "{} has no address of a family that {} carries",
                place.host, self.interface
            )),
            false => Ok(found),
        }
    }

    /// The first of these that answers, with the connection to it.
    pub(super) async fn reach(
        &self,
        addresses: &[SocketAddr],
    ) -> Result<(SocketAddr, TcpStream), String> {
        let mut last = "there is no address".to_owned();
        for address in addresses {
            match self.connect(*address, false).await {
                Ok(stream) => return Ok((*address, stream)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// `rash`: what waits to be sent when it is closed is thrown away.
    pub(super) async fn connect(&self, to: SocketAddr, rash: bool) -> Result<TcpStream, String> {
        let failed = |e: std::io::Error| {
            format!(
                "cannot connect to {to} by interface {}: {e}",
                self.interface
            )
        };
        let socket = match to.is_ipv4() {
            true => TcpSocket::new_v4(),
            false => TcpSocket::new_v6(),
        };
        let socket = socket.map_err(failed)?;
        // Who has no rights may do so since Linux 5.7.
        socket
            .bind_device(Some(self.interface.as_bytes()))
            .map_err(failed)?;
        let source = self.sources.iter().find(|s| s.is_ipv4() == to.is_ipv4());
        if let Some(source) = source {
            socket.bind(SocketAddr::new(*source, 0)).map_err(failed)?;
        }
        if rash {
            socket.set_zero_linger().map_err(failed)?;
        }
        match timeout(CONNECT_MAX, socket.connect(to)).await {
            Ok(connected) => connected.map_err(failed),
            Err(_) => Err(format!(
                "cannot connect to {to} by interface {}: no answer within {} s",
                self.interface,
                CONNECT_MAX.as_secs()
            )),
        }
    }
}

/// A connection that requests are sent on; dropped, it is closed.
pub(super) struct Line<B> {
    sender: SendRequest<B>,
    driver: JoinHandle<()>,
}

impl<B> Drop for Line<B> {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl<B> Line<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) async fn open(stream: TcpStream) -> Result<Self, String> {
        let io = TokioIo::new(stream);
        let opened = Builder::new().max_buf_size(BUFFER).handshake(io).await;
        let (sender, connection) = opened.map_err(|e| broken(&e))?;
        let driver = tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                // Whoever waits for an answer on it is told.
                tracing::debug!("a connection ended: {error}");
            }
        });
        Ok(Self { sender, driver })
    }

    /// Whether another request can be sent.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    pub(super) async fn ask(
        &mut self,
        method: Method,
        place: &Place,
        body: B,
    ) -> Result<Response<Incoming>, String> {
        let request = Request::builder()
            .method(method)
            .uri(&place.target)
            .header(HOST, &place.authority)
            .header(USER_AGENT, concat!("cygnet/", env!("CARGO_PKG_VERSION")))
            .body(body)
            .map_err(|e| format!("this URL cannot be asked for: {e}"))?;
        let sent = self.sender.send_request(request).await;
        sent.map_err(|e| broken(&e))
    }
}

/// What a connection is said to have done that is no use any more.
pub(super) fn broken(error: &hyper::Error) -> String {
    format!("the connection broke off, or no HTTP is spoken there: {error}")
}

/// A connection that is kept for small requests, and made anew when the other end closes it.
pub(super) struct Kept {
    way: Way,
    to: SocketAddr,
    line: Option<Line<Empty<Bytes>>>,
}

impl Kept {
    pub(super) async fn new(way: Way, to: SocketAddr, stream: TcpStream) -> Result<Self, String> {
        Ok(Self {
            way,
            to,
            line: Some(small(stream).await?),
        })
    }

    /// How long the answer to a `HEAD` takes; to connect again does not count.
    pub(super) async fn round_trip(&mut self, place: &Place) -> Result<Duration, String> {
        let (time, _, _) = self.small(Method::HEAD, place).await?;
        Ok(time)
    }

    /// A small file.
    pub(super) async fn read(&mut self, place: &Place) -> Result<Bytes, String> {
        match self.small(Method::GET, place).await? {
            (_, StatusCode::OK, bytes) => Ok(bytes),
            (_, status, _) => Err(format!("{}{} says `{status}`", self.to, place.target)),
        }
    }

    async fn small(
        &mut self,
        method: Method,
        place: &Place,
    ) -> Result<(Duration, StatusCode, Bytes), String> {
        let mut line = match self.line.take() {
            Some(line) => line,
            None => small(self.way.connect(self.to, false).await?).await?,
        };
        let asked = Instant::now();
        let answered = async {
            let response = line.ask(method, place, Empty::new()).await?;
            let (status, time) = (response.status(), asked.elapsed());
            let body = Limited::new(response.into_body(), ANSWER_LENGTH).collect();
            let body = body
                .await
                .map_err(|e| format!("the answer broke off: {e}"))?;
            Ok::<_, String>((time, status, body.to_bytes()))
        };
        let late = |_| format!("no answer within {} s", ANSWER_MAX.as_secs());
        let answer = timeout(ANSWER_MAX, answered).await.map_err(late)??;
        if line.is_ready().await {
            self.line = Some(line);
        }
        Ok(answer)
    }
}

async fn small(stream: TcpStream) -> Result<Line<Empty<Bytes>>, String> {
    // A request leaves at once; without, it is only later.
    let _ = stream.set_nodelay(true);
    Line::open(stream).await
}
