//! Logs: one stream of lines on standard output, which never holds up a request.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, LogFormat};

mod json;

/// Lines that may wait for a standard output that is slow; further ones are dropped and counted.
const LINES_WAITING: usize = 8192;

/// How long the writer lets lines come together after it wrote some. A line after a silence is
/// written at once; under load, one system call and no wake-up serve all lines of this time.
const GATHERING: Duration = Duration::from_millis(5);

/// Lines of one system call: what comes within [`GATHERING`] under full load, and no more than
/// the kernel's buffer of a pipe.
const BATCH_BYTES: usize = 64 * 1024;

/// How long the end waits for standard output to take what was logged. The writer's guard takes
/// 1.1 s at most, unless nobody reads.
const LAST_LINES: Duration = Duration::from_millis(1500);

/// Keeps the log writer alive; dropping it flushes what was written, for 1.5 s at most.
#[derive(Debug)]
pub struct Telemetry {
    dropped: DroppedLines,
    /// None when it has been dropped.
    writer: Option<WorkerGuard>,
}

/// How many lines were dropped since the start.
#[derive(Clone, Debug)]
pub struct DroppedLines {
    /// Those that found the queue full.
    unqueued: ErrorCounter,
    /// Those that standard output did not take: its reader is gone, or its disk is full.
    unwritten: Arc<AtomicUsize>,
}

impl DroppedLines {
    /// All of them.
    #[must_use]
    pub fn count(&self) -> usize {
        self.unqueued.dropped_lines() + self.unwritten.load(Ordering::Relaxed)
    }
}

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `OUTGATE_LOG` is no filter.
    #[error(
        "OUTGATE_LOG={value:?}: {error}; expected a level or directives such as `info,outgate::proxy=debug`"
    )]
    Filter {
        /// What it was set to.
        value: String,
        /// What is wrong with it.
        error: tracing_subscriber::filter::ParseError,
    },
    /// Something else logs in this process already.
    #[error("the log is set up already: {0}")]
    Taken(#[from] tracing_subscriber::util::TryInitError),
}

impl Telemetry {
    /// Starts logging as configured.
    ///
    /// # Errors
    /// When the filter does not parse.
    pub fn start(config: &Config) -> Result<Self, TelemetryError> {
        let unwritten = Arc::default();
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(LINES_WAITING)
            .thread_name("outgate-log")
            .finish(Batches::new(io::stdout(), Arc::clone(&unwritten)));
        let dropped = DroppedLines {
            unqueued: writer.error_counter(),
            unwritten,
        };
        let lines = tracing_subscriber::fmt::layer().with_writer(writer);
        let registry = tracing_subscriber::registry().with(filter(config)?);
        let json = match config.log_format {
            LogFormat::Json => true,
            LogFormat::Text => false,
            LogFormat::Auto => !io::stdout().is_terminal(),
        };
        if json {
            registry.with(lines.event_format(json::Json)).try_init()?;
        } else {
            registry
                .with(lines.with_ansi(io::stdout().is_terminal()))
                .try_init()?;
        }
        Ok(Self {
            dropped,
            writer: Some(guard),
        })
    }

    /// How many lines were dropped, for the metric.
    #[must_use]
    pub fn dropped(&self) -> DroppedLines {
        self.dropped.clone()
    }
}

impl Drop for Telemetry {
    /// On a thread of its own: a guard that finds the queue full says so on standard output, and
    /// where nobody reads that, it never returns.
    fn drop(&mut self) {
        let writer = self.writer.take();
        let (flushed, is_flushed) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("outgate-log-end".to_owned());
        let started = thread.spawn(move || {
            drop(writer);
            drop(flushed);
        });
        // Nothing is sent; what is waited for is that the sender is gone.
        if started.is_ok() {
            let _ = is_flushed.recv_timeout(LAST_LINES);
        }
    }
}

/// The configured filter; the access log has a switch of its own, whatever the level.
fn filter(config: &Config) -> Result<EnvFilter, TelemetryError> {
    let access = if config.access_log {
        "access=info"
    } else {
        "access=off"
    };
    let directives = if config.log.is_empty() {
        access.to_owned()
    } else {
        format!("{},{access}", config.log)
    };
    EnvFilter::try_new(directives).map_err(|error| TelemetryError::Filter {
        value: config.log.clone(),
        error,
    })
}

