//! The gateway under test, and what its metrics say.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hickory_resolver::Hosts;
use outgate::config::Config;
use outgate::drain::{Drain, Drainer};
use outgate::enforced::Enforced;
use outgate::gateway::resolver;
use outgate::listen::Listeners;
use outgate::metrics::{Exposition, Kind, Metrics, Outcome};
use outgate::policy::Policy;
use outgate::policy::file::PolicyFile;
use outgate::proxy::{self, Dialer, Proxy};
use outgate::tunnels::Tunnels;
use tokio::net::TcpStream;

use crate::upstream::{DENIED, GUARDED, ORIGIN, TUNNEL, Upstreams};

/// Longer than anything here takes; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(8);

/// A rule with a path admits plain HTTP only, so every byte at the origin is that of a plain request.
pub(crate) const PERMISSIVE: &str = "
rules:
  - { name: origin, hosts: [origin.test], ports: [PORT], path: / }
  - { name: secret, action: deny, hosts: [origin.test], ports: [PORT], path: /secret/ }
  - { name: tunnel, hosts: [tunnel.test, 127.77.0.2], ports: [PORT] }
  - { name: guarded, hosts: [guarded.test], ports: [PORT] }
";

pub(crate) const RESTRICTIVE: &str = "
clients:
  - { name: batch, user: batch }
rules:
  - { name: ok, hosts: [origin.test], ports: [PORT], path: /ok/ }
  - { name: tunnel, hosts: [tunnel.test], ports: [PORT], clients: [batch] }
";

pub(crate) struct Gateway {
    address: SocketAddr,
    proxy: Arc<Proxy>,
    metrics: Arc<Metrics>,
    rejected: AtomicU64,
    drain: Drain,
    /// Nothing drains while it lives.
    _drainer: Drainer,
}

impl Gateway {
    pub(crate) async fn start(upstreams: &Upstreams, policy: &str) -> Self {
        let mut config = Config::default();
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        (config.listen, config.admin_listen, config.inspect_listen) = (vec![any_port], any_port, None);
        config.access_log = false;
        config.max_header_bytes = 8 * 1024;
        // The discard port: no name is looked up anywhere but in the hosts below.
        config.dns_servers = vec![SocketAddr::from(([127, 0, 0, 1], 9))];
        config.dns_timeout = Duration::from_millis(200);
        let listener = Listeners::bind(&config).unwrap().proxy.remove(0);
        let config = Arc::new(config);
        let metrics = Arc::new(Metrics::new().unwrap());
        let (idle, age) = (config.idle_timeout, config.max_lifetime);
        let tunnels = Arc::new(Tunnels::new(Arc::clone(&metrics), false, idle, age));
        let (drainer, drain) = Drainer::new(&config, Arc::clone(&tunnels), Arc::clone(&metrics));
        let policy = String::from_utf8(upstreams.with_ports(policy.as_bytes())).unwrap();
        let enforced = Enforced::new(built(&policy), Arc::clone(&metrics));
        let dialer = Dialer::new(config.connect_timeout, Vec::new(), 100);
        let resolver = resolver(&config, hosts()).unwrap();
        let proxy = Proxy::new(config, enforced, resolver, dialer, tunnels, Arc::clone(&metrics), 100);
        let proxy = Arc::new(proxy.unwrap());
        let address = listener.local_addr().unwrap();
        tokio::spawn(proxy::serve(Arc::clone(&proxy), listener, drain.clone()));
        Self { address, proxy, metrics, rejected: AtomicU64::new(0), drain, _drainer: drainer }
    }

    /// Requests accounted for so far.
    pub(crate) fn requests(&self) -> u64 {
        let kinds = [Kind::Connect, Kind::Forward];
        let each = kinds.iter().flat_map(|kind| Outcome::ALL.iter().map(move |outcome| (*kind, *outcome)));
        each.map(|(kind, outcome)| self.metrics.request_duration(kind, outcome).get_sample_count()).sum()
    }

    /// Connections that were answered without a request, since this was last asked. Dear, so asked when in doubt.
    pub(crate) fn rejections(&self) -> u64 {
        let text = self.metrics.render(Exposition::Text, 0).unwrap();
        let of = |name: &str| {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
        };
        assert_eq!(of("outgate_requests_total{"), self.requests(), "a request without its duration");
        let rejected = of("outgate_connections_rejected_total{");
        rejected - self.rejected.swap(rejected, Ordering::Relaxed)
    }

    /// A connection over TCP. What was answered without a request before is not of this input.
    pub(crate) async fn connect(&self) -> TcpStream {
        self.rejections();
        let client = TcpStream::connect(self.address).await.unwrap();
        within("the accept", until(|| self.metrics.clients() > 0)).await;
        client
    }

    /// A connection whose other end the handler has at once.
    pub(crate) fn connect_in_memory(&self) -> TcpStream {
        let (client, server) = UnixStream::pair().unwrap();
        proxy::admit(&self.proxy, stream(server), self.address, &self.drain);
        stream(client)
    }

    /// Waits until no client is connected.
    pub(crate) async fn has_let_go(&self) {
        within("the connection to end", until(|| self.metrics.clients() == 0)).await;
    }

    /// Waits until nothing is open, kept upstream connections included.
    pub(crate) async fn is_at_rest(&self) {
        let swept = || async {
            tokio::select! {
                biased;
                () = Arc::clone(&self.proxy).sweep_pool() => {}
                () = tokio::task::yield_now() => {}
            }
        };
        within("everything to be closed", async {
            while self.metrics.clients() > 0
                || self.metrics.tunnels_active.get() > 0
                || self.metrics.pool.busy.get() > 0
                || self.metrics.pool.idle.get() > 0
            {
                swept().await;
            }
        })
        .await;
    }
}

/// The kernel reads, writes and splices it like any other, and the type asks no more.
fn stream(end: UnixStream) -> TcpStream {
    end.set_nonblocking(true).unwrap();
    TcpStream::from_std(OwnedFd::from(end).into()).unwrap()
}

fn built(policy: &str) -> Policy {
    let file = PolicyFile::parse(policy).unwrap();
    let exempt = [ORIGIN, TUNNEL].map(|address| format!("{address}/32").parse().unwrap());
    let builder = Policy::builder().allow_addresses(exempt).clients(file.clients);
    file.rules.into_iter().fold(builder, |builder, rule| builder.rule(rule)).build()
}

fn hosts() -> Hosts {
    let mut hosts = Hosts::default();
    let text = format!("{ORIGIN} origin.test\n{TUNNEL} tunnel.test\n{GUARDED} guarded.test\n{DENIED} denied.test\n");
    hosts.read_hosts_conf(text.as_bytes()).unwrap();
    hosts
}

async fn until(reached: impl Fn() -> bool) {
    while !reached() {
        tokio::task::yield_now().await;
    }
}

/// Fails rather than wait for ever.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let awaited = tokio::time::timeout(PATIENCE, future).await;
    awaited.unwrap_or_else(|_| panic!("waited too long for {what}"))
}
