use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Running;

const EACH: usize = 6;

/// Answers `/after/MILLISECONDS` then, `/never` not at all, and sends back what is no request.
fn origin() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    port
}

fn serve(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if !text.starts_with("GET ") {
            if stream.write_all(&bytes[..length]).is_err() {
                return;
            }
            continue;
        }
        let path = text.split(' ').nth(1).unwrap();
        if let Some(after) = path.strip_prefix("/after/") {
            thread::sleep(Duration::from_millis(after.parse().unwrap()));
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

fn gateway(origin: u16, delay: &str, timeout: &str) -> Running {
    Running::start(&[
        ("OUTGATE_ALLOW", &format!("127.0.0.1:{origin}")),
        ("OUTGATE_DRAIN_DELAY", delay),
        ("OUTGATE_DRAIN_TIMEOUT", timeout),
    ])
}

/// A request on a connection of its own, up to its answer.
fn ask(proxy: SocketAddr, origin: u16, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).unwrap();
    let request = format!("GET http://127.0.0.1:{origin}{path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// What there is of an answer; a reset is an end too.
fn answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    while !answer.ends_with(b"\r\n\r\nok") {
        match stream.read(&mut bytes) {
            Ok(length @ 1..) => answer.extend_from_slice(&bytes[..length]),
            Ok(0) | Err(_) => break,
        }
    }
    String::from_utf8(answer).unwrap()
}

fn tunnel(proxy: SocketAddr, origin: u16) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).unwrap();
    let head = format!("CONNECT 127.0.0.1:{origin} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut bytes = [0; 1024];
    let length = stream.read(&mut bytes).unwrap();
    assert!(bytes[..length].starts_with(b"HTTP/1.1 200 "));
    stream
}

/// Asks again and again, until it has been told for half a second to go elsewhere; how often it was answered.
fn keep_asking(proxy: SocketAddr, origin: u16) -> JoinHandle<usize> {
    thread::spawn(move || {
        let mut told = None;
        for answered in 0.. {
            if told.is_some_and(|told: Instant| told.elapsed() > Duration::from_millis(500)) {
                return answered;
            }
            let answer = answer(&mut ask(proxy, origin, "/after/5"));
            assert!(answer.ends_with("\r\n\r\nok"), "lost: {answer:?}");
            if answer.contains("connection: close\r\n") {
                told.get_or_insert_with(Instant::now);
            }
        }
        unreachable!("the drain begins")
    })
}

/// When a tunnel was closed; a busy one sends until then.
fn closed(mut tunnel: TcpStream, busy: bool) -> JoinHandle<Instant> {
    thread::spawn(move || {
        while !busy || tunnel.write_all(b"busy").is_ok() {
            if !matches!(tunnel.read(&mut [0; 1024]), Ok(1..)) {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        Instant::now()
    })
}

fn times(closings: Vec<JoinHandle<Instant>>) -> Vec<Instant> {
    let mut times: Vec<_> = closings
        .into_iter()
        .map(|closing| closing.join().unwrap())
        .collect();
    times.sort();
    times
}

#[test]
fn a_drain_under_load_loses_no_request_and_sheds_idle_tunnels_first() {
    let origin = origin();
    let mut running = gateway(origin, "1s", "4s");
    let proxy = running.proxy;
    // The busy ones are the older, so that only their traffic can tell them from the idle.
    let busy: Vec<_> = (0..EACH)
        .map(|_| closed(tunnel(proxy, origin), true))
        .collect();
    let idle: Vec<_> = (0..EACH)
        .map(|_| closed(tunnel(proxy, origin), false))
        .collect();
    let load: Vec<_> = (0..EACH).map(|_| keep_asking(proxy, origin)).collect();
    let mut slow: Vec<_> = (0..EACH)
        .map(|_| ask(proxy, origin, "/after/2500"))
        .collect();
    let mut never = ask(proxy, origin, "/never");
    // Answered means that those before it have been accepted.
    assert!(answer(&mut ask(proxy, origin, "/after/0")).ends_with("ok"));
    running.signal(Signal::TERM);

    let answered: usize = load.into_iter().map(|load| load.join().unwrap()).sum();
    assert!(answered > EACH, "{answered} requests were no load");
    for slow in &mut slow {
        let answer = answer(slow);
        assert!(answer.ends_with("\r\n\r\nok"), "lost: {answer:?}");
    }
    let (idle, busy) = (times(idle), times(busy));
    assert!(idle[EACH / 2] < busy[EACH / 2], "{idle:?} {busy:?}");
    let spread = *busy.last().unwrap() - idle[0];
    assert!(
        spread > Duration::from_millis(250),
        "all within {spread:?}: {idle:?} {busy:?}"
    );
    assert_eq!(answer(&mut never), "");
    let line = running.line("drained");
    assert_eq!(line["tunnels_closed"], 2 * EACH);
    assert_eq!(line["connections_cut"], 1);
    assert_eq!(line["hurried"], false);
    assert_eq!(running.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once_and_tells_what_that_cut() {
    let origin = origin();
    let mut running = gateway(origin, "60s", "60s");
    let tunnels: Vec<_> = (0..2)
        .map(|_| closed(tunnel(running.proxy, origin), false))
        .collect();
    let mut never = ask(running.proxy, origin, "/never");
    assert!(answer(&mut ask(running.proxy, origin, "/after/0")).ends_with("ok"));
    running.signal(Signal::TERM);
    running.line("draining");
    running.signal(Signal::TERM);
    let line = running.line("drained");
    assert_eq!(line["tunnels_closed"], 2);
    assert_eq!(line["connections_cut"], 1);
    assert_eq!(line["hurried"], true);
    assert_eq!(running.process.wait().unwrap().code(), Some(3));
    assert_eq!(answer(&mut never), "");
    times(tunnels);
}

#[test]
fn an_interrupt_that_cuts_nothing_is_a_success() {
    let mut running = gateway(1, "60s", "60s");
    running.signal(Signal::INT);
    let line = running.line("drained");
    assert_eq!(line["connections_cut"], 0);
    assert_eq!(running.process.wait().unwrap().code(), Some(0));
}
