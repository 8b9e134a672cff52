//! Resolvers that are asked: through the tunnel and by no other way, or by this machine's own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioHandle, TokioTime};
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::proto::op::{DnsRequestOptions, Message, Query};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpSocket, UdpSocket};

use super::framed::Framed;
use super::messages::{Inside, Tls};
use super::query::UDP_MAX;

/// A resolver that has not answered by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// All of a question: of several resolvers, by UDP and by TCP.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(5);
/// Questions on one connection by TCP or TLS that wait for their answer.
const ON_ONE_CONNECTION: usize = 256;
/// The system's authorities, as Debian and most others have them.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where sockets to resolvers come from.
#[derive(Clone)]
pub(super) struct Egress {
    /// The tunnel that they are tied to; `None`: they go as this machine's own do.
    inside: Option<Arc<Inside>>,
    /// They are asked in clear, not over TLS.
    plain: bool,
    handle: TokioHandle,
}

impl Egress {
    /// Nothing leaves but by that tunnel's TUN and from our address in it: where either is gone, sending fails.
    pub(super) fn inside(inside: Inside, plain: bool) -> Self {
        Self {
            inside: Some(Arc::new(inside)),
            plain,
            handle: TokioHandle::default(),
        }
    }

    /// As the machine's own.
    pub(super) fn direct() -> Self {
        Self {
            inside: None,
            plain: true,
            handle: TokioHandle::default(),
        }
    }
}

/// From which address, and by which interface.
fn tied(inside: &Inside, resolver: SocketAddr) -> io::Result<(IpAddr, &[u8])> {
    let source = inside.source_to(resolver.ip());
    let source = source.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
    Ok((source, inside.interface.as_bytes()))
}

impl RuntimeProvider for Egress {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<Framed>;

    fn create_handle(&self) -> Self::Handle {
        self.handle.clone()
    }

    fn connect_tcp(
        &self,
        server_addr: SocketAddr,
        _bind_addr: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        let (inside, plain) = (self.inside.clone(), self.plain);
        Box::pin(async move {
            let socket = match server_addr {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            }?;
            if let Some(inside) = inside {
                let (source, interface) = tied(&inside, server_addr)?;
                socket.bind_device(Some(interface))?;
                socket.bind(SocketAddr::new(source, 0))?;
            }
            socket.set_nodelay(true)?;
            let connected = socket.connect(server_addr);
            let connected = tokio::time::timeout(timeout.unwrap_or(PATIENCE), connected).await;
            let late = |_| io::Error::from(io::ErrorKind::TimedOut);
            let stream = connected.map_err(late)??;
            Ok(AsyncIoTokioAsStd(Framed::new(stream, plain)))
        })
    }

    fn bind_udp(
        &self,
        local_addr: SocketAddr,
        server_addr: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        let inside = self.inside.clone();
        Box::pin(async move {
            let Some(inside) = inside else {
                return UdpSocket::bind(local_addr).await;
            };
            let (source, interface) = tied(&inside, server_addr)?;
            // The port is one that was drawn.
            let socket = UdpSocket::bind(SocketAddr::new(source, local_addr.port())).await?;
            socket.bind_device(Some(interface))?;
            Ok(socket)
        })
    }
}

/// Resolvers that are asked together.
#[derive(Clone)]
pub(super) struct Upstream {
    pool: NameServerPool<Egress>,
}

impl Upstream {
    /// Resolvers behind the tunnel.
    pub(super) fn inside(inside: Inside, tls: Option<&Tls>) -> Result<Self, String> {
        let asked = (inside.resolvers.iter().copied())
            .filter(|resolver| inside.source_to(*resolver).is_some());
        let servers: Vec<NameServerConfig> = asked
            .map(|resolver| match tls {
                Some(tls) => NameServerConfig::tls(resolver, Arc::from(tls.name.as_str())),
                None => NameServerConfig::udp_and_tcp(resolver),
            })
            .collect();
        if servers.is_empty() {
            return Err("the tunnel has no address of the resolvers' family".to_owned());
        }
        let mut options = options();
        // Where who answers keeps letters as they were, as servers do, a stranger has more to guess.
        options.case_randomization = true;
        let roots = match tls {
            Some(tls) => authorities(tls)?,
            None => RootCertStore::empty(),
        };
        Self::new(
            servers,
            options,
            roots,
            Egress::inside(inside, tls.is_none()),
        )
    }

    /// This machine's own resolvers.
    pub(super) fn direct(resolvers: &[IpAddr]) -> Result<Self, String> {
        let servers = resolvers.iter().copied();
        let servers = servers.map(NameServerConfig::udp_and_tcp).collect();
        Self::new(servers, options(), RootCertStore::empty(), Egress::direct())
    }

    fn new(
        servers: Vec<NameServerConfig>,
        options: ResolverOpts,
        roots: RootCertStore,
        egress: Egress,
    ) -> Result<Self, String> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("no TLS: {e}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let context = PoolContext::new(options, TlsConfig { config });
        Ok(Self {
            pool: NameServerPool::from_config(servers, Arc::new(context), egress),
        })
    }

