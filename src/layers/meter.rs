//! METER: how much each member casts and sends, and when it was last heard. Can stand anywhere, any number of times.
//!
//! | | |
//! |---|---|
//! | requires | nothing |
//! | provides | nothing |
//! | promises | its sums (in `dump`) are exact for the place where it stands: messages, and bytes of payload as they travel (the framing of packs is among them, and what a layer above says in casts of its own) |
//! | costs | two effects for a cast or send that goes out, three for one that comes in: on the fast path an addition each until a layer runs |
//!
//! ```text
//! casts: 3 messages, 192 bytes; to 1: 2 messages, 20 bytes; of 1: 7 messages, 448 bytes, the last at 12.000345 s
//! ```
//!
//! Frames that are taken in together are added up before the first of them goes up.
//!
//! Source: this project.

use crate::accel::case::{CommonCase, Operation, Source, Target};
use crate::id::Rank;
use crate::stack::build::Build;
use crate::stack::event::{Down, List, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer, Look, Posts};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::Properties;
use crate::stack::registry::LayerEntry;
use crate::stack::slots::{MemberSlot, Slot};
use crate::time::Time;

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "METER",
        about: "adds up messages and bytes by member, and notes when each was last heard",
        requires: Properties::NONE,
        provides: Properties::NONE,
        destroys: Properties::NONE,
        cost: 0,
        parameters: &[],
        make: |_| Ok(Box::new(Meter { handles: None })),
    }
}

#[derive(Clone)]
struct Meter {
    handles: Option<Handles>,
}

#[derive(Clone, Copy)]
struct Handles {
    cast: Sums<Slot>,
    sent: Sums<MemberSlot>,
    heard: Sums<MemberSlot>,
    last_heard: MemberSlot,
}

#[derive(Clone, Copy)]
struct Sums<S> {
    messages: S,
    bytes: S,
}

impl Meter {
    fn handles(&self) -> Handles {
        self.handles.expect("installed before use")
    }
}

/// Adds the messages and bytes of a list.
fn add(context: &mut Context<'_>, sums: Sums<MemberSlot>, rank: Rank, list: &List) {
    context.set_of(sums.messages, rank, context.of(sums.messages, rank) + list.len() as u64);
    context.set_of(sums.bytes, rank, context.of(sums.bytes, rank) + list.payload().len() as u64);
}

impl Layer for Meter {
    fn name(&self) -> &'static str {
        "METER"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        let cast = Sums { messages: build.slot(), bytes: build.slot() };
        let [sent, heard] =
            [(); 2].map(|()| Sums { messages: build.member_slot(), bytes: build.member_slot() });
        self.handles = Some(Handles { cast, sent, heard, last_heard: build.member_slot() });
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.down(&[Flow::Cast, Flow::Send]).up(&[Flow::Cast, Flow::Send])
    }

    fn look_down(&mut self, context: &mut Context<'_>, event: &Down) -> Look {
        let Handles { cast, sent, .. } = self.handles();
        match event {
            Down::Cast(message) => {
                context.set(cast.messages, context.get(cast.messages) + message.list.len() as u64);
                context.set(cast.bytes, context.get(cast.bytes) + message.list.payload().len() as u64);
            }
            Down::Send(to, message) if !message.is_control() => {
                to.iter().for_each(|peer| add(context, sent, peer, &message.list));
            }
            _ => {}
        }
        Look::Passes
    }

    fn look_up(&mut self, context: &mut Context<'_>, event: &Up) -> Look {
        let Handles { heard, last_heard, .. } = self.handles();
        match event {
            Up::Cast(origin, message) | Up::Send(origin, message) if !message.is_control() => {
                add(context, heard, *origin, &message.list);
                context.set_of(last_heard, *origin, context.now().as_nanos());
            }
            _ => {}
        }
        Look::Passes
    }

    fn posts(&self) -> Posts {
        Posts::Nothing
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        let Handles { cast, sent, heard, last_heard } = self.handles();
        let (messages, bytes) = match kind {
            Kind::CastSend => (Target::Own(cast.messages), Target::Own(cast.bytes)),
            Kind::SendSend => (Target::Member(sent.messages), Target::Member(sent.bytes)),
            Kind::CastDeliver | Kind::SelfDeliver | Kind::SendDeliver => {
                // Casts and sends both say it, and what is said first may be had last.
                case.effect(Operation::Raise, Target::Member(last_heard), Source::Now);
                (Target::Member(heard.messages), Target::Member(heard.bytes))
            }
        };
        case.effect(Operation::Add, messages, Source::Messages);
        case.effect(Operation::Add, bytes, Source::PayloadBytes);
        Fast::Declared
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let Handles { cast, sent, heard, last_heard } = self.handles();
        let (messages, bytes) = (context.get(cast.messages), context.get(cast.bytes));
        let mut text = format!("casts: {messages} messages, {bytes} bytes");
        for rank in (0..context.view().size()).map(Rank::at) {
            let of = |slot| context.of(slot, rank);
            if of(sent.messages) > 0 {
                text.push_str(&format!(
                    "; to {rank}: {} messages, {} bytes",
                    of(sent.messages),
                    of(sent.bytes)
                ));
            }
            let (messages, bytes) = (of(heard.messages), of(heard.bytes));
            text.push_str(&format!("; of {rank}: {messages} messages, {bytes} bytes"));
            if messages > 0 {
                text.push_str(&format!(", the last at {}", Time::from_nanos(of(last_heard))));
            }
        }
        Some(text)
    }
}
