//! One iteration of the driver loop, and when the next is due.

use std::ops::Range;
use std::time::Duration;

use super::Stack;
use crate::accel::execute::{self, Miss, Outcome};
use crate::accel::shadow::ShadowRun;
use crate::config::Shadow;
use crate::group::{Application, Event, Group};
use crate::id::RankSet;
use crate::stack::build::Prompts;
use crate::stack::core::{Core, Looped};
use crate::stack::engine::Engine;
use crate::stack::event::{List, Message, Part, Up};
use crate::stack::layer::{Context, Kind};
use crate::stack::order::Ordered;
use crate::stack::slots::fixed;
use crate::time::Time;
use crate::wire::Traffic;

/// The most own casts that come back up together.
pub(super) const OWN_RUN_MAX: usize = 64;

/// Pieces of post-processing in one iteration, at least.
const PIECES_MIN: u64 = 1;

/// A piece is done where a message has come, after what was cast in answer to it has gone; others wait until none has come
/// for so long: whoever has just answered will soon be answered, and that is not to wait for the piece.
const PIECE_PATIENCE: Duration = Duration::from_micros(1);

impl Stack {
    /// One iteration: timers, own copies, early frames, open packs, waiting casts, post-processing. Returns whether there
    /// was anything but hits and own copies.
    #[inline]
    pub(crate) fn poll(&mut self, now: Time, app: &mut dyn Application) -> bool {
        self.engine.core.now = now;
        self.sent = false;
        if self.exited.is_some() {
            self.drain(app);
            return true;
        }
        if self.state_taken.is_some() {
            self.tell_taken();
        }
        if self.engine.core.timers.earliest() <= now {
            self.engine.timers();
            self.drain(app);
        }
        if self.engine.core.looping() > 0 {
            self.own_copies(app);
        }
        let Core { stirred, order, .. } = &self.engine.core;
        if *stirred || self.open.is_open() || !order.is_empty() || self.prompt_due() {
            self.poll_the_rest(now, app);
            return true;
        }
        debug_assert!(!self.has_more_to_do(), "whatever gives an iteration more to do says so");
        let post = self.post_is_near();
        if post {
            self.post_if_due(app);
            self.engine.core.stirred |= self.has_more_to_do();
        }
        post
    }

    /// What an iteration looks after when something else has happened than hits.
    #[inline(never)]
    fn poll_the_rest(&mut self, now: Time, app: &mut dyn Application) {
        if self.engine.core.expand_early {
            self.engine.core.expand_early = false;
            self.expand_early(None, Time::NEVER, Miss::Flushed, app);
        }
        if !self.early.is_empty() {
            let until = Time::from_nanos(now.as_nanos().saturating_sub(self.early_delay.as_nanos() as u64));
            self.expand_early(None, until, Miss::Waited, app);
        }
        // What others wait for is not to wait for room that this member's own casts take up whenever there is some.
        if self.prompt_if_held && !self.waiting.is_empty() && self.entry_open() && self.prompt_due() {
            self.prompt(app);
        }
        if self.entry_open() {
            if !self.waiting.is_empty() {
                self.enter_waiting();
            }
            if self.open.is_open()
                && (!self.busy || now >= self.open_since + self.pack_delay)
                && self.waiting.is_empty()
            {
                self.close_open();
            }
        }
        if self.large.is_pending() {
            self.enter_sends();
        }
        if self.prompt_due() {
            self.prompt(app);
        }
        self.note_waiting();
        if self.engine.core.holds_senders && !app.is_behind() {
            self.hold_senders(false);
        }
        self.post_if_due(app);
        if !self.engine.core.emerged.is_empty() || !self.engine.core.order.is_empty() {
            self.drain(app);
        }
        if self.has_refused() {
            self.tell_writable(app);
        }
        self.engine.core.stirred = self.has_more_to_do();
    }

