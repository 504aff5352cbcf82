//! As many tunnels as twenty thousand descriptors are good for, listed while they carry data. That no data is lost
//! and no tunnel is missed is all it holds: how long data waits meanwhile is what `benches/telemetry/tunnels` measures.
//!
//! A test program of its own: clients, gateway and upstream are a process each, because each holds
//! a descriptor or two for every tunnel.
#![expect(
    clippy::disallowed_methods,
    reason = "tests play clients, which dial the gateway"
)]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a gateway with that many descriptors lets in (README, `OUTGATE_MAX_CONNECTIONS`).
const DESCRIPTORS: usize = 20_000;
const TUNNELS: usize = 9_900;
/// Tunnels asked for at once.
const ASKING: usize = 64;
const PASSES: usize = 3;
/// No step waits longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program and reads its lines until one says what is wanted.
fn start<T>(command: &mut Command, wanted: impl Fn(&str) -> Option<T>) -> (Process, T) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    let process = Process(child);
    let mut lines = lines.lines();
    let found = lines.by_ref().find_map(|line| wanted(&line.unwrap()));
    // Whatever else it prints must go somewhere.
    std::thread::spawn(move || lines.for_each(drop));
    (process, found.expect("the program ended"))
}

#[test]
#[ignore = "the upstream, which the other test runs in a process of its own"]
fn upstream() {
    outgate::limits::raise_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("\nupstream={}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                });
            }
        });
        // Ends when whoever started it does.
        let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        let _ = end.await;
    });
}

fn start_upstream() -> (Process, SocketAddr) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "upstream", "--nocapture"]);
    start(&mut command, |line| {
        line.strip_prefix("upstream=")?.parse().ok()
    })
}

/// A gateway with so many descriptors and no more; its proxy port and its inspector.
fn start_gateway() -> (Process, [SocketAddr; 2]) {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -n {DESCRIPTORS} && exec \"$0\"")])
        .arg(env!("CARGO_BIN_EXE_outgate"))
        .env_clear()
        .envs([
            ("OUTGATE_LISTEN", "127.0.0.1:0"),
            ("OUTGATE_ADMIN_LISTEN", "127.0.0.1:0"),
            ("OUTGATE_INSPECT_LISTEN", "127.0.0.1:0"),
            ("OUTGATE_ALLOW", "127.0.0.0/8:*"),
            ("OUTGATE_ACCESS_LOG", "false"),
            ("OUTGATE_LOG_FORMAT", "json"),
        ]);
    let address = |line: &serde_json::Value| line["address"].as_str().unwrap().parse().unwrap();
    let proxy = std::cell::Cell::new(None);
    start(&mut command, |line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        match line["listener"].as_str()? {
            "proxy" => proxy.set(Some(address(&line))),
            "inspect" => return Some([proxy.get()?, address(&line)]),
            _ => {}
        }
        None
    })
}

async fn tunnel(proxy: SocketAddr, target: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{answer:?}");
    stream
}

/// A head and a content.
async fn get(server: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, content) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), content.to_owned())
}

/// The ids of all pages, in their order.
async fn listed(inspect: SocketAddr) -> Vec<u64> {
    let mut ids = Vec::new();
    let mut path = "/tunnels".to_owned();
    loop {
        let (head, content) = get(inspect, &path).await;
        let page: Vec<serde_json::Value> = serde_json::from_str(&content).unwrap();
        ids.extend(page.iter().map(|tunnel| tunnel["id"].as_u64().unwrap()));
        let next = head.lines().find_map(|line| line.strip_prefix("link: <"));
        let Some(next) = next else { return ids };
        path = next.strip_suffix(">; rel=\"next\"").unwrap().to_owned();
        assert!(ids.len() <= TUNNELS, "pages without an end");
    }
}

async fn within<F: Future>(step: F) -> F::Output {
    tokio::time::timeout(PATIENCE, step)
        .await
        .expect("waited too long")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tunnel_of_a_full_gateway_is_listed_once_while_they_carry_data() {
    outgate::limits::raise_descriptors();
    let (_upstream, target) = start_upstream();
    let (_gateway, [proxy, inspect]) = start_gateway();
    let asked = stream::iter(0..TUNNELS).map(|_| tunnel(proxy, target));
    let mut tunnels: Vec<_> = within(asked.buffer_unordered(ASKING).collect()).await;

    let lister = tokio::spawn(async move {
        let mut passes = Vec::new();
        for _ in 0..PASSES {
            passes.push(listed(inspect).await);
        }
        passes
    });
    let mut echoed = 0;
    while !lister.is_finished() || echoed < TUNNELS {
        let tunnel = &mut tunnels[echoed % TUNNELS];
        let sent = echoed.to_be_bytes();
        let mut received = [0; size_of::<usize>()];
        tunnel.write_all(&sent).await.unwrap();
        within(tunnel.read_exact(&mut received)).await.unwrap();
        assert_eq!(received, sent);
        echoed += 1;
    }
    let passes = within(lister).await.unwrap();
    assert_eq!(passes.len(), PASSES);
    for ids in passes {
        assert_eq!(ids.len(), TUNNELS);
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), TUNNELS);
    }

    // And that was all of them: the gateway is full.
    let mut further = TcpStream::connect(proxy).await.unwrap();
    let mut answer = Vec::new();
    within(further.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{answer:?}");
}
