//! One file over HTTP, with a bound on everything: for a process of its own that has nothing to lose.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What a fetch may cost.
pub(crate) struct Limits {
    /// To connect to one address.
    pub(crate) connect: Duration,
    /// In all.
    pub(crate) whole: Duration,
    /// Octets of the file.
    pub(crate) body: usize,
    /// How often another place may be named.
    pub(crate) redirects: usize,
}

/// Octets of the answer's head.
const HEAD_MAX: usize = 64 << 10;
/// Octets of the name of another place.
const LOCATION_MAX: usize = 1024;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// The file at an `http://` URL. Neither a proxy nor the environment has a say; the error is one sentence.
pub(crate) async fn get(url: &str, limits: &Limits) -> Result<Vec<u8>, String> {
    let fetched = tokio::time::timeout(limits.whole, follow(url, limits)).await;
    fetched.unwrap_or_else(|_| {
        Err(format!(
            "it did not come within {} s",
            limits.whole.as_secs_f32()
        ))
    })
}

/// What came of one request.
enum Step {
    File(Vec<u8>),
    Elsewhere(String),
}

async fn follow(url: &str, limits: &Limits) -> Result<Vec<u8>, String> {
    let named = Place::parse(url)?;
    let mut place = Place::parse(url)?;
    for _ in 0..=limits.redirects {
        let strange = (&place.host, place.port) != (&named.host, named.port);
        match ask(&place, strange, limits).await? {
            Step::File(bytes) => return Ok(bytes),
            Step::Elsewhere(location) => place = place.elsewhere(&location)?,
        }
    }
    Err(format!(
        "it is said to be elsewhere for more than {} times",
        limits.redirects
    ))
}

/// `strange`: it is another host, or another port of it, that sent us there.
async fn ask(place: &Place, strange: bool, limits: &Limits) -> Result<Step, String> {
    let stream = connect(place, strange, limits).await?;
    let broken = |e: hyper::Error| format!("{} broke off, or speaks no HTTP: {e}", place.host);
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let request = Request::get(&place.target)
        .header(HOST, &place.authority)
        .header(USER_AGENT, concat!("cygnet/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| format!("this URL cannot be asked for: {e}"))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        read(place, response, limits.body).await
    };
    // The connection is driven beside what is read from it, and ends with it.
    let driven = async {
        if let Err(error) = connection.await {
            tracing::debug!("{}: {error}", place.host);
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        answer = answered => answer,
        never = driven => match never {},
    }
}

async fn read(place: &Place, response: Response<Incoming>, most: usize) -> Result<Step, String> {
    let status = response.status();
    match status {
        StatusCode::OK => {}
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            return location
                .map(|location| Step::Elsewhere(location.to_owned()))
                .ok_or_else(|| format!("{} says `{status}`, and not where to", place.host));
        }
        _ => return Err(format!("{} says `{status}`", place.host)),
    }
    let body = Limited::new(response.into_body(), most).collect().await;
    match body {
        Ok(body) => Ok(Step::File(body.to_bytes().to_vec())),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(format!("it has more than {most} octets"))
        }
        Err(error) => Err(format!("{} broke off: {error}", place.host)),
    }
}

async fn connect(place: &Place, strange: bool, limits: &Limits) -> Result<TcpStream, String> {
    let addresses = tokio::net::lookup_host((place.name(), place.port)).await;
    let addresses = addresses.map_err(|e| format!("cannot resolve {}: {e}", place.host))?;
    let mut last = format!("{} has no address", place.host);
    for address in addresses.take(ADDRESSES_MAX) {
        if strange && is_near(address.ip()) {
            last = format!("it is said to be at {address}, where only this machine or its link is");
            continue;
        }
        match tokio::time::timeout(limits.connect, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = format!("cannot connect to {address}: {error}"),
            Err(_) => {
                let patience = limits.connect.as_secs_f32();
                last = format!("cannot connect to {address}: no answer within {patience} s");
            }
        }
    }
    Err(last)
}