    /// Whether there is something that every iteration has to look at until it is over.
    fn has_more_to_do(&self) -> bool {
        let core = &self.engine.core;
        let waits = !self.waiting.is_empty() || core.casts_waiting || self.large.is_pending() || self.stuck;
        let came = core.expand_early || !self.early.is_empty() || !core.emerged.is_empty();
        // Who holds the senders is asked in every iteration whether that is over.
        let asks = self.has_refused() || core.holds_senders;
        self.exited.is_some() || waits || came || asks || core.gossip.requested()
    }

    /// Whether this iteration has anything to do with post-processing.
    #[inline]
    fn post_is_near(&self) -> bool {
        let Engine { core, posting, .. } = &self.engine;
        let begins = core.work > 0 && self.post_due == Time::NEVER || core.work >= self.post_batch;
        let due = core.now >= self.post_due.min(core.gossip.due());
        begins || due || posting.is_under_way()
    }

    /// Whether a cast or a send was refused, and the application has not been told that there is room again.
    #[inline]
    fn has_refused(&self) -> bool {
        self.refused || self.refused_frame || !self.refused_by.is_empty()
    }

    #[cold]
    fn tell_writable(&mut self, app: &mut dyn Application) {
        let casts = self.refused && self.writable() && self.has_room_for_refused_cast();
        let sends = (self.refused_frame || !self.refused_by.is_empty()) && self.sendable();
        if casts || sends {
            if casts {
                self.refused = false;
                self.large.refused.forget_cast();
            }
            if sends {
                (self.refused_frame, self.refused_by) = (false, RankSet::EMPTY);
                self.large.refused.forget_send();
            }
            app.event(&Event::Writable, &mut Group::new(self));
        }
    }

    fn has_room_for_refused_cast(&self) -> bool {
        self.large.has_room_for_refused_cast() && self.numbers_left(self.large.refused.cast_frames)
    }

    /// Tells the layers of casts that wait, for others: what waits until this member's own application has caught up needs no
    /// turn before that. The first that waits because the entry is closed is work for them.
    fn note_waiting(&mut self) {
        let core = &self.engine.core;
        let none = self.waiting.is_empty() && !self.open.is_open();
        if none && !core.casts_waiting && core.waiting_numbers == 0 {
            return;
        }
        let all = self.waiting.len() + usize::from(self.open.is_open());
        let frames = self.of_this_view.unwrap_or(all) as u64;
        let waits = !none && !core.is_behind();
        let news = waits && !core.casts_waiting && !self.entry_open();
        let beyond = self.large.frames_beyond();
        let core = &mut self.engine.core;
        core.casts_waiting = waits;
        core.waiting_frames = if waits { frames } else { 0 };
        core.waiting_numbers = frames + beyond;
        core.work += u32::from(news);
        self.stuck |= news;
    }

    /// Delivers this member's own casts.
    fn own_copies(&mut self, app: &mut dyn Application) {
        let mut pending = self.engine.core.looping();
        // What upcalls cast waits for the next iteration.
        while pending > 0 {
            match self.own_retained(pending.min(OWN_RUN_MAX), app) {
                0 => break,
                taken => pending -= taken,
            }
        }
        let own = self.engine.core.own;
        for _ in 0..pending {
            if self.engine.core.order.is_full(own, self.order_share) {
                return;
            }
            let Some(looped) = self.engine.core.next_looped() else { return };
            self.own_copy(looped, app);
        }
    }

    /// Takes own casts by the plan, straight out of retention, if nothing else is to be done with them than to deliver them:
    /// up to `most` that nothing holds up, or else one. Returns how many.
    #[inline]
    fn own_retained(&mut self, most: usize, app: &mut dyn Application) -> usize {
        let Ok(plan) = &self.plans[Kind::SelfDeliver as usize] else { return 0 };
        if self.shadow != Shadow::Off || plan.last.is_some() {
            return 0;
        }
        if most > 1 {
            let at_once = execute::own_at_once(&self.engine.core, plan).min(most as u64);
            let taken = if at_once > 1 { self.own_run(at_once as usize, app) } else { 0 };
            if taken > 0 {
                return taken;
            }
        }
        self.own_one(app)
    }

