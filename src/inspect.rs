//! The inspector: what is open now, what is configured and what the policy says, for an operator on
//! the same host.
//!
//! It shows destinations and clients, which the metrics must not, and it can close tunnels; so it
//! listens on loopback unless told otherwise.

mod explain;
mod policy;
mod tunnels;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::ready;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;

use crate::admin::{Answering, cannot_be_shown, method_not_allowed, text, with_type};
use crate::config::{Config, Tracing};
use crate::metrics::End;
use crate::proxy::Proxy;
use crate::tunnels::Tunnels;

/// What answers on the inspector's port.
#[derive(Debug)]
pub struct Inspector {
    /// What `/config` shows.
    pub config: Arc<Config>,
    /// What `/tunnels` shows.
    pub tunnels: Arc<Tunnels>,
    /// What `/policy` and `/explain` ask.
    pub proxy: Arc<Proxy>,
}

impl Inspector {
    /// Answers one request.
    #[must_use]
    pub fn answer(self: &Arc<Self>, request: &Request<Incoming>) -> Answering {
        let inspector = Arc::clone(self);
        let query = || request.uri().query().unwrap_or_default().to_owned();
        match (request.uri().path(), request.method()) {
            ("/policy", &Method::GET) => policy::show(inspector).boxed(),
            ("/tunnels", &Method::GET) => tunnels::list(inspector, query()).boxed(),
            ("/explain", &Method::GET) => explain::explain(inspector, query()).boxed(),
            ("/policy" | "/explain" | "/tunnels", _) => ready(method_not_allowed("GET")).boxed(),
            _ => ready(self.answer_at_once(request)).boxed(),
        }
    }

    fn answer_at_once(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        match (path, request.method()) {
            ("/config", &Method::GET) => self.config(),
            ("/config", _) => method_not_allowed("GET"),
            _ => match (path.strip_prefix("/tunnels/"), request.method()) {
                (Some(id), &Method::DELETE) => self.close(id),
                (Some(_), _) => method_not_allowed("DELETE"),
                (None, _) => text(
                    StatusCode::NOT_FOUND,
                    "try GET /tunnels, /policy, /explain?target= or /config, or DELETE /tunnels/{id}\n",
                ),
            },
        }
    }

    fn config(&self) -> Response<Full<Bytes>> {
        let own = self.config.values();
        let own = own.map(|(variable, value, _)| (variable.name, value));
        let tracing = self.config.tracing.iter().flat_map(Tracing::values);
        let values: serde_json::Map<_, _> = own
            .chain(tracing)
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        json(&values)
    }

    fn close(&self, id: &str) -> Response<Full<Bytes>> {
        match id.parse().ok().and_then(|id| self.tunnels.get(id)) {
            Some(tunnel) => {
                tracing::info!(id, "tunnel closed over the inspector");
                tunnel.end(End::Revoked);
                text(StatusCode::ACCEPTED, "closing\n")
            }
            None => text(StatusCode::NOT_FOUND, "no such tunnel\n"),
        }
    }
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(content) => with_type("application/json", StatusCode::OK, content),
        Err(_) => cannot_be_shown(),
    }
}
