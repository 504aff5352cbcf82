//! One set of tests over all ways of moving bytes.

mod content;
mod passing;
mod yields;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::pipes::Borrowed;
use super::*;
use crate::proxy::turns::Place;

/// Enough to turn any direction bulk, and more than all buffers on the way hold.
const MUCH: usize = 16 * 1024 * 1024;

#[derive(Default)]
struct Counts {
    up: AtomicUsize,
    down: AtomicUsize,
}

impl Count for Arc<Counts> {
    fn moved(&self, direction: Direction, bytes: usize) {
        let count = match direction {
            Direction::ClientToUpstream => &self.up,
            Direction::UpstreamToClient => &self.down,
        };
        count.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A relay between two pairs of real sockets.
struct Relayed {
    client: TcpStream,
    upstream: TcpStream,
    counts: Arc<Counts>,
    running: JoinHandle<End>,
}

/// With one turn at a time, as the only client.
fn alone(most_pipes: usize) -> Shared {
    Shared {
        pipes: Arc::new(Pipes::new(most_pipes)),
        turns: Arc::new(Turns::new(1)),
        client: Slot::all().next().unwrap(),
    }
}

impl Shared {
    /// The same for another tunnel of the client.
    fn same(&self) -> Self {
        Self {
            pipes: Arc::clone(&self.pipes),
            turns: Arc::clone(&self.turns),
            client: self.client,
        }
    }

    /// The same for another client.
    fn other(&self) -> Self {
        let client = Slot::all().last().unwrap();
        Self {
            client,
            ..self.same()
        }
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test's own listener")]
    let (near, far) = tokio::join!(socket.connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

impl Relayed {
    async fn with(way: Way) -> Self {
        let ((client, near), (upstream, far)) = (pair().await, pair().await);
        let (share, taken) = alone_on(way);
        let counts = Arc::new(Counts::default());
        let count = Arc::clone(&counts);
        let running = tokio::spawn(async move {
            let _taken = taken;
            let early = Early::default();
            let end = relay(&near, &far, early, &share, &count).await;
            drop((near, far));
            end
        });
        Self {
            client,
            upstream,
            counts,
            running,
        }
    }
}

/// How bulk moves.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// With no pipe to be had.
    Copied,
    /// Through pipes that nothing may wait in.
    InPassing,
    Piped,
}

const WAYS: [Way; 3] = [Way::Copied, Way::InPassing, Way::Piped];

/// What one connection shares with nobody, and the pipes that it must do without.
fn alone_on(way: Way) -> (Shared, Vec<Borrowed>) {
    let share = alone(8);
    let all = std::iter::from_fn(|| share.pipes.borrow(share.client));
    let taken = match way {
        Way::Copied => all.collect(),
        Way::InPassing => all.take_while(|pipe| !pipe.is_in_passing()).collect(),
        Way::Piped => Vec::new(),
    };
    (share, taken)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7 % 253) as u8).collect()
}

#[tokio::test]
async fn bulk_arrives_unchanged_and_counted_in_both_directions_at_once() {
    for way in WAYS {
        let Relayed {
            client,
            upstream,
            counts,
            running,
        } = Relayed::with(way).await;
        let both = [client, upstream].map(|stream| {
            let (mut reading, mut writing) = stream.into_split();
            let sending = tokio::spawn(async move {
                writing.write_all(&pattern(MUCH)).await.unwrap();
                writing.shutdown().await.unwrap();
            });
            let receiving = tokio::spawn(async move {
                let mut received = Vec::new();
                reading.read_to_end(&mut received).await.unwrap();
                assert!(
                    received == pattern(MUCH),
                    "{} bytes came changed",
                    received.len()
                );
            });
            (sending, receiving)
        });
        for (sending, receiving) in both {
            sending.await.unwrap();
            receiving.await.unwrap();
        }
        assert_eq!(running.await.unwrap(), End::Closed);
        assert_eq!(counts.up.load(Ordering::Relaxed), MUCH);
        assert_eq!(counts.down.load(Ordering::Relaxed), MUCH);
    }
}

#[tokio::test]
async fn a_half_close_behind_bulk_leaves_the_other_direction_open() {
    for way in WAYS {
        let mut relayed = Relayed::with(way).await;
        let sending = tokio::spawn(async move {
            relayed.client.write_all(&pattern(MUCH)).await.unwrap();
            relayed.client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            relayed.client.read_to_end(&mut answer).await.unwrap();
            answer.len()
        });
        let mut received = Vec::new();
        relayed.upstream.read_to_end(&mut received).await.unwrap();
        assert_eq!(received.len(), MUCH);
        relayed.upstream.write_all(&pattern(MUCH)).await.unwrap();
        drop(relayed.upstream);
        assert_eq!(sending.await.unwrap(), MUCH);
        assert_eq!(relayed.running.await.unwrap(), End::Closed);
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_of_bulk_is_passed_on() {
    for way in WAYS {
        let mut relayed = Relayed::with(way).await;
        let client = tokio::spawn(async move {
            // The upstream does not read: this fills every buffer on the way, and stops.
            let all = pattern(MUCH);
            let stuck = relayed.client.write_all(&all);
            let _ = tokio::time::timeout(std::time::Duration::from_millis(200), stuck).await;
            relayed.client.set_zero_linger().unwrap();
        });
        client.await.unwrap();
        // What was on its way may still come; then the reset.
        let mut received = Vec::new();
        let error = relayed
            .upstream
            .read_to_end(&mut received)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(relayed.running.await.unwrap(), End::ClientReset);
    }
}

#[tokio::test]
async fn small_messages_alternate_after_bulk() {
    for way in WAYS {
        let mut relayed = Relayed::with(way).await;
        for round in 0..3 {
            let sent = pattern(MUCH / 8);
            let expected = sent.len();
            let upload = async {
                relayed.client.write_all(&sent).await.unwrap();
            };
            let receive = async {
                let mut received = vec![0; expected];
                relayed.upstream.read_exact(&mut received).await.unwrap();
                received
            };
            let ((), received) = tokio::join!(upload, receive);
            assert!(received == sent, "round {round}");
            for _ in 0..100 {
                relayed.client.write_all(b"ping").await.unwrap();
                let mut four = [0; 4];
                relayed.upstream.read_exact(&mut four).await.unwrap();
                relayed.upstream.write_all(b"pong").await.unwrap();
                relayed.client.read_exact(&mut four).await.unwrap();
                assert_eq!(&four, b"pong");
            }
        }
    }
}

/// Cannot count as far as this.
struct Defect;

impl Count for Defect {
    fn moved(&self, _direction: Direction, _bytes: usize) {
        panic!("a defect, which this test is about");
    }
}

#[tokio::test]
async fn a_panic_is_a_reset_for_both_sides() {
    let ((mut client, near), (mut upstream, far)) = (pair().await, pair().await);
    let running =
        tokio::spawn(async move { relay(&near, &far, Early::default(), &alone(0), &Defect).await });
    client.write_all(b"ping").await.unwrap();
    assert!(running.await.unwrap_err().is_panic());
    let mut ping = [0; 4];
    upstream.read_exact(&mut ping).await.unwrap();
    for side in [&mut client, &mut upstream] {
        let error = side.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_tunnel_task_stays_small() {
    let ((client, _near), (upstream, _far)) = (pair().await, pair().await);
    let share = alone(1);
    let counts = Arc::new(Counts::default());
    let future = relay(&client, &upstream, Early::default(), &share, &counts);
    // Ten thousand idle tunnels are the point of the gateway.
    assert!(
        size_of_val(&future) <= 512,
        "{} bytes",
        size_of_val(&future)
    );
}

#[tokio::test]
async fn a_message_passes_many_tunnels_that_move_bulk() {
    /// One thread runs them all here, so the order of their turns is what decides.
    const TUNNELS: usize = 100;
    let shared = alone(TUNNELS);
    let moved = Arc::new(Counts::default());
    for _ in 0..TUNNELS {
        let (mut client, mut upstream) = running(shared.same(), Arc::clone(&moved)).await;
        tokio::spawn(async move {
            let chunk = pattern(MUCH / 16);
            while upstream.write_all(&chunk).await.is_ok() {}
        });
        tokio::spawn(async move {
            let mut chunk = vec![0; MUCH / 16];
            while client.read(&mut chunk).await.is_ok_and(|read| read > 0) {}
        });
    }
    let (mut client, mut upstream) = running(shared.same(), Arc::<Counts>::default()).await;
    tokio::spawn(async move {
        let mut four = [0; 4];
        while upstream.read_exact(&mut four).await.is_ok() {
            upstream.write_all(&four).await.unwrap();
        }
    });
    let mut between = Vec::new();
    for _ in 0..50 {
        let before = moved.down.load(Ordering::Relaxed);
        client.write_all(b"ping").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        between.push(moved.down.load(Ordering::Relaxed) - before);
    }
    between.sort_unstable();
    let median = between[between.len() / 2];
    // A turn of each tunnel, there and back, would be fifty megabytes.
    assert!(median < MUCH, "{median} bytes of bulk went before");
}

#[tokio::test]
async fn a_message_passes_those_of_another_client_beyond_its_share() {
    const TUNNELS: usize = 300;
    let shared = alone(0);
    let first = Arc::new(Counts::default());
    let mut ends = Vec::new();
    for _ in 0..TUNNELS {
        ends.push(running(shared.same(), Arc::clone(&first)).await);
    }
    let behind = Arc::new(Behind {
        first: Arc::clone(&first),
        bytes: AtomicUsize::new(usize::MAX),
    });
    ends.push(running(shared.other(), Arc::clone(&behind)).await);
    // The last one waits for its client like all the others.
    let (client, upstream) = ends.last_mut().unwrap();
    client.write_all(b"ping").await.unwrap();
    upstream.read_exact(&mut [0; 4]).await.unwrap();
    // The runtime learns of all of them at once, in this order.
    let already = first.up.load(Ordering::Relaxed);
    let (clients, mut upstreams): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    let clients = clients.into_iter().map(|client| client.into_std().unwrap());
    let clients: Vec<_> = clients.collect();
    for mut client in &clients {
        client.write_all(b"ping").unwrap();
    }
    for upstream in upstreams.iter_mut().rev() {
        let mut ping = [0; 4];
        upstream.read_exact(&mut ping).await.unwrap();
        assert_eq!(&ping, b"ping");
    }
    let before = (behind.bytes.load(Ordering::Relaxed) - already) / 4;
    assert!(
        before < 20,
        "{before} messages of the other client went before"
    );
}

/// Notes how many bytes another client's tunnels had moved when this one did.
struct Behind {
    first: Arc<Counts>,
    bytes: AtomicUsize,
}

impl Count for Arc<Behind> {
    fn moved(&self, _direction: Direction, _bytes: usize) {
        let others = self.first.up.load(Ordering::Relaxed);
        self.bytes.store(others, Ordering::Relaxed);
    }
}

/// The two ends of a relay that runs by itself.
async fn running(
    share: Shared,
    count: impl Count + Send + Sync + 'static,
) -> (TcpStream, TcpStream) {
    let ((client, near), (upstream, far)) = (pair().await, pair().await);
    tokio::spawn(async move { relay(&near, &far, Early::default(), &share, &count).await });
    (client, upstream)
}
