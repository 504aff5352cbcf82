use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outgate::limits::{MOST_FURTHER_ATTEMPTS, MOST_QUERIES};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::descriptors::{ask, start};
use super::slow_readers::nothing_moves;
use super::{PATIENCE, Running, get, metric};
use crate::harness::{read_head, send};

const DESCRIPTORS: usize = 1000;

/// As many as those are good for.
const TUNNELS: usize = 400;

/// So many that all pipes may be in use, of which one client has a share.
const CLIENTS: usize = 16;

/// Tunnels of which nobody reads until the others are over.
const STALLED: usize = 3 * CLIENTS;

/// Whose bytes are not taken for so long has filled everything on the way.
const A_WHILE: Duration = Duration::from_millis(500);

/// Bytes that each tunnel carries in either direction: enough to be bulk, which takes pipes.
const EACH: usize = 2 * 1024 * 1024;

/// No four bytes of it are the same.
fn content() -> Vec<u8> {
    let words = (0..).flat_map(u32::to_le_bytes);
    words.take(EACH + TUNNELS * 4).collect()
}

/// A socket with room for little of that, so that the rest waits in the gateway while nobody reads.
fn narrow(client: u8) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(64 * 1024).unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    socket.bind(([127, 0, 1, client], 0).into()).unwrap();
    socket
}

/// Sends back what comes, to its end.
async fn echo() -> SocketAddr {
    let listener = narrow(1).listen(1024).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reading, mut writing) = stream.split();
                tokio::io::copy(&mut reading, &mut writing).await.unwrap();
                writing.shutdown().await.unwrap();
            });
        }
    });
    address
}

/// A tunnel of one of the clients.
async fn tunnel(proxy: SocketAddr, head: &str, number: usize) -> TcpStream {
    let client = u8::try_from(number % CLIENTS).unwrap();
    let mut stream = narrow(client).connect(proxy).await.unwrap();
    send(&mut stream, head.as_bytes()).await;
    let answer = read_head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stream
}

/// What a tunnel carries: its own part of the content, over and over.
struct Load {
    content: Arc<Vec<u8>>,
    number: usize,
}

impl Load {
    fn bytes(&self) -> &[u8] {
        &self.content[self.number * 4..][..EACH]
    }

    /// Sends it and reads it back at once; whether that is what was sent.
    async fn carry(self, tunnel: TcpStream) -> bool {
        let (mut reading, mut writing) = tunnel.into_split();
        let mut back = Vec::with_capacity(EACH);
        let sending = async {
            writing.write_all(self.bytes()).await.unwrap();
            writing.shutdown().await.unwrap();
        };
        let (read, ()) = tokio::join!(reading.read_to_end(&mut back), sending);
        read.unwrap();
        back == self.bytes()
    }

    /// The same, but sends until nobody takes it for a while, and reads when it shall.
    async fn stall(self, tunnel: TcpStream, mut shall_read: watch::Receiver<bool>) -> bool {
        let (mut reading, mut writing) = tunnel.into_split();
        let mut sent = 0;
        while let Ok(taken) = timeout(A_WHILE, writing.write(&self.bytes()[sent % EACH..])).await {
            sent += taken.unwrap();
        }
        shall_read.wait_for(|shall| *shall).await.unwrap();
        writing.shutdown().await.unwrap();
        let mut back = Vec::with_capacity(sent);
        reading.read_to_end(&mut back).await.unwrap();
        back.len() == sent && back.chunks(EACH).all(|part| self.bytes().starts_with(part))
    }
}

/// Looks at a gateway until something is over; tells how many descriptors it had at most.
fn look_until(gateway: &Running, is_over: impl Fn() -> bool) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let mut most = 0;
    loop {
        assert!(Instant::now() < deadline, "it does not go on");
        let health = get(gateway.admin, "/livez");
        assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
        most = most.max(metric(gateway, "process_open_fds "));
        if is_over() {
            return most;
        }
    }
}

#[test]
fn bulk_in_as_many_tunnels_as_there_may_be_leaves_descriptors_to_the_rest() {
    outgate::limits::raise_descriptors();
    let runtime = Runtime::new().unwrap();
    let target = runtime.block_on(echo()).to_string();
    let variables = [("OUTGATE_ALLOW", &*target), ("OUTGATE_DRAIN_DELAY", "0s")];
    let gateway = start(DESCRIPTORS, &variables);
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let content = Arc::new(content());
    let mut tunnels: Vec<_> = (0..TUNNELS)
        .map(|number| {
            let content = Arc::clone(&content);
            let tunnel = runtime.block_on(tunnel(gateway.proxy, &head, number));
            (tunnel, Load { content, number })
        })
        .collect();
    let refused = ask(gateway.proxy, &head);
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    let at_rest = metric(&gateway, "process_open_fds ");

    let (all_read, shall_read) = watch::channel(false);
    let stalled: Vec<_> = tunnels
        .drain(..STALLED)
        .map(|(tunnel, load)| runtime.spawn(load.stall(tunnel, shall_read.clone())))
        .collect();
    // Then their bytes wait in pipes.
    nothing_moves(&gateway, "connect", &target);
    let carried: Vec<_> = tunnels
        .into_iter()
        .map(|(tunnel, load)| runtime.spawn(load.carry(tunnel)))
        .collect();
    let most = look_until(&gateway, || carried.iter().all(JoinHandle::is_finished));
    all_read.send_replace(true);
    look_until(&gateway, || stalled.iter().all(JoinHandle::is_finished));
    for (number, carried) in stalled.into_iter().chain(carried).enumerate() {
        assert!(runtime.block_on(carried).unwrap(), "of tunnel {number}");
    }
    assert!(most > at_rest, "no pipe: {most} descriptors at most");
    // Questions to name servers and attempts to connect have theirs.
    let others = MOST_QUERIES + MOST_FURTHER_ATTEMPTS;
    assert!(most < (DESCRIPTORS - others) as u64, "{most} descriptors");
    let lines = gateway.last_lines();
    let failed = lines.iter().find(|line| line["level"] == "WARN");
    assert_eq!(failed, None);
}
