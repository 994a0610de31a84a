//! Minutes put together into the points of a series.

use std::ops::Range;

use super::metric::{Dimension, Metric};
use super::minute::{Minute, Sampled};
use super::{LOOK_INTERVAL, Past};
use crate::error::Reason;
use crate::telemetry::metrics::{BOUNDS_SECONDS, BUCKETS, CallKind, Code};

/// Which minutes are asked for, counted from 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// All of them.
    pub minutes: Range<u32>,
    /// Minutes that become one point; the last point may have fewer. At least 1.
    pub step: u32,
    /// Nothing is told of minutes before this one.
    pub not_before: u32,
}

/// Only calls with one of these values in this dimension; each value a series of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DimensionFilter {
    /// Which dimension.
    pub dimension: Dimension,
    /// Without regard to case; `*`: any.
    pub values: Vec<String>,
}

/// How one metric went.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The values of the filter's dimensions, in its order.
    pub labels: Vec<String>,
    /// One for each step of the span, with the minute that it begins in.
    pub points: Vec<(u32, Point)>,
}

/// What is known of the values of a metric in one step; `None`: nothing is, or it means nothing there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Their mean.
    pub average: Option<f64>,
    /// The least.
    pub minimum: Option<f64>,
    /// The greatest.
    pub maximum: Option<f64>,
    /// Their sum.
    pub total: Option<f64>,
    /// How many there are.
    pub count: Option<f64>,
}

/// A span, and which of its minutes something is known of.
pub(super) struct KnownSpan {
    span: Span,
    known: Range<u32>,
}

impl Span {
    /// How many points a series of it has.
    #[must_use]
    pub fn points(&self) -> u32 {
        (self.minutes.end.saturating_sub(self.minutes.start)).div_ceil(self.step)
    }

    /// Something is known from `since` to `now`, which is not over.
    pub(super) fn known(&self, since: u32, now: u32) -> KnownSpan {
        let oldest = (now + 1).saturating_sub(super::MINUTES);
        let since = since.max(oldest).max(self.not_before);
        KnownSpan { span: self.clone(), known: since..now + 1 }
    }
}

impl KnownSpan {
    /// The first minute of each point, and the minutes of it that something is known of.
    fn steps(&self) -> impl Iterator<Item = (u32, Range<u32>)> {
        let Range { start, end } = self.span.minutes;
        let (step, known) = (self.span.step, self.known.clone());
        (0..self.span.points()).map(move |point| {
            let first = start + point * step;
            let last = first.saturating_add(step).min(end);
            (first, first.max(known.start)..last.min(known.end))
        })
    }
}

/// The series of `metric`.
pub(super) fn of(metric: Metric, span: &KnownSpan, past: &Past, filter: &[DimensionFilter]) -> Vec<Series> {
    match metric {
        Metric::Requests | Metric::RequestsPerMinute => of_calls(span, past, filter, |_| true),
        Metric::Errors => of_calls(span, past, filter, is_error),
        Metric::RequestLatency => one(span, past, mean_time),
        Metric::RequestLatencyBelow(percent) => one(span, past, |steps| time_below(steps, percent)),
        Metric::RequestsInFlight => one(span, past, |steps| seen(steps, |minute| minute.in_flight)),
        Metric::QueueDepth => one(span, past, |steps| seen(steps, |minute| minute.waiting)),
        Metric::Utilization => one(span, past, used),
        Metric::NetworkBytes => one(span, past, |steps| sums(steps, |minute| minute.bytes as f64 / 60.0)),
        Metric::PromptTokens => one(span, past, |steps| sums(steps, |minute| minute.tokens[0] as f64)),
        Metric::CompletionTokens => one(span, past, |steps| sums(steps, |minute| minute.tokens[1] as f64)),
    }
}

/// One step: how many minutes of it are known, and those of them with calls.
struct Step<'a> {
    known: u32,
    minutes: Vec<&'a Minute>,
}

impl<'a> Step<'a> {
    fn of(past: &'a Past, known: &Range<u32>) -> Self {
        let first = past.minutes.partition_point(|minute| minute.at < known.start);
        let minutes = past.minutes.range(first..).take_while(|minute| minute.at < known.end).collect();
        Self { known: known.end.saturating_sub(known.start), minutes }
    }
}

