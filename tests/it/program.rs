use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

// One line a request, and what is on it.
mod access_log;
// Log lines and spans that nobody takes.
mod backlog;
// Few descriptors, and bulk in every tunnel.
mod bulk;
// Few descriptors, and many connections.
mod descriptors;
// Signals, under load.
mod drain;
// Which spans are exported, and that they are before the end.
mod exported;
// Who has nothing more to say, and waits.
mod half_closed;
// What is not copied.
mod large_content;
// Name servers and names that mean harm.
mod names;
// The policy file, from the command line.
mod policy;
// What clients hold that do not read.
mod slow_readers;
// The variables of OpenTelemetry.
mod tracing;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(60);

fn outgate(variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outgate"));
    command
        .env_clear()
        .envs(variables.iter().copied())
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn output(variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    outgate(variables, arguments).output().unwrap()
}

/// A gateway started as a user would; killed when the test ends.
struct Running {
    process: Child,
    lines: Lines,
    /// What was logged before it listened.
    before: Vec<serde_json::Value>,
    proxy: SocketAddr,
    admin: SocketAddr,
}

impl Running {
    fn start(variables: &[(&str, &str)]) -> Self {
        Self::of(outgate(variables, &[]))
    }

    fn of(mut command: Command) -> Self {
        command
            .env("OUTGATE_LISTEN", "127.0.0.1:0")
            .env("OUTGATE_ADMIN_LISTEN", "127.0.0.1:0")
            .env("OUTGATE_INSPECT_LISTEN", "off")
            .env("OUTGATE_LOG_FORMAT", "json");
        let mut process = command.spawn().unwrap();
        let mut lines = Lines(process.stdout.take().map(BufReader::new));
        let mut before = Vec::new();
        let mut address_of = |listener| loop {
            let line = lines.next().expect("the gateway has ended");
            if line["message"] == "listening" && line["listener"] == listener {
                return line["address"].as_str().unwrap().parse().unwrap();
            }
            before.push(line);
        };
        let (proxy, admin) = (address_of("proxy"), address_of("admin"));
        Self {
            process,
            lines,
            before,
            proxy,
            admin,
        }
    }

    fn line(&mut self, message: &str) -> serde_json::Value {
        self.lines_to(message).pop().unwrap()
    }

    /// Everything that is logged, to the line with this message.
    fn lines_to(&mut self, message: &str) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        loop {
            let line = self.lines.next().expect("the gateway has ended");
            let is_last = line["message"] == message;
            lines.push(line);
            if is_last {
                return lines;
            }
        }
    }

    /// Stops the gateway, and gives what it had still to say.
    fn last_lines(mut self) -> Vec<serde_json::Value> {
        self.signal(rustix::process::Signal::TERM);
        self.lines.by_ref().collect()
    }

    /// Its exit code, once it has ended; it is waited for no longer than this.
    fn exit_code(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                Instant::now() < deadline,
                "it has not ended in {patience:?}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the gateway writes, to its end; nothing is read before it is asked for, and nothing at all without a reader.
struct Lines(Option<BufReader<ChildStdout>>);

impl Iterator for Lines {
    type Item = serde_json::Value;

    /// Reads on a thread: a read has no timeout, and a gateway that writes nothing is not waited for without end.
    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = self.0.take()?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = reader.read_line(&mut line).map(|_| line);
            let _ = sender.send((reader, read));
        });
        let (reader, read) = receiver
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("the gateway has written nothing for {PATIENCE:?}"));
        self.0 = Some(reader);
        let line = read.unwrap();
        let parsed =
            || serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        (!line.is_empty()).then(parsed)
    }
}

#[test]
fn every_bad_variable_is_named_with_its_value_and_stops_the_start_with_78() {
    let output = output(
        &[
            ("OUTGATE_CONNECT_TIMEOUT", "soon"),
            ("OUTGATE_ALLOW", "*.com"),
            ("OUTGATE_ALOW", "api.example.com"),
        ],
        &[],
    );
    assert_eq!(output.status.code(), Some(78));
    let message = String::from_utf8(output.stderr).unwrap();
    for part in [
        "OUTGATE_CONNECT_TIMEOUT",
        "soon",
        "*.com",
        "OUTGATE_ALOW",
        "OUTGATE_ALLOW",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn a_bad_log_filter_stops_the_start_with_78() {
    let output = output(&[("OUTGATE_LOG", "outgate=loud")], &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("OUTGATE_LOG"));
}

#[test]
fn a_taken_port_stops_the_start_and_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = output(&[("OUTGATE_LISTEN", &address)], &[]);
    assert_eq!(output.status.code(), Some(78));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains(&address) && message.contains("OUTGATE_LISTEN"),
        "{message}"
    );
}

