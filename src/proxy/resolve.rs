//! Names to addresses: `/etc/hosts`, then DNS, cached for as long as the answer allows.
//!
//! A and AAAA are asked for at once. Names are looked up as absolute, so a name costs one
//! query of each kind and cannot be completed to another one by a search list.

mod cache;
mod sockets;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{Either, poll_immediate, select};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, Resolver as Dns};
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tokio::time::{Instant as Deadline, timeout, timeout_at};

use cache::{Answer, Cache, Question};
use sockets::Sockets;

use super::by_client::ByClient;
use super::connect::routed_to;
use super::respond::Failure;
use crate::access::Detail;
use crate::reason::Reason;

/// How long to wait for the other family once one has answered (RFC 8305 §3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// A client's open questions are a quarter of all at most: whoever asks for names of a silent name server keeps no
/// other client from its answers.
const SHARES: usize = 4;

/// Where names are looked up.
#[derive(Debug)]
pub struct ResolverSettings {
    /// Name servers; those of `/etc/resolv.conf` when empty.
    pub servers: Vec<SocketAddr>,
    /// Whether the search list of `/etc/resolv.conf` applies.
    pub search: bool,
    /// The longest a lookup may take, all tries together.
    pub timeout: Duration,
    /// Questions that may be open at once, each with a socket; a lookup has two, A and AAAA. Others wait.
    pub queries: usize,
    /// Sockets from which questions that are not answered may be asked again, all together.
    pub further_sockets: usize,
}

