//! What can go wrong with one request and whose fault it is; knows no HTTP.
//!
//! A failure is data: its [`Kind`], one sentence for the caller and, apart from it, what only the log may say.
//! [`Kind::reason`] folds the kinds into the closed list of [`Reason`] words that records, metrics and the
//! `x-scoregate-reason` header share. The one place that turns a kind into a status is `proxy::respond`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Why a request ended the way it did: one closed list, the same word in records, headers, metrics and traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The model answered and its answer was passed on.
    Ok,
    /// The model answered with an error of its own.
    ModelError,
    /// No usable credential in the request.
    AuthMissing,
    /// A credential that this service does not take.
    AuthInvalid,
    /// A credential past its time.
    AuthExpired,
    /// The gateway cannot judge the credential just now.
    AuthUnavailable,
    /// No such service, deployment or path.
    UnknownService,
    /// The request itself is not acceptable.
    BadRequest,
    /// The head is over a limit.
    HeadersTooLarge,
    /// The body is over the service's limit.
    BodyTooLarge,
    /// The admission queue has no place left.
    QueueFull,
    /// The request waited for a replica as long as it may.
    QueueTimeout,
    /// The caller is over its quota.
    RateLimited,
    /// No replica can take calls.
    NoReadyReplica,
    /// No connection to the replica could be made.
    ConnectFailed,
    /// The replica closed or reset the connection in mid-call.
    UpstreamReset,
    /// The replica's answer is not acceptable HTTP.
    UpstreamProtocol,
    /// The replica did not answer in time.
    UpstreamTimeout,
    /// The client left.
    ClientGone,
    /// The client stopped sending or reading.
    ClientStalled,
    /// The gateway is about to stop.
    Draining,
    /// A fault of the gateway itself.
    Internal,
}

impl Reason {
    /// Every reason, in the order of the contract.
    pub const ALL: [Self; 22] = [
        Self::Ok,
        Self::ModelError,
        Self::AuthMissing,
        Self::AuthInvalid,
        Self::AuthExpired,
        Self::AuthUnavailable,
        Self::UnknownService,
        Self::BadRequest,
        Self::HeadersTooLarge,
        Self::BodyTooLarge,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::RateLimited,
        Self::NoReadyReplica,
        Self::ConnectFailed,
        Self::UpstreamReset,
        Self::UpstreamProtocol,
        Self::UpstreamTimeout,
        Self::ClientGone,
        Self::ClientStalled,
        Self::Draining,
        Self::Internal,
    ];

    /// The word of the contract, such as `queue_full`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ModelError => "model_error",
            Self::AuthMissing => "auth_missing",
            Self::AuthInvalid => "auth_invalid",
            Self::AuthExpired => "auth_expired",
            Self::AuthUnavailable => "auth_unavailable",
            Self::UnknownService => "unknown_service",
            Self::BadRequest => "bad_request",
            Self::HeadersTooLarge => "headers_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::RateLimited => "rate_limited",
            Self::NoReadyReplica => "no_ready_replica",
            Self::ConnectFailed => "connect_failed",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::ClientGone => "client_gone",
            Self::ClientStalled => "client_stalled",
            Self::Draining => "draining",
            Self::Internal => "internal",
        }
    }

    /// Who brought the request to its end.
    #[must_use]
    pub const fn ended_by(self) -> EndedBy {
        match self {
            Self::Ok
            | Self::ModelError
            | Self::ConnectFailed
            | Self::UpstreamReset
            | Self::UpstreamProtocol => EndedBy::Upstream,
            Self::ClientGone => EndedBy::Client,
            Self::AuthMissing
            | Self::AuthInvalid
            | Self::AuthExpired
            | Self::AuthUnavailable
            | Self::UnknownService
            | Self::BadRequest
            | Self::HeadersTooLarge
            | Self::BodyTooLarge
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::RateLimited
            | Self::NoReadyReplica
            | Self::UpstreamTimeout
            | Self::ClientStalled
            | Self::Draining
            | Self::Internal => EndedBy::Gateway,
        }
    }
}

/// The party that ended a request: who sent the last word or broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// The client closed, reset or cancelled.
    Client,
    /// The gateway answered by itself or cut the call.
    Gateway,
    /// The replica answered, closed or broke the protocol.
    Upstream,
}

impl EndedBy {
    /// The word of the record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Upstream => "upstream",
        }
    }
}

