//! Outgate, an egress gateway: an HTTP forward proxy that lets through only what its allowlist
//! names, counts every request and every copied byte, and says in words why it refused.
//!
//! # Layout
//!
//! Data enters at the top and leaves at the bottom; nothing points back up.
//!
//! Pure, without I/O:
//! - [`target`]: what a client asked for, normalised.
//! - [`policy`]: who may go where; the address guard.
//! - [`headers`]: header fields on their way through.
//! - [`reason`]: why a request was answered as it was, on every surface.
//!
//! The data path:
//! - [`proxy`]: accept → parse → authorise → resolve → connect → relay or forward → account.
//! - [`enforced`]: the policy in force, with the metric handles of its rules.
//! - [`tunnels`]: the table of live tunnels.
//!
//! The edges:
//! - [`config`]: environment and file → [`config::Config`].
//! - [`reload`]: the policy file as it changes.
//! - [`access`]: the account of one request: metrics, log line and spans.
//! - [`metrics`], [`telemetry`], [`trace`]: Prometheus registry; log; OTLP.
//! - [`admin`], [`inspect`]: `/metrics`, `/livez`, `/readyz`; what is open now.
//! - [`listen`], [`limits`], [`signals`], [`drain`]: sockets, descriptors, the life of a pod.
//! - [`panics`], [`vital`]: what a defect does, and to whom.
//! - [`gateway`]: all of it put together.
//! - [`check`], [`health`]: the commands that are no server.

pub mod access;
pub mod admin;
pub mod check;
pub mod config;
pub mod drain;
pub mod enforced;
pub mod gateway;
pub mod headers;
pub mod health;
pub mod inspect;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod panics;
pub mod policy;
pub mod proxy;
pub mod reason;
pub mod reload;
pub mod signals;
mod socket;
pub mod target;
pub mod telemetry;
pub mod trace;
pub mod tunnels;
pub mod vital;
