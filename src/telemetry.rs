//! Logs: one stream of lines on standard output, which never holds up a request.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
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

/// Keeps the log writer alive; dropping it flushes what was written.
#[derive(Debug)]
pub struct Telemetry {
    dropped: ErrorCounter,
    _writer: WorkerGuard,
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
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(LINES_WAITING)
            .thread_name("outgate-log")
            .finish(Batches(BufWriter::with_capacity(BATCH_BYTES, io::stdout())));
        let dropped = writer.error_counter();
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
            _writer: guard,
        })
    }

    /// How many lines were dropped, for the metric.
    #[must_use]
    pub fn dropped(&self) -> ErrorCounter {
        self.dropped.clone()
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
struct Batches(BufWriter<Stdout>);

impl Write for Batches {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        std::thread::sleep(GATHERING);
        Ok(())
    }
}
