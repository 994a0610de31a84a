//! Model servers: the paths that a profile opens and those that it does not.
