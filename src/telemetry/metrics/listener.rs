//! What is counted per connection and listener.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::family;

/// The counts of one listener; cheap to clone.
#[derive(Clone)]
pub struct ListenerMetrics {
    open: IntGauge,
    limit: IntGauge,
    accepted: IntCounter,
    refused: [IntCounter; Refusal::ALL.len()],
    handshake_failures: [IntCounter; HandshakeFailure::ALL.len()],
}

/// An open connection, as long as it lives.
pub struct OpenConnection(IntGauge);

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them, in the order of their declaration.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$variant),*];

            /// The label.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

label! {
    /// Why a connection was closed before it carried a call, its handshake apart.
    Refusal {
        /// The PROXY header is missing, broken, or from a peer that may not send one.
        ProxyHeader = "proxy_header",
    }
}

label! {
    /// Why a TLS handshake failed.
    HandshakeFailure {
        /// It took too long.
        Timeout = "timeout",
        /// The caller closed or reset the connection.
        Closed = "closed",
        /// What came is no TLS.
        NotTls = "not_tls",
        /// No version, cipher suite or protocol in common.
        NothingInCommon = "nothing_in_common",
        /// The client's certificate is missing or not acceptable.
        ClientCertificate = "client_certificate",
        /// The caller does not take our certificate.
        OurCertificate = "our_certificate",
        /// Anything else.
        Other = "other",
    }
}

impl ListenerMetrics {
    /// Shows how many connections may be open at once.
    pub fn limited(&self, connections: u32) {
        self.limit.set(connections.into());
    }

    /// Counts a connection as accepted, and as open until the guard is dropped.
    #[must_use]
    pub fn opened(&self) -> OpenConnection {
        self.accepted.inc();
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// Counts a connection that was closed before it carried a call.
    pub fn refused(&self, why: Refusal) {
        self.refused[why as usize].inc();
    }

    /// Counts a failed handshake.
    pub fn handshake_failed(&self, why: HandshakeFailure) {
        self.handshake_failures[why as usize].inc();
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The families that listeners share.
pub(super) struct ListenerFamilies {
    open: IntGaugeVec,
    limit: IntGaugeVec,
    accepted: IntCounterVec,
    refused: IntCounterVec,
    handshake_failures: IntCounterVec,
}

impl ListenerFamilies {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            open: family::CONNECTIONS_OPEN.gauges(registry),
            limit: family::CONNECTIONS_LIMIT.gauges(registry),
            accepted: family::CONNECTIONS_ACCEPTED.counters(registry),
            refused: family::CONNECTIONS_REFUSED.counters(registry),
            handshake_failures: family::HANDSHAKE_FAILURES.counters(registry),
        }
    }

    pub(super) fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics {
            open: self.open.with_label_values(&[name]),
            limit: self.limit.with_label_values(&[name]),
            accepted: self.accepted.with_label_values(&[name]),
            refused: Refusal::ALL.map(|why| self.refused.with_label_values(&[name, why.as_str()])),
            handshake_failures: HandshakeFailure::ALL
                .map(|why| self.handshake_failures.with_label_values(&[name, why.as_str()])),
        }
    }
}
