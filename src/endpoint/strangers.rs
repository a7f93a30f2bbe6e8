//! What comes from processes that are in no view of this one, or that it cannot understand.

use super::{AHEAD_FRAMES_MAX, Ahead, Endpoint};
use crate::group::Application;
use crate::id::Rank;
use crate::stack::event::{Letter, Problem, Up};
use crate::stack::run::Stack;
use crate::transport::Received;
use crate::wire::Traffic;
use crate::wire::full::{PREFIX_BYTES, Prefix};
use crate::wire::outside::{ChunkError, OUTSIDE_CONTROL};

/// So many frames with one and the same hash of another stack are no accident: a damaged frame may come twice.
const UNLIKE_FRAMES: u32 = 3;

/// A member of a fixed view says that it has another stack: nothing of what it says is understood. That is told once. Members
/// of live views have agreed on their stacks before.
#[cold]
pub(super) fn other_stack(stack: &mut Stack, origin: Rank, hash: u64, app: &mut dyn Application) {
    if stack.is_live() {
        return;
    }
    let times = match stack.unlike.iter_mut().find(|(known, ..)| *known == origin) {
        Some((_, known, times)) if *known == hash => {
            *times = times.saturating_add(1);
            *times
        }
        // Who has been told of once is not spoken of again.
        Some((.., times)) if *times >= UNLIKE_FRAMES => return,
        Some((_, known, times)) => {
            (*known, *times) = (hash, 1);
            return;
        }
        None => {
            stack.unlike.push((origin, hash, 1));
            return;
        }
    };
    if times != UNLIKE_FRAMES {
        return;
    }
    let core = &mut stack.engine.core;
    let what = format!(
        "{} has another stack for this view than {}, which has {}: all it says is dropped; the specification and \
         `Config::window_frames` must be the same at all members",
        core.view.member(origin).address,
        core.view.member(core.view.rank()).address,
        core.view.view().spec
    );
    core.emit_application(Up::Problem(Problem { layer: "stack", origin: Some(origin), what: what.into() }));
    stack.drain(app);
}

impl Endpoint {
    /// A frame of a view that is not known here. If one is about to be installed, it may be of that: others may have gone
    /// on already.
    #[cold]
    pub(super) fn unknown_cookie(&mut self, received: Received) {
        if self.ahead.len() < AHEAD_FRAMES_MAX && self.expects_view() {
            self.ahead.push(Ahead { received, until: self.now + self.config.linger_delay });
        } else {
            self.dropped.unknown_cookie += 1;
        }
    }

    fn expects_view(&self) -> bool {
        let expects =
            |stack: &Stack| stack.is_live() && stack.exited().is_none() && stack.core().view_expected;
        self.stacks.iter().any(expects)
    }

    /// Lets go of frames of a view that does not come.
    #[cold]
    pub(super) fn let_go_of_ahead(&mut self) {
        let (now, held, expected) = (self.now, self.ahead.len(), self.expects_view());
        self.ahead.retain(|ahead| expected && now < ahead.until);
        self.dropped.unknown_cookie += (held - self.ahead.len()) as u64;
    }

    /// A frame of another wire version. Letters have the same form in all of them, and a checksum: who wrote one is told. Any
    /// other frame may as well be a damaged one, and is dropped and counted.
    #[cold]
    pub(super) fn other_version(&mut self, received: &Received, version: u8, app: &mut dyn Application) {
        self.dropped.version += 1;
        let Ok((prefix, ..)) = Prefix::decode_any(received.bytes()) else { return };
        if prefix.control == OUTSIDE_CONTROL {
            self.letter(received, &prefix, version, app);
        }
    }

    /// A chunk of a message from outside the view. One that asks for another group at this address, or in another wire
    /// version, is for the layers all the same: they say why it is refused.
    pub(super) fn letter(
        &mut self,
        received: &Received,
        prefix: &Prefix,
        wire_version: u8,
        app: &mut dyn Application,
    ) {
        let from = prefix.identification;
        let group = |stack: &Stack| stack.core().view.view().group;
        let of_group = |stack: &Stack| stack.is_live() && group(stack) == from.group;
        // A group that is over may be there still, in a place that no other has taken yet.
        let lives = self.stacks.iter().position(|stack| of_group(stack) && stack.exited().is_none());
        let of_group = lives.or_else(|| self.stacks.iter().position(of_group));
        if from.origin == self.incarnation && of_group.is_none() {
            self.dropped.own += 1;
            return;
        }
        // One under this process's own incarnation may be of another process that has it too.
        let at = of_group.or_else(|| {
            self.dropped.other_view += 1;
            // Whoever calls for its group wherever somebody listens does not mean this process.
            let meant = prefix.traffic != Traffic::Cast;
            self.stacks.iter().position(|stack| meant && stack.is_live() && stack.exited().is_none())
        });
        let Some(at) = at else { return };
        let stack = &mut self.stacks[at];
        if stack.exited().is_some() {
            self.dropped.exited += 1;
            return;
        }
        let (prefix, chunk) = received.bytes().split_at(PREFIX_BYTES);
        match self.letters.take(from.origin, prefix, chunk) {
            Ok(Some(body)) => {
                stack.engine.core.now = self.now;
                let (origin, group, view) = (from.origin, from.group, from.view);
                stack.letter(Letter { origin, group, wire_version, view, body }, app);
            }
            Ok(None) => {}
            Err(ChunkError::Malformed | ChunkError::Damaged) => self.dropped.malformed += 1,
        }
    }
}
