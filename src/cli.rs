//! The command line and the exit codes.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use outgate::check::Question;
use outgate::config::{self, Config};

/// An egress gateway: an HTTP forward proxy that lets through only what its allowlist names.
#[derive(Debug, Parser)]
#[command(version, about, after_long_help = variables(), after_help = "--help lists the variables.")]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway (the default)
    Run,
    /// Print the effective configuration and where each value comes from
    Config,
    /// Tell whether a request would be let through, by which rule, to which addresses;
    /// exits 0 if it would, 1 if not
    Check {
        /// `host:port` for a tunnel, or an `http://` URL
        target: Question,
        /// The client's address
        #[arg(long, value_name = "IP")]
        client: Option<IpAddr>,
    },
    /// Ask the gateway on this host whether it is ready; exits 0 if so, 1 if not
    Healthcheck {
        /// Ask only whether it is alive
        #[arg(long)]
        live: bool,
    },
}

/// Exit codes of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Success = 0,
    /// The answer is no, or something failed.
    Failure = 1,
    /// The configuration cannot be used (`EX_CONFIG` of sysexits).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Says what went wrong and turns it into an exit code.
pub(crate) fn fail<E: std::fmt::Display>(exit: Exit) -> impl Fn(E) -> Exit {
    move |error| {
        eprintln!("outgate: {error}");
        exit
    }
}

/// The runtime, with as many threads as configured.
pub(crate) fn runtime(config: &Config) -> Result<tokio::runtime::Runtime, Exit> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = config.workers {
        builder.worker_threads(workers.get());
    }
    builder
        .enable_all()
        .thread_name("outgate")
        .build()
        .map_err(fail(Exit::Failure))
}

fn variables() -> String {
    format!(
        "Configuration, by environment variable:\n\n{}",
        config::help()
    )
}
