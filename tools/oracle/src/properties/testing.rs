//! Short-hand for writing histories in the tests of properties.

use crate::history::{Content, History, Incarnation, Measure, ViewId, What};
use crate::properties::{Promises, check};

pub(crate) const A: Incarnation = Incarnation(1);
pub(crate) const B: Incarnation = Incarnation(2);
pub(crate) const C: Incarnation = Incarnation(3);
pub(crate) const D: Incarnation = Incarnation(4);

/// A history in the making. Every call is one event, one microsecond after the one before.
pub(crate) struct Run {
    pub(crate) history: History,
    pub(crate) view: ViewId,
}

pub(crate) fn view(counter: u64) -> ViewId {
    ViewId { counter, coordinator: A }
}

pub(crate) fn content(origin: Incarnation, sequence: u64) -> Content {
    Content { bytes: 64, hash: origin.0 << 32 | sequence }
}

pub(crate) fn held(origin: Incarnation, through: u64, members: u32) -> What {
    What::Stable { measure: Measure::Held, origin, through, members }
}

pub(crate) fn seen(origin: Incarnation, through: u64, members: u32) -> What {
    What::Stable { measure: Measure::Seen, origin, through, members }
}

impl Run {
    /// Members `A`, `B`... that have started; no view yet.
    pub(crate) fn started(members: u64) -> Run {
        let mut run = Run { history: History::default(), view: view(1) };
        for member in (1..=members).map(Incarnation) {
            run.event(member, What::Start { process: member.0 as u32 });
        }
        run
    }

    /// The same, all in view 1.
    pub(crate) fn of(members: u64) -> Run {
        let mut run = Run::started(members);
        let members: Vec<Incarnation> = (1..=members).map(Incarnation).collect();
        for member in &members {
            run.install(*member, 1, &members);
        }
        run
    }

    pub(crate) fn event(&mut self, member: Incarnation, what: What) -> &mut Run {
        let at = self.history.events.len() as u64 * 1000;
        self.history.push(at, member, what);
        self
    }

    pub(crate) fn install(&mut self, member: Incarnation, counter: u64, members: &[Incarnation]) -> &mut Run {
        self.view = view(counter);
        let (view, members) = (self.view, members.to_vec());
        self.event(member, What::View { view, members, transitional: false })
    }

    /// A transitional view of the present one.
    pub(crate) fn transit(&mut self, member: Incarnation, together: &[Incarnation]) -> &mut Run {
        let (view, members) = (self.view, together.to_vec());
        self.event(member, What::View { view, members, transitional: true })
    }

    pub(crate) fn cast(&mut self, origin: Incarnation, sequence: u64) -> &mut Run {
        let (content, view) = (content(origin, sequence), Some(self.view));
        self.event(origin, What::CastIssued { sequence, content, view, agreed: false })
    }

    /// An agreed cast, where the others are safe.
    pub(crate) fn cast_agreed(&mut self, origin: Incarnation, sequence: u64) -> &mut Run {
        let (content, view) = (content(origin, sequence), Some(self.view));
        self.event(origin, What::CastIssued { sequence, content, view, agreed: true })
    }

    pub(crate) fn deliver(&mut self, member: Incarnation, origin: Incarnation, sequence: u64) -> &mut Run {
        let (content, view) = (content(origin, sequence), self.view);
        self.event(member, What::CastDelivered { origin, sequence, content, view })
    }

    pub(crate) fn send(&mut self, origin: Incarnation, sequence: u64, to: &[Incarnation]) -> &mut Run {
        let (content, view, to) = (content(origin, sequence), self.view, to.to_vec());
        self.event(origin, What::SendIssued { sequence, content, to, view })
    }

    pub(crate) fn get(&mut self, member: Incarnation, origin: Incarnation, sequence: u64) -> &mut Run {
        let (content, view) = (content(origin, sequence), self.view);
        self.event(member, What::SendDelivered { origin, sequence, content, view })
    }

    /// The names of the properties violated, each once; of a run that is not over.
    pub(crate) fn violated(&self) -> Vec<&'static str> {
        self.violated_under(&Promises::reliable_fifo())
    }

    /// The same, of a run that ended in quiescence.
    pub(crate) fn violated_in_the_end(&self) -> Vec<&'static str> {
        self.violated_under(&Promises::reliable_fifo().quiescent())
    }

    pub(crate) fn violated_under(&self, promises: &Promises) -> Vec<&'static str> {
        let mut names: Vec<_> =
            check(&self.history, promises).into_iter().map(|violation| violation.property).collect();
        names.dedup();
        names
    }
}
