//! The status of a call as a label, of which there are only so many.

/// The status label: exact for the registered statuses and 499, else the class, since a model may answer with any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::telemetry) enum Code {
    Exact(u16),
    Class(u16),
}

impl Code {
    pub(super) fn of(status: u16) -> Self {
        let registered =
            http::StatusCode::from_u16(status).is_ok_and(|status| status.canonical_reason().is_some());
        if registered || status == 499 { Self::Exact(status) } else { Self::Class((status / 100).min(9)) }
    }

    pub(in crate::telemetry) fn label(self) -> String {
        match self {
            Self::Exact(status) => status.to_string(),
            Self::Class(class) => format!("{class}xx"),
        }
    }

    /// The class alone.
    pub(in crate::telemetry) const fn class(self) -> Self {
        match self {
            Self::Exact(status) => Self::Class(status / 100),
            Self::Class(_) => self,
        }
    }
}
