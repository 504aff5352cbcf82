use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::{Lines, Running, metric, wait_for};
use crate::harness::vacant::Vacant;

/// More lines than the queue and the pipe hold together, and more spans than their queue holds with
/// the batch that is being exported.
const FILLING: usize = 12_000;

/// Each of them finds the queue full.
const FURTHER: usize = 20_000;

/// A line has the host, a span both: kept, each would be 600 bytes or more, and all of [`FURTHER`] 12 MB.
const HOST: &str = "a-host-with-a-name-that-is-as-long-as-a-label-may-be.";
const PATH: usize = 512;

/// Half of what they would be. The allocator keeps some of what requests give back.
const GROWTH: u64 = 6_000_000;

/// Clients that ask at once, each on a connection of its own.
const CLIENTS: usize = 2;
/// Requests that a client sends before it reads their answers.
const PIPELINED: usize = 20;

/// A request that is refused.
struct Refused {
    request: String,
    status: u16,
}

impl Refused {
    fn usual() -> Self {
        let (host, path) = (HOST.repeat(4), "p".repeat(PATH));
        Self {
            request: format!("GET http://{host}test/{path} HTTP/1.1\r\nHost: x\r\n\r\n"),
            status: 403,
        }
    }
}

/// Has so many requests refused.
fn flood(proxy: SocketAddr, requests: usize, refused: &Refused) {
    let Refused { request, status } = refused;
    let rounds = requests / CLIENTS / PIPELINED;
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = TcpStream::connect(proxy).unwrap();
                client.set_nodelay(true).unwrap();
                let mut answers = BufReader::new(client.try_clone().unwrap());
                for _ in 0..rounds {
                    let asked = request.repeat(PIPELINED);
                    client.write_all(asked.as_bytes()).unwrap();
                    for _ in 0..PIPELINED {
                        read_answer(&mut answers, *status);
                    }
                }
            });
        }
    });
}

fn read_answer(answers: &mut impl BufRead, status: u16) {
    let (mut line, mut length) = (String::new(), 0);
    answers.read_line(&mut line).unwrap();
    assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{line}");
    while line != "\r\n" {
        line.clear();
        answers.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    answers.read_exact(&mut vec![0; length]).unwrap();
}

/// Fills a queue, and then asks for more: how many were dropped of what came on top.
fn drops_without_growing(gateway: &Running, dropped: &str, whose: &str) -> u64 {
    let look = || [dropped, "process_resident_memory_bytes "].map(|name| metric(gateway, name));
    flood(gateway.proxy, FILLING, &Refused::usual());
    let [dropped_before, resident_before] = look();
    assert!(dropped_before > 0, "{whose}");
    flood(gateway.proxy, FURTHER, &Refused::usual());
    let [dropped, resident] = look();
    let growth = resident.saturating_sub(resident_before);
    assert!(
        growth < GROWTH,
        "{whose}: {resident_before} and {growth} more bytes"
    );
    dropped - dropped_before
}

#[test]
fn a_standard_output_that_nobody_reads_holds_up_no_request_and_takes_no_memory() {
    let gateway = Running::start(&[]);
    let dropped = drops_without_growing(&gateway, "outgate_log_lines_dropped_total ", "stdout");
    assert_eq!(dropped, FURTHER as u64);
}

#[test]
fn a_standard_output_that_nobody_reads_does_not_hold_up_the_end() {
    const SOON: Duration = Duration::from_secs(10);
    let mut gateway = Running::start(&[("OUTGATE_DRAIN_DELAY", "0s")]);
    flood(gateway.proxy, FILLING, &Refused::usual());
    assert!(metric(&gateway, "outgate_log_lines_dropped_total ") > 0);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit_code(SOON), Some(0));
}

#[test]
fn lines_for_a_standard_output_that_is_gone_are_counted() {
    const REQUESTS: usize = 2_000;
    // With a rule: of a policy that allows nothing, a line warns once it listens.
    let mut gateway = Running::start(&[("OUTGATE_ALLOW", "allowed.test")]);
    gateway.lines = Lines(None);
    flood(gateway.proxy, REQUESTS, &Refused::usual());
    wait_for(&gateway, "outgate_log_lines_dropped_total ", |dropped| {
        dropped >= REQUESTS as u64
    });
    assert_eq!(
        metric(&gateway, "outgate_log_lines_dropped_total "),
        REQUESTS as u64
    );
}

/// A collector that answers, and takes nothing.
fn refusing() -> String {
    const NO: &[u8] = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(NO);
            let _ = stream.shutdown(Shutdown::Write);
            // To the end, or what is on its way would reset the answer.
            let _ = io::copy(&mut stream, &mut io::sink());
        }
    });
    format!("http://{address}")
}

#[test]
fn a_collector_that_takes_nothing_holds_up_no_request_and_takes_no_memory() {
    // Connections are established by the kernel, and nobody answers.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = format!("http://{}", hangs.local_addr().unwrap());
    let vacant = Vacant::take();
    let down = format!("http://{}", vacant.address());
    let refuses = refusing();
    for (endpoint, protocol, is_waited_for) in [
        (&hangs, "http/protobuf", true),
        (&hangs, "grpc", true),
        (&down, "http/protobuf", false),
        (&refuses, "http/protobuf", false),
    ] {
        let gateway = Running::start(&[
            ("OUTGATE_ACCESS_LOG", "false"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            // Longer than any test, so that the first batch stays with the collector.
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "3600000"),
        ]);
        let whose = format!("{endpoint} {protocol}");
        let dropped = drops_without_growing(&gateway, "outgate_spans_dropped_total ", &whose);
        if is_waited_for {
            assert_eq!(dropped, FURTHER as u64, "{whose}");
        }
    }
}

#[test]
fn what_waits_of_a_request_is_short_however_long_its_method_or_authority_is() {
    /// All of them wait: there is room for more lines, and for more spans.
    const REQUESTS: usize = 1_000;
    const LONG: usize = 50_000;
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = format!("http://{}", hangs.local_addr().unwrap());
    let (method, host) = ("M".repeat(LONG), "h".repeat(LONG));
    for (request, status) in [
        (format!("{method} http://evil.test/ HTTP/1.1"), 403),
        (format!("GET http://{host}.test/ HTTP/1.1"), 400),
    ] {
        let request = format!("{request}\r\nHost: x\r\n\r\n");
        let refused = Refused { request, status };
        let gateway = Running::start(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &hangs),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "3600000"),
        ]);
        let resident = || metric(&gateway, "process_resident_memory_bytes ");
        flood(gateway.proxy, 4 * CLIENTS * PIPELINED, &refused);
        let before = resident();
        flood(gateway.proxy, REQUESTS, &refused);
        let growth = resident().saturating_sub(before);
        // Kept whole, they would be 50 MB.
        let short = &refused.request[..20];
        assert!(growth < 2 * GROWTH, "{short}: {before} and {growth} more");
        for counter in ["log_lines", "spans"] {
            let dropped = metric(&gateway, &format!("outgate_{counter}_dropped_total "));
            assert_eq!(dropped, 0, "{short}: {counter}");
        }
    }
}
