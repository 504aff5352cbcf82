use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::Value;

use super::{Running, reset};
use crate::docs::table;
use crate::harness::vacant::Vacant;

/// On every line.
const ALWAYS: [&str; 7] = [
    "timestamp",
    "level",
    "message",
    "target",
    "client.address",
    "client.port",
    "trace_id",
];

/// On every line about a request that could be read.
const ASKED: [&str; 7] = [
    "http.request.method",
    "server.address",
    "server.port",
    "http.response.status_code",
    "result",
    "reason",
    "duration_ms",
];

/// On the line of one that reached its upstream by name.
const REACHED: [&str; 7] = [
    "rule",
    "network.peer.address",
    "network.peer.port",
    "bytes_sent",
    "bytes_received",
    "dns_ms",
    "connect_ms",
];

const TUNNEL: [&str; 9] = [
    "server.address",
    "server.port",
    "network.peer.address",
    "network.peer.port",
    "rule",
    "end",
    "bytes_sent",
    "bytes_received",
    "duration_ms",
];

/// No request here takes as long, in milliseconds.
const LONG: f64 = 60_000.0;

/// Answers a `POST` with two bytes, and sends back what is none.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    let (mut bytes, mut seen) = ([0; 4096], Vec::new());
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        seen.extend_from_slice(&bytes[..length]);
        let is_request = seen.starts_with(b"POST ");
        if is_request && seen.ends_with(b"hello") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        } else if !is_request {
            let _ = stream.write_all(&bytes[..length]);
        }
    }
}

/// A gateway, and the lines it is to write by trace id.
struct Asked {
    gateway: Running,
    expected: BTreeMap<String, Expected>,
}

/// Who asked, and the lines that come of it: their message, and their fields besides those that all have.
struct Expected {
    client: SocketAddr,
    lines: Vec<(&'static str, BTreeSet<&'static str>)>,
}

impl Asked {
    fn start() -> Self {
        let gateway = Running::start(&[
            ("OUTGATE_ALLOW", "localhost:* 127.0.0.1:*"),
            ("OUTGATE_ALLOW_ADDRESSES", "127.0.0.0/8 ::1"),
            ("OUTGATE_DRAIN_DELAY", "0s"),
        ]);
        let expected = BTreeMap::new();
        Self { gateway, expected }
    }

    /// Sends a head, with `MORE` for a trace of its own, and reads the answer's until `until`.
    fn ask(&mut self, request: &str, until: &[u8]) -> (TcpStream, String) {
        let trace = format!("{:032x}", self.expected.len() + 1);
        let mut client = TcpStream::connect(self.gateway.proxy).unwrap();
        let traceparent = format!("Host: x\r\ntraceparent: 00-{trace}-b7ad6b7169203331-01\r\n");
        let request = request.replace("MORE", &traceparent);
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(until) {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            answer.extend_from_slice(&byte);
        }
        (client, trace)
    }

    fn expect(
        &mut self,
        trace: String,
        client: &TcpStream,
        lines: &[(&'static str, &[&[&'static str]])],
    ) {
        let lines = lines
            .iter()
            .map(|(message, fields)| (*message, fields.concat().into_iter().collect()));
        let expected = Expected {
            client: client.local_addr().unwrap(),
            lines: lines.collect(),
        };
        self.expected.insert(trace, expected);
    }

    /// Ends the gateway, so that no line can follow, and holds what was written to what was expected.
    fn written(self) -> BTreeMap<String, Vec<Value>> {
        let mut written: BTreeMap<_, Vec<Value>> = BTreeMap::new();
        for line in self.gateway.last_lines() {
            if line["target"] == "access" {
                let trace = line["trace_id"].as_str().unwrap().to_owned();
                written.entry(trace).or_default().push(line);
            }
        }
        let traces: Vec<_> = self.expected.keys().collect();
        assert_eq!(written.keys().collect::<Vec<_>>(), traces, "{written:#?}");
        for (trace, expected) in &self.expected {
            let lines = &written[trace];
            let seen: Vec<_> = lines
                .iter()
                .map(|line| (line["message"].as_str().unwrap(), fields(line)))
                .collect();
            assert_eq!(seen, expected.lines);
            for line in lines {
                has_sound_values(line, expected.client);
            }
        }
        written
    }
}

