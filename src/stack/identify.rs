//! Full identification on request (design section 4).
//!
//! Two cookies of one endpoint may be equal, in different groups or in one. Frames with such a cookie cannot be told
//! apart and are dropped; repairs carry full headers and get through. So that not every message has to be repaired, the
//! endpoint asks the origins concerned to identify themselves fully for the rest of the view. A request may be lost, or
//! come before its receiver has installed the view: it is repeated, at growing intervals, while such frames still come.
//!
//! ```text
//! A ── cookie 7: cast ──x B            (7 also stands for casts of C in another group)
//! A ◀── please identify fully: casts ── B
//! A ── full header: cast ──▶ B         A's casts take the layers: a bit of the stack's own closes its plan
//! ```

use std::time::Duration;

use super::backoff::Backoff;
use super::build::{GuardKind, STACK_GUARD};
use super::core::Core;
use super::event::{Down, List, Message};
use crate::id::{Rank, RankSet};
use crate::wire::Traffic;
use crate::wire::control::Identify;
use crate::wire::full::STACK_CONTROL;

/// The first and the longest interval between requests to one origin.
pub(crate) const ASK_FIRST: Duration = Duration::from_micros(500);
pub(crate) const ASK_LONGEST: Duration = Duration::from_millis(50);

/// By origin: when its casts, and its sends, are asked about again.
#[derive(Clone, Debug)]
pub(crate) struct Asked(Vec<[Backoff; 2]>);

impl Asked {
    pub(crate) fn new(members: usize) -> Asked {
        let backoff = Backoff::new(ASK_FIRST, ASK_LONGEST);
        Asked(vec![[backoff.clone(), backoff]; members])
    }
}

impl Core {
    /// Frames of `origin` cannot be told apart here by their cookie: asks it for full headers, unless it was asked lately.
    pub(crate) fn ask_identification(&mut self, origin: Rank, traffic: Traffic) {
        let now = self.now;
        let asked = &mut self.asked.0[origin.index()][usize::from(traffic != Traffic::Cast)];
        if asked.take(now) {
            asked.repeat(now);
        } else if asked.due() == crate::time::Time::NEVER {
            asked.begin(now);
        } else {
            return;
        }
        let Ok(mut body) = self.control_frame() else {
            self.count_stack("request for full identification without a frame");
            return;
        };
        let casts = traffic == Traffic::Cast;
        body.extend(&Identify { casts, sends: !casts }.encode()).expect("a request fits a frame");
        let frame = body.freeze();
        let list = List::single(frame.clone(), frame.start(), frame.end());
        let message = Message { control: STACK_CONTROL, ..Message::data(Traffic::Raw, list) };
        self.count_stack("request for full identification");
        self.emit_top(Down::Raw(RankSet::one(origin), message));
    }

    /// `asker` cannot tell this member's frames apart: they carry full headers for the rest of the view.
    pub(crate) fn identification_asked(&mut self, asker: Rank, body: &[u8]) {
        let Ok(Identify { casts, sends }) = Identify::decode(body) else {
            self.count_stack("stack message that does not decode");
            return;
        };
        self.count_stack("asked for full identification");
        if casts {
            self.close_own(GuardKind::CastSend, asker);
        }
        if sends {
            self.close_own(GuardKind::SendSend, asker);
        }
    }

    fn close_own(&mut self, kind: GuardKind, rank: Rank) {
        let at = kind.word(&self.slots, rank);
        *self.slots.word_mut(at) |= STACK_GUARD;
    }
}
