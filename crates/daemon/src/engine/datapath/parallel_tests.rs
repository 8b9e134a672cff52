//! Several workers at one tunnel: real threads, loopback sockets, socketpairs for TUN queues.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::channel;

use cygnet_crypto::Secret;
use cygnet_ike::io::ChildSaParameters;
use cygnet_wire::ip::VirtioNetHeader;

use super::testing::{child, connection, path, queue, socket, udp_packet};
use super::*;

const QUEUES: usize = 4;
/// Packets of each flow; there is one flow a queue.
const PACKETS: u32 = 3_000;
const LEFT: [u8; 4] = [10, 1, 0, 1];
const RIGHT: [u8; 4] = [10, 2, 0, 1];

/// A data path at work, and the host's end of each of its queues.
fn end(workers: usize, queues: usize) -> (Datapath, Vec<UnixDatagram>, SocketAddr) {
    let (sender, _inbox) = channel();
    let inbox = Inbox {
        sender,
        waiting: Arc::new(AtomicUsize::new(0)),
    };
    let socket = socket(true);
    let local = socket.udp.local_addr();
    let mut datapath = Datapath::with_sockets(inbox, workers, Sockets(vec![socket])).unwrap();
    let (queues, hosts): (Vec<_>, Vec<_>) = (0..queues).map(|_| queue()).unzip();
    if let [only] = &queues[..] {
        // Nothing is read from it; what is written waits for the host.
        rustix::io::ioctl_fionbio(only.descriptor(), false).unwrap();
    }
    let join = JoinConfig {
        tcp: false,
        udp: false,
    };
    let device = Device::new("tunnel".into(), "tun0".into(), queues, join);
    datapath.add_device(device).unwrap();
    datapath.start().unwrap();
    (datapath, hosts, local)
}

/// Installs both directions of a Child SA.
pub(super) fn install(datapath: &mut Datapath, params: ChildSaParameters, key_in: u8, key_out: u8) {
    let keys = |byte| Secret::new(vec![byte; params.suite.key_material_len()]);
    let (id, child) = (AskId(1), Arc::new(params.clone()));
    for command in [
        DataCommand::InstallIn {
            id,
            child: Arc::clone(&child),
            keys: keys(key_in),
        },
        DataCommand::SwitchOut {
            id,
            child,
            keys: keys(key_out),
        },
    ] {
        let Some((_, Answer::Installed(Ok(())))) = datapath.obey(command) else {
            panic!("not installed");
        };
    }
}

/// The packet of that number in that flow; its payload is both. One flow's length varies, so that
/// batches of every size come about; the others' do not, so that long trains do.
fn packet(flow: usize, number: u32) -> Vec<u8> {
    let varying = if flow == 0 { number as usize } else { 20 };
    let mut payload = vec![0; 8 + varying * 37 % 1200];
    payload[..4].copy_from_slice(&(flow as u32).to_be_bytes());
    payload[4..8].copy_from_slice(&number.to_be_bytes());
    udp_packet(LEFT, RIGHT, true, &payload)
}

/// RFC 4303 §3.4.3 lets peers have windows as small as 32: what four workers seal at once must enter
/// the socket in the order of its sequence numbers.
#[test]
fn what_four_workers_seal_keeps_its_order_within_a_window_of_32() {
    transfer(QUEUES, 1);
}

/// What is opened by several leaves in the order in which it came.
#[test]
fn what_four_workers_open_keeps_its_order() {
    transfer(1, QUEUES);
    transfer(QUEUES, QUEUES);
}

fn transfer(sealing: usize, opening: usize) {
    let (mut left, left_hosts, left_at) = end(sealing, QUEUES);
    let (mut right, right_hosts, right_at) = end(opening, 1);
    let mut small = (*connection("tunnel", "10.2.0.0/24", "10.1.0.0/24")).clone();
    let mut policy = (*small.children[0]).clone();
    policy.replay_window = 32;
    small.children = vec![Arc::new(policy)];
    let there = connection("tunnel", "10.1.0.0/24", "10.2.0.0/24");
    let (to, from) = (path(left_at, right_at), path(right_at, left_at));
    install(
        &mut right,
        child(1, &Arc::new(small), 0x2222, 0x1111, from),
        2,
        1,
    );
    install(&mut left, child(1, &there, 0x1111, 0x2222, to), 1, 2);

    let received = AtomicUsize::new(0);
    let all = PACKETS as usize * QUEUES;
    let mut next = [0; QUEUES];
    let mut wrong = None;
    std::thread::scope(|scope| {
        for (flow, host) in left_hosts.iter().enumerate() {
            let received = &received;
            host.set_nonblocking(false).unwrap();
            scope.spawn(move || {
                let header = VirtioNetHeader::PLAIN.emit();
                for number in 0..PACKETS {
                    // What is under way at once fits into every queue between here and there.
                    while number as usize > received.load(Ordering::Relaxed) / QUEUES + 150 {
                        std::thread::yield_now();
                    }
                    let read = [&header[..], &packet(flow, number)].concat();
                    host.send(&read).unwrap();
                }
            });
        }
        let mut buffer = vec![0; 70_000];
        let host = &right_hosts[0];
        host.set_nonblocking(false).unwrap();
        host.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        while received.load(Ordering::Relaxed) < all {
            let Ok(len) = host.recv(&mut buffer) else {
                break;
            };
            let inner = &buffer[VirtioNetHeader::LEN..len];
            let word = |at: usize| u32::from_be_bytes(inner[at..at + 4].try_into().unwrap());
            let (flow, number) = (word(28) as usize, word(32));
            let expected = std::mem::replace(&mut next[flow], number + 1);
            if number != expected || inner != packet(flow, number) {
                wrong = wrong.or(Some((flow, expected, number)));
            }
            received.fetch_add(1, Ordering::Relaxed);
        }
        // Whatever went wrong, the senders end.
        received.store(all, Ordering::Relaxed);
    });
    assert_eq!((right.drops(), left.drops()), (vec![], vec![]));
    assert_eq!(wrong, None, "flow, expected packet, packet that came");
    assert_eq!(next, [PACKETS; QUEUES]);
    let traffic = left.traffic(ChildSaId(1)).unwrap();
    assert_eq!(traffic.packets_out, all as u64);
}
