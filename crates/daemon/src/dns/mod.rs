//! `cygnet serve-dns`: answers the questions of the LAN's devices for names, in a process of its own.
//!
//! It gets its sockets from the supervisor, who binds port 53, and what it is to do by the socket that is its
//! standard input. Resolvers are asked through the tunnel, from sockets that are tied to its TUN and to our address in
//! it: while there is none, questions fail, and nothing leaves by another way. Outside, this machine's own resolvers
//! are asked for the domains that the configuration names, and those on the LAN for the LAN's.
//!
//! What comes from the LAN and from resolvers is parsed here, by a process that holds no keys, no files and no rights.

mod answer;
mod block;
mod bounds;
pub(crate) mod domains;
mod framed;
mod gate;
pub(crate) mod messages;
mod policy;
mod query;
pub(crate) mod resolv_conf;
mod serve;
mod upstream;

use std::fs::File;
use std::io::BufReader;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet, LocalSet};

use self::answer::Resolver;
#[cfg(feature = "fuzzing")]
pub(crate) use self::answer::{Handled, handle};
use self::block::{BlockList, NAMES_MAX};
use self::messages::{FromResolver, Place, Report, ToResolver, Ways};
use self::serve::Server;
use crate::helper;
use crate::ipc::Channel;

/// Memory of the process: all that is kept, and what is on its way.
const MEMORY_MAX: u64 = 512 << 20;
/// Sockets: several for each question that waits.
const FILES_MAX: u64 = 4096;
/// How often the supervisor hears what changed.
const REPORTING: Duration = Duration::from_secs(1);
/// Messages of the supervisor that wait.
const INBOX: usize = 8;

/// The process itself.
pub(crate) fn run() -> u8 {
    u8::from(start().is_err())
}

fn start() -> std::io::Result<()> {
    helper::confine(MEMORY_MAX, None)?;
    helper::allow_files(FILES_MAX)?;
    let channel = Arc::new(Channel::inherited()?);
    let (messages, inbox) = mpsc::channel(INBOX);
    let reader = Arc::clone(&channel);
    std::thread::Builder::new()
        .name("supervisor".into())
        .spawn(move || {
            while let Ok(Some(message)) = reader.receive::<ToResolver>() {
                if messages.blocking_send(message).is_err() {
                    return;
                }
            }
        })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()?;
    LocalSet::new().block_on(&runtime, Process::new().serve(&channel, inbox));
    // The supervisor ended: a list that is being read is not waited for.
    runtime.shutdown_background();
    Ok(())
}

/// What the process holds.
struct Process {
    resolver: Rc<Resolver>,
    server: Rc<Server>,
    /// Those that serve the sockets.
    tasks: JoinSet<()>,
    /// Where it answers.
    places: Vec<Place>,
    ways: Option<Ways>,
    /// When this machine's own resolvers were changed, as far as that was seen.
    own_changed: [Option<SystemTime>; 2],
    reading: Option<JoinHandle<(BlockList, Vec<String>)>>,
    troubles: Troubles,
}

/// What is wrong, by what it concerns.
#[derive(Default)]
struct Troubles {
    sockets: Vec<String>,
    asking: Vec<String>,
    lists: Vec<String>,
}

impl Process {
    fn new() -> Self {
        let resolver = Rc::new(Resolver::default());
        Self {
            server: Server::new(Rc::clone(&resolver)),
            resolver,
            tasks: JoinSet::new(),
            places: Vec::new(),
            ways: None,
            own_changed: [None; 2],
            reading: None,
            troubles: Troubles::default(),
        }
    }

