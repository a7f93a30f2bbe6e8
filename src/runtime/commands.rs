//! Casts and sends from other threads, through a bounded lock-free ring.
//!
//! A [`Handle`] copies the message into a recycled buffer and puts it into the ring; the driver takes it out at its
//! next iteration and hands it to the group. Nothing is allocated in the steady state, and the endpoint's own path
//! knows nothing of it. The order of one handle's calls is kept; calls on several handles come in the order in which
//! they reached the ring.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::Waker;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;

use super::window::Report;
use crate::endpoint::GroupKey;
use crate::id::Incarnation;

/// Limits of the ring between other threads and a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandOptions {
    /// Messages that may wait for the driver at once; at least one.
    pub commands_max: usize,
    /// The largest message, in bytes.
    pub message_bytes_max: usize,
}

impl Default for CommandOptions {
    fn default() -> CommandOptions {
        CommandOptions { commands_max: 1024, message_bytes_max: 1400 }
    }
}

/// Names one call on a handle. Later calls have greater numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request(pub u64);

/// The ring did not take the message. Nothing of it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// As many messages as the ring holds are waiting for the driver.
    #[error("{0} messages are waiting for the driver; try again when it has taken some")]
    Full(usize),
    /// The message is larger than the ring's buffers.
    #[error("a message of {bytes} bytes is over the handle's limit of {limit}; raise message_bytes_max")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The driver is gone.
    #[error("the driver has ended; nothing takes messages from this handle any more")]
    Ended,
}

/// There is no [`Handle::report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// As many threads as may have asked, and the driver has not answered any yet.
    #[error("{0} others wait for an answer of the driver; try again when it has given some")]
    Full(usize),
    /// The driver has not answered: it is stopped, or its group is gone.
    #[error("the driver has not answered within {0:?}; it is stopped, or the group is over")]
    Silent(Duration),
    /// The driver is gone.
    #[error("the driver has ended; nothing answers this handle any more")]
    Ended,
}

/// The group refused a message that the ring had taken, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which call it was.
    pub request: Request,
    /// Why, in words.
    pub why: String,
    /// The message.
    pub message: Vec<u8>,
}

/// A driver's ear in other threads.
///
/// A call that returns `Ok` means: the message is in the ring, and the driver will hand it to the group, in order.
/// What the group cannot take yet (no credit, no frame) waits, and what comes for the same group behind it; it keeps its
/// place in the ring, so that back-pressure reaches the callers as [`HandleError::Full`]. Other groups' messages go on, as
/// long as there are places. What the group will never take (no such group, too long for a frame) comes
/// back through [`Handle::refusal`]. Messages in the ring when the driver ends are dropped with it.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// What a driver finds in its ring.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) request: Request,
    pub(super) group: GroupKey,
    pub(super) goes: Goes,
    pub(super) letter: Letter,
}

/// How a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goes {
    /// To the whole view.
    Cast,
    /// The same, agreed and not safe.
    Agreed,
    /// To some members.
    Send,
}

/// What is used again and again: a message, and to whom it goes if not to all.
#[derive(Debug, Default)]
pub(super) struct Letter {
    /// Processes, not ranks: when the driver gets to it, another view may be in force.
    pub(super) to: Vec<Incarnation>,
    pub(super) bytes: Vec<u8>,
}

/// Somebody wants to know how a group is doing.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) group: GroupKey,
    pub(super) answer: SyncSender<Report>,
}

/// Questions that may wait at once.
const QUESTIONS_MAX: usize = 4;

/// The driver's end. Dropping it ends the handles.
pub(super) struct Commands {
    shared: Arc<Shared>,
    taken: u64,
}

/// What callers write with every call, what the driver reads in every iteration, and what hardly ever changes lie on cache
/// lines of their own.
struct Shared {
    waiting: ArrayQueue<Command>,
    letters: ArrayQueue<Letter>,
    /// Beside the ring: they are answered also while a command waits for room in its group.
    questions: ArrayQueue<Question>,
    refusals: ArrayQueue<Refusal>,
    requests: CachePadded<AtomicU64>,
    /// Commands and questions put in; lets the driver see an empty ring with one load and no fence.
    put: CachePadded<AtomicU64>,
    parked: AtomicBool,
    stop: AtomicBool,
    ended: AtomicBool,
    waker: Waker,
    message_bytes_max: usize,
}

impl Handle {
    /// Casts `message` to the view of `group`.
    ///
    /// # Errors
    /// [`HandleError`]; the message was not taken then.
    pub fn cast(&self, group: GroupKey, message: &[u8]) -> Result<Request, HandleError> {
        self.put(group, Goes::Cast, &[], message)
    }

