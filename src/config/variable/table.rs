//! The table of variables, in the order in which they are documented.

use std::num::NonZeroUsize;

use super::Variable;
use crate::config::{LogFormat, value};
use crate::policy::{Action, Mode, Rule};

const FILE: &str = "the path of a .yaml, .yml or .toml file, or none";
const POLICY: &str = "the path of a YAML file, or none";
const LISTENER: &str = "an address and a port such as 0.0.0.0:3128, [::]:3128 or :3128";
const LISTENERS: &str = "addresses and ports such as 0.0.0.0:3128, [::]:3128 or :3128";
const LISTENER_OR_OFF: &str = "an address and a port such as 127.0.0.1:9091, or off";
const RULES: &str = "rules such as api.example.com, *.example.com:8443 or 10.20.0.0/16:5432";
const NETWORKS: &str = "address ranges such as 10.20.0.0/16, fd00::/8 or 192.0.2.1";
const NAME_SERVERS: &str = "IP addresses such as 10.0.0.10 or [fd00::a]:5353, or resolv.conf";
const DURATION: &str = "a duration above zero such as 250ms, 10s, 5m or 1h";
const DURATION_OR_OFF: &str = "a duration above zero such as 30m, 12h or 1d, or off";
const DURATION_OR_ZERO: &str = "a duration such as 0s, 250ms, 10s or 1m";
const CONNECTIONS_OR_AUTO: &str = "a number above zero, or auto";
const CONNECTIONS_OR_OFF: &str = "a number above zero, or off";
const WORKERS_OR_AUTO: &str = "a number from 1 to 1024, or auto";
const FLAG: &str = "true or false";

/// hyper refuses to read heads into a buffer smaller than this.
const LEAST_HEADER_BYTES: usize = 8 << 10;

/// A head is held in memory whole, once per connection, so it must not be much larger than any sound one.
const MOST_HEADER_BYTES: usize = 1 << 20;

/// More threads than any machine has cores; a slip of the keyboard would ask for stacks that do not fit.
const MOST_WORKERS: usize = 1024;

/// A file descriptor is a C `int`, so no process can hold more.
const MOST_CONNECTIONS: usize = i32::MAX as usize;

const MODES: [Mode; 2] = [Mode::Enforce, Mode::Report];

