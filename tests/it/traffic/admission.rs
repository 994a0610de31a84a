//! Places, the queue, and refusals in time.
