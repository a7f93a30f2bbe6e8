//! Plans against layers, exhaustively within bounds.
//!
//! For every layer of the registry: the smallest stack it can stand on; all states of one member that few steps lead to,
//! from the beginning of a view, near its last numbers, and where short gossip wraps; and in each of these states every
//! small message there is. Wherever a plan runs, the layers repeat it and the shadow compares: so a guard is never open
//! when the layers would do something else. Wherever it does not, nothing has changed, and the frame does to the layers
//! what its full form does.
//!
//! Then the check is attacked: every single statement that a layer makes of its common case is left out, and every guard
//! that keeps messages off the fast path is forgotten. Each of these stacks must be found wrong.

#![allow(clippy::print_stdout, reason = "what was enumerated is part of the result")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::install::network_properties;
use super::{Early, Legacies, Stack, Waiting, compile};
use crate::accel::case::{CommonCase, Statement};
use crate::accel::execute::{self, Outcome};
use crate::accel::pack::{Closed, OpenPack, PACK_ROOM_BYTES};
use crate::accel::plan::{Compiler, Plan, Plans};
use crate::buf::{Region, RegionOptions};
use crate::config::{Config, Shadow};
use crate::group::{Application, Delivery, Group};
use crate::id::{GroupId, Hasher64, Incarnation, Rank, RankSet, ViewId};
use crate::stack::build::{Build, Closes, Guard};
use crate::stack::core::Core;
use crate::stack::engine::Engine;
use crate::stack::event::{Down, List, Message, NextView, Up};
use crate::stack::gossip::Carried;
use crate::stack::layer::{Context, Fast, Kind, Layer, Posts};
use crate::stack::notices::{Flow, Ways};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::Registry;
use crate::time::Time;
use crate::transport::{Addresses, Caps, Channel, ChannelId, Received};
use crate::view::{Address, LocalView, Member, Neighbours, View};
use crate::wire::bits::low_bits;
use crate::wire::full::NO_CONTROL;
use crate::wire::layout::{Class, Header};
use crate::wire::{PACK_FLAG, Traffic, WIRE_VERSION};

const MEMBERS: usize = 3;
/// Frames of a member that may be unacknowledged: the second cast closes the window.
const WINDOW_FRAMES: u64 = 2;
const FRAME_BYTES: usize = 512;
/// Steps from where a state begins.
const DEPTH: usize = 3;
/// The first bytes of control messages that are tried: 0 and what follows.
const CONTROLS: u8 = 2;
/// Casts of everybody before the first state where short gossip wraps.
const CASTS_BEFORE_WRAP: u64 = 0xffff;

/// Where states begin.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Begin {
    /// A view has just been installed.
    Fresh,
    /// The same, and it has few numbers.
    FewNumbers,
    /// This member has just come into a group that has a state.
    Guest,
    /// Another member has asked for its turn, has had it and has ended it.
    Contested,
    /// So many frames have passed that their numbers no longer fit short gossip.
    Wrapping,
}

/// One thing that is wrong.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// The layer leaves out a statement of its common case, the one with this index.
    Statement(Kind, usize),
    /// The layer forgets to close a guard.
    Guard(Guard),
    /// The compiler makes a wrong plan.
    Plan(Kind, fn(&mut Plan)),
    /// The executor writes before it has checked everything.
    Hasty,
}

/// What a member does or what comes to it.
#[derive(Clone, Copy, Debug)]
enum Action {
    Cast,
    /// Two messages in one frame.
    CastPack,
    Send(RankSet),
    Arrives(Arrival),
    /// The next iteration of the driver loop, so much later.
    Poll(Duration),
    /// The application has seen the first cast of this member.
    Ack(Rank),
    /// This member is said to have failed.
    Fails(Rank),
    /// The same layer at another member says something, of one byte.
    Control(Rank, u8),
}

/// A frame of another member.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Arrival {
    origin: Rank,
    traffic: Traffic,
    /// How far all its numbers are ahead of what is expected.
    ahead: i64,
    /// A protocol field alone that is so much higher.
    odd: Option<(usize, i64)>,
    /// A mark it carries.
    mark: Option<usize>,
    gossip: Says,
    body: Body,
    /// It is a fragment, or whatever else exceptions stand for.
    exceptional: bool,
    /// A message field that is wrong.
    damaged: Option<usize>,
    /// It comes behind a full header.
    full: bool,
    /// Bytes missing at its end.
    cut: usize,
}

/// What a frame's short gossip says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Says {
    /// What was known.
    Known,
    /// That its origin has what this member has.
    Truth,
    /// What was known before.
    Stale,
    /// Something far ahead.
    Nonsense,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Body {
    Empty,
    One,
    Pack,
    /// A pack whose messages are longer than it is.
    Broken,
    /// A layer's own, with that note.
    Blank(&'static [u8]),
}

impl Body {
    fn is_packed(self) -> bool {
        matches!(self, Body::Pack | Body::Broken | Body::Blank(_))
    }
}

/// Notes of blanks: nothing, that their origin leaves, guests (all members and one that is none), an order of a cast of
/// member 1 and one of member 2, and rubbish.
const NOTES: [&[u8]; 8] = [
    &[],
    &[1],
    &[2, 0, 0],
    &[2, 1, 0],
    &[2, 2, 0],
    &[2, 3, 0],
    &[1, 0, 1, 0, 0, 0, 2, 0, 1, 0, 0, 0],
    &[9, 9, 9, 9, 9, 9],
];
/// Those that lead to other states.
const NOTES_TAKEN: [&[u8]; 4] = [NOTES[0], NOTES[1], NOTES[4], NOTES[6]];

/// What was enumerated.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    states: u64,
    messages: u64,
    hits: u64,
    misses: u64,
    /// By kind: whether a plan ran.
    ran: [bool; 5],
}

/// A state, and how it came about.
struct State {
    stack: Stack,
    path: String,
}

/// An application that does nothing.
struct Silent;

impl Application for Silent {
    fn cast(&mut self, _delivery: &Delivery<'_>, _group: &mut Group<'_>) {}
}

/// A layer with something left out.
struct Forgetful {
    inner: Box<dyn Layer>,
    wrong: Wrong,
}

impl Forgetful {
    fn forget(&self, context: &mut Context<'_>) {
        if let Wrong::Guard(guard) = self.wrong {
            (0..MEMBERS).for_each(|rank| context.open(guard, Rank::at(rank)));
        }
    }
}

impl Layer for Forgetful {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn install(&mut self, build: &mut Build<'_>) {
        self.inner.install(build);
    }

