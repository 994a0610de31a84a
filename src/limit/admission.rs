//! How many calls a deployment takes at once: a place now, a bounded wait for one, or a refusal in time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::error::{Error, Kind};

use super::AdmissionSettings;
use super::drain::DrainRate;
use super::places::{self, Asked, Places};
use super::queue::{FairQueue, PrincipalId, Ticket};
use super::refusal::{Crowd, crowded};

/// The places of one deployment and the queue for them; shared by all workers, and the same one for as long as there is a
/// deployment of the name. Limit and number of replicas change while calls are under way and wait.
///
/// A call that finds a place takes no lock. The others line up under one, which nobody holds while he waits or wakes
/// another. A place that is left while somebody waits goes to the one whose turn it is, by way of a channel that is good
/// for one message: whoever has gone meanwhile drops the place that he was sent, and so passes it on.
#[derive(Debug)]
pub struct Admission {
    places: Places,
    /// For whoever may not wait for the lock; 0: no limit.
    per_replica: AtomicU32,
    line: Mutex<Line>,
}

/// What the lock guards.
#[derive(Debug)]
struct Line {
    settings: AdmissionSettings,
    replicas: usize,
    waiting: FairQueue<Waiter>,
    drain: DrainRate,
}

type Waiter = oneshot::Sender<Outcome>;

/// What a wait ends with.
#[derive(Debug)]
enum Outcome {
    Admitted(Permit),
    /// Made room for somebody who has fewer calls waiting.
    Crowded,
}

/// One place, given back on drop.
#[derive(Debug)]
pub struct Permit(Option<Arc<Admission>>);

/// How busy a deployment is, at one glance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Places there are.
    pub slots: u32,
    /// Places taken.
    pub busy: u32,
    /// Calls that wait for one.
    pub waiting: usize,
}

impl Admission {
    /// Places for `replicas` replicas.
    #[must_use]
    pub fn new(settings: AdmissionSettings, replicas: usize) -> Self {
        let line = Line { settings, replicas, waiting: FairQueue::default(), drain: DrainRate::default() };
        let per_replica = AtomicU32::new(settings.per_replica.unwrap_or_default());
        Self { places: Places::new(line.slots()), per_replica, line: Mutex::new(line) }
    }

    /// From now on these settings hold. Calls that wait already go on waiting as long as they were to; calls that came in
    /// while there was no limit are not counted.
    pub fn set_settings(self: &Arc<Self>, settings: AdmissionSettings) {
        self.per_replica.store(settings.per_replica.unwrap_or_default(), Ordering::Relaxed);
        self.change(|line| line.settings = settings);
    }

    /// From now on this many replicas take calls. More of them let in who waits; with fewer, calls under way keep their
    /// places; without any, nobody waits, and whoever is to pick a replica refuses.
    pub fn set_replicas(self: &Arc<Self>, replicas: usize) {
        self.change(|line| line.replicas = replicas);
    }

    /// Calls at once per replica; `None`: no limit.
    pub fn per_replica(&self) -> Option<u32> {
        Some(self.per_replica.load(Ordering::Relaxed)).filter(|limit| *limit > 0)
    }

    /// How busy it is; `None`: there is no limit.
    pub fn load(&self) -> Option<Load> {
        let line = self.line();
        let _limit = line.settings.per_replica?;
        Some(Load {
            slots: line.slots().unwrap_or_default(),
            busy: self.places.busy(),
            waiting: line.waiting.len(),
        })
    }

    /// A place now, if one is free and nobody waits for it.
    #[must_use]
    pub fn try_admit(self: &Arc<Self>) -> Option<Permit> {
        self.permit(self.places.try_take())
    }

    /// A place, waiting up to `queue_wait` for it.
    ///
    /// # Errors
    /// [`Kind::QueueFull`] if `queue_length` calls wait already, [`Kind::QueueTimeout`] after `queue_wait`.
    pub async fn admit(self: &Arc<Self>, principal: PrincipalId) -> Result<Permit, Error> {
        let (mut in_line, outcome) = match self.enter(principal)? {
            Entry::Admitted(permit) => return Ok(permit),
            Entry::Waiting(in_line, outcome) => (in_line, outcome),
        };
        let outcome = timeout(in_line.patience, outcome).await;
        if let Ok(Ok(_)) = outcome {
            in_line.ticket = None;
        }
        drop(in_line);
        match outcome {
            Ok(Ok(Outcome::Admitted(permit))) => Ok(permit),
            Ok(Ok(Outcome::Crowded)) => Err(self.refusal(Kind::QueueFull)),
            Ok(Err(_gone)) => Err(Error::new(Kind::Internal, "the admission queue is gone")),
            Err(_elapsed) => Err(self.refusal(Kind::QueueTimeout)),
        }
    }

    /// Whether a call of `principal` would find a place or room to wait for one now; it takes neither.
    ///
    /// # Errors
    /// As [`Self::admit`], at once.
    pub fn check_room(&self, principal: PrincipalId) -> Result<(), Error> {
        if self.places.is_free() {
            return Ok(());
        }
        let line = self.line();
        let has_room = line.waiting.len() < line.most_waiting() || line.waiting.yields_to(principal);
        drop(line);
        if has_room || self.places.is_free() { Ok(()) } else { Err(self.refusal(Kind::QueueFull)) }
    }

