use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{PATIENCE, Running, reset, wait_for};
use crate::policy_file::PolicyFolder;

// Who has been accepted by the kernel when the listener closes.
mod accepted;
mod in_flight;
mod origin;

const EACH: usize = 6;

/// Between two requests of one client: what is logged of all of them is to be read, and not dropped.
const PACE: Duration = Duration::from_millis(5);

/// What is cut has a second for its accounts, and the last spans have two.
const AT_ONCE: Duration = Duration::from_secs(10);

fn gateway(origin: u16, delay: &str, timeout: &str) -> Running {
    gateway_with(
        ("OUTGATE_ALLOW", &format!("127.0.0.1:{origin}")),
        delay,
        timeout,
    )
}

fn gateway_with(allowing: (&str, &str), delay: &str, timeout: &str) -> Running {
    Running::start(&[
        allowing,
        ("OUTGATE_DRAIN_DELAY", delay),
        ("OUTGATE_DRAIN_TIMEOUT", timeout),
    ])
}

/// Allows the origin, by a file that is not the same in another round.
fn policy(origin: u16, round: usize) -> String {
    format!(
        "rules:\n  - {{ name: r{round}, hosts: [127.0.0.1], ports: [{origin}], addresses: [127.0.0.0/8] }}\n"
    )
}