    fn start(&mut self, context: &mut Context<'_>) {
        self.inner.start(context);
        self.forget(context);
    }

    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        self.inner.down(context, event);
        self.forget(context);
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        self.inner.up(context, event);
        self.forget(context);
    }

    fn control(&mut self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        self.inner.control(context, origin, message);
        self.forget(context);
    }

    fn timer(&mut self, context: &mut Context<'_>, timer: crate::stack::build::TimerId) {
        self.inner.timer(context, timer);
        self.forget(context);
    }

    fn post(&mut self, context: &mut Context<'_>) {
        self.inner.post(context);
        self.forget(context);
    }

    fn posts(&self) -> Posts {
        self.inner.posts()
    }

    fn prompt(&mut self, context: &mut Context<'_>) -> RankSet {
        let news = self.inner.prompt(context);
        self.forget(context);
        news
    }

    fn post_member(&mut self, context: &mut Context<'_>, member: Rank) {
        self.inner.post_member(context, member);
        self.forget(context);
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        let before = case.statements.len();
        let fast = self.inner.common_case(kind, case);
        if let Wrong::Statement(of, at) = self.wrong
            && of == kind
            && before + at < case.statements.len()
        {
            case.statements.remove(before + at);
        }
        fast
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(Forgetful { inner: self.inner.fork(), wrong: self.wrong })
    }

    fn bequeath(&mut self) -> Option<Box<dyn std::any::Any>> {
        self.inner.bequeath()
    }

    fn inherit(&mut self, legacy: Box<dyn std::any::Any>) {
        self.inner.inherit(legacy);
    }

    fn digest(&self, digest: &mut Hasher64) {
        self.inner.digest(digest);
    }
}

impl Stack {
    /// A copy that goes its own way. Both share regions, and the bytes of frames that are retained.
    fn fork(&self) -> Stack {
        assert!(!self.open.is_open() && self.next.is_none(), "an open pack cannot be copied");
        let mut engine = self.engine.fork();
        let core = &mut engine.core;
        core.left_behind = self.engine.core.left_behind;
        core.loop_numbers = self.engine.core.loop_numbers.clone();
        core.loopback = self.engine.core.loopback.clone();
        core.looped_headers = self.engine.core.looped_headers.clone();
        let copied = |waiting: &Waiting| {
            let Waiting::Frame(Closed { frame, count }) = waiting else { panic!("only frames wait here") };
            let mut copy =
                self.casts.take(self.cast_header_room + PACK_ROOM_BYTES).expect("the region is large");
            copy.extend(frame.bytes()).expect("it has as much room");
            Waiting::Frame(Closed { frame: copy, count: *count })
        };
        let early = |early: &Early| Early { received: early.received.clone(), ..*early };
        Stack {
            engine,
            plans: self.plans.clone(),
            casts: self.casts.clone(),
            time_outs: self.time_outs.clone(),
            open: OpenPack::default(),
            own_run: Vec::new(),
            waiting: self.waiting.iter().map(copied).collect(),
            large: self.large.fork(),
            divergences: Vec::new(),
            early: self.early.iter().map(early).collect(),
            releases: self.releases.clone(),
            last_releases: self.last_releases.clone(),
            prompted: self.prompted.clone(),
            unlike: Vec::new(),
            next: None,
            misses: Vec::new(),
            past: self.past.clone(),
            untold: self.untold.clone(),
            ..*self
        }
    }
}

/// A layer, the stack under it, and the member whose states are enumerated.
struct Bench {
    spec: String,
    layer: &'static str,
    /// Frames of the other members.
    incoming: Region,
    registry: Registry,
    own: Rank,
    begin: Begin,
    wrong: Option<Wrong>,
}

impl Bench {
    fn new(layer: &'static str, own: Rank, begin: Begin, wrong: Option<Wrong>) -> Bench {
        let registry = Registry::standard();
        let spec = smallest_stack(&registry, layer);
        Bench { spec, layer, incoming: region(0), registry, own, begin, wrong }
    }

    fn config(&self) -> Config {
        let limit = if self.begin == Begin::FewNumbers { 1 } else { 1 << 40 };
        Config {
            shadow: Shadow::Off,
            pack: false,
            window_frames: WINDOW_FRAMES,
            frame_bytes_max: FRAME_BYTES,
            waiting_frames_max: 2,
            control_frames: 64,
            early_frames_max: 2,
            order_frames_max: 6,
            frame_number_limit: limit,
            send_number_limit: limit,
            ..Config::default()
        }
    }

    fn view(&self) -> LocalView {
        let member =
            |own: u64| Member { incarnation: Incarnation(own), address: Address(format!("member {own}")) };
        let view = View {
            group: GroupId::named("bounded"),
            id: ViewId { counter: 1, coordinator: Incarnation(1) },
            members: (1..=MEMBERS as u64).map(member).collect(),
            spec: self.spec.clone(),
            wire_version: WIRE_VERSION,
            salt: 7,
            frame_bytes: 0,
        };
        LocalView::new(view, Incarnation(1 + u64::from(self.own.0))).expect("it is one of the members")
    }

    /// The other members.
    fn peers(&self) -> [Rank; MEMBERS - 1] {
        [1, 2].map(|after| Rank::at((self.own.index() + after) % MEMBERS))
    }

    /// Where the enumeration begins.
    fn start(&self) -> Stack {
        let mut legacies = Vec::new();
        if self.begin == Begin::Guest {
            let mut before = self.install(Vec::new());
            let view = self.view().view().clone();
            let together = RankSet::one(self.own);
            let next = NextView { view, together, survivors: together, guest: true };
            let at = before.engine.layers.iter().position(|layer| layer.name() == self.layer);
            let below = at.expect("it is there") + 1;
            before.engine.core.emit_up(below, Up::NextView(Rc::new(next)));
            before.engine.run();
            legacies = before.bequeath().into_iter().filter(|(layer, _)| *layer == self.layer).collect();
        }
        let mut stack = self.install(legacies);
        match self.begin {
            Begin::Wrapping => self.until_wrap(&mut stack),
            Begin::Contested => self.contest(&mut stack),
            Begin::Fresh | Begin::FewNumbers | Begin::Guest => {}
        }
        stack
    }

    fn install(&self, legacies: Legacies) -> Stack {
        let (config, view, caps) = (self.config(), self.view(), caps());
        let channel = Channel { id: ChannelId(0), casts: region(0), control: region(16), long: None };
        let neighbours = Rc::new(Neighbours::default());
        let start = Time::from_nanos(1_000_000);
        let mut stack =
            Stack::new(&config, &self.registry, view, neighbours, channel, &caps, legacies, start)
                .expect("the stack is valid");
        self.spoil(&mut stack);
        stack.drain(&mut Silent);
        clear(&mut stack);
        stack
    }