/// Whether this machine, or its link, alone has something there (the provider's, perhaps, at 169.254.169.254): whoever
/// answers is not to choose what is asked for in this machine's name. The configuration may.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(a) => a.is_loopback() || a.is_link_local() || a.is_unspecified(),
        IpAddr::V6(a) => a.is_loopback() || a.is_unicast_link_local() || a.is_unspecified(),
    }
}

/// Whom to ask, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) authority: String,
    /// An IPv6 address with its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query.
    pub(crate) target: String,
}

impl Place {
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let url = url.split('#').next().unwrap_or_default();
        let uri: Uri = url.parse().map_err(|e| format!("`{url}` is no URL: {e}"))?;
        if uri.scheme_str() == Some("https") {
            return Err(format!(
                "it is said to be at {url}: expected http://, revocation lists are signed and not fetched over https"
            ));
        }
        let (Some("http"), Some(authority), Some(host)) =
            (uri.scheme_str(), uri.authority(), uri.host())
        else {
            return Err(format!("`{url}` is no http:// URL"));
        };
        if authority.as_str().contains('@') {
            return Err(format!("`{url}` holds a user name"));
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(Self {
            authority: authority.as_str().to_owned(),
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            target: target.to_owned(),
        })
    }

    /// What a resolver, or the kernel, is given.
    pub(crate) fn name(&self) -> &str {
        let address = self.host.strip_prefix('[');
        address
            .and_then(|address| address.strip_suffix(']'))
            .unwrap_or(&self.host)
    }

