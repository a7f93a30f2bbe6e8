//! FRAG: messages larger than a frame.
//!
//! | | |
//! |---|---|
//! | requires | P3, P4 reliable FIFO sends and casts |
//! | provides | P12 messages larger than a frame |
//! | promises | a message of up to the limit is delivered whole, once, at the place of its last frame in the order; one beyond the limit, or made of fragments that do not fit together, is dropped, counted and told as a problem |
//! | costs | nothing for a message that fits a frame: its two fields are zero then, and travel in full headers only; a fragment takes the layers, behind a full header, and its bytes are copied once at either end |
//!
//! A large message waits where all casts wait, above the top layer, and is handed down a frame at a time as window and
//! credit allow; what is cast after it waits behind it. So flow control speaks of fragments as of any frames, and nothing
//! below ever holds a part. FRAG writes into the headers which part of the message a frame is, and reads it at the other
//! end; every layer, above it too, sees each frame once, in both directions. The parts are put together where deliveries
//! leave the stack. A whole message is named by its last frame.
//!
//! ```text
//! A ── 7: first, 3000 left ──▶ B      A ── 8: 1700 left ──▶ B      A ── 9: 400 left ──▶ B
//!                                                                  9, 3000 bytes: up      A ── 10 ──▶ B
//! ```
//!
//! While a message is partly there, everything of its origin takes the layers (the deliver guards are closed): a whole
//! message in the middle of another is not overlooked.
//!
//! After the FRAG layer of Horus (van Renesse et al., 1996) and Ensemble's `frag` (Hayden, 1998), which mark fragments
//! too, so that flow control cannot reorder them.

use std::any::Any;
use std::time::Duration;

use super::mistake::Mistake;
use crate::accel::case::CommonCase;
use crate::id::{Hasher64, Rank};
use crate::stack::build::{Build, Closes, Field, Guard, GuardKind};
use crate::stack::event::{Down, Message, Part, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::LayerEntry;
use crate::time::Time;
use crate::wire::Traffic;

/// Bits of a message's length.
const LEFT_BITS: u32 = 32;

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "FRAG",
        about: "messages larger than a frame",
        requires: Properties::of(&[Property::FifoUnicast, Property::FifoMulticast]),
        provides: Properties::of(&[Property::LargeMessages]),
        destroys: Properties::NONE,
        cost: 1,
        parameters: &[
            (
                "bytes",
                "the longest message that is carried, in bytes (default and most: Config::message_bytes_max)",
            ),
            #[cfg(feature = "laboratory")]
            ("broken", "wrong on purpose, for the museum: which way (default no)"),
        ],
        make: |parameters| {
            let bytes_max = parameters.number("bytes", 0, 0..=u64::from(u32::MAX))?;
            Ok(Box::new(Frag {
                bytes_max,
                mistake: Mistake::of(parameters)?,
                handles: None,
                progress: Default::default(),
                quiet_until: Vec::new(),
            }))
        },
    }
}

#[derive(Clone)]
struct Frag {
    bytes_max: u64,
    mistake: Mistake,
    /// For casts, for sends.
    handles: Option<[Handles; 2]>,
    /// By kind of traffic and origin.
    progress: [Vec<Progress>; 2],
    /// By origin: before this no fault of it is told.
    quiet_until: Vec<Time>,
}

#[derive(Clone, Copy)]
struct Handles {
    first: Field,
    left: Field,
    partial: Guard,
}

/// How far a message of an origin has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// There is none.
    Idle,
    /// So many bytes are still to come.
    Left(u64),
    /// It was refused; what is still to come of it is ignored.
    Refused,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A message begins, but the one before has not ended; nothing is wrong with the new one.
    Unfinished,
    /// The message is longer than the limit.
    TooLong,
    /// A fragment without bytes, with more than are left, or a pack.
    Malformed,
    /// Not the fragment that is due.
    OutOfPlace,
}

impl Fault {
    fn text(self) -> &'static str {
        match self {
            Fault::Unfinished => "message cut short by another",
            Fault::TooLong => "message beyond the limit",
            Fault::Malformed => "malformed fragment",
            Fault::OutOfPlace => "fragment out of place",
        }
    }
}

