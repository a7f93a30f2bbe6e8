//! UNICAST: reliable FIFO sends to some members, and the service under reliable control messages.
//!
//! | | |
//! |---|---|
//! | requires | P1 best effort, P10 byte-reorder detection, P11 source address, P17 integrity |
//! | provides | P3 reliable FIFO unicast |
//! | promises | every send to a live member arrives there once and in order of sending; nobody else gets it |
//! | costs | 40 bits of number per send, 16 bits of gossip; sends are retained until acknowledged |
//!
//! Sends are numbered per peer. Receivers report how many they have (gossip `acked`, riding on sends the other way and
//! in rows); a sender repeats what is not acknowledged in time, at growing intervals. Control messages of layers may
//! use a reserve beyond the window, so that they pass when the application's sends do not (design D9).
//!
//! ```text
//! A ── send 3 ──▶ B        A ── send 4 ──x
//! A ── send 4 ──▶ B        (not acknowledged in time)
//! B ── acked: A 5 ──▶ A    (A lets go of 3 and 4)
//! ```
//!
//! After Ensemble's `pt2pt` (Hayden, 1998).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::mistake::Mistake;
use crate::accel::case::{CommonCase, Target};
use crate::id::{Hasher64, Rank, RankSet};
use crate::stack::backoff::Backoff;
use crate::stack::build::{
    Build, Closes, Field, Gossip, GossipSource, Guard, GuardKind, HeldFor, TimerId, shared,
};
use crate::stack::event::{Down, Message, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer, Look, Posts};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::{LayerEntry, ParameterError, Parameters};
use crate::stack::slots::{MatrixSlot, MemberSlot};
use crate::time::Time;
use crate::wire::Traffic;

const NUMBER_BITS: u32 = 40;
/// The most sends repeated to one peer at once: repair traffic is bounded.
const REPEAT_MAX: u64 = 16;
/// The most control messages to one peer that wait for the reserve. Layers are told "not now" before it is full; only what
/// layers in between add (fragments, say) comes to wait.
const PUT_OFF_MAX: usize = 64;

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "UNICAST",
        about: "reliable FIFO sends",
        requires: Properties::of(&[
            Property::BestEffort,
            Property::ByteReorderDetection,
            Property::SourceAddress,
            Property::Integrity,
        ]),
        provides: Properties::of(&[Property::FifoUnicast]),
        destroys: Properties::NONE,
        cost: 2,
        parameters: &[
            (
                "window",
                "sends to one peer that may be unacknowledged (default: half of the endpoint's window_frames; never more than the peer's share of half of its control_frames)",
            ),
            (
                "repeat_us",
                "how long a send may be unacknowledged before it is repeated, in microseconds (default 2000)",
            ),
            ("backoff_us", "the longest interval between repetitions, in microseconds (default 50000)"),
            #[cfg(feature = "laboratory")]
            ("broken", "wrong on purpose, for the museum: which way (default no)"),
        ],
        make: |parameters| Ok(Box::new(Unicast::new(parameters)?)),
    }
}

#[derive(Clone)]
struct Unicast {
    mistake: Mistake,
    window: u64,
    repeat: Duration,
    backoff: Duration,
    handles: Option<Handles>,
    /// By origin: sends that came early, by number.
    parked: Vec<BTreeMap<u64, Message>>,
    /// By peer: when what is not acknowledged is repeated, and what was acknowledged when there was progress last. Each
    /// has a due time of its own: acknowledgements of one must not put off what another lacks.
    repeats: Vec<Backoff>,
    repeat_at: Vec<u64>,
    /// By peer: control messages that found the reserve full.
    put_off: Vec<VecDeque<Message>>,
}

#[derive(Clone, Copy)]
struct Handles {
    number: Field,
    acked: MatrixSlot,
    out_of_turn: MemberSlot,
    gossip: Gossip,
    /// Per peer: number at which the window closes.
    limit: MemberSlot,
    window_closed: Guard,
    gap: Guard,
    repeat: TimerId,
}

impl Unicast {
    fn new(parameters: &Parameters) -> Result<Unicast, ParameterError> {
        let micros =
            |name, default| parameters.number(name, default, 1..=10_000_000).map(Duration::from_micros);
        Ok(Unicast {
            mistake: Mistake::of(parameters)?,
            // Zero stands for half of the endpoint's.
            window: parameters.number("window", 0, 1..=crate::config::WINDOW_FRAMES_MAX)?,
            repeat: micros("repeat_us", 2000)?,
            backoff: micros("backoff_us", 50_000)?,
            handles: None,
            parked: Vec::new(),
            repeats: Vec::new(),
            repeat_at: Vec::new(),
            put_off: Vec::new(),
        })
    }

    fn handles(&self) -> Handles {
        self.handles.expect("installed before use")
    }

