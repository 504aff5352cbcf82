//! Why a request was answered as it was: one closed list, one table.
//!
//! Everything that depends on the outcome of a request (status, reason phrase, `Proxy-Status`
//! token, metric label, log field, retry advice) is read from [`Reason::row`], so that they can
//! never disagree.

use http::StatusCode;

/// The outcome of one request, as the client, the metrics, the log and the trace name it.
///
/// The names are a public contract: dashboards and alerts are written against
/// [`Reason::label`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Allowed, and the upstream answered (whatever its own status was).
    Ok,
    /// The request head is not one a proxy may act on.
    BadRequest,
    /// The request head is larger than `OUTGATE_MAX_HEADER_BYTES`, or has more than 100 fields (the HTTP
    /// library's limit).
    HeaderTooLarge,
    /// The request head was not complete within `OUTGATE_HEADER_TIMEOUT`.
    HeaderTimeout,
    /// The client stopped sending its content, or reading the response, for
    /// `OUTGATE_RESPONSE_TIMEOUT`.
    ContentTimeout,
    /// No rule names the host.
    HostNotAllowed,
    /// A rule names the host, none with this port.
    PortNotAllowed,
    /// A rule names host and port, none for this client.
    ClientNotAllowed,
    /// A rule names host and port, none with this method.
    MethodNotAllowed,
    /// A rule names host and port, none with this path.
    PathNotAllowed,
    /// Every address of the host is one the guard refuses.
    AddressProhibited,
    /// The policy knows users and the request names none.
    AuthRequired,
    /// The target is the gateway itself.
    LoopDetected,
    /// The name does not exist, or has no address.
    DnsNotFound,
    /// The name servers answered with an error, or not at all.
    DnsError,
    /// No answer within `OUTGATE_DNS_TIMEOUT`.
    DnsTimeout,
    /// The upstream refused the connection.
    ConnectionRefused,
    /// The upstream reset the connection before it answered.
    ConnectionReset,
    /// No route to any address of the upstream.
    DestinationUnreachable,
    /// No address answered within `OUTGATE_CONNECT_TIMEOUT`.
    ConnectionTimeout,
    /// The upstream closed before its response was whole.
    ResponseIncomplete,
    /// The upstream's response is not HTTP.
    ProtocolError,
    /// The upstream did not begin its response within `OUTGATE_RESPONSE_TIMEOUT`, or was silent within it for
    /// `OUTGATE_IDLE_TIMEOUT`.
    ResponseTimeout,
    /// The client is at `OUTGATE_MAX_CONNECTIONS_PER_CLIENT`.
    ClientLimit,
    /// The gateway is at `OUTGATE_MAX_CONNECTIONS`, has no descriptor left, or looks up as many names as it can.
    ConnectionLimit,
    /// The gateway is shutting down.
    Draining,
    /// The client went away before there was anything to answer. Never sent.
    ClientClosed,
    /// A defect of the gateway.
    Internal,
}

/// Whether the same request may succeed later, as `Retry-After` tells a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The outcome stands until a person changes something.
    Never,
    /// Nothing is known about when: no `Retry-After`.
    Unknown,
    /// After this many seconds.
    After(u8),
}

/// What one [`Reason`] means on each surface.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Status code of the answer.
    pub status: StatusCode,
    /// The label in metrics, logs, bodies and `Proxy-Status` details.
    pub label: &'static str,
    /// Error type of `Proxy-Status` (RFC 9209 §2.3); none where nothing went wrong.
    pub proxy_error: Option<&'static str>,
    /// Whether and when to try again.
    pub retry: Retry,
    /// What the client's owner can do about it; never an address, never an OS error.
    pub advice: &'static str,
}

impl Reason {
    /// Every reason, in the order of the table.
    pub const ALL: [Self; 28] = [
        Self::Ok,
        Self::BadRequest,
        Self::HeaderTooLarge,
        Self::HeaderTimeout,
        Self::ContentTimeout,
        Self::HostNotAllowed,
        Self::PortNotAllowed,
        Self::ClientNotAllowed,
        Self::MethodNotAllowed,
        Self::PathNotAllowed,
        Self::AddressProhibited,
        Self::AuthRequired,
        Self::LoopDetected,
        Self::DnsNotFound,
        Self::DnsError,
        Self::DnsTimeout,
        Self::ConnectionRefused,
        Self::ConnectionReset,
        Self::DestinationUnreachable,
        Self::ConnectionTimeout,
        Self::ResponseIncomplete,
        Self::ProtocolError,
        Self::ResponseTimeout,
        Self::ClientLimit,
        Self::ConnectionLimit,
        Self::Draining,
        Self::ClientClosed,
        Self::Internal,
    ];

