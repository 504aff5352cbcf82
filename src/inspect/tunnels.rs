//! `GET /tunnels`: what is open now.

use std::sync::Arc;

use bytes::Bytes;
use http::header::LINK;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::{Inspector, json};
use crate::admin::{apart, text};
use crate::tunnels::{Tunnel, Tunnels};

/// Tunnels of one answer, unless fewer are asked for: some 300 KB, which is little to hold for an operator who reads slowly.
const LONGEST_PAGE: usize = 1000;

/// Answers with the tunnels in the order they were opened, a page at a time: `?limit=` so many, `&after=`
/// that id.
///
/// Apart from the data path: ten thousand are looked through for each page.
pub(super) async fn list(inspector: Arc<Inspector>, query: String) -> Response<Full<Bytes>> {
    match Page::of(&query) {
        Some(page) => apart(move || page.of_tunnels(&inspector.tunnels)).await,
        None => text(
            StatusCode::BAD_REQUEST,
            "expected ?limit=N&after=ID, both numbers, the limit from 1\n",
        ),
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

    /// The next page, where there is one, is in a `Link` field (RFC 8288).
    fn of_tunnels(&self, tunnels: &Tunnels) -> Response<Full<Bytes>> {
        let (tunnels, more) = tunnels.page(self.after, self.limit);
        let views: Vec<_> = tunnels
            .iter()
            .map(|tunnel| TunnelView::of(tunnel))
            .collect();
        let mut response = json(&views);
        if let Some(last) = tunnels.last().filter(|_| more) {
            let (limit, after) = (self.limit, last.id);
            let next = format!("</tunnels?limit={limit}&after={after}>; rel=\"next\"");
            if let Ok(next) = HeaderValue::try_from(next) {
                response.headers_mut().insert(LINK, next);
            }
        }
        response
    }
}

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