    /// Sends to `peer` that it may have unacknowledged in all: control messages have as much again as the application.
    fn reserve(&self) -> u64 {
        2 * self.window
    }

    /// How many more sends to `peer` fit the reserve.
    fn room(&self, context: &Context<'_>, peer: Rank) -> u64 {
        let Handles { number, limit, .. } = self.handles();
        let end = context.of(limit, peer) - self.window + self.reserve();
        end.saturating_sub(context.sending(number, peer))
    }

    fn send(&mut self, context: &mut Context<'_>, peer: Rank, mut message: Message) {
        if peer == context.rank() {
            context.up(Up::Send(peer, message));
            return;
        }
        let Handles { number, limit, window_closed, .. } = self.handles();
        let next = context.sending(number, peer);
        if self.room(context, peer) == 0 {
            // Only control messages come here: the application's entry closed at the window.
            if self.put_off[peer.index()].len() < PUT_OFF_MAX {
                context.count("control message put off");
                self.put_off[peer.index()].push_back(message);
            } else {
                context.count("control message lost: too many put off");
                let reason = "more control messages were sent than a peer acknowledges";
                context.up(Up::LostMessage { origin: context.rank(), reason });
            }
            return;
        }
        message.number = next;
        message.header.values[usize::from(number.index)] = next;
        context.advance_sending(number, peer);
        context.retain_send(peer, &message);
        if next + 1 >= context.of(limit, peer) {
            context.close(window_closed, peer);
        }
        context.down(Down::Send(RankSet::one(peer), message));
    }

    fn arrived(&mut self, context: &mut Context<'_>, origin: Rank, message: Message) {
        let Handles { number, gap, out_of_turn, .. } = self.handles();
        let arrived = message.header.values[usize::from(number.index)];
        let expected = context.expected(number, origin);
        if arrived != expected {
            context.count_of(out_of_turn, origin);
        }
        if arrived < expected {
            // The acknowledgement was lost: say it again.
            context.count("duplicate");
            if !self.mistake.is(Mistake::SaysItOnce) {
                context.gossip_now(false);
            }
        } else if arrived > expected {
            if arrived - expected >= self.reserve() {
                context.count("beyond the window");
                return;
            }
            if self.parked[origin.index()].insert(arrived, message).is_some() {
                context.count("duplicate");
            }
            context.close(gap, origin);
        } else {
            self.accept(context, origin, message);
            while let Some(next) = self.parked[origin.index()].remove(&context.expected(number, origin)) {
                self.accept(context, origin, next);
            }
            if self.parked[origin.index()].is_empty() {
                context.open(gap, origin);
            }
        }
    }

    fn accept(&self, context: &mut Context<'_>, origin: Rank, mut message: Message) {
        let number = self.handles().number;
        message.number = context.expected(number, origin);
        context.advance_expected(number, origin);
        context.up(Up::Send(origin, message));
    }

    /// How many of this member's sends `peer` says that it has.
    fn reported(&self, context: &Context<'_>, peer: Rank) -> u64 {
        let (acked, own) = (self.handles().acked, context.rank());
        let swapped = self.mistake.is(Mistake::TakesOwnForTheirs);
        if swapped { context.pair(acked, own, peer) } else { context.pair(acked, peer, own) }
    }

    fn acknowledged(&self, context: &Context<'_>, peer: Rank) -> u64 {
        self.reported(context, peer).min(context.sending(self.handles().number, peer))
    }
}