#[test]
fn config_prints_what_it_was_given_in_the_notation_it_reads() {
    let output = output(&[("OUTGATE_IDLE_TIMEOUT", "90s")], &["config"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("OUTGATE_IDLE_TIMEOUT=1m30s") || text.contains("OUTGATE_IDLE_TIMEOUT=90s"),
        "{text}"
    );
    assert!(text.contains("OUTGATE_CONNECT_TIMEOUT=10s"), "{text}");
}

#[test]
fn help_lists_every_variable() {
    let output = output(&[], &["--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for variable in outgate::config::VARIABLES {
        assert!(text.contains(variable.name), "{}", variable.name);
    }
}

#[test]
fn check_tells_the_verdict_the_rule_and_the_addresses() {
    let variables = [
        ("OUTGATE_ALLOW", "localhost:*"),
        ("OUTGATE_DNS_SERVERS", "127.0.0.1:9"),
    ];
    let refused = output(&variables, &["check", "evil.test:443"]);
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8(refused.stdout).unwrap();
    assert!(text.contains("host_not_allowed"), "{text}");

    let guarded = output(&variables, &["check", "localhost:443"]);
    assert_eq!(guarded.status.code(), Some(1));
    let text = String::from_utf8(guarded.stdout).unwrap();
    let decides = "localhost:443: address_prohibited: allowed by rule `localhost:*`, but the guard refuses every address of it\n";
    assert!(text.starts_with(decides), "{text}");
    assert!(text.contains("  allow `localhost:*`: decides\n"), "{text}");
    assert!(text.contains("127.0.0.1 is in 127.0.0.0/8"), "{text}");

    let open = [
        &variables[..],
        &[("OUTGATE_ALLOW_ADDRESSES", "127.0.0.0/8 ::1")],
    ]
    .concat();
    let allowed = output(&open, &["check", "http://localhost/"]);
    assert_eq!(allowed.status.code(), Some(0));
    let text = String::from_utf8(allowed.stdout).unwrap();
    assert!(
        text.starts_with("localhost:80: allowed by rule `localhost:*`\n"),
        "{text}"
    );
    assert!(text.contains("may be dialled"), "{text}");
}

#[test]
fn healthcheck_asks_the_gateway_of_this_host() {
    let mut running = Running::start(&[]);
    let admin = running.admin.to_string();
    let variables = [("OUTGATE_ADMIN_LISTEN", &*admin)];
    assert!(output(&variables, &["healthcheck"]).status.success());
    assert!(
        output(&variables, &["healthcheck", "--live"])
            .status
            .success()
    );
    running.signal(rustix::process::Signal::TERM);
    running.line("draining");
    assert_eq!(output(&variables, &["healthcheck"]).status.code(), Some(1));
    assert!(
        output(&variables, &["healthcheck", "--live"])
            .status
            .success()
    );
    let nobody = [("OUTGATE_ADMIN_LISTEN", "127.0.0.1:9")];
    assert_eq!(output(&nobody, &["healthcheck"]).status.code(), Some(1));
}

#[test]
fn a_terminated_gateway_exits_0_and_says_what_was_cut() {
    let variables = [
        ("OUTGATE_DRAIN_DELAY", "0s"),
        ("OUTGATE_DRAIN_TIMEOUT", "1s"),
    ];
    let mut running = Running::start(&variables);
    running.signal(rustix::process::Signal::TERM);
    let line = running.line("drained");
    assert_eq!(line["tunnels_closed"], 0);
    assert_eq!(running.exit_code(PATIENCE), Some(0));
}

/// Gone without a word.
fn reset(client: TcpStream) {
    let no_time = Some(Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(&client, no_time).unwrap();
    drop(client);
}

/// A head, to the empty line.
fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn get(server: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The value of a metric, named with all that stands before it.
fn metric(running: &Running, name: &str) -> u64 {
    let metrics = get(running.admin, "/metrics");
    let value = metrics.lines().find_map(|line| line.strip_prefix(name));
    let value = value.unwrap_or_else(|| panic!("no {name}in {metrics}"));
    value.parse::<f64>().unwrap() as u64
}

/// Waits for a metric to be what it should.
fn wait_for(running: &Running, name: &str, is_so: impl Fn(u64) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = metric(running, name);
        if is_so(seen) {
            return;
        }
        assert!(Instant::now() < deadline, "{name}is {seen}");
        thread::sleep(Duration::from_millis(10));
    }
}