impl Progress {
    /// What a frame changes: how far its message has come then, what the frame counts for, and what is wrong. `bytes` is
    /// the frame's payload, `None` for a pack.
    fn step(self, part: Part, bytes: Option<u64>, bytes_max: u64) -> (Progress, Part, Option<Fault>) {
        let refuse = |fault| (Progress::Refused, Part::Void, Some(fault));
        let Part::Fragment { first, left } = part else {
            let unfinished = matches!(self, Progress::Left(_)).then_some(Fault::Unfinished);
            return (Progress::Idle, Part::Whole, unfinished);
        };
        match (first, self) {
            (false, Progress::Refused) => return (Progress::Refused, Part::Void, None),
            (false, Progress::Left(due)) if due == left => {}
            (false, _) => return refuse(Fault::OutOfPlace),
            (true, _) if left > bytes_max => return refuse(Fault::TooLong),
            (true, _) => {}
        }
        let Some(bytes) = bytes.filter(|bytes| (1..=left).contains(bytes)) else {
            return refuse(Fault::Malformed);
        };
        let after = if bytes == left { Progress::Idle } else { Progress::Left(left - bytes) };
        let unfinished = (first && matches!(self, Progress::Left(_))).then_some(Fault::Unfinished);
        (after, part, unfinished)
    }
}

impl Frag {
    fn handles(&self, traffic: Traffic) -> Handles {
        self.handles.expect("installed before use")[traffic as usize]
    }

    /// Writes which part of a message a frame is.
    fn write(&self, message: &mut Message) {
        if let Part::Fragment { first, left } = message.part {
            let handles = self.handles(message.traffic);
            message.set_field(handles.first, u64::from(first));
            message.set_field(handles.left, left);
        }
    }

    /// Finds out which part of a message a frame is.
    fn read(&mut self, context: &mut Context<'_>, origin: Rank, message: &mut Message) {
        let Handles { first, left, partial } = self.handles(message.traffic);
        let part = match (message.field(first) != 0, message.field(left)) {
            (false, 0) => Part::Whole,
            (first, left) => Part::Fragment { first, left },
        };
        let of = if self.mistake.is(Mistake::OneProgress) { Traffic::Cast } else { message.traffic };
        let from = if self.mistake.is(Mistake::MixesOrigins) { 0 } else { origin.index() };
        let progress = &mut self.progress[of as usize][from];
        if part == Part::Whole && *progress == Progress::Idle {
            return;
        }
        let bytes = (!message.list.is_packed()).then(|| message.list.payload().len() as u64);
        let (after, part, fault) = progress.step(part, bytes, context.fragmented_bytes_max());
        *progress = after;
        message.part = part;
        if after == Progress::Idle {
            context.open(partial, origin);
        } else {
            context.close(partial, origin);
        }
        if let Some(fault) = fault {
            context.count(fault.text());
            // All are counted, and a few are told: a member that is at fault is so with every message.
            let quiet_until = &mut self.quiet_until[origin.index()];
            if context.now() >= *quiet_until {
                *quiet_until = context.now() + PAUSE;
                context.problem(Some(origin), fault.text());
            }
        }
    }
}

/// Between two faults of one member that are told.
const PAUSE: Duration = Duration::from_millis(100);

