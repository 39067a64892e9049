//! Why a request or connection failed: the one place that maps a cause to fault, status and label.

use std::borrow::Cow;

/// Why a request, or the connection it would have come on, failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The caller's bytes are not the protocol they claim to be, or could be read two ways.
    BadRequest,
    /// The request target is longer than the head may be.
    TargetTooLong,
    /// The head has more bytes or fields than allowed.
    HeadTooLarge,
    /// A transfer coding or feature this proxy does not do.
    NotImplemented,
    /// `CONNECT` and `TRACE`: an app behind a sidecar is neither a forward proxy nor an echo of its callers' secrets.
    MethodNotAllowed,
    /// An expectation other than `100-continue`.
    ExpectationFailed,
    /// An HTTP version other than 1.0, 1.1 and 2.
    VersionNotSupported,
    /// The caller did not finish sending the head, or stalled within the body.
    RequestTimeout,
    /// The caller went away before the answer was complete.
    ClientDisconnected,
    /// A PROXY protocol header came from a source that may not send one, is missing where required, or is malformed.
    ProxyProtocol,
    /// The TLS handshake failed; the detail is a [`TlsFault`](crate::TlsFault)'s label.
    TlsHandshake,
    /// The request came in plaintext where only TLS is taken.
    TlsRequired,
    /// Authorization refused.
    Denied,
    /// More requests came than a rate limit grants.
    RateLimited,
    /// Whoever was called may not be called from here.
    DestinationDenied,
    /// The call came back to the proxy that made it.
    Loop,
    /// No address is known of the service that was called.
    Unresolved,
    /// As much is under way to a service as its circuit breaker allows.
    CircuitBreaker,
    /// The connection limit is reached.
    ConnectionLimit,
    /// The app's socket does not accept: not started yet, or gone.
    AppUnreachable,
    /// The app's socket did not accept in time.
    AppConnectTimeout,
    /// The TLS handshake with a service that the app calls failed; the detail begins with a
    /// [`TlsFault`](crate::TlsFault)'s label.
    UpstreamTls,
    /// A service is called over mutual TLS, and there is no valid certificate of our own to show.
    NoIdentity,
    /// The app accepted the request but did not begin to answer in time.
    AppTimeout,
    /// The app closed the connection before it began to answer, and the request could not be repeated safely.
    AppClosed,
    /// The app broke off within its answer.
    AppBroken,
    /// The app's answer is not HTTP, or could be read two ways.
    AppProtocol,
    /// The drain deadline passed while the request was open.
    DrainDeadline,
    /// A fault of the proxy itself.
    Internal,
}

/// Who is to blame for a [`Cause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The caller.
    Client,
    /// The app.
    App,
    /// The proxy, or how it is configured.
    Proxy,
}

impl Cause {
    /// Every cause, for registering metrics.
    pub const ALL: [Self; 29] = [
        Self::BadRequest,
        Self::TargetTooLong,
        Self::HeadTooLarge,
        Self::NotImplemented,
        Self::MethodNotAllowed,
        Self::ExpectationFailed,
        Self::VersionNotSupported,
        Self::RequestTimeout,
        Self::ClientDisconnected,
        Self::ProxyProtocol,
        Self::TlsHandshake,
        Self::TlsRequired,
        Self::Denied,
        Self::RateLimited,
        Self::DestinationDenied,
        Self::Loop,
        Self::Unresolved,
        Self::CircuitBreaker,
        Self::ConnectionLimit,
        Self::AppUnreachable,
        Self::AppConnectTimeout,
        Self::UpstreamTls,
        Self::NoIdentity,
        Self::AppTimeout,
        Self::AppClosed,
        Self::AppBroken,
        Self::AppProtocol,
        Self::DrainDeadline,
        Self::Internal,
    ];