/// What went wrong, finer than [`Reason`] where the answer to the caller differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The head or the target is malformed or ambiguous.
    Malformed,
    /// The body's framing is broken or it ended early.
    BodyBroken,
    /// A method that services do not take.
    MethodNotAllowed,
    /// A host this TLS connection was not made for.
    Misdirected,
    /// The request target is over its limit.
    TargetTooLong,
    /// The head is over its limit.
    HeadersTooLarge,
    /// The body is over the service's limit.
    BodyTooLarge,
    /// The body stopped arriving.
    BodyTimeout,
    /// The client stopped reading the answer.
    WriteTimeout,
    /// No service goes by that host or name.
    UnknownService,
    /// The service has no deployment of that name, or none that takes traffic.
    UnknownDeployment,
    /// The service does not open that path.
    UnknownPath,
    /// No usable credential in the request.
    AuthMissing,
    /// A credential that this service does not take.
    AuthInvalid,
    /// A credential past its time.
    AuthExpired,
    /// The gateway cannot judge the credential just now.
    AuthUnavailable,
    /// The admission queue has no place left.
    QueueFull,
    /// The request waited for a replica as long as it may.
    QueueTimeout,
    /// The caller is over its quota.
    RateLimited,
    /// No replica can take calls.
    NoReadyReplica,
    /// No connection to the replica.
    ConnectFailed,
    /// The replica closed or reset in mid-call.
    UpstreamReset,
    /// The replica's answer is not acceptable HTTP.
    UpstreamProtocol,
    /// The replica did not answer, or paused, longer than allowed.
    UpstreamTimeout,
    /// The client left.
    ClientGone,
    /// The gateway is about to stop.
    Draining,
    /// A fault of the gateway itself.
    Internal,
}

impl Kind {
    /// The word that this kind is reported under.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Malformed | Self::BodyBroken | Self::MethodNotAllowed | Self::Misdirected => {
                Reason::BadRequest
            }
            Self::TargetTooLong | Self::HeadersTooLarge => Reason::HeadersTooLarge,
            Self::BodyTooLarge => Reason::BodyTooLarge,
            Self::BodyTimeout | Self::WriteTimeout => Reason::ClientStalled,
            Self::UnknownService | Self::UnknownDeployment | Self::UnknownPath => Reason::UnknownService,
            Self::AuthMissing => Reason::AuthMissing,
            Self::AuthInvalid => Reason::AuthInvalid,
            Self::AuthExpired => Reason::AuthExpired,
            Self::AuthUnavailable => Reason::AuthUnavailable,
            Self::QueueFull => Reason::QueueFull,
            Self::QueueTimeout => Reason::QueueTimeout,
            Self::RateLimited => Reason::RateLimited,
            Self::NoReadyReplica => Reason::NoReadyReplica,
            Self::ConnectFailed => Reason::ConnectFailed,
            Self::UpstreamReset => Reason::UpstreamReset,
            Self::UpstreamProtocol => Reason::UpstreamProtocol,
            Self::UpstreamTimeout => Reason::UpstreamTimeout,
            Self::ClientGone => Reason::ClientGone,
            Self::Draining => Reason::Draining,
            Self::Internal => Reason::Internal,
        }
    }
}

/// A failed request: what happened, what the caller is told and what only the log is told.
#[derive(Clone, Debug)]
pub struct Error {
    /// What happened.
    pub kind: Kind,
    /// One sentence for the caller; holds nothing internal (no addresses, no causes).
    pub message: Cow<'static, str>,
    /// For the log alone: the cause as the system or the peer put it. Never a credential.
    pub detail: Option<Box<str>>,
    /// When the same request may succeed, if that is known.
    pub retry: Option<Box<Retry>>,
}

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// After this long, in whole seconds.
    pub after: Duration,
    /// The allowance that is used up until then.
    pub quota: Option<Quota>,
}

/// So many calls in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Whose it is, in one word.
    pub name: &'static str,
    /// Calls in each window.
    pub calls: u64,
    /// In whole seconds.
    pub window: Duration,
}

impl Error {
    /// A failure with its sentence for the caller.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), detail: None, retry: None }
    }

    /// Adds what only the log may say.
    #[must_use]
    pub fn with_detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = Some(detail.to_string().into());
        self
    }

    /// Says when the same request may succeed.
    #[must_use]
    pub fn retry_in(self, after: Duration) -> Self {
        Self { retry: Some(Box::new(Retry { after, quota: None })), ..self }
    }

    /// Says when the same request may succeed: when there is something left again of `quota`.
    #[must_use]
    pub fn over(self, quota: Quota, after: Duration) -> Self {
        Self { retry: Some(Box::new(Retry { after, quota: Some(quota) })), ..self }
    }

    /// The word that this failure is reported under.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.kind.reason()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason().as_str(), self.message)?;
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
