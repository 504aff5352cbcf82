use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::origin::Origin;
use crate::harness::{TestProxy, connect_head, field, read_head, within};
use crate::policy_file::PolicyFolder;

/// Long enough to meet several reloads; `OUTGATE_SOAK_SECONDS=600` is the long form.
const DEFAULT_SECONDS: u64 = 5;

/// Clients of each kind at once.
const EACH: usize = 4;

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

/// Sends content back: of a plain request after its head, of a tunnel or a switched protocol as it
/// comes.
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
            let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
            let mut content = vec![0; length];
            if stream.read_exact(&mut content).await.is_err() {
                return;
            }
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
async fn exchange(proxy: std::net::SocketAddr, port: u16, kind: usize, round: usize) -> bool {
    let mut client = TcpStream::connect(proxy).await.unwrap();
    let target = format!("origin.test:{port}");
    // Lower-case, so that the origin tells a tunnel's bytes from a request.
    let content: Vec<u8> = [b"t".to_vec(), pattern(1 + round * 7919 % 400_000, round)].concat();
    let head = match kind {
        0 => connect_head(&target),
        1 => format!(
            "GET http://{target}/ HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n"
        ),
        2 => format!(
            "PUT http://{target}/ HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            content.len()
        ),
        3 => connect_head("refused.test:443"),
        _ => connect_head(&target),
    };
    client.write_all(head.as_bytes()).await.unwrap();
    let status = |head: &str| head.split(' ').nth(1).map(str::to_owned);
    if kind == 3 {
        return status(&read_head(&mut client).await).as_deref() == Some("403");
    }
    if kind == 4 {
        // Gone in the middle, without a word.
        client.set_zero_linger().unwrap();
        return true;
    }
    if kind < 2 {
        let expected = if kind == 0 { "200" } else { "101" };
        if status(&read_head(&mut client).await).as_deref() != Some(expected) {
            return false;
        }
    }
    let (mut reading, mut writing) = client.into_split();
    let sent = content.clone();
    let upload = tokio::spawn(async move {
        let whole = writing.write_all(&sent).await;
        let _ = writing.shutdown().await;
        whole.is_ok()
    });
    let mut back = Vec::new();
    let read = reading.read_to_end(&mut back).await;
    let content_of_response = if kind == 2 {
        back.windows(4)
            .position(|end| end == b"\r\n\r\n")
            .map_or(0, |end| end + 4)
    } else {
        0
    };
    upload.await.unwrap() && read.is_ok() && back[content_of_response..] == content
}

fn seconds() -> u64 {
    std::env::var("OUTGATE_SOAK_SECONDS").map_or(DEFAULT_SECONDS, |seconds| {
        seconds.parse().expect("OUTGATE_SOAK_SECONDS is a number")
    })
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_load_with_reloads_costs_no_byte_and_leaves_nothing_behind() {
    let origin = echo().await;
    let policy = |other: usize| {
        format!("rules:\n  - {{ name: r, hosts: [origin.test, h{other}.test], ports: ['*'] }}\n")
    };
    let folder = PolicyFolder::with(&policy(0));
    let proxy: TestProxy = folder.builder().start().await;
    let (address, port) = (proxy.address, origin.port());
    let tally = Arc::new(Tally::default());
    let deadline = Instant::now() + Duration::from_secs(seconds());
    let mut clients = Vec::new();
    for client in 0..EACH * 5 {
        let tally = Arc::clone(&tally);
        clients.push(tokio::spawn(async move {
            let mut round = client;
            while Instant::now() < deadline {
                tally.note(within(exchange(address, port, client % 5, round)).await);
                round += EACH * 5;
            }
        }));
    }
    let half_way = Instant::now() + Duration::from_secs(seconds()) / 2;
    let (mut reloads, mut resident_half_way) = (0, None);
    while Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(700)).await;
        reloads += 1;
        std::fs::write(folder.file(), policy(reloads)).unwrap();
        if Instant::now() >= half_way && resident_half_way.is_none() {
            resident_half_way = Some(resident());
        }
    }
    for client in clients {
        client.await.unwrap();
    }
    let exchanges = tally.exchanges.load(Ordering::Relaxed);
    assert_eq!(
        tally.wrong.load(Ordering::Relaxed),
        0,
        "of {exchanges} exchanges"
    );
    assert!(exchanges > 100, "only {exchanges} exchanges");
    proxy.shows("outgate_tunnels_active 0").await;
    proxy
        .shows("outgate_connections_active{listener=\"proxy\"} 0")
        .await;
    proxy
        .shows("outgate_pool_connections{state=\"busy\"} 0")
        .await;
    // Tests of this binary run side by side, so this only tells a leak from none.
    let grown = resident().saturating_sub(resident_half_way.unwrap());
    assert!(
        grown < 100_000,
        "{grown} KiB more than half way through {exchanges} exchanges"
    );
}