impl Layer for Unicast {
    fn name(&self) -> &'static str {
        "UNICAST"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        // Retention holds the endpoint's window; the reserve for control messages takes half of it.
        let most = (build.window_max() / 2).min(build.control_frames() / 2).max(1);
        let limit = "it is half of Config::window_frames, and at most half of Config::control_frames";
        // The share is the smaller, the more members a view has.
        self.window = build.window(self.window, most, limit).min(build.control_share());
        let members = build.view().size();
        self.parked = vec![BTreeMap::new(); members];
        self.repeats = vec![Backoff::new(self.repeat, self.backoff); members];
        self.repeat_at = vec![0; members];
        self.put_off = vec![VecDeque::new(); members];
        let number = build.number_field(Traffic::Send, "number", NUMBER_BITS);
        let acked = build.shared_matrix_slot(shared::ACKED);
        let source = GossipSource::Accepted(number);
        let limit = build.member_slot();
        build.reliable_sends(limit, self.reserve() - self.window);
        self.handles = Some(Handles {
            number,
            acked,
            out_of_turn: build.shared_member_slot(shared::OUT_OF_TURN),
            gossip: build.gossip("acked", source, acked, Some(Traffic::Send), Some((self.window / 4).max(1))),
            limit,
            window_closed: build.guard(
                GuardKind::SendSend,
                "window full",
                Closes::Entry(HeldFor::Acknowledgements),
            ),
            gap: build.guard(GuardKind::SendDeliver, "gap", Closes::FastPath),
            repeat: build.timer("repeat"),
        });
    }

    fn start(&mut self, context: &mut Context<'_>) {
        for peer in (0..context.view().size()).map(Rank::at) {
            context.set_of(self.handles().limit, peer, self.window);
        }
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.down(&[Flow::Send, Flow::Control]).up(&[Flow::Send, Flow::Control])
    }

    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        let Down::Send(to, message) = event else {
            context.down(event);
            return;
        };
        let mut to = to.iter();
        let Some(mut peer) = to.next() else { return };
        for next in to {
            self.send(context, std::mem::replace(&mut peer, next), message.clone());
        }
        self.send(context, peer, message);
    }

    fn look_up(&mut self, _context: &mut Context<'_>, event: &Up) -> Look {
        if matches!(event, Up::Send(..)) { Look::Takes } else { Look::Passes }
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        match event {
            Up::Send(origin, message) => self.arrived(context, origin, message),
            event => context.up(event),
        }
    }

    fn timer(&mut self, context: &mut Context<'_>, timer: TimerId) {
        let number = self.handles().number;
        for peer in context.view().others() {
            if !self.repeats[peer.index()].take(context.now()) {
                continue;
            }
            let acknowledged = self.acknowledged(context, peer);
            let sent = context.sending(number, peer);
            if acknowledged == sent {
                continue;
            }
            for at in acknowledged..sent.min(acknowledged + REPEAT_MAX) {
                if let Some(message) = context.recall_send(peer, at) {
                    context.count("repetition");
                    context.down(Down::Resend(RankSet::one(peer), message));
                }
            }
            self.repeats[peer.index()].repeat(context.now());
        }
        context.arm_or_disarm(timer, Backoff::first_due(&self.repeats));
    }

    fn posts(&self) -> Posts {
        Posts::EachMember
    }

    fn post_member(&mut self, context: &mut Context<'_>, peer: Rank) {
        if peer == context.rank() {
            return;
        }
        let Handles { number, limit, window_closed, .. } = self.handles();
        let sent = context.sending(number, peer);
        let acknowledged = self.reported(context, peer).min(sent);
        let at = peer.index();
        if [acknowledged, self.repeat_at[at]] == [sent; 2]
            && self.repeats[at].due() == Time::NEVER
            && self.put_off[at].is_empty()
        {
            // All was as it is when somebody looked last.
            return;
        }
        context.trim_sends(peer, acknowledged);
        context.set_of(limit, peer, acknowledged + self.window);
        if sent < acknowledged + self.window {
            context.open(window_closed, peer);
        }
        let (wait, at) = (&mut self.repeats[peer.index()], &mut self.repeat_at[peer.index()]);
        if acknowledged > *at {
            *at = acknowledged;
            wait.settle();
        }
        if acknowledged == sent {
            wait.settle();
        } else {
            wait.begin(context.now());
        }
        if self.put_off[peer.index()].is_empty() {
            return;
        }
        for _ in 0..self.room(context, peer).min(self.put_off[peer.index()].len() as u64) {
            if let Some(message) = self.put_off[peer.index()].pop_front() {
                self.send(context, peer, message);
            }
        }
    }

    fn post(&mut self, context: &mut Context<'_>) {
        let repeat = self.handles().repeat;
        context.arm_or_disarm(repeat, Backoff::first_due(&self.repeats));
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        let handles = self.handles();
        match kind {
            Kind::SendSend => {
                case.advance(handles.number);
                case.gossip(handles.gossip);
                case.retain();
                case.limit(handles.number, Target::Member(handles.limit), handles.window_closed);
                Fast::Declared
            }
            Kind::SendDeliver => {
                case.advance(handles.number);
                case.gossip(handles.gossip);
                Fast::Declared
            }
            Kind::CastSend | Kind::CastDeliver | Kind::SelfDeliver => Fast::Transparent,
        }
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn digest(&self, digest: &mut Hasher64) {
        for parked in &self.parked {
            digest.word(parked.len() as u64);
            for number in parked.keys() {
                digest.word(*number);
            }
        }
        for (repeat, at) in self.repeats.iter().zip(&self.repeat_at) {
            repeat.digest(digest);
            digest.word(*at);
        }
        for message in self.put_off.iter().flatten() {
            digest.bytes(message.list.payload());
        }
    }

    fn time_outs(&self) -> Vec<(&'static str, Duration)> {
        vec![("repeat", self.repeat), ("backoff", self.backoff)]
    }

    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let number = self.handles().number;
        let line = |peer: Rank| {
            format!(
                "{peer}: sent {}, acknowledged {}",
                context.sending(number, peer),
                self.acknowledged(context, peer)
            )
        };
        let lines: Vec<String> = context.view().others().map(line).collect();
        Some(format!("window {}; {}", self.window, lines.join("; ")))
    }
}
