//! From one view to the next: what a stack hands over to its successor.

use std::any::Any;

use super::Stack;
use crate::accel::broken::Broken;
use crate::buf::{Frame, Region, RegionOptions};
use crate::endpoint::{LATE, Room};
use crate::group::{Application, Event, Group, Ticket};
use crate::id::{Incarnation, Rank, RankSet, ViewId};
use crate::stack::event::{ExitReason, Letter, List, Problem, Up};
use crate::time::Time;
use crate::transport::{ChannelId, Outside, Transmit};
use crate::view::{LocalView, View};

/// What layers leave to their successors, by name.
pub(crate) type Legacies = Vec<(&'static str, Box<dyn Any>)>;

/// What a stack wants of the world outside its channel.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    pub(crate) outside: Vec<(Outside, Vec<u8>)>,
    pub(crate) excluded: Vec<Rank>,
    pub(crate) hint: bool,
}

impl Stack {
    /// The view that follows, once it is decided.
    pub(crate) fn next_view(&self) -> Option<&View> {
        self.next.as_ref().map(|next| &next.view)
    }

    /// Whether membership is live: views follow each other.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Whether the endpoint has something to do for this stack.
    #[inline]
    pub(crate) fn wants_something(&self) -> bool {
        let core = &self.engine.core;
        self.next.is_some() && !self.opening
            || !core.outside.is_empty()
            || !core.excluded.is_empty()
            || core.hint_wanted
            || self.exited.is_some() && !self.closed
            || self.asks_to_stop
    }

    /// Takes what layers want of the world outside the channel.
    pub(crate) fn take_wants(&mut self) -> Option<Wants> {
        let core = &mut self.engine.core;
        if core.outside.is_empty() && core.excluded.is_empty() && !core.hint_wanted {
            return None;
        }
        Some(Wants {
            outside: std::mem::take(&mut core.outside),
            excluded: std::mem::take(&mut core.excluded),
            hint: std::mem::take(&mut core.hint_wanted),
        })
    }

    /// A message from outside the view.
    pub(crate) fn letter(&mut self, letter: Letter, app: &mut dyn Application) {
        self.engine.arrive(Up::Outside(std::rc::Rc::new(letter)));
        self.engine.core.work += 1;
        self.drain(app);
    }

    /// Somebody is in another view of this group.
    pub(crate) fn stranger(&mut self, origin: Incarnation, view: ViewId, app: &mut dyn Application) {
        self.engine.arrive(Up::Stranger { origin, view });
        self.drain(app);
    }

    /// Frames are about to be taken in, and the last poll was a while ago: if a timer was to run since, that is told first. Only
    /// told: what was to be judged by then is judged with what has come meanwhile.
    pub(crate) fn late(&mut self, now: Time, app: &mut dyn Application) {
        if self.exited.is_none() && self.engine.core.timers.earliest() + LATE < now {
            self.engine.core.now = now;
            self.engine.arrive(Up::Late);
            self.drain(app);
        }
    }

    /// The processes of these members are gone, says the transport.
    pub(crate) fn gone(&mut self, ranks: RankSet, app: &mut dyn Application) {
        self.engine.arrive(Up::Gone(ranks));
        self.drain(app);
    }

    /// These members have had no processor for a while, says the transport.
    pub(crate) fn starved(&mut self, ranks: RankSet, app: &mut dyn Application) {
        self.engine.arrive(Up::Starved(ranks));
        self.drain(app);
    }

    /// These members take no part in this view with this one any more, says the transport.
    pub(crate) fn parted(&mut self, ranks: RankSet, app: &mut dyn Application) {
        self.engine.arrive(Up::Parted(ranks));
        self.drain(app);
    }

    /// The channel of a failed member's frames is given up: what is kept of its casts is copied, and believed only if it
    /// was intact until then.
    pub(crate) fn rescue(&mut self, rank: Rank, intact: &dyn Fn(&Frame) -> bool) {
        let header_bytes = self.engine.core.layouts[0].compressed_bytes();
        let retention = &mut self.engine.core.casts[rank.index()];
        retention.let_go(u64::MAX);
        let lists = retention.numbers().filter_map(|number| retention.list(number));
        let most = lists.map(|list| list.payload().len() + header_bytes).max().unwrap_or(0);
        let numbers = retention.numbers();
        if most == 0 {
            return;
        }
        let options = RegionOptions {
            frames: (numbers.end - numbers.start) as usize,
            link_headroom_bytes: 0,
            frame_bytes: most,
            reserve_frames: 0,
            huge_pages: false,
        };
        let Ok(region) = Region::pool(options) else {
            self.engine.core.count_stack("no memory to bring casts of a failed member to safety");
            return;
        };
        let (mut copies, mut damaged) = (0, 0);
        retention.move_all(|list| {
            // With the compressed header before it, if there is one.
            let before = header_bytes.min(list.from());
            let (from, to) = (list.from() - before, list.to());
            let mut frame = region.take(0).ok()?;
            frame.extend(list.frame().slice(from, to)).expect("the longest was counted");
            if !intact(list.frame()) {
                damaged += 1;
                return None;
            }
            copies += 1;
            Some(list.moved(frame.freeze(), before))
        });
        self.copies += copies;
        if damaged > 0 {
            // Whoever still holds a sound copy forwards it.
            self.engine.core.count_stack("casts of a failed member overwritten before they were safe");
        }
    }