    /// Puts the wrong layer in place of the right one.
    fn spoil(&self, stack: &mut Stack) {
        let Some(wrong) = self.wrong else { return };
        let mut compiled = self.compiled();
        let at = compiled.layers.iter().position(|layer| layer.name() == self.layer).expect("it is there");
        let layers = [&mut compiled.layers, &mut stack.engine.layers];
        for layers in layers {
            let inner = layers.remove(at);
            layers.insert(at, Box::new(Forgetful { inner, wrong }));
        }
        let (blueprint, layouts, layers) = (&compiled.blueprint, &compiled.layouts, &compiled.layers);
        let (mut plans, counted): (Plans, _) = Compiler { blueprint, layouts, layers }.compile();
        if let Wrong::Plan(kind, spoil) = wrong {
            spoil(plans[kind as usize].as_mut().expect("there is one to spoil"));
        }
        for plan in plans.iter_mut().flatten() {
            plan.cookie ^= stack.engine.core.cookies[self.own.index()][plan.kind.traffic() as usize];
        }
        let core = &mut stack.engine.core;
        if let Ok(plan) = &plans[Kind::CastDeliver as usize] {
            core.gossip.carried = Carried::new(MEMBERS, plan.shape.words(), plan.gossips());
        }
        core.counted = counted;
        core.loop_layer = plans[Kind::CastSend as usize].as_ref().ok().and_then(|plan| plan.loop_layer);
        let step = |kind: Kind| plans[kind as usize].as_ref().ok();
        let deliver = step(Kind::CastDeliver).and_then(|plan| plan.deliver.as_ref());
        let last = step(Kind::CastDeliver).and_then(|plan| plan.last.as_ref());
        stack.releases = deliver.map_or(Vec::new(), |step| step.releases.clone());
        stack.last_releases = last.map_or(Vec::new(), |step| step.releases.clone());
        core.ways = Rc::new(Ways::new(&stack.engine.layers));
        stack.plans = plans;
        (0..MEMBERS).for_each(|rank| self.forget(stack, Rank::at(rank)));
    }

    fn forget(&self, stack: &mut Stack, rank: Rank) {
        if let Some(Wrong::Guard(guard)) = self.wrong {
            Context { core: &mut stack.engine.core, layer: 0 }.open(guard, rank);
        }
    }

    fn compiled(&self) -> super::Compiled {
        compile(&self.registry, &self.view(), network_properties(&caps()), &self.config())
            .expect("the stack is valid")
    }

    /// Everybody casts and sends until numbers do not fit short gossip any more.
    fn until_wrap(&self, stack: &mut Stack) {
        let [one, other] = self.peers();
        let pause = Action::Poll(Duration::from_micros(50));
        for _ in 0..CASTS_BEFORE_WRAP {
            let frame = |origin: Rank, traffic: Traffic| {
                Action::Arrives(Arrival { gossip: Says::Truth, ..Arrival::ordinary(origin, traffic) })
            };
            for action in [
                Action::Cast,
                Action::Send(RankSet::one(one)),
                frame(one, Traffic::Cast),
                frame(other, Traffic::Cast),
                frame(one, Traffic::Send),
                pause,
            ] {
                self.perform(stack, action);
            }
        }
    }

    /// Another member asks for a turn, gets it, and ends it when two casts wait here.
    fn contest(&self, stack: &mut Stack) {
        let [one, other] = self.peers();
        let mark = marks(&stack.engine.core, Traffic::Cast).first().copied();
        let truth = |origin| Arrival { gossip: Says::Truth, ..Arrival::ordinary(origin, Traffic::Cast) };
        for action in [
            Action::Control(one, CONTROLS - 1),
            Action::Poll(Duration::ZERO),
            Action::Poll(Duration::ZERO),
            Action::Arrives(truth(one)),
            Action::Arrives(truth(other)),
            Action::Cast,
            Action::Cast,
            Action::Poll(Duration::ZERO),
            Action::Arrives(Arrival { mark, ..truth(one) }),
        ] {
            self.perform(stack, action);
        }
    }

    /// Does it, if it can be done; says so.
    fn perform(&self, stack: &mut Stack, action: Action) -> bool {
        let app = &mut Silent;
        let done = match action {
            Action::Cast => stack.cast(&[7]).is_ok(),
            Action::CastPack => {
                let room = stack.waiting.is_empty() && stack.entry_open() && stack.numbers_left(1);
                if room {
                    let mut open = OpenPack::default();
                    let frame = stack.casts.take(stack.cast_header_room + PACK_ROOM_BYTES);
                    open.begin(frame.expect("the region is large"), 0);
                    for _ in 0..2 {
                        open.lend(3);
                        open.lent().copy_from_slice(&[1, 2, 3]);
                        open.commit();
                    }
                    let closed = open.close().expect("it is open");
                    stack.enter(closed.frame, closed.count);
                }
                room
            }
            Action::Send(to) => stack.send(&to, &[8, 8]).is_ok(),
            Action::Poll(after) => {
                let now = stack.engine.core.now + after;
                stack.poll(now, app);
                true
            }
            Action::Ack(origin) => {
                stack.ack(origin, 1);
                true
            }
            Action::Control(origin, byte) => {
                let Some(control) = stack.engine.layers.iter().position(|layer| layer.name() == self.layer)
                else {
                    return false;
                };
                let mut frame = self.incoming.take(64).expect("the region is large");
                frame.extend(&[byte]).expect("it is small");
                let frame = frame.freeze();
                let (from, to) = (frame.start(), frame.end());
                let list = List::single(frame, from, to);
                let message = Message { control: control as u8, ..Message::data(Traffic::Raw, list) };
                stack.full_frame(origin, message, app);
                true
            }
            Action::Fails(rank) if stack.live => {
                stack.suspect(RankSet::one(rank));
                true
            }
            Action::Fails(rank) => {
                stack.engine.enter(Down::Flush(RankSet::one(rank)));
                true
            }
            Action::Arrives(arrival) => match self.frame(stack, arrival) {
                None => false,
                Some((_, header)) if arrival.full => {
                    self.arrives_in_full(stack, arrival, header);
                    true
                }
                Some((received, _)) => {
                    let first = first_word(&received);
                    stack.fast_frame(arrival.traffic, arrival.origin, first, received, app);
                    true
                }
            },
        };
        stack.drain(app);
        clear(stack);
        done
    }

