//! The inspector: what is open now, what is configured and what the policy says, for an operator on
//! the same host.
//!
//! It shows destinations and clients, which the metrics must not, and it can close tunnels; so it
//! listens on loopback unless told otherwise.

mod explain;
mod policy;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::ready;
use http::header::LINK;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;

use crate::admin::{Answering, method_not_allowed, text, with_type};
use crate::config::{Config, Tracing};
use crate::metrics::End;
use crate::proxy::Proxy;
use crate::tunnels::{Tunnel, Tunnels};

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

/// Tunnels of one answer, unless fewer are asked for: a millisecond's work, so that an answer
/// keeps no thread from the data path for long.
const LONGEST_PAGE: usize = 1000;

#[derive(Serialize)]
struct TunnelView<'a> {
    id: u64,
    client: String,
    target: String,
    address: String,
    rule: &'a str,
    age_seconds: f64,
    idle_seconds: f64,
    bytes_sent: u64,
    bytes_received: u64,
}

impl<'a> TunnelView<'a> {
    fn of(tunnel: &'a Tunnel) -> Self {
        let opening = &tunnel.opening;
        Self {
            id: tunnel.id,
            client: opening.client.to_string(),
            target: opening.target.to_string(),
            address: opening.upstream.to_string(),
            rule: &opening.rule,
            age_seconds: tunnel.age().as_secs_f64(),
            idle_seconds: tunnel.idle().as_secs_f64(),
            bytes_sent: opening.traffic.sent(),
            bytes_received: opening.traffic.received(),
        }
    }
}

impl Inspector {
    /// Answers one request.
    #[must_use]
    pub fn answer(self: &Arc<Self>, request: &Request<Incoming>) -> Answering {
        let inspector = Arc::clone(self);
        match (request.uri().path(), request.method()) {
            ("/policy", &Method::GET) => policy::show(inspector).boxed(),
            ("/explain", &Method::GET) => {
                let query = request.uri().query().unwrap_or_default().to_owned();
                explain::explain(inspector, query).boxed()
            }
            ("/policy" | "/explain", _) => ready(method_not_allowed("GET")).boxed(),
            _ => ready(self.answer_at_once(request)).boxed(),
        }
    }

    fn answer_at_once(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        match (path, request.method()) {
            ("/tunnels", &Method::GET) => self.list(request.uri().query().unwrap_or_default()),
            ("/config", &Method::GET) => self.config(),
            ("/tunnels" | "/config", _) => method_not_allowed("GET"),
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

    /// The tunnels in the order they were opened, a page at a time: `?limit=` so many, `&after=`
    /// that id. The next page, where there is one, is in a `Link` field (RFC 8288).
    fn list(&self, query: &str) -> Response<Full<Bytes>> {
        let Some(page) = Page::of(query) else {
            return text(
                StatusCode::BAD_REQUEST,
                "expected ?limit=N&after=ID, both numbers, the limit from 1\n",
            );
        };
        let (tunnels, more) = self.tunnels.page(page.after, page.limit);
        let views: Vec<_> = tunnels
            .iter()
            .map(|tunnel| TunnelView::of(tunnel))
            .collect();
        let mut response = json(&views);
        if let Some(last) = tunnels.last().filter(|_| more) {
            let (limit, after) = (page.limit, last.id);
            let next = format!("</tunnels?limit={limit}&after={after}>; rel=\"next\"");
            if let Ok(next) = HeaderValue::try_from(next) {
                response.headers_mut().insert(LINK, next);
            }
        }
        response
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
                tunnel.end(End::Revoked);
                text(StatusCode::ACCEPTED, "closing\n")
            }
            None => text(StatusCode::NOT_FOUND, "no such tunnel\n"),
        }
    }
}

/// Which tunnels an answer lists.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    limit: usize,
    after: u64,
}

impl Page {
    fn of(query: &str) -> Option<Self> {
        let mut page = Self {
            limit: LONGEST_PAGE,
            after: 0,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=')? {
                ("limit", limit) => page.limit = limit.parse().ok().filter(|limit| *limit > 0)?,
                ("after", after) => page.after = after.parse().ok()?,
                _ => return None,
            }
        }
        page.limit = page.limit.min(LONGEST_PAGE);
        Some(page)
    }
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(content) => with_type("application/json", StatusCode::OK, content),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot be shown\n"),
    }
}