    /// What the layers leave to the next view's.
    pub(crate) fn bequeath(&mut self) -> Legacies {
        self.tell_taken();
        let layers = self.engine.layers.iter_mut();
        layers.filter_map(|layer| Some((layer.name(), layer.bequeath()?))).collect()
    }

    /// Takes over the application's waiting casts, and the counts, of the last view's stack.
    pub(crate) fn succeed(&mut self, old: &mut Stack) {
        self.broken = old.broken;
        if self.broken.is(Broken::PredictsAcrossViews) {
            self.predict_as(old);
        }
        old.close_open();
        self.tickets = old.tickets;
        let waiting: u64 = old.waiting.iter().map(|waiting| u64::from(waiting.messages())).sum();
        self.first_ticket = Ticket(old.tickets - waiting + 1);
        let mut queue = std::mem::take(&mut old.waiting);
        if self.broken.is(Broken::QueuesBackwards) {
            queue.make_contiguous().reverse();
        }
        for waiting in queue {
            let messages = waiting.messages();
            if !self.inherit(waiting) {
                self.engine.core.emit_application(Up::Problem(Problem {
                    layer: "stack",
                    origin: None,
                    what: format!("{messages} casts that waited for this view do not fit it and are lost")
                        .into(),
                }));
            }
        }
        for peer in self.inherit_sends(old) {
            self.engine.core.emit_application(Up::Problem(Problem {
                layer: "stack",
                origin: None,
                what: format!("a large send to {peer} was under way when the view ended, and is lost").into(),
            }));
        }
        (self.refused, self.refused_frame, self.refused_by) =
            (old.refused, old.refused_frame || !old.refused_by.is_empty(), RankSet::EMPTY);
        (self.fast, self.delivered) = (old.fast, old.delivered);
        (self.sends, self.sends_delivered, self.cast_frames) =
            (old.sends, old.sends_delivered, old.cast_frames);
        self.copies += old.copies + old.engine.core.copied;
        self.post = old.post.sum(old.engine.posting.counts);
        self.views = old.views + 1;
        self.follow_view(old);
        self.asks_to_stop |= old.asks_to_stop;
        self.engine.core.holds_senders = old.engine.core.holds_senders;
        self.misses = std::mem::take(&mut old.misses);
        self.divergences = std::mem::take(&mut old.divergences);
        // The layers of the new view have begun to count.
        let begun =
            std::mem::replace(&mut self.engine.core.counts, std::mem::take(&mut old.engine.core.counts));
        begun.into_iter().for_each(|count| self.engine.core.count_more(count));
        let traced = std::mem::take(&mut old.engine.core.traced);
        for line in traced.into_iter().rev() {
            self.engine.core.traced.push_front(line);
        }
    }

    /// How many members a view may have as far as the transport is concerned.
    pub(crate) fn set_room(&mut self, room: &Room) {
        self.engine.core.room = room.clone();
        // Layers are asked what follows from it.
        self.engine.core.work += 1;
    }

    /// What was still to be transmitted in this view.
    pub(crate) fn take_outbox(&mut self) -> (ChannelId, std::collections::VecDeque<Transmit>) {
        (self.engine.core.channel, self.engine.core.take_outbox())
    }

    /// The next view could not be opened: the group is over for this process.
    pub(crate) fn not_opened(&mut self, view: &LocalView, why: String, app: &mut dyn Application) {
        self.next = None;
        let what = format!("view {} cannot be opened here: {why}", view.view().id).into();
        let problem = Problem { layer: "stack", origin: None, what };
        app.event(&Event::Problem(problem), &mut Group::new(self));
        self.engine.core.emit_application(Up::Exit(ExitReason::NotOpened));
        self.drain(app);
    }
}

impl List {
    /// The same messages in another frame, which begins with `before` bytes of header.
    pub(super) fn moved(&self, frame: Frame, before: usize) -> List {
        let (from, to) = (frame.start() + before, frame.end());
        if self.is_packed() {
            List::packed(frame, from, to, self.len() as u32)
        } else {
            List::single(frame, from, to)
        }
    }
}
