//! A panic is counted, logged with its backtrace, and ends no more than it must.
//!
//! A test program of its own: the hook and the log belong to a whole process.
#![expect(
    clippy::disallowed_methods,
    reason = "tests play clients, which dial the gateway"
)]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outgate::admin::{self, Admin};
use outgate::config::Config;
use outgate::drain::Drainer;
use outgate::gateway::Gateway;
use outgate::listen::Listeners;
use outgate::metrics::{ListenerKind, Metrics};
use outgate::panics;
use outgate::tunnels::Tunnels;
use outgate::vital::Vital;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was logged, one JSON object a line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        assert!(
            !String::from_utf8_lossy(bytes).contains("\"http.request.method\":\"PATCH\""),
            "the pen broke"
        );
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn line(&self, has: &str) -> serde_json::Value {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let line = text.lines().find(|line| line.contains(has));
        serde_json::from_str(line.unwrap_or_else(|| panic!("{has} is not in {text}"))).unwrap()
    }
}

/// One test, since all of it is about one process.
#[test]
fn a_panic_is_counted_logged_and_contained() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(move || writer.clone())
        .init();
    panics::report();
    let runtime = Runtime::new().unwrap();
    in_a_request(&runtime, &log);
    in_a_task_that_everybody_needs(&runtime, &log);
    within_a_response(&runtime, &log);
}

fn in_a_request(runtime: &Runtime, log: &Log) {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = origin.local_addr().unwrap();
    // No clock goes as far as the timeout of a plain request.
    let (proxy, admin) = gateway(runtime, target, Duration::MAX);
    // Another client's, which is to notice nothing.
    let mut tunnel = connect(proxy);
    write!(tunnel, "CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let (mut upstream, _) = origin.accept().unwrap();
    assert!(read_head(&mut tunnel).starts_with("HTTP/1.1 200 "));

    let mut client = connect(proxy);
    write!(client, "GET http://{target}/ HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let status = "HTTP/1.1 500 egress failed: internal\r\n";
    assert!(answer.starts_with(status), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");

    tunnel.write_all(b"still here").unwrap();
    let mut through = [0; 10];
    upstream.read_exact(&mut through).unwrap();
    assert_eq!(&through, b"still here");
    let metrics = get(admin, "/metrics");
    assert!(metrics.contains("\noutgate_panics_total 1\n"), "{metrics}");
    let counted = format!(
        "\noutgate_requests_total{{kind=\"forward\",reason=\"internal\",result=\"failed\",rule=\"{target}\"}} 1\n"
    );
    assert!(metrics.contains(&counted), "{metrics}");
    let line = log.line("\"panicked\"");
    assert_eq!(line["level"], "ERROR");
    assert!(
        line["panic"].as_str().unwrap().contains("overflow"),
        "{line}"
    );
    let backtrace = line["backtrace"].as_str().unwrap();
    assert!(backtrace.contains("outgate::proxy::"), "{backtrace}");
    let request = log.line("\"internal\"");
    let trace_id = request["trace_id"].as_str().unwrap();
    assert!(answer.contains(trace_id), "{answer}");
    assert!(get(admin, "/livez").starts_with("HTTP/1.1 200 "));
    // What panicked has given its place back, and the tunnel has its own.
    drop(client);
    shows_open(admin, 1);
    drop((tunnel, upstream));
    shows_open(admin, 0);
}

fn in_a_task_that_everybody_needs(runtime: &Runtime, log: &Log) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let tunnels = Tunnels::new(Arc::clone(&metrics), false, PATIENCE, None);
    let config = Config::default();
    let (_drainer, drain) = Drainer::new(&config, Arc::new(tunnels), Arc::clone(&metrics));
    let vital = Vital::default();
    let answering = Arc::new(Admin {
        metrics: Arc::clone(&metrics),
        drain: drain.clone(),
        vital: vital.clone(),
        dropped: None,
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let _context = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let answer = Arc::new(move |request: &_| answering.answer(request));
    let serving = admin::serve(listener, ListenerKind::Admin, metrics, drain, answer);
    vital.spawn("admin", serving);
    vital.spawn("one that ends", async {});
    assert!(get(address, "/readyz").starts_with("HTTP/1.1 200 "));

    vital.spawn("sweep", async { panic!("the broom broke") });
    let deadline = Instant::now() + PATIENCE;
    while vital.failed().is_none() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    for path in ["/livez", "/readyz"] {
        let answer = get(address, path);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("`sweep` has failed"), "{answer}");
    }
    let metrics = get(address, "/metrics");
    assert!(metrics.contains("\noutgate_panics_total 2\n"), "{metrics}");
    let line = log.line("the broom broke");
    assert!(line["location"].as_str().unwrap().contains("panics.rs"));
}

/// Its line is what cannot be written, at the end of the response. To HTTP/1.0 the end of the connection would be that as
/// well, and what came before it all there is.
fn within_a_response(runtime: &Runtime, log: &Log) {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = origin.local_addr().unwrap();
    let (proxy, admin) = gateway(runtime, target, PATIENCE);
    let mut client = connect(proxy);
    write!(client, "PATCH http://{target}/ HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let (mut upstream, _) = origin.accept().unwrap();
    read_head(&mut upstream);
    write!(upstream, "HTTP/1.1 200 OK\r\n\r\nhalf").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.0 200 "));
    let mut half = [0; 4];
    client.read_exact(&mut half).unwrap();
    assert_eq!(&half, b"half");
    write!(upstream, "rest").unwrap();
    drop(upstream);
    let error = client.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let metrics = get(admin, "/metrics");
    assert!(metrics.contains("\noutgate_panics_total 3\n"), "{metrics}");
    log.line("the pen broke");
    shows_open(admin, 0);
}

/// Waits until the gateway counts so many clients.
fn shows_open(admin: SocketAddr, clients: usize) {
    let line = format!("\noutgate_connections_active{{listener=\"proxy\"}} {clients}\n");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = get(admin, "/metrics");
        if metrics.contains(&line) {
            return;
        }
        assert!(Instant::now() < deadline, "not{line}but {metrics}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn gateway(
    runtime: &Runtime,
    allowed: SocketAddr,
    response_timeout: Duration,
) -> (SocketAddr, SocketAddr) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::default();
    config.listen = vec![any];
    config.admin_listen = any;
    config.inspect_listen = None;
    config.dns_servers = vec![SocketAddr::from(([127, 0, 0, 1], 9))];
    config.allow = vec![allowed.to_string().parse().unwrap()];
    config.response_timeout = response_timeout;
    let _context = runtime.enter();
    let listeners = Listeners::bind(&config).unwrap();
    let proxy = listeners.proxy[0].local_addr().unwrap();
    let admin = listeners.admin.local_addr().unwrap();
    let gateway = Gateway::new(config, listeners, hickory_resolver::Hosts::default()).unwrap();
    runtime.spawn(async move {
        let (_stops, stopped) = mpsc::channel(1);
        gateway.run(stopped, Arc::new(Notify::new()), None).await
    });
    (proxy, admin)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn get(server: SocketAddr, path: &str) -> String {
    let mut stream = connect(server);
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
