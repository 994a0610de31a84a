//! How the replicas of a deployment prove that they can take calls: what is asked of them, how often, and what counts as
//! a good answer.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode};

/// What a replica must prove before it gets calls. At least one of the two is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Asked at every interval.
    pub probe: Option<ProbeSettings>,
    /// Asked before the replica gets its first call, and before it gets calls again after it was not ready.
    pub readiness: Option<ReadinessSettings>,
}

/// A small question, asked at every interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// The question.
    pub check: Check,
    /// `interval`: from one answer (or failure) to the next question, give or take a tenth.
    pub interval: Duration,
    /// `timeout`: longest time for connecting, asking and the head of the answer together.
    pub timeout: Duration,
    /// `healthy`: so many good answers in a row make a replica ready.
    pub healthy: u32,
    /// `unhealthy`: so many failures in a row make a replica that is ready not ready.
    pub unhealthy: u32,
    /// `startup`: how long failures of a new replica count for nothing.
    pub startup: Duration,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A GET that must be answered with one of the statuses.
    Http {
        /// The container's own path.
        path: PathAndQuery,
        /// What counts as good.
        expected: Statuses,
    },
    /// `grpc.health.v1.Health/Check` (gRPC health checking protocol), which must say SERVING.
    Grpc {
        /// The service asked about; empty: the server as a whole.
        service: Arc<str>,
    },
}

/// A real scoring call; its answer must be 200 and arrive whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessSettings {
    /// The container's own path, POST.
    pub path: PathAndQuery,
    /// `body` or the content of `body_file`.
    pub body: Bytes,
    /// `content_type` of the body.
    pub content_type: HeaderValue,
    /// `timeout`: longest time for the whole call.
    pub timeout: Duration,
}

impl ProbeSettings {
    /// Bounds of `interval`.
    pub const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60 * 60);
    /// Bounds of `timeout`.
    pub const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(5 * 60);
    /// Bounds of `healthy` and `unhealthy`.
    pub const THRESHOLD: RangeInclusive<u32> = 1..=100;
    /// Bounds of `startup`.
    pub const STARTUP: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 60 * 60);
}

/// Those of a probe that sets none: `GET /` must be 200. The times are those of the liveness probe that Azure gives an AKS
/// web service (`LivenessProbeRequirements` of SDK v1: 310 s, 10 s, 3, 1, 2 s).
impl Default for ProbeSettings {
    fn default() -> Self {
        Self {
            check: Check::Http { path: PathAndQuery::from_static("/"), expected: Statuses::default() },
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            healthy: 1,
            unhealthy: 3,
            startup: Duration::from_secs(310),
        }
    }
}

impl ReadinessSettings {
    /// Largest body, in bytes.
    pub const MAX_BODY_BYTES: usize = 1 << 20;
    /// Bounds of `timeout`.
    pub const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60 * 60);
    /// `timeout` where none is set.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
    /// `content_type` where none is set.
    pub const DEFAULT_CONTENT_TYPE: &str = "application/json";

    /// Checks a body.
    ///
    /// # Errors
    /// What is wrong and what to write instead, to be put behind the name of the field.
    pub fn check_body(body: &[u8]) -> Result<(), String> {
        match body.len() {
            0 => Err("is empty; write a body that the model can score".to_owned()),
            length if length > Self::MAX_BODY_BYTES => {
                Err(format!("has {length} bytes; at most {} are allowed", Self::MAX_BODY_BYTES))
            }
            _ => Ok(()),
        }
    }
}

/// Statuses that count as good, as ranges; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Final statuses: interim ones are no answer.
    const BOUNDS: RangeInclusive<u16> = 200..=599;

    /// Any of `ranges`, which [`Statuses::range`] has read; without any: 200.
    #[must_use]
    pub fn any_of(ranges: Vec<RangeInclusive<u16>>) -> Self {
        if ranges.is_empty() { Self::default() } else { Self(ranges) }
    }

    /// Reads one status or a range of them, such as `200` or `200-299`.
    ///
    /// # Errors
    /// What to write instead, to be put behind the name of the field.
    pub fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| text.trim().parse().ok().filter(|status| Self::BOUNDS.contains(status));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(first..=last),
            _ => Err(format!("'{text}' is no status from 200 to 599 and no range of them such as 200-299")),
        }
    }

    /// Whether `status` is one of them.
    #[must_use]
    pub fn contains(&self, status: StatusCode) -> bool {
        self.0.iter().any(|range| range.contains(&status.as_u16()))
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Self(vec![200..=200])
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, range) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{separator}{first}")?,
                (first, last) => write!(f, "{separator}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_single_ones_and_ranges() {
        let statuses =
            Statuses::any_of(["200", "300-399", "503 - 503"].map(|it| Statuses::range(it).unwrap()).into());
        assert_eq!(statuses.to_string(), "200, 300-399, 503");
        for (status, good) in [(200, true), (201, false), (300, true), (399, true), (400, false), (503, true)]
        {
            assert_eq!(statuses.contains(StatusCode::from_u16(status).unwrap()), good, "{status}");
        }
        assert!(Statuses::any_of(vec![]).contains(StatusCode::OK));
        for bad in ["", "100", "199-200", "600", "299-200", "2xx", "200-", "-200", "200-600", "+200-300-400"]
        {
            assert!(Statuses::range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_body_is_there_and_bounded() {
        assert!(ReadinessSettings::check_body(b"{}").is_ok());
        assert!(ReadinessSettings::check_body(&vec![b' '; ReadinessSettings::MAX_BODY_BYTES]).is_ok());
        assert!(ReadinessSettings::check_body(&vec![b' '; ReadinessSettings::MAX_BODY_BYTES + 1]).is_err());
        assert!(ReadinessSettings::check_body(b"").is_err());
    }
}