    /// The header goes through the layers.
    fn arrives_in_full(&self, stack: &mut Stack, arrival: Arrival, header: Header) {
        let Some(list) = self.payload(arrival.body) else { return };
        let header = Header { gossip: Header::ZERO.gossip, ..header };
        let message = Message { control: NO_CONTROL, header, ..Message::data(arrival.traffic, list) };
        stack.full_frame(arrival.origin, message, &mut Silent);
    }

    fn payload(&self, body: Body) -> Option<List> {
        let bytes = bytes_of(body);
        let mut frame = self.incoming.take(64).expect("the region is large");
        frame.extend(&bytes).expect("it is small");
        let frame = frame.freeze();
        frame.submit();
        let (from, to) = (frame.start(), frame.end());
        List::parse(frame, from, to, body.is_packed()).ok()
    }

    /// The frame as it comes in, and what its header says; `None` if this stack has no such frames.
    fn frame(&self, stack: &Stack, arrival: Arrival) -> Option<(Received, Header)> {
        let core = &stack.engine.core;
        let layout = &core.layouts[arrival.traffic as usize];
        let number_at = layout.frame_number();
        let origin = arrival.origin;
        let mut header = Header::ZERO;
        let mut number = 0;
        for (at, (field, _)) in layout.fields().iter().enumerate() {
            let handle = crate::stack::build::Field { traffic: arrival.traffic, index: at as u8 };
            header.values[at] = match field.class {
                Class::ConnectionId => field.constant,
                Class::Protocol if !field.bound => {
                    core.expected(handle, origin).checked_add_signed(arrival.ahead)?
                }
                Class::Exception if arrival.exceptional => low_bits(field.bits).min(2),
                _ => 0,
            };
            if number_at == Some(at) {
                number = header.values[at];
            }
        }
        if let Some((odd, by)) = arrival.odd {
            header.values[odd] = header.values[odd].checked_add_signed(by)?;
            if number_at == Some(odd) {
                number = header.values[odd];
            }
        }
        for (at, (field, _)) in layout.fields().iter().enumerate() {
            if field.bound {
                header.values[at] = number;
            }
        }
        if let Some(mark) = arrival.mark {
            header.values[mark] = 1;
        }
        let about = match arrival.traffic {
            Traffic::Cast => crate::stack::gossip::subject(origin, number, MEMBERS),
            _ => core.own,
        };
        let riding = core.gossip.definitions.iter().filter(|gossip| gossip.rides_on == Some(arrival.traffic));
        for (short, gossip) in header.gossip.iter_mut().zip(riding) {
            let known = core.reported(gossip.matrix, origin, about);
            if arrival.gossip == Says::Stale && known != core.slots.pair(gossip.matrix, origin, about) {
                // What is not merged yet is that of the last frame: what members say only grows from frame to frame.
                return None;
            }
            *short = match arrival.gossip {
                Says::Known => known,
                Says::Stale => known.wrapping_sub(1),
                Says::Truth => core.own_value(gossip.source, about).max(known),
                Says::Nonsense => known + 0x7ff0,
            } as u16;
        }
        let payload = bytes_of(arrival.body);
        let packed = arrival.body.is_packed();
        let cookie = core.cookies[origin.index()][arrival.traffic as usize];
        let exception = layout.exception(&header);
        for at in (0..layout.fields().len()).rev() {
            if layout.fields()[at].0.class == Class::Message {
                let words = layout.compress(&header);
                header.values[at] =
                    layout.filter(at, cookie, packed, NO_CONTROL, exception, &words, &payload);
            }
        }
        if let Some(damaged) = arrival.damaged {
            header.values[damaged] ^= 1;
        }
        let words = layout.compress(&header);
        let mut bytes = (cookie | if packed { PACK_FLAG } else { 0 }).to_le_bytes().to_vec();
        words[..layout.words()].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        bytes.extend(payload);
        bytes.truncate(bytes.len() - arrival.cut);
        if bytes.len() < 8 {
            // Nobody knows whose it is.
            return None;
        }
        let mut frame = self.incoming.take(0).expect("the region is large");
        frame.extend(&bytes).expect("it is small");
        let frame = frame.freeze();
        frame.submit();
        let (from, to) = (frame.start(), frame.end());
        // What a compressed header does not say, a full one does.
        let mut full = layout.expand(&words);
        for (at, (field, _)) in layout.fields().iter().enumerate() {
            if field.class == Class::Exception {
                full.values[at] = header.values[at];
            }
        }
        Some((Received { channel: ChannelId(0), frame, from, to }, full))
    }

    /// Steps that lead from one state to the next.
    fn steps(&self, stack: &Stack) -> Vec<Action> {
        let core = &stack.engine.core;
        let [one, other] = self.peers();
        let mut steps = vec![
            Action::Cast,
            Action::Send(RankSet::one(one)),
            Action::Fails(one),
            Action::Poll(Duration::ZERO),
            Action::Poll(Duration::from_millis(2)),
        ];
        steps.extend((0..CONTROLS).map(|byte| Action::Control(one, byte)));
        let mut arrives = |arrival: Arrival| steps.push(Action::Arrives(arrival));
        for traffic in [Traffic::Cast, Traffic::Send] {
            let ordinary = Arrival::ordinary(one, traffic);
            arrives(ordinary);
            arrives(Arrival { gossip: Says::Truth, ..ordinary });
            arrives(Arrival { full: true, ..ordinary });
            // A gap: the layers see it, or the frame waits.
            arrives(Arrival { ahead: 1, full: true, ..ordinary });
            arrives(Arrival { ahead: 1, ..ordinary });
            if has_exceptions(core, traffic) {
                arrives(Arrival { exceptional: true, full: true, ..ordinary });
            }
            for mark in marks(core, traffic) {
                arrives(Arrival { mark: Some(mark), ..ordinary });
            }
        }
        if !stack.prompted.is_empty() {
            let ordinary = Arrival::ordinary(one, Traffic::Cast);
            let mark = marks(core, Traffic::Cast).first().copied();
            NOTES_TAKEN
                .into_iter()
                .for_each(|note| arrives(Arrival { body: Body::Blank(note), mark, ..ordinary }));
        }
        arrives(Arrival { gossip: Says::Truth, ..Arrival::ordinary(other, Traffic::Cast) });
        steps
    }

