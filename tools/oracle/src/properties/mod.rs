//! The properties, and which of them a stack promises.

mod casts;
mod lives;
mod order;
mod sends;
mod stability;
#[cfg(test)]
mod testing;
mod views;

use crate::history::History;
use crate::index::Index;
use crate::report::{Findings, Violation};

/// What the stack of a run promises, and how the run ended: selects the properties that apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promises {
    /// Casts of one origin arrive in the order in which they were issued, without gaps.
    pub fifo: bool,
    /// Members deliver their own casts.
    pub own_copies: bool,
    /// A cast is delivered in the view it was issued in.
    pub sending_view: bool,
    /// Sends are reliable and FIFO between each pair of members.
    pub sends: bool,
    /// Who goes on without a member that may not have got all that was sent to it is told so.
    pub loss_is_told: bool,
    /// Sends of more bytes than this take several frames: one that is not through when its view ends goes out whole in the
    /// next one.
    pub frame_bytes: u32,
    /// A cast is delivered only after everything that its origin had delivered when it issued it.
    pub causal: bool,
    /// What two members both deliver in one view is in one order.
    pub total: bool,
    /// The same of members that go on together, or stay to the end.
    pub total_together: bool,
    /// The same of what two members deliver before a transitional view, if there is one, up to the last safe cast of each.
    pub total_while_whole: bool,
    /// What one member delivers in a view begins with what another does, or the other way round.
    pub without_holes: bool,
    /// A safe cast that is delivered in a view, before a transitional view of it, is delivered by all of its members that
    /// go on, and so is what was delivered before it.
    pub safe: bool,
    /// Whoever begins a view has the state that others in it have. It is not so where some that could not be given it went on without
    /// it beside others: then there is one of each line.
    pub one_state: bool,
    /// What is held is delivered at once: true where no ordering layer delays delivery.
    pub held_is_delivered: bool,
    /// A transitional view precedes every regular view but a member's first.
    pub transitional: bool,
    /// The run went on, without faults that last for ever, until nothing was left to do: everything must have arrived.
    pub quiescent: bool,
    /// By the end of such a run every member was told that every cast is held at all members.
    pub stability_is_reported: bool,
}

impl Promises {
    /// What the stack for a fixed view promises: reliable FIFO multicast with own copies, and reliable FIFO sends.
    pub const fn reliable_fifo() -> Promises {
        Promises {
            fifo: true,
            own_copies: true,
            sending_view: true,
            sends: true,
            loss_is_told: false,
            frame_bytes: u32::MAX,
            causal: false,
            total: false,
            total_together: false,
            total_while_whole: false,
            without_holes: false,
            safe: false,
            one_state: true,
            held_is_delivered: true,
            transitional: false,
            quiescent: false,
            stability_is_reported: false,
        }
    }

    /// The same, and what the layers of a stack, named top to bottom, promise beside it: the order of casts of several
    /// origins, and transitional views.
    #[must_use]
    pub fn of_stack(self, stack: &str) -> Promises {
        let has = |layer: &str| stack.split(':').any(|named| named.split('(').next() == Some(layer));
        let (turns, sequencer) = (has("TOTAL"), has("SEQUENCER"));
        let ordered = turns || sequencer;
        let safe = ordered && has("SAFE") && (has("FIXED") || has("EVS"));
        // Orders may be lost with the sequencer; where nobody fails or parts nothing is.
        let total = turns || sequencer && has("FIXED");
        // What is cast while the application blocks is in order among those that go on together.
        let without_holes = total && !stack.contains("block=yes");
        Promises {
            causal: ordered,
            total,
            total_together: ordered,
            total_while_whole: safe,
            without_holes,
            safe,
            held_is_delivered: !ordered,
            // Wherever it stands: the layers above hand on what it tells, once and in its place.
            transitional: has("EVS"),
            ..self
        }
    }

    /// The same, of a run that ended in quiescence.
    pub const fn quiescent(mut self) -> Promises {
        self.quiescent = true;
        self
    }
}

/// A property that a history can have.
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub says: &'static str,
    applies: fn(&Promises) -> bool,
    judge: fn(&Index<'_>, &Promises, &mut Findings<'_>),
}

