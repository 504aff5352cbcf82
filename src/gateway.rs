//! The gateway put together: configuration and sockets in, a drained process out.

use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::Hosts;
use tokio::sync::{Notify, mpsc};

use crate::admin::{self, Admin, Answer};
use crate::config::{Config, Tracing};
use crate::drain::{Drain, Drained, Drainer, Phase, Stop};
use crate::enforced::Enforced;
use crate::inspect::Inspector;
use crate::limits;
use crate::listen::Listeners;
use crate::metrics::{ListenerKind, Metrics};
use crate::proxy::{self, Dialer, Proxy, Resolver, ResolverError, ResolverSettings};
use crate::reload::{self, LoadError, Reloader, Source};
use crate::telemetry::DroppedLines;
use crate::trace::{TraceError, Tracer};
use crate::tunnels::Tunnels;
use crate::vital::Vital;

/// How long the last spans may take: the collector may be the one that is gone.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// A gateway that is ready to serve.
#[derive(Debug)]
pub struct Gateway {
    proxy: Arc<Proxy>,
    tunnels: Arc<Tunnels>,
    metrics: Arc<Metrics>,
    tracer: Option<Arc<Tracer>>,
    config: Arc<Config>,
    listeners: Listeners,
    drainer: Drainer,
    drain: Drain,
    source: Source,
}

/// The gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policy file is no policy.
    #[error(transparent)]
    Policy(#[from] LoadError),
    /// No name could be resolved.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// A listener has no address.
    #[error("a listener has no address: {0}")]
    Listener(#[from] std::io::Error),
    /// The registry refused a metric: a defect.
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// `OUTGATE_VIA` cannot stand in a header field.
    #[error("OUTGATE_VIA: {0}")]
    Via(#[from] http::header::InvalidHeaderValue),
    /// Traces cannot be exported as configured.
    #[error(transparent)]
    Traces(#[from] TraceError),
}

/// The resolver that a configuration states.
///
/// # Errors
/// When neither the configuration nor the system names a server.
pub fn resolver(config: &Config, hosts: Hosts) -> Result<Resolver, ResolverError> {
    let settings = ResolverSettings {
        servers: config.dns_servers.clone(),
        search: config.dns_search,
        timeout: config.dns_timeout,
        queries: limits::MOST_QUERIES,
        further_sockets: limits::MOST_FURTHER_SOCKETS,
    };
    Resolver::new(&settings, hosts)
}

impl Gateway {
    /// Puts a gateway together over sockets that listen already.
    ///
    /// `hosts` answers names before DNS does; usually what `/etc/hosts` says.
    ///
    /// # Errors
    /// When there is no name server, a listener is broken, or tracing is configured in vain.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn new(config: Config, listeners: Listeners, hosts: Hosts) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let loaded = reload::load(&config)?;
        let metrics = Arc::new(Metrics::new()?);
        let tunnels = Arc::new(Tunnels::new(
            Arc::clone(&metrics),
            config.access_log,
            config.idle_timeout,
            config.max_lifetime,
        ));
        let (drainer, drain) = Drainer::new(&config, Arc::clone(&tunnels), Arc::clone(&metrics));
        let descriptors = limits::raise_descriptors();
        let good_for = limits::connections_for(descriptors);
        let max_connections = config.max_connections.unwrap_or(good_for);
        tracing::info!(max_connections, descriptors, "limits");
        if max_connections > good_for {
            tracing::warn!(
                max_connections,
                descriptors,
                good_for,
                "OUTGATE_MAX_CONNECTIONS is more than RLIMIT_NOFILE is good for: raise the one or lower the other"
            );
        }
        let limit = i64::try_from(max_connections).unwrap_or(i64::MAX);
        metrics.connections_limit.set(limit);
        let own_ports = listeners
            .addresses()?
            .into_iter()
            .map(|(_, own)| own.port())
            .collect();
        let tracing = config.tracing.as_ref();
        let tracer = tracing
            .map(|settings| Tracer::start(settings, metrics.spans_dropped.clone()))
            .transpose()?;
        let proxy = Proxy::new(
            Arc::clone(&config),
            Enforced::new(loaded.policy, Arc::clone(&metrics)),
            resolver(&config, hosts)?,
            Dialer::new(
                config.connect_timeout,
                own_ports,
                limits::MOST_FURTHER_ATTEMPTS,
            ),
            Arc::clone(&tunnels),
            Arc::clone(&metrics),
            max_connections,
        )?
        .traced_by(tracer.clone());
        Ok(Self {
            proxy: Arc::new(proxy),
            tunnels,
            metrics,
            tracer,
            config,
            listeners,
            drainer,
            drain,
            source: loaded.source,
        })
    }

    /// Serves until `stops` says so and the drain is done.
    ///
    /// `dropped` counts the log lines that were dropped, for the metric.
    /// `hangup` makes it read the policy file at once.
    pub async fn run(
        self,
        stops: mpsc::Receiver<Stop>,
        hangup: Arc<Notify>,
        dropped: Option<DroppedLines>,
    ) -> Drained {
        self.announce();
        let vital = Vital::default();
        for listener in self.listeners.proxy {
            let accepting = proxy::serve(Arc::clone(&self.proxy), listener, self.drain.clone());
            vital.spawn("accept", accepting);
        }
        let reloader = Reloader::new(
            Arc::clone(&self.config),
            Arc::clone(&self.proxy),
            Arc::clone(&self.metrics),
            hangup,
            self.source,
        );
        let api = |listener, kind: ListenerKind, answer: Answer| {
            let (metrics, drain) = (Arc::clone(&self.metrics), self.drain.clone());
            let serving = admin::serve(listener, kind, metrics, drain, answer);
            vital.spawn(kind.label(), serving);
        };
        let admin = Arc::new(Admin {
            metrics: Arc::clone(&self.metrics),
            drain: self.drain.clone(),
            vital: vital.clone(),
            dropped,
        });
        let answer = Arc::new(move |request: &_| admin.answer(request));
        api(self.listeners.admin, ListenerKind::Admin, answer);
        if let Some(listener) = self.listeners.inspect {
            let inspector = Arc::new(Inspector {
                config: self.config,
                tunnels: Arc::clone(&self.tunnels),
                proxy: Arc::clone(&self.proxy),
            });
            let answer = Arc::new(move |request: &_| inspector.answer(request));
            api(listener, ListenerKind::Inspect, answer);
        }
        let over = || self.drain.clone();
        vital.spawn("tunnel sweep", until_over(over(), self.tunnels.sweep()));
        vital.spawn("pool sweep", until_over(over(), self.proxy.sweep_pool()));
        vital.spawn("policy watch", until_over(over(), reloader.run()));
        let drained = self.drainer.run(stops).await;
        if let Some(tracer) = self.tracer {
            tracer.shutdown(LAST_SPANS).await;
        }
        drained
    }

    /// Says what it does, and where it listens: a port of 0 was chosen by the kernel.
    fn announce(&self) {
        let in_force = self.proxy.enforced().load();
        let policy = in_force.policy();
        let tracing = self.config.tracing.as_ref();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            rules = policy.rule_count(),
            mode = policy.mode().label(),
            collector = tracing.map(Tracing::collector),
            "starting"
        );
        for (listener, address) in self.listeners.addresses().unwrap_or_default() {
            tracing::info!(listener = listener.label(), %address, "listening");
        }
        if policy.denies_all() {
            tracing::warn!("no rule allows anything: every request will be denied");
        }
    }
}

/// Polls a task that has no end of its own until the gateway is over.
async fn until_over(mut drain: Drain, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        () = drain.reaches(Phase::Over) => {}
    }
}
