//! What a metrics query asks for: its parameters as Azure Monitor names them, checked.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{filter, minute_of};
use crate::management::{Refusal, duration};
use crate::telemetry::history::{Aggregation, Definition, DimensionFilter, Metric, Span};

/// Minutes of a query that names no timespan.
const DEFAULT_MINUTES: u32 = 60;
/// Most points of one series: a day of minutes, and some more for clocks that differ.
const MOST_POINTS: u32 = 1_500;
/// Series of each metric with a filter, if the query does not say.
const SERIES: usize = 10;
/// Added to round up.
const ALMOST_A_MINUTE: time::Duration = time::Duration::nanoseconds(59_999_999_999);
/// Most series of each metric.
const MOST_SERIES: usize = 50;

/// A metrics query.
#[derive(Debug)]
pub struct MetricsQuery {
    pub(super) metrics: Vec<&'static Definition>,
    pub(super) from: u32,
    pub(super) to: u32,
    /// Minutes per point.
    pub(super) step: u32,
    /// Empty: of each metric its own.
    pub(super) aggregations: Vec<Aggregation>,
    pub(super) filter: Vec<DimensionFilter>,
    pub(super) most_series: usize,
}

impl MetricsQuery {
    /// Reads the parameters `timespan`, `interval`, `metricnames`, `aggregation`, `$filter` and `top`.
    ///
    /// # Errors
    /// Names the parameter that is wrong.
    pub fn parse(parameter: impl Fn(&str) -> Option<String>, now: OffsetDateTime) -> Result<Self, Refusal> {
        let given = |name| parameter(name).filter(|text| !text.trim().is_empty());
        let (from, to) = match given("timespan") {
            Some(text) => timespan(&text, now)?,
            None => (minute_of(now).saturating_sub(DEFAULT_MINUTES - 1), minute_of(now) + 1),
        };
        let step = given("interval").map_or(Ok(1), |text| interval(&text, to - from))?;
        let metrics = match given("metricnames") {
            Some(names) => listed(&names).map(metric).collect::<Result<_, _>>()?,
            None => Metric::all().iter().collect(),
        };
        let aggregations = given("aggregation").unwrap_or_default();
        let query = Self {
            aggregations: listed(&aggregations).map(aggregation).collect::<Result<_, _>>()?,
            filter: given("$filter").map_or(Ok(Vec::new()), |text| filter::parse(&text))?,
            most_series: given("top").map_or(Ok(SERIES), |text| top(&text))?,
            metrics,
            from,
            to,
            step,
        };
        query.check()?;
        Ok(query)
    }

    fn check(&self) -> Result<(), Refusal> {
        let points = self.span(OffsetDateTime::UNIX_EPOCH).points();
        if points > MOST_POINTS {
            let message = format!("would give {points} points; at most {MOST_POINTS}: choose a longer one");
            return Err(Refusal::invalid("interval", message));
        }
        for filter in &self.filter {
            let lacks = |metric: &&&Definition| !metric.dimensions.contains(&filter.dimension);
            if let Some(metric) = self.metrics.iter().find(lacks) {
                let message = format!(
                    "{} has no dimension {}; ask for it without a filter",
                    metric.name,
                    filter.dimension.as_str()
                );
                return Err(Refusal::invalid("$filter", message));
            }
        }
        Ok(())
    }

    /// The minutes asked for, nothing of them before `since`.
    pub(super) fn span(&self, since: OffsetDateTime) -> Span {
        Span { minutes: self.from..self.to, step: self.step, not_before: minute_of(since) }
    }
}

/// Words with commas between them.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn metric(name: &str) -> Result<&'static Definition, Refusal> {
    Metric::all().iter().find(|known| known.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let known: Vec<_> = Metric::all().iter().map(|known| known.name).collect();
        Refusal::invalid("metricnames", format!("there is no '{name}'; there are {}", known.join(", ")))
    })
}

fn aggregation(name: &str) -> Result<Aggregation, Refusal> {
    Aggregation::named(name).ok_or_else(|| {
        let known = Aggregation::ALL.map(Aggregation::as_str).join(", ");
        Refusal::invalid("aggregation", format!("there is no '{name}'; there are {known}"))
    })
}

fn top(text: &str) -> Result<usize, Refusal> {
    text.parse().ok().filter(|top| (1..=MOST_SERIES).contains(top)).ok_or_else(|| {
        Refusal::invalid("top", format!("'{text}' is no whole number from 1 to {MOST_SERIES}"))
    })
}

