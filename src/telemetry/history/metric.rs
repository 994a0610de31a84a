//! What can be asked for: names, units and dimensions, as Azure Monitor names those of online endpoints where it has them
//! ("Supported metrics for Microsoft.MachineLearningServices/workspaces/onlineEndpoints"); the others are the gateway's own.

use crate::telemetry::metrics::CallKind;

/// One metric of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Calls that ended.
    Requests,
    /// The same under Azure's name.
    RequestsPerMinute,
    /// Calls that ended with a status of 400 or above, or for another reason than `ok`.
    Errors,
    /// How long calls took.
    RequestLatency,
    /// The time within which so many percent of the calls ended.
    RequestLatencyBelow(u8),
    /// Calls that have begun and not ended.
    RequestsInFlight,
    /// Calls that wait for a place.
    QueueDepth,
    /// Calls under way and waiting by places.
    Utilization,
    /// Bytes of bodies, both ways.
    NetworkBytes,
    /// Tokens of prompts.
    PromptTokens,
    /// Tokens of completions.
    CompletionTokens,
}

/// What is told of a metric beside its values.
#[derive(Debug)]
pub struct Definition {
    /// Which one.
    pub metric: Metric,
    /// What it is asked for by.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// A sentence about it.
    pub about: &'static str,
    /// As Azure Monitor spells it.
    pub unit: &'static str,
    /// What is given if nothing is asked for.
    pub primary: Aggregation,
    /// What a filter may name.
    pub dimensions: &'static [Dimension],
}

/// How the values of an interval become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// The mean.
    Average,
    /// The least.
    Minimum,
    /// The greatest.
    Maximum,
    /// The sum.
    Total,
    /// How many there were.
    Count,
}

impl Aggregation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Average, Self::Minimum, Self::Maximum, Self::Total, Self::Count];

    /// Its name in queries and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Average => "average",
            Self::Minimum => "minimum",
            Self::Maximum => "maximum",
            Self::Total => "total",
            Self::Count => "count",
        }
    }

    /// The one of that name, without regard to case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str().eq_ignore_ascii_case(name))
    }
}

/// What calls are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// The deployment that was chosen.
    Deployment,
    /// The status, such as `503`.
    StatusCode,
    /// Its class, such as `5xx`.
    StatusCodeClass,
    /// The reason, such as `queue_full`.
    Reason,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Deployment, Self::StatusCode, Self::StatusCodeClass, Self::Reason];

    /// Its name in filters and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatusCode => "statusCode",
            Self::StatusCodeClass => "statusCodeClass",
            Self::Reason => "reason",
        }
    }

    /// The one of that name, without regard to case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str().eq_ignore_ascii_case(name))
    }

    /// Its value for calls of this kind.
    pub(super) fn of(self, kind: &CallKind) -> String {
        match self {
            Self::Deployment => kind.deployment.as_deref().unwrap_or_default().to_owned(),
            Self::StatusCode => kind.code.label(),
            Self::StatusCodeClass => kind.code.class().label(),
            Self::Reason => kind.reason.as_str().to_owned(),
        }
    }
}

impl Metric {
    /// All there are.
    #[must_use]
    pub const fn all() -> &'static [Definition] {
        &ALL
    }
}

const ALL: [Definition; 14] = [
    Definition {
        metric: Metric::Requests,
        name: "Requests",
        title: "Requests",
        about: "Calls that ended",
        unit: "Count",
        primary: Aggregation::Total,
        dimensions: &Dimension::ALL,
    },
    Definition {
        metric: Metric::RequestsPerMinute,
        name: "RequestsPerMinute",
        title: "Requests Per Minute",
        about: "Calls that ended within a minute",
        unit: "Count",
        primary: Aggregation::Average,
        dimensions: &Dimension::ALL,
    },
    Definition {
        metric: Metric::Errors,
        name: "Errors",
        title: "Errors",
        about: "Calls that ended with a status of 400 or above, or for another reason than ok",
        unit: "Count",
        primary: Aggregation::Total,
        dimensions: &Dimension::ALL,
    },
    latency(Metric::RequestLatency, "RequestLatency", "Request Latency", "How long calls took"),
    latency(
        Metric::RequestLatencyBelow(50),
        "RequestLatency_P50",
        "Request Latency P50",
        "The time within which 50 % of the calls ended",
    ),
    latency(
        Metric::RequestLatencyBelow(90),
        "RequestLatency_P90",
        "Request Latency P90",
        "The time within which 90 % of the calls ended",
    ),
    latency(
        Metric::RequestLatencyBelow(95),
        "RequestLatency_P95",
        "Request Latency P95",
        "The time within which 95 % of the calls ended",
    ),
    latency(
        Metric::RequestLatencyBelow(99),
        "RequestLatency_P99",
        "Request Latency P99",
        "The time within which 99 % of the calls ended",
    ),
    gauge(
        Metric::RequestsInFlight,
        "RequestsInFlight",
        "Requests In Flight",
        "Calls that have begun and not ended",
    ),
    gauge(Metric::QueueDepth, "QueueDepth", "Queue Depth", "Calls that wait for a place with a replica"),
    Definition {
        unit: "Percent",
        ..gauge(
            Metric::Utilization,
            "Utilization",
            "Utilization",
            "Calls under way and waiting by places with replicas; only of services that limit them",
        )
    },
    Definition {
        unit: "BytesPerSecond",
        ..gauge(Metric::NetworkBytes, "NetworkBytes", "Network Bytes", "Bytes of bodies, both ways")
    },
    tokens(
        Metric::PromptTokens,
        "PromptTokens",
        "Prompt Tokens",
        "Tokens of prompts, as the model counted them",
    ),
    tokens(
        Metric::CompletionTokens,
        "CompletionTokens",
        "Completion Tokens",
        "Tokens of completions, as the model counted them",
    ),
];

const fn latency(metric: Metric, name: &'static str, title: &'static str, about: &'static str) -> Definition {
    let primary = Aggregation::Average;
    Definition { metric, name, title, about, unit: "MilliSeconds", primary, dimensions: &[] }
}

const fn gauge(metric: Metric, name: &'static str, title: &'static str, about: &'static str) -> Definition {
    let primary = Aggregation::Average;
    Definition { metric, name, title, about, unit: "Count", primary, dimensions: &[] }
}

const fn tokens(metric: Metric, name: &'static str, title: &'static str, about: &'static str) -> Definition {
    let primary = Aggregation::Total;
    Definition { metric, name, title, about, unit: "Count", primary, dimensions: &[] }
}
