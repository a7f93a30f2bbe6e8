//! Frames come in: by plan, early, or through the layers (design D4).

use super::{Early, Stack};
use crate::accel::broken::Broken;
use crate::accel::execute::{self, Miss, Outcome};
use crate::accel::plan::Plan;
use crate::accel::shadow::{Handled, ShadowRun};
use crate::config::Shadow;
use crate::group::Application;
use crate::id::Rank;
use crate::stack::core::Core;
use crate::stack::event::{Count, List, Message, Up};
use crate::stack::layer::Kind;
use crate::stack::order::Ordered;
use crate::time::Time;
use crate::transport::Received;
use crate::wire::layout::Header;
use crate::wire::{PACK_FLAG, Traffic, word};

/// What is counted of a cast that finds no room where casts are held for their order.
const ORDER_QUEUE_FULL: &str = "cast dropped: order queue full";

/// A frame with a compressed header, and what is known of it when its stack has been found.
#[derive(Clone, Copy)]
struct Arrived<'r> {
    /// The plan that its cookie stands for.
    kind: Kind,
    /// Whose it is.
    origin: Rank,
    /// Its first word: the cookie, with the pack flag.
    first: u64,
    received: &'r Received,
    /// The bytes of `received`.
    bytes: &'r [u8],
}

impl Stack {
    /// A frame whose cookie says what it is. What is known of it comes one by one, and this is a function of its own: the
    /// hot part keeps it in registers.
    #[inline]
    pub(crate) fn fast_frame(
        &mut self,
        traffic: Traffic,
        origin: Rank,
        first: u64,
        received: Received,
        app: &mut dyn Application,
    ) {
        match traffic {
            Traffic::Cast => self.fast_frame_of::<true>(origin, first, received, app),
            _ => self.fast_frame_of::<false>(origin, first, received, app),
        }
    }

    /// Takes as many of the first `frames`, which are casts of `origin`, as the plan takes together; returns how many, and the
    /// number of the first. They are to be delivered at once: [`Stack::deliver_run`].
    #[inline]
    pub(crate) fn accept_run(&mut self, origin: Rank, frames: &[Received]) -> Option<(u64, usize)> {
        let core = &mut self.engine.core;
        let plan = self.plans[Kind::CastDeliver as usize].as_ref().ok()?;
        if !plan.straight || !core.order.is_empty() || !self.early.is_empty() {
            return None;
        }
        let number = core.accepted(origin);
        let taken = execute::accept_run(core, plan, origin, frames);
        self.fast.deliver_hit += taken as u64;
        self.fast.deliver_together += taken as u64;
        (taken > 0).then_some((number, taken))
    }

    /// Delivers what [`Stack::accept_run`] has taken. An upcall may end the group: then the rest is left.
    #[inline(never)]
    pub(crate) fn deliver_run(
        &mut self,
        origin: Rank,
        mut number: u64,
        frames: std::iter::Take<&mut std::vec::Drain<'_, Received>>,
        app: &mut dyn Application,
    ) {
        let header_bytes = self.engine.core.layouts[Traffic::Cast as usize].compressed_bytes();
        for Received { frame, from, to, .. } in frames {
            let list = List::single(frame, from + header_bytes, to);
            self.upcall(Kind::CastDeliver, origin, number, &list, app);
            number += 1;
            if self.exited.is_some() {
                return;
            }
        }
    }

    #[inline]
    fn fast_frame_of<const CAST: bool>(
        &mut self,
        origin: Rank,
        first: u64,
        received: Received,
        app: &mut dyn Application,
    ) {
        let kind = if CAST { Kind::CastDeliver } else { Kind::SendDeliver };
        let bytes = received.bytes();
        let Stack { engine, plans, fast, .. } = self;
        let moved = match &plans[kind as usize] {
            // What is in order when nothing waits goes up at once.
            Ok(plan) if plan.straight && engine.core.order.is_empty() => {
                match execute::accept(&mut engine.core, plan, origin, first, bytes) {
                    Outcome::Hit { number, count, marked } => {
                        let core = &mut engine.core;
                        let Received { frame, from, to, .. } = received;
                        let list = List::counted(frame, from + plan.header_bytes, to, count);
                        if plan.retain {
                            core.keep_cast(origin, number, list.clone());
                        }
                        fast.deliver_hit += 1;
                        let delivered = match &plan.deliver {
                            None => true,
                            Some(step) => {
                                !marked
                                    && !list.is_empty()
                                    && execute::deliver_one_at_once(core, step, origin, number)
                                    || execute::released(core, step, origin, number, &list, marked)
                            }
                        };
                        if delivered {
                            self.upcall(kind, origin, number, &list, app);
                        } else {
                            core.order.push(Ordered {
                                origin,
                                number,
                                list,
                                marked,
                                agreed: false,
                                slow: None,
                            });
                        }
                        true
                    }
                    other => {
                        let arrived = Arrived { kind, origin, first, received: &received, bytes };
                        self.not_taken(arrived, other, app, false)
                    }
                }
            }
            _ => self.not_straight(Arrived { kind, origin, first, received: &received, bytes }, app),
        };
        if moved && !self.early.is_empty() {
            self.retry_early(origin, kind.traffic(), app);
        }
    }

