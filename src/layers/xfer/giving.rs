//! The donor's side: snapshots, and their parts.

use std::time::Duration;

use super::broken::Broken;
use super::message::{ALL, BEGIN_BYTES, LAST, PART_HEAD_BYTES, STATELESS, Say, kind};
use super::{HeldSnapshot, LEFT_SHARE, NEXT_ITERATION, NOT_READY, PROBE_PAUSE, PROBES_MAX, SNAPSHOTS, Xfer};
use crate::buf::{Exhausted, FrameMut};
use crate::id::{Hasher64, Incarnation, Rank, RankSet, ViewId};
use crate::stack::event::Up;
use crate::stack::layer::Context;
use crate::time::Time;

/// Parts that are made in one iteration, in bytes: casts wait no longer than that takes.
const BURST_BYTES: usize = 256 << 10;
/// And in number: two of the longest runs of datagrams for an MTU of 1,500 bytes. What is under way at once, frames here and
/// the system's copies of them, is still in the cache when their turn comes again.
const BURST_PARTS: usize = 88;
/// Parts that are on their way through the layers at once: what is written stays in the cache until it is sent.
const PARTS_AT_ONCE: u64 = 8;

/// What goes on in the next view: the snapshot, and who takes it, with the bytes of it that each has taken in.
pub(super) type LeftGiving = (Giving, HeldSnapshot, Vec<(Incarnation, u64)>);

/// A snapshot, and those who are given it, in step.
#[derive(Clone, Copy)]
pub(super) struct Giving {
    /// The view at whose beginning it was taken.
    cut: ViewId,
    /// Which of the stack's snapshots it is.
    slot: usize,
    takers: RankSet,
    stage: Stage,
    at: u64,
    part_bytes: u64,
    /// There was no room for another part; it goes on when half of it is there again.
    paused: bool,
    /// The snapshot is not asked before, whether it can be read on.
    ready_at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The application has been asked for its snapshot.
    Asked,
    /// Parts are sent.
    Parts,
    /// The application has no state; that must be said.
    Stateless,
    /// All of it is sent, and will have arrived before the view ends.
    Given,
}

impl Giving {
    /// Whether it was taken at that cut, and `taker` is given it.
    pub(super) fn gives(&self, cut: ViewId, taker: Rank) -> bool {
        self.cut == cut && self.takers.contains(taker)
    }

    pub(super) fn is_asked(&self) -> bool {
        self.stage == Stage::Asked
    }

    /// Whether parts are still to be sent, and the snapshot may be asked for the next.
    pub(super) fn goes_on(&self, now: Time) -> bool {
        self.is_under_way() && now >= self.ready_at
    }

    /// Whether parts are still to be sent.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Parts | Stage::Stateless)
    }

    /// Whether the application could not read on without waiting when it was asked last.
    pub(super) fn is_not_ready(&self) -> bool {
        self.is_under_way() && self.ready_at > Time::ZERO
    }

    fn has_snapshot(&self) -> bool {
        self.stage != Stage::Given
    }

    pub(super) fn digest(&self, digest: &mut Hasher64) {
        digest.word(self.cut.counter);
        digest.word(self.cut.coordinator.0);
        digest.word(self.at << 2 | self.stage as u64);
        digest.word(self.part_bytes << 1 | u64::from(self.paused));
        digest.word(self.ready_at.as_nanos());
        self.takers.words().into_iter().for_each(|word| digest.word(word));
    }

    pub(super) fn dump(&self) -> String {
        format!("; has given {} bytes of its state at view {} to {:?}", self.at, self.cut, self.takers)
    }
}

impl Xfer {
    /// In a new view: what was given goes on to those who are here, and whoever else lacks the state gets it as it is now.
    pub(super) fn give_on(&mut self, context: &mut Context<'_>, before: Vec<LeftGiving>) {
        let mut alone = self.wanting();
        for (mut giving, snapshot, takers) in before {
            giving.takers = RankSet::EMPTY;
            for (taker, taken) in takers {
                if let Some(rank) =
                    context.view().rank_of(taker).filter(|rank| self.wanting().contains(*rank))
                {
                    giving.takers.insert(rank);
                    self.taken[rank.index()] = taken;
                }
            }
            if giving.takers.is_empty() {
                continue;
            }
            alone = alone.without(giving.takers);
            if giving.has_snapshot() {
                context.put_snapshot(giving.slot, snapshot);
            }
            (giving.paused, giving.ready_at) = (false, Time::ZERO);
            self.givings.push(giving);
        }
        if alone.is_empty() {
            self.say_on(context);
            return;
        }
        // The oldest goes on to its end: what comes after it is taken anew, for all of them.
        if self.givings.iter().filter(|giving| giving.has_snapshot()).count() == SNAPSHOTS {
            let youngest = self.givings.iter().rposition(Giving::has_snapshot).expect("it has been counted");
            let youngest = self.givings.remove(youngest);
            context.take_snapshot(youngest.slot);
            alone = alone.with(youngest.takers);
            youngest.takers.iter().for_each(|taker| self.taken[taker.index()] = 0);
            context.count("transfer begun anew for who comes in later");
        }
        self.say_on(context);
        self.become_donor(context, alone);
    }