/// Writes the policy anew now and then, until what it returns is dropped.
fn keep_reloading(file: PathBuf, origin: u16) -> (mpsc::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = mpsc::channel();
    let writing = thread::spawn(move || {
        for round in 1.. {
            // Long enough for the gateway to find the file at rest, and read it.
            match stopped.recv_timeout(Duration::from_millis(1500)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
            std::fs::write(&file, policy(origin, round)).unwrap();
        }
    });
    (stop, writing)
}

/// A request on a connection of its own, up to its answer.
fn ask(proxy: SocketAddr, origin: u16, path: &str) -> TcpStream {
    ask_for(proxy, &format!("http://127.0.0.1:{origin}{path}"))
}

fn ask_for(proxy: SocketAddr, url: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).unwrap();
    let request = format!("GET {url} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Whether it is an origin's answer, or one of the gateway's own, to its end.
fn is_whole(answer: &[u8]) -> bool {
    answer.ends_with(b"\r\n\r\nok") || answer.ends_with(b"}\n")
}

/// What there is of an answer; a reset is an end too.
fn answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    while !is_whole(&answer) {
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
fn keep_asking(proxy: SocketAddr, url: String, status: &'static str) -> JoinHandle<usize> {
    thread::spawn(move || {
        let mut told = None;
        for answered in 0.. {
            if told.is_some_and(|told: Instant| told.elapsed() > Duration::from_millis(500)) {
                return answered;
            }
            let answer = answer(&mut ask_for(proxy, &url));
            assert!(
                answer.starts_with(status) && is_whole(answer.as_bytes()),
                "lost: {answer:?}"
            );
            if answer.contains("connection: close\r\n") {
                told.get_or_insert_with(Instant::now);
            }
            thread::sleep(PACE);
        }
        unreachable!("the drain begins")
    })
}

/// Goes without a word again and again, in turn within a head, before its answer and in a tunnel, until it is not let
/// in any more; how often it was.
fn keep_resetting(proxy: SocketAddr, origin: u16) -> JoinHandle<usize> {
    thread::spawn(move || {
        for round in 0.. {
            let Ok(mut stream) = TcpStream::connect(proxy) else {
                return round;
            };
            let sent = match round % 3 {
                0 => "GET http://ori".to_owned(),
                1 => format!("GET http://127.0.0.1:{origin}/never HTTP/1.1\r\nHost: x\r\n\r\n"),
                _ => {
                    format!("CONNECT 127.0.0.1:{origin} HTTP/1.1\r\nHost: x\r\n\r\nto be sent back")
                }
            };
            // It may be one that is not accepted any more.
            let _ = stream.write_all(sent.as_bytes());
            if round % 3 == 2 {
                let _ = stream.read(&mut [0; 1024]);
            }
            reset(stream);
            thread::sleep(PACE);
        }
        unreachable!("the listener closes")
    })
}

/// Who asks and is answered, who is refused, and who resets.
fn load(proxy: SocketAddr, origin: u16) -> Vec<JoinHandle<usize>> {
    let allowed = format!("http://127.0.0.1:{origin}/after/5");
    let start = |_| {
        [
            keep_asking(proxy, allowed.clone(), "HTTP/1.1 200 "),
            keep_asking(proxy, "http://denied.test/".to_owned(), "HTTP/1.1 403 "),
            keep_resetting(proxy, origin),
        ]
    };
    (0..EACH).flat_map(start).collect()
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

fn port(stream: &TcpStream) -> u16 {
    stream.local_addr().unwrap().port()
}

/// The clients of tunnels that ended in this way, in the order in which they did.
fn clients_of(lines: &[serde_json::Value], end: &str) -> Vec<u64> {
    lines
        .iter()
        .filter(|line| line["message"] == "tunnel" && line["end"] == end)
        .map(|line| line["client.port"].as_u64().unwrap())
        .collect()
}

/// The policy is reloaded after the listener has closed as well, and denies nobody.
fn follows_the_policy(lines: &[serde_json::Value]) {
    let signal = lines.iter().position(|line| line["message"] == "draining");
    let since = lines[signal.unwrap()..].iter();
    let reloaded: Vec<_> = since
        .filter(|line| line["message"] == "policy reloaded")
        .collect();
    // What is never answered makes the drain last until its deadline: time for three or four.
    assert!(reloaded.len() >= 2, "{reloaded:?}");
    assert!(reloaded.iter().all(|line| line["revoked"] == 0));
}

fn sheds_idle_first(lines: &[serde_json::Value], idle_ports: &HashSet<u64>) {
    let shed = clients_of(lines, "drained");
    let (first, last) = shed.split_at(EACH);
    assert!(
        first.iter().all(|client| idle_ports.contains(client)),
        "{shed:?} of which {idle_ports:?} were idle"
    );
    assert_eq!(last.len(), EACH);
    assert_eq!(clients_of(lines, "closed").len(), EACH);
}

#[test]
fn a_drain_under_load_and_reloads_loses_no_request_and_sheds_idle_tunnels_first() {
    let origin = origin::start();
    let folder = PolicyFolder::with(&policy(origin, 0));
    let file = folder.file();
    let by_file = ("OUTGATE_POLICY_FILE", file.to_str().unwrap());
    let mut running = gateway_with(by_file, "1s", "6s");
    let (stop, reloads) = keep_reloading(file.clone(), origin);
    let proxy = running.proxy;
    // The busy ones are the older, so that only their traffic can tell them from the idle.
    let busy: Vec<_> = (0..EACH).map(|_| tunnel(proxy, origin)).collect();
    let idle: Vec<_> = (0..EACH).map(|_| tunnel(proxy, origin)).collect();
    let idle_ports: HashSet<_> = idle.iter().map(|tunnel| u64::from(port(tunnel))).collect();
    let closing: Vec<_> = busy
        .into_iter()
        .map(|tunnel| closed(tunnel, true))
        .chain(idle.into_iter().map(|tunnel| closed(tunnel, false)))
        .collect();
    let (begun, under_way) = mpsc::channel();
    let in_flight: Vec<_> = in_flight::ALL
        .iter()
        .flat_map(|doing| [*doing; EACH])
        .map(|doing| in_flight::start(doing, proxy, origin, begun.clone()))
        .collect();
    let load = load(proxy, origin);
    let mut slow: Vec<_> = (0..EACH)
        .map(|_| ask(proxy, origin, "/after/2500"))
        .collect();
    let mut never = ask(proxy, origin, "/never");
    // Answered means that those before it have been accepted.
    assert!(answer(&mut ask(proxy, origin, "/after/0")).ends_with("ok"));
    for _ in &in_flight {
        under_way.recv().unwrap();
    }
    running.signal(Signal::TERM);

    let lines = running.lines_to("drained");
    drop(stop);
    reloads.join().unwrap();
    follows_the_policy(&lines);
    for load in load {
        let times = load.join().unwrap();
        assert!(times > 1, "that was no load");
    }
    for client in in_flight {
        client.join().unwrap();
    }
    for slow in &mut slow {
        let answer = answer(slow);
        assert!(answer.ends_with("\r\n\r\nok"), "lost: {answer:?}");
    }
    let times = times(closing);
    let spread = *times.last().unwrap() - times[0];
    assert!(
        spread > Duration::from_millis(250),
        "all within {spread:?}: {times:?}"
    );
    sheds_idle_first(&lines, &idle_ports);
    assert_eq!(answer(&mut never), "");
    let line = lines.last().unwrap();
    assert_eq!(line["tunnels_closed"], 2 * EACH);
    assert_eq!(line["connections_cut"], 1);
    assert_eq!(line["hurried"], false);
    assert_eq!(running.exit_code(PATIENCE), Some(0));
    assert_eq!(running.lines.next(), None, "it was the last word");
}

#[test]
fn a_second_signal_or_an_interrupt_ends_it_at_once_and_tells_what_that_cut() {
    for (drains, last) in [
        (true, Signal::TERM),
        (true, Signal::INT),
        (false, Signal::INT),
    ] {
        ends_at_once(drains, last);
    }
}

/// Ended by its last signal, while it drains or out of the midst of its work.
fn ends_at_once(drains: bool, last: Signal) {
    let origin = origin::start();
    let mut running = gateway(origin, "60s", "60s");
    let tunnels: Vec<_> = (0..2)
        .map(|_| closed(tunnel(running.proxy, origin), false))
        .collect();
    let mut never = ask(running.proxy, origin, "/never");
    assert!(answer(&mut ask(running.proxy, origin, "/after/0")).ends_with("ok"));
    // That connection is gone, and those of the tunnels and of what is never answered are left.
    let open = "outgate_connections_active{listener=\"proxy\"} ";
    wait_for(&running, open, |connections| connections == 3);
    if drains {
        running.signal(Signal::TERM);
        running.line("draining");
    }
    running.signal(last);
    assert_eq!(running.exit_code(AT_ONCE), Some(3));
    let line = running.line("drained");
    assert_eq!(line["tunnels_closed"], 2);
    assert_eq!(line["connections_cut"], 1);
    assert_eq!(line["hurried"], true);
    assert_eq!(answer(&mut never), "");
    times(tunnels);
}

#[test]
fn a_second_signal_does_not_wait_for_first_requests() {
    let origin = origin::start();
    let mut running = gateway(origin, "60s", "60s");
    let silent: Vec<_> = (0..EACH)
        .map(|_| TcpStream::connect(running.proxy).unwrap())
        .collect();
    let mut never = ask(running.proxy, origin, "/never");
    // Answered means that those before it have been accepted.
    assert!(answer(&mut ask(running.proxy, origin, "/after/0")).ends_with("ok"));
    running.signal(Signal::TERM);
    running.line("draining");
    running.signal(Signal::TERM);
    // It has ended when this is cut, and then the others ask.
    assert_eq!(answer(&mut never), "");
    let answers = silent.into_iter().map(|mut client| {
        let _ = client.write_all(b"GET http://denied.test/ HTTP/1.1\r\nHost: x\r\n\r\n");
        answer(&mut client)
    });
    // One of them may have asked before its task saw the end.
    let answered = answers.filter(|answer| !answer.is_empty()).count();
    assert!(answered < EACH, "all were answered");
}

#[test]
fn an_interrupt_that_cuts_nothing_is_a_success() {
    let mut running = gateway(1, "60s", "60s");
    running.signal(Signal::INT);
    let line = running.line("drained");
    assert_eq!(line["connections_cut"], 0);
    assert_eq!(running.exit_code(PATIENCE), Some(0));
}
