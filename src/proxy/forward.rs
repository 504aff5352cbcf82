//! Plain HTTP: a request in absolute-form goes upstream in origin-form (RFC 9112 §3.2).

use std::sync::Arc;
use std::time::Instant;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use super::body::RequestBody;
use super::body::ResponseBody;
use super::client::InFlight;
use super::connection::Connection;
use super::pool::{ExchangeError, Lease, Upstream};
use super::respond::Failure;
use super::tunnel::Takeover;
use crate::access::{AccessRecord, Traffic};
use crate::headers::{self, Forwards, Hop};
use crate::policy::{Access, Permit};
use crate::reason::Reason;
use crate::target::Target;

/// What the gateway answers a plain request with, before its content is attached to the account.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The upstream's response.
    Upstream(Response<Lease>),
    /// A response of the gateway's own to a request that ends here.
    Own(Response<bytes::Bytes>),
}

impl Answer {
    /// Ties the account of the request to the content of the response.
    pub(crate) fn into_response(
        self,
        record: AccessRecord,
        in_flight: InFlight,
    ) -> Response<ResponseBody> {
        match self {
            Self::Upstream(response) => {
                response.map(|lease| ResponseBody::upstream(lease, record, in_flight))
            }
            Self::Own(response) => response.map(|own| ResponseBody::own(own, record, in_flight)),
        }
    }
}

/// Forwards one request.
pub(crate) async fn forward(
    connection: &Connection,
    request: Request<Incoming>,
    record: &mut AccessRecord,
) -> Result<Answer, Failure> {
    let (mut head, content) = request.into_parts();
    let target = target(&head.uri)?;
    record.set_target(target.clone());
    let permit = connection.authorize(
        &target,
        Access::Forward {
            path: head.uri.path(),
        },
        record,
    )?;
    if let Some(answer) = end_here(&mut head)? {
        record.answered(answer.status());
        return Ok(Answer::Own(answer));
    }
    let traffic = record
        .count_traffic()
        .ok_or_else(|| Failure::new(Reason::Internal, "a request without a rule".to_owned()))?;
    let (head, switching) = to_upstream(connection, head, &target)?;
    let body = request_body(connection, content, &head, &traffic);
    let exchange = Exchange {
        connection,
        target: &target,
        permit: &permit,
        switching,
    };
    let (response, upstream) = exchange.run(head, body, record).await?;
    exchange
        .to_client(response, upstream, traffic, record)
        .await
}

/// The target of an absolute-form request; any other form is a client that was not set up for a
/// proxy.
fn target(uri: &Uri) -> Result<Target, Failure> {
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(Failure::bad_request(
            "This is a proxy: the request target must be an absolute URI (set HTTP_PROXY).",
        ));
    };
    Target::from_absolute(scheme, authority.as_str()).map_err(Failure::bad_request)
}

/// Answers a `TRACE` or `OPTIONS` whose `Max-Forwards` is used up (RFC 9110 §7.6.2).
fn end_here(head: &mut Parts) -> Result<Option<Response<bytes::Bytes>>, Failure> {
    if head.method != Method::TRACE && head.method != Method::OPTIONS {
        return Ok(None);
    }
    match headers::count_forwards(&mut head.headers) {
        Forwards::On => Ok(None),
        Forwards::Invalid => Err(Failure::bad_request("Max-Forwards must be a number.")),
        Forwards::Here if head.method == Method::OPTIONS => {
            Ok(Some(Response::new(bytes::Bytes::new())))
        }
        Forwards::Here => {
            let mut answer = Response::new(bytes::Bytes::from(reflected(head)));
            answer
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("message/http"));
            Ok(Some(answer))
        }
    }
}

/// The request as received, less the fields that may hold secrets (RFC 9110 §9.3.8).
fn reflected(head: &Parts) -> Vec<u8> {
    let mut message = format!("{} {} {:?}\r\n", head.method, head.uri, head.version).into_bytes();
    for (name, value) in &head.headers {
        if ["authorization", "cookie", "proxy-authorization"].contains(&name.as_str()) {
            continue;
        }
        message.extend_from_slice(name.as_str().as_bytes());
        message.extend_from_slice(b": ");
        message.extend_from_slice(value.as_bytes());
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"\r\n");
    message
}

/// Rewrites the head for the next hop; gives the path if it asks for another protocol.
fn to_upstream(
    connection: &Connection,
    mut head: Parts,
    target: &Target,
) -> Result<(Parts, Option<Box<str>>), Failure> {
    let version = head.version;
    let mut hop = headers::take_hop_by_hop(&mut head.headers);
    if version < Version::HTTP_11 {
        // RFC 9110 §7.8: HTTP/1.0 cannot switch.
        hop.upgrade = None;
    }
    // RFC 9112 §3.2.2: the received Host is ignored and made again from the target.
    let host = HeaderValue::try_from(target.host_field()).map_err(Failure::bad_request)?;
    head.headers.insert(HOST, host);
    headers::append_via(&mut head.headers, version, &connection.proxy.via);
    let upgrades = hop.upgrade.is_some();
    headers::put_hop_by_hop(&mut head.headers, hop);
    head.uri = if head.method == Method::OPTIONS && connection.progress.asks_for_asterisk() {
        // RFC 9112 §3.2.4.
        Uri::from_static("*")
    } else {
        // RFC 9110 §7.7: path and query as they came.
        let path = head.uri.path_and_query().cloned();
        Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
    };
    head.version = Version::HTTP_11;
    let switching = upgrades.then(|| head.uri.path().into());
    Ok((head, switching))
}

