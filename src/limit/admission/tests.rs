use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;
use crate::limit::{ChosenBy, QueueLength};

fn settings(per_replica: Option<u32>, queue_length: u32) -> AdmissionSettings {
    AdmissionSettings {
        per_replica,
        chosen_by: ChosenBy::Owner,
        queue_wait: Duration::from_millis(500),
        queue_length: QueueLength::Fixed(queue_length),
    }
}

fn admission(per_replica: Option<u32>, queue_length: u32) -> Arc<Admission> {
    Arc::new(Admission::new(settings(per_replica, queue_length), 2))
}

fn ann() -> PrincipalId {
    PrincipalId::of(&"ann")
}

fn bob() -> PrincipalId {
    PrincipalId::of(&"bob")
}

/// A call of `principal` that has begun to wait.
type Wait = Pin<Box<dyn Future<Output = Result<Permit, Error>>>>;

fn wait(admission: &Arc<Admission>, principal: PrincipalId) -> Wait {
    let admission = Arc::clone(admission);
    let mut wait: Wait = Box::pin(async move { admission.admit(principal).await });
    assert!(now(&mut wait).is_none(), "a place is free");
    wait
}

fn now(wait: &mut Wait) -> Option<Result<Permit, Error>> {
    match wait.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

fn load(admission: &Admission) -> (u32, u32, usize) {
    let load = admission.load().unwrap();
    (load.slots, load.busy, load.waiting)
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_place_and_is_refused_after_queue_wait() {
    let admission = admission(Some(1), 10);
    let first = admission.admit(ann()).await.unwrap();
    let _second = admission.admit(ann()).await.unwrap();
    let begun = Instant::now();
    let refused = admission.admit(ann()).await.unwrap_err();
    assert_eq!((refused.kind, begun.elapsed()), (Kind::QueueTimeout, Duration::from_millis(500)));
    for told in
        ["limits.queue_wait, 500ms", "2 replicas", "1 at once", "limits.concurrent_requests_per_replica"]
    {
        assert!(refused.message.contains(told), "{}", refused.message);
    }
    assert_eq!(load(&admission), (2, 2, 0));
    drop(first);
    assert!(admission.admit(ann()).await.is_ok());
    assert_eq!(load(&admission), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once_and_names_the_setting() {
    let admission = admission(Some(1), 0);
    let held = [admission.admit(ann()).await.unwrap(), admission.admit(ann()).await.unwrap()];
    let refused = admission.admit(ann()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::QueueFull);
    assert!(refused.message.contains("limits.queue_length, 0,"), "{}", refused.message);
    assert!(!refused.message.contains("Azure"), "{}", refused.message);
    assert!(refused.retry.is_some());
    drop(held);
    assert!(admission.try_admit().is_some(), "a queue of none takes no place away");
    assert!(admission.admit(ann()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn azures_default_is_called_so_and_its_queue_is_as_long_as_there_are_places() {
    let settings = AdmissionSettings {
        chosen_by: ChosenBy::Azure,
        queue_length: QueueLength::AsPlaces,
        ..settings(Some(1), 0)
    };
    let admission = Arc::new(Admission::new(settings, 1));
    let _held = admission.admit(ann()).await.unwrap();
    let _waits = wait(&admission, ann());
    let refused = admission.admit(ann()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::QueueFull);
    for told in ["Azure's default", "its one replica", "1 at once", "max_concurrent_requests_per_container"] {
        assert!(refused.message.contains(told), "{}", refused.message);
    }
    admission.set_replicas(2);
    let _admitted = admission.try_admit();
    let _more = [wait(&admission, ann()), wait(&admission, ann())];
    assert_eq!(load(&admission), (2, 2, 2), "twice the places and no more");
    assert_eq!(admission.admit(ann()).await.unwrap_err().kind, Kind::QueueFull);
}

#[tokio::test(start_paused = true)]
async fn principals_take_turns_and_each_is_served_in_its_order() {
    let admission = admission(Some(1), 100);
    let mut held = vec![admission.try_admit().unwrap(), admission.try_admit().unwrap()];
    let mut anns: Vec<_> = (0..50).map(|_| wait(&admission, ann())).collect();
    let mut bobs = [wait(&admission, bob()), wait(&admission, bob())];
    for turn in 0..4 {
        assert!(admission.try_admit().is_none(), "nobody passes by the queue");
        held.remove(0);
        let next = if turn % 2 == 0 { &mut anns[turn / 2] } else { &mut bobs[turn / 2] };
        held.push(now(next).expect("it is its turn").unwrap());
    }
    assert!(anns[2..].iter_mut().all(|wait| now(wait).is_none()));
    assert_eq!(load(&admission), (2, 2, 48));
}

#[tokio::test(start_paused = true)]
async fn a_queue_full_of_one_principal_has_room_for_another() {
    let admission = admission(Some(1), 4);
    let _held = [admission.try_admit().unwrap(), admission.try_admit().unwrap()];
    let mut anns: Vec<_> = (0..4).map(|_| wait(&admission, ann())).collect();
    assert_eq!(admission.admit(ann()).await.unwrap_err().kind, Kind::QueueFull);
    let _bobs = [wait(&admission, bob()), wait(&admission, bob())];
    assert_eq!(admission.admit(bob()).await.unwrap_err().kind, Kind::QueueFull, "half of it is his");
    let ended: Vec<_> =
        anns.iter_mut().map(|wait| now(wait).map(|outcome| outcome.unwrap_err().kind)).collect();
    assert_eq!(ended, [None, None, Some(Kind::QueueFull), Some(Kind::QueueFull)], "the newest ones");
    assert_eq!(load(&admission), (2, 2, 4));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_leaves_nothing_behind() {
    let admission = admission(Some(1), 1);
    let held = [admission.try_admit().unwrap(), admission.try_admit().unwrap()];
    let waits = wait(&admission, ann());
    assert_eq!(load(&admission), (2, 2, 1));
    drop(waits);
    assert_eq!(load(&admission), (2, 2, 0));
    drop(held);
    assert_eq!(load(&admission), (2, 0, 0));
    assert!(admission.try_admit().is_some());
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_with_a_place_on_its_way_to_him_passes_it_on() {
    let admission = admission(Some(1), 10);
    let mut held = vec![admission.try_admit().unwrap(), admission.try_admit().unwrap()];
    let (gone, mut next) = (wait(&admission, ann()), wait(&admission, ann()));
    held.pop();
    // Sent, and not yet looked at.
    assert_eq!(load(&admission), (2, 2, 1));
    drop(gone);
    let admitted = now(&mut next).expect("it was passed on").unwrap();
    assert_eq!(load(&admission), (2, 2, 0));
    drop((admitted, held));
    assert_eq!(load(&admission), (2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn more_replicas_let_in_who_waits_and_fewer_let_calls_finish() {
    let admission = admission(Some(2), 10);
    let mut held: Vec<_> = (0..4).map(|_| admission.try_admit().unwrap()).collect();
    let mut waits: Vec<_> = (0..4).map(|_| wait(&admission, ann())).collect();
    admission.set_replicas(3);
    let admitted: Vec<_> = waits.iter_mut().map(now).collect();
    held.extend(admitted.into_iter().flatten().map(Result::unwrap));
    assert_eq!(load(&admission), (6, 6, 2));
    admission.set_replicas(1);
    assert_eq!(load(&admission), (2, 6, 2), "nobody is thrown out");
    // Places that there are no more are not passed on.
    held.truncate(2);
    assert_eq!(load(&admission), (2, 2, 2));
    held.truncate(1);
    assert_eq!(load(&admission), (2, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn without_a_replica_nobody_waits_and_nobody_is_counted() {
    let admission = admission(Some(1), 10);
    let held = [admission.try_admit().unwrap(), admission.try_admit().unwrap()];
    let mut waits = wait(&admission, ann());
    admission.set_replicas(0);
    let _passed = now(&mut waits).expect("there is nothing to wait for").unwrap();
    let _another = admission.try_admit().unwrap();
    assert_eq!(load(&admission), (0, 2, 0));
    admission.set_replicas(2);
    assert!(admission.try_admit().is_none(), "those that were in before still are");
    drop(held);
    assert_eq!(load(&admission), (2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn new_settings_hold_at_once() {
    let admission = admission(Some(1), 10);
    let held = [admission.try_admit().unwrap(), admission.try_admit().unwrap()];
    let mut waits: Vec<_> = (0..3).map(|_| wait(&admission, ann())).collect();
    admission.set_settings(settings(Some(2), 10));
    assert_eq!(admission.per_replica(), Some(2));
    let admitted: Vec<_> = waits.iter_mut().filter_map(now).collect();
    assert_eq!((admitted.len(), load(&admission)), (2, (4, 4, 1)));
    admission.set_settings(settings(None, 10));
    assert_eq!((admission.per_replica(), admission.load()), (None, None));
    assert!(now(&mut waits[2]).expect("there is no limit any more").is_ok());
    assert!(admission.try_admit().is_some());
    admission.set_settings(settings(Some(1), 10));
    assert_eq!(load(&admission), (2, 4, 0), "calls that were counted still are");
    drop((held, admitted));
    assert_eq!(load(&admission), (2, 0, 0));
}

#[test]
fn without_a_limit_everybody_gets_in() {
    let admission = admission(None, 0);
    let permits: Vec<_> = (0..10_000).map(|_| admission.try_admit()).collect();
    assert!(permits.iter().all(Option::is_some));
    assert_eq!((admission.per_replica(), admission.load()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_refused_caller_is_told_how_long_the_queue_takes() {
    let patient = AdmissionSettings { queue_wait: Duration::from_secs(60), ..settings(Some(1), 20) };
    let admission = Arc::new(Admission::new(patient, 2));
    let mut held = vec![admission.try_admit().unwrap(), admission.try_admit().unwrap()];
    let mut waits: std::collections::VecDeque<_> = (0..20).map(|_| wait(&admission, ann())).collect();
    let mut told = 0;
    // Two calls end in each second, and the queue stays full.
    for _ in 0..40 {
        tokio::time::advance(Duration::from_millis(500)).await;
        held.remove(0);
        let mut first = waits.pop_front().unwrap();
        held.push(now(&mut first).expect("it is its turn").unwrap());
        waits.push_back(wait(&admission, ann()));
        let refused = admission.admit(ann()).await.unwrap_err();
        told = refused.retry.unwrap().after.as_secs();
    }
    assert!((10..=12).contains(&told), "21 calls at two a second: {told}");
}

/// Threads that ask, wait, get and give up at random, while the number of replicas changes. In the end nothing is counted
/// and nobody waits, and at no time were more calls in than places.
#[test]
fn random_cancels_over_threads_lose_no_place_and_no_waiter() {
    const MOST: usize = 6;
    let admission = Arc::new(Admission::new(
        AdmissionSettings { queue_wait: Duration::from_secs(60), ..settings(Some(2), 1000) },
        3,
    ));
    let (inside, admitted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (admission, inside, admitted) = (&admission, &inside, &admitted);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                runtime.block_on(crowd(admission, thread, inside, admitted, MOST));
            });
        }
        scope.spawn(|| {
            for round in 0..500 {
                admission.set_replicas(1 + round % 3);
                std::thread::yield_now();
            }
            admission.set_replicas(3);
        });
    });
    assert!(admitted.load(SeqCst) > 1000, "{admitted:?}");
    assert_eq!(load(&admission), (MOST as u32, 0, 0));
    let all: Vec<_> = (0..MOST).map(|_| admission.try_admit()).collect();
    assert!(all.iter().all(Option::is_some) && admission.try_admit().is_none());
}

async fn crowd(
    admission: &Arc<Admission>,
    thread: u64,
    inside: &AtomicUsize,
    admitted: &AtomicUsize,
    most: usize,
) {
    let calls = (0..3000_u64).map(|number| async move {
        let mut random = fastrand::Rng::with_seed(thread << 32 | number);
        let principal = PrincipalId::of(&random.u8(..3));
        let permit = match admission.try_admit() {
            Some(permit) => permit,
            None => {
                let mut wait = std::pin::pin!(admission.admit(principal));
                let mut polls = random.usize(..6);
                // Gives up after some looks, or waits for as long as it takes.
                let outcome = std::future::poll_fn(|cx| match wait.as_mut().poll(cx) {
                    Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                    Poll::Pending if polls == 0 => Poll::Ready(None),
                    Poll::Pending if polls < 4 => {
                        polls -= 1;
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Poll::Pending => Poll::Pending,
                })
                .await;
                match outcome {
                    Some(Ok(permit)) => permit,
                    Some(Err(refused)) => return assert_eq!(refused.kind, Kind::QueueFull),
                    None => return,
                }
            }
        };
        assert!(inside.fetch_add(1, SeqCst) < most, "more calls in than places");
        for _ in 0..random.usize(..3) {
            tokio::task::yield_now().await;
        }
        inside.fetch_sub(1, SeqCst);
        admitted.fetch_add(1, SeqCst);
        drop(permit);
    });
    // Some hundred at a time.
    let mut calls = std::pin::pin!(futures_util::stream::iter(calls));
    let mut under_way = futures_util::stream::FuturesUnordered::new();
    use futures_util::StreamExt;
    while let Some(call) = calls.next().await {
        under_way.push(call);
        if under_way.len() >= 200 {
            under_way.next().await;
        }
    }
    while under_way.next().await.is_some() {}
}
