//! Sockets on the LAN: questions by UDP and by TCP, so many at once and no more.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinSet, spawn_local};
use tokio::time::timeout;

use super::answer::Resolver;
use super::bounds::Bounds;
use super::query::{Asked, QUESTION_MAX, emit};

/// Questions at once, in all and of one client.
const QUESTIONS: (usize, usize) = (512, 128);
/// Connections at once.
const CONNECTIONS: (usize, usize) = (128, 16);
/// A connection on which nothing comes, or goes, for that long ends (RFC 7766 §6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// Questions on one connection; then the client has to make another.
const ON_ONE_CONNECTION: usize = 1000;
/// Octets of an answer by UDP that says no.
const REFUSAL_MAX: usize = 512;
/// After a failure of a socket, before it is tried again.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Answers at any number of addresses.
pub(super) struct Server {
    resolver: Rc<Resolver>,
    questions: Rc<Bounds>,
    connections: Rc<Bounds>,
}

impl Server {
    pub(super) fn new(resolver: Rc<Resolver>) -> Rc<Self> {
        Rc::new(Self {
            resolver,
            questions: Bounds::new(QUESTIONS.0, QUESTIONS.1),
            connections: Bounds::new(CONNECTIONS.0, CONNECTIONS.1),
        })
    }

    /// Serves one address until the set is dropped; the sockets do not block. `direct`: whoever asks there goes direct.
    pub(super) fn serve(
        self: &Rc<Self>,
        tasks: &mut JoinSet<()>,
        direct: bool,
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
    ) -> io::Result<()> {
        let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
        tasks.spawn_local(Rc::clone(self).datagrams(udp, direct));
        tasks.spawn_local(Rc::clone(self).connections(tcp, direct));
        Ok(())
    }

    fn drop_one(&self) {
        self.resolver.count(|counters| counters.dropped += 1);
    }