/// Every property there is, in the order in which they are judged: the simplest first.
pub const PROPERTIES: &[Property] = &[
    Property {
        name: "numbering",
        says: "a member's accepted casts, and its accepted sends, are numbered 1, 2, 3 and so on",
        applies: |_| true,
        judge: lives::numbering,
    },
    Property {
        name: "lifetime",
        says: "nothing happens to a member before it starts, nor after it crashes or exits",
        applies: |_| true,
        judge: lives::lifetime,
    },
    Property {
        name: "self-inclusion",
        says: "a member is in every view it installs",
        applies: |_| true,
        judge: views::self_inclusion,
    },
    Property {
        name: "view-ids-grow",
        says: "each view a member installs has a greater id than the one before",
        applies: |_| true,
        judge: views::view_ids_grow,
    },
    Property {
        name: "one-membership",
        says: "a view has the same members, in the same order, wherever it is installed",
        applies: |_| true,
        judge: views::one_membership,
    },
    Property {
        name: "current-view",
        says: "a message is delivered in the view its receiver is in, and comes from a member of it",
        applies: |_| true,
        judge: views::current_view,
    },
    Property {
        name: "common-view",
        says: "in the end the living members of a view all have that view",
        applies: |promises| promises.quiescent,
        judge: views::common_view,
    },
    Property {
        name: "transitional-precedes",
        says: "one transitional view precedes every regular view but a member's first, and none stands elsewhere",
        applies: |promises| promises.transitional,
        judge: views::transitional_precedes,
    },
    Property {
        name: "transitional-is-truthful",
        says: "a transitional view belongs to the regular view before it, and names those that go on together from there",
        applies: |_| true,
        judge: views::transitional_is_truthful,
    },
    Property {
        name: "state-at-cut",
        says: "whoever installs a view has the same state then, delivered by itself or given by another",
        applies: |_| true,
        judge: views::state_at_cut,
    },
    Property {
        name: "no-creation",
        says: "a cast that is delivered was issued before, by the member named, with that very content",
        applies: |_| true,
        judge: casts::no_creation,
    },
    Property {
        name: "no-duplicates",
        says: "no member delivers a cast twice",
        applies: |_| true,
        judge: casts::no_duplicates,
    },
    Property {
        name: "fifo",
        says: "casts of one origin are delivered in the order in which they were issued",
        applies: |promises| promises.fifo,
        judge: casts::fifo,
    },
    Property {
        name: "no-gaps",
        says: "a cast is delivered only after every earlier cast of its origin in the same view",
        applies: |promises| promises.fifo,
        judge: casts::no_gaps,
    },
    Property {
        name: "same-view-delivery",
        says: "whoever delivers a cast delivers it in the same view",
        applies: |_| true,
        judge: casts::same_view,
    },
    Property {
        name: "sending-view-delivery",
        says: "a cast is delivered in the view it was issued in",
        applies: |promises| promises.sending_view,
        judge: casts::sending_view,
    },
    Property {
        name: "agreement",
        says: "members that go together from one view to the next delivered the same casts in the first",
        applies: |_| true,
        judge: casts::agreement,
    },
    Property {
        name: "own-copies",
        says: "a member delivers every cast it issued in a view before it goes on to the next",
        applies: |promises| promises.own_copies,
        judge: casts::own_copies,
    },
    Property {
        name: "causal",
        says: "a cast is delivered only after what its origin had delivered in that view when it issued it",
        applies: |promises| promises.causal,
        judge: order::causal,
    },
    Property {
        name: "total",
        says: "what two members both deliver in a view they deliver in one order",
        applies: |promises| promises.total,
        judge: order::total,
    },
    Property {
        name: "total-together",
        says: "what members that go on together both deliver in a view they deliver in one order",
        applies: |promises| promises.total_together,
        judge: order::total_together,
    },
    Property {
        name: "total-while-whole",
        says: "what two members both deliver while their view is whole they deliver in one order",
        applies: |promises| promises.total_while_whole,
        judge: order::total_while_whole,
    },
    Property {
        name: "without-holes",
        says: "what one member delivers in a view begins with what another delivers in it, or the other way round",
        applies: |promises| promises.without_holes,
        judge: order::without_holes,
    },
    Property {
        name: "safe",
        says: "what is delivered while a view is whole is delivered by all of its members, wherever they go on to",
        applies: |promises| promises.safe,
        judge: order::safe,
    },
    Property {
        name: "completeness",
        says: "in the end every cast that a living member issued in the last view has reached every living member",
        applies: |promises| promises.quiescent,
        judge: casts::completeness,
    },
    Property {
        name: "sends-no-creation",
        says: "a send that is delivered was issued before, by the member named, with that very content",
        applies: |_| true,
        judge: sends::no_creation,
    },
    Property {
        name: "sends-addressee",
        says: "a send is delivered only to whom it was addressed",
        applies: |_| true,
        judge: sends::addressee,
    },
    Property {
        name: "sends-no-duplicates",
        says: "no member delivers a send twice",
        applies: |_| true,
        judge: sends::no_duplicates,
    },
    Property {
        name: "sends-fifo",
        says: "sends from one member to another are delivered in the order in which they were issued",
        applies: |promises| promises.sends,
        judge: sends::fifo,
    },
    Property {
        name: "sends-view",
        says: "a send is delivered in the view it was issued in, or in the first that its addressee is told of from there",
        applies: |promises| promises.sends,
        judge: sends::sending_view,
    },
    Property {
        name: "sends-completeness",
        says: "a send arrives if its origin and addressee go on to the next view, or to the end, together",
        applies: |promises| promises.sends,
        judge: sends::completeness,
    },
    Property {
        name: "sends-loss-is-told",
        says: "whoever goes on without a member that did not get all that was sent to it hears that it may not have",
        applies: |promises| promises.loss_is_told,
        judge: sends::loss_is_told,
    },
    Property {
        name: "held-is-truthful",
        says: "what is reported as held at so many members is delivered at so many",
        applies: |_| true,
        judge: stability::held_is_truthful,
    },
    Property {
        name: "seen-is-truthful",
        says: "what is reported as seen at so many members was acknowledged by so many before",
        applies: |_| true,
        judge: stability::seen_is_truthful,
    },
    Property {
        name: "stability-grows",
        says: "a report of stability never goes back behind an earlier one",
        applies: |_| true,
        judge: stability::stability_grows,
    },
    Property {
        name: "stability-completeness",
        says: "in the end every living member was told that every cast of the last view is held at all members",
        applies: |promises| promises.quiescent && promises.stability_is_reported,
        judge: stability::completeness,
    },
];

