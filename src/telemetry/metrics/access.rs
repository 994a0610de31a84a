//! How calls of services that want a credential were let in or refused.

use crate::error::Reason;
use crate::telemetry::record::{Principal, Record};

/// What came of the credential of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    PrimaryKey,
    SecondaryKey,
    Token,
    Missing,
    Invalid,
    Expired,
    Unavailable,
}

impl Access {
    pub(super) const ALL: [Self; 7] = [
        Self::PrimaryKey,
        Self::SecondaryKey,
        Self::Token,
        Self::Missing,
        Self::Invalid,
        Self::Expired,
        Self::Unavailable,
    ];

    /// `None`: nobody was asked for one, or the call did not come that far.
    pub(super) fn of(record: &Record) -> Option<Self> {
        match (&record.principal, record.reason) {
            (Principal::Key("secondary"), _) => Some(Self::SecondaryKey),
            (Principal::Key(_), _) => Some(Self::PrimaryKey),
            (Principal::Subject(_), _) => Some(Self::Token),
            (Principal::Anonymous, Reason::AuthMissing) => Some(Self::Missing),
            (Principal::Anonymous, Reason::AuthInvalid) => Some(Self::Invalid),
            (Principal::Anonymous, Reason::AuthExpired) => Some(Self::Expired),
            (Principal::Anonymous, Reason::AuthUnavailable) => Some(Self::Unavailable),
            (Principal::Anonymous, _) => None,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::PrimaryKey => "primary_key",
            Self::SecondaryKey => "secondary_key",
            Self::Token => "token",
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Unavailable => "unavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_let_in_counts_as_such_whatever_became_of_the_call() {
        let of = |principal: Principal, reason| Access::of(&Record { principal, reason, ..Record::sample() });
        assert_eq!(of(Principal::Key("primary"), Reason::Ok), Some(Access::PrimaryKey));
        assert_eq!(of(Principal::Key("secondary"), Reason::QueueFull), Some(Access::SecondaryKey));
        assert_eq!(of(Principal::Subject("a".into()), Reason::ClientGone), Some(Access::Token));
        assert_eq!(of(Principal::Anonymous, Reason::AuthExpired), Some(Access::Expired));
        assert_eq!(of(Principal::Anonymous, Reason::Ok), None);
        assert_eq!(of(Principal::Anonymous, Reason::UnknownService), None);
    }
}
