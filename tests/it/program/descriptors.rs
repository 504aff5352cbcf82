use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::{PATIENCE, Running, get, head, metric, wait_for};

const DENIED: &str = "CONNECT evil.test:443 HTTP/1.1\r\nHost: x\r\n\r\n";

/// A gateway that may have so many descriptors and no more.
pub(super) fn start(descriptors: usize, variables: &[(&str, &str)]) -> Running {
    start_under(&format!("ulimit -n {descriptors}"), variables)
}

/// A gateway under limits that a shell sets.
fn start_under(limits: &str, variables: &[(&str, &str)]) -> Running {
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_outgate");
    command
        .args(["-c", &format!("{limits} && exec {program}")])
        .env_clear()
        .envs(variables.iter().copied())
        .stdout(Stdio::piped());
    Running::of(command)
}

pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(super) fn ask(address: SocketAddr, request: &str) -> String {
    try_ask(address, request).unwrap()
}

fn try_ask(address: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

const ACTIVE: &str = "outgate_connections_active{listener=\"proxy\"} ";

#[test]
fn the_limit_on_connections_comes_from_the_descriptors_and_is_logged() {
    let mut running = start(400, &[]);
    let limits = logged_before(&running, "limits");
    assert_eq!(limits["descriptors"], 400);
    assert_eq!(limits["max_connections"], 100);
    assert_eq!(metric(&running, "outgate_connections_limit "), 100);
    let mut clients: Vec<_> = (0..100).map(|_| connect(running.proxy)).collect();
    wait_for(&running, ACTIVE, |active| active == 100);
    let refused = ask(running.proxy, DENIED);
    let status = "HTTP/1.1 503 egress failed: connection_limit\r\n";
    assert!(refused.starts_with(status), "{refused}");
    assert!(refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
    assert!(get(running.admin, "/livez").starts_with("HTTP/1.1 200 "));
    clients.truncate(99);
    wait_for(&running, ACTIVE, |active| active == 99);
    let served = ask(running.proxy, DENIED);
    assert!(served.starts_with("HTTP/1.1 403 "), "{served}");
    running.signal(rustix::process::Signal::INT);
    running.line("drained");
}

#[test]
fn a_soft_limit_on_descriptors_is_raised_to_the_hard_one() {
    let running = start_under("ulimit -Sn 256 && ulimit -Hn 400", &[]);
    let limits = logged_before(&running, "limits");
    assert_eq!(limits["descriptors"], 400);
    assert_eq!(limits["max_connections"], 100);
    assert_eq!(metric(&running, "outgate_connections_limit "), 100);
    let process = Pid::from_child(&running.process);
    let raised = Rlimit {
        current: Some(400),
        maximum: Some(400),
    };
    let in_force = prlimit(Some(process), Resource::Nofile, raised).unwrap();
    assert_eq!(in_force, raised);
}

#[test]
fn the_limit_that_comes_from_the_descriptors_can_be_had_in_tunnels_again_and_again() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = origin.local_addr().unwrap().to_string();
    let running = start(1000, &[("OUTGATE_ALLOW", &target)]);
    let connect_head = format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let tunnel = || {
        let mut client = connect(running.proxy);
        client.write_all(connect_head.as_bytes()).unwrap();
        let mut status = [0; "HTTP/1.1 200".len()];
        client.read_exact(&mut status).unwrap();
        assert_eq!(String::from_utf8_lossy(&status), "HTTP/1.1 200");
        (client, origin.accept().unwrap())
    };
    for _ in 0..2 {
        let tunnels: Vec<_> = (0..400).map(|_| tunnel()).collect();
        let refused = ask(running.proxy, &connect_head);
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
        drop(tunnels);
        wait_for(&running, ACTIVE, |active| active == 0);
    }
}

fn logged_before(running: &Running, message: &str) -> serde_json::Value {
    let mut lines = running.before.iter();
    let line = lines.find(|line| line["message"].as_str().unwrap().starts_with(message));
    line.unwrap_or_else(|| panic!("{message} is not in {:?}", running.before))
        .clone()
}

#[test]
fn a_limit_that_the_descriptors_are_not_good_for_leaves_the_admin_port_its_own() {
    let running = start(512, &[("OUTGATE_MAX_CONNECTIONS", "10000")]);
    let warning = logged_before(&running, "OUTGATE_MAX_CONNECTIONS is more");
    assert_eq!(warning["good_for"], 156);
    // Each is served, answered 503, or closed; none is left waiting.
    let clients: Vec<_> = (0..600).map(|_| connect(running.proxy)).collect();
    let rejected = "outgate_connections_rejected_total{reason=\"connection_limit\"} ";
    wait_for(&running, rejected, |rejected| rejected >= 100);
    wait_for(&running, ACTIVE, |active| {
        active == 600 - metric(&running, rejected)
    });
    // Of many at once only some get a word; the next one does when those have read it.
    let deadline = Instant::now() + PATIENCE;
    while !try_ask(running.proxy, DENIED)
        .is_ok_and(|answer| answer.starts_with("HTTP/1.1 503 egress failed: connection_limit\r\n"))
    {
        assert!(Instant::now() < deadline);
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = get(running.admin, path);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    drop(clients);
    wait_for(&running, ACTIVE, |active| active == 0);
    let served = ask(running.proxy, DENIED);
    assert!(served.starts_with("HTTP/1.1 403 "), "{served}");
}

#[test]
fn a_client_whose_upstream_gets_no_descriptor_is_told_that_there_is_no_room() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = origin.local_addr().unwrap().to_string();
    let variables = [
        ("OUTGATE_ALLOW", &*target),
        ("OUTGATE_MAX_CONNECTIONS", "10000"),
    ];
    let running = start(512, &variables);
    thread::spawn(move || {
        for stream in origin.incoming() {
            let mut stream = stream.unwrap();
            // It ends when its client does.
            thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
    });
    // They ask for nothing yet, and leave descriptors for some fifty upstreams.
    let mut clients: Vec<_> = (0..400).map(|_| connect(running.proxy)).collect();
    wait_for(&running, ACTIVE, |active| active == 400);
    let connect_head = format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let answers: Vec<_> = clients
        .iter_mut()
        .map(|client| {
            client.write_all(connect_head.as_bytes()).unwrap();
            head(client).unwrap()
        })
        .collect();
    let refused = answers
        .iter()
        .filter(|answer| answer.starts_with("HTTP/1.1 503 egress failed: connection_limit\r\n"));
    assert!(
        refused
            .clone()
            .all(|answer| answer.contains("\r\nretry-after: 1\r\n"))
    );
    let refused = refused.count();
    let tunnels = answers
        .iter()
        .filter(|answer| answer.starts_with("HTTP/1.1 200 "))
        .count();
    assert!(tunnels > 0 && refused > 0, "{tunnels} {refused}");
    assert_eq!(tunnels + refused, 400, "{answers:?}");
    let counted = format!(
        "outgate_requests_total{{kind=\"connect\",reason=\"connection_limit\",result=\"failed\",rule=\"{target}\"}} "
    );
    wait_for(&running, &counted, |counted| counted == refused as u64);
    drop(clients);
    wait_for(&running, ACTIVE, |active| active == 0);
}

#[test]
fn names_that_nobody_answers_for_leave_descriptors_to_the_admin_port_and_to_other_clients() {
    // It takes every question and says nothing.
    let name_server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = origin.local_addr().unwrap().to_string();
    let running = start(
        1000,
        &[
            (
                "OUTGATE_DNS_SERVERS",
                &name_server.local_addr().unwrap().to_string(),
            ),
            ("OUTGATE_ALLOW", &format!("*.dns.test:443 {target}")),
        ],
    );
    let room = metric(&running, "outgate_connections_limit ");
    let ask_for = |name: u64| {
        let mut client = connect(running.proxy);
        let host = format!("n{name}.dns.test:443");
        write!(client, "CONNECT {host} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        client
    };
    let clients: Vec<_> = (0..room - 40).map(ask_for).collect();
    let looked_up = "outgate_dns_lookup_duration_seconds_count{result=\"dns_timeout\"} ";
    let deadline = Instant::now() + PATIENCE;
    // For as long as they wait, and their questions are asked again and again.
    while !get(running.admin, "/metrics").contains(looked_up) {
        let health = get(running.admin, "/livez");
        assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
        let mut client = connect(running.proxy);
        write!(client, "CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut status = [0; "HTTP/1.1 200".len()];
        client.read_exact(&mut status).unwrap();
        assert_eq!(String::from_utf8_lossy(&status), "HTTP/1.1 200");
        origin.accept().unwrap();
        assert!(Instant::now() < deadline);
    }
    // Whoever did not get to ask is told that it was the gateway.
    let answers: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let mut status = String::new();
            BufReader::new(client).read_line(&mut status).unwrap();
            status
        })
        .collect();
    let of = |status: &str| {
        let those = answers.iter().filter(|answer| answer.starts_with(status));
        those.count()
    };
    let silent = of("HTTP/1.1 504 egress failed: dns_timeout\r\n");
    let crowded = of("HTTP/1.1 503 egress failed: connection_limit\r\n");
    assert!(silent > 0 && crowded > 0, "{answers:?}");
    assert_eq!(silent + crowded, answers.len(), "{answers:?}");
}

#[test]
fn a_gateway_without_descriptors_waits_longer_and_longer_and_serves_who_waited() {
    let mut running = start(512, &[]);
    let mut kept = connect(running.admin);
    let mut client = connect(running.proxy);
    wait_for(&running, ACTIVE, |active| active == 1);
    let process = Pid::from_child(&running.process);
    let limit = |soft| Rlimit {
        current: Some(soft),
        maximum: Some(512),
    };
    // It keeps those it has, and gets no further one.
    prlimit(Some(process), Resource::Nofile, limit(0)).unwrap();
    let mut late = connect(running.proxy);
    late.write_all(DENIED.as_bytes()).unwrap();
    // Each pause is twice the last, and lasts as long as it says: it does not spin.
    let mut last = None;
    for pause in [5.0, 10.0, 20.0, 40.0, 80.0, 160.0] {
        let line = running.line("cannot accept");
        assert_eq!(line["pause_ms"], pause, "{line}");
        assert_eq!(line["level"], "WARN");
        let now = time_of_day(&line);
        if let Some((begun, pause)) = last.replace((now, pause)) {
            let lasted = (now - begun).rem_euclid(DAY);
            // The clock may be set right meanwhile, by less than this.
            assert!(lasted > pause - 1.0, "{lasted} ms, not {pause}");
        }
    }
    // Whoever is there already is served meanwhile.
    client.write_all(DENIED.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let head = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    kept.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    prlimit(Some(process), Resource::Nofile, limit(512)).unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let health = get(running.admin, "/livez");
    assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
}

/// In milliseconds.
const DAY: f64 = 86_400_000.0;

/// When a line was written, in milliseconds of its day.
fn time_of_day(line: &serde_json::Value) -> f64 {
    let (_, time) = line["timestamp"].as_str().unwrap().split_once('T').unwrap();
    let parts = time.trim_end_matches('Z').split(':');
    let seconds = parts.fold(0.0, |before, part| {
        before * 60.0 + part.parse::<f64>().unwrap()
    });
    seconds * 1000.0
}

#[test]
fn ten_thousand_connections_that_send_nothing_keep_nobody_waiting_and_end() {
    const SILENT: usize = 10_000;
    const DESCRIPTORS: usize = 20_000;
    let own = outgate::limits::raise_descriptors();
    assert!(
        own >= DESCRIPTORS as u64,
        "this test needs a hard RLIMIT_NOFILE of {DESCRIPTORS}, and has {own}"
    );
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = origin.local_addr().unwrap().to_string();
    let variables = [
        ("OUTGATE_MAX_CONNECTIONS", "10100"),
        ("OUTGATE_HEADER_TIMEOUT", "15s"),
        ("OUTGATE_ALLOW", &*target),
    ];
    let running = start(DESCRIPTORS, &variables);
    let memory = "process_resident_memory_bytes ";
    let descriptors = "process_open_fds ";
    let (memory_before, descriptors_before) =
        (metric(&running, memory), metric(&running, descriptors));
    let silent: Vec<_> = (0..SILENT).map(|_| connect(running.proxy)).collect();
    wait_for(&running, ACTIVE, |active| active == SILENT as u64);
    let each = (metric(&running, memory) - memory_before) / SILENT as u64;
    // Without optimisation it is some 17 KB.
    assert!(each < 32 * 1024, "{each} bytes for each connection");

    // Others are served meanwhile.
    let mut tunnel = connect(running.proxy);
    write!(tunnel, "CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let (mut upstream, _) = origin.accept().unwrap();
    upstream.write_all(b"through").unwrap();
    drop(upstream);
    tunnel.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    tunnel.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("through"),
        "{answer}"
    );
    assert!(get(running.admin, "/livez").starts_with("HTTP/1.1 200 "));
    // All of them are there still, or it took longer than the header timeout.
    wait_for(&running, ACTIVE, |active| active == SILENT as u64);

    // Then their time is over, and that is counted.
    wait_for(&running, ACTIVE, |active| active == 0);
    let rejected = "outgate_connections_rejected_total{reason=\"header_timeout\"} ";
    assert_eq!(metric(&running, rejected), SILENT as u64);
    for mut client in silent {
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    wait_for(&running, descriptors, |open| open <= descriptors_before + 4);
}
