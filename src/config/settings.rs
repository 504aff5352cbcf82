//! The parsed configuration: every setting in its type, with its unit, default and meaning.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::{Origin, Problem, Tracing};
use crate::policy::{Mode, Rule};

/// What the gateway runs with. Each field is set by the variable of its name; `config_file` by `OUTGATE_CONFIG`,
/// `tracing` by `OTEL_*`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The configuration file that was read; `None` without one, the default.
    pub config_file: Option<PathBuf>,
    /// Where clients connect: at least one address, `[::]:3128` by default; see [`super::ipv4_fallback`].
    pub listen: Vec<SocketAddr>,
    /// Where `/metrics`, `/livez` and `/readyz` are served, `[::]:9090` by default; see [`super::ipv4_fallback`].
    pub admin_listen: SocketAddr,
    /// Where the inspector is served, `127.0.0.1:9091` by default; `None` is `off`. Beyond loopback only when set so.
    pub inspect_listen: Option<SocketAddr>,
    /// Rules for what may be reached; empty, the default, denies all.
    pub allow: Vec<Rule>,
    /// Rules that win over any allow; empty by default.
    pub deny: Vec<Rule>,
    /// Ranges an allowed name may resolve to although they are special-purpose; empty by default.
    pub allow_addresses: Vec<IpNet>,
    /// Further ranges never dialled; empty by default.
    pub deny_addresses: Vec<IpNet>,
    /// YAML policy whose rules are added to the lists above; `None` by default. Not read here.
    pub policy_file: Option<PathBuf>,
    /// Whether host rules bind (the default) or only record.
    pub mode: Mode,
    /// For connecting to an upstream, all its addresses together and DNS excluded; 10 s by default, never zero.
    pub connect_timeout: Duration,
    /// For looking up a name; 5 s by default, never zero.
    pub dns_timeout: Duration,
    /// Name servers to ask; empty, the default, takes those of resolv.conf.
    pub dns_servers: Vec<SocketAddr>,
    /// Whether names go through resolv.conf's search list; no by default, so that one name is one query.
    pub dns_search: bool,
    /// For a client to finish its request head; 30 s by default, never zero.
    pub header_timeout: Duration,
    /// For an upstream to begin its response, and for a client to go on with content that it sends or reads; 5 min
    /// by default, never zero.
    pub response_timeout: Duration,
    /// How long a tunnel may carry no byte in either direction, and an upstream be silent within its response; 1 h by
    /// default, never zero.
    pub idle_timeout: Duration,
    /// How long a kept-alive connection, of a client or to an upstream, may be idle; 90 s by default, never zero.
    pub keepalive_timeout: Duration,
    /// How long a tunnel may live, busy or not; `None`, the default, is `off`.
    pub max_lifetime: Option<Duration>,
    /// Client connections at once, at least 1; `None`, the default, is `auto`: from `RLIMIT_NOFILE`.
    pub max_connections: Option<usize>,
    /// Connections of one client at once, at least 1; `None`, the default, is `off`.
    pub max_connections_per_client: Option<usize>,
    /// Longest request or response head in bytes, 8 KiB to 1 MiB; 64 KiB by default.
    pub max_header_bytes: usize,
    /// From the signal to stop until listeners close; 5 s by default, zero is at once.
    pub drain_delay: Duration,
    /// From then until tunnels still open are closed; 25 s by default, zero is at once.
    pub drain_timeout: Duration,
    /// Whether each request and each tunnel writes a line; yes by default.
    pub access_log: bool,
    /// Filter of all other log lines, `info` by default; its grammar is telemetry's to check.
    pub log: String,
    /// Form of log lines; `auto` by default.
    pub log_format: LogFormat,
    /// Runtime threads, at most 1024; `None`, the default, is `auto`: the available parallelism.
    pub workers: Option<NonZeroUsize>,
    /// Pseudonym in `Via` and `Proxy-Status`, both an HTTP token and an sf-token; `outgate` by default.
    pub via: String,
    /// Where spans go; `None`, the default, traces nothing. Set by the `OTEL_*` variables.
    pub tracing: Option<Tracing>,
    /// The layer of each variable that is set, by its name.
    pub(super) origins: BTreeMap<&'static str, Origin>,
}

impl Default for Config {
    /// What the table's defaults read as, so nothing is allowed.
    fn default() -> Self {
        Self {
            config_file: None,
            listen: vec![(Ipv6Addr::UNSPECIFIED, 3128).into()],
            admin_listen: (Ipv6Addr::UNSPECIFIED, 9090).into(),
            inspect_listen: Some((Ipv4Addr::LOCALHOST, 9091).into()),
            allow: Vec::new(),
            deny: Vec::new(),
            allow_addresses: Vec::new(),
            deny_addresses: Vec::new(),
            policy_file: None,
            mode: Mode::Enforce,
            connect_timeout: Duration::from_secs(10),
            dns_timeout: Duration::from_secs(5),
            dns_servers: Vec::new(),
            dns_search: false,
            header_timeout: Duration::from_secs(30),
            response_timeout: Duration::from_mins(5),
            idle_timeout: Duration::from_hours(1),
            keepalive_timeout: Duration::from_secs(90),
            max_lifetime: None,
            max_connections: None,
            max_connections_per_client: None,
            max_header_bytes: 64 << 10,
            drain_delay: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(25),
            access_log: true,
            log: "info".to_owned(),
            log_format: LogFormat::Auto,
            workers: None,
            via: "outgate".to_owned(),
            tracing: None,
            origins: BTreeMap::new(),
        }
    }
}

impl Config {
    /// The ports that a gateway of this configuration listens on.
    #[must_use]
    pub fn own_ports(&self) -> Vec<u16> {
        let apis = [Some(self.admin_listen), self.inspect_listen];
        let all = self
            .listen
            .iter()
            .copied()
            .chain(apis.into_iter().flatten());
        all.map(|address| address.port()).collect()
    }

    /// Refuses two listeners on one address, which could not both be bound.
    pub(super) fn check_listeners(&self, problems: &mut Vec<Problem>) {
        let listen = self
            .listen
            .iter()
            .map(|address| ("OUTGATE_LISTEN", *address));
        let others = [
            ("OUTGATE_ADMIN_LISTEN", Some(self.admin_listen)),
            ("OUTGATE_INSPECT_LISTEN", self.inspect_listen),
        ];
        let others = others
            .into_iter()
            .filter_map(|(name, address)| Some((name, address?)));
        let all: Vec<_> = listen.chain(others).collect();
        for (index, (second, address)) in all.iter().copied().enumerate() {
            let taken = all[..index].iter().find(|(_, earlier)| *earlier == address);
            // Port 0 asks for any free port, so two of them do not collide.
            if let Some((first, _)) = taken.filter(|_| address.port() != 0) {
                problems.push(Problem::Clash {
                    first,
                    second,
                    address,
                });
            }
        }
    }
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
    /// `text` on a terminal, else `json`.
    Auto,
}

impl LogFormat {
    pub(super) const ALL: [Self; 3] = [Self::Json, Self::Text, Self::Auto];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Auto => "auto",
        }
    }
}