/// `START/END`, `START/DURATION`, `DURATION/END` or a duration that ends now. End and length are rounded up to whole
/// minutes: the last hour is 60 of them, and the minute that is under way is the last.
fn timespan(text: &str, now: OffsetDateTime) -> Result<(u32, u32), Refusal> {
    let wrong = || {
        let message = "is no timespan; write one such as 2026-01-31T12:00:00Z/2026-01-31T13:00:00Z or PT1H";
        Refusal::invalid("timespan", message)
    };
    let length = |text: &str| {
        let millis = duration::parse(text)?;
        Some(time::Duration::milliseconds(i64::try_from(millis).ok()?))
    };
    let (from, to) = match text.split_once('/') {
        None => (length(text).and_then(|length| now.checked_sub(length)), Some(now)),
        Some((from, to)) => match (instant(from), instant(to)) {
            (Some(from), None) => (Some(from), length(to).and_then(|length| from.checked_add(length))),
            (None, Some(to)) => (length(from).and_then(|length| to.checked_sub(length)), Some(to)),
            both => both,
        },
    };
    let (from, to) = from.zip(to).ok_or_else(wrong)?;
    if from >= to {
        return Err(Refusal::invalid("timespan", "ends before it begins, or is empty"));
    }
    let end = minute_of(to.saturating_add(ALMOST_A_MINUTE));
    let length = (to - from + ALMOST_A_MINUTE).whole_minutes();
    Ok((end.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX)), end))
}

/// RFC 3339; without an offset it is UTC.
fn instant(text: &str) -> Option<OffsetDateTime> {
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    parse(text).or_else(|| parse(&format!("{text}Z")))
}

/// Minutes per point; `FULL`: all of the timespan is one.
fn interval(text: &str, all: u32) -> Result<u32, Refusal> {
    if text.eq_ignore_ascii_case("FULL") {
        return Ok(all);
    }
    let millis = duration::parse(text).filter(|millis| *millis > 0 && millis % 60_000 == 0);
    let minutes = millis.and_then(|millis| u32::try_from(millis / 60_000).ok());
    minutes.ok_or_else(|| {
        Refusal::invalid(
            "interval",
            format!("'{text}' is no duration of whole minutes, such as PT5M, nor FULL"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-01-31 12:00:30 UTC);

    fn parse(parameters: &[(&str, &str)]) -> Result<MetricsQuery, Refusal> {
        let find = |name: &str| parameters.iter().find(|(known, _)| *known == name);
        MetricsQuery::parse(|name| find(name).map(|(_, value)| (*value).to_owned()), NOW)
    }

    #[test]
    fn without_parameters_the_last_hour_of_all_metrics_is_asked_for() {
        let query = parse(&[]).unwrap();
        assert_eq!((query.to - query.from, query.step), (60, 1));
        assert_eq!(query.to, minute_of(NOW) + 1, "the minute that is not over is told too");
        assert_eq!(query.metrics.len(), Metric::all().len());
    }

    #[test]
    fn each_way_to_write_a_timespan_is_read() {
        let noon = minute_of(NOW);
        for (text, from, to) in [
            ("2026-01-31T11:00:00Z/2026-01-31T12:00:00Z", noon - 60, noon),
            ("2026-01-31T11:00:00/2026-01-31T12:00:00", noon - 60, noon),
            ("2026-01-31T12:00:00+01:00/2026-01-31T12:00:00.000000Z", noon - 60, noon),
            ("2026-01-31T11:00:59Z/2026-01-31T11:59:01Z", noon - 59, noon),
            ("2026-01-31T11:00:30Z/2026-01-31T12:00:30Z", noon - 59, noon + 1),
            ("2026-01-31T11:00:00Z/PT30M", noon - 60, noon - 30),
            ("PT30M/2026-01-31T11:00:00Z", noon - 90, noon - 60),
            ("PT1H", noon - 59, noon + 1),
        ] {
            let query = parse(&[("timespan", text), ("interval", "FULL")]).unwrap();
            assert_eq!((query.from, query.to), (from, to), "{text}");
            assert_eq!(query.step, to - from);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, text) in [
            ("timespan", "yesterday"),
            ("timespan", "PT1H/PT1H"),
            ("timespan", "2026-01-31T12:00:00Z/2026-01-31T11:00:00Z"),
            ("interval", "PT30S"),
            ("interval", "PT0M"),
            ("metricnames", "Requests,Wishes"),
            ("aggregation", "median"),
            ("top", "0"),
            ("top", "51"),
            ("$filter", "reason eq"),
            ("$filter", "reason eq 'ok'"),
        ] {
            let refusal = parse(&[(name, text)]).unwrap_err();
            assert_eq!(refusal.target.as_deref(), Some(name), "{text}: {refusal}");
        }
        let long = parse(&[("timespan", "P2D")]).unwrap_err();
        assert_eq!(long.target.as_deref(), Some("interval"), "{long}");
        assert!(parse(&[("timespan", "P2D"), ("interval", "PT5M")]).is_ok());
        assert!(parse(&[("metricnames", "requests, errors"), ("$filter", "reason eq 'ok'")]).is_ok());
    }
}