    /// Asks; an answer that says that there is nothing is an error, `DnsError::NoRecordsFound`.
    pub(super) async fn ask(&self, query: Query, dnssec: bool) -> Result<Message, NetError> {
        let mut options = DnsRequestOptions::default();
        options.use_edns = true;
        options.edns_payload_len = UDP_MAX;
        options.edns_set_dnssec_ok = dnssec;
        let answer = self.pool.lookup(query, options).first_answer();
        match tokio::time::timeout(PATIENCE_IN_ALL, answer).await {
            Ok(answer) => Ok(answer?.into_message()),
            Err(_) => Err(NetError::Timeout),
        }
    }
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = PATIENCE;
    options.max_active_requests = ON_ONE_CONNECTION;
    options.edns_payload_len = UDP_MAX;
    options
}

fn authorities(tls: &Tls) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if tls.authorities.is_empty() {
        let unreadable = |e: &dyn std::fmt::Display| {
            format!(
                "cannot read the system's authorities ({AUTHORITIES}: {e}): install ca-certificates, or name them \
                 with `ca` in [gateway.dns]"
            )
        };
        let all = CertificateDer::pem_file_iter(AUTHORITIES).map_err(|e| unreadable(&e))?;
        roots.add_parsable_certificates(all.filter_map(Result::ok));
    } else {
        let all = tls.authorities.iter().cloned();
        roots.add_parsable_certificates(all.map(CertificateDer::from));
    }
    if roots.is_empty() {
        return Err("no authority for DNS over TLS is readable".to_owned());
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use hickory_resolver::net::DnsError;
    use hickory_resolver::proto::op::{OpCode, ResponseCode};
    use hickory_resolver::proto::rr::rdata::A;
    use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

    use super::*;

    fn query() -> Query {
        Query::query(Name::from_ascii("www.example.").unwrap(), RecordType::A)
    }

    fn inside(interface: &str, resolver: &str) -> Inside {
        Inside {
            interface: interface.to_owned(),
            sources: vec!["127.0.0.1".parse().unwrap()],
            resolvers: vec![resolver.parse().unwrap()],
        }
    }

    /// The bytes of an answer with one address to a question.
    fn answer(question: &[u8]) -> Vec<u8> {
        let asked = Message::from_vec(question).unwrap();
        let mut message = Message::response(asked.metadata.id, OpCode::Query);
        let name = asked.queries[0].name().clone();
        message.add_query(asked.queries[0].clone());
        message.add_answer(Record::from_rdata(
            name,
            60,
            RData::A(A::new(192, 0, 2, 80)),
        ));
        message.metadata.response_code = ResponseCode::NoError;
        message.to_vec().unwrap()
    }

    #[tokio::test]
    async fn a_socket_is_tied_to_its_interface_and_address() {
        let resolver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = resolver.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, from) = resolver.recv_from(&mut buffer).unwrap();
            resolver.send_to(&answer(&buffer[..length]), from).unwrap();
        });
        let there: SocketAddr = ([127, 0, 0, 1], port).into();
        let any: SocketAddr = ([0, 0, 0, 0], 0).into();
        let egress = Egress::inside(inside("lo", "127.0.0.1"), true);
        let socket = egress.bind_udp(any, there).await.unwrap();
        assert_eq!(socket.local_addr().unwrap().ip(), there.ip());
        assert_eq!(socket.device().unwrap().as_deref(), Some(&b"lo"[..]));
        let mut message = Message::query();
        message.add_query(query());
        socket
            .send_to(&message.to_vec().unwrap(), there)
            .await
            .unwrap();
        let mut buffer = [0; 512];
        let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(
            Message::from_vec(&buffer[..length]).unwrap().answers.len(),
            1
        );
    }

    #[tokio::test]
    async fn without_its_interface_or_address_nothing_is_sent() {
        let there: SocketAddr = ([127, 0, 0, 1], 53).into();
        let any: SocketAddr = ([0, 0, 0, 0], 0).into();
        let gone = Egress::inside(inside("cyg-gone", "127.0.0.1"), true);
        assert!(gone.bind_udp(any, there).await.is_err());
        assert!(gone.connect_tcp(there, None, None).await.is_err());
        let mut lent = inside("lo", "127.0.0.1");
        lent.sources = vec!["192.0.2.77".parse().unwrap()];
        let lent = Egress::inside(lent, true);
        assert!(lent.bind_udp(any, there).await.is_err());
        assert!(lent.connect_tcp(there, None, None).await.is_err());
        let there: SocketAddr = ([0, 0, 0, 0, 0, 0, 0, 1], 53).into();
        let v4 = Egress::inside(inside("lo", "127.0.0.1"), true);
        let error = v4.bind_udp(any, there).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn who_cannot_be_reached_is_an_error_at_once() {
        let gone = Upstream::inside(inside("cyg-gone", "127.0.0.1"), None).unwrap();
        let begun = std::time::Instant::now();
        let error = gone.ask(query(), false).await.unwrap_err();
        assert!(
            !matches!(error, NetError::Dns(DnsError::NoRecordsFound(_))),
            "{error}"
        );
        assert!(begun.elapsed() < Duration::from_secs(1));
        let other_family = Upstream::inside(inside("lo", "::1"), None);
        assert!(other_family.is_err_and(|e| e.contains("family")));
    }
}
