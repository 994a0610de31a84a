//! gRPC through the door: all four kinds of call, trailers, refusals as statuses.
