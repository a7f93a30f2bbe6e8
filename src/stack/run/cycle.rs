//! One iteration of the driver loop, and when the next is due.

use super::Stack;
use crate::accel::execute::{self, Miss, Outcome};
use crate::accel::shadow::ShadowRun;
use crate::config::Shadow;
use crate::group::{Application, Event, Group};
use crate::id::RankSet;
use crate::stack::event::{Message, Part, Up};
use crate::stack::layer::Kind;
use crate::time::Time;
use crate::wire::Traffic;

impl Stack {
    /// One iteration: timers, own copies, early frames, open packs, waiting casts, post-processing.
    pub(crate) fn poll(&mut self, now: Time, app: &mut dyn Application) {
        self.engine.core.now = now;
        self.sent = false;
        if self.exited.is_some() {
            self.drain(app);
            return;
        }
        if self.engine.core.timers.earliest() <= now {
            self.engine.timers();
            self.drain(app);
        }
        if !self.engine.core.loopback.is_empty() {
            self.own_copies(app);
        }
        if self.engine.core.expand_early {
            self.engine.core.expand_early = false;
            self.expand_early(None, Time::NEVER, app);
        }
        if !self.early.is_empty() {
            let until = Time::from_nanos(now.as_nanos().saturating_sub(self.early_delay.as_nanos() as u64));
            self.expand_early(None, until, app);
        }
        if self.entry_open() {
            if !self.waiting.is_empty() {
                self.enter_waiting();
            }
            let waited = now >= self.open_since + self.pack_delay;
            if self.open.is_open() && (!self.busy || waited) && self.waiting.is_empty() {
                self.close_open();
            }
        }
        if self.large.is_pending() {
            self.enter_sends();
        }
        self.engine.core.casts_waiting = !self.waiting.is_empty() || self.open.is_open();
        self.post_if_due(app);
        if !self.engine.core.emerged.is_empty() || !self.engine.core.order.is_empty() {
            self.drain(app);
        }
        let casts = self.refused && self.writable() && self.large.has_room_again();
        let sends = (self.refused_frame || !self.refused_by.is_empty()) && self.sendable();
        if casts || sends {
            if casts {
                self.refused = false;
                self.large.forget_refusal();
            }
            if sends {
                (self.refused_frame, self.refused_by) = (false, RankSet::EMPTY);
            }
            app.event(&Event::Writable, &mut Group::new(self));
        }
    }

    /// Delivers this member's own casts.
    fn own_copies(&mut self, app: &mut dyn Application) {
        let own = self.engine.core.view.rank();
        for _ in 0..self.engine.core.loopback.len() {
            if self.engine.core.holding(own) >= self.order_share {
                return;
            }
            let Some(looped) = self.engine.core.loopback.pop_front() else { return };
            if !looped.slow
                && let Ok(plan) = &self.plans[Kind::SelfDeliver as usize]
            {
                let before = (self.shadow != Shadow::Off).then(|| ShadowRun::before(&self.engine));
                match execute::own_copy(&mut self.engine.core, plan, &looped.list, looped.number) {
                    Outcome::Hit { list, number } => {
                        self.fast.deliver_hit += 1;
                        if plan.deliver.is_none() && before.is_none() {
                            self.upcall(Kind::SelfDeliver, own, number, &list, app);
                        } else {
                            self.accepted(Kind::SelfDeliver, own, number, list, before, app);
                        }
                        continue;
                    }
                    Outcome::Early(_) => self.note_miss(Kind::SelfDeliver, Miss::Field(0, 0)),
                    Outcome::Miss(miss) => self.note_miss(Kind::SelfDeliver, miss),
                }
            }
            self.fast.deliver_miss += 1;
            let core = &mut self.engine.core;
            let header = match looped.slow {
                true => core.looped_headers.pop_front(),
                false => core.header_before(Traffic::Cast, &looped.list).map(|header| (header, Part::Whole)),
            };
            let Some((header, part)) = header else { continue };
            let message =
                Message { number: looped.number, header, part, ..Message::data(Traffic::Cast, looped.list) };
            self.engine.core.work += 1;
            self.engine.core.emit_up(looped.layer, Up::Cast(own, message));
            self.engine.run();
            self.drain(app);
        }
    }

    fn post_if_due(&mut self, app: &mut dyn Application) {
        let core = &self.engine.core;
        let (now, work) = (core.now, core.work);
        if work == 0 && !core.gossip.requested() && now < core.gossip.due() {
            return;
        }
        if self.post_due == Time::NEVER {
            self.post_due = now + self.post_delay;
        }
        let blocked = !self.waiting.is_empty()
            || self.large.is_pending()
            || self.refused
            || self.refused_frame
            || !self.refused_by.is_empty();
        if work >= self.post_batch
            || now >= self.post_due
            || blocked
            || core.gossip.requested()
            || now >= core.gossip.due()
        {
            self.engine.post();
            self.post_due = Time::NEVER;
            self.drain(app);
        }
    }

    /// When `poll` must be called next.
    pub(crate) fn deadline(&self) -> Time {
        let core = &self.engine.core;
        if self.exited.is_some() {
            return if core.emerged.is_empty() { Time::NEVER } else { Time::ZERO };
        }
        let mut can_enter = self.entry_open() && (self.open.is_open() || !self.waiting.is_empty());
        let mut short_of_frames = self.refused;
        if self.large.is_pending() {
            if self.can_go_on_sending() {
                return Time::ZERO;
            }
            can_enter &= !self.large.starved();
            short_of_frames |= self.large.starved();
        }
        let packing = self.open.is_open() && self.busy && self.waiting.is_empty();
        let own_copies = !core.loopback.is_empty() && core.holding(core.own) < self.order_share;
        if can_enter && !packing || own_copies || !core.emerged.is_empty() || core.gossip.requested() {
            return Time::ZERO;
        }
        let mut deadline = core.timers.earliest().min(core.gossip.due()).min(self.post_due);
        if core.work > 0 && self.post_due == Time::NEVER {
            return Time::ZERO;
        }
        if can_enter && packing {
            deadline = deadline.min(self.open_since + self.pack_delay);
        }
        for early in &self.early {
            deadline = deadline.min(early.since + self.early_delay);
        }
        if short_of_frames {
            // Room may come without a word: where members read in place, frames return when the last one lets go.
            deadline = deadline.min(core.now + core.gossip.delay());
        }
        deadline
    }
}
