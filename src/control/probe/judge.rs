//! What the answers of one replica make of it: a pure machine that is told the time and never waits.

use std::time::Duration;

use tokio::time::Instant;

use crate::upstream::{HealthSettings, ProbeSettings, Verdict};

/// Longest pause while a replica starts: it should get calls soon after it can take them.
const STARTING_PAUSE: Duration = Duration::from_secs(1);

/// The judge of one replica.
#[derive(Debug)]
pub(super) struct Judge {
    rules: Rules,
    standing: Standing,
    /// Probes passed in a row, of a replica that is not ready.
    passed: u32,
    /// Failures in a row that count.
    failed: u32,
}

/// What of the settings decides.
#[derive(Clone, Copy, Debug)]
struct Rules {
    probes: bool,
    scores: bool,
    healthy: u32,
    unhealthy: u32,
    interval: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Never ready yet; until then failures do not count.
    Starting(Instant),
    Ready,
    NotReady,
}

/// What the replica is to be asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// The small one.
    Probe,
    /// The scoring call.
    Score,
}

/// Whether the answer was good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Good,
    Bad,
}

impl Judge {
    /// Goes on from what was thought of the replica `before`: new rules alone take no calls from one that gets them.
    pub fn new(settings: &HealthSettings, before: Verdict, now: Instant) -> Self {
        let defaults = ProbeSettings::default();
        let probe = settings.probe.as_ref().unwrap_or(&defaults);
        let rules = Rules {
            probes: settings.probe.is_some(),
            scores: settings.readiness.is_some(),
            healthy: probe.healthy,
            unhealthy: probe.unhealthy,
            interval: probe.interval,
        };
        let standing = match before {
            Verdict::Unprobed | Verdict::Ready => Standing::Ready,
            Verdict::Starting => Standing::Starting(now + probe.startup),
            Verdict::NotReady => Standing::NotReady,
        };
        Self { rules, standing, passed: 0, failed: 0 }
    }

    /// What is thought of the replica.
    pub const fn verdict(&self) -> Verdict {
        match self.standing {
            Standing::Starting(_) => Verdict::Starting,
            Standing::Ready => Verdict::Ready,
            Standing::NotReady => Verdict::NotReady,
        }
    }

    /// What to ask next; `None`: nothing any more. A replica that is dead is not asked to score.
    pub fn next(&self) -> Option<Question> {
        let Rules { probes, scores, healthy, .. } = self.rules;
        match self.standing {
            Standing::Ready => probes.then_some(Question::Probe),
            Standing::Starting(_) | Standing::NotReady if probes && self.passed < healthy => {
                Some(Question::Probe)
            }
            Standing::Starting(_) | Standing::NotReady => scores.then_some(Question::Score),
        }
    }

    /// Takes the answer to [`next`](Self::next)'s question.
    pub fn answered(&mut self, question: Question, answer: Answer, now: Instant) {
        match answer {
            Answer::Good => self.good(question),
            Answer::Bad => self.bad(now),
        }
    }

    fn good(&mut self, question: Question) {
        self.failed = 0;
        if self.standing == Standing::Ready {
            return;
        }
        match question {
            Question::Probe => {
                self.passed += 1;
                if self.passed < self.rules.healthy || self.rules.scores {
                    return;
                }
            }
            Question::Score => {}
        }
        self.standing = Standing::Ready;
        self.passed = 0;
    }

    fn bad(&mut self, now: Instant) {
        self.passed = 0;
        match self.standing {
            Standing::Starting(until) if now < until => return,
            Standing::NotReady => return,
            Standing::Starting(_) | Standing::Ready => self.failed += 1,
        }
        if self.failed >= self.rules.unhealthy {
            self.standing = Standing::NotReady;
            self.failed = 0;
        }
    }

    /// How long to wait before the next question; `spread` is drawn from 0 to 1, so that replicas are not all asked at
    /// once.
    pub fn pause(&self, spread: f64) -> Duration {
        let interval = match (self.standing, self.next()) {
            // It has passed its probes: what is left between it and calls is asked at once.
            (_, Some(Question::Score)) if self.passed > 0 => return Duration::ZERO,
            (Standing::Starting(_), _) => self.rules.interval.min(STARTING_PAUSE),
            (Standing::Ready | Standing::NotReady, _) => self.rules.interval,
        };
        interval.mul_f64(0.2f64.mul_add(spread, 0.9))
    }

