//! Tasks that the gateway cannot do without: accepting, the sweeps, the policy watch, the two APIs.
//!
//! One that has panicked is not started again, since it may have left half of something behind. The
//! rest goes on, and the probes say no, so that the gateway gets no more traffic and is replaced.

use std::sync::{Arc, OnceLock};

/// The tasks, and which of them has failed first.
#[derive(Clone, Debug, Default)]
pub struct Vital {
    failed: Arc<OnceLock<&'static str>>,
}

impl Vital {
    /// Runs a task of this name.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let watched = Watched {
            name,
            failed: Arc::clone(&self.failed),
        };
        tokio::spawn(async move {
            let _watched = watched;
            task.await;
        });
    }

    /// The task that has failed, if one has.
    #[must_use]
    pub fn failed(&self) -> Option<&'static str> {
        self.failed.get().copied()
    }
}

/// Notes that its task has panicked.
struct Watched {
    name: &'static str,
    failed: Arc<OnceLock<&'static str>>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.failed.set(self.name);
        }
    }
}
