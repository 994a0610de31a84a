//! The upstream leg against scripted servers on real sockets.
