//! argv → configuration → log → runtime → gateway → exit code; the only file that exits.

use std::process::ExitCode;

use clap::Parser;
use hickory_resolver::Hosts;
use outgate::config::Config;
use outgate::gateway::Gateway;
use outgate::listen::Listeners;
use outgate::telemetry::Telemetry;
use outgate::{health, limits, panics, signals};

mod cli;

use cli::{Command, Exit, Options, fail};

/// Frees less to the kernel and shares less between threads than the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all: what is allocated before it lies in large pages.
    limits::use_small_pages();
    let command = Options::parse().command.unwrap_or(Command::Run);
    let outcome = Config::from_env()
        .map_err(fail(Exit::Config))
        .and_then(|config| match command {
            Command::Run => run(config),
            Command::Config => {
                print!("{config}");
                Ok(())
            }
            Command::Check(options) => cli::check(config, &options),
            Command::Healthcheck { live } => {
                let path = if live { "/livez" } else { "/readyz" };
                health::check(config.admin_listen, path).map_err(fail(Exit::Failure))
            }
        });
    outcome.err().unwrap_or(Exit::Success).into()
}

fn run(config: Config) -> Result<(), Exit> {
    let telemetry = Telemetry::start(&config).map_err(fail(Exit::Config))?;
    panics::report();
    cli::runtime(&config)?.block_on(async {
        let stops = signals::stops().map_err(fail(Exit::Failure))?;
        let hangup = signals::hangup().map_err(fail(Exit::Failure))?;
        let listeners = Listeners::bind(&config).map_err(fail(Exit::Config))?;
        let hosts = Hosts::from_system().unwrap_or_default();
        let gateway = Gateway::new(config, listeners, hosts).map_err(fail(Exit::Config))?;
        let drained = gateway.run(stops, hangup, Some(telemetry.dropped())).await;
        drained.is_orderly().then_some(()).ok_or(Exit::Hurried)
    })
}