    /// Without a plan, or with one whose deliveries may have to wait or that the layers repeat.
    #[inline(never)]
    fn not_straight(&mut self, arrived: Arrived<'_>, app: &mut dyn Application) -> bool {
        let Arrived { kind, origin, received, .. } = arrived;
        if self.plans[kind as usize].is_err() {
            self.expand(kind, origin, received, Miss::Guard(0), app);
            return true;
        }
        self.try_compared(arrived, app, false)
    }

    /// Tries the plan where deliveries wait for their release or the layers repeat everything. What does not run is parked
    /// or takes the layers; returns whether it is neither dropped nor parked, so that another may be expected now.
    #[inline(never)]
    fn try_compared(&mut self, arrived: Arrived<'_>, app: &mut dyn Application, parked: bool) -> bool {
        let Arrived { kind, origin, first, bytes, .. } = arrived;
        if kind == Kind::CastDeliver && self.engine.core.order.is_full(origin, self.order_share) {
            if !parked {
                self.drop_beyond_order(kind);
            }
            return false;
        }
        let before = (self.shadow != Shadow::Off).then(|| ShadowRun::before(&self.engine));
        let Stack { engine, plans, fast, .. } = self;
        let Ok(plan) = &plans[kind as usize] else { return false };
        match execute::accept_apart(&mut engine.core, plan, origin, first, bytes) {
            Outcome::Hit { number, count, marked } => {
                let list = accepted_list(&mut engine.core, plan, origin, arrived.received, number, count);
                fast.deliver_hit += u64::from(!parked);
                fast.deliver_early += u64::from(parked);
                self.accepted(kind, origin, (number, marked), list, before, app);
                true
            }
            other => self.not_taken(arrived, other, app, parked),
        }
    }

    /// A cast that found as many of its origin held as there may be: it is sent again later.
    #[cold]
    fn drop_beyond_order(&mut self, kind: Kind) {
        self.fast.deliver_miss += 1;
        self.note_miss(kind, Miss::Dropped);
        self.engine.core.count_stack(ORDER_QUEUE_FULL);
    }

    /// What becomes of a frame that the plan did not take; returns whether the layers have it.
    #[cold]
    #[inline(never)]
    fn not_taken(
        &mut self,
        arrived: Arrived<'_>,
        outcome: Outcome,
        app: &mut dyn Application,
        parked: bool,
    ) -> bool {
        let Arrived { kind, origin, received, .. } = arrived;
        match outcome {
            Outcome::Early(ahead) if !parked => self.park(kind, origin, received.clone(), ahead, app),
            Outcome::Miss(miss) => {
                self.expand(kind, origin, received, miss, app);
                return true;
            }
            Outcome::Early(_) | Outcome::Hit { .. } => {}
        }
        false
    }

    /// The rest of a hit that is not delivered at once or is compared with the layers: of the cast of that number, which is
    /// marked or not.
    pub(super) fn accepted(
        &mut self,
        kind: Kind,
        origin: Rank,
        (number, marked): (u64, bool),
        list: List,
        before: Option<Box<ShadowRun>>,
        app: &mut dyn Application,
    ) {
        let Ok(plan) = &self.plans[kind as usize] else { return };
        let core = &mut self.engine.core;
        let in_order = match &plan.deliver {
            None => true,
            Some(step) => {
                core.holding(origin) == 0 && execute::released(core, step, origin, number, &list, marked)
            }
        };
        let delivered = in_order && execute::released_in_order(core, plan, origin, number, &list);
        if !delivered {
            let agreed = in_order && execute::is_list_agreed(plan, &list);
            let held = Ordered { origin, number, list: list.clone(), marked, agreed, slow: None };
            if in_order { core.order.push_ordered(held) } else { core.order.push(held) }
        }
        if let Some(before) = before {
            let header = core.header_before(kind.traffic(), &list).unwrap_or(Header::ZERO);
            let from_layer = match (kind, core.loop_layer) {
                (Kind::SelfDeliver, Some(layer)) => layer,
                _ => self.engine.layers.len(),
            };
            let handled =
                Handled::Accepted { kind, origin, header, list: &list, number, delivered, from_layer };
            let differs = before.compare(&mut self.engine, handled);
            self.compared(kind, differs);
        }
        if delivered {
            self.upcall(kind, origin, number, &list, app);
        }
        self.drain(app);
    }

    #[cold]
    fn park(&mut self, kind: Kind, origin: Rank, received: Received, ahead: u64, app: &mut dyn Application) {
        let most = self.early_max + usize::from(self.broken.is(Broken::ParksOneMore));
        if self.early.len() >= most || ahead > most as u64 {
            self.expand_early(Some((origin, kind.traffic())), Time::NEVER, Miss::TooEarly, app);
            self.expand(kind, origin, &received, Miss::TooEarly, app);
            return;
        }
        let since = self.engine.core.now;
        self.engine.core.stirred = true;
        self.early.push(Early { origin, traffic: kind.traffic(), since, received });
    }