/// What `history` violates of what was promised; empty if it is as it should be.
pub fn check(history: &History, promises: &Promises) -> Vec<Violation> {
    let index = Index::of(history);
    let mut findings = Findings::of(history);
    for property in PROPERTIES {
        if (property.applies)(promises) {
            findings.begin(property.name);
            (property.judge)(&index, promises, &mut findings);
        }
    }
    findings.finish()
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;
    use crate::history::Incarnation;

    #[test]
    fn every_property_has_a_name_of_its_own() {
        for (at, property) in PROPERTIES.iter().enumerate() {
            assert!(!property.says.is_empty());
            assert!(PROPERTIES[..at].iter().all(|other| other.name != property.name), "{}", property.name);
        }
    }

    #[test]
    fn transitional_views_are_promised_where_a_stack_has_evs_and_nowhere_else() {
        let mut told = Run::of(1);
        told.transit(A, &[A]).install(A, 2, &[A]);
        let mut untold = Run::of(1);
        untold.install(A, 2, &[A]);
        let mut twice = Run::of(1);
        twice.transit(A, &[A]).transit(A, &[A]).install(A, 2, &[A]);
        let under =
            |run: &Run, stack: &str| run.violated_under(&Promises::reliable_fifo().of_stack(stack)).join(" ");
        for stack in ["EVS:MBRSHIP:COM", "XFER(hold_kib=64):EVS:MBRSHIP:COM", "SAFE:TOTAL:EVS:MBRSHIP:COM"] {
            assert_eq!(under(&told, stack), "", "{stack}");
            assert_eq!(under(&untold, stack), "transitional-precedes", "{stack}");
            assert_eq!(under(&twice, stack), "transitional-precedes", "{stack}");
        }
        for stack in ["", "MBRSHIP:COM", "XFER:MBRSHIP:COM", "TOTAL:MBRSHIP:COM"] {
            assert_eq!(under(&untold, stack), "", "{stack}");
        }
    }

    #[test]
    fn a_report_can_be_read() {
        let mut run = Run::of(2);
        run.cast(A, 1).deliver(A, A, 1).deliver(B, A, 1).cast(A, 2).deliver(A, A, 2).deliver(B, A, 2);
        let again = run.history.events.len();
        run.deliver(B, A, 1);
        let verdict = check(&run.history, &Promises::reliable_fifo());
        let text = verdict[0].to_string();
        assert!(text.starts_with("no-duplicates: m2 delivers cast m1#1 twice\n"), "{text}");
        assert!(text.contains(&format!("> {again:>6} ")), "{text}");
        assert_eq!(verdict[0].members, [Incarnation(2)]);
        assert_eq!(verdict[0].events.len(), 2);
    }

    #[test]
    fn many_violations_of_one_kind_are_counted_not_written() {
        let mut run = Run::of(2);
        for sequence in 1..=50 {
            run.cast(A, sequence).deliver(B, A, sequence).deliver(B, A, sequence);
        }
        let verdict = check(&run.history, &Promises::reliable_fifo());
        let of_this: Vec<_> = verdict.iter().filter(|found| found.property == "no-duplicates").collect();
        assert_eq!(of_this.iter().map(|found| 1 + found.more).sum::<usize>(), 50);
        assert!(of_this.len() < 10);
    }

    #[test]
    fn a_hundred_thousand_events_are_judged_in_well_under_a_second() {
        let mut run = Run::of(4);
        for sequence in 1..=20_000 {
            run.cast(A, sequence);
            for member in [A, B, C, D] {
                run.deliver(member, A, sequence);
            }
        }
        run.history.push(u64::MAX, A, held(A, 20_000, 4));
        assert!(run.history.events.len() > 100_000);
        let begin = std::time::Instant::now();
        assert_eq!(check(&run.history, &Promises::reliable_fifo().quiescent()), []);
        let took = begin.elapsed();
        assert!(took.as_millis() < 900, "{took:?}");
    }
}
