use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use outgate::drain::Stop;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::origin::Origin;
use crate::harness::{PATIENCE, TestProxy, connect_head, field, read_head, within};
use crate::policy_file::PolicyFolder;

mod process;

use process::{descriptors, resident, sockets, tasks};

/// How long it takes; `OUTGATE_SOAK_SECONDS=600 cargo test --test it soak -- --nocapture` is the long form.
const SECONDS: &str = "OUTGATE_SOAK_SECONDS";

/// Long enough to meet several reloads.
const SHORT_FORM: u64 = 5;

/// Clients of each kind at once.
const EACH: usize = 4;

/// What a client does over and over.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Tunnel,
    /// A protocol switch, as of a WebSocket.
    Switch,
    Upload,
    /// Several on one connection.
    Downloads,
    Refused,
    /// Gone in the middle of a tunnel that has moved bytes both ways, every other time bulk, without a word.
    ResetTunnel,
    /// The same in the middle of a download.
    ResetDownload,
}

const KINDS: [Kind; 7] = [
    Kind::Tunnel,
    Kind::Switch,
    Kind::Upload,
    Kind::Downloads,
    Kind::Refused,
    Kind::ResetTunnel,
    Kind::ResetDownload,
];

/// What came of the load, over all clients.
#[derive(Default)]
struct Tally {
    exchanges: AtomicU64,
    wrong: AtomicU64,
}

impl Tally {
    fn note(&self, right: bool) {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        self.wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
    }
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|at| ((at * 31 + seed) % 251) as u8)
        .collect()
}

/// Sends content back: of an upload after its head, of a tunnel or a switched protocol as it comes. To a
/// download it sends the pattern that its path names by length and seed.
async fn echo() -> Origin {
    Origin::scripted(|mut stream, _| async move {
        loop {
            let mut first = [0];
            if stream.peek(&mut first).await.unwrap_or(0) == 0 {
                return;
            }
            if !first[0].is_ascii_uppercase() {
                break;
            }
            let head = read_head(&mut stream).await;
            if field(&head, "upgrade").is_some() {
                let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
                let _ = stream.write_all(switch).await;
                break;
            }
            let path = head.split(' ').nth(1).unwrap();
            let mut content = match path[1..].split_once('/') {
                Some((length, seed)) => pattern(length.parse().unwrap(), seed.parse().unwrap()),
                None => Vec::new(),
            };
            if let Some(length) = field(&head, "content-length") {
                content.resize(length.parse().unwrap(), 0);
                if stream.read_exact(&mut content).await.is_err() {
                    return;
                }
            }
            let length = content.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&content).await;
        }
        let (mut reading, mut writing) = stream.split();
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
        let _ = writing.shutdown().await;
    })
    .await
}

/// One exchange of a kind, on a connection of its own; whether what came back was right.
async fn exchange(proxy: SocketAddr, port: u16, kind: Kind, round: usize) -> bool {
    let mut client = TcpStream::connect(proxy).await.unwrap();
    let target = format!("origin.test:{port}");
    let length = 1 + round * 7919 % 400_000;
    match kind {
        Kind::Tunnel => {
            let head = connect_head(&target);
            opened(&mut client, &head, "200").await && echoed(client, length, round, 0).await
        }
        Kind::Switch => {
            let head = format!(
                "GET http://{target}/ HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n"
            );
            opened(&mut client, &head, "101").await && echoed(client, length, round, 0).await
        }
        Kind::Upload => {
            // One more: see `echoed`.
            let head = format!(
                "PUT http://{target}/ HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
                length + 1
            );
            client.write_all(head.as_bytes()).await.unwrap();
            echoed(client, length, round, 1).await
        }
        Kind::Downloads => {
            for seed in round..round + 3 {
                if !downloaded(&mut client, &target, length, seed).await {
                    return false;
                }
            }
            true
        }
        Kind::Refused => opened(&mut client, &connect_head("refused.test:443"), "403").await,
        Kind::ResetTunnel => {
            let length = if round.is_multiple_of(2) {
                length
            } else {
                length * 4
            };
            let begun = opened(&mut client, &connect_head(&target), "200").await
                && moved_both_ways(&mut client, length, round).await;
            // More is on its way there, or back.
            let _ = client.try_write(&pattern(length, round));
            client.set_zero_linger().unwrap();
            begun
        }
        Kind::ResetDownload => {
            let begun = opened(&mut client, &get(&target, 400_000, round), "200").await;
            let mut part = vec![0; length.min(390_000)];
            let read = begun && client.read_exact(&mut part).await.is_ok();
            client.set_zero_linger().unwrap();
            read && pattern(400_000, round).starts_with(&part)
        }
    }
}