    /// Every small message, in a state.
    fn messages(&self, stack: &Stack) -> Vec<Action> {
        let core = &stack.engine.core;
        let peers = self.peers();
        let mut messages = vec![
            Action::Cast,
            Action::CastPack,
            Action::Send(RankSet::one(peers[0])),
            Action::Send(RankSet::one(peers[1])),
            Action::Send(peers.into_iter().collect()),
            Action::Poll(Duration::ZERO),
            Action::Poll(Duration::from_micros(300)),
            Action::Ack(peers[0]),
        ];
        for origin in peers {
            for traffic in [Traffic::Cast, Traffic::Send] {
                messages.extend(self.arrivals(core, origin, traffic).into_iter().map(Action::Arrives));
            }
        }
        messages
    }

    fn arrivals(&self, core: &Core, origin: Rank, traffic: Traffic) -> Vec<Arrival> {
        let ordinary = Arrival::ordinary(origin, traffic);
        let layout = &core.layouts[traffic as usize];
        let mut all = Vec::new();
        for ahead in [-1, 0, 1, 2] {
            for gossip in [Says::Known, Says::Truth, Says::Stale, Says::Nonsense] {
                all.push(Arrival { ahead, gossip, ..ordinary });
            }
            for body in [Body::Empty, Body::Pack, Body::Broken] {
                all.push(Arrival { ahead, body, gossip: Says::Truth, ..ordinary });
            }
            for full in [false, true] {
                all.push(Arrival { ahead, full, ..ordinary });
                for mark in marks(core, traffic) {
                    all.push(Arrival { ahead, full, mark: Some(mark), ..ordinary });
                }
            }
        }
        for note in NOTES {
            let blank = Arrival { body: Body::Blank(note), ..ordinary };
            let marked = marks(core, traffic).into_iter().map(|mark| Arrival { mark: Some(mark), ..blank });
            all.extend(marked.chain([blank]).flat_map(|blank| [blank, Arrival { full: true, ..blank }]));
        }
        for (at, (field, _)) in layout.fields().iter().enumerate() {
            match field.class {
                Class::Protocol if !field.bound => {
                    // Alone, near and at the far end of what it can say.
                    let end = low_bits(field.bits) as i64;
                    all.extend([-1, 1, end].map(|by| Arrival { odd: Some((at, by)), ..ordinary }));
                }
                Class::Message => all.push(Arrival { damaged: Some(at), ..ordinary }),
                _ => {}
            }
        }
        if has_exceptions(core, traffic) {
            all.push(Arrival { exceptional: true, full: true, ..ordinary });
        }
        all.extend([1, 9].map(|cut| Arrival { cut, ..ordinary }));
        all
    }

    /// All states within the bound; `found` gets each and what leads to it, and says whether to go on.
    fn states(&self, depth: usize, mut found: impl FnMut(&State) -> bool) {
        let start = State { stack: self.start(), path: String::new() };
        let mut known = HashSet::from([digest(&start.stack)]);
        if !found(&start) {
            return;
        }
        let mut frontier = vec![start];
        for level in 1..=depth {
            let mut next = Vec::new();
            for state in &frontier {
                for step in self.steps(&state.stack) {
                    let mut stack = state.stack.fork();
                    if !self.perform(&mut stack, step) || stack.exited.is_some() || stack.next.is_some() {
                        continue;
                    }
                    if known.insert(digest(&stack)) {
                        let reached = State { stack, path: format!("{} | {step:?}", state.path) };
                        if !found(&reached) {
                            return;
                        }
                        if level < depth {
                            next.push(reached);
                        }
                    }
                }
            }
            frontier = next;
        }
    }

    /// Gives a state every message; what is wrong.
    fn check(&self, state: &State, counted: &mut Counted) -> Option<String> {
        counted.states += 1;
        for message in self.messages(&state.stack) {
            let mut stack = state.stack.fork();
            stack.shadow = Shadow::Record;
            stack.plans.iter_mut().flatten().for_each(|plan| plan.straight = false);
            let before = stack.fast;
            if !self.perform(&mut stack, message) {
                continue;
            }
            counted.messages += 1;
            let ran = |fast: &crate::stats::FastPath| fast.send_hit + fast.deliver_hit + fast.deliver_early;
            let missed = |fast: &crate::stats::FastPath| fast.send_miss + fast.deliver_miss;
            counted.hits += ran(&stack.fast) - ran(&before);
            counted.misses += missed(&stack.fast) - missed(&before);
            if ran(&stack.fast) > ran(&before) {
                let kind = match message {
                    Action::Cast | Action::CastPack => Kind::CastSend,
                    Action::Send(_) => Kind::SendSend,
                    Action::Arrives(arrival) => kind_of(arrival.traffic),
                    Action::Poll(_) | Action::Ack(_) | Action::Fails(_) | Action::Control(..) => {
                        Kind::SelfDeliver
                    }
                };
                counted.ran[kind as usize] = true;
            }
            let wrong = stack.divergences.first().cloned().or_else(|| match message {
                Action::Arrives(arrival) if !arrival.full => self.miss_is_harmless(&state.stack, arrival),
                _ => None,
            });
            if let Some(wrong) = wrong {
                return Some(format!("{:?}{}, then {message:?}: {wrong}", self.begin, state.path));
            }
        }
        None
    }

    /// A plan that is missed has changed nothing, and the frame does to the layers what its full form does.
    fn miss_is_harmless(&self, stack: &Stack, arrival: Arrival) -> Option<String> {
        let kind = kind_of(arrival.traffic);
        let mut missed = stack.fork();
        let (received, header) = self.frame(&missed, arrival)?;
        let Ok(plan) = missed.plans[kind as usize].clone() else { return None };
        let (first, origin) = (first_word(&received), arrival.origin);
        let before = digest(&missed);
        let outcome = execute::accept(&mut missed.engine.core, &plan, origin, first, received.bytes());
        if let (Some(Wrong::Hasty), Outcome::Miss(_)) = (self.wrong, &outcome) {
            let core = &mut missed.engine.core;
            *core.slots.word_mut(core.slots.member(origin) + plan.template[0].slot) += plan.template[0].add;
        }
        match outcome {
            Outcome::Hit { .. } => return None,
            Outcome::Early(_) => {
                return (digest(&missed) != before).then(|| "an early frame left a trace".to_string());
            }
            Outcome::Miss(_) if digest(&missed) != before => return Some("a miss left a trace".into()),
            Outcome::Miss(_) => {}
        }
        if arrival.cut > 0 || !stack.early.is_empty() {
            // It has no full form; or frames ahead of it are tried again at another time.
            return None;
        }
        let mut in_full = stack.fork();
        missed.fast_frame(arrival.traffic, origin, first, received, &mut Silent);
        self.arrives_in_full(&mut in_full, arrival, header);
        clear(&mut missed);
        clear(&mut in_full);
        (digest(&missed) != digest(&in_full)).then(|| "expanded, a frame did something else".to_string())
    }

