//! WebSocket: no tunnel before the replica's 101, then bytes both ways.
