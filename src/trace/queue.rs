//! Spans that wait for export: a channel with room for so many.
//!
//! The SDK's own batch processor takes spans that are put together already, and does not tell how
//! many it dropped.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::{Notify, mpsc, watch};

use super::export::Export;
use super::{Ended, TraceError};
use crate::config::Tracing;

/// The way in. Pushing never waits.
pub(super) struct Queue {
    spans: mpsc::Sender<Ended>,
    /// How many wait when it is time to export.
    batch: usize,
    /// Says that a whole batch waits.
    filled: Arc<Notify>,
    dropped: IntCounter,
    stop: watch::Sender<bool>,
}

impl Queue {
    /// Starts the exporting thread.
    pub(super) fn start(settings: &Tracing, dropped: IntCounter) -> Result<Self, TraceError> {
        let (spans, receiver) = mpsc::channel(settings.max_queue_size);
        let (stop, stopped) = watch::channel(false);
        let filled = Arc::new(Notify::new());
        Export::start(
            settings,
            receiver,
            Arc::clone(&filled),
            stopped,
            dropped.clone(),
        )?;
        Ok(Self {
            spans,
            batch: settings.max_export_batch_size,
            filled,
            dropped,
            stop,
        })
    }

    /// Enqueues a span that is made if there is room for it; else it is counted as dropped.
    pub(super) fn push(&self, span: impl FnOnce() -> Ended) {
        match self.spans.try_reserve() {
            Ok(room) => {
                room.send(span());
                if self.spans.max_capacity() - self.spans.capacity() >= self.batch {
                    self.filled.notify_one();
                }
            }
            Err(_) => self.dropped.inc(),
        }
    }

    /// Has what waits exported, and resolves when it is, or when the time is over.
    pub(super) async fn shutdown(&self, within: Duration) {
        self.stop.send_replace(true);
        // Closed when the thread has ended and dropped its end.
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

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("room", &self.spans.capacity())
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}