    /// Casts `message` as what [`Group::agreed`](crate::group::Group::agreed) returns does.
    ///
    /// # Errors
    /// [`HandleError`]; the message was not taken then.
    pub fn cast_agreed(&self, group: GroupKey, message: &[u8]) -> Result<Request, HandleError> {
        self.put(group, Goes::Agreed, &[], message)
    }

    /// Sends `message` to some members of `group`. They are named by their incarnations, because a rank is of one view, and
    /// which one will be in force when the driver gets to the message is not known here. If one of them is not in the view
    /// then, nobody is sent anything, and [`Handle::refusal`] says which.
    ///
    /// # Errors
    /// [`HandleError`]; the message was not taken then.
    pub fn send(&self, group: GroupKey, to: &[Incarnation], message: &[u8]) -> Result<Request, HandleError> {
        self.put(group, Goes::Send, to, message)
    }

    /// The oldest refusal not yet fetched. As many as the ring holds are kept; older ones give way.
    pub fn refusal(&self) -> Option<Refusal> {
        self.shared.refusals.pop()
    }

    /// What a group has done so far, in the words of its driver, who may take `limit` to answer.
    ///
    /// # Errors
    /// [`ReportError`]: several threads ask at once, or there is no answer.
    pub fn report(&self, group: GroupKey, limit: Duration) -> Result<Report, ReportError> {
        let shared = &*self.shared;
        if shared.ended.load(Ordering::Acquire) {
            return Err(ReportError::Ended);
        }
        let (answer, report) = sync_channel(1);
        shared
            .questions
            .push(Question { group, answer })
            .map_err(|_| ReportError::Full(shared.questions.capacity()))?;
        shared.put.fetch_add(1, Ordering::Release);
        shared.wake();
        report.recv_timeout(limit).map_err(|_| ReportError::Silent(limit))
    }

    /// Ends [`Driver::run`](super::Driver::run) at its next iteration.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
    }

    fn put(
        &self,
        group: GroupKey,
        goes: Goes,
        to: &[Incarnation],
        message: &[u8],
    ) -> Result<Request, HandleError> {
        let shared = &*self.shared;
        if shared.ended.load(Ordering::Acquire) {
            return Err(HandleError::Ended);
        }
        let limit = shared.message_bytes_max;
        if message.len() > limit {
            return Err(HandleError::TooLong { bytes: message.len(), limit });
        }
        let full = HandleError::Full(shared.waiting.capacity());
        let mut letter = shared.letters.pop().ok_or(full)?;
        letter.to.clear();
        letter.to.extend_from_slice(to);
        letter.bytes.clear();
        letter.bytes.extend_from_slice(message);
        let request = Request(shared.requests.fetch_add(1, Ordering::Relaxed));
        let put = shared.waiting.push(Command { request, group, goes, letter });
        assert!(put.is_ok(), "there is a place in the ring for every buffer");
        shared.put.fetch_add(1, Ordering::Release);
        shared.wake();
        Ok(request)
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Handle").field("waiting", &self.shared.waiting.len()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Wakes the driver if it is parked, or about to be.
    #[inline]
    fn wake(&self) {
        // Pairs with the fence in `Commands::before_wait`: either this thread sees the driver parked, or the driver
        // sees what this thread did before.
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) {
            self.waker.wake_by_ref();
        }
    }
}

impl Commands {
    pub(super) fn new(options: CommandOptions, waker: Waker) -> Commands {
        let commands_max = options.commands_max.max(1);
        let letters = ArrayQueue::new(commands_max);
        for _ in 0..commands_max {
            let bytes = Vec::with_capacity(options.message_bytes_max);
            let put = letters.push(Letter { to: Vec::new(), bytes });
            assert!(put.is_ok(), "made for as many");
        }
        Commands {
            shared: Arc::new(Shared {
                waiting: ArrayQueue::new(commands_max),
                letters,
                questions: ArrayQueue::new(QUESTIONS_MAX),
                refusals: ArrayQueue::new(commands_max),
                requests: CachePadded::new(AtomicU64::new(0)),
                put: CachePadded::new(AtomicU64::new(0)),
                parked: AtomicBool::new(false),
                stop: AtomicBool::new(false),
                ended: AtomicBool::new(false),
                waker,
                message_bytes_max: options.message_bytes_max,
            }),
            taken: 0,
        }
    }