    /// How long to wait before the first question. Who waits for calls is asked at once.
    pub fn first_pause(&self, spread: f64) -> Duration {
        match self.standing {
            Standing::Ready => self.rules.interval.mul_f64(spread),
            Standing::Starting(_) | Standing::NotReady => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;
    use http::uri::PathAndQuery;

    use super::*;
    use crate::upstream::ReadinessSettings;

    fn settings(healthy: u32, unhealthy: u32) -> HealthSettings {
        let startup = Duration::from_secs(60);
        let probe = ProbeSettings { healthy, unhealthy, startup, ..ProbeSettings::default() };
        HealthSettings { probe: Some(probe), readiness: None }
    }

    fn with_readiness(settings: HealthSettings) -> HealthSettings {
        let readiness = ReadinessSettings {
            path: PathAndQuery::from_static("/score"),
            body: Bytes::from_static(b"{}"),
            content_type: HeaderValue::from_static("application/json"),
            timeout: Duration::from_secs(1),
        };
        HealthSettings { readiness: Some(readiness), ..settings }
    }

    /// Asks and answers; gives the question and what is thought after it.
    fn ask(judge: &mut Judge, answer: Answer, now: Instant) -> (Question, Verdict) {
        let question = judge.next().unwrap();
        judge.answered(question, answer, now);
        (question, judge.verdict())
    }

    #[test]
    fn a_new_replica_is_ready_after_so_many_good_answers_in_a_row() {
        let now = Instant::now();
        let mut judge = Judge::new(&settings(3, 1), Verdict::Starting, now);
        use Answer::{Bad, Good};
        for answer in [Good, Good, Bad, Good, Good] {
            assert_eq!(ask(&mut judge, answer, now), (Question::Probe, Verdict::Starting));
        }
        assert_eq!(ask(&mut judge, Good, now), (Question::Probe, Verdict::Ready));
    }

    #[test]
    fn failures_of_a_starting_replica_count_after_its_window() {
        let now = Instant::now();
        let mut judge = Judge::new(&settings(1, 2), Verdict::Starting, now);
        for second in 0..60 {
            let now = now + Duration::from_secs(second);
            assert_eq!(ask(&mut judge, Answer::Bad, now).1, Verdict::Starting);
        }
        let late = now + Duration::from_secs(60);
        assert_eq!(ask(&mut judge, Answer::Bad, late).1, Verdict::Starting);
        assert_eq!(ask(&mut judge, Answer::Bad, late).1, Verdict::NotReady);
        assert_eq!(ask(&mut judge, Answer::Good, late).1, Verdict::Ready);
    }

    #[test]
    fn a_ready_replica_goes_after_so_many_failures_in_a_row_and_comes_back() {
        let now = Instant::now();
        let mut judge = Judge::new(&settings(2, 3), Verdict::Ready, now);
        use Answer::{Bad, Good};
        for answer in [Bad, Bad, Good, Bad, Bad] {
            assert_eq!(ask(&mut judge, answer, now).1, Verdict::Ready);
        }
        for (answer, verdict) in [
            (Bad, Verdict::NotReady),
            (Bad, Verdict::NotReady),
            (Good, Verdict::NotReady),
            (Bad, Verdict::NotReady),
            (Good, Verdict::NotReady),
            (Good, Verdict::Ready),
            (Bad, Verdict::Ready),
        ] {
            assert_eq!(ask(&mut judge, answer, now).1, verdict);
        }
    }

    #[test]
    fn a_scoring_call_stands_before_every_entry_and_nowhere_else() {
        let now = Instant::now();
        let mut judge = Judge::new(&with_readiness(settings(2, 1)), Verdict::Starting, now);
        use Answer::{Bad, Good};
        use Question::{Probe, Score};
        for (answer, asked, verdict) in [
            (Good, Probe, Verdict::Starting),
            (Good, Probe, Verdict::Starting),
            (Bad, Score, Verdict::Starting),
            // It has to pass its probes again.
            (Good, Probe, Verdict::Starting),
            (Good, Probe, Verdict::Starting),
            (Good, Score, Verdict::Ready),
            (Good, Probe, Verdict::Ready),
            (Good, Probe, Verdict::Ready),
            (Bad, Probe, Verdict::NotReady),
            (Good, Probe, Verdict::NotReady),
            (Good, Probe, Verdict::NotReady),
            (Good, Score, Verdict::Ready),
        ] {
            assert_eq!(ask(&mut judge, answer, now), (asked, verdict));
        }
    }

    #[test]
    fn readiness_alone_asks_until_it_is_ready_and_then_no_more() {
        let alone = with_readiness(HealthSettings { probe: None, readiness: None });
        let now = Instant::now();
        let mut judge = Judge::new(&alone, Verdict::Starting, now);
        assert_eq!(ask(&mut judge, Answer::Bad, now), (Question::Score, Verdict::Starting));
        assert!(judge.pause(0.5) >= STARTING_PAUSE, "a model that fails is not asked without a pause");
        assert_eq!(ask(&mut judge, Answer::Good, now), (Question::Score, Verdict::Ready));
        assert_eq!(judge.next(), None);
    }

    #[test]
    fn new_rules_take_nobody_out() {
        let now = Instant::now();
        let next = |before| {
            let judge = Judge::new(&with_readiness(settings(1, 1)), before, now);
            (judge.verdict(), judge.first_pause(0.5).is_zero())
        };
        assert_eq!(next(Verdict::Unprobed), (Verdict::Ready, false));
        assert_eq!(next(Verdict::Ready), (Verdict::Ready, false));
        assert_eq!(next(Verdict::Starting), (Verdict::Starting, true));
        assert_eq!(next(Verdict::NotReady), (Verdict::NotReady, true));
    }

    #[test]
    fn pauses_are_spread_around_the_interval_and_short_at_the_start() {
        let now = Instant::now();
        let seconds = Duration::from_secs_f64;
        let judge = Judge::new(&settings(1, 1), Verdict::Ready, now);
        assert_eq!(judge.pause(0.0), seconds(9.0));
        assert_eq!(judge.pause(1.0), seconds(11.0));
        let mut judge = Judge::new(&with_readiness(settings(2, 1)), Verdict::Starting, now);
        assert_eq!(judge.pause(0.5), seconds(1.0));
        ask(&mut judge, Answer::Good, now);
        assert_eq!(judge.pause(0.5), seconds(1.0));
        ask(&mut judge, Answer::Good, now);
        assert_eq!(judge.pause(0.5), Duration::ZERO, "the scoring call follows at once");
    }
}