    /// What goes on is said to go on; and what has been given is: who takes it may have taken another's.
    fn say_on(&mut self, context: &mut Context<'_>) {
        for at in 0..self.givings.len() {
            if self.givings[at].is_under_way() {
                context.count("transfer goes on in the next view");
            }
            self.say(context, Say::Begin(self.givings[at].cut));
        }
    }

    /// `origin` cannot go on with what it is given: it gets a snapshot of its own, which is taken at the cut of a view.
    pub(super) fn begin_anew(&mut self, context: &mut Context<'_>, origin: Rank) {
        let Some(giving) = self.givings.iter_mut().find(|giving| giving.takers.contains(origin)) else {
            return;
        };
        giving.takers.remove(origin);
        context.ask_for_view();
        self.turn_now(context);
    }

    /// This member takes a snapshot, and gives it to these.
    pub(super) fn become_donor(&mut self, context: &mut Context<'_>, takers: RankSet) {
        let taken =
            |slot: &usize| self.givings.iter().any(|giving| giving.has_snapshot() && giving.slot == *slot);
        let slot = (0..SNAPSHOTS).find(|slot| !taken(slot)).expect("there is one for a new one");
        self.givings.push(Giving {
            cut: context.view().view().id,
            slot,
            takers,
            stage: Stage::Asked,
            at: 0,
            part_bytes: 0,
            paused: false,
            ready_at: Time::ZERO,
        });
        context.count("snapshot taken");
        if self.options.broken.is(Broken::LateSnapshot) {
            context.arm(self.handles().turn, context.now() + Duration::from_millis(2));
            return;
        }
        context.up(Up::Snapshot(slot));
    }

    /// Who does wrong on purpose asks when the view has begun to deliver.
    pub(super) fn ask_late(&mut self, context: &mut Context<'_>) {
        if self.options.broken.is(Broken::LateSnapshot)
            && let Some(giving) = self.givings.iter().find(|giving| giving.is_asked())
        {
            context.up(Up::Snapshot(giving.slot));
        }
    }

    /// The application's answer.
    pub(super) fn snapshot(&mut self, context: &mut Context<'_>, slot: usize, taken: bool) {
        let mut asked = self.givings.iter_mut().filter(|giving| giving.is_asked());
        let Some(giving) = asked.find(|giving| giving.slot == slot) else {
            context.take_snapshot(slot);
            return;
        };
        giving.stage = if taken { Stage::Parts } else { Stage::Stateless };
        let cut = giving.cut;
        self.say(context, Say::Begin(cut));
    }

    /// What `peer` is told of the giving of this cut.
    pub(super) fn beginning(&self, cut: ViewId, peer: Rank) -> [u8; BEGIN_BYTES] {
        let giving = self.givings.iter().find(|giving| giving.cut == cut);
        let takes = giving.is_some_and(|giving| giving.takers.contains(peer));
        let mut bytes = [0; BEGIN_BYTES];
        let (head, rest) = bytes.split_at_mut(BEGIN_BYTES - 33);
        head[0] = kind::BEGIN;
        head[1..].copy_from_slice(self.lacks.words().map(u64::to_le_bytes).as_flattened());
        rest[0] = u8::from(takes);
        let at = giving.map_or(0, |giving| giving.at);
        let words = [cut.counter, cut.coordinator.0, at, self.founded].map(u64::to_le_bytes);
        rest[1..].copy_from_slice(words.as_flattened());
        bytes
    }

    /// How much `origin` has taken in.
    pub(super) fn has_credit(&mut self, context: &mut Context<'_>, origin: Rank, taken: u64) {
        if taken == ALL {
            self.whole.insert(origin);
            self.turn_now(context);
            return;
        }
        self.has_taken(context, origin, taken);
    }

    /// `origin` has taken in so much of what it is given.
    pub(super) fn has_taken(&mut self, context: &mut Context<'_>, origin: Rank, taken: u64) {
        let given = self.givings.iter().find(|giving| giving.takers.contains(origin));
        if given.is_none_or(|giving| taken > giving.at) {
            context.count("credit for what is not given");
            return;
        }
        if taken > self.taken[origin.index()] {
            self.taken[origin.index()] = taken;
            self.moved = context.now();
            self.turn_now(context);
        }
    }

