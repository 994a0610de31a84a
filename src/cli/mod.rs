//! The commands, one file each: what `main` calls once the arguments are read.

pub mod check;
pub mod config_dump;
pub mod schema;