    /// Checks all states; what was counted, and what is wrong if anything is.
    fn run(&self, depth: usize) -> (Counted, Option<String>) {
        let mut counted = Counted::default();
        let mut wrong = None;
        self.states(depth, |state| {
            wrong = self.check(state, &mut counted);
            wrong.is_none()
        });
        (counted, wrong)
    }
}

impl Arrival {
    /// What is expected next.
    fn ordinary(origin: Rank, traffic: Traffic) -> Arrival {
        Arrival {
            origin,
            traffic,
            ahead: 0,
            odd: None,
            mark: None,
            gossip: Says::Known,
            body: Body::One,
            exceptional: false,
            damaged: None,
            full: false,
            cut: 0,
        }
    }
}

fn kind_of(traffic: Traffic) -> Kind {
    if traffic == Traffic::Cast { Kind::CastDeliver } else { Kind::SendDeliver }
}

fn first_word(received: &Received) -> u64 {
    crate::wire::word(received.bytes(), 0).expect("a frame begins with a cookie")
}

fn bytes_of(body: Body) -> Vec<u8> {
    match body {
        Body::Empty => Vec::new(),
        Body::One => vec![5],
        Body::Pack | Body::Broken => {
            // One run of two messages of one byte; or of which there are not so many bytes.
            let mut bytes = crate::wire::pack::run_header(2, 1).to_vec();
            bytes.extend(if body == Body::Pack { &[6, 6][..] } else { &[6][..] });
            bytes
        }
        Body::Blank(note) => [&crate::wire::pack::run_header(0, note.len() as u16)[..], note].concat(),
    }
}

fn marks(core: &Core, traffic: Traffic) -> Vec<usize> {
    let fields = core.layouts[traffic as usize].fields().iter().enumerate();
    fields.filter(|(_, (field, _))| field.class == Class::Mark).map(|(at, _)| at).collect()
}

fn has_exceptions(core: &Core, traffic: Traffic) -> bool {
    core.layouts[traffic as usize].fields().iter().any(|(field, _)| field.class == Class::Exception)
}

/// What left the stack has left it.
fn clear(stack: &mut Stack) {
    let core = &mut stack.engine.core;
    core.outbox.clear();
    core.outside.clear();
    core.excluded.clear();
    core.hint_wanted = false;
    core.traced.clear();
}

/// A hash of everything that decides what a stack does next: what plan and layers agree on, and what waits.
fn digest(stack: &Stack) -> u64 {
    let mut hasher = Hasher64::new(0x626f_756e_6473);
    let core = &stack.engine.core;
    core.digest_contents(&mut hasher);
    stack.engine.layers.iter().for_each(|layer| layer.digest(&mut hasher));
    hasher.word(core.now.as_nanos());
    hasher.word(u64::from(core.work) << 1 | u64::from(core.casts_waiting));
    for looped in core.all_looped() {
        hasher.word(looped.number << 1 | u64::from(looped.slow));
        hasher.bytes(looped.list.payload());
    }
    for early in &stack.early {
        hasher.word(u64::from(early.origin.0) << 8 | early.traffic as u64);
        hasher.bytes(early.received.bytes());
    }
    hasher.word((stack.waiting.len() as u64) << 1 | u64::from(core.prompt_wanted));
    hasher.finish()
}

fn caps() -> Caps {
    Caps {
        name: "bounded",
        frame_bytes_max: FRAME_BYTES,
        multicast: true,
        integrity: true,
        loses: true,
        duplicates: true,
        reorders: true,
        zero_copy: true,
        segmentation: false,
        addresses: Addresses::Names,
        notes: Vec::new(),
    }
}

/// A region that no enumeration uses up.
fn region(reserve_frames: usize) -> Region {
    Region::pool(RegionOptions {
        frames: 1 << 13,
        link_headroom_bytes: 0,
        frame_bytes: FRAME_BYTES,
        reserve_frames,
        huge_pages: false,
    })
    .expect("there is memory for it")
}

/// The smallest stack in which `layer` can stand: beneath it the cheapest providers of what it requires, and theirs.
fn smallest_stack(registry: &Registry, layer: &'static str) -> String {
    fn put(registry: &Registry, name: &'static str, stack: &mut Vec<&'static str>, have: &mut Properties) {
        let entry = registry.get(name).expect("it is registered");
        let mut required: Vec<Property> = entry.requires.iter().collect();
        // Those that others build on come first. Where one layer provides two of them it is needed once.
        required.sort_by_key(|property| provider(registry, *property, name).map_or(0, |(cost, _)| cost));
        for property in &required {
            let of_another = required.iter().any(|other| {
                let named = |property| provider(registry, property, name).map(|(_, name)| name);
                let other = named(*other).filter(|other| Some(*other) != named(*property));
                other.and_then(|other| registry.get(other)).is_some_and(|o| o.provides.contains(*property))
            });
            if of_another {
                continue;
            }
            if !have.contains(*property) {
                let (_, name) = provider(registry, *property, name).expect("some layer provides it");
                put(registry, name, stack, have);
            }
        }
        stack.insert(0, name);
        *have = have.without(entry.destroys).with(entry.provides);
    }
    fn provider(registry: &Registry, property: Property, but: &str) -> Option<(u32, &'static str)> {
        let providers =
            registry.iter().filter(|entry| entry.provides.contains(property) && entry.name != but);
        providers.map(|entry| (entry.cost, entry.name)).min()
    }
    let mut stack = Vec::new();
    let mut have = network_properties(&caps());
    if layer != "COM" {
        put(registry, "COM", &mut stack, &mut have);
    }
    put(registry, layer, &mut stack, &mut have);
    // Turns as short as can be without all casts being the last of one.
    stack.join(":").replace("TOTAL", "TOTAL(burst=2)")
}

fn layer_names() -> Vec<&'static str> {
    Registry::standard().iter().map(|entry| entry.name).collect()
}

