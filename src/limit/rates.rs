//! The rates of one service: its own and each caller's. A call over one of them is refused before it waits for anything.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::error::{Error, Kind};

use super::queue::PrincipalId;
use super::rate::{Bucket, RateSettings};

/// The rates that a service sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// `rate`: of all its calls.
    pub service: Option<RateSettings>,
    /// `rate_per_principal`: of the calls of each caller.
    pub per_principal: Option<RateSettings>,
}

/// What has been used of them; shared by all workers.
#[derive(Debug)]
pub struct Rates {
    service: Option<Arc<Used>>,
    principals: Option<Arc<Principals>>,
}

#[derive(Debug)]
struct Used {
    rate: RateSettings,
    bucket: Bucket,
}

/// Callers are told apart up to this many at a time.
const MOST_PRINCIPALS: usize = 10_000;

/// A bucket for each caller of late.
#[derive(Debug)]
struct Principals {
    rate: RateSettings,
    most: usize,
    buckets: DashMap<PrincipalId, Bucket>,
    /// Entries of `buckets`.
    held: AtomicUsize,
    /// Callers that were forgotten before they had rested, and so got a burst anew.
    forgotten: AtomicU64,
    sweeping: Mutex<()>,
    /// For newcomers in the moment in which room is made.
    newcomers: Bucket,
}

/// How many callers are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrincipalCount {
    /// Callers with a count of their own now.
    pub held: usize,
    /// Callers that had to make room although they had calls to their account.
    pub forgotten: u64,
}

impl Rates {
    /// The rates of a service, if it sets any. What was used `before` of a rate that stays the same is used still.
    #[must_use]
    pub fn new(limits: &RateLimits, before: Option<&Self>) -> Option<Self> {
        let service = limits.service.map(|rate| {
            let kept = before.and_then(|before| before.service.as_ref()).filter(|kept| kept.rate == rate);
            kept.map_or_else(|| Arc::new(Used { rate, bucket: Bucket::default() }), Arc::clone)
        });
        let principals = limits.per_principal.map(|rate| {
            let kept = before.and_then(|before| before.principals.as_ref()).filter(|kept| kept.rate == rate);
            kept.map_or_else(|| Arc::new(Principals::new(rate, MOST_PRINCIPALS)), Arc::clone)
        });
        (service.is_some() || principals.is_some()).then_some(Self { service, principals })
    }

    /// Takes one call of `principal`, of both rates or of none.
    ///
    /// # Errors
    /// [`Kind::RateLimited`], with the quota and when it has something left again.
    pub fn take(&self, principal: PrincipalId) -> Result<(), Error> {
        self.take_at(principal, now())
    }

    fn take_at(&self, principal: PrincipalId, now: u64) -> Result<(), Error> {
        if let Some(principals) = &self.principals {
            principals.take(principal, now).map_err(|wait| {
                refusal(
                    principals.rate,
                    "principal",
                    "each of its callers",
                    "limits.rate_per_principal",
                    wait,
                )
            })?;
        }
        let Some(Used { rate, bucket }) = self.service.as_deref() else { return Ok(()) };
        bucket.take(*rate, now).map_err(|wait| {
            if let Some(principals) = &self.principals {
                principals.give_back(principal);
            }
            refusal(*rate, "service", "all of its callers together", "limits.rate", wait)
        })
    }

    /// How many callers are told apart; `None`: they have no rate each.
    #[must_use]
    pub fn principals(&self) -> Option<PrincipalCount> {
        let principals = self.principals.as_ref()?;
        let (held, forgotten) = (principals.held.load(Relaxed), principals.forgotten.load(Relaxed));
        Some(PrincipalCount { held, forgotten })
    }
}

fn refusal(rate: RateSettings, name: &'static str, whose: &str, setting: &str, wait: Duration) -> Error {
    let (per_second, burst) = (rate.per_second(), rate.burst());
    let message = format!(
        "too many requests: this service takes {per_second} a second of {whose}, and {burst} at once ({setting})"
    );
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Error::new(Kind::RateLimited, message).over(rate.quota(name), Duration::from_secs(seconds.max(1)))
}