impl Layer for Frag {
    fn name(&self) -> &'static str {
        "FRAG"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        self.quiet_until = vec![Time::ZERO; build.view().size()];
        self.progress = [(); 2].map(|()| vec![Progress::Idle; build.view().size()]);
        build.carry_fragments(self.bytes_max);
        let guards = [GuardKind::CastDeliver, GuardKind::SendDeliver];
        self.handles = Some([Traffic::Cast, Traffic::Send].map(|traffic| Handles {
            first: build.exception_field(traffic, "first", 1),
            left: build.exception_field(traffic, "left", LEFT_BITS),
            partial: build.guard(guards[traffic as usize], "message partly there", Closes::FastPath),
        }));
    }

    fn bequeath(&mut self) -> Option<Box<dyn Any>> {
        self.mistake.is(Mistake::KeepsParts).then(|| Box::new(self.progress.clone()) as Box<dyn Any>)
    }

    fn inherit(&mut self, legacy: Box<dyn Any>) {
        let Ok(legacy) = legacy.downcast::<[Vec<Progress>; 2]>() else { return };
        for (mine, past) in self.progress.iter_mut().zip(*legacy) {
            mine.iter_mut().zip(past).for_each(|(mine, past)| *mine = past);
        }
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.down(&[Flow::Cast, Flow::Send]).up(&[Flow::Cast, Flow::Send])
    }

    fn down(&mut self, context: &mut Context<'_>, mut event: Down) {
        if let Down::Cast(message) | Down::Send(_, message) = &mut event {
            self.write(message);
        }
        context.down(event);
    }

    fn up(&mut self, context: &mut Context<'_>, mut event: Up) {
        if let Up::Cast(origin, message) | Up::Send(origin, message) = &mut event
            && !message.is_control()
        {
            self.read(context, *origin, message);
        }
        context.up(event);
    }

    fn common_case(&self, _kind: Kind, _case: &mut CommonCase<'_>) -> Fast {
        Fast::Transparent
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn time_outs(&self) -> Vec<(&'static str, Duration)> {
        vec![("between faults told", PAUSE)]
    }

    fn digest(&self, digest: &mut Hasher64) {
        for progress in self.progress.iter().flatten() {
            digest.word(match progress {
                Progress::Idle => 0,
                Progress::Left(left) => *left,
                Progress::Refused => u64::MAX,
            });
        }
    }

    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let partly = self.progress.iter().flatten().filter(|progress| **progress != Progress::Idle).count();
        Some(format!("messages of up to {} bytes; {partly} partly there", context.fragmented_bytes_max()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 1000;

    fn part(first: bool, left: u64) -> Part {
        Part::Fragment { first, left }
    }

    #[test]
    fn every_frame_in_every_state_has_one_outcome() {
        use Fault::*;
        use Progress::*;
        let whole = (Part::Whole, Some(9));
        // A frame and its payload; then what follows from it in the states `Idle`, `Left(600)` and `Refused`.
        let table = [
            (whole, [(Idle, None), (Idle, Some(Unfinished)), (Idle, None)]),
            (
                (part(true, 900), Some(300)),
                [(Left(600), None), (Left(600), Some(Unfinished)), (Left(600), None)],
            ),
            ((part(true, 300), Some(300)), [(Idle, None), (Idle, Some(Unfinished)), (Idle, None)]),
            ((part(true, 1001), Some(300)), [(Refused, Some(TooLong)); 3]),
            ((part(true, 900), Some(0)), [(Refused, Some(Malformed)); 3]),
            ((part(true, 900), Some(901)), [(Refused, Some(Malformed)); 3]),
            ((part(true, 0), Some(0)), [(Refused, Some(Malformed)); 3]),
            ((part(true, 900), None), [(Refused, Some(Malformed)); 3]),
            (
                (part(false, 600), Some(200)),
                [(Refused, Some(OutOfPlace)), (Left(400), None), (Refused, None)],
            ),
            ((part(false, 600), Some(600)), [(Refused, Some(OutOfPlace)), (Idle, None), (Refused, None)]),
            (
                (part(false, 600), Some(601)),
                [(Refused, Some(OutOfPlace)), (Refused, Some(Malformed)), (Refused, None)],
            ),
            (
                (part(false, 500), Some(200)),
                [(Refused, Some(OutOfPlace)), (Refused, Some(OutOfPlace)), (Refused, None)],
            ),
        ];
        for ((part, bytes), outcomes) in table {
            for (before, (after, fault)) in [Idle, Left(600), Refused].into_iter().zip(outcomes) {
                let kept = if after == Refused { Part::Void } else { part };
                assert_eq!(
                    before.step(part, bytes, MAX),
                    (after, kept, fault),
                    "{part:?} {bytes:?} in {before:?}"
                );
            }
        }
    }
}
