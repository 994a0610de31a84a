//! Why an operation was not done: a closed list, told in each API's own words by its face.

use std::fmt;

use crate::catalog::Action;
use crate::store::StoreError;

/// An operation that was not done. Nothing has changed, but for one case that its message tells: a change that is stored
/// and that the data plane could not follow ([`Cause::Internal`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which kind.
    pub cause: Cause,
    /// For the caller: names the field, what is wrong, the limit, what to do. Nothing internal, no secret.
    pub message: String,
    /// The field or resource that it is about, such as `deployments.blue.replicas[0]`.
    pub target: Option<String>,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No credential.
    AuthMissing,
    /// A credential that is not known, revoked or not for this API.
    AuthInvalid,
    /// A credential that is over.
    AuthExpired,
    /// The caller's roles do not allow this.
    Forbidden(Action),
    /// The caller would grant what it does not have.
    Escalation,
    /// There is no such resource, or none that the caller may know of.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The state of the resource does not allow this (two auth modes, a workspace that is not empty).
    Conflict,
    /// `If-Match` names an older version: somebody was faster.
    PreconditionFailed,
    /// It is declared in the configuration file, which is where to change it.
    ReadOnly,
    /// The request is wrong.
    Invalid,
    /// The resource does not know the HTTP method.
    WrongMethod,
    /// The request body is over the limit.
    TooLarge,
    /// The store, or what it needs, is not there at the moment.
    Unavailable,
    /// The disk of the store is full.
    Full,
    /// Our own fault.
    Internal,
}

impl Cause {
    /// The HTTP status of native and Azure APIs alike.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::AuthMissing | Self::AuthInvalid | Self::AuthExpired => 401,
            Self::Forbidden(_) | Self::Escalation => 403,
            Self::NotFound => 404,
            Self::WrongMethod => 405,
            Self::AlreadyExists | Self::Conflict | Self::ReadOnly => 409,
            Self::PreconditionFailed => 412,
            Self::Invalid => 400,
            Self::TooLarge => 413,
            Self::Unavailable => 503,
            Self::Full => 507,
            Self::Internal => 500,
        }
    }

    /// One word for programs, the `code` of every error body.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AuthMissing => "AuthMissing",
            Self::AuthInvalid => "AuthInvalid",
            Self::AuthExpired => "AuthExpired",
            Self::Forbidden(_) => "AuthorizationFailed",
            Self::Escalation => "EscalationRefused",
            Self::NotFound => "ResourceNotFound",
            Self::AlreadyExists => "ResourceExists",
            Self::Conflict => "Conflict",
            Self::PreconditionFailed => "PreconditionFailed",
            Self::ReadOnly => "DeclaredInConfiguration",
            Self::Invalid => "BadRequest",
            Self::WrongMethod => "MethodNotAllowed",
            Self::TooLarge => "PayloadTooLarge",
            Self::Unavailable => "StoreUnavailable",
            Self::Full => "StoreFull",
            Self::Internal => "InternalError",
        }
    }
}

impl Refusal {
    /// A refusal that is about no field in particular.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into(), target: None }
    }

    /// A wrong field.
    pub fn invalid(target: impl Into<String>, message: impl Into<String>) -> Self {
        Self { cause: Cause::Invalid, message: message.into(), target: Some(target.into()) }
    }

    /// A resource that is not there.
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new(Cause::NotFound, format!("there is no {what}"))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let cause = match &error {
            StoreError::Conflict(..) => Cause::PreconditionFailed,
            StoreError::Full(_) => Cause::Full,
            StoreError::Locked(_) | StoreError::Corrupt(_) | StoreError::Key(_) | StoreError::Io(_) => {
                Cause::Unavailable
            }
        };
        let message = match cause {
            Cause::PreconditionFailed => "it was changed by somebody else meanwhile; read it again",
            Cause::Full => "the disk of the store is full; nothing was changed",
            _ => "the store cannot be used at the moment; nothing was changed, scoring goes on",
        };
        tracing::error!(%error, "an operation failed in the store");
        Self::new(cause, message)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Some(target) => write!(f, "{target}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Refusal {}