    /// How many more parts acknowledgements allow, and what was taken in.
    pub(super) fn room(&self, context: &Context<'_>, giving: &Giving) -> u64 {
        let own = context.rank();
        let part_bytes = giving.part_bytes.max(1);
        let flight_bytes = self.options.flight_bytes.max(2 * part_bytes);
        let long = self.long_frame_bytes(context, giving);
        let most = (flight_bytes / part_bytes).min(long.map_or(u64::MAX, |_| self.limits.long_parts));
        // Beyond half of it the application's sends to the peer are refused: they must get their turn, too.
        let left = self.limits.room * if giving.paused { LEFT_SHARE / 2 } else { 1 };
        let room = |peer: Rank| {
            let acked = context.pair(self.handles().acked, peer, own);
            let under_way = context.next_send_number(peer).saturating_sub(acked);
            let ahead = giving.at.saturating_sub(self.taken[peer.index()]);
            let credit = flight_bytes.saturating_sub(ahead) / part_bytes;
            let room = context.reliable_room(peer).saturating_sub(left);
            room.min(most.saturating_sub(under_way)).min(credit)
        };
        giving.takers.and(self.wanting()).without(self.whole).iter().map(room).min().unwrap_or(0)
    }

    /// How long the frames of parts are, in bytes, if long ones reach all who take them.
    fn long_frame_bytes(&self, context: &Context<'_>, giving: &Giving) -> Option<usize> {
        let own = context.long_frame_bytes()?;
        let least = giving.takers.iter().map(|taker| self.ways[taker.index()].reached_bytes).min()?;
        Some(own.min(least)).filter(|bytes| *bytes > context.frame_bytes_max() as usize)
    }

    /// Finds out whether long frames reach those who take parts: the interfaces at both ends may, and what lies between
    /// them not. What does not arrive must not be a part, which everything behind it would wait for.
    fn try_ways(&mut self, context: &mut Context<'_>) {
        let Some(own) = context.long_frame_bytes() else { return };
        let givings = self.givings.iter().filter(|giving| giving.is_under_way());
        let takers: RankSet = givings.flat_map(|giving| giving.takers.iter()).collect();
        for taker in takers.iter() {
            let turn = self.handles().turn;
            let way = &mut self.ways[taker.index()];
            let bytes = own.min(way.takes_bytes);
            let most = context.frame_bytes_max() as usize;
            if bytes <= most || way.reached_bytes > most || way.probes == PROBES_MAX {
                continue;
            }
            if context.now() < way.probe_at {
                context.arm_sooner(turn, way.probe_at);
                continue;
            }
            let Ok(mut probe) = context.long_frame() else { return };
            let room = probe.room().min(bytes - probe.headroom());
            probe.grow(room).expect("the room was asked for").fill(kind::PROBE);
            context.send_raw(RankSet::one(taker), probe);
            (way.probes, way.probe_at) = (way.probes + 1, context.now() + PROBE_PAUSE);
            context.arm_sooner(turn, way.probe_at);
        }
    }

    /// `origin` has got a probe of so many bytes.
    pub(super) fn has_reached(&mut self, context: &mut Context<'_>, origin: Rank, bytes: usize) {
        let way = &mut self.ways[origin.index()];
        way.reached_bytes = if way.probes > 0 { bytes } else { 0 };
        self.turn_now(context);
    }

    /// Whether there are frames for another part; what is kept of them is for everything else.
    fn has_frames(&self, context: &Context<'_>, long: bool) -> bool {
        let has_long = !long || context.long_frames().1 > 0;
        has_long && context.control_frames_free() > self.limits.frames + self.wanting().len()
    }

    /// A frame for a part, and how much of it may be used.
    fn part_frame(context: &mut Context<'_>, long: Option<usize>) -> Result<(FrameMut, usize), Exhausted> {
        let body = if long.is_some() { context.long_frame()? } else { context.control_frame()? };
        let room = long.map_or(usize::MAX, |bytes| bytes - body.headroom()).min(body.room());
        Ok((body, room))
    }

    /// Sends parts: of the oldest first, as far as those who take it can.
    pub(super) fn give(&mut self, context: &mut Context<'_>) {
        let wanting = self.wanting();
        for giving in &mut self.givings {
            giving.takers = giving.takers.and(wanting);
            if giving.takers.without(self.whole).is_empty() && giving.has_snapshot() {
                // Takers that have all of it from another stay on the list: nobody else need give it to them.
                giving.stage = Stage::Given;
                context.take_snapshot(giving.slot);
            }
        }
        self.givings.retain(|giving| !giving.takers.is_empty());
        if self.flushing || !self.unsaid.is_empty() {
            return;
        }
        self.try_ways(context);
        if self.burst.0 != context.now() {
            self.burst = (context.now(), 0);
        }
        let mut sent = 0;
        for at in 0..self.givings.len() {
            let mut giving = self.givings[at];
            if giving.is_under_way() {
                if let Err(why) = self.give_parts(context, &mut giving, &mut sent) {
                    self.cannot_give(context, &why);
                    return;
                }
                self.givings[at] = giving;
            }
        }
    }