/// Sends a head; whether the answer has the status.
async fn opened(client: &mut TcpStream, head: &str, status: &str) -> bool {
    client.write_all(head.as_bytes()).await.unwrap();
    read_head(client).await.split(' ').nth(1) == Some(status)
}

/// Sends content and reads it back to the end, behind so many heads.
async fn echoed(client: TcpStream, length: usize, seed: usize, heads: usize) -> bool {
    // Lower-case, so that the origin tells a tunnel's bytes from a request.
    let content = [b"t".to_vec(), pattern(length, seed)].concat();
    let (mut reading, mut writing) = client.into_split();
    let sent = content.clone();
    let upload = tokio::spawn(async move {
        let whole = writing.write_all(&sent).await;
        let _ = writing.shutdown().await;
        whole.is_ok()
    });
    let mut back = Vec::new();
    let read = reading.read_to_end(&mut back).await;
    let head = if heads == 0 {
        0
    } else {
        let end = back.windows(4).position(|end| end == b"\r\n\r\n");
        end.map_or(0, |end| end + 4)
    };
    upload.await.unwrap() && read.is_ok() && back[head..] == content
}

/// The same without an end.
async fn moved_both_ways(client: &mut TcpStream, length: usize, seed: usize) -> bool {
    let content = [b"t".to_vec(), pattern(length, seed)].concat();
    let (mut reading, mut writing) = client.split();
    let mut back = vec![0; content.len()];
    let (sent, read) = tokio::join!(writing.write_all(&content), reading.read_exact(&mut back));
    sent.is_ok() && read.is_ok() && back == content
}

fn get(target: &str, length: usize, seed: usize) -> String {
    format!("GET http://{target}/{length}/{seed} HTTP/1.1\r\nHost: x\r\n\r\n")
}

async fn downloaded(client: &mut TcpStream, target: &str, length: usize, seed: usize) -> bool {
    if !opened(client, &get(target, length, seed), "200").await {
        return false;
    }
    let mut content = vec![0; length];
    client.read_exact(&mut content).await.is_ok() && content == pattern(length, seed)
}

