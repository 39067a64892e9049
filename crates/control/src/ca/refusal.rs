//! Why a certificate was not issued, and whose fault that is.

use std::time::Duration;

use hyper::StatusCode;

/// Why a certificate was not issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No JSON object with a `csr`.
    BadRequest,
    /// The body is beyond the limit.
    TooLarge,
    /// Not a PKCS #10 request in PEM.
    BadCsr,
    /// RSA under 2,048 bits, or an algorithm or curve other than P-256, P-384, Ed25519 and RSA.
    WeakKey,
    /// The request is not signed by its own key.
    BadSignature,
    /// No bearer token.
    NoToken,
    /// The API server does not vouch for the token, or not for our audience.
    BadToken,
    /// The token is somebody's who is no ServiceAccount, or one whose name does not fit into a SPIFFE ID.
    NotAWorkload,
    /// Too often; how long to wait.
    RateLimited(Duration),
    /// Too many reviews are under way.
    Busy,
    /// The API server did not answer in time.
    ReviewTimeout,
    /// The API server could not be asked.
    ReviewFailed,
    /// There is no issuer, or it is about to expire.
    NoIssuer,
    /// The line that tells of it could not be written.
    Unaudited,
}

impl Refusal {
    /// Every one, for metrics to begin at zero.
    pub(crate) const ALL: [Self; 14] = [
        Self::BadRequest,
        Self::TooLarge,
        Self::BadCsr,
        Self::WeakKey,
        Self::BadSignature,
        Self::NoToken,
        Self::BadToken,
        Self::NotAWorkload,
        Self::RateLimited(Duration::ZERO),
        Self::Busy,
        Self::ReviewTimeout,
        Self::ReviewFailed,
        Self::NoIssuer,
        Self::Unaudited,
    ];

    /// The word for it in answer, audit line and metric.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::BadCsr => "bad_csr",
            Self::WeakKey => "weak_key",
            Self::BadSignature => "bad_signature",
            Self::NoToken => "no_token",
            Self::BadToken => "bad_token",
            Self::NotAWorkload => "not_a_workload",
            Self::RateLimited(_) => "rate_limited",
            Self::Busy => "busy",
            Self::ReviewTimeout => "review_timeout",
            Self::ReviewFailed => "review_failed",
            Self::NoIssuer => "no_issuer",
            Self::Unaudited => "unaudited",
        }
    }

    /// The status of the answer.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::BadCsr | Self::WeakKey | Self::BadSignature => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoToken | Self::BadToken => StatusCode::UNAUTHORIZED,
            Self::NotAWorkload => StatusCode::FORBIDDEN,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::ReviewTimeout | Self::ReviewFailed | Self::NoIssuer | Self::Unaudited => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// How long the caller should wait, where waiting helps.
    pub(crate) fn retry_after(self) -> Option<Duration> {
        match self {
            Self::RateLimited(wait) => Some(wait),
            Self::Busy | Self::ReviewTimeout | Self::ReviewFailed | Self::NoIssuer | Self::Unaudited => {
                Some(Duration::from_secs(5))
            }
            _ => None,
        }
    }
}