    /// Where `Location` leads from here (RFC 9110 §10.2.2).
    fn elsewhere(&self, location: &str) -> Result<Self, String> {
        if location.len() > LOCATION_MAX {
            return Err(format!("{} names a place of too many letters", self.host));
        }
        let authority = &self.authority;
        let path = self.target.split('?').next().unwrap_or_default();
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        if location.contains("://") {
            Self::parse(location)
        } else if location.starts_with("//") {
            Self::parse(&format!("http:{location}"))
        } else if location.starts_with('/') {
            Self::parse(&format!("http://{authority}{location}"))
        } else {
            Self::parse(&format!("http://{authority}{directory}/{location}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    const SMALL: Limits = Limits {
        connect: Duration::from_secs(2),
        whole: Duration::from_secs(4),
        body: 1000,
        redirects: 3,
    };

    /// A host on loopback that answers one connection after the other; its URL.
    fn host(answers: Vec<Vec<u8>>, pause: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for (answer, stream) in answers.into_iter().zip(listener.incoming()) {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let read = stream.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                assert!(request.starts_with("GET /"), "{request}");
                assert!(
                    request.to_lowercase().contains("\r\nhost: 127.0.0.1:"),
                    "{request}"
                );
                // One that has heard enough does not wait for the rest.
                let _ = stream.write_all(&answer);
                std::thread::sleep(pause);
            }
        });
        format!("http://127.0.0.1:{port}/list.crl")
    }

    fn answer(head: &str, body: &[u8]) -> Vec<u8> {
        let length = body.len();
        let mut answer =
            format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        answer.extend_from_slice(body);
        answer
    }

    fn to(location: &str) -> Vec<u8> {
        answer(&format!("302 Found\r\nLocation: {location}"), b"")
    }

    async fn told(answers: Vec<Vec<u8>>) -> String {
        get(&host(answers, Duration::ZERO), &SMALL)
            .await
            .unwrap_err()
    }

    #[tokio::test]
    async fn a_file_comes_whole_however_it_is_framed() {
        let body = vec![7; 1000];
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_vec();
        let closed = b"HTTP/1.0 200 OK\r\n\r\nuntil the end".to_vec();
        for (answer, expected) in [
            (answer("200 OK", &body), body.as_slice()),
            (chunked, b"abcde"),
            (closed, b"until the end"),
        ] {
            let got = get(&host(vec![answer], Duration::ZERO), &SMALL).await;
            assert_eq!(got.as_deref(), Ok(expected));
        }
    }

    #[tokio::test]
    async fn what_is_too_long_is_not_read_to_its_end() {
        let told_length = told(vec![answer("200 OK", &[7; 1001])]).await;
        assert_eq!(told_length, "it has more than 1000 octets");
        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.resize(1 << 20, b'x');
        assert_eq!(told(vec![endless]).await, "it has more than 1000 octets");
        let mut head = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
        head.resize(1 << 20, b'x');
        let told = told(vec![head]).await;
        assert!(told.contains("broke off, or speaks no HTTP"), "{told}");
    }

    #[tokio::test]
    async fn what_is_late_is_not_waited_for() {
        let quick = Limits {
            whole: Duration::from_millis(300),
            ..SMALL
        };
        let begun = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nabc".to_vec();
        for slow in [Vec::new(), begun] {
            let url = host(vec![slow], Duration::from_secs(3));
            let before = std::time::Instant::now();
            let told = get(&url, &quick).await.unwrap_err();
            assert_eq!(told, "it did not come within 0.3 s");
            assert!(before.elapsed() < Duration::from_secs(2));
        }
    }

    #[tokio::test]
    async fn what_breaks_off_is_not_taken_for_the_whole() {
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nabc".to_vec();
        let told = told(vec![cut]).await;
        assert!(told.contains("broke off"), "{told}");
        let nobody = get("http://127.0.0.1:1/", &SMALL).await.unwrap_err();
        assert!(
            nobody.starts_with("cannot connect to 127.0.0.1:1"),
            "{nobody}"
        );
    }

    #[tokio::test]
    async fn redirects_are_followed_a_few_times_and_to_http_alone() {
        let good = vec![to("/a/b"), to("c?d"), to("d"), answer("200 OK", b"found")];
        let got = get(&host(good, Duration::ZERO), &SMALL).await;
        assert_eq!(got.as_deref(), Ok(&b"found"[..]));
        let round = told(vec![to("/"); 5]).await;
        assert_eq!(round, "it is said to be elsewhere for more than 3 times");
        let secure = told(vec![to("https://127.0.0.1/list.crl")]).await;
        assert!(secure.contains("expected http://"), "{secure}");
        for bad in [
            "file:///etc/passwd",
            "ftp://a/b",
            "http://",
            "http://u:p@a/b",
        ] {
            let told = told(vec![to(bad)]).await;
            assert!(
                told.contains("URL") || told.contains("user name"),
                "{bad}: {told}"
            );
        }
        let long = told(vec![to(&"x".repeat(LOCATION_MAX + 1))]).await;
        assert!(long.ends_with("too many letters"), "{long}");
        let nowhere = told(vec![answer("302 Found", b"")]).await;
        assert!(nowhere.ends_with("and not where to"), "{nowhere}");
        let gone = told(vec![answer("404 Not Found", b"gone")]).await;
        assert!(gone.contains("`404 Not Found`"), "{gone}");
    }

    #[tokio::test]
    async fn nobody_sends_us_to_what_is_this_machines_own() {
        let other = host(vec![answer("200 OK", b"secret")], Duration::ZERO);
        let told = told(vec![to(&other)]).await;
        assert!(told.contains("where only this machine"), "{told}");
        // Where the configuration says so there it is.
        assert_eq!(get(&other, &SMALL).await.as_deref(), Ok(&b"secret"[..]));
        for (address, near) in [
            ("127.8.8.8", true),
            ("169.254.169.254", true),
            ("0.0.0.0", true),
            ("::", true),
            ("::1", true),
            ("fe80::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.168.1.1", false),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_near(address.parse().unwrap()), near, "{address}");
        }
    }

    #[test]
    fn a_location_is_understood_as_browsers_do() {
        let from = Place::parse("http://a.example:8080/x/y.crl?z").unwrap();
        let to = |location: &str| {
            let place = from.elsewhere(location).unwrap();
            (place.authority, place.port, place.target)
        };
        let place =
            |authority: &str, port, target: &str| (authority.to_owned(), port, target.to_owned());
        assert_eq!(to("w.crl"), place("a.example:8080", 8080, "/x/w.crl"));
        assert_eq!(to("/w.crl#q"), place("a.example:8080", 8080, "/w.crl"));
        assert_eq!(to("//b.example/w"), place("b.example", 80, "/w"));
        assert_eq!(to("HTTP://[::1]:81"), place("[::1]:81", 81, "/"));
        assert_eq!(Place::parse("http://[::1]/").unwrap().name(), "::1");
    }
}
