//! Spans that wait for export, and the task that exports them.
//!
//! The SDK's own batch processor does not tell how many spans it dropped, and blocks a thread of
//! its own on an exporter whose sockets belong to this runtime; so the queue is a channel, and the
//! exporter an ordinary task.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use prometheus::IntCounter;
use tokio::sync::{Notify, mpsc, watch};

use crate::config::Tracing;

/// The way in. Pushing never waits.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    /// How many wait when it is time to export.
    batch: usize,
    /// Says that a whole batch waits.
    filled: Arc<Notify>,
    dropped: IntCounter,
    stop: watch::Sender<bool>,
}

impl Queue {
    /// Starts the exporting task.
    pub(super) fn start(exporter: SpanExporter, settings: &Tracing, dropped: IntCounter) -> Self {
        let (sender, receiver) = mpsc::channel(settings.max_queue_size);
        let (stop, stopped) = watch::channel(false);
        let filled = Arc::new(Notify::new());
        let task = Export {
            exporter,
            spans: receiver,
            batch: settings.max_export_batch_size,
            delay: settings.schedule_delay,
            timeout: settings.timeout,
            filled: Arc::clone(&filled),
            dropped: dropped.clone(),
            failing: false,
        };
        tokio::spawn(task.run(stopped));
        Self {
            spans: sender,
            batch: settings.max_export_batch_size,
            filled,
            dropped,
            stop,
        }
    }

    /// Enqueues a span, or drops and counts it.
    pub(super) fn push(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.dropped.inc();
        }
        if self.spans.max_capacity() - self.spans.capacity() >= self.batch {
            self.filled.notify_one();
        }
    }

    /// Has what waits exported, and resolves when it is, or when the time is over.
    pub(super) async fn shutdown(&self, within: Duration) {
        self.stop.send_replace(true);
        // Closed when the task has ended and dropped its end.
        if tokio::time::timeout(within, self.stop.closed())
            .await
            .is_err()
        {
            tracing::warn!(
                ?within,
                "spans were left: the collector did not take them in time"
            );
        }
    }
}

/// The task.
struct Export {
    exporter: SpanExporter,
    spans: mpsc::Receiver<SpanData>,
    batch: usize,
    delay: Duration,
    timeout: Duration,
    filled: Arc<Notify>,
    dropped: IntCounter,
    failing: bool,
}

impl Export {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            let stops = tokio::select! {
                // A queue nobody can stop any more has nobody to push either.
                _ = stopped.wait_for(|stop| *stop) => true,
                () = self.filled.notified() => false,
                () = tokio::time::sleep(self.delay) => false,
            };
            if stops {
                // What is pushed from now on is dropped and counted.
                self.spans.close();
            }
            self.export_waiting().await;
            if stops {
                return;
            }
        }
    }

    /// Exports as many batches as wait now.
    async fn export_waiting(&mut self) {
        let mut left = self.spans.len();
        while left > 0 {
            let mut spans = Vec::with_capacity(left.min(self.batch));
            while spans.len() < left.min(self.batch) {
                match self.spans.try_recv() {
                    Ok(span) => spans.push(span),
                    Err(_) => return self.export(spans).await,
                }
            }
            left -= spans.len();
            self.export(spans).await;
        }
    }

    async fn export(&mut self, spans: Vec<SpanData>) {
        let count = spans.len();
        if count == 0 {
            return;
        }
        let exported = tokio::time::timeout(self.timeout, self.exporter.export(spans)).await;
        let failure = match exported {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {:?}", self.timeout)),
        };
        if failure.is_some() {
            self.dropped.inc_by(count as u64);
        }
        // Only changes are told: a collector may be away for hours.
        match failure {
            Some(error) if !self.failing => {
                tracing::warn!(
                    error,
                    "the collector takes no spans; they are dropped until it does"
                );
                self.failing = true;
            }
            None if self.failing => {
                tracing::info!("the collector takes spans again");
                self.failing = false;
            }
            _ => {}
        }
    }
}
