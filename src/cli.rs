//! The command line and the exit codes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use hickory_resolver::Hosts;
use outgate::check::{self, Asker, Question};
use outgate::config::{self, Config};
use outgate::proxy::Dialer;
use outgate::{gateway, reload};

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
    Check(CheckOptions),
    /// Ask the gateway on this host whether it is ready; exits 0 if so, 1 if not
    Healthcheck {
        /// Ask only whether it is alive
        #[arg(long)]
        live: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckOptions {
    /// `host:port` for a tunnel, or an `http://` URL
    #[arg(required_unless_present = "lint")]
    pub(crate) target: Option<Question>,
    /// The client, by address or by its name in the policy file
    #[arg(long, value_name = "NAME|IP", default_value = "127.0.0.1", value_parser = asker)]
    pub(crate) client: Asker,
    /// Take the policy from this file instead of `OUTGATE_POLICY_FILE`
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Report rules that can never decide anything
    #[arg(long)]
    pub(crate) lint: bool,
    /// Exit 1 if there are such rules
    #[arg(long, requires = "lint")]
    pub(crate) strict: bool,
}

fn asker(text: &str) -> Result<Asker, std::convert::Infallible> {
    Ok(Asker::from(text))
}

/// Exit codes of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Success = 0,
    /// The answer is no, or something failed.
    Failure = 1,
    /// Stopped at once while something was open.
    Hurried = 3,
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

/// Answers `outgate check`.
pub(crate) fn check(mut config: Config, options: &CheckOptions) -> Result<(), Exit> {
    if options.policy.is_some() {
        config.policy_file.clone_from(&options.policy);
    }
    let policy = Arc::new(reload::load(&config).map_err(fail(Exit::Config))?.policy);
    let findings = if options.lint {
        policy.lint()
    } else {
        Vec::new()
    };
    findings.iter().for_each(|finding| println!("{finding}"));
    let mut passed = findings.is_empty() || !options.strict;
    if let Some(target) = &options.target {
        passed &= runtime(&config)?.block_on(async {
            let hosts = Hosts::from_system().unwrap_or_default();
            let resolver = gateway::resolver(&config, hosts).map_err(fail(Exit::Config))?;
            // It is only asked what the gateway's own addresses are.
            let dialer = Dialer::new(config.connect_timeout, config.own_ports(), 0);
            let checked = check::check(&policy, &resolver, &dialer, &options.client, target)
                .await
                .map_err(fail(Exit::Failure))?;
            print!("{checked}");
            Ok(checked.is_let_through())
        })?;
    }
    if passed { Ok(()) } else { Err(Exit::Failure) }
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
        "Example: OUTGATE_ALLOW='api.example.com *.example.org:8443' outgate\n\n\
         Configuration, by environment variable, with defaults:\n\n{}\n\
         Traces: the OTEL_* variables of OpenTelemetry; off without OTEL_EXPORTER_OTLP_ENDPOINT.\n\n\
         Exit codes: 0 all went well; 1 the answer is no, or something failed; \
         2 the command line is wrong; 3 stopped at once while something was open; \
         78 the configuration cannot be used.",
        config::help()
    )
}
