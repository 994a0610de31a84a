//! The downstream leg: bind, accept, handshake, and the HTTP connection loops.
//!
//! Per worker and listener one [`accept_loop`] on its own socket from [`bind`]. Each connection then passes
//! [`client_address`] (PROXY header, if its peer sends one), [`handshake`] and, as a [`DownstreamIo`], HTTP.

mod accept;
mod bind;
mod handshake;
mod io;
mod proxy_protocol;
mod settings;

pub use accept::{ConnectionLimit, ConnectionPermit, accept_loop};
pub use bind::bind;
pub use handshake::{Alpn, Established, HandshakeError, handshake};
pub use io::DownstreamIo;
pub use proxy_protocol::{ProxyHeaderError, client_address};
pub use settings::ListenerSettings;
