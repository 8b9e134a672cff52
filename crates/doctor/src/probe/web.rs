//! Which address does a web host see, and what time is it there?

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, DATE, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use time::PrimitiveDateTime;
use time::macros::format_description;
use tokio::net::TcpSocket;

/// An answer is not waited for longer.
const ANSWER: Duration = Duration::from_secs(5);
/// Nor is the process.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);
/// Octets of the answer's head, and of its body: an address.
const HEAD_MAX: usize = 16 << 10;
const BODY_MAX: usize = 4096;

/// `http://HOST[:PORT]/PATH`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// An IPv6 address without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    authority: String,
    target: String,
}

impl Url {
    /// Reads one; the error says what was expected.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let expected = |what: &str| {
            format!(
                "`{text}` {what}: expected http://HOST/PATH of a host that answers with the address it sees"
            )
        };
        let uri: Uri = text.parse().map_err(|_| expected("is no URL"))?;
        let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
            return Err(expected("names no host"));
        };
        if uri.scheme_str() != Some("http") {
            return Err(expected("is not http://"));
        }
        if authority.as_str().contains('@') {
            return Err(expected("holds a user name"));
        }
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        Ok(Self {
            host: bare.unwrap_or(host).to_owned(),
            port: uri.port_u16().unwrap_or(80),
            authority: authority.as_str().to_owned(),
            target: uri
                .path_and_query()
                .map_or("/", |it| it.as_str())
                .to_owned(),
        })
    }

    /// An errand: to ask at this address of it, from that address of ours.
    pub(crate) fn errand(&self, at: IpAddr, from: Option<IpAddr>) -> Errand {
        Errand {
            at: SocketAddr::new(at, self.port),
            from,
            authority: self.authority.clone(),
            target: self.target.clone(),
        }
    }
}

/// What to ask.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Errand {
    at: SocketAddr,
    from: Option<IpAddr>,
    authority: String,
    target: String,
}

/// What a web host says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The address that it sees, if its answer ends in one.
    pub(crate) address: Option<IpAddr>,
    /// Its time, in seconds since 1970, if it says one.
    pub(crate) date: Option<i64>,
}

/// Why it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Trouble {
    /// Nothing came within the time.
    Silent,
    /// There is no way, or nobody listens.
    NotConnected,
    /// It is no web host, or it broke off.
    NotHttp,
    /// It says another status than 200.
    Status(u16),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent => write!(f, "nothing came within {} s", ANSWER.as_secs()),
            Self::NotConnected => f.write_str("it cannot be reached"),
            Self::NotHttp => f.write_str("what came is no answer of a web host"),
            Self::Status(status) => write!(f, "it says status {status}"),
        }
    }
}

/// The process itself; `socket` is of TCP and not connected.
pub(crate) fn run(errand: &Errand, socket: OwnedFd) -> std::io::Result<Result<Seen, Trouble>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked = async { tokio::time::timeout(ANSWER, ask(errand, socket)).await };
    Ok(runtime.block_on(asked).unwrap_or(Err(Trouble::Silent)))
}

async fn ask(errand: &Errand, socket: OwnedFd) -> Result<Seen, Trouble> {
    let stream = std::net::TcpStream::from(socket);
    let not_connected = |_| Trouble::NotConnected;
    stream.set_nonblocking(true).map_err(not_connected)?;
    let socket = TcpSocket::from_std_stream(stream);
    if let Some(from) = errand.from {
        let from = SocketAddr::new(from, 0);
        socket.bind(from).map_err(not_connected)?;
    }
    let stream = socket.connect(errand.at).await.map_err(not_connected)?;
    let not_http = |_| Trouble::NotHttp;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(not_http)?;
    let driver = tokio::spawn(connection);
    let request = Request::get(&errand.target)
        .header(HOST, &errand.authority)
        .header(USER_AGENT, concat!("cygnet/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Trouble::NotHttp)?;
    let response = sender.send_request(request).await.map_err(not_http)?;
    if response.status() != StatusCode::OK {
        return Err(Trouble::Status(response.status().as_u16()));
    }
    let date = response.headers().get(DATE);
    let date = date.and_then(|date| http_date(date.to_str().ok()?));
    let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
    driver.abort();
    let body = body.map_err(|_| Trouble::NotHttp)?.to_bytes();
    let text = String::from_utf8_lossy(&body);
    Ok(Seen {
        address: text
            .split_whitespace()
            .next_back()
            .and_then(|it| it.parse().ok()),
        date,
    })
}

/// RFC 9110 §5.6.7, as servers have to write it.
fn http_date(text: &str) -> Option<i64> {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let date = PrimitiveDateTime::parse(text, format).ok()?;
    Some(date.assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn told(answer: &'static [u8]) -> Result<Seen, Trouble> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, from) = listener.accept().unwrap();
            assert_eq!(from.ip(), IpAddr::from([127, 0, 0, 2]));
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /ip?x HTTP/1.1\r\n"));
            // One that has heard enough does not wait for the rest.
            let _ = stream.write_all(answer);
        });
        let url = Url::parse(&format!("http://127.0.0.1:{}/ip?x", at.port())).unwrap();
        let errand = url.errand(at.ip(), Some(IpAddr::from([127, 0, 0, 2])));
        let socket = cygnet_linux::unconnected_tcp(false, None).unwrap();
        run(&errand, socket).unwrap()
    }

    #[test]
    fn address_and_time_of_an_answer() {
        let whole = told(
            b"HTTP/1.1 200 OK\r\nDate: Thu, 26 Nov 2026 00:00:10 GMT\r\nContent-Length: 19\r\n\r\nyou: 203.0.113.5 \r\n",
        );
        let seen = Seen {
            address: Some(IpAddr::from([203, 0, 113, 5])),
            date: Some(1_795_651_210),
        };
        assert_eq!(whole, Ok(seen));
        let page = told(b"HTTP/1.0 200 OK\r\nDate: today\r\n\r\n<html>hello</html>");
        let nothing = Seen {
            address: None,
            date: None,
        };
        assert_eq!(page, Ok(nothing));
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        assert_eq!(told(b"SSH-2.0-x\r\n"), Err(Trouble::NotHttp));
        let gone = told(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(gone, Err(Trouble::Status(404)));
        let long = told(Box::leak(
            [b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), vec![b'x'; 5000]]
                .concat()
                .into_boxed_slice(),
        ));
        assert_eq!(long, Err(Trouble::NotHttp));
        let url = Url::parse("http://127.0.0.1:1/").unwrap();
        let socket = cygnet_linux::unconnected_tcp(false, None).unwrap();
        let nobody = run(&url.errand(IpAddr::from([127, 0, 0, 1]), None), socket).unwrap();
        assert_eq!(nobody, Err(Trouble::NotConnected));
    }

    #[test]
    fn urls_of_web_hosts_and_no_others() {
        let url = Url::parse("http://[2001:db8::1]:8080").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("2001:db8::1", 8080));
        assert_eq!(url.target, "/");
        for bad in ["https://a/", "a", "/a", "http://u:p@a/", "ftp://a/", ""] {
            let told = Url::parse(bad).unwrap_err();
            assert!(told.contains("expected http://"), "{told}");
        }
    }
}