    /// The label of this reason in metrics, logs, bodies and headers.
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.row().label
    }

    /// The status code a client is answered with.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().status
    }

    /// Whether policy refused the request, as opposed to a failure on the way.
    #[must_use]
    pub const fn is_denial(self) -> bool {
        matches!(
            self,
            Self::HostNotAllowed
                | Self::PortNotAllowed
                | Self::ClientNotAllowed
                | Self::MethodNotAllowed
                | Self::PathNotAllowed
                | Self::AddressProhibited
                | Self::AuthRequired
                | Self::LoopDetected
        )
    }

    /// The row of the table.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one table, read as one")]
    pub const fn row(self) -> Row {
        use Retry::{After, Never, Unknown};
        const DENIED: Option<&str> = Some("http_request_denied");
        const LIMITED: Option<&str> = Some("connection_limit_reached");
        match self {
            Self::Ok => Row {
                status: StatusCode::OK,
                label: "ok",
                proxy_error: None,
                retry: Unknown,
                advice: "",
            },
            Self::BadRequest => Row {
                status: StatusCode::BAD_REQUEST,
                label: "bad_request",
                proxy_error: Some("http_request_error"),
                retry: Never,
                advice: "The gateway cannot act on this request head.",
            },
            Self::HeaderTooLarge => Row {
                status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                label: "header_too_large",
                proxy_error: Some("http_request_error"),
                retry: Never,
                advice: "Send a smaller request head, of at most 100 fields, or have OUTGATE_MAX_HEADER_BYTES raised.",
            },
            Self::HeaderTimeout => Row {
                status: StatusCode::REQUEST_TIMEOUT,
                label: "header_timeout",
                proxy_error: Some("http_request_error"),
                retry: Unknown,
                advice: "The request head did not arrive in time.",
            },
            Self::ContentTimeout => Row {
                status: StatusCode::REQUEST_TIMEOUT,
                label: "content_timeout",
                proxy_error: Some("http_request_error"),
                retry: Unknown,
                advice: "The content of the request did not go on in time.",
            },
            Self::HostNotAllowed => Row {
                status: StatusCode::FORBIDDEN,
                label: "host_not_allowed",
                proxy_error: DENIED,
                retry: Never,
                advice: "The egress policy does not allow this host. Ask the owners of the gateway to allow it.",
            },
            Self::PortNotAllowed => Row {
                status: StatusCode::FORBIDDEN,
                label: "port_not_allowed",
                proxy_error: DENIED,
                retry: Never,
                advice: "The host is allowed, but not on this port. Ask the owners of the gateway to allow it.",
            },
            Self::ClientNotAllowed => Row {
                status: StatusCode::FORBIDDEN,
                label: "client_not_allowed",
                proxy_error: DENIED,
                retry: Never,
                advice: "The destination is allowed, but not for this client. Ask the owners of the gateway to allow it.",
            },
            Self::MethodNotAllowed => Row {
                status: StatusCode::FORBIDDEN,
                label: "method_not_allowed",
                proxy_error: DENIED,
                retry: Never,
                advice: "The destination is allowed, but not with this method. Ask the owners of the gateway to allow it.",
            },
            Self::PathNotAllowed => Row {
                status: StatusCode::FORBIDDEN,
                label: "path_not_allowed",
                proxy_error: DENIED,
                retry: Never,
                advice: "The host is allowed, but not under this path. Ask the owners of the gateway to allow it.",
            },
            Self::AddressProhibited => Row {
                status: StatusCode::FORBIDDEN,
                label: "address_prohibited",
                proxy_error: Some("destination_ip_prohibited"),
                retry: Never,
                advice: "The destination is at an internal or otherwise prohibited address. Ask the owners of the gateway to exempt it.",
            },
            Self::AuthRequired => Row {
                status: StatusCode::PROXY_AUTHENTICATION_REQUIRED,
                label: "auth_required",
                proxy_error: DENIED,
                retry: Never,
                advice: "Send the credentials of a client the policy knows in the proxy URL.",
            },
            Self::LoopDetected => Row {
                status: StatusCode::BAD_GATEWAY,
                label: "loop_detected",
                proxy_error: Some("proxy_loop_detected"),
                retry: Never,
                advice: "The destination is the gateway itself. Add it to NO_PROXY.",
            },
            Self::DnsNotFound => Row {
                status: StatusCode::BAD_GATEWAY,
                label: "dns_not_found",
                proxy_error: Some("dns_error"),
                retry: Never,
                advice: "The name does not exist or has no address. Check its spelling; names are looked up as absolute.",
            },
            Self::DnsError => Row {
                status: StatusCode::BAD_GATEWAY,
                label: "dns_error",
                proxy_error: Some("dns_error"),
                retry: Unknown,
                advice: "The gateway's name servers failed to answer.",
            },
            Self::DnsTimeout => Row {
                status: StatusCode::GATEWAY_TIMEOUT,
                label: "dns_timeout",
                proxy_error: Some("dns_timeout"),
                retry: Unknown,
                advice: "The gateway's name servers did not answer in time.",
            },
            Self::ConnectionRefused => Row {
                status: StatusCode::BAD_GATEWAY,
                label: "connection_refused",
                proxy_error: Some("connection_refused"),
                retry: Unknown,
                advice: "The destination is allowed, but nothing listens on this port there.",
            },
            Self::ConnectionReset => Row {
                status: StatusCode::BAD_GATEWAY,
                label: "connection_reset",
                proxy_error: Some("connection_terminated"),
                retry: Unknown,
                advice: "The destination closed the connection before it answered.",
            },
            Self::DestinationUnreachable => Row {
                status: StatusCode::BAD_GATEWAY,
                label: "destination_unreachable",
                proxy_error: Some("destination_ip_unroutable"),
                retry: Unknown,
                advice: "The gateway has no route to the destination.",
            },
            Self::ConnectionTimeout => Row {
                status: StatusCode::GATEWAY_TIMEOUT,
                label: "connection_timeout",
                proxy_error: Some("connection_timeout"),
                retry: Unknown,
                advice: "The destination did not answer the connection attempt in time; a firewall may drop it.",
            },
            Self::ResponseIncomplete => Row {
                status: StatusCode::BAD_GATEWAY,
                label: "response_incomplete",
                proxy_error: Some("http_response_incomplete"),
                retry: Unknown,
                advice: "The destination closed the connection within its response.",
            },
            Self::ProtocolError => Row {
                status: StatusCode::BAD_GATEWAY,
                label: "protocol_error",
                proxy_error: Some("http_protocol_error"),
                retry: Unknown,
                advice: "The destination's response is not HTTP/1.1; is the port right?",
            },
            Self::ResponseTimeout => Row {
                status: StatusCode::GATEWAY_TIMEOUT,
                label: "response_timeout",
                proxy_error: Some("http_response_timeout"),
                retry: Unknown,
                advice: "The destination accepted the request but did not answer it in time.",
            },
            Self::ClientLimit => Row {
                status: StatusCode::TOO_MANY_REQUESTS,
                label: "client_limit",
                proxy_error: LIMITED,
                retry: After(1),
                advice: "This client holds as many connections as it may. Close some, or have OUTGATE_MAX_CONNECTIONS_PER_CLIENT raised.",
            },
            Self::ConnectionLimit => Row {
                status: StatusCode::SERVICE_UNAVAILABLE,
                label: "connection_limit",
                proxy_error: LIMITED,
                retry: After(1),
                advice: "The gateway holds as many connections as it may. Try again.",
            },
            Self::Draining => Row {
                status: StatusCode::SERVICE_UNAVAILABLE,
                label: "draining",
                proxy_error: LIMITED,
                retry: After(1),
                advice: "This replica of the gateway is shutting down. Try again.",
            },
            Self::ClientClosed => Row {
                // Not registered; the number that nginx made customary in access logs.
                status: match StatusCode::from_u16(499) {
                    Ok(status) => status,
                    Err(_) => StatusCode::BAD_REQUEST,
                },
                label: "client_closed",
                proxy_error: None,
                retry: Unknown,
                advice: "",
            },
            Self::Internal => Row {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                label: "internal",
                proxy_error: Some("proxy_internal_error"),
                retry: Unknown,
                advice: "The gateway failed. Its log has the details under this trace_id.",
            },
        }
    }
}

#[cfg(test)]
mod tests;
