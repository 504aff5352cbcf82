//! The thread that exports spans, and what it does about a collector that takes none.
//!
//! A thread of its own, below the data path in priority: encoding a batch takes a millisecond, and
//! on a worker of the data path every request there would wait for it. Where a gateway has no time
//! left, its requests go first, and spans are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use prometheus::IntCounter;
use tokio::runtime::Builder;
use tokio::sync::{Notify, mpsc, watch};

use super::{Ended, TraceError, collector};
use crate::config::Tracing;

/// A tenth of the weight that the scheduler gives to the threads of the data path.
const NICE: i32 = 10;

/// First pause after an export that failed, doubled with each further one, as the exporters of
/// OpenTelemetry have it. What comes meanwhile waits in the queue.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A collector that is back is noticed within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Takes spans out of the queue and to the collector.
pub(super) struct Export {
    exporter: SpanExporter,
    /// What is exported to, as it is shown.
    collector: String,
    scope: InstrumentationScope,
    spans: mpsc::Receiver<Ended>,
    batch: usize,
    delay: Duration,
    timeout: Duration,
    filled: Arc<Notify>,
    dropped: IntCounter,
    /// Spans that the collector did not take of an export that succeeded.
    rejected: Arc<AtomicU64>,
    /// Whether it has rejected some, and that was told.
    rejects: bool,
    /// How long the next failure is waited out; none while the collector takes spans.
    pause: Option<Duration>,
}

impl Export {
    /// Starts the thread. It ends when told to stop, and when nobody can tell it to any more.
    pub(super) fn start(
        settings: &Tracing,
        spans: mpsc::Receiver<Ended>,
        filled: Arc<Notify>,
        stopped: watch::Receiver<bool>,
        dropped: IntCounter,
    ) -> Result<(), TraceError> {
        let settings = settings.clone();
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let work = move || -> Result<(), TraceError> {
            // Of this thread only, which is what Linux understands by it.
            let _ = rustix::process::setpriority_process(None, NICE);
            let runtime = Builder::new_current_thread().enable_all().build()?;
            // The exporter starts tasks of its own, which belong to this runtime.
            let entered = runtime.enter();
            let export = Self::new(&settings, spans, filled, dropped)?;
            drop(entered);
            let _ = ready.send(());
            runtime.block_on(export.run(stopped));
            Ok(())
        };
        let thread = std::thread::Builder::new().name("outgate-spans".to_owned());
        let thread = thread.spawn(work)?;
        match is_ready.recv() {
            Ok(()) => Ok(()),
            // It has ended already, and says why.
            Err(_) => thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        }
    }

    fn new(
        settings: &Tracing,
        spans: mpsc::Receiver<Ended>,
        filled: Arc<Notify>,
        dropped: IntCounter,
    ) -> Result<Self, TraceError> {
        let rejected = Arc::default();
        Ok(Self {
            exporter: collector::exporter(settings, &rejected)?,
            collector: settings.collector(),
            scope: InstrumentationScope::builder("outgate")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            spans,
            batch: settings.max_export_batch_size,
            delay: settings.schedule_delay,
            timeout: settings.timeout.min(settings.export_timeout),
            filled,
            dropped,
            rejected,
            rejects: false,
            pause: None,
        })
    }

    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            let paused = async {
                match self.pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => tokio::select! {
                        () = self.filled.notified() => {}
                        () = tokio::time::sleep(self.delay) => {}
                    },
                }
            };
            let stops = tokio::select! {
                // A queue nobody can stop any more has nobody to push either.
                _ = stopped.wait_for(|stop| *stop) => true,
                () = paused => false,
            };
            if stops {
                // What is pushed from now on is dropped and counted.
                self.spans.close();
            }
            self.export_waiting(stops).await;
            if stops {
                return;
            }
        }
    }

    /// Exports as many batches as wait now, until one fails; all of them at the end.
    async fn export_waiting(&mut self, all: bool) {
        let mut left = self.spans.len();
        while left > 0 {
            let mut spans = Vec::with_capacity(left.min(self.batch));
            while spans.len() < left.min(self.batch)
                && let Ok(span) = self.spans.try_recv()
            {
                spans.push(span.into_data(&self.scope));
            }
            left -= spans.len();
            let exported = self.export(spans).await;
            if !exported && !all {
                return;
            }
        }
    }

    /// Exports a batch, and says whether the collector took it.
    async fn export(&mut self, spans: Vec<SpanData>) -> bool {
        let count = spans.len();
        let exported = tokio::time::timeout(self.timeout, self.exporter.export(spans)).await;
        let failure = match exported {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {:?}", self.timeout)),
        };
        let Some(error) = failure else {
            if self.pause.take().is_some() {
                tracing::info!("the collector takes spans again");
            }
            self.count_rejected(count as u64);
            return true;
        };
        self.dropped.inc_by(count as u64);
        // Only changes are told: a collector may be away for hours.
        if self.pause.is_none() {
            tracing::warn!(
                collector = self.collector,
                error,
                "the collector takes no spans; they are dropped until it does"
            );
        }
        let pause = self.pause.map_or(FIRST_PAUSE, |pause| pause * 2);
        self.pause = Some(pause.min(LONGEST_PAUSE));
        false
    }

    /// Counts what the collector did not take of so many spans.
    fn count_rejected(&mut self, exported: u64) {
        let rejected = self.rejected.swap(0, Ordering::Relaxed).min(exported);
        self.dropped.inc_by(rejected);
        let rejects = rejected > 0;
        if rejects && !self.rejects {
            tracing::warn!(rejected, exported, "the collector rejects spans");
        }
        self.rejects = rejects;
    }
}