    /// The next of them. Whether it was taken, as a number.
    #[inline]
    fn own_one(&mut self, app: &mut dyn Application) -> usize {
        let Stack { engine, plans, fast, .. } = self;
        let Ok(plan) = &plans[Kind::SelfDeliver as usize] else { return 0 };
        let core = &mut engine.core;
        let (own, number) = (core.own, core.loop_numbers.start);
        // An upcall may end the group, and lets go of everything then; or its casts, of what is retained.
        if core.loop_numbers.is_empty() || !core.order.is_empty() && core.order.is_full(own, self.order_share)
        {
            return 0;
        }
        let Some(list) = core.casts[own.index()].list_at(number).cloned() else { return 0 };
        if !execute::own_one(core, plan, number, &list) {
            return 0;
        }
        core.loop_numbers.start = number + 1;
        fast.deliver_hit += 1;
        let delivered = match &plan.deliver {
            None => true,
            Some(step) => {
                !list.is_empty()
                    && execute::own_is_plain(core, step, number)
                    && execute::deliver_one_at_once(core, step, own, number)
                    || self.own_copy_released(number, &list)
            }
        };
        if delivered {
            self.upcall(Kind::SelfDeliver, own, number, &list, app);
        }
        1
    }

    /// So many that nothing holds up, together: what is the same for all of them is done once. Returns how many were taken.
    fn own_run(&mut self, most: usize, app: &mut dyn Application) -> usize {
        let Ok(plan) = &self.plans[Kind::SelfDeliver as usize] else { return 0 };
        let core = &mut self.engine.core;
        let (own, Range { start, end }) = (core.own, core.loop_numbers.clone());
        // An upcall may end the group, or let its casts drive out what is retained: they are held here.
        let mut lists = std::mem::take(&mut self.own_run);
        core.casts[own.index()].copy_run(start..end.min(start + most as u64), &mut lists);
        // A blank may say what comes next.
        if plan.deliver.is_some()
            && let Some(blank) = lists.iter().position(List::is_empty)
        {
            lists.truncate(blank);
        }
        let taken = if lists.is_empty() { 0 } else { execute::own_run(core, plan, start, &lists) };
        if taken > 0 {
            core.loop_numbers.start = start + taken as u64;
            self.fast.deliver_hit += taken as u64;
            lists.truncate(taken);
            self.deliver_own(start, &mut lists, app);
        }
        lists.clear();
        self.own_run = lists;
        taken
    }

    #[inline(never)]
    fn deliver_own(&mut self, first: u64, lists: &mut Vec<List>, app: &mut dyn Application) {
        let (own, mut number) = (self.engine.core.own, first);
        for list in lists.drain(..) {
            self.upcall(Kind::SelfDeliver, own, number, &list, app);
            number += 1;
            if self.exited.is_some() {
                return;
            }
        }
    }

    /// Whether an own cast that came back up by the plan is released; if not, it waits for that.
    #[inline(never)]
    fn own_copy_released(&mut self, number: u64, list: &List) -> bool {
        let Ok(plan) = &self.plans[Kind::SelfDeliver as usize] else { return true };
        let core = &mut self.engine.core;
        let own = core.own;
        let Some(step) = &plan.deliver else { return true };
        let marked = execute::is_list_marked(plan, list);
        let released = core.holding(own) == 0 && execute::released(core, step, own, number, list, marked);
        if !released {
            let held = Ordered { origin: own, number, list: list.clone(), marked, agreed: false, slow: None };
            core.order.push(held);
        }
        released
    }

