//! Names to addresses: `/etc/hosts`, then DNS, cached for as long as the answer allows.
//!
//! A and AAAA are asked for at once. Names are looked up as absolute, so a name costs one
//! query of each kind and cannot be completed to another one by a search list.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, TokioResolver};

use super::respond::Failure;
use crate::access::Detail;
use crate::reason::Reason;

/// How long to wait for AAAA once A has answered (RFC 8305 §3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Responses kept; each is a few hundred bytes, and an allowlist rarely names more hosts.
const CACHE_ENTRIES: u64 = 8192;

/// Negative answers without a lifetime of their own are kept this long at most, so that a name
/// that was just created is soon found.
const NEGATIVE_MAX_TTL: Duration = Duration::from_secs(30);

/// Where names are looked up.
#[derive(Debug)]
pub struct ResolverSettings {
    /// Name servers; those of `/etc/resolv.conf` when empty.
    pub servers: Vec<SocketAddr>,
    /// Whether the search list of `/etc/resolv.conf` applies.
    pub search: bool,
    /// The longest a lookup may take, all tries together.
    pub timeout: Duration,
}

/// The resolver of the gateway.
#[derive(Debug)]
pub struct Resolver {
    dns: TokioResolver,
    hosts: Arc<Hosts>,
    search: bool,
    timeout: Duration,
}

/// The addresses of a name, and until when they hold.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) valid_until: Instant,
}

/// A resolver could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// `/etc/resolv.conf` cannot be used, and no servers were given.
    #[error("the name servers of /etc/resolv.conf cannot be used ({0}); set OUTGATE_DNS_SERVERS")]
    SystemConfig(NetError),
    /// The resolver does not start.
    #[error("the resolver cannot be set up: {0}")]
    Setup(NetError),
}

impl Resolver {
    /// A resolver that answers from `hosts` first.
    ///
    /// # Errors
    /// When no name servers are given and the system names none.
    pub fn new(settings: &ResolverSettings, hosts: Hosts) -> Result<Self, ResolverError> {
        let (config, mut options) = if settings.servers.is_empty() {
            hickory_resolver::system_conf::read_system_conf()
                .map_err(ResolverError::SystemConfig)?
        } else {
            let servers = settings.servers.iter().map(name_server).collect();
            (
                ResolverConfig::from_name_servers(servers),
                ResolverOpts::default(),
            )
        };
        options.cache_size = CACHE_ENTRIES;
        options.negative_max_ttl = Some(NEGATIVE_MAX_TTL);
        // The hosts were handed in; asking the file twice would be a second truth.
        options.use_hosts_file = ResolveHosts::Never;
        // Two tries at least fit into the whole time, so one lost datagram is no failure.
        options.timeout = options.timeout.min(settings.timeout / 2);
        let dns = hickory_resolver::Resolver::builder_with_config(
            config,
            TokioRuntimeProvider::default(),
        )
        .with_options(options)
        .build()
        .map_err(ResolverError::Setup)?;
        Ok(Self {
            dns,
            hosts: Arc::new(hosts),
            search: settings.search,
            timeout: settings.timeout,
        })
    }

    /// The addresses of a name, for whoever only wants to look.
    ///
    /// # Errors
    /// What a client would be told, and the same for an operator.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, (Reason, String)> {
        let resolved = self.resolve(host).await;
        resolved
            .map(|resolved| resolved.addresses)
            .map_err(|failure| {
                let detail = failure.detail.map(|detail| detail.to_string());
                (failure.reason, detail.unwrap_or_default())
            })
    }

    /// Every address of a name, IPv6 and IPv4 as they were answered.
    pub(crate) async fn resolve(&self, host: &str) -> Result<Resolved, Failure> {
        let mut name =
            Name::from_ascii(host).map_err(|error| Failure::new(Reason::DnsNotFound, error))?;
        if let Some(resolved) = self.static_hosts(&name) {
            return Ok(resolved);
        }
        name.set_fqdn(!self.search);
        tokio::time::timeout(self.timeout, self.both_families(name))
            .await
            .unwrap_or_else(|_| {
                let detail = Detail::Unanswered(self.timeout);
                Err(Failure::new(Reason::DnsTimeout, detail))
            })
    }

    /// Asks for A and AAAA at once; whichever fails, the other one may still serve.
    async fn both_families(&self, name: Name) -> Result<Resolved, Failure> {
        let v4 = self.lookup(name.clone(), RecordType::A);
        let v6 = self.lookup(name, RecordType::AAAA);
        tokio::pin!(v4, v6);
        let (v4, v6) = tokio::select! {
            v4 = &mut v4 => {
                let v6 = if v4.is_ok() {
                    tokio::time::timeout(RESOLUTION_DELAY, v6).await.ok()
                } else {
                    Some(v6.await)
                };
                (v4, v6)
            }
            v6 = &mut v6 => (v4.await, Some(v6)),
        };
        match (v4, v6) {
            (Ok(v4), Some(Ok(v6))) => Ok(Resolved {
                valid_until: v4.valid_until.min(v6.valid_until),
                addresses: v6.addresses.into_iter().chain(v4.addresses).collect(),
            }),
            (Ok(one), _) | (Err(_), Some(Ok(one))) => Ok(one),
            // Both failed: a server that failed says more than a family that has no records.
            (Err(v4), Some(Err(v6))) if v4.reason == Reason::DnsNotFound => Err(v6),
            (Err(v4), _) => Err(v4),
        }
    }

    async fn lookup(&self, name: Name, family: RecordType) -> Result<Resolved, Failure> {
        let lookup = self
            .dns
            .lookup(name, family)
            .await
            .map_err(|error| Failure::new(classify(&error), Detail::Lookup(family, error)))?;
        let addresses: Vec<_> = lookup
            .answers()
            .iter()
            .filter_map(|record| address(&record.data))
            .collect();
        if addresses.is_empty() {
            let detail = Detail::NoAddress(family);
            return Err(Failure::new(Reason::DnsNotFound, detail));
        }
        Ok(Resolved {
            addresses,
            valid_until: lookup.valid_until(),
        })
    }

    fn static_hosts(&self, name: &Name) -> Option<Resolved> {
        let of = |family| {
            let lookup = self
                .hosts
                .lookup_static_host(&Query::query(name.clone(), family))?;
            Some(
                lookup
                    .answers()
                    .iter()
                    .filter_map(|record| address(&record.data))
                    .collect(),
            )
        };
        let v6: Vec<_> = of(RecordType::AAAA).unwrap_or_default();
        let v4: Vec<_> = of(RecordType::A).unwrap_or_default();
        if v6.is_empty() && v4.is_empty() {
            return None;
        }
        // The file was read at start and holds until the end.
        let valid_until = Instant::now() + Duration::from_secs(3600);
        Some(Resolved {
            addresses: v6.into_iter().chain(v4).collect(),
            valid_until,
        })
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

fn address(data: &RData) -> Option<IpAddr> {
    data.ip_addr()
}

/// What a failed lookup is to the client.
fn classify(error: &NetError) -> Reason {
    if let NetError::Dns(DnsError::NoRecordsFound(none)) = error
        && [ResponseCode::NXDomain, ResponseCode::NoError].contains(&none.response_code)
    {
        return Reason::DnsNotFound;
    }
    if matches!(error, NetError::Timeout) {
        Reason::DnsTimeout
    } else {
        Reason::DnsError
    }
}
