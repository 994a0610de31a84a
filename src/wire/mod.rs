//! What both legs of the gateway share below HTTP semantics: HTTP/1.1 as bytes, strictly, and the body that flows through.
//!
//! `head` parses and writes message heads, `framing` decodes and encodes bodies, `body` is the one body type of the
//! request path, `deadline` is a timer that is cheap to move, `interim` passes interim answers on, and `upgrade` has what a
//! connection is that has become a WebSocket. One strict reader serves the downstream and the upstream leg, so the two
//! can never disagree on where a message ends (the root of request smuggling).

pub mod body;
pub mod deadline;
pub mod framing;
pub mod head;
pub mod interim;
pub mod upgrade;

pub use body::Body;
pub use interim::Interim;
pub use upgrade::{Duplex, Handshake, Peer, Upgraded};