    /// Tries the parked frames of an origin again, until none of them runs.
    #[cold]
    #[inline(never)]
    fn retry_early(&mut self, origin: Rank, traffic: Traffic, app: &mut dyn Application) {
        let kind = if traffic == Traffic::Cast { Kind::CastDeliver } else { Kind::SendDeliver };
        let mut at = 0;
        while at < self.early.len() {
            if self.early[at].origin != origin || self.early[at].traffic != traffic {
                at += 1;
                continue;
            }
            // It is not among the parked while it is tried: an upcall may end the group, and lets go of them all.
            let Early { since, received, .. } = self.early.swap_remove(at);
            let bytes = received.bytes();
            let first = word(bytes, 0).unwrap_or_default();
            let arrived = Arrived { kind, origin, first, received: &received, bytes };
            let moved = self.try_compared(arrived, app, true);
            if self.exited.is_some() {
                return;
            }
            // If it ran, or took the layers (a duplicate, say), it is not parked any more.
            if moved {
                at = 0;
            } else {
                self.early.push(Early { origin, traffic, since, received });
                let last = self.early.len() - 1;
                self.early.swap(at, last);
                at += 1;
            }
        }
    }

    /// Hands parked frames to the layers, for this reason: all that wait since before `until`, or those of one origin.
    #[cold]
    pub(super) fn expand_early(
        &mut self,
        of: Option<(Rank, Traffic)>,
        until: Time,
        why: Miss,
        app: &mut dyn Application,
    ) {
        loop {
            let wanted = |early: &Early| match of {
                Some((origin, traffic)) => early.origin == origin && early.traffic == traffic,
                None => early.since <= until,
            };
            let Some(at) = self.early.iter().position(wanted) else { return };
            let Early { origin, traffic, received, .. } = self.early.swap_remove(at);
            let kind = if traffic == Traffic::Cast { Kind::CastDeliver } else { Kind::SendDeliver };
            self.expand(kind, origin, &received, why, app);
        }
    }

    /// A fast frame that the plan cannot take: its full form goes through the layers.
    #[cold]
    fn expand(
        &mut self,
        kind: Kind,
        origin: Rank,
        received: &Received,
        miss: Miss,
        app: &mut dyn Application,
    ) {
        self.fast.deliver_miss += 1;
        self.note_miss(kind, miss);
        let layout = &self.engine.core.layouts[kind.traffic() as usize];
        let bytes = received.bytes();
        let header_bytes = layout.compressed_bytes();
        let packed = word(bytes, 0).is_some_and(|first| first & PACK_FLAG != 0);
        let words = if bytes.len() < header_bytes { None } else { layout.words_of(bytes) };
        let Some(words) = words else {
            self.engine.core.count_stack("frame shorter than its header");
            return;
        };
        let header = layout.expand(&words);
        let Ok(list) = List::parse(received.frame.clone(), received.from + header_bytes, received.to, packed)
        else {
            self.engine.core.count_stack("pack that is none");
            return;
        };
        let message = Message { header, ..Message::data(kind.traffic(), list) };
        self.arrive(origin, message, app);
    }

    /// Frames of `origin` cannot be told apart by their cookie.
    #[cold]
    pub(crate) fn ask_identification(&mut self, origin: Rank, traffic: Traffic, now: Time) {
        if self.exited.is_none() {
            self.engine.core.now = now;
            self.engine.core.ask_identification(origin, traffic);
            self.engine.run();
        }
    }

    /// A frame with a full header.
    pub(crate) fn full_frame(&mut self, origin: Rank, message: Message, app: &mut dyn Application) {
        if message.traffic != Traffic::Raw && !message.is_control() {
            self.fast.deliver_miss += 1;
            let kind = if message.traffic == Traffic::Cast { Kind::CastDeliver } else { Kind::SendDeliver };
            self.note_full_header(kind);
            if !self.early.is_empty() {
                self.arrive(origin, message, app);
                self.retry_early(origin, kind.traffic(), app);
                return;
            }
        }
        self.arrive(origin, message, app);
    }

    #[inline]
    fn arrive(&mut self, origin: Rank, message: Message, app: &mut dyn Application) {
        if message.traffic == Traffic::Cast && self.engine.core.order.is_full(origin, self.order_share) {
            self.engine.core.count_stack(ORDER_QUEUE_FULL);
            return;
        }
        // Best effort changes nothing that post-processing looks at, gossip apart, which says so.
        self.engine.core.work += u32::from(message.traffic != Traffic::Raw);
        self.engine.arrive(match message.traffic {
            Traffic::Cast => Up::Cast(origin, message),
            Traffic::Send => Up::Send(origin, message),
            Traffic::Raw => Up::Raw(origin, message),
        });
        self.drain(app);
    }
}

/// The list of an accepted frame, retained where the plan says so.
#[inline]
fn accepted_list(
    core: &mut Core,
    plan: &Plan,
    origin: Rank,
    received: &Received,
    number: u64,
    count: Count,
) -> List {
    let from = received.from + plan.header_bytes;
    let list = List::counted(received.frame.clone(), from, received.to, count);
    if plan.retain {
        core.keep_cast(origin, number, list.clone());
    }
    list
}