/// Waits until the gateway has given back every descriptor it took.
async fn all_is_given_back(before: &BTreeMap<String, usize>) {
    let deadline = Instant::now() + PATIENCE;
    while descriptors() != *before {
        let now = descriptors();
        assert!(Instant::now() < deadline, "{before:#?}, and then {now:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn seconds() -> Option<u64> {
    let seconds = std::env::var(SECONDS).ok()?;
    Some(seconds.parse().expect("it is a number"))
}

/// Runs the short form in a process of its own: what a process holds is compared, and other tests run in this one.
fn run_alone() {
    const NAME: &str = "soak::mixed_load_with_reloads_costs_no_byte_and_leaves_nothing_behind";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(SECONDS, SHORT_FORM.to_string())
        .output()
        .unwrap();
    let [told, wrong] = [&output.stdout, &output.stderr].map(|told| String::from_utf8_lossy(told));
    // Not even one has passed where none has this name.
    assert!(
        output.status.success() && told.contains(" 1 passed"),
        "{told}{wrong}"
    );
}

/// Writes the policy file anew now and then, and tells what memory was resident then.
async fn reload_until(deadline: Instant, folder: &PolicyFolder) -> Vec<u64> {
    let mut resident_then = Vec::new();
    while Instant::now() < deadline {
        // Long enough for the gateway to find the file at rest, and read it.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        resident_then.push(resident());
        std::fs::write(folder.file(), policy(resident_then.len())).unwrap();
    }
    resident_then
}

fn policy(other: usize) -> String {
    format!("rules:\n  - {{ name: r, hosts: [origin.test, h{other}.test], ports: ['*'] }}\n")
}

fn reloads(metrics: &str) -> u64 {
    let done = metrics
        .lines()
        .find_map(|line| line.strip_prefix("outgate_policy_reloads_total{result=\"ok\"} "));
    done.map_or(0, |count| count.parse().unwrap())
}

/// Waits until nothing is left of the load: no connection, no socket, no task.
async fn nothing_is_left(proxy: &TestProxy, origin: u16, tasks_before: usize) {
    for line in [
        "outgate_tunnels_active 0",
        "outgate_connections_active{listener=\"proxy\"} 0",
        "outgate_pool_connections{state=\"busy\"} 0",
        "outgate_pool_connections{state=\"idle\"} 0",
    ] {
        proxy.shows(line).await;
    }
    within(async {
        while sockets([proxy.address.port(), origin]) > 0 || tasks() > tasks_before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Holds the second half to the second quarter; before that, buffers and caches fill.
fn memory_is_flat(resident_then: &[u64], exchanges: u64, reloads: u64, is_long: bool) {
    let half = resident_then.len() / 2;
    let most = |of: &[u64]| of.iter().max().copied().unwrap_or_default();
    let (before, after) = (
        most(&resident_then[half / 2..half]),
        most(&resident_then[half..]),
    );
    println!(
        "{exchanges} exchanges, {reloads} reloads; resident at most {before} KiB in the second quarter, {after} KiB in the \
         second half"
    );
    // In so short a time they fill until its end, so there this only tells a leak from none.
    let growth = if is_long { 16_000 } else { 150_000 };
    assert!(
        after < before + growth,
        "{after} KiB after {before} KiB, of {exchanges} exchanges"
    );
}

#[test]
fn mixed_load_with_reloads_costs_no_byte_and_leaves_nothing_behind() {
    let Some(seconds) = seconds() else {
        return run_alone();
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(soak(seconds));
}

/// Those of the origin and the clients as well, which are printed besides.
fn count_panics() {
    let prints = std::panic::take_hook();
    outgate::panics::report();
    let counts = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        counts(panic);
        prints(panic);
    }));
}

async fn soak(seconds: u64) {
    count_panics();
    let is_long = seconds > SHORT_FORM;
    let origin = echo().await;
    let folder = PolicyFolder::with(&policy(0));
    let descriptors_before = descriptors();
    let proxy = folder
        .builder()
        // Longer than a client of a busy machine takes from one request to its next.
        .with(|config| config.keepalive_timeout = Duration::from_secs(8))
        .start()
        .await;
    let (address, port) = (proxy.address, origin.port());
    // Everything that stays is there once a request has been served.
    proxy.ask(&connect_head("refused.test:443")).await;
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
    let tasks_before = tasks();
    let tally = Arc::new(Tally::default());
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut clients = Vec::new();
    let clients_at_once = (EACH * KINDS.len()) as u64;
    for client in 0..EACH * KINDS.len() {
        let tally = Arc::clone(&tally);
        clients.push(tokio::spawn(async move {
            let mut round = client;
            while Instant::now() < deadline {
                let kind = KINDS[client % KINDS.len()];
                tally.note(within(exchange(address, port, kind, round)).await);
                round += EACH * KINDS.len();
            }
        }));
    }
    let resident_then = reload_until(deadline, &folder).await;
    for client in clients {
        client.await.unwrap();
    }
    let exchanges = tally.exchanges.load(Ordering::Relaxed);
    let wrong = tally.wrong.load(Ordering::Relaxed);
    assert_eq!(wrong, 0, "of {exchanges} exchanges");
    assert!(exchanges > clients_at_once, "only {exchanges} exchanges");
    let writes = resident_then.len() as u64;
    let reloads = reloads(&proxy.metrics().await);
    // The last may not have been looked at yet; and on a machine that is busy with other tests several at once.
    let missed = if is_long { 2 } else { writes - 1 };
    assert!(reloads + missed >= writes, "{reloads} reloads of {writes}");
    nothing_is_left(&proxy, port, tasks_before).await;
    proxy.shows("outgate_panics_total 0").await;
    proxy.stop(Stop::Now).await;
    proxy.ended().await;
    all_is_given_back(&descriptors_before).await;
    memory_is_flat(&resident_then, exchanges, reloads, is_long);
}