    pub(super) fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared) }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.shared.put.load(Ordering::Acquire) == self.taken
    }

    /// The next command.
    #[inline]
    pub(super) fn take(&mut self) -> Option<Command> {
        if self.is_empty() {
            return None;
        }
        let command = self.shared.waiting.pop()?;
        self.taken += 1;
        Some(command)
    }

    /// The next question.
    pub(super) fn question(&mut self) -> Option<Question> {
        let question = self.shared.questions.pop()?;
        self.taken += 1;
        Some(question)
    }

    /// Gives a command's buffer back to the callers.
    pub(super) fn recycle(&self, command: Command) {
        let kept = self.shared.letters.push(command.letter);
        debug_assert!(kept.is_ok(), "every buffer came from there");
    }

    #[cold]
    pub(super) fn refuse(&self, command: &Command, why: String) {
        let message = command.letter.bytes.clone();
        self.shared.refusals.force_push(Refusal { request: command.request, why, message });
    }

    #[inline]
    pub(super) fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Says that the driver is about to block. `false` if something came in meanwhile.
    pub(super) fn before_wait(&self) -> bool {
        self.shared.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.is_empty() && !self.stopped()
    }

    pub(super) fn after_wait(&self) {
        self.shared.parked.store(false, Ordering::Relaxed);
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
    }
}

impl std::fmt::Debug for Commands {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Commands").field("taken", &self.taken).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use super::*;

    const GROUP: GroupKey = GroupKey { endpoint: 7, index: 0, before: 0 };

    fn commands(commands_max: usize, waker: Waker) -> Commands {
        Commands::new(CommandOptions { commands_max, message_bytes_max: 8 }, waker)
    }

    #[test]
    fn the_ring_is_bounded_and_nothing_refused_is_kept() {
        let mut driver = commands(2, Waker::noop().clone());
        let handle = driver.handle();
        assert_eq!(handle.cast(GROUP, &[0; 9]), Err(HandleError::TooLong { bytes: 9, limit: 8 }));
        handle.cast(GROUP, b"one").unwrap();
        handle.send(GROUP, &[Incarnation(3)], b"two").unwrap();
        assert_eq!(handle.cast(GROUP, b"three"), Err(HandleError::Full(2)));
        let first = driver.take().unwrap();
        assert_eq!((&first.letter.bytes[..], first.goes), (&b"one"[..], Goes::Cast));
        driver.recycle(first);
        handle.cast_agreed(GROUP, b"four").unwrap();
        let rest: Vec<Command> = std::iter::from_fn(|| driver.take()).collect();
        let of = |command: &Command| (command.letter.bytes.clone(), command.letter.to.clone(), command.goes);
        let expected =
            [(b"two".to_vec(), vec![Incarnation(3)], Goes::Send), (b"four".to_vec(), vec![], Goes::Agreed)];
        assert!(rest.iter().map(of).eq(expected));
    }

    #[test]
    fn messages_of_one_thread_stay_in_order_among_those_of_others() {
        const EACH: u32 = 5_000;
        let mut driver = commands(16, Waker::noop().clone());
        let handles = [driver.handle(), driver.handle(), driver.handle()];
        std::thread::scope(|scope| {
            for (who, handle) in handles.iter().enumerate() {
                scope.spawn(move || {
                    for number in 0..EACH {
                        let mut message = [who as u8; 5];
                        message[1..].copy_from_slice(&number.to_le_bytes());
                        while handle.cast(GROUP, &message) == Err(HandleError::Full(16)) {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut next = [0; 3];
            while next.iter().sum::<u32>() < 3 * EACH {
                let Some(command) = driver.take() else {
                    std::thread::yield_now();
                    continue;
                };
                let who = usize::from(command.letter.bytes[0]);
                assert_eq!(command.letter.bytes[1..], next[who].to_le_bytes());
                next[who] += 1;
                driver.recycle(command);
            }
        });
        assert!(driver.is_empty());
    }

    #[test]
    fn a_parked_driver_is_woken_and_an_awake_one_is_left_alone() {
        #[derive(Default)]
        struct Bell(AtomicU32);
        impl Wake for Bell {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let bell = Arc::new(Bell::default());
        let mut driver = commands(4, Waker::from(Arc::clone(&bell)));
        let handle = driver.handle();
        handle.cast(GROUP, b"awake").unwrap();
        assert_eq!(bell.0.load(Ordering::Relaxed), 0);
        assert!(!driver.before_wait(), "there is work");
        driver.after_wait();
        driver.take().unwrap();
        assert!(driver.before_wait());
        handle.cast(GROUP, b"parked").unwrap();
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        driver.take().unwrap();
        handle.stop();
        assert!(bell.0.load(Ordering::Relaxed) == 2 && driver.stopped() && !driver.before_wait());
    }

    #[test]
    fn refusals_come_back_by_request_and_the_end_is_told() {
        let mut driver = commands(4, Waker::noop().clone());
        let handle = driver.handle();
        let request = handle.cast(GROUP, b"x").unwrap();
        let command = driver.take().unwrap();
        driver.refuse(&command, "no such group".into());
        let expected = Refusal { request, why: "no such group".into(), message: b"x".to_vec() };
        assert_eq!(handle.refusal(), Some(expected));
        assert_eq!(handle.refusal(), None);
        drop(driver);
        assert_eq!(handle.cast(GROUP, b"y"), Err(HandleError::Ended));
    }
}
