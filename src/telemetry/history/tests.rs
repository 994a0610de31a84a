//! The history by the clock of the tests: what is kept of which minute, for how long, and how it comes together.

use super::*;
use crate::error::Reason;
use crate::telemetry::metrics::{CallKind, Code};

/// A whole hour, so that minutes read well.
const START: u64 = 1_700_000_000 / 3600 * 3600;

/// A service as its metrics would show it, and a history of it.
#[derive(Default)]
struct Played {
    history: History,
    reading: ServiceReading,
    load: Option<LoadReading>,
}

impl Played {
    /// Looks at second `at` after the start.
    fn look(&self, at: u64) {
        let readings = HashMap::from([(Arc::from("iris"), self.reading.clone())]);
        let loads = self.load.iter().map(|load| ("iris".to_owned(), *load)).collect();
        self.history.look(UNIX_EPOCH + Duration::from_secs(START + at), readings, &loads);
    }

    fn calls(&mut self, deployment: &str, status: u16, reason: Reason, count: u64) {
        let kind = CallKind { deployment: Some(deployment.into()), code: Code::Exact(status), reason };
        *self.reading.calls.entry(kind).or_default() += count;
    }

    /// `count` calls in the bucket `bucket`, each of so many milliseconds.
    fn times(&mut self, bucket: usize, count: u64, millis: u64) {
        self.reading.duration.counts[bucket] += count;
        self.reading.duration.sum += Duration::from_millis(millis) * u32::try_from(count).unwrap();
    }

    fn series(&self, metric: Metric, minutes: std::ops::Range<u32>, step: u32) -> Vec<Point> {
        let all = self.history.series("iris", metric, &span(minutes, step), &[]);
        assert_eq!(all.len(), 1);
        all[0].points.iter().map(|(_, point)| *point).collect()
    }

    fn totals(&self, metric: Metric, minutes: std::ops::Range<u32>, step: u32) -> Vec<Option<f64>> {
        self.series(metric, minutes, step).iter().map(|point| point.total).collect()
    }
}

/// Minutes from the start.
fn span(minutes: std::ops::Range<u32>, step: u32) -> Span {
    let start = u32::try_from(START / 60).unwrap();
    Span { minutes: start + minutes.start..start + minutes.end, step, not_before: 0 }
}

#[test]
fn calls_count_in_the_minute_in_which_they_ended() {
    let mut it = Played::default();
    assert_eq!(it.totals(Metric::Requests, 0..2, 1), [None, None], "before the first look");
    it.look(0);
    it.calls("blue", 200, Reason::Ok, 3);
    it.look(55);
    it.calls("blue", 200, Reason::Ok, 4);
    it.look(60);
    it.calls("blue", 200, Reason::Ok, 5);
    it.look(65);
    it.look(180);
    // Before the minute 0 nothing is known; minute 4 is to come.
    let minutes = 0..5;
    assert_eq!(it.totals(Metric::Requests, minutes, 1), [Some(7.0), Some(5.0), Some(0.0), Some(0.0), None]);
    let recent = Span { not_before: span(1..2, 1).minutes.start, ..span(0..2, 1) };
    let recent = &it.history.series("iris", Metric::Requests, &recent, &[])[0];
    assert_eq!(recent.points.iter().map(|(_, point)| point.total).collect::<Vec<_>>(), [None, Some(5.0)]);
    let both = it.series(Metric::RequestsPerMinute, 0..2, 2)[0];
    let known = [both.average, both.minimum, both.maximum, both.total, both.count];
    assert_eq!(known, [6.0, 5.0, 7.0, 12.0, 2.0].map(Some));
    assert_eq!(it.totals(Metric::Requests, 1..4, 2), [Some(5.0), Some(0.0)], "the last point is shorter");
}

