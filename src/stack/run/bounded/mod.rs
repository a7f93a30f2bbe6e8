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
use super::{Checked, Compiled, Early, Legacies, Specs, Stack, Waiting, compile};
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
use crate::stack::event::{Cut, Down, List, Message, NextView, Up};
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

mod attacks;
mod states;

use attacks::{Forgetful, omissions};
use states::{digest, marks};

const MEMBERS: usize = 3;
/// Frames of a member that may be unacknowledged: the second cast closes the window.
const WINDOW_FRAMES: u64 = 2;
const FRAME_BYTES: usize = 512;
/// Steps from where a state begins.
const DEPTH: usize = 3;
/// Passes of post-processing after which nothing more follows from a message.
const PASSES: usize = 3;
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
}

/// What a member does or what comes to it.
#[derive(Clone, Copy, Debug)]
enum Action {
    Cast,
    /// The same, agreed and not safe.
    CastAgreed,
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
    /// What has been accepted of everybody is all that belongs to the view.
    Cuts,
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
            gossip.rides_on.is_some() && gossip.name.layer == layer
        };
        if begins_with(Begin::Fresh).compiled().blueprint.gossips.iter().any(riding) {
            benches.push((begins_with(Begin::Wrapping), DEPTH - 1));
        }
    }
    assert!(benches.iter().filter(|(bench, _)| bench.begin == Begin::Wrapping).count() >= 3);
    check_all(&benches);
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