fn request_body(
    connection: &Connection,
    content: Incoming,
    head: &Parts,
    traffic: &Arc<Traffic>,
) -> RequestBody {
    use hyper::body::Body;
    if content.is_end_stream() && !head.headers.contains_key(CONTENT_LENGTH) {
        RequestBody::empty(Arc::clone(traffic))
    } else {
        RequestBody::streaming(content, Arc::clone(traffic), &connection.progress)
    }
}

/// One request on its way through one upstream connection.
struct Exchange<'a> {
    connection: &'a Connection,
    target: &'a Target,
    permit: &'a Permit,
    /// The path of a request that asks for another protocol.
    switching: Option<Box<str>>,
}

impl Exchange<'_> {
    /// Sends the request, on a kept connection if there is one, and waits for the response head.
    ///
    /// A kept connection may have been closed by the upstream in this very moment. What was not
    /// sent at all is sent again; so is an idempotent request without content (RFC 9110 §9.2.2).
    async fn run(
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
        let mut upstream = self.dial(record).await?;
        record.sending(again.headers_mut());
        match upstream.exchange(again, &traffic).await {
            Ok(response) => Ok((response, upstream)),
            Err(error) => Err(self.exchange_failure(error)),
        }
    }

    fn exchange_failure(&self, error: ExchangeError) -> Failure {
        match error {
            ExchangeError::Failed { error, .. } => failure(&error),
            ExchangeError::Silent => {
                let patience = self.connection.proxy.config.response_timeout;
                let detail = format!("no response within {patience:?}");
                Failure::new(Reason::ResponseTimeout, detail)
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
        proxy.metrics.pool.reused.inc();
        record.set_upstream(kept.address);
        Ok(kept)
    }

    async fn dial(&self, record: &mut AccessRecord) -> Result<Box<Upstream>, Failure> {
        let proxy = &self.connection.proxy;
        let (socket, address, valid_until) = proxy.reach(self.permit, self.target, record).await?;
        proxy.metrics.pool.opened.inc();
        Upstream::new(socket, address, valid_until, &proxy.config)
            .await
            .map_err(|error| failure(&error))
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

    /// Rewrites the response for the client, and hands the connection over after a 101.
    async fn to_client(
        &self,
        response: Response<Incoming>,
        upstream: Box<Upstream>,
        traffic: Arc<Traffic>,
        record: &mut AccessRecord,
    ) -> Result<Answer, Failure> {
        let (mut head, content) = response.into_parts();
        if !headers::framing_is_plain(&head.headers) {
            let detail = "the response has a transfer coding besides chunked";
            return Err(Failure::new(Reason::ProtocolError, detail.to_owned()));
        }
        let version = head.version;
        let hop = headers::take_hop_by_hop(&mut head.headers);
        headers::append_via(&mut head.headers, version, &self.connection.proxy.via);
        record.answered(head.status);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let switched = self.switch(hop, &mut head.headers, upstream, record).await;
            return switched.map(|()| Answer::Own(own(head)));
        }
        headers::put_hop_by_hop(
            &mut head.headers,
            Hop {
                upgrade: None,
                ..hop
            },
        );
        head.version = Version::HTTP_11;
        let pool = &self.connection.proxy.pool;
        let uploading = self.connection.progress.is_uploading();
        let lease = Lease::new(pool, self.target, upstream, content, traffic, uploading);
        Ok(Answer::Upstream(Response::from_parts(head, lease)))
    }

    async fn switch(
        &self,
        hop: Hop,
        headers: &mut HeaderMap,
        upstream: Box<Upstream>,
        record: &mut AccessRecord,
    ) -> Result<(), Failure> {
        let (Some(path), Some(_)) = (&self.switching, &hop.upgrade) else {
            let detail = "the upstream switched protocols without being asked to";
            return Err(Failure::new(Reason::ProtocolError, detail.to_owned()));
        };
        headers::put_hop_by_hop(
            headers,
            Hop {
                takes_trailers: false,
                chunked: false,
                ..hop
            },
        );
        let address = upstream.address;
        let (socket, early) = upstream
            .into_switched()
            .await
            .map_err(|error| failure(&error))?;
        let target = self.target.clone();
        let takeover = Takeover::new(
            self.connection,
            record,
            self.permit,
            target,
            socket,
            address,
        )?;
        self.connection.hand_over(takeover.by_switch(path, early));
        Ok(())
    }
}

fn own(head: http::response::Parts) -> Response<bytes::Bytes> {
    Response::from_parts(head, bytes::Bytes::new())
}

fn failure(error: &hyper::Error) -> Failure {
    Failure::new(classify(error), with_causes(error))
}

/// The error and what caused it; hyper's own text names only the first.
fn with_causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
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