    /// A place, if one has come free meanwhile, or else one in the queue.
    fn enter(self: &Arc<Self>, principal: PrincipalId) -> Result<Entry<'_>, Error> {
        let mut line = self.line();
        // Somebody who waits already is known to everybody who leaves; the first one has to make himself known.
        let mut displaced = None;
        if line.waiting.is_empty() {
            if line.most_waiting() == 0 {
                let asked = self.places.try_take();
                drop(line);
                return self.permit(asked).map(Entry::Admitted).ok_or_else(|| self.refusal(Kind::QueueFull));
            }
            if let Some(permit) = self.permit(self.places.take_or_wait()) {
                return Ok(Entry::Admitted(permit));
            }
            line.drain.resume((Instant::now(), self.places.ended()));
        } else if line.waiting.len() >= line.most_waiting() {
            displaced = line.waiting.make_room(principal);
            if displaced.is_none() {
                drop(line);
                return Err(self.refusal(Kind::QueueFull));
            }
        }
        let (waiter, outcome) = oneshot::channel();
        let ticket = Some(line.waiting.push(principal, waiter));
        let patience = line.settings.queue_wait;
        drop(line);
        if let Some(displaced) = displaced {
            // Fails if he has just gone by himself, which is as good.
            let _ = displaced.send(Outcome::Crowded);
        }
        Ok(Entry::Waiting(InLine { admission: self, ticket, patience }, outcome))
    }

    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Line)) {
        {
            let mut line = self.line();
            change(&mut line);
            self.places.set_slots(line.slots());
        }
        loop {
            let next = self.next(&mut self.line());
            match next {
                Some((waiter, permit)) => drop(waiter.send(Outcome::Admitted(permit))),
                None => return,
            }
        }
    }

    /// Gives a place back: to whoever waits for it, if somebody does.
    fn leave(self: Arc<Self>) {
        if self.places.try_leave() {
            return;
        }
        loop {
            let next = {
                let mut line = self.line();
                self.places.leave();
                self.next(&mut line)
            };
            let Some((waiter, permit)) = next else { return };
            let Err(Outcome::Admitted(mut unclaimed)) = waiter.send(Outcome::Admitted(permit)) else {
                return;
            };
            // He has just gone. The place is given back anew, here and not in its drop, which would nest.
            if unclaimed.0.take().is_none() {
                return;
            }
        }
    }

    /// Whose turn it is, and the free place for him.
    fn next(self: &Arc<Self>, line: &mut Line) -> Option<(Waiter, Permit)> {
        if line.waiting.is_empty() {
            return None;
        }
        let asked = self.places.take_for_waiting();
        if asked == Asked::Refused {
            return None;
        }
        let waiter = line.waiting.pop()?;
        self.note_waiting(line);
        self.permit(asked).map(|permit| (waiter, permit))
    }

    /// To be called after somebody has gone out of the line.
    fn note_waiting(&self, line: &mut Line) {
        if line.waiting.is_empty() {
            self.places.nobody_waits();
            line.drain.pause((Instant::now(), self.places.ended()));
        }
    }

    fn permit(self: &Arc<Self>, asked: Asked) -> Option<Permit> {
        match asked {
            Asked::Unlimited => Some(Permit(None)),
            Asked::Taken => Some(Permit(Some(Arc::clone(self)))),
            Asked::Refused => None,
        }
    }

    fn refusal(&self, kind: Kind) -> Error {
        let mut line = self.line();
        let slots = line.slots().unwrap_or(places::MOST);
        let waiting = line.waiting.len();
        let retry_in = line.drain.wait_for(waiting, slots, (Instant::now(), self.places.ended()));
        let crowd = Crowd { settings: line.settings, replicas: line.replicas, retry_in };
        drop(line);
        crowded(kind, &crowd)
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Every change under the lock is whole before anything in it could panic.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// `None`: no limit. Without a replica there is nothing to wait for, so there is none either: whoever picks a replica
    /// says at once what becomes of the call.
    fn slots(&self) -> Option<u32> {
        let per_replica = self.settings.per_replica.filter(|_| self.replicas > 0)? as usize;
        let slots = per_replica.saturating_mul(self.replicas);
        Some(u32::try_from(slots).unwrap_or(places::MOST).min(places::MOST))
    }

    fn most_waiting(&self) -> usize {
        let slots = self.slots().unwrap_or(places::MOST);
        self.settings.queue_length.of_places(slots) as usize
    }
}

/// What asking for a place under the lock brought.
enum Entry<'a> {
    Admitted(Permit),
    Waiting(InLine<'a>, oneshot::Receiver<Outcome>),
}

/// Having a place in the queue, until dropped.
struct InLine<'a> {
    admission: &'a Admission,
    /// `None`: taken out of the queue already, by whoever said how it ends.
    ticket: Option<Ticket>,
    patience: Duration,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let Some(ticket) = &self.ticket else { return };
        let mut line = self.admission.line();
        // Bound to a name, so that the channel is freed after the lock: it may be the last hold on a task.
        let _waiter = line.waiting.remove(ticket);
        self.admission.note_waiting(&mut line);
        drop(line);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(admission) = self.0.take() {
            admission.leave();
        }
    }
}

#[cfg(test)]
mod tests;