/// Nanoseconds on the monotonic clock, from when it was first asked for.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Principals {
    fn new(rate: RateSettings, most: usize) -> Self {
        Self {
            rate,
            most,
            buckets: DashMap::new(),
            held: AtomicUsize::new(0),
            forgotten: AtomicU64::new(0),
            sweeping: Mutex::new(()),
            newcomers: Bucket::default(),
        }
    }

    fn take(&self, principal: PrincipalId, now: u64) -> Result<(), Duration> {
        if let Some(bucket) = self.buckets.get(&principal) {
            return bucket.take(self.rate, now);
        }
        if self.held.load(Relaxed) >= self.most {
            match self.sweeping.try_lock() {
                Ok(_only_one) => self.make_room(now),
                // Another thread is at it.
                Err(_) => return self.newcomers.take(self.rate, now),
            }
        }
        let bucket = self.buckets.entry(principal).or_insert_with(|| {
            self.held.fetch_add(1, Relaxed);
            Bucket::default()
        });
        bucket.take(self.rate, now)
    }

    fn give_back(&self, principal: PrincipalId) {
        if let Some(bucket) = self.buckets.get(&principal) {
            bucket.give_back(self.rate);
        }
    }

    /// Forgets callers that have rested long enough, who lose nothing by it, and at least an eighth of all: those who
    /// have rested longest.
    fn make_room(&self, now: u64) {
        let mut ends: Vec<_> = self.buckets.iter().map(|bucket| bucket.used_until()).collect();
        if ends.is_empty() {
            return;
        }
        let eighth = ends.len() / 8;
        let (_, &mut end, _) = ends.select_nth_unstable(eighth);
        let last = end.max(now);
        let (mut gone, mut forgotten) = (0, 0);
        self.buckets.retain(|_, bucket| {
            let until = bucket.used_until();
            let stays = until > last;
            gone += usize::from(!stays);
            forgotten += u64::from(!stays && until > now);
            stays
        });
        self.held.fetch_sub(gone, Relaxed);
        self.forgotten.fetch_add(forgotten, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn ann() -> PrincipalId {
        PrincipalId::of(&"ann")
    }

    fn bob() -> PrincipalId {
        PrincipalId::of(&"bob")
    }

    fn rates(service: Option<(f64, u32)>, per_principal: Option<(f64, u32)>) -> Rates {
        Rates::new(&limits(service, per_principal), None).unwrap()
    }

    fn limits(service: Option<(f64, u32)>, per_principal: Option<(f64, u32)>) -> RateLimits {
        let rate = |(per_second, burst)| RateSettings::new(per_second, Some(burst));
        RateLimits { service: service.map(rate), per_principal: per_principal.map(rate) }
    }

    fn let_in(rates: &Rates, principal: PrincipalId, now: u64, asked: usize) -> usize {
        (0..asked).filter(|_| rates.take_at(principal, now).is_ok()).count()
    }

    #[test]
    fn each_caller_has_a_rate_of_its_own_and_all_share_one() {
        let rates = rates(Some((1.0, 5)), Some((1.0, 3)));
        assert_eq!(let_in(&rates, ann(), SECOND, 10), 3);
        assert_eq!(let_in(&rates, bob(), SECOND, 10), 2, "what the service has left");
        let refused = rates.take_at(bob(), SECOND).unwrap_err();
        assert_eq!(refused.kind, Kind::RateLimited);
        assert!(refused.message.contains("(limits.rate)"), "{}", refused.message);
        let refused = rates.take_at(ann(), SECOND).unwrap_err();
        assert!(refused.message.contains("limits.rate_per_principal"), "{}", refused.message);
        assert!(refused.message.contains("1 a second"), "{}", refused.message);
        // What the service refused him he has still.
        assert_eq!(let_in(&rates, bob(), SECOND + SECOND / 2, 1), 0);
        assert_eq!(rates.principals(), Some(PrincipalCount { held: 2, forgotten: 0 }));
    }

    #[test]
    fn a_call_that_the_service_refuses_is_not_on_the_callers_account() {
        let rates = rates(Some((1.0, 1)), Some((0.001, 2)));
        assert_eq!(let_in(&rates, ann(), SECOND, 100), 1);
        assert_eq!(let_in(&rates, ann(), 2 * SECOND, 100), 1);
        let refused = rates.take_at(ann(), 3 * SECOND).unwrap_err();
        assert!(refused.message.contains("rate_per_principal"), "{}", refused.message);
    }

    #[test]
    fn the_wait_is_told_in_whole_seconds_with_the_quota() {
        let rates = rates(Some((0.5, 1)), None);
        rates.take_at(ann(), 0).unwrap();
        let retry = rates.take_at(ann(), SECOND / 2).unwrap_err().retry.unwrap();
        let quota = retry.quota.unwrap();
        assert_eq!(
            (retry.after.as_secs(), quota.name, quota.calls, quota.window.as_secs()),
            (2, "service", 1, 2)
        );
    }

    #[test]
    fn a_reload_forgives_nothing_unless_the_rate_has_changed() {
        let before = rates(Some((1.0, 1)), Some((1.0, 1)));
        before.take(ann()).unwrap();
        let same = Rates::new(&limits(Some((1.0, 1)), Some((1.0, 1))), Some(&before)).unwrap();
        assert!(Arc::ptr_eq(same.service.as_ref().unwrap(), before.service.as_ref().unwrap()));
        assert!(Arc::ptr_eq(same.principals.as_ref().unwrap(), before.principals.as_ref().unwrap()));
        let other = Rates::new(&limits(Some((2.0, 1)), None), Some(&before)).unwrap();
        assert!(other.take(ann()).is_ok() && other.principals.is_none());
        assert!(Rates::new(&RateLimits::default(), Some(&before)).is_none());
    }

    #[test]
    fn callers_are_bounded_and_those_who_rest_go_first() {
        let principals = Principals::new(RateSettings::new(1.0, Some(10)), 80);
        let caller = |number: u32| PrincipalId::of(&number);
        for number in 0..80 {
            // The higher the number, the more is used.
            for _ in 0..=number / 10 {
                principals.take(caller(number), 0).unwrap();
            }
        }
        // Two seconds on, the first twenty are as good as new: nobody loses by their leaving.
        principals.take(caller(100), 2 * SECOND).unwrap();
        assert_eq!((principals.held.load(Relaxed), principals.forgotten.load(Relaxed)), (61, 0));
        assert_eq!(principals.buckets.len(), 61);
        assert!(
            principals.buckets.contains_key(&caller(20)) && !principals.buckets.contains_key(&caller(19))
        );
        // With nobody at rest, those with the least to their account go.
        for number in 200..260 {
            let _ = principals.take(caller(number), 2 * SECOND);
        }
        let held = principals.held.load(Relaxed);
        assert!(held <= 80 && held == principals.buckets.len(), "{held}");
        assert!(principals.forgotten.load(Relaxed) > 0);
        assert!(principals.buckets.contains_key(&caller(79)), "the busiest stays");
        // Room that is being made on another thread is not waited for.
        let _busy = principals.sweeping.lock().unwrap();
        for number in 300..400 {
            let _ = principals.take(caller(number), 2 * SECOND);
        }
        assert!(principals.held.load(Relaxed) <= 80);
        assert!(principals.take(caller(400), 2 * SECOND).is_err(), "newcomers share one account meanwhile");
    }
}
