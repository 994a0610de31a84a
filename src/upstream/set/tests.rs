//! Sets of replicas that nobody really calls: caps, ejection, and who hears of it.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use http::StatusCode;

use super::*;
use crate::error::Kind;
use crate::upstream::AttemptOutcome::{self, Answered, ConnectFailed, Connected, Reset};
use crate::upstream::balance::tests::replica;

const ERROR: AttemptOutcome = Answered(StatusCode::INTERNAL_SERVER_ERROR);
const OK: AttemptOutcome = Answered(StatusCode::OK);

/// What a set told, the last last.
type Heard = Arc<Mutex<Vec<usize>>>;

fn settings() -> BalancingSettings {
    let ejection = EjectionSettings { time: Duration::from_secs(3600), ..EjectionSettings::default() };
    BalancingSettings { ejection: Some(ejection), ..BalancingSettings::default() }
}

/// A set whose ejections last for a millisecond.
fn brief() -> BalancingSettings {
    let ejection = EjectionSettings { time: Duration::from_millis(1), ..EjectionSettings::default() };
    BalancingSettings { ejection: Some(ejection), ..BalancingSettings::default() }
}

fn set_of(count: u16, settings: BalancingSettings) -> (Arc<ReplicaSet>, Vec<Arc<Replica>>, Heard) {
    let members: Vec<_> = (0..count).map(replica).collect();
    let set = ReplicaSet::new("iris/blue", settings, members.clone());
    let heard = Heard::default();
    set.take_charge(listener(&heard));
    (set, members, heard)
}

fn told(heard: &Heard) -> Vec<usize> {
    heard.lock().unwrap().clone()
}

fn listener(heard: &Heard) -> impl Fn(usize) + Send + 'static {
    let heard = Arc::clone(heard);
    move |serving| heard.lock().unwrap().push(serving)
}

fn report(replica: &Replica, outcome: AttemptOutcome, times: usize) {
    (0..times).for_each(|_| replica.report(outcome));
}

fn pick(set: &ReplicaSet) -> Result<InFlightGuard, Error> {
    set.pick(&Choice::default())
}

fn capped(set: &ReplicaSet, cap: u32) -> Result<InFlightGuard, Error> {
    set.pick(&Choice { per_replica: Some(cap), ..Choice::default() })
}

fn refused(picked: Result<InFlightGuard, Error>) -> Kind {
    picked.unwrap_err().kind
}

fn is_at(guard: &InFlightGuard, replica: &Arc<Replica>) -> bool {
    Arc::ptr_eq(guard.replica(), replica)
}

#[track_caller]
fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(20) {
        if let Some(found) = check() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{what} did not come");
}

#[test]
fn a_call_goes_where_there_is_room_and_nowhere_if_there_is_none() {
    for policy in [
        Balancing::LeastBusy,
        Balancing::RoundRobin,
        Balancing::Hash(http::HeaderName::from_static("x-user")),
    ] {
        let (set, members, _) = set_of(4, BalancingSettings { policy, ..settings() });
        let hot_key = Choice { hash: Some(7), per_replica: Some(2), tried: &[] };
        let held: Vec<_> = (0..8).map(|_| set.pick(&hot_key).unwrap()).collect();
        assert!(members.iter().all(|it| it.in_flight() == 2), "{members:?}");
        let full = set.pick(&hot_key).unwrap_err();
        assert_eq!(full.kind, Kind::QueueFull);
        assert!(full.message.contains("limits.concurrent_requests_per_replica is 2"), "{}", full.message);
        drop(held);
        assert!(members.iter().all(|it| it.in_flight() == 0), "{members:?}");
    }
}

