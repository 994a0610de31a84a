//! The downstream leg: bind, accept, handshake, and the HTTP connection loops.

mod settings;

pub use settings::ListenerSettings;