/// Every variable of the gateway. `--help`, error messages and the documentation follow this order.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "OUTGATE_CONFIG",
        default: "none",
        meaning: "Configuration file; variables win over it",
        expected: FILE,
        list: false,
        read: |config, text| set(&mut config.config_file, Ok(value::path(text))),
        show: |config| value::show_path(config.config_file.as_deref()),
    },
    Variable {
        name: "OUTGATE_LISTEN",
        default: "[::]:3128",
        meaning: "Where clients connect",
        expected: LISTENERS,
        list: true,
        read: |config, text| set(&mut config.listen, value::listeners(text)),
        show: |config| value::show_list(&config.listen),
    },
    Variable {
        name: "OUTGATE_ADMIN_LISTEN",
        default: "[::]:9090",
        meaning: "Where /metrics, /livez and /readyz are served",
        expected: LISTENER,
        list: false,
        read: |config, text| set(&mut config.admin_listen, value::listener(text)),
        show: |config| config.admin_listen.to_string(),
    },
    Variable {
        name: "OUTGATE_INSPECT_LISTEN",
        default: "127.0.0.1:9091",
        meaning: "Where the inspector is served; it can close tunnels, so keep it on loopback",
        expected: LISTENER_OR_OFF,
        list: false,
        read: |config, text| {
            set(
                &mut config.inspect_listen,
                value::unless("off", text, value::listener),
            )
        },
        show: |config| value::show_unless("off", config.inspect_listen),
    },
    Variable {
        name: "OUTGATE_ALLOW",
        default: "",
        meaning: "What may be reached; empty denies all",
        expected: RULES,
        list: true,
        read: |config, text| set(&mut config.allow, value::list(text, str::parse)),
        show: |config| value::show_list(&config.allow),
    },
    Variable {
        name: "OUTGATE_DENY",
        default: "",
        meaning: "What may not be reached, whatever is allowed",
        expected: RULES,
        list: true,
        read: |config, text| {
            set(
                &mut config.deny,
                value::list(text, |rule| Rule::parse(rule, Action::Deny)),
            )
        },
        show: |config| value::show_list(&config.deny),
    },
    Variable {
        name: "OUTGATE_ALLOW_ADDRESSES",
        default: "",
        meaning: "Ranges an allowed name may resolve to although they are special-purpose",
        expected: NETWORKS,
        list: true,
        read: |config, text| {
            set(
                &mut config.allow_addresses,
                value::list(text, value::network),
            )
        },
        show: |config| value::show_list(&config.allow_addresses),
    },
    Variable {
        name: "OUTGATE_DENY_ADDRESSES",
        default: "",
        meaning: "Further ranges that are never dialled",
        expected: NETWORKS,
        list: true,
        read: |config, text| {
            set(
                &mut config.deny_addresses,
                value::list(text, value::network),
            )
        },
        show: |config| value::show_list(&config.deny_addresses),
    },
    Variable {
        name: "OUTGATE_POLICY_FILE",
        default: "none",
        meaning: "Policy file, reloaded when it changes; its rules are added to the variables'",
        expected: POLICY,
        list: false,
        read: |config, text| set(&mut config.policy_file, Ok(value::path(text))),
        show: |config| value::show_path(config.policy_file.as_deref()),
    },
    Variable {
        name: "OUTGATE_MODE",
        default: "enforce",
        meaning: "Whether host rules bind, or only record what they would have denied",
        expected: "enforce or report",
        list: false,
        read: |config, text| set(&mut config.mode, value::choice(&MODES, Mode::label, text)),
        show: |config| config.mode.label().to_owned(),
    },
    Variable {
        name: "OUTGATE_CONNECT_TIMEOUT",
        default: "10s",
        meaning: "For connecting to an upstream: all its addresses together, DNS excluded",
        expected: DURATION,
        list: false,
        read: |config, text| set(&mut config.connect_timeout, value::positive(text)),
        show: |config| value::show_duration(config.connect_timeout),
    },
    Variable {
        name: "OUTGATE_DNS_TIMEOUT",
        default: "5s",
        meaning: "For looking up a name",
        expected: DURATION,
        list: false,
        read: |config, text| set(&mut config.dns_timeout, value::positive(text)),
        show: |config| value::show_duration(config.dns_timeout),
    },
    Variable {
        name: "OUTGATE_DNS_SERVERS",
        default: "resolv.conf",
        meaning: "Name servers to ask",
        expected: NAME_SERVERS,
        list: true,
        read: |config, text| set(&mut config.dns_servers, value::name_servers(text)),
        show: |config| value::show_name_servers(&config.dns_servers),
    },
    Variable {
        name: "OUTGATE_DNS_SEARCH",
        default: "false",
        meaning: "Whether names go through resolv.conf's search list",
        expected: FLAG,
        list: false,
        read: |config, text| set(&mut config.dns_search, flag(text)),
        show: |config| value::flag_name(config.dns_search).to_owned(),
    },
    Variable {
        name: "OUTGATE_HEADER_TIMEOUT",
        default: "30s",
        meaning: "For a client to finish its request head",
        expected: DURATION,
        list: false,
        read: |config, text| set(&mut config.header_timeout, value::positive(text)),
        show: |config| value::show_duration(config.header_timeout),
    },
    Variable {
        name: "OUTGATE_RESPONSE_TIMEOUT",
        default: "5m",
        meaning: "For an upstream to begin its response, and for a client to go on with content that it sends or reads",
        expected: DURATION,
        list: false,
        read: |config, text| set(&mut config.response_timeout, value::positive(text)),
        show: |config| value::show_duration(config.response_timeout),
    },
    Variable {
        name: "OUTGATE_IDLE_TIMEOUT",
        default: "1h",
        meaning: "For a tunnel in which no byte moves in either direction, and for an upstream that is silent within its response",
        expected: DURATION,
        list: false,
        read: |config, text| set(&mut config.idle_timeout, value::positive(text)),
        show: |config| value::show_duration(config.idle_timeout),
    },
    Variable {
        name: "OUTGATE_KEEPALIVE_TIMEOUT",
        default: "90s",
        meaning: "For an idle kept-alive connection, of a client or to an upstream",
        expected: DURATION,
        list: false,
        read: |config, text| set(&mut config.keepalive_timeout, value::positive(text)),
        show: |config| value::show_duration(config.keepalive_timeout),
    },
    Variable {
        name: "OUTGATE_MAX_LIFETIME",
        default: "off",
        meaning: "For a tunnel, busy or not",
        expected: DURATION_OR_OFF,
        list: false,
        read: |config, text| {
            set(
                &mut config.max_lifetime,
                value::unless("off", text, value::positive),
            )
        },
        show: |config| value::show_unless("off", config.max_lifetime.map(value::show_duration)),
    },
    Variable {
        name: "OUTGATE_MAX_CONNECTIONS",
        default: "auto",
        meaning: "Client connections at once; auto takes it from RLIMIT_NOFILE",
        expected: CONNECTIONS_OR_AUTO,
        list: false,
        read: |config, text| {
            set(
                &mut config.max_connections,
                value::unless("auto", text, connections),
            )
        },
        show: |config| value::show_unless("auto", config.max_connections),
    },
    Variable {
        name: "OUTGATE_MAX_CONNECTIONS_PER_CLIENT",
        default: "off",
        meaning: "The same for one client: for each address (of IPv6, each /64), and for all networks of a client in the policy file",
        expected: CONNECTIONS_OR_OFF,
        list: false,
        read: |config, text| {
            set(
                &mut config.max_connections_per_client,
                value::unless("off", text, connections),
            )
        },
        show: |config| value::show_unless("off", config.max_connections_per_client),
    },
    Variable {
        name: "OUTGATE_MAX_HEADER_BYTES",
        default: "64KiB",
        meaning: "Longest request or response head",
        expected: "a size from 8KiB to 1MiB",
        list: false,
        read: |config, text| {
            set(
                &mut config.max_header_bytes,
                value::size(text, LEAST_HEADER_BYTES, MOST_HEADER_BYTES),
            )
        },
        show: |config| value::show_size(config.max_header_bytes),
    },
    Variable {
        name: "OUTGATE_DRAIN_DELAY",
        default: "5s",
        meaning: "From the signal to stop until listeners close, while endpoints are withdrawn",
        expected: DURATION_OR_ZERO,
        list: false,
        read: |config, text| set(&mut config.drain_delay, value::duration(text)),
        show: |config| value::show_duration(config.drain_delay),
    },
    Variable {
        name: "OUTGATE_DRAIN_TIMEOUT",
        default: "25s",
        meaning: "From then until tunnels that are still open are closed",
        expected: DURATION_OR_ZERO,
        list: false,
        read: |config, text| set(&mut config.drain_timeout, value::duration(text)),
        show: |config| value::show_duration(config.drain_timeout),
    },
    Variable {
        name: "OUTGATE_ACCESS_LOG",
        default: "true",
        meaning: "Whether each request and each tunnel writes a line",
        expected: FLAG,
        list: false,
        read: |config, text| set(&mut config.access_log, flag(text)),
        show: |config| value::flag_name(config.access_log).to_owned(),
    },
    Variable {
        name: "OUTGATE_LOG",
        default: "info",
        meaning: "What is logged besides requests and tunnels",
        expected: "a filter such as info or outgate=debug,warn",
        list: false,
        read: |config, text| set(&mut config.log, Ok(text.to_owned())),
        show: |config| config.log.clone(),
    },
    Variable {
        name: "OUTGATE_LOG_FORMAT",
        default: "auto",
        meaning: "Form of log lines; auto is text on a terminal, else json",
        expected: "json, text or auto",
        list: false,
        read: |config, text| {
            set(
                &mut config.log_format,
                value::choice(&LogFormat::ALL, LogFormat::name, text),
            )
        },
        show: |config| config.log_format.name().to_owned(),
    },
    Variable {
        name: "OUTGATE_WORKERS",
        default: "auto",
        meaning: "Runtime threads; auto is one per available core",
        expected: WORKERS_OR_AUTO,
        list: false,
        read: |config, text| set(&mut config.workers, value::unless("auto", text, workers)),
        show: |config| value::show_unless("auto", config.workers),
    },
    Variable {
        name: "OUTGATE_VIA",
        default: "outgate",
        meaning: "Pseudonym of the gateway in Via and Proxy-Status",
        expected: "a token that begins with a letter",
        list: false,
        read: |config, text| set(&mut config.via, value::pseudonym(text)),
        show: |config| config.via.clone(),
    },
];

/// Stores what was read; a field keeps its value when nothing was.
fn set<T>(field: &mut T, read: Result<T, String>) -> Result<(), String> {
    *field = read?;
    Ok(())
}

fn flag(text: &str) -> Result<bool, String> {
    value::choice(&[true, false], value::flag_name, text)
}

fn connections(text: &str) -> Result<usize, String> {
    value::count(text, MOST_CONNECTIONS)
}

fn workers(text: &str) -> Result<NonZeroUsize, String> {
    let count = value::count(text, MOST_WORKERS)?;
    NonZeroUsize::new(count).ok_or_else(|| "it is zero".to_owned())
}