    /// The application cannot read its snapshot on: who has a part of it gets the state from another member. What has been
    /// given to its end is whole.
    pub(super) fn cannot_give(&mut self, context: &mut Context<'_>, why: &str) {
        context.count("snapshot that could not be read");
        context.problem(
            None,
            format!(
                "the state could not be read for members that came in ({why}): another member that has it gives it to them, \
                 if there is one"
            ),
        );
        self.unable.insert(context.rank());
        self.drop_givings(context, |giving| giving.has_snapshot());
        self.say(context, Say::Unable);
    }

    /// Lets go of what `which` names of that which is given.
    fn drop_givings(&mut self, context: &mut Context<'_>, which: impl Fn(&Giving) -> bool) {
        self.givings.retain(|giving| {
            let dropped = which(giving);
            if dropped && giving.has_snapshot() {
                context.take_snapshot(giving.slot);
            }
            !dropped
        });
    }

    /// # Errors
    /// Why the application cannot read its snapshot.
    fn give_parts(
        &mut self,
        context: &mut Context<'_>,
        giving: &mut Giving,
        sent: &mut u64,
    ) -> Result<(), String> {
        if context.now() < giving.ready_at {
            context.arm_sooner(self.handles().turn, giving.ready_at);
            return Ok(());
        }
        let mut room_left = self.room(context, giving);
        let long = self.long_frame_bytes(context, giving);
        loop {
            if room_left == 0 || !self.has_frames(context, long.is_some()) {
                giving.paused = true;
                return Ok(());
            }
            if std::mem::take(&mut giving.paused) {
                // So much as may be under way in all.
                room_left = self.room(context, giving);
            }
            if self.burst.1 >= BURST_BYTES || *sent == PARTS_AT_ONCE {
                // What else there is to do comes first, in this iteration or before the next.
                let next = if self.burst.1 >= BURST_BYTES { NEXT_ITERATION } else { Duration::ZERO };
                context.arm_sooner(self.handles().turn, context.now() + next);
                return Ok(());
            }
            let Ok((mut body, room)) = Xfer::part_frame(context, long) else { return Ok(()) };
            if !context.snapshot_is_ready(giving.slot, room - PART_HEAD_BYTES) {
                giving.ready_at = context.now() + NOT_READY;
                context.arm_sooner(self.handles().turn, giving.ready_at);
                self.look_soon(context);
                return Ok(());
            }
            let part = body.grow(room).expect("the room was asked for");
            let length = context.read_snapshot(giving.slot, &mut part[PART_HEAD_BYTES..])?;
            let last = length < room - PART_HEAD_BYTES;
            let stateless = giving.stage == Stage::Stateless;
            let flags = (u8::from(last) * LAST) | (u8::from(stateless) * STATELESS);
            part[..2].copy_from_slice(&[kind::PART, flags]);
            part[2..PART_HEAD_BYTES].copy_from_slice(&giving.at.to_le_bytes());
            body.truncate(PART_HEAD_BYTES + length);
            context.send_reliable(giving.takers.without(self.whole), body).expect("there was room for it");
            giving.at += length as u64;
            giving.ready_at = Time::ZERO;
            self.moved = context.now();
            giving.part_bytes = room as u64;
            self.burst.1 += room.max(BURST_BYTES / BURST_PARTS);
            (*sent, room_left) = (*sent + 1, room_left - 1);
            if last {
                context.count("state given");
                giving.stage = Stage::Given;
                context.take_snapshot(giving.slot);
                return Ok(());
            }
        }
    }

    /// A lower member gives what was cut at `cut`: what this one gives as it was then or earlier is not needed.
    pub(super) fn give_up(&mut self, context: &mut Context<'_>, cut: ViewId) {
        self.drop_givings(context, |giving| giving.cut <= cut);
    }

    /// What goes on in the next view: with the snapshots, and who takes them.
    pub(super) fn leave_givings(&mut self, context: &mut Context<'_>, together: RankSet) -> Vec<LeftGiving> {
        let givings = std::mem::take(&mut self.givings);
        let mut left = Vec::new();
        for giving in givings {
            let takers = giving.takers.and(together).and(self.wanting());
            let taker = |rank: Rank| (context.view().member(rank).incarnation, self.taken[rank.index()]);
            let takers: Vec<_> = takers.iter().map(taker).collect();
            let snapshot = match giving.has_snapshot() {
                true => context.take_snapshot(giving.slot),
                false => HeldSnapshot::default(),
            };
            if !giving.is_asked() && !takers.is_empty() {
                left.push((giving, snapshot, takers));
            }
        }
        left
    }
}
