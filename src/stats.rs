//! What a stack counts.

use std::borrow::Cow;

pub use crate::stack::core::Count;

/// How often plans ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FastPath {
    /// Frames of casts and sends that left by a plan.
    pub send_hit: u64,
    /// Those that took the layers.
    pub send_miss: u64,
    /// Frames that a plan accepted, own copies included.
    pub deliver_hit: u64,
    /// Of these, frames of others that were taken in together with others of their origin.
    pub deliver_together: u64,
    /// Frames that came ahead of their turn and were then accepted by a plan.
    pub deliver_early: u64,
    /// Data frames that took the layers, own copies included.
    pub deliver_miss: u64,
}

impl FastPath {
    /// Hits over hits and misses, both directions together; 1 if there was nothing.
    pub fn hit_rate(&self) -> f64 {
        let hits = self.send_hit + self.deliver_hit + self.deliver_early;
        let all = hits + self.send_miss + self.deliver_miss;
        if all == 0 { 1.0 } else { hits as f64 / all as f64 }
    }
}

/// Misses of one kind for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissCount {
    /// Which plan was missed.
    pub plan: &'static str,
    /// Whose doing it was.
    pub layer: &'static str,
    /// Why.
    pub reason: Cow<'static, str>,
    /// How often.
    pub count: u64,
}

/// How post-processing went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostProcessing {
    /// Passes made at once, because somebody waited for it or layers had handled events.
    pub whole: u64,
    /// Passes made in pieces that have ended.
    pub passes: u64,
    /// Pieces, the passes not ended included: at least one in each iteration while a pass is under way.
    pub pieces: u64,
}

impl PostProcessing {
    pub(crate) fn sum(self, other: PostProcessing) -> PostProcessing {
        PostProcessing {
            whole: self.whole + other.whole,
            passes: self.passes + other.passes,
            pieces: self.pieces + other.pieces,
        }
    }
}

/// What one group's stack did so far, in all its views.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// How often plans ran.
    pub fast_path: FastPath,
    /// Why they did not.
    pub misses: Vec<MissCount>,
    /// What layers counted.
    pub counts: Vec<Count>,
    /// Messages cast by this member.
    pub casts: u64,
    /// Frames they took.
    pub cast_frames: u64,
    /// Messages sent by this member, once per destination.
    pub sends: u64,
    /// Messages of casts delivered, own ones included.
    pub delivered: u64,
    /// Messages of sends delivered.
    pub sends_delivered: u64,
    /// Bytes of the compressed header of casts.
    pub header_bytes: usize,
    /// Own cast frames not yet acknowledged by all.
    pub unacknowledged: u64,
    /// Frames retained of all members.
    pub retained: u64,
    /// Frames waiting above the stack.
    pub waiting: u64,
    /// Bytes that frames of others, retained in place, pin: counted at the last post-processing if they might be more than
    /// `retain_bytes_max`, else at most so many.
    pub retained_bytes: u64,
    /// Frames of others copied because more would have been pinned than `retain_bytes_max`, or because the channel they
    /// came in was about to close.
    pub copies: u64,
    /// How post-processing went.
    pub post: PostProcessing,
}
