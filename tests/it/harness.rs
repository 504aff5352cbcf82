//! A gateway, origins and clients on loopback, at ports of the kernel's choice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::Hosts;
use outgate::config::Config;
use outgate::drain::{Drained, Stop};
use outgate::gateway::Gateway;
use outgate::listen::Listeners;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

pub(crate) mod collector;
pub(crate) mod dns;
pub(crate) mod origin;
pub(crate) mod sockets;
pub(crate) mod tls;
pub(crate) mod vacant;
pub(crate) mod watched;

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Configures a [`TestProxy`].
pub(crate) struct Builder {
    config: Config,
    hosts: String,
}

/// A running gateway.
pub(crate) struct TestProxy {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) inspect: SocketAddr,
    stops: mpsc::Sender<Stop>,
    running: JoinHandle<Drained>,
}

impl TestProxy {
    /// A gateway that allows nothing. Names under `.test` that tests use resolve to loopback, and
    /// loopback may be dialled.
    pub(crate) fn builder() -> Builder {
        let mut config = Config::default();
        config.listen = vec![any_port()];
        config.admin_listen = any_port();
        config.inspect_listen = Some(any_port());
        config.allow_addresses = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        // The discard port: whatever is not in the hosts below fails at once.
        config.dns_servers = vec![SocketAddr::from(([127, 0, 0, 1], 9))];
        config.drain_delay = Duration::ZERO;
        Builder {
            config,
            hosts: "127.0.0.1 origin.test a.origin.test other.test\n".to_owned(),
        }
    }

    /// A new connection to the gateway.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The same of another client, at 127.0 and these.
    pub(crate) async fn connect_from(&self, last: [u8; 2]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        let address = [127, 0, last[0], last[1]];
        socket.bind((address, 0).into()).unwrap();
        within(socket.connect(self.address)).await.unwrap()
    }

    /// Sends one request on a new connection and reads the answer to its end.
    pub(crate) async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        send(&mut stream, request.as_bytes()).await;
        read_response(&mut stream).await
    }

    /// An open tunnel to a target.
    pub(crate) async fn tunnel(&self, target: &str) -> TcpStream {
        let mut stream = self.connect().await;
        send(&mut stream, connect_head(target).as_bytes()).await;
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        stream
    }

    /// Everything `/metrics` shows.
    pub(crate) async fn metrics(&self) -> String {
        get(self.admin, "/metrics").await
    }

    /// Waits until `/metrics` has a line.
    pub(crate) async fn shows(&self, line: &str) {
        self.shows_one_of(&[line.to_owned()]).await;
    }

    /// Waits until `/metrics` has one of these lines.
    pub(crate) async fn shows_one_of(&self, lines: &[String]) {
        let seen = async {
            while !self
                .metrics()
                .await
                .lines()
                .any(|seen| lines.iter().any(|line| line == seen))
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, seen).await.is_err() {
            let name = lines[0].split(['{', ' ']).next().unwrap();
            let metrics = self.metrics().await;
            let near: Vec<_> = metrics
                .lines()
                .filter(|seen| seen.starts_with(name))
                .collect();
            panic!("none of {lines:#?} came; last seen: {near:#?}");
        }
    }

    /// Asks the gateway to stop.
    pub(crate) async fn stop(&self, stop: Stop) {
        self.stops.send(stop).await.unwrap();
    }

    /// Waits for the gateway to end.
    pub(crate) async fn ended(self) -> Drained {
        within(self.running).await.unwrap()
    }
}

impl Builder {
    pub(crate) fn allow(mut self, rule: &str) -> Self {
        self.config.allow.push(rule.parse().unwrap());
        self
    }

    pub(crate) fn deny(mut self, rule: &str) -> Self {
        let deny = outgate::policy::Action::Deny;
        self.config
            .deny
            .push(outgate::policy::Rule::parse(rule, deny).unwrap());
        self
    }

    /// Another line for the hosts file.
    pub(crate) fn host(mut self, line: &str) -> Self {
        self.hosts.push_str(line);
        self.hosts.push('\n');
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    pub(crate) async fn start(self) -> TestProxy {
        let listeners = Listeners::bind(&self.config).unwrap();
        let address = listeners.proxy[0].local_addr().unwrap();
        let admin = listeners.admin.local_addr().unwrap();
        let inspect = listeners.inspect.as_ref().unwrap().local_addr().unwrap();
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(self.hosts.as_bytes()).unwrap();
        let gateway = Gateway::new(self.config, listeners, hosts).unwrap();
        let (stops, receiver) = mpsc::channel(2);
        let running = tokio::spawn(gateway.run(receiver, Arc::new(Notify::new()), None));
        TestProxy {
            address,
            admin,
            inspect,
            stops,
            running,
        }
    }
}

/// Loopback, at a port of the kernel's choice.
pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// How `/metrics` counts one plain request to `origin.test` that failed for a reason.
pub(crate) fn failed(reason: &str) -> String {
    format!(
        "outgate_requests_total{{kind=\"forward\",reason=\"{reason}\",result=\"failed\",rule=\"origin.test:*\"}} 1"
    )
}

/// The head of a `CONNECT`.
pub(crate) fn connect_head(target: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
}

/// Fails the test rather than wait for ever.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("waited too long")
}

pub(crate) async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    within(stream.write_all(bytes)).await.unwrap();
}

/// A head, to the empty line; nothing behind it is read.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match within(stream.read_u8()).await {
            Ok(byte) => head.push(byte),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).unwrap()
}

/// A response: its head, and its content by `Content-Length`, by chunks, or to the end.
pub(crate) async fn read_response(stream: &mut TcpStream) -> String {
    let mut response = read_head(stream).await;
    let lower = response.to_ascii_lowercase();
    if let Some(length) = field(&lower, "content-length") {
        let mut content = vec![0; length.parse().unwrap()];
        within(stream.read_exact(&mut content)).await.unwrap();
        response.push_str(&String::from_utf8_lossy(&content));
    } else if field(&lower, "transfer-encoding") == Some("chunked") {
        while !response.ends_with("0\r\n\r\n") {
            response.push(within(stream.read_u8()).await.unwrap().into());
        }
    } else {
        response.push_str(&read_to_end(stream).await);
    }
    response
}

/// Whatever comes until the other side closes.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.unwrap();
    String::from_utf8_lossy(&rest).into_owned()
}

/// The value of a field in a head.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The content of a `GET` without a proxy.
pub(crate) async fn get(server: SocketAddr, path: &str) -> String {
    let response = call(server, "GET", path).await;
    response.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The whole response to a request without a proxy.
pub(crate) async fn call(server: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    send(&mut stream, request.as_bytes()).await;
    read_to_end(&mut stream).await
}