    async fn datagrams(self: Rc<Self>, socket: UdpSocket, direct: bool) {
        let socket = Rc::new(socket);
        let mut buffer = vec![0; QUESTION_MAX];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            };
            if !self.resolver.is_client(from.ip()) {
                self.drop_one();
                continue;
            }
            match Asked::parse(buffer.get(..length).unwrap_or_default()) {
                Asked::Nothing => self.drop_one(),
                Asked::Refused(answer) => {
                    if let Some(bytes) = emit(&answer, REFUSAL_MAX) {
                        // Who does not get it asks again.
                        let _ = socket.try_send_to(&bytes, from);
                    }
                }
                Asked::Question(question) => {
                    let Some(place) = self.questions.take(from.ip()) else {
                        self.drop_one();
                        continue;
                    };
                    let (server, socket) = (Rc::clone(&self), Rc::clone(&socket));
                    spawn_local(async move {
                        let answer = server.resolver.answer(&question, direct).await;
                        if let Some(bytes) = emit(&answer, question.udp_max()) {
                            let _ = socket.send_to(&bytes, from).await;
                        }
                        drop(place);
                    });
                }
            }
        }
    }

    /// Those that are open end with their listener: there may be another way for them then.
    async fn connections(self: Rc<Self>, listener: TcpListener, direct: bool) {
        let mut open = JoinSet::new();
        loop {
            while open.try_join_next().is_some() {}
            let Ok((stream, from)) = listener.accept().await else {
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            };
            let client = from.ip();
            if !self.resolver.is_client(client) {
                self.drop_one();
                continue;
            }
            let Some(place) = self.connections.take(client) else {
                self.drop_one();
                continue;
            };
            let server = Rc::clone(&self);
            open.spawn_local(async move {
                server.connection(stream, client, direct).await;
                drop(place);
            });
        }
    }

    /// One question after the other, until the client has no more, or takes too long.
    async fn connection(&self, mut stream: TcpStream, client: IpAddr, direct: bool) {
        for _ in 0..ON_ONE_CONNECTION {
            let Some(bytes) = read(&mut stream).await else {
                return;
            };
            let answer = match Asked::parse(&bytes) {
                Asked::Nothing => {
                    self.drop_one();
                    return;
                }
                Asked::Refused(answer) => answer,
                Asked::Question(question) => {
                    let Some(_place) = self.questions.take(client) else {
                        self.drop_one();
                        return;
                    };
                    self.resolver.answer(&question, direct).await
                }
            };
            let Some(answer) = emit(&answer, usize::from(u16::MAX)) else {
                return;
            };
            let Ok(length) = u16::try_from(answer.len()) else {
                return;
            };
            let mut framed = length.to_be_bytes().to_vec();
            framed.extend_from_slice(&answer);
            match timeout(IDLE, stream.write_all(&framed)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    }
}

/// A message behind its length (RFC 1035 §4.2.2).
async fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    timeout(IDLE, stream.read_exact(&mut length))
        .await
        .ok()?
        .ok()?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > QUESTION_MAX {
        return None;
    }
    let mut bytes = vec![0; length];
    timeout(IDLE, stream.read_exact(&mut bytes))
        .await
        .ok()?
        .ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_resolver::proto::rr::{Name, RecordType};
    use std::net::SocketAddr;
    use tokio::task::LocalSet;

    use super::super::messages::{Place, Ways};
    use super::*;
    use crate::dns::messages::NoWay;

    /// A server on loopback whose tunnel is down; where it is.
    fn server(tasks: &mut JoinSet<()>, client: &str) -> (Rc<Server>, SocketAddr) {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        let udp = std::net::UdpSocket::bind(at).unwrap();
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let resolver = Rc::new(Resolver::default());
        resolver.set_clients(vec![client.parse().unwrap()]);
        let ways = Ways {
            tunnel: Err(NoWay::Down("home".to_owned())),
            tls: None,
            direct: Vec::new(),
            direct_resolvers: vec![at.ip()],
            direct_domains: Vec::new(),
            lan_domains: Vec::new(),
            cache: 0,
        };
        let place = Place {
            address: at.ip(),
            direct: false,
        };
        assert!(resolver.ask_by(&ways, &[place]).is_empty());
        let server = Server::new(resolver);
        server.serve(tasks, false, udp, tcp).unwrap();
        (server, at)
    }

    fn question(id: u16, name: &str) -> Vec<u8> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    fn code(bytes: &[u8]) -> (u16, ResponseCode) {
        let message = Message::from_vec(bytes).unwrap();
        (message.metadata.id, message.metadata.response_code)
    }

    #[tokio::test]
    async fn questions_are_answered_by_udp_and_by_tcp() {
        let local = LocalSet::new();
        local
            .run_until(async {
                let mut tasks = JoinSet::new();
                let (server, at) = server(&mut tasks, "127.0.0.0/8");
                let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                let mut buffer = [0; 512];
                // An answer is not answered, nor is noise; what comes behind it is.
                let mut answer = question(1, "www.example.");
                answer[2] |= 0x80;
                for bytes in [answer, b"noise".to_vec(), question(2, "www.example.")] {
                    client.send_to(&bytes, at).await.unwrap();
                }
                let heard = timeout(Duration::from_secs(5), client.recv_from(&mut buffer)).await;
                let (length, _) = heard.unwrap().unwrap();
                assert_eq!(code(&buffer[..length]), (2, ResponseCode::ServFail));

                let mut stream = TcpStream::connect(at).await.unwrap();
                for (id, name, expected) in [
                    (3, "www.example.", ResponseCode::ServFail),
                    (4, "localhost.", ResponseCode::NoError),
                ] {
                    let asked = question(id, name);
                    let length = u16::try_from(asked.len()).unwrap().to_be_bytes();
                    stream.write_all(&length).await.unwrap();
                    stream.write_all(&asked).await.unwrap();
                    let heard = read(&mut stream).await.unwrap();
                    assert_eq!(code(&heard), (id, expected));
                }
                // A length that no question has ends it.
                stream.write_all(&[0xff, 0xff]).await.unwrap();
                assert_eq!(stream.read(&mut buffer).await.unwrap(), 0);
                let counters = server.resolver.counters();
                assert_eq!((counters.queries, counters.dropped), (3, 2));
            })
            .await;
    }

    #[tokio::test]
    async fn who_is_not_of_the_lan_hears_nothing() {
        let local = LocalSet::new();
        local
            .run_until(async {
                let mut tasks = JoinSet::new();
                let (server, at) = server(&mut tasks, "192.0.2.0/24");
                let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                client
                    .send_to(&question(1, "localhost."), at)
                    .await
                    .unwrap();
                let mut buffer = [0; 512];
                let heard = timeout(Duration::from_millis(300), client.recv_from(&mut buffer));
                assert!(heard.await.is_err());
                let mut stream = TcpStream::connect(at).await.unwrap();
                let read = timeout(Duration::from_secs(5), stream.read(&mut buffer)).await;
                assert!(matches!(read.unwrap(), Ok(0) | Err(_)));
                let counters = server.resolver.counters();
                assert_eq!((counters.queries, counters.dropped), (0, 2));
            })
            .await;
    }

    #[tokio::test]
    async fn one_client_has_so_many_connections_and_no_more() {
        let local = LocalSet::new();
        local
            .run_until(async {
                let mut tasks = JoinSet::new();
                let (_server, at) = server(&mut tasks, "127.0.0.0/8");
                let mut held = Vec::new();
                for _ in 0..CONNECTIONS.1 {
                    let mut stream = TcpStream::connect(at).await.unwrap();
                    let asked = question(1, "localhost.");
                    let length = u16::try_from(asked.len()).unwrap().to_be_bytes();
                    stream.write_all(&length).await.unwrap();
                    stream.write_all(&asked).await.unwrap();
                    assert!(read(&mut stream).await.is_some());
                    held.push(stream);
                }
                let mut more = TcpStream::connect(at).await.unwrap();
                let mut buffer = [0; 2];
                let read = timeout(Duration::from_secs(5), more.read(&mut buffer)).await;
                assert!(matches!(read.unwrap(), Ok(0) | Err(_)));
            })
            .await;
    }
}
