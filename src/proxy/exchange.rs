//! One request and its response on one upstream connection, kept or new.

use std::sync::Arc;
use std::time::Instant;

use http::header::EXPECT;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::connection::Connection;
use super::respond::Failure;
use super::upload::RequestBody;
use super::upstream::{ExchangeError, Upstream};
use crate::access::{AccessRecord, Detail};
use crate::metrics::ActiveGuard;
use crate::policy::Permit;
use crate::reason::Reason;
use crate::target::Target;

/// One request on its way through one upstream connection.
pub(crate) struct Exchange<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) target: &'a Target,
    pub(crate) permit: &'a Permit,
    /// The path of a request that asks for another protocol.
    pub(crate) switching: Option<Box<str>>,
    /// Whether the request has no content, and the client's connection goes on to the next one.
    pub(crate) is_plain: bool,
}

impl Exchange<'_> {
    /// Sends the request, on a kept connection if there is one, and waits for the response head.
    ///
    /// A kept connection may have been closed by the upstream in this very moment. What was not
    /// sent at all is sent again; so is an idempotent request without content (RFC 9110 §9.2.2).
    pub(crate) async fn run(
        &self,
        head: Parts,
        body: RequestBody,
        record: &mut AccessRecord,
    ) -> Result<(Response<Incoming>, Box<Upstream>), Failure> {
        let (response, upstream) = self.send(head, body, record).await?;
        // What was answered is counted, by the connection it was on in the end.
        let pool = &self.connection.proxy.metrics.pool;
        if upstream.reused {
            pool.reused.inc();
        } else {
            pool.opened.inc();
        }
        Ok((response, upstream))
    }

    async fn send(
        &self,
        head: Parts,
        body: RequestBody,
        record: &mut AccessRecord,
    ) -> Result<(Response<Incoming>, Box<Upstream>), Failure> {
        let can_repeat = head.method.is_idempotent() && body.is_empty();
        let traffic = body.traffic();
        let mut upstream = self.upstream(record).await?;
        let spare = (can_repeat && upstream.reused).then(|| head.clone());
        let mut request = self.prepare(head, body);
        record.sending(request.headers_mut());
        let error = match upstream.exchange(request, &traffic).await {
            Ok(response) => return Ok((response, upstream)),
            Err(error) => error,
        };
        let mut again = match (error, spare) {
            (
                ExchangeError::Failed {
                    unsent: Some(unsent),
                    ..
                },
                _,
            ) if upstream.reused => *unsent,
            (ExchangeError::Failed { error, .. }, Some(head)) if is_lost_connection(&error) => {
                Request::from_parts(head, RequestBody::empty(Arc::clone(&traffic)))
            }
            (error, _) => return Err(self.exchange_failure(error)),
        };
        record.lost();
        let mut upstream = self.dial(record).await?;
        record.sending(again.headers_mut());
        match upstream.exchange(again, &traffic).await {
            Ok(response) => Ok((response, upstream)),
            Err(error) => Err(self.exchange_failure(error)),
        }
    }

    fn exchange_failure(&self, error: ExchangeError) -> Failure {
        match error {
            ExchangeError::Failed { error, .. } => failure(error),
            ExchangeError::Silent => {
                let patience = self.connection.proxy.config.response_timeout;
                if self.connection.progress.awaits_content() {
                    return Failure::new(Reason::ContentTimeout, Detail::Unfinished(patience));
                }
                Failure::new(Reason::ResponseTimeout, Detail::Unresponsive(patience))
            }
        }
    }

    async fn upstream(&self, record: &mut AccessRecord) -> Result<Box<Upstream>, Failure> {
        let proxy = &self.connection.proxy;
        let Some(mut kept) = proxy.pool.take(self.target, self.permit) else {
            return self.dial(record).await;
        };
        if kept.valid_until < Instant::now() {
            // DNS may name another host by now.
            let resolved = proxy.resolve(self.target, record).await?;
            if !resolved.addresses.contains(&kept.address.ip()) {
                return self.dial(record).await;
            }
            kept.valid_until = resolved.valid_until;
        }
        record.set_upstream(kept.address);
        Ok(kept)
    }

    async fn dial(&self, record: &mut AccessRecord) -> Result<Box<Upstream>, Failure> {
        let proxy = &self.connection.proxy;
        let (socket, address, valid_until) = proxy.reach(self.permit, self.target, record).await?;
        let mut upstream = Upstream::new(socket, address, valid_until, &proxy.config)
            .await
            .map_err(failure)?;
        upstream.busy = Some(ActiveGuard::new(&proxy.metrics.pool.busy));
        Ok(upstream)
    }

    /// Ties an expected `100 (Continue)` to the upstream's (RFC 9110 §10.1.1).
    fn prepare(&self, head: Parts, mut body: RequestBody) -> Request<RequestBody> {
        let expects = head
            .headers
            .get(EXPECT)
            .is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let gate = expects.then(|| body.hold_back());
        let mut request = Request::from_parts(head, body);
        if let Some(gate) = gate {
            hyper::ext::on_informational(&mut request, move |informational| {
                if informational.status() == StatusCode::CONTINUE {
                    gate.say();
                }
            });
        }
        request
    }
}

pub(crate) fn failure(error: hyper::Error) -> Failure {
    Failure::new(classify(&error), Detail::Exchange(error))
}

fn is_lost_connection(error: &hyper::Error) -> bool {
    classify(error) == Reason::ConnectionReset
}

/// What a failed exchange is to the client.
pub(crate) fn classify(error: &hyper::Error) -> Reason {
    if error.is_parse() {
        Reason::ProtocolError
    } else if error.is_user() || error.is_body_write_aborted() {
        // The only content sent upstream is the client's: it broke off, or its framing did.
        Reason::BadRequest
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        Reason::ConnectionReset
    } else {
        Reason::ResponseIncomplete
    }
}
