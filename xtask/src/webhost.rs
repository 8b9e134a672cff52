//! The web host of the lab's internet, and the client that waits for its first byte. Both are hidden
//! commands of this program, run on hosts of the lab.

use crate::lab::{Failure, Result};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use time::macros::format_description;

/// What `wait_for_first_byte` prints when it is about to begin, and when it has succeeded.
pub const BEGUN: &str = "begun";
/// See [`BEGUN`].
pub const ANSWERED: &str = "answered";

/// Serves for ever: `/` answers with the address it saw, `/bytes/N` with N bytes.
pub fn serve(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen)?;
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            // A client that goes away in the middle is its own business.
            let _ = answer(stream);
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let seen = stream.peer_addr()?.ip().to_canonical();
    let mut reader = BufReader::new(stream.try_clone()?.take(16 * 1024));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    match length_asked(&request) {
        Asked::Address => {
            let body = format!("{seen}\n");
            respond(&mut stream, "200 OK", body.len() as u64)?;
            stream.write_all(body.as_bytes())
        }
        Asked::Bytes(count) => {
            respond(&mut stream, "200 OK", count)?;
            std::io::copy(&mut std::io::repeat(b'.').take(count), &mut stream).map(drop)
        }
        Asked::Unknown => respond(&mut stream, "404 Not Found", 0),
    }
}

fn respond(stream: &mut TcpStream, status: &str, length: u64) -> std::io::Result<()> {
    let date = OffsetDateTime::now_utc().format(format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    ));
    let date = date.map_err(std::io::Error::other)?;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Address,
    Bytes(u64),
    Unknown,
}

fn length_asked(request: &str) -> Asked {
    let mut words = request.split_whitespace();
    match (words.next(), words.next()) {
        (Some("GET"), Some("/")) => Asked::Address,
        (Some("GET"), Some(path)) => path
            .strip_prefix("/bytes/")
            .and_then(|count| count.parse().ok())
            .map_or(Asked::Unknown, Asked::Bytes),
        _ => Asked::Unknown,
    }
}

/// Asks every few milliseconds until the web host answers; prints [`BEGUN`], then [`ANSWERED`] and the
/// address that the web host saw.
pub fn wait_for_first_byte(host: SocketAddr, patience: Duration) -> Result<()> {
    println!("{BEGUN}");
    let end = Instant::now() + patience;
    let (answers, answer) = mpsc::channel();
    while Instant::now() < end {
        // A question that is lost must not hold up the next: the kernel waits a second before it
        // repeats a SYN.
        let answers = answers.clone();
        std::thread::spawn(move || {
            if let Ok(seen) = ask(host) {
                let _ = answers.send(seen);
            }
        });
        if let Ok(seen) = answer.recv_timeout(Duration::from_millis(5)) {
            println!("{ANSWERED} {seen}");
            return Ok(());
        }
    }
    Err(Failure::new(format!(
        "{host} did not answer within {patience:?}"
    )))
}

fn ask(host: SocketAddr) -> Result<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&host, Duration::from_millis(300))?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    Ok(body.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        assert_eq!(length_asked("GET / HTTP/1.1\r\n"), Asked::Address);
        assert_eq!(
            length_asked("GET /bytes/1000 HTTP/1.1\r\n"),
            Asked::Bytes(1000)
        );
        assert_eq!(length_asked("GET /bytes/many HTTP/1.1\r\n"), Asked::Unknown);
        assert_eq!(length_asked("POST / HTTP/1.1\r\n"), Asked::Unknown);
        assert_eq!(length_asked(""), Asked::Unknown);
    }

    #[test]
    fn the_host_tells_who_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            answer(stream).unwrap();
        });
        assert_eq!(ask(address).unwrap(), IpAddr::from([127, 0, 0, 1]));
    }
}