    /// The label in metrics, `error.type` in logs and `x-outrigger-error` in answers.
    pub fn label(self) -> &'static str {
        self.row().0
    }

    /// The status to answer with while the response head has not been sent. 499 is never sent: it stands in the log for a
    /// caller who went away, as in nginx.
    pub fn status(self) -> u16 {
        self.row().1
    }

    /// Who is to blame.
    pub fn fault(self) -> Fault {
        self.row().2
    }

    /// What happened and what to do, one sentence for the body of the answer.
    pub fn explanation(self) -> &'static str {
        self.row().3
    }

    fn row(self) -> (&'static str, u16, Fault, &'static str) {
        use Fault::{App, Client, Proxy};
        match self {
            Self::BadRequest => ("bad_request", 400, Client, "The request is malformed or ambiguous."),
            Self::TargetTooLong => ("target_too_long", 414, Client, "The request target is too long."),
            Self::HeadTooLarge => {
                ("head_too_large", 431, Client, "The request's header fields are too large or too many.")
            }
            Self::NotImplemented => {
                ("not_implemented", 501, Client, "The request asks for something this proxy does not do.")
            }
            Self::MethodNotAllowed => ("method_not_allowed", 405, Client, "This method is not allowed here."),
            Self::ExpectationFailed => {
                ("expectation_failed", 417, Client, "Only the expectation 100-continue is known.")
            }
            Self::VersionNotSupported => ("version_not_supported", 505, Client, "This HTTP version is not supported."),
            Self::RequestTimeout => ("request_timeout", 408, Client, "The request did not arrive in time."),
            Self::ClientDisconnected => ("client_disconnected", 499, Client, "The caller closed the connection."),
            Self::ProxyProtocol => {
                ("proxy_protocol", 400, Client, "The PROXY protocol header is missing, malformed or not allowed.")
            }
            Self::TlsHandshake => ("tls_handshake", 400, Client, "The TLS handshake failed."),
            Self::TlsRequired => ("tls_required", 403, Client, "This port takes TLS only."),
            Self::Denied => ("denied", 403, Client, "This request is not allowed."),
            Self::RateLimited => ("rate_limited", 429, Client, "Too many requests; try again later."),
            Self::DestinationDenied => {
                ("destination_denied", 403, Client, "The outrigger does not carry calls to this destination.")
            }
            Self::Loop => ("loop", 508, Proxy, "The call came back to the outrigger that made it."),
            Self::Unresolved => ("unresolved", 503, App, "The service's name leads to no address."),
            Self::CircuitBreaker => {
                ("circuit_breaker", 503, Proxy, "As much is under way to the service as may be; try again.")
            }
            Self::ConnectionLimit => ("connection_limit", 503, Proxy, "Too many connections are open; try again."),
            Self::AppUnreachable => {
                ("app_unreachable", 503, App, "The app does not accept connections; is it running?")
            }
            Self::AppConnectTimeout => {
                ("app_connect_timeout", 503, App, "The app did not accept the connection in time.")
            }
            Self::UpstreamTls => ("upstream_tls", 502, App, "The service could not be verified, or did not accept us."),
            Self::NoIdentity => {
                ("no_identity", 503, Proxy, "The outrigger has no valid certificate of its own to show.")
            }
            Self::AppTimeout => ("app_timeout", 504, App, "The app did not begin to answer in time."),
            Self::AppClosed => ("app_closed", 502, App, "The app closed the connection before it answered."),
            Self::AppBroken => ("app_broken", 502, App, "The app broke off within its answer."),
            Self::AppProtocol => ("app_protocol", 502, App, "The app's answer is not valid HTTP."),
            Self::DrainDeadline => ("drain_deadline", 503, Proxy, "The proxy is shutting down."),
            Self::Internal => ("internal", 500, Proxy, "The proxy failed; its log says more."),
        }
    }
}

/// A [`Cause`] with what was found, such as `bare LF in a header field`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of failure.
    pub cause: Cause,
    /// What exactly was found: lower case, no control characters, at most some hundred bytes.
    pub detail: Cow<'static, str>,
}

impl Failure {
    /// A failure with its detail.
    pub fn new(cause: Cause, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { cause, detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct_and_statuses_are_errors() {
        let mut labels: Vec<_> = Cause::ALL.iter().map(|c| c.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Cause::ALL.len());
        assert!(Cause::ALL.iter().all(|c| (400..600).contains(&c.status())));
    }
}