    /// Until the supervisor is gone.
    async fn serve(
        mut self,
        channel: &Channel,
        mut inbox: mpsc::Receiver<(ToResolver, Vec<OwnedFd>)>,
    ) {
        let mut reporting = tokio::time::interval(REPORTING);
        let mut told = None;
        loop {
            let reading = &mut self.reading;
            let read = async {
                match reading {
                    Some(reading) => reading.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = inbox.recv() => match message {
                    Some((message, fds)) => self.obey(message, fds),
                    None => return,
                },
                // They go on for ever, unless something in them broke: another process does better then.
                Some(_) = self.tasks.join_next() => return,
                list = read => {
                    self.reading = None;
                    if let Ok((list, troubles)) = list {
                        self.resolver.block(list);
                        self.troubles.lists = troubles;
                    }
                }
                (id, asked) = self.resolver.gate.next() => {
                    if channel.send(&FromResolver::LetOut { id, asked }, &[]).is_err() {
                        return;
                    }
                }
                _ = reporting.tick() => {
                    self.follow_own_resolvers();
                    let report = self.report();
                    if told.as_ref() != Some(&report) {
                        let message = FromResolver::Report(report.clone());
                        if channel.send(&message, &[]).is_err() {
                            return;
                        }
                        told = Some(report);
                    }
                }
            }
        }
    }

    fn obey(&mut self, message: ToResolver, fds: Vec<OwnedFd>) {
        match message {
            ToResolver::Serve {
                places,
                clients,
                ways,
            } => {
                let ways = Some(*ways);
                let same = self.ways == ways && self.places == places;
                self.ways = ways;
                self.places = places;
                // Nothing is asked as before where the LAN is another one.
                if self.resolver.set_clients(clients) || !same {
                    self.ask();
                }
                self.listen(fds);
            }
            ToResolver::LetOut { id, done } => self.resolver.gate.done(id, done),
            ToResolver::Block { names } => {
                let files: Vec<(String, File)> = names
                    .into_iter()
                    .zip(fds.into_iter().map(File::from))
                    .collect();
                // One that is still being read is of no interest any more.
                self.reading = Some(tokio::task::spawn_blocking(move || read_lists(files)));
            }
        }
    }

    fn listen(&mut self, fds: Vec<OwnedFd>) {
        let mut tasks = JoinSet::new();
        let mut fds = fds.into_iter();
        self.troubles.sockets.clear();
        for place in &self.places {
            let address = place.address;
            let (Some(udp), Some(tcp)) = (fds.next(), fds.next()) else {
                self.troubles
                    .sockets
                    .push(format!("no sockets came for {address}"));
                continue;
            };
            let (udp, tcp) = (UdpSocket::from(udp), TcpListener::from(tcp));
            if let Err(error) = self.server.serve(&mut tasks, place.direct, udp, tcp) {
                self.troubles
                    .sockets
                    .push(format!("cannot serve {address}: {error}"));
            }
        }
        self.tasks = tasks;
    }

    fn ask(&mut self) {
        if let Some(ways) = &self.ways {
            self.own_changed = resolv_conf::own_changed();
            self.troubles.asking = self.resolver.ask_by(ways, &self.places);
        }
    }

    /// A DHCP client writes them anew.
    fn follow_own_resolvers(&mut self) {
        let follows = (self.ways.as_ref()).is_some_and(|ways| ways.direct_resolvers.is_empty());
        if follows && resolv_conf::own_changed() != self.own_changed {
            self.ask();
        }
    }

    fn report(&self) -> Report {
        let Troubles {
            sockets,
            asking,
            lists,
        } = &self.troubles;
        Report {
            counters: self.resolver.counters(),
            blocked_names: self.resolver.blocked_names() as u64,
            troubles: sockets.iter().chain(asking).chain(lists).cloned().collect(),
        }
    }
}

/// One list of all files, and what is wrong with them.
fn read_lists(files: Vec<(String, File)>) -> (BlockList, Vec<String>) {
    let (mut list, mut troubles) = (BlockList::default(), Vec::new());
    for (name, file) in files {
        let before = list.len();
        match list.add(BufReader::new(file)) {
            Ok(true) if list.len() > before => {}
            Ok(true) => troubles.push(format!(
                "the block list {name} adds no name: expected lines such as `0.0.0.0 ads.example`"
            )),
            Ok(false) => troubles.push(format!(
                "the block lists have more than {NAMES_MAX} names: those of {name} are not all heeded"
            )),
            Err(error) => troubles.push(format!("cannot read the block list {name}: {error}")),
        }
    }
    (list, troubles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_lists_nothing_is_told_of() {
        let path = std::env::temp_dir().join(format!("cygnet-hosts-{}", std::process::id()));
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            ("ads.hosts".to_owned(), File::open(&path).unwrap())
        };
        let (list, troubles) = read_lists(vec![of("<html>Not found</html>\n")]);
        assert_eq!(list.len(), 0);
        assert!(
            troubles.concat().contains("ads.hosts adds no name"),
            "{troubles:?}"
        );
        let (list, troubles) = read_lists(vec![of("0.0.0.0 ads.example b.example\n")]);
        assert_eq!((list.len(), troubles.len()), (2, 0));
        std::fs::remove_file(&path).unwrap();
    }
}