/// The fields of a line that not every line has.
fn fields(line: &Value) -> BTreeSet<&str> {
    let mut fields: BTreeSet<_> = line
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    for field in ALWAYS {
        assert!(fields.remove(field), "no {field} in {line}");
    }
    fields
}

/// Whether values are of the kinds and within the bounds that their names promise.
fn has_sound_values(line: &Value, client: SocketAddr) {
    let timestamp = line["timestamp"].as_str().unwrap();
    assert!(timestamp.len() == 27 && timestamp.ends_with('Z'), "{line}");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["client.address"], client.ip().to_string());
    assert_eq!(line["client.port"], client.port());
    let millis = |name: &str| line.get(name).map_or(0.0, |value| value.as_f64().unwrap());
    let [whole, dns, connect] = ["duration_ms", "dns_ms", "connect_ms"].map(millis);
    assert!(
        dns >= 0.0 && connect >= 0.0 && dns + connect <= whole,
        "{line}"
    );
    assert!((0.0..LONG).contains(&whole), "{line}");
    for (name, value) in line.as_object().unwrap() {
        let is_number = name.ends_with("_ms")
            || name.starts_with("bytes_")
            || name.ends_with("port")
            || name.ends_with("status_code");
        assert_eq!(value.is_number(), is_number, "{name} in {line}");
        assert_eq!(value.is_string(), !is_number, "{name} in {line}");
    }
}

fn has(line: &Value, expected: &[(&str, Value)]) {
    for (name, value) in expected {
        assert_eq!(line[*name], *value, "{name} in {line}");
    }
}

#[test]
fn a_request_writes_one_line_and_a_tunnel_another() {
    let origin = origin();
    let port = origin.port();
    let mut asked = Asked::start();
    let post =
        format!("POST http://localhost:{port}/ HTTP/1.1\r\nMOREContent-Length: 5\r\n\r\nhello");
    let (client, posted) = asked.ask(&post, b"ok");
    asked.expect(posted.clone(), &client, &[("request", &[&ASKED, &REACHED])]);

    let connect = format!("CONNECT localhost:{port} HTTP/1.1\r\nMORE\r\nhello!");
    let (mut client, tunnelled) = asked.ask(&connect, b"hello!");
    asked.expect(
        tunnelled.clone(),
        &client,
        &[("request", &[&ASKED, &REACHED]), ("tunnel", &[&TUNNEL])],
    );
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);

    let written = asked.written();
    let whom = [
        ("server.address", "localhost".into()),
        ("server.port", port.into()),
        ("network.peer.address", "127.0.0.1".into()),
        ("network.peer.port", port.into()),
        ("rule", "localhost:*".into()),
    ];
    let answered = [
        ("http.response.status_code", 200.into()),
        ("result", "allowed".into()),
        ("reason", "ok".into()),
    ];
    let [request] = &*written[&posted] else {
        unreachable!()
    };
    has(request, &whom);
    has(request, &answered);
    has(
        request,
        &[
            ("http.request.method", "POST".into()),
            ("bytes_sent", 5.into()),
            ("bytes_received", 2.into()),
        ],
    );
    let [request, tunnel] = &*written[&tunnelled] else {
        unreachable!()
    };
    has(request, &whom);
    has(request, &answered);
    has(request, &[("http.request.method", "CONNECT".into())]);
    has(tunnel, &whom);
    has(
        tunnel,
        &[
            ("end", "closed".into()),
            ("bytes_sent", 6.into()),
            ("bytes_received", 6.into()),
        ],
    );
}

