//! Plain HTTP: a request in absolute-form goes upstream in origin-form (RFC 9112 §3.2).

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};

use super::body::{Account, ResponseBody};
use super::bulk::Bulk;
use super::connection::Connection;
use super::exchange::{Exchange, failure};
use super::pool::Lease;
use super::respond::Failure;
use super::tunnel::Takeover;
use super::upload::RequestBody;
use super::upstream::Upstream;
use crate::access::{AccessRecord, Traffic};
use crate::headers::{self, Forwards, Hop};
use crate::policy::Access;
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
    /// Ties the account of the request to the content of the response, which goes past hyper if there is much of it and
    /// the connection goes on.
    pub(crate) fn into_response(
        self,
        connection: &Connection,
        account: Account,
        goes_on: bool,
    ) -> Response<ResponseBody> {
        match self {
            Self::Upstream(response) => response.map(|lease| match lease.into_source(goes_on) {
                Ok(source) => {
                    let length = source.length;
                    connection.pass_on(Bulk::new(source, account));
                    ResponseBody::elsewhere(length)
                }
                Err(lease) => ResponseBody::upstream(lease, account),
            }),
            Self::Own(response) => response.map(|own| ResponseBody::own(own, account)),
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
    let asked = target_of_origin(&head);
    record.set_target(target.clone());
    let permit = connection.authorize(&target, Access::Forward { path: asked.path() }, record)?;
    if let Some(answer) = end_here(&mut head)? {
        record.answered(answer.status());
        return Ok(Answer::Own(answer));
    }
    let traffic = record
        .count_traffic()
        .ok_or_else(|| Failure::new(Reason::Internal, "a request without a rule"))?;
    let version = head.version;
    let hop = headers::take_hop_by_hop(&mut head.headers);
    let goes_on = version == Version::HTTP_11 && !hop.closes;
    let (head, switching) = to_upstream(connection, head, hop, &content, &target, asked, record)?;
    let body = request_body(connection, content, &head, &traffic);
    let exchange = Exchange {
        connection,
        target: &target,
        permit: &permit,
        switching,
        is_plain: goes_on && body.is_empty(),
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

/// The request target that the origin is sent, which is the one that is judged.
fn target_of_origin(head: &Parts) -> Uri {
    if head.method == Method::OPTIONS && is_without_path(&head.uri) {
        // RFC 9112 §3.2.4. No rule for a path admits it.
        return Uri::from_static("*");
    }
    // RFC 9110 §7.7: path and query as they came. With a fragment right behind the authority the path is
    // shown as `/`, and written as nothing.
    let path = head.uri.path_and_query();
    let path = path.filter(|path| path.as_str() != "/").cloned();
    Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
}

/// Whether an absolute URI ends with its authority, which its parser does not tell from one that ends with `/`.
///
/// It keeps the parts where they were received, and shows a `/` from elsewhere for a path that was not.
fn is_without_path(uri: &Uri) -> bool {
    let authority = uri.authority().map(|authority| authority.as_str());
    let received_at = authority.map(|authority| authority.as_bytes().as_ptr_range().end);
    received_at != Some(uri.path().as_ptr()) && uri.query().is_none()
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
    mut hop: Hop,
    content: &Incoming,
    target: &Target,
    asked: Uri,
    record: &AccessRecord,
) -> Result<(Parts, Option<Box<str>>), Failure> {
    let version = head.version;
    if version < Version::HTTP_11
        || !content.is_end_stream()
        || (hop.beyond_websocket && !connection.may_tunnel_to(target, record))
    {
        // RFC 9110 §7.8: HTTP/1.0 cannot switch, and a server may ignore the field. With content it is ignored, for
        // a 101 may come before the content is whole, and HTTP goes on until it is. Behind a 101 to a protocol that
        // may be anything there is a tunnel like that of a CONNECT.
        hop.upgrade = None;
    }
    // RFC 9112 §3.2.2: the received Host is ignored and made again from the target.
    let host = HeaderValue::try_from(target.host_field()).map_err(Failure::bad_request)?;
    head.headers.insert(HOST, host);
    headers::append_via(&mut head.headers, version, &connection.proxy.via);
    let upgrades = hop.upgrade.is_some();
    headers::put_hop_by_hop(&mut head.headers, hop);
    head.uri = asked;
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
    if content.is_end_stream() && !head.headers.contains_key(CONTENT_LENGTH) {
        RequestBody::empty(Arc::clone(traffic))
    } else {
        RequestBody::streaming(content, Arc::clone(traffic), &connection.progress)
    }
}

impl Exchange<'_> {
    /// Rewrites the response for the client, and hands the connection over after a 101.
    async fn to_client(
        &self,
        response: Response<Incoming>,
        mut upstream: Box<Upstream>,
        traffic: Arc<Traffic>,
        record: &mut AccessRecord,
    ) -> Result<Answer, Failure> {
        let (mut head, content) = response.into_parts();
        record.answered(head.status);
        if !headers::framing_is_plain(&head.headers) {
            let detail = "the response has a transfer coding besides chunked";
            return Err(Failure::new(Reason::ProtocolError, detail));
        }
        upstream.is_last |= headers::framing_is_doubled(&head.headers);
        let version = head.version;
        let hop = headers::take_hop_by_hop(&mut head.headers);
        upstream.is_last |= hop.closes;
        headers::append_via(&mut head.headers, version, &self.connection.proxy.via);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // Apart: few requests need its room, and a future takes that from the start.
            let switched = Box::pin(self.switch(hop, &mut head.headers, upstream, record)).await;
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
        let mut lease = Lease::new(pool, self.target, upstream, content, traffic, uploading);
        if self.is_plain && version == Version::HTTP_11 {
            lease.may_leave_hyper();
        }
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
            return Err(Failure::new(Reason::ProtocolError, detail));
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
        let (socket, early) = upstream.into_switched().await.map_err(failure)?;
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