    /// One that took the layers, or that they repeat.
    #[inline(never)]
    fn own_copy(&mut self, looped: Looped, app: &mut dyn Application) {
        match &self.plans[Kind::SelfDeliver as usize] {
            Ok(plan) if !looped.slow => {
                let before = (self.shadow != Shadow::Off).then(|| ShadowRun::before(&self.engine));
                let core = &mut self.engine.core;
                let outcome = execute::own_copy(core, plan, &looped.list, looped.number);
                self.own_copy_done(looped, outcome, before, app);
            }
            _ => {
                self.note_miss(Kind::SelfDeliver, Miss::ByLayers);
                self.own_copy_by_layers(looped, app);
            }
        }
    }

    fn own_copy_done(
        &mut self,
        looped: Looped,
        outcome: Outcome,
        before: Option<Box<ShadowRun>>,
        app: &mut dyn Application,
    ) {
        match outcome {
            Outcome::Hit { number, marked, .. } => {
                self.fast.deliver_hit += 1;
                let own = self.engine.core.own;
                self.accepted(Kind::SelfDeliver, own, (number, marked), looped.list, before, app);
            }
            Outcome::Early(_) | Outcome::Miss(_) => {
                let miss = if let Outcome::Miss(miss) = outcome { miss } else { Miss::TooEarly };
                self.note_miss(Kind::SelfDeliver, miss);
                self.own_copy_by_layers(looped, app);
            }
        }
    }

    #[cold]
    fn own_copy_by_layers(&mut self, looped: Looped, app: &mut dyn Application) {
        self.fast.deliver_miss += 1;
        let core = &mut self.engine.core;
        let header = match looped.slow {
            true => core.looped_headers.pop_front(),
            false => core.header_before(Traffic::Cast, &looped.list).map(|header| (header, Part::Whole)),
        };
        let Some((header, part)) = header else { return };
        let message =
            Message { number: looped.number, header, part, ..Message::data(Traffic::Cast, looped.list) };
        core.work += 1;
        let own = core.own;
        self.engine.rise(looped.layer, Up::Cast(own, message));
        self.drain(app);
    }

    #[inline]
    fn prompt_due(&self) -> bool {
        let core = &self.engine.core;
        let by_work = self.prompt_always || self.prompt_if_held && !core.order.is_empty();
        by_work && self.prompted_work != core.work || self.prompt_wanted()
    }

    /// Whether a layer has asked to be prompted, and could cast.
    #[inline]
    fn prompt_wanted(&self) -> bool {
        let core = &self.engine.core;
        core.prompt_wanted && core.slots.word(fixed::CAST_SEND_GUARD) & self.entry_of_blanks == 0
    }

    /// Does what somebody waits for. What is held is told at once, and best by what the application casts when it gets what
    /// was waited for here.
    #[inline(never)]
    fn prompt(&mut self, app: &mut dyn Application) {
        let asked = self.prompt_wanted();
        let core = &mut self.engine.core;
        core.prompt_wanted &= !asked;
        self.prompted_work = core.work;
        core.catch_up();
        let cast = core.gossiping_casts();
        let mut news = RankSet::EMPTY;
        for at in 0..self.prompted.len() {
            let (layer, when) = self.prompted[at];
            if when == Prompts::IfAsked && !asked {
                continue;
            }
            self.note_waiting();
            let Engine { core, layers, .. } = &mut self.engine;
            // What the layers before have cast and released may have had effects.
            core.catch_up();
            layers[layer].prompt(&mut Context { core, layer }).iter().for_each(|rank| news.insert(rank));
            if let Some(blank) = core.blank.0.take() {
                self.enter_blank(blank);
            }
            // Whoever answers does not wait for the news that its own cast before was read, which is still on its way.
            let busy = self.busy;
            self.busy &= self.was_busy;
            self.drain(app);
            self.busy = busy;
            if self.exited.is_some() {
                return;
            }
        }
        let core = &mut self.engine.core;
        core.told_since(cast, &mut news);
        if !news.is_empty() {
            core.report();
            self.engine.run();
        }
    }