#[test]
fn dimensions_tell_calls_apart_and_the_largest_come_first() {
    let mut it = Played::default();
    it.look(0);
    it.calls("blue", 200, Reason::Ok, 10);
    it.calls("green", 200, Reason::Ok, 30);
    it.calls("green", 503, Reason::QueueFull, 4);
    it.calls("green", 500, Reason::ModelError, 2);
    it.look(5);
    let series = |metric, filter: &[(Dimension, &[&str])]| {
        let filter: Vec<_> = filter
            .iter()
            .map(|(dimension, values)| DimensionFilter {
                dimension: *dimension,
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            })
            .collect();
        let found = it.history.series("iris", metric, &span(0..1, 1), &filter);
        found
            .into_iter()
            .map(|series| (series.labels.join("/"), series.points[0].1.total.unwrap()))
            .collect::<Vec<_>>()
    };
    let of = |text: &str, count| (text.to_owned(), count);
    let by_class = series(Metric::Requests, &[(Dimension::StatusCodeClass, &["*"])]);
    assert_eq!(by_class, [of("2xx", 40.0), of("5xx", 6.0)]);
    let green = series(
        Metric::Requests,
        &[(Dimension::Deployment, &["GREEN"]), (Dimension::StatusCode, &["200", "503"])],
    );
    assert_eq!(green, [of("green/200", 30.0), of("green/503", 4.0)]);
    let why = series(Metric::Errors, &[(Dimension::Reason, &["*"])]);
    assert_eq!(why, [of("queue_full", 4.0), of("model_error", 2.0)]);
    assert_eq!(series(Metric::Errors, &[]), [of("", 6.0)]);
    assert_eq!(series(Metric::Requests, &[(Dimension::Deployment, &["red"])]), []);
}

#[test]
fn times_are_averaged_over_calls_and_percentiles_lie_within_their_bucket() {
    let mut it = Played::default();
    it.look(0);
    it.calls("blue", 200, Reason::Ok, 100);
    // 90 calls between 5 and 10 ms, 10 between 100 and 250 ms.
    it.times(3, 90, 8);
    it.times(7, 10, 200);
    it.look(5);
    let mean = it.series(Metric::RequestLatency, 0..1, 1)[0];
    assert!((mean.average.unwrap() - 27.2).abs() < 1e-6, "{mean:?}");
    assert_eq!((mean.count, mean.maximum), (Some(100.0), None));
    let below = |percent| it.series(Metric::RequestLatencyBelow(percent), 0..1, 1)[0].average.unwrap();
    assert!((below(90) - 10.0).abs() < 1e-6);
    assert!((below(45 + 5) - (5.0 + 5.0 * 50.0 / 90.0)).abs() < 1e-6);
    assert!((below(95) - 175.0).abs() < 1e-6);
    it.look(60);
    assert_eq!(it.series(Metric::RequestLatency, 1..2, 1), [Point::default()], "no calls, no time");
    assert_eq!(it.series(Metric::RequestLatencyBelow(99), 1..2, 1), [Point::default()]);
}

#[test]
fn a_time_above_all_bounds_counts_as_the_highest() {
    let mut it = Played::default();
    it.look(0);
    it.calls("blue", 200, Reason::Ok, 1);
    it.times(18, 1, 900_000);
    it.look(5);
    assert_eq!(it.series(Metric::RequestLatencyBelow(50), 0..1, 1)[0].average, Some(300_000.0));
}

#[test]
fn gauges_are_what_the_looks_saw() {
    let mut it = Played { load: Some(LoadReading { slots: 4, busy: 0, waiting: 0 }), ..Played::default() };
    for look in 0..6 {
        it.look(look * 5);
    }
    it.reading.in_flight = 6;
    it.load = Some(LoadReading { slots: 4, busy: 4, waiting: 2 });
    (6..12).for_each(|look| it.look(look * 5));
    it.reading.in_flight = 0;
    it.load = Some(LoadReading { slots: 4, busy: 0, waiting: 0 });
    it.look(60);
    let in_flight = it.series(Metric::RequestsInFlight, 0..1, 1)[0];
    // Thirteen looks see the first minute, the first one its beginning.
    let near = |value: Option<f64>, expected: f64| (value.unwrap() - expected).abs() < 1e-6;
    assert!(near(in_flight.average, 36.0 / 13.0) && near(in_flight.count, 13.0), "{in_flight:?}");
    assert_eq!((in_flight.minimum, in_flight.maximum), (Some(0.0), Some(6.0)));
    assert_eq!(it.series(Metric::QueueDepth, 0..1, 1)[0].maximum, Some(2.0));
    let used = it.series(Metric::Utilization, 0..1, 1)[0];
    assert!(near(used.maximum, 150.0) && near(used.average, 150.0 * 6.0 / 13.0), "{used:?}");
    it.look(120);
    assert_eq!(it.series(Metric::RequestsInFlight, 1..2, 1)[0].average, Some(0.0), "at rest");
    assert_eq!(it.series(Metric::Utilization, 1..2, 1)[0], Point::default());
}