#[test]
fn a_refusal_and_a_failure_write_one_line_that_says_more_than_the_client_was_told() {
    let vacant = Vacant::take();
    let mut asked = Asked::start();
    let (client, denied) = asked.ask("GET http://evil.test/ HTTP/1.1\r\nMORE\r\n", b"}\n");
    asked.expect(
        denied.clone(),
        &client,
        &[("request", &[&ASKED, &["detail"]])],
    );
    let connect = format!("CONNECT {} HTTP/1.1\r\nMORE\r\n", vacant.address());
    let (client, failed) = asked.ask(&connect, b"}\n");
    asked.expect(
        failed.clone(),
        &client,
        &[("request", &[&ASKED, &["rule", "connect_ms", "detail"]])],
    );

    let written = asked.written();
    has(
        &written[&denied][0],
        &[
            ("server.address", "evil.test".into()),
            ("server.port", 80.into()),
            ("http.response.status_code", 403.into()),
            ("result", "denied".into()),
            ("reason", "host_not_allowed".into()),
            ("detail", "no rule names the host".into()),
        ],
    );
    let detail = format!("{}: Connection refused (os error 111)", vacant.address());
    has(
        &written[&failed][0],
        &[
            ("server.address", "127.0.0.1".into()),
            ("rule", "127.0.0.1:*".into()),
            ("http.response.status_code", 502.into()),
            ("result", "failed".into()),
            ("reason", "connection_refused".into()),
            ("detail", detail.into()),
        ],
    );
}

#[test]
fn a_connection_without_a_request_writes_one_line_with_its_client() {
    let mut asked = Asked::start();
    let mut client = TcpStream::connect(asked.gateway.proxy).unwrap();
    client.write_all(b"garbage\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let (_, content) = answer.split_once("\r\n\r\n").unwrap();
    let told: Value = serde_json::from_str(content).unwrap();
    let trace = told["trace_id"].as_str().unwrap().to_owned();
    let fields = ["http.response.status_code", "result", "reason", "detail"];
    asked.expect(
        trace.clone(),
        &client,
        &[("connection refused", &[&fields])],
    );
    let written = asked.written();
    has(
        &written[&trace][0],
        &[
            ("http.response.status_code", 400.into()),
            ("result", "failed".into()),
            ("reason", "bad_request".into()),
        ],
    );
}

#[test]
fn a_connection_that_says_nothing_in_time_writes_one_line_without_a_status() {
    let mut gateway = Running::start(&[("OUTGATE_HEADER_TIMEOUT", "100ms")]);
    let client = TcpStream::connect(gateway.proxy).unwrap();
    let line = gateway.line("connection refused");
    assert_eq!(line["reason"], "header_timeout", "{line}");
    let port = client.local_addr().unwrap().port();
    assert_eq!(line["client.port"], port, "{line}");
    assert_eq!(line.get("http.response.status_code"), None, "{line}");
}

#[test]
fn the_line_of_a_client_that_has_reset_says_who_it_was() {
    let mut gateway = Running::start(&[]);
    // So that the reset is there before the connection is looked at.
    gateway.signal(rustix::process::Signal::STOP);
    let process = rustix::process::Pid::from_child(&gateway.process);
    let until_stopped = rustix::process::WaitOptions::UNTRACED;
    rustix::process::waitpid(Some(process), until_stopped).unwrap();
    let mut client = TcpStream::connect(gateway.proxy).unwrap();
    client.write_all(b"garbage\r\n\r\n").unwrap();
    let address = client.local_addr().unwrap();
    reset(client);
    gateway.signal(rustix::process::Signal::CONT);
    let line = gateway.line("connection refused");
    assert_eq!(line["client.address"], "127.0.0.1", "{line}");
    assert_eq!(line["client.port"], address.port(), "{line}");
}

#[test]
fn the_readme_has_exactly_the_fields() {
    let rows = table("field");
    let documented: BTreeSet<_> = rows.iter().flat_map(|row| row[0].split(", ")).collect();
    let written = [&ALWAYS[..], &ASKED, &REACHED, &TUNNEL, &["detail"]].concat();
    assert_eq!(documented, written.into_iter().collect());
}