    /// Post-processing: begins when enough has happened or some time after the first of it, and goes on in pieces; at
    /// once and whole where somebody waits for it, or where layers have handled events.
    fn post_if_due(&mut self, app: &mut dyn Application) {
        let Engine { core, posting, .. } = &self.engine;
        let (now, work) = (core.now, core.work);
        let told = core.gossip.requested() || now >= core.gossip.due();
        if work == 0 && !told && !posting.is_under_way() {
            return;
        }
        if work > 0 && self.post_due == Time::NEVER {
            self.post_due = now + self.post_delay;
        }
        let blocked = !self.waiting.is_empty() || self.large.is_pending() || self.has_refused();
        let due = work >= self.post_batch || now >= self.post_due;
        let begun = posting.is_under_way();
        let by_layers = core.by_layers && (due || begun);
        if blocked || std::mem::take(&mut self.stuck) || told || by_layers || due && self.post_delay.is_zero()
        {
            self.engine.post();
            self.nothing_due();
        } else if !(due || begun) || self.is_awaited() {
            return;
        } else {
            if !begun {
                self.engine.begin_post();
                self.nothing_due();
            }
            self.post_on();
        }
        self.drain(app);
    }

    /// Whether a message may come at any moment: one came lately, and none in this iteration.
    fn is_awaited(&mut self) -> bool {
        let core = &self.engine.core;
        if core.work != self.known_work {
            (self.known_work, self.came_at) = (core.work, core.now);
        }
        core.now > self.came_at && core.now < self.came_at + PIECE_PATIENCE
    }

    /// A pass has begun, and takes in all that was done before.
    pub(super) fn nothing_due(&mut self) {
        (self.post_due, self.posted_work, self.known_work, self.prompted_work) = (Time::NEVER, 0, 0, 0);
    }

    /// Goes on with post-processing: by a little, and by as much of a pass as the messages since the last piece are of a
    /// batch. So it ends when the next one is due, however many there are.
    fn post_on(&mut self) {
        let work = self.engine.core.work;
        let since = u64::from(work - std::mem::replace(&mut self.posted_work, work));
        let pace = self.pieces_of_a_pass * since / u64::from(self.post_batch);
        self.engine.post_pieces(PIECES_MIN + pace);
        // Layers may want another pass: no message came for that.
        self.known_work = self.engine.core.work;
    }

    /// When `poll` must be called next.
    pub(crate) fn deadline(&self) -> Time {
        let core = &self.engine.core;
        if self.exited.is_some() {
            return if core.emerged.is_empty() { Time::NEVER } else { Time::ZERO };
        }
        let mut can_enter = self.entry_open() && (self.open.is_open() || !self.waiting.is_empty());
        let mut short_of_frames = self.refused || self.refused_frame;
        if self.large.is_pending() {
            if self.can_go_on_sending() {
                return Time::ZERO;
            }
            can_enter &= !self.large.starved();
            short_of_frames |= self.large.starved() || !self.control_frame_to_spare();
        }
        let packing = self.open.is_open() && self.busy && self.waiting.is_empty();
        let own_copies = core.looping() > 0 && !core.order.is_full(core.own, self.order_share);
        let requested = core.gossip.requested() || self.prompt_due() || self.state_taken.is_some();
        if can_enter && !packing || own_copies || !core.emerged.is_empty() || requested {
            return Time::ZERO;
        }
        let patience = if core.by_layers { Time::ZERO } else { self.came_at + PIECE_PATIENCE };
        let under_way = self.engine.posting.is_under_way();
        let post_due = if under_way { patience } else { self.post_due.max(patience) };
        if core.work > 0 && self.post_due == Time::NEVER || post_due <= core.now {
            return Time::ZERO;
        }
        let mut deadline = core.timers.earliest().min(core.gossip.due()).min(post_due);
        if can_enter && packing {
            deadline = deadline.min(self.open_since + self.pack_delay);
        }
        for early in &self.early {
            deadline = deadline.min(early.since + self.early_delay);
        }
        if short_of_frames || core.holds_senders {
            // Room may come without a word: where members read in place, frames return when the last one lets go.
            deadline = deadline.min(core.now + core.gossip.delay());
        }
        deadline
    }
}