/// The resolver of the gateway.
#[derive(Debug)]
pub struct Resolver {
    dns: Dns<Sockets>,
    /// For questions that are open: so many of each client, and so many in all.
    shares: ByClient<Semaphore>,
    places: Semaphore,
    cache: Cache,
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

/// A question that a client has.
struct Asking {
    question: Question,
    client: IpAddr,
    deadline: Deadline,
    /// Whether it has been put to the name servers.
    is_put: AtomicBool,
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
        // It would keep whole messages, of any size: what is used of them is kept here.
        options.cache_size = 0;
        // The hosts were handed in; asking the file twice would be a second truth.
        options.use_hosts_file = ResolveHosts::Never;
        // Two tries at least fit into the whole time, so one lost datagram is no failure.
        options.timeout = options.timeout.min(settings.timeout / 2);
        let queries = settings.queries.min(Semaphore::MAX_PERMITS);
        let dns = Dns::builder_with_config(config, Sockets::new(settings.further_sockets))
            .with_options(options)
            .build()
            .map_err(ResolverError::Setup)?;
        Ok(Self {
            dns,
            shares: ByClient::new(|| Semaphore::new((queries / SHARES).max(2))),
            places: Semaphore::new(queries),
            cache: Cache::new(),
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
        let resolved = self.resolve(host, Ipv4Addr::LOCALHOST.into()).await;
        resolved
            .map(|resolved| resolved.addresses)
            .map_err(|failure| {
                let detail = failure.detail.map(|detail| detail.to_string());
                (failure.reason, detail.unwrap_or_default())
            })
    }

    /// The addresses of a name, IPv6 and IPv4 as they were answered; of each family no more than are kept.
    ///
    /// It is looked up within the share of the client that asks.
    pub(crate) async fn resolve(&self, host: &str, client: IpAddr) -> Result<Resolved, Failure> {
        let mut name =
            Name::from_ascii(host).map_err(|error| Failure::new(Reason::DnsNotFound, error))?;
        if let Some(resolved) = self.static_hosts(&name) {
            return Ok(resolved);
        }
        name.set_fqdn(!self.search);
        self.both_families(name, client).await
    }

    /// Asks for A and AAAA at once; whichever fails, the other one may still serve.
    async fn both_families(&self, name: Name, client: IpAddr) -> Result<Resolved, Failure> {
        let deadline = Deadline::now() + self.timeout;
        let [ask_v4, ask_v6] = [RecordType::A, RecordType::AAAA].map(|family| Asking {
            question: (name.clone(), family),
            client,
            deadline,
            is_put: AtomicBool::new(false),
        });
        let v4 = pin!(self.lookup(&ask_v4));
        let v6 = pin!(self.lookup(&ask_v6));
        let (v4, v6) = match select(v4, v6).await {
            Either::Left((v4, v6)) => {
                let v6 = self.other_family(&v4, &ask_v6, v6).await;
                (v4, v6)
            }
            Either::Right((v6, v4)) => (self.other_family(&v6, &ask_v4, v4).await, v6),
        };
        match (v4, v6) {
            (Ok(v4), Ok(v6)) => Ok(Resolved {
                valid_until: v4.valid_until.min(v6.valid_until),
                addresses: v6.addresses.into_iter().chain(v4.addresses).collect(),
            }),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            // Both failed: a server that failed says more than a family that has no records.
            (Err(v4), Err(v6)) if v4.reason == Reason::DnsNotFound => Err(v6),
            (Err(v4), Err(_)) => Err(v4),
        }
    }

    /// What the lookup of the other family comes to, once that of one has ended (RFC 8305 §3).
    ///
    /// Where one has addresses the other gets a moment more. It is waited for only if the one is of no use
    /// here: most hosts have no route to IPv6, and a lost datagram must not leave them with nothing else.
    async fn other_family(
        &self,
        one: &Result<Resolved, Failure>,
        asking: &Asking,
        mut other: impl Future<Output = Result<Resolved, Failure>> + Unpin,
    ) -> Result<Resolved, Failure> {
        let Ok(one) = one else {
            return other.await;
        };
        // It is put now, if it was not before and the client has a place for it.
        if let Some(other) = poll_immediate(&mut other).await {
            return other;
        }
        let is_put = asking.is_put.load(Ordering::Relaxed);
        if let Ok(other) = timeout(RESOLUTION_DELAY, &mut other).await {
            return other;
        }
        // The port does not matter.
        let has_route = |address: &IpAddr| routed_to((*address, 9).into()).is_ok();
        if one.addresses.iter().any(has_route) {
            // Some name servers never answer for a family: not every connection is to wait a moment more. That a
            // client had no place for a question says nothing of them.
            if is_put {
                let none = Answer::none_for_now(one.valid_until);
                self.cache.insert_if_none(asking.question.clone(), none);
            }
            return Err(Failure::plain(Reason::DnsTimeout));
        }
        other.await
    }

    async fn lookup(&self, asking: &Asking) -> Result<Resolved, Failure> {
        let answer = match self.cache.get(&asking.question) {
            Some(answer) => answer,
            // Apart, as its room is not wanted by who finds the answer here, or needs none.
            None => Box::pin(self.ask(asking)).await?,
        };
        match answer.addresses {
            Ok(addresses) => Ok(Resolved {
                addresses: addresses.to_vec(),
                valid_until: answer.valid_until,
            }),
            Err(code) => {
                let detail = Detail::NoAddress(asking.question.1, code);
                Err(Failure::new(Reason::DnsNotFound, detail))
            }
        }
    }

    /// Asks the name servers when it is its turn, and keeps what they answer.
    async fn ask(&self, asking: &Asking) -> Result<Answer, Failure> {
        let places = self.places_of(asking.client);
        let Ok(Ok(_places)) = timeout_at(asking.deadline, places).await else {
            let detail = "as many names are looked up already as may be";
            return Err(Failure::new(Reason::ConnectionLimit, detail));
        };
        // Whoever had the place before may have asked the same.
        if let Some(answer) = self.cache.get(&asking.question) {
            return Ok(answer);
        }
        asking.is_put.store(true, Ordering::Relaxed);
        let (name, family) = asking.question.clone();
        let lookup = sockets::with_own(self.dns.lookup(name, family));
        let Ok(looked_up) = timeout_at(asking.deadline, lookup).await else {
            let detail = Detail::Unanswered(self.timeout);
            return Err(Failure::new(Reason::DnsTimeout, detail));
        };
        let answer = Answer::of(looked_up)
            .map_err(|error| Failure::new(classify(&error), Detail::Lookup(family, error)))?;
        self.cache.insert(asking.question.clone(), answer.clone());
        Ok(answer)
    }

    /// A place of the client's share first, so that what it has to wait for takes none of the others'.
    async fn places_of(&self, client: IpAddr) -> Result<[SemaphorePermit<'_>; 2], AcquireError> {
        let share = self.shares[self.shares.slot(client)].acquire().await?;
        Ok([share, self.places.acquire().await?])
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
                    .filter_map(|record| record.data.ip_addr())
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

/// What a failed lookup is to the client.
fn classify(error: &NetError) -> Reason {
    if matches!(error, NetError::Timeout) {
        Reason::DnsTimeout
    } else if matches!(error, NetError::Io(error) if super::is_out_of_descriptors(error)) {
        Reason::ConnectionLimit
    } else {
        Reason::DnsError
    }
}