#[test]
fn over_many_threads_the_cap_holds_and_cancelled_calls_leave_nothing_behind() {
    let (set, members, _) = set_of(3, brief());
    let over = AtomicBool::new(false);
    let held = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (set, members, over, held) = (&set, &members, &over, &held);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut calls = Vec::new();
                for _ in 0..20_000 {
                    match random.u8(..4) {
                        0 if !calls.is_empty() => {
                            let call: InFlightGuard = calls.swap_remove(random.usize(..calls.len()));
                            call.replica().report(if random.bool() { OK } else { ERROR });
                        }
                        1 if !calls.is_empty() => drop(calls.swap_remove(random.usize(..calls.len()))),
                        _ => match capped(set, 5) {
                            Ok(call) => {
                                held.fetch_add(1, Ordering::Relaxed);
                                calls.push(call);
                            }
                            Err(error) => assert_eq!(error.kind, Kind::QueueFull),
                        },
                    }
                    if members.iter().any(|it| it.in_flight() > 5) {
                        over.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(held.into_inner() > 1000);
    assert!(!over.into_inner(), "a replica had more calls than its cap");
    assert!(members.iter().all(|it| it.in_flight() == 0), "{members:?}");
    assert!(members.iter().all(|it| !it.health().is_on_trial()), "{members:?}");
}

#[test]
fn a_call_that_failed_goes_elsewhere_and_back_only_if_nobody_else_is_left() {
    let (set, members, _) = set_of(3, settings());
    let retry = |tried: &[Arc<Replica>]| set.pick(&Choice { tried, ..Choice::default() }).unwrap();
    for _ in 0..100 {
        assert!(is_at(&retry(&members[..2]), &members[2]));
    }
    retry(&members);
}

#[test]
fn who_is_not_ready_gets_no_calls_and_it_is_told() {
    let (set, members, heard) = set_of(2, settings());
    members[0].set_verdict(Verdict::Starting);
    for _ in 0..50 {
        assert!(is_at(&pick(&set).unwrap(), &members[1]));
    }
    members[1].set_verdict(Verdict::NotReady);
    assert_eq!(refused(pick(&set)), Kind::NoReadyReplica);
    let states = States { starting: 1, not_ready: 1, ..States::default() };
    assert_eq!(set.states(), states);
    members[0].set_verdict(Verdict::Ready);
    // Told once, whoever repeats it.
    members[0].set_verdict(Verdict::Ready);
    assert!(is_at(&pick(&set).unwrap(), &members[0]));
    assert_eq!(told(&heard), [2, 1, 0, 1]);
}

#[test]
fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
    let (set, members, heard) = set_of(2, settings());
    for _ in 0..5 {
        report(&members[0], ERROR, 4);
        report(&members[0], OK, 1);
    }
    assert_eq!(set.serving(), 2);
    report(&members[0], ERROR, 2);
    report(&members[0], Reset, 3);
    assert_eq!((set.serving(), set.ejections()), (1, 1));
    for _ in 0..50 {
        assert!(is_at(&pick(&set).unwrap(), &members[1]));
    }
    // A call from before the ejection brings nobody back.
    report(&members[0], OK, 1);
    assert_eq!(set.states(), States { ready: 1, ejected: 1, ..States::default() });
    assert_eq!(told(&heard), [2, 1]);
}

#[test]
fn the_floor_holds_against_answers() {
    let (set, members, _) = set_of(4, settings());
    members.iter().for_each(|it| report(it, ERROR, 50));
    assert_eq!((set.serving(), set.ejections()), (2, 2));
    // What is not reachable does not count as kept.
    report(&members[3], ConnectFailed, 5);
    assert_eq!(set.serving(), 1);
    let (single, members, heard) = set_of(1, settings());
    report(&members[0], ERROR, 50);
    report(&members[0], Reset, 50);
    assert!(pick(&single).is_ok());
    assert_eq!((single.ejections(), told(&heard)), (0, vec![1]));
}

#[test]
fn with_all_unreachable_calls_fail_at_once_but_for_a_trial_now_and_then() {
    let (set, members, heard) = set_of(2, settings());
    members.iter().for_each(|it| report(it, ConnectFailed, 5));
    assert_eq!(told(&heard), [2, 1, 0]);
    for _ in 0..100 {
        assert_eq!(refused(pick(&set)), Kind::NoReadyReplica);
    }
    let trial = eventually("a trial", || pick(&set).ok());
    let other = pick(&set);
    // One call per replica at once.
    if let Ok(other) = &other {
        assert!(!Arc::ptr_eq(trial.replica(), other.replica()));
    }
    // It fails, as early trials do that change nothing: the next one is a second away.
    trial.replica().report(ConnectFailed);
    let tried = Arc::clone(trial.replica());
    drop((trial, other));
    assert_eq!((set.serving(), set.ejections()), (0, 2));
    let trial = eventually("the next trial", || pick(&set).ok().filter(|it| is_at(it, &tried)));
    tried.report(Connected);
    assert_eq!(set.serving(), 1);
    assert!(is_at(&pick(&set).unwrap(), &tried));
    drop(trial);
    assert_eq!(told(&heard), [2, 1, 0, 1]);
}

#[test]
fn a_call_that_could_not_be_sent_tries_the_ejected_before_it_gives_up() {
    let (set, members, _) = set_of(2, settings());
    report(&members[0], ConnectFailed, 5);
    // As in a rolling restart: the first is back, but nobody knows; now the other one is gone.
    let tried = [Arc::clone(&members[1])];
    let retries: Vec<_> = (0..3)
        .map(|_| {
            members[1].report(ConnectFailed);
            set.pick(&Choice { tried: &tried, ..Choice::default() }).unwrap()
        })
        .collect();
    assert!(retries.iter().all(|it| is_at(it, &members[0])));
    retries[0].replica().report(Connected);
    assert_eq!(set.states(), States { ready: 2, ..States::default() });
    drop(retries);
    assert!(!members[0].health().is_on_trial());
}

#[test]
fn a_replica_that_fails_calls_is_better_than_one_that_is_gone() {
    let (set, members, _) = set_of(2, settings());
    report(&members[0], ERROR, 5);
    report(&members[1], ConnectFailed, 5);
    assert_eq!(set.serving(), 0);
    let calls: Vec<_> = (0..10).map(|_| pick(&set).unwrap()).collect();
    assert!(calls.iter().all(|it| is_at(it, &members[0])));
    report(&members[0], OK, 1);
    assert_eq!(set.serving(), 1);
}

#[test]
fn after_its_time_one_trial_at_a_time_decides() {
    let (set, members, _) = set_of(2, brief());
    report(&members[0], ERROR, 5);
    let trial = eventually("a trial", || pick(&set).ok().filter(|it| is_at(it, &members[0])));
    for _ in 0..100 {
        assert!(is_at(&pick(&set).unwrap(), &members[1]), "a second trial beside the first");
    }
    trial.replica().report(ERROR);
    drop(trial);
    assert_eq!((set.serving(), set.ejections()), (1, 2), "longer out, since the trial failed");
    // A caller that leaves says nothing; the next call is the trial then.
    for _ in 0..2 {
        drop(eventually("a trial", || pick(&set).ok().filter(|it| is_at(it, &members[0]))));
    }
    let trial = eventually("a trial", || pick(&set).ok().filter(|it| is_at(it, &members[0])));
    trial.replica().report(OK);
    assert_eq!((set.serving(), set.ejections()), (2, 2));
}

#[test]
fn a_replica_that_comes_back_starts_slowly() {
    let slow = BalancingSettings { slow_start: Duration::from_secs(3600), ..brief() };
    let (set, members, _) = set_of(2, slow.clone());
    assert_eq!(
        set.states(),
        States { ready: 2, ..States::default() },
        "at the start there is nobody to spare it"
    );
    report(&members[0], ERROR, 5);
    eventually("a trial", || pick(&set).ok().filter(|it| is_at(it, &members[0])));
    let trial = eventually("a trial", || pick(&set).ok().filter(|it| is_at(it, &members[0])));
    trial.replica().report(OK);
    drop(trial);
    assert_eq!(set.states(), States { ready: 1, slow_start: 1, ..States::default() });
    let count = (0..4000).filter(|_| is_at(&pick(&set).unwrap(), &members[0])).count();
    // A tenth of its half.
    assert!((100..320).contains(&count), "{count}");

    let none = BalancingSettings { slow_start: Duration::ZERO, ..slow };
    let (set, members, _) = set_of(2, none);
    members[0].set_verdict(Verdict::NotReady);
    members[0].set_verdict(Verdict::Ready);
    assert!(is_at(
        &eventually("a call", || pick(&set).ok().filter(|it| is_at(it, &members[0]))),
        &members[0]
    ));
    assert!(members[0].health().is_sound(), "no care is needed any more");
}

#[test]
fn new_members_start_slowly_and_those_that_stay_keep_their_calls() {
    let slow = BalancingSettings { slow_start: Duration::from_secs(3600), ..settings() };
    let (set, members, heard) = set_of(2, slow);
    let call = members[0].start_call(None).unwrap();
    set.replace_members(vec![Arc::clone(&members[0]), replica(7), replica(8)]);
    assert_eq!(set.states(), States { ready: 1, slow_start: 2, ..States::default() });
    assert_eq!(set.members()[0].in_flight(), 1);
    // Who is no member any more is nobody's business.
    report(&members[1], ERROR, 5);
    assert_eq!(set.ejections(), 0);
    drop(call);
    assert_eq!(told(&heard), [2, 3]);
}

#[test]
fn a_set_decides_over_its_replicas_from_its_publication_on() {
    let (old, members, heard) = set_of(2, settings());
    let fewer = EjectionSettings { failures: 2, ..EjectionSettings::default() };
    let fewer = BalancingSettings { ejection: Some(fewer), ..settings() };
    let new = ReplicaSet::in_place_of(&old, fewer, members.clone());
    report(&members[0], ERROR, 2);
    assert_eq!(new.serving(), 2, "a snapshot that is not published changes nothing");
    report(&members[0], ERROR, 3);
    assert_eq!((old.serving(), told(&heard)), (1, vec![2, 1]));
    let heard_later = Heard::default();
    new.take_charge(listener(&heard_later));
    assert_eq!((new.serving(), new.ejections()), (1, 1), "health and counts go on");
    members[0].set_verdict(Verdict::NotReady);
    members[0].set_verdict(Verdict::Ready);
    assert_eq!((told(&heard), told(&heard_later)), (vec![2, 1], vec![1, 2]));
}

#[test]
fn without_ejection_nobody_is_ejected() {
    let (set, members, _) = set_of(2, BalancingSettings { ejection: None, ..settings() });
    report(&members[0], ConnectFailed, 100);
    assert_eq!((set.serving(), set.ejections()), (2, 0));
}