/// Writes lines in batches. The log's thread flushes it when no line waits any more.
struct Batches<W> {
    output: W,
    batch: Vec<u8>,
    lines: usize,
    unwritten: Arc<AtomicUsize>,
}

impl<W: Write> Batches<W> {
    fn new(output: W, unwritten: Arc<AtomicUsize>) -> Self {
        Self {
            output,
            batch: Vec::with_capacity(BATCH_BYTES),
            lines: 0,
            unwritten,
        }
    }

    /// Writes what has come together. What cannot be written is given up: later lines say more of what
    /// is going on when they can be.
    fn write_batch(&mut self) {
        let (written, whole) = self.write_most();
        let last = written.checked_sub(1).and_then(|last| self.batch.get(last));
        // What was to end a line that was cut before is still to be written, if nothing was.
        let is_cut = last.map_or(self.batch.first() == Some(&b'\n'), |last| *last != b'\n');
        self.batch.clear();
        if whole.is_err() {
            self.unwritten.fetch_add(self.lines, Ordering::Relaxed);
            if is_cut {
                self.batch.push(b'\n');
            }
        }
        self.lines = 0;
    }

    /// Writes the batch, and says how much of it was written.
    fn write_most(&mut self) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < self.batch.len() {
            match self.output.write(&self.batch[written..]) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, self.output.flush())
    }
}

impl<W: Write> Write for Batches<W> {
    /// Takes a line: each comes whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.batch.len() + line.len() > BATCH_BYTES {
            self.write_batch();
        }
        self.batch.extend_from_slice(line);
        self.lines += 1;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_batch();
        thread::sleep(GATHERING);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many batches, and then none.
    struct Breaking {
        takes: usize,
        taken: Vec<u8>,
    }

    impl Write for Breaking {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.takes = self.takes.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
            self.taken.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_batch_is_written_at_once_and_each_line_of_one_that_is_not_is_counted() {
        let unwritten = Arc::default();
        let output = Breaking {
            takes: 2,
            taken: Vec::new(),
        };
        let mut batches = Batches::new(output, Arc::clone(&unwritten));
        let line = [b'x'; BATCH_BYTES / 4];
        // Two whole batches, and one line that begins the third.
        for _ in 0..9 {
            batches.write_all(&line).unwrap();
        }
        assert_eq!(batches.output.taken.len(), 2 * BATCH_BYTES);
        assert_eq!(unwritten.load(Ordering::Relaxed), 0);
        batches.write_all(&line).unwrap();
        batches.flush().unwrap();
        assert_eq!(unwritten.load(Ordering::Relaxed), 2);
        // One that is longer than a batch is one line as well.
        batches.write_all(&[b'x'; 2 * BATCH_BYTES]).unwrap();
        batches.flush().unwrap();
        assert_eq!(unwritten.load(Ordering::Relaxed), 3);
    }

    /// Takes so many bytes, then none until it is mended.
    struct Filling {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Filling {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = self.taken.write(&bytes[..bytes.len().min(self.room)])?;
            self.room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_follows_lines_that_were_not_written_begins_a_line_and_leaves_no_empty_one() {
        for (room, expected) in [(0, "three\n"), (4, "one\nthree\n"), (6, "one\ntw\nthree\n")] {
            let taken = Vec::new();
            let mut batches = Batches::new(Filling { room, taken }, Arc::default());
            batches.write_all(b"one\n").unwrap();
            batches.write_all(b"two\n").unwrap();
            batches.flush().unwrap();
            // Nothing of this one either.
            batches.write_all(b"lost\n").unwrap();
            batches.flush().unwrap();
            batches.output.room = usize::MAX;
            batches.write_all(b"three\n").unwrap();
            batches.flush().unwrap();
            let taken = String::from_utf8_lossy(&batches.output.taken);
            assert_eq!(taken, expected, "{room}");
        }
    }
}