/// The only series of a metric without dimensions.
fn one(span: &KnownSpan, past: &Past, point: impl Fn(&Step<'_>) -> Point) -> Vec<Series> {
    let points = span.steps().map(|(first, known)| (first, point(&Step::of(past, &known))));
    vec![Series { labels: Vec::new(), points: points.collect() }]
}

/// The series of the calls that are `counted`, by the dimensions of the filter.
fn of_calls(
    span: &KnownSpan,
    past: &Past,
    filter: &[DimensionFilter],
    counted: impl Fn(&CallKind) -> bool,
) -> Vec<Series> {
    let mut groups: Vec<Vec<String>> = if filter.is_empty() { vec![Vec::new()] } else { Vec::new() };
    let group_of: Vec<Option<usize>> = past
        .kinds
        .all()
        .iter()
        .map(|kind| {
            let labels = counted(kind).then(|| labels(kind, filter)).flatten()?;
            Some(groups.iter().position(|known| *known == labels).unwrap_or_else(|| {
                groups.push(labels);
                groups.len() - 1
            }))
        })
        .collect();
    let mut series: Vec<_> = groups.into_iter().map(|labels| Series { labels, points: Vec::new() }).collect();
    for (first, known) in span.steps() {
        let step = Step::of(past, &known);
        for (group, series) in series.iter_mut().enumerate() {
            let calls = |minute: &Minute| {
                let of_group =
                    minute.kinds.iter().filter(|(kind, _)| group_of[usize::from(*kind)] == Some(group));
                of_group.map(|(_, count)| f64::from(*count)).sum()
            };
            series.points.push((first, sums(&step, calls)));
        }
    }
    if !filter.is_empty() {
        series.retain(|series| series.total() > 0.0);
        series.sort_by(|one, other| other.total().total_cmp(&one.total()));
    }
    series
}

impl Series {
    fn total(&self) -> f64 {
        self.points.iter().filter_map(|(_, point)| point.total).sum()
    }
}

/// The values of the filter's dimensions; `None`: it lets calls of this kind not pass.
fn labels(kind: &CallKind, filter: &[DimensionFilter]) -> Option<Vec<String>> {
    let label = |filter: &DimensionFilter| {
        let value = filter.dimension.of(kind);
        let passes = filter.values.iter().any(|it| it == "*" || it.eq_ignore_ascii_case(&value));
        passes.then_some(value)
    };
    filter.iter().map(label).collect()
}

fn is_error(kind: &CallKind) -> bool {
    let failed = match kind.code {
        Code::Exact(status) => status >= 400,
        Code::Class(class) => class >= 4,
    };
    failed || kind.reason != Reason::Ok
}

/// One value per known minute; one without calls has 0.
fn sums(step: &Step<'_>, value: impl Fn(&Minute) -> f64) -> Point {
    let values = step.minutes.iter().map(|minute| value(minute));
    let mut sampled = Sampling::default();
    values.for_each(|value| sampled.add(1.0, value, value..=value));
    let rest = f64::from(step.known) - step.minutes.len() as f64;
    if rest > 0.0 {
        sampled.add(rest, 0.0, 0.0..=0.0);
    }
    sampled.point()
}

/// What was seen at the looks; in a minute without calls there was nothing to be seen.
fn seen(step: &Step<'_>, part: impl Fn(&Minute) -> Sampled) -> Point {
    let mut sampling = Sampling::default();
    step.minutes.iter().for_each(|minute| sampling.add_sampled(part(minute), 1.0));
    let rest = f64::from(step.known) - step.minutes.len() as f64;
    if rest > 0.0 {
        sampling.add(rest * LOOKS_PER_MINUTE, 0.0, 0.0..=0.0);
    }
    sampling.point()
}

const LOOKS_PER_MINUTE: f64 = 60.0 / LOOK_INTERVAL.as_secs() as f64;

/// In percent; nothing is known of minutes without calls, when there may have been no limit.
fn used(step: &Step<'_>) -> Point {
    let mut sampling = Sampling::default();
    step.minutes.iter().for_each(|minute| sampling.add_sampled(minute.utilisation, 100.0));
    sampling.point()
}

/// In milliseconds. The least and the greatest time are not kept.
fn mean_time(step: &Step<'_>) -> Point {
    let milliseconds: f64 = step.minutes.iter().map(|minute| minute.seconds * 1000.0).sum();
    let calls: u64 = step.minutes.iter().map(|minute| minute.calls()).sum();
    if calls == 0 {
        return Point::default();
    }
    let calls = calls as f64;
    Point {
        average: Some(milliseconds / calls),
        total: Some(milliseconds),
        count: Some(calls),
        ..Point::default()
    }
}

/// In milliseconds: as exact as the buckets are narrow, evenly spread within each; a time above all bounds counts as the
/// highest bound (the rule of PromQL's `histogram_quantile`).
fn time_below(step: &Step<'_>, percent: u8) -> Point {
    let mut counts = [0_u64; BUCKETS];
    for minute in &step.minutes {
        counts.iter_mut().zip(minute.durations).for_each(|(sum, count)| *sum += u64::from(count));
    }
    let all: u64 = counts.iter().sum();
    if all == 0 {
        return Point::default();
    }
    let wanted = all as f64 * f64::from(percent) / 100.0;
    let mut below = 0.0;
    let mut lower = 0.0;
    for (count, bound) in counts.iter().zip(BOUNDS_SECONDS) {
        let count = *count as f64;
        if count > 0.0 && below + count >= wanted {
            let seconds = lower + (bound - lower) * (wanted - below) / count;
            return Point { average: Some(seconds * 1000.0), ..Point::default() };
        }
        (below, lower) = (below + count, bound);
    }
    Point { average: Some(lower * 1000.0), ..Point::default() }
}

/// Values on their way to a point.
#[derive(Default)]
struct Sampling {
    count: f64,
    sum: f64,
    bounds: Option<(f64, f64)>,
}

impl Sampling {
    fn add(&mut self, count: f64, sum: f64, bounds: std::ops::RangeInclusive<f64>) {
        self.count += count;
        self.sum += sum;
        let (least, most) = bounds.into_inner();
        let known = self.bounds.unwrap_or((least, most));
        self.bounds = Some((known.0.min(least), known.1.max(most)));
    }

    fn add_sampled(&mut self, sampled: Sampled, scale: f64) {
        let scaled = |value: f32| f64::from(value) * scale;
        if sampled.count > 0 {
            let bounds = scaled(sampled.least)..=scaled(sampled.most);
            self.add(f64::from(sampled.count), scaled(sampled.sum), bounds);
        }
    }

    fn point(&self) -> Point {
        let Some((least, most)) = self.bounds else { return Point::default() };
        Point {
            average: Some(self.sum / self.count),
            minimum: Some(least),
            maximum: Some(most),
            total: Some(self.sum),
            count: Some(self.count),
        }
    }
}