/// Checks these benches, each to its depth, and prints what was enumerated.
fn check_all(benches: &[(Bench, usize)]) {
    let mut table = String::new();
    let mut failures = Vec::new();
    let mut sum = [0; 4];
    for (bench, depth) in benches {
        let (counted, wrong) = bench.run(*depth);
        failures.extend(wrong.map(|wrong| format!("{}: {wrong}", bench.spec)));
        let Counted { states, messages, hits, misses, ran } = counted;
        let start = bench.start();
        let all_should = bench.begin == Begin::Fresh && bench.own == Rank(0);
        for kind in Kind::ALL.iter().filter(|kind| all_should && !ran[**kind as usize]) {
            if start.plans[*kind as usize].is_ok() {
                failures.push(format!("{}: no {} plan ran", bench.spec, kind.name()));
            }
        }
        let numbers = [states, messages, hits, misses];
        numbers.iter().zip(&mut sum).for_each(|(number, sum)| *sum += number);
        writeln!(
            table,
            "{:10} {states:6} {messages:8} {hits:8} {misses:8}  {}",
            format!("{:?}", bench.begin),
            bench.spec
        )
        .expect("strings take everything");
    }
    println!("from, states, messages, hits, misses, stack:\n{table}in all {sum:?}");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn plans_do_what_layers_do_in_all_small_states() {
    let mut benches = Vec::new();
    for layer in layer_names() {
        // Where the layer says nothing, what it stands on has been looked at with the layer that does.
        let depth = if omissions(layer).is_empty() { DEPTH - 1 } else { DEPTH };
        benches.push((Bench::new(layer, Rank(0), Begin::Fresh, None), depth));
        benches.push((Bench::new(layer, Rank(1), Begin::Fresh, None), DEPTH - 1));
    }
    check_all(&benches);
}

#[test]
fn plans_do_what_layers_do_at_the_ends() {
    let mut benches = Vec::new();
    for layer in layer_names() {
        let begins_with = |begin: Begin| Bench::new(layer, Rank(0), begin, None);
        benches.push((begins_with(Begin::FewNumbers), DEPTH - 1));
        benches.push((begins_with(Begin::Guest), DEPTH - 1));
        if !marks(&begins_with(Begin::Fresh).start().engine.core, Traffic::Cast).is_empty() {
            benches.push((begins_with(Begin::Contested), DEPTH));
        }
        let riding = |gossip: &crate::stack::build::GossipDefinition| {
            gossip.rides_on.is_some() && gossip.name.starts_with(&format!("{layer}."))
        };
        if begins_with(Begin::Fresh).compiled().blueprint.gossips.iter().any(riding) {
            benches.push((begins_with(Begin::Wrapping), DEPTH - 1));
        }
    }
    assert!(benches.iter().filter(|(bench, _)| bench.begin == Begin::Wrapping).count() >= 3);
    check_all(&benches);
}

/// Everything that can be left out of the common case of a layer, and every guard it can forget.
fn omissions(layer: &'static str) -> Vec<(String, Wrong)> {
    let compiled = Bench::new(layer, Rank(0), Begin::Fresh, None).compiled();
    let at = compiled.layers.iter().position(|other| other.name() == layer).expect("it is there");
    let mut omissions = Vec::new();
    for kind in Kind::ALL {
        if compiled.plans[kind as usize].is_err() {
            continue;
        }
        let mut statements = Vec::new();
        let _ = compiled.layers[at]
            .common_case(kind, &mut CommonCase { kind, layer: at, statements: &mut statements });
        for (index, (_, statement)) in statements.iter().enumerate() {
            // Own copies pass no layer below the one that loops them; and what is bound costs and does nothing.
            let passed = kind != Kind::SelfDeliver || loops_below(&compiled, at);
            if passed && !matches!(statement, Statement::Bound(_)) {
                let what = format!("{layer} without {statement:?} of {}", kind.name());
                omissions.push((what, Wrong::Statement(kind, index)));
            }
        }
    }
    for owner in compiled.blueprint.guards.iter().filter(|owner| owner.layer == at) {
        if owner.closes == Closes::FastPath {
            let what = format!("{layer} without its guard {:?} of {:?}", owner.name, owner.kind);
            omissions.push((what, Wrong::Guard(Guard { kind: owner.kind, mask: owner.mask })));
        }
    }
    omissions
}

fn loops_below(compiled: &super::Compiled, layer: usize) -> bool {
    compiled.layers.iter().skip(layer + 1).any(|below| below.name() == "LOCAL")
}

/// What notices omissions notices nothing where nothing is left out.
#[test]
fn a_layer_with_nothing_left_out_is_no_exception() {
    for layer in layer_names().into_iter().filter(|layer| !omissions(layer).is_empty()) {
        let nothing = Wrong::Statement(Kind::CastSend, usize::MAX / 2);
        let (_, noticed) = Bench::new(layer, Rank(0), Begin::Fresh, Some(nothing)).run(DEPTH - 1);
        assert_eq!(noticed, None, "{layer}");
    }
}

#[test]
fn every_omission_is_noticed() {
    let mut unnoticed = Vec::new();
    let mut count = 0;
    for layer in layer_names() {
        for (what, wrong) in omissions(layer) {
            count += 1;
            let begins = [
                (0, Begin::Fresh),
                (1, Begin::Fresh),
                (0, Begin::FewNumbers),
                (0, Begin::Contested),
                (0, Begin::Guest),
            ];
            let noticed = begins
                .iter()
                .find_map(|(own, begin)| Bench::new(layer, Rank(*own), *begin, Some(wrong)).run(DEPTH - 1).1);
            match noticed {
                Some(noticed) => println!("{what}: {}", &noticed[..noticed.len().min(600)]),
                None => unnoticed.push(what),
            }
        }
    }
    println!("{count} omissions");
    assert!(unnoticed.is_empty(), "not noticed:\n{}", unnoticed.join("\n"));
}

/// The events of a flow, with fields of zero and others.
fn events(bench: &Bench, flow: Flow, control: u8, other: u64) -> (Down, Option<Up>) {
    let traffic = match flow {
        Flow::Cast | Flow::Again => Traffic::Cast,
        Flow::Send | Flow::Control => Traffic::Send,
        Flow::Raw => Traffic::Raw,
    };
    let control = if matches!(flow, Flow::Control | Flow::Raw) { control } else { NO_CONTROL };
    let list = bench.payload(Body::One).expect("it is one message");
    let mut message = Message { control, ..Message::data(traffic, list) };
    message.header.values.fill(other);
    let (origin, to) = (bench.peers()[0], RankSet::one(bench.peers()[1]));
    match flow {
        Flow::Cast => (Down::Cast(message.clone()), Some(Up::Cast(origin, message))),
        Flow::Send | Flow::Control => (Down::Send(to, message.clone()), Some(Up::Send(origin, message))),
        Flow::Raw => (Down::Raw(to, message.clone()), Some(Up::Raw(origin, message))),
        Flow::Again => (Down::Resend(to, message), None),
    }
}

#[test]
fn what_a_layer_does_not_look_at_passes_it_unchanged() {
    let mut passed = 0;
    for layer in layer_names() {
        let begins = [Begin::Fresh, Begin::Guest];
        for begin in &begins[..1 + usize::from(layer == "XFER")] {
            let bench = Bench::new(layer, Rank(0), *begin, None);
            bench.states(2, |state| {
                let layers = &state.stack.engine.layers;
                let at = layers.iter().position(|other| other.name() == layer).expect("it is there");
                let notices = layers[at].notices();
                // For another layer, wherever that is.
                let control = if at == 0 { 1 } else { 0 };
                let flows = [Flow::Cast, Flow::Send, Flow::Control, Flow::Raw, Flow::Again];
                for (flow, other) in flows.into_iter().flat_map(|flow| [(flow, 0), (flow, 1)]) {
                    let (down, up) = events(&bench, flow, control, other);
                    let run = |goes_up: bool| {
                        let mut stack = state.stack.fork();
                        let before = digest(&stack);
                        let Engine { core, layers, .. } = &mut stack.engine;
                        let mut expected = core.clone();
                        let mut context = Context { core, layer: at };
                        if let Some(up) = up.clone().filter(|_| goes_up) {
                            expected.emit_up(at, up.clone());
                            layers[at].up(&mut context, up);
                        } else {
                            expected.emit_down(at + 1, down.clone());
                            layers[at].down(&mut context, down.clone());
                        }
                        let emitted = |core: &Core| format!("{:?} {:?}", core.queue, core.emerged);
                        let what = format!("{layer}{}, {flow:?}, up: {goes_up}", state.path);
                        assert_eq!(emitted(core), emitted(&expected), "{what}");
                        assert_eq!(digest(&stack), before, "{what}");
                    };
                    for goes_up in [false, true] {
                        if !notices.has(flow, goes_up) && (!goes_up || up.is_some()) {
                            run(goes_up);
                            passed += 1;
                        }
                    }
                }
                true
            });
        }
    }
    println!("{passed} messages passed by");
    assert!(passed > 10_000, "{passed}");
}

/// Plans that are wrong: of which layer's stack, what is wrong, and how.
const WRONG_PLANS: &[(&str, &str, Wrong)] = &[
    ("NAK", "bumps its number twice", Wrong::Plan(Kind::CastDeliver, |plan| plan.template[0].add *= 2)),
    ("NAK", "bumps the number it casts twice", Wrong::Plan(Kind::CastSend, |plan| plan.template[0].add *= 2)),
    (
        "UNICAST",
        "bumps a send's number twice",
        Wrong::Plan(Kind::SendDeliver, |plan| plan.template[0].add *= 2),
    ),
    ("NAK", "compares nothing", Wrong::Plan(Kind::CastDeliver, |plan| plan.template[0].mask = 0)),
    (
        "NAK",
        "does not compare the lowest bit",
        Wrong::Plan(Kind::CastDeliver, |plan| plan.template[0].mask &= !1),
    ),
    ("NAK", "casts under a stale cookie", Wrong::Plan(Kind::CastSend, |plan| plan.cookie = 1)),
    ("UNICAST", "sends under a stale cookie", Wrong::Plan(Kind::SendSend, |plan| plan.cookie = 1)),
    ("NAK", "reads its number elsewhere", Wrong::Plan(Kind::CastDeliver, |plan| plan.number.shift += 1)),
    ("NAK", "numbers what it retains wrongly", Wrong::Plan(Kind::CastSend, |plan| plan.number.mask = 0)),
    (
        "CHKSUM",
        "reads its checksum elsewhere",
        Wrong::Plan(Kind::CastDeliver, |plan| plan.filters[0].spot.shift += 1),
    ),
    (
        "CHKSUM",
        "writes its checksum elsewhere",
        Wrong::Plan(Kind::CastSend, |plan| plan.filters[0].spot.shift += 1),
    ),
    ("NAK", "has the limit of another guard", Wrong::Plan(Kind::CastSend, |plan| plan.limits[0].limit += 1)),
    ("NAK", "closes another guard", Wrong::Plan(Kind::CastSend, |plan| plan.limits[0].bits <<= 4)),
    ("NAK", "retains what comes", Wrong::Plan(Kind::CastDeliver, |plan| plan.retain = true)),
    ("LOCAL", "loops from another layer", Wrong::Plan(Kind::CastSend, |plan| plan.loop_layer = Some(1))),
    ("TOTAL", "waits for nothing", Wrong::Plan(Kind::CastDeliver, |plan| deliver(plan).releases.clear())),
    (
        "TOTAL",
        "waits for another word",
        Wrong::Plan(Kind::CastDeliver, |plan| deliver(plan).releases[0] += 1),
    ),
    (
        "TOTAL",
        "looks for the mark elsewhere",
        Wrong::Plan(Kind::CastDeliver, |plan| {
            plan.marks.1 = 1;
        }),
    ),
    ("SAFE", "delivers before it is safe", Wrong::Plan(Kind::SelfDeliver, |plan| plan.last = None)),
    ("NAK", "writes before it has checked", Wrong::Hasty),
    ("UNICAST", "writes before it has checked", Wrong::Hasty),
];

fn deliver(plan: &mut Plan) -> &mut crate::accel::plan::DeliverStep {
    plan.deliver.as_mut().expect("it has a second step")
}

#[test]
fn every_wrong_plan_is_noticed() {
    let mut unnoticed = Vec::new();
    for (layer, what, wrong) in WRONG_PLANS {
        let noticed =
            [(Begin::Fresh, DEPTH - 1), (Begin::Contested, DEPTH)].iter().find_map(|(begin, depth)| {
                let bench = Bench::new(layer, Rank(0), *begin, Some(*wrong));
                let run = catch_unwind(AssertUnwindSafe(|| bench.run(*depth)));
                let Ok((counted, noticed)) = run else { return Some("a panic".to_string()) };
                noticed.or_else(|| match wrong {
                    Wrong::Plan(kind, _) if !counted.ran[*kind as usize] => Some("it never runs".to_string()),
                    _ => None,
                })
            });
        match noticed {
            Some(noticed) => println!("{layer} {what}: {}", &noticed[..noticed.len().min(300)]),
            None => unnoticed.push(format!("{layer} {what}")),
        }
    }
    assert!(unnoticed.is_empty(), "not noticed:\n{}", unnoticed.join("\n"));
}
