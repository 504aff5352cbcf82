//! What the gateway adds to a round trip, to bulk and to a request, over real sockets.
//!
//! `cargo bench --bench relay`; compare two states of the source with `--save-baseline` and
//! `--baseline`. Each is measured straight to the origin too: the difference is the gateway's.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hickory_resolver::Hosts;
use outgate::config::Config;
use outgate::gateway::Gateway;
use outgate::listen::Listeners;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};

/// More than turns a direction bulk, so that most of it goes through a pipe.
const BULK: usize = 16 * 1024 * 1024;
const MESSAGE: usize = 64;
const PAGE: usize = 1024;
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Answers every message of so many bytes with as many as were asked for.
fn origin(message: usize, answer: usize) -> SocketAddr {
    let listener = TcpListener::bind(ANY_PORT).expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                stream.set_nodelay(true).expect("an option");
                let (mut asked, answer) = (vec![0; message], vec![b'a'; answer]);
                while stream.read_exact(&mut asked).is_ok() && stream.write_all(&answer).is_ok() {}
            });
        }
    });
    address
}

/// An origin of one page, which reads heads to their end.
fn page() -> SocketAddr {
    let listener = TcpListener::bind(ANY_PORT).expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve_page(stream));
        }
    });
    address
}

fn serve_page(mut stream: TcpStream) {
    stream.set_nodelay(true).expect("an option");
    let mut page = format!("HTTP/1.1 200 OK\r\nContent-Length: {PAGE}\r\n\r\n").into_bytes();
    page.resize(page.len() + PAGE, b'p');
    let (mut head, mut length) = ([0; 4096], 0);
    while let Ok(read @ 1..) = stream.read(&mut head[length..]) {
        length += read;
        if head[..length].ends_with(b"\r\n\r\n") {
            length = 0;
            if stream.write_all(&page).is_err() {
                return;
            }
        }
    }
}

/// A gateway that runs until the bench ends; its address.
fn gateway() -> (Runtime, SocketAddr) {
    let runtime = Runtime::new().expect("a runtime");
    let mut config = Config::default();
    config.listen = vec![ANY_PORT];
    config.admin_listen = ANY_PORT;
    config.inspect_listen = None;
    config.access_log = false;
    config.dns_servers = vec![SocketAddr::from(([127, 0, 0, 1], 9))];
    config.allow = vec!["127.0.0.1:*".parse().expect("a rule")];
    let address = runtime.block_on(async {
        let listeners = Listeners::bind(&config).expect("listeners");
        let address = listeners.proxy[0].local_addr().expect("an address");
        let gateway = Gateway::new(config, listeners, Hosts::default()).expect("a gateway");
        let (stops, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let _never = stops;
            gateway.run(receiver, Arc::new(Notify::new()), None).await
        });
        address
    });
    (runtime, address)
}

#[expect(clippy::disallowed_methods, reason = "the client's side")]
fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    stream
}

fn tunnel(gateway: SocketAddr, target: SocketAddr) -> TcpStream {
    let mut stream = connect(gateway);
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("a request");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    stream
}

fn exchange(stream: &mut TcpStream, message: &[u8], answer: &mut [u8]) {
    stream.write_all(message).expect("written");
    stream.read_exact(answer).expect("read");
    black_box(answer);
}

fn relay(criterion: &mut Criterion) {
    let (_runtime, gateway) = gateway();

    let echo = origin(MESSAGE, MESSAGE);
    let mut group = criterion.benchmark_group("round trip of 64 bytes");
    for (name, mut stream) in [
        ("direct", connect(echo)),
        ("in a tunnel", tunnel(gateway, echo)),
    ] {
        let mut answer = [0; MESSAGE];
        group.bench_function(name, |bench| {
            bench.iter(|| exchange(&mut stream, &[b'm'; MESSAGE], &mut answer));
        });
    }
    group.bench_function("in a new tunnel", |bench| {
        bench.iter(|| {
            exchange(
                &mut tunnel(gateway, echo),
                &[b'm'; MESSAGE],
                &mut [0; MESSAGE],
            )
        });
    });
    group.finish();

    let bulk = origin(1, BULK);
    let mut group = criterion.benchmark_group("16 MiB down");
    group.throughput(Throughput::Bytes(BULK as u64));
    for (name, mut stream) in [
        ("direct", connect(bulk)),
        ("in a tunnel", tunnel(gateway, bulk)),
    ] {
        let mut answer = vec![0; BULK];
        group.bench_function(name, |bench| {
            bench.iter(|| exchange(&mut stream, b"m", &mut answer));
        });
    }
    group.finish();
    requests(criterion, gateway);
}

fn requests(criterion: &mut Criterion, gateway: SocketAddr) {
    let target = page();
    let mut group = criterion.benchmark_group("GET of 1 KiB");
    for (name, mut stream, form) in [
        ("direct", connect(target), String::new()),
        ("forwarded", connect(gateway), format!("http://{target}")),
    ] {
        let request = format!("GET {form}/ HTTP/1.1\r\nHost: {target}\r\n\r\n");
        let mut buffer = vec![0; 8192];
        group.bench_function(name, |bench| {
            bench.iter(|| {
                stream.write_all(request.as_bytes()).expect("written");
                let mut length = 0;
                while length < PAGE || !whole(&buffer[..length]) {
                    length += stream.read(&mut buffer[length..]).expect("read");
                }
            });
        });
    }
    group.finish();
}

/// Whether there is a head and a page behind it.
fn whole(response: &[u8]) -> bool {
    let end = response.windows(4).position(|end| end == b"\r\n\r\n");
    end.is_some_and(|head| response.len() == head + 4 + PAGE)
}

criterion_group!(benches, relay);
criterion_main!(benches);