#[test]
fn bytes_are_told_per_second_and_tokens_as_sums() {
    let mut it = Played::default();
    it.look(0);
    it.calls("blue", 200, Reason::Ok, 1);
    it.reading.bytes = 600;
    it.reading.tokens = [7, 9];
    it.look(5);
    assert_eq!(it.series(Metric::NetworkBytes, 0..1, 1)[0].average, Some(10.0));
    assert_eq!(it.totals(Metric::PromptTokens, 0..1, 1), [Some(7.0)]);
    assert_eq!(it.totals(Metric::CompletionTokens, 0..1, 1), [Some(9.0)]);
}

#[test]
fn a_day_is_kept_and_no_more() {
    let mut it = Played::default();
    it.look(0);
    for minute in 0..u64::from(MINUTES) + 10 {
        it.look(minute * 60);
        it.calls("blue", 200, Reason::Ok, 1);
        it.look(minute * 60 + 30);
    }
    let known = it.history.known();
    assert_eq!(known.minutes, MINUTES as usize);
    assert!(known.services["iris"].minutes.capacity() <= MINUTES as usize + GROWTH);
    drop(known);
    let all = it.totals(Metric::Requests, 0..MINUTES + 10, 1);
    assert!(all[..10].iter().all(Option::is_none), "{:?}", &all[..12]);
    assert!(all[10..].iter().all(Option::is_some));
}

#[test]
fn past_the_bound_the_least_called_service_loses_its_past_and_no_call_is_counted_twice() {
    const MOST: usize = 30;
    let history = History::of(MOST);
    let kind = CallKind { deployment: None, code: Code::Exact(200), reason: Reason::Ok };
    let readings = |minute: u64| -> HashMap<Arc<str>, ServiceReading> {
        let reading = |(name, per_minute): (&str, u64)| {
            let calls = HashMap::from([(kind.clone(), minute * per_minute)]);
            (Arc::from(name), ServiceReading { calls, ..ServiceReading::default() })
        };
        [("iris", 2), ("wine", 1), ("rose", 2)].map(reading).into()
    };
    let minutes = 13;
    for minute in 0..=minutes {
        let at = UNIX_EPOCH + Duration::from_secs(START + minute * 60);
        history.look(at, readings(minute), &HashMap::new());
    }
    assert!(history.known().minutes <= MOST);
    let totals = |service: &str| -> Vec<Option<f64>> {
        let series = history.series(service, Metric::Requests, &span(0..13, 1), &[]);
        series[0].points.iter().map(|(_, point)| point.total).collect()
    };
    assert_eq!(totals("iris"), [Some(2.0); 13]);
    let wine = totals("wine");
    let known: Vec<_> = wine.iter().flatten().copied().collect();
    assert!(wine[..11].iter().all(Option::is_none), "{wine:?}");
    assert!(known == [1.0, 1.0], "{wine:?}");
}

#[test]
fn a_service_that_nobody_counts_for_any_more_is_told_for_a_day_and_then_forgotten() {
    let mut it = Played::default();
    it.look(0);
    it.calls("blue", 200, Reason::Ok, 2);
    it.look(5);
    let look = |at: u64| {
        let at = UNIX_EPOCH + Duration::from_secs(START + at);
        it.history.look(at, HashMap::new(), &HashMap::new());
    };
    let day = 24 * 60 * 60;
    look(day - 60);
    assert_eq!(it.totals(Metric::Requests, 0..1, 1), [Some(2.0)]);
    look(day);
    look(day + 5);
    assert!(it.history.known().services.is_empty());
}

#[test]
fn a_clock_set_back_loses_nothing_and_nothing_is_known_of_a_service_never_called_but_its_rest() {
    let mut it = Played::default();
    it.look(600);
    it.calls("blue", 200, Reason::Ok, 1);
    it.look(605);
    it.calls("blue", 200, Reason::Ok, 1);
    it.look(300);
    it.calls("blue", 200, Reason::Ok, 1);
    it.look(305);
    it.look(660);
    assert_eq!(it.totals(Metric::Requests, 10..11, 1), [Some(3.0)]);
    let other = it.history.series("wine", Metric::Requests, &span(9..11, 1), &[]);
    let totals: Vec<_> = other[0].points.iter().map(|(_, point)| point.total).collect();
    assert_eq!(totals, [None, Some(0.0)]);
}
