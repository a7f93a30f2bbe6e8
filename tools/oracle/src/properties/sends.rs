//! Properties of sends: reliable, FIFO between each pair, and nobody else's business.

use crate::history::{Incarnation, Traffic, ViewId, What};
use crate::index::{Delivered, Index, Life};
use crate::properties::Promises;
use crate::properties::casts::{created, duplicated, name, overtaken};
use crate::properties::views::{Journey, journey};
use crate::quick::{QuickMap, QuickSet};
use crate::report::{Finding, Findings};

pub(crate) fn no_creation(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        created(index, Traffic::Send, life, delivered(life), findings);
    }
}

pub(crate) fn no_duplicates(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        duplicated(Traffic::Send, life, delivered(life), findings);
    }
}

pub(crate) fn fifo(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        overtaken(Traffic::Send, life, delivered(life), findings);
    }
}

pub(crate) fn addressee(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        for send in delivered(life) {
            let Some(issued) = index.issued(Traffic::Send, send) else { continue };
            if !addressees(index, issued.event).contains(&life.incarnation) {
                findings.add(|| Finding {
                    what: format!(
                        "{} delivers {}, which was not for it",
                        life.incarnation,
                        name(Traffic::Send, send)
                    ),
                    members: vec![life.incarnation, send.origin],
                    messages: vec![name(Traffic::Send, send)],
                    events: vec![issued.event, send.event],
                });
            }
        }
    }
}

pub(crate) fn sending_view(index: &Index<'_>, promises: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        for stay in &life.stays {
            for send in &stay.sends {
                let Some(issued) = index.issued(Traffic::Send, send) else { continue };
                let waited = issued.view.is_some_and(|view| first_told(life, view) == Some(stay.view));
                let long = issued.content.bytes > promises.frame_bytes && issued.view < Some(stay.view);
                if issued.view != Some(stay.view) && !waited && !long {
                    findings.add(|| Finding {
                        what: format!(
                            "{} delivers {} in another view than it was issued in",
                            life.incarnation,
                            name(Traffic::Send, send)
                        ),
                        members: vec![life.incarnation, send.origin],
                        messages: vec![name(Traffic::Send, send)],
                        events: vec![issued.event, send.event],
                    });
                }
            }
        }
    }
}

pub(crate) fn completeness(index: &Index<'_>, promises: &Promises, findings: &mut Findings<'_>) {
    let mut journeys: QuickSet<(Incarnation, Journey)> = QuickSet::default();
    let mut arrived: QuickSet<(Incarnation, Incarnation, u64)> = QuickSet::default();
    for life in &index.lives {
        journeys.extend(
            (0..life.stays.len())
                .filter_map(|at| journey(life, at, promises))
                .map(|way| (life.incarnation, way)),
        );
        arrived.extend(delivered(life).map(|send| (life.incarnation, send.origin, send.sequence)));
    }
    for life in &index.lives {
        let ways: QuickMap<_, _> = (0..life.stays.len())
            .filter_map(|at| journey(life, at, promises))
            .map(|way| (Some(way.from), way))
            .collect();
        for send in &life.sends {
            let Some(way) = ways.get(&send.view) else { continue };
            // What is longer than a frame and half under way when the view ends is sent again, whole, in the next one.
            let long = send.content.bytes > promises.frame_bytes;
            let together = |to: &&Incarnation| match index.life(**to) {
                Some(other) if long => promises.quiescent && stays_with(life, other, way.from),
                Some(other) => journeys.contains(&(**to, *way)) || went_on_untold(life, other, way.from),
                None => false,
            };
            for to in addressees(index, send.event).iter().filter(together) {
                if !arrived.contains(&(*to, life.incarnation, send.sequence)) {
                    findings.add(|| Finding {
                        what: format!("{to} never delivers {}", life.name(Traffic::Send, send.sequence)),
                        members: vec![*to, life.incarnation],
                        messages: vec![life.name(Traffic::Send, send.sequence)],
                        events: vec![send.event],
                    });
                }
            }
        }
    }
}

pub(crate) fn loss_is_told(index: &Index<'_>, promises: &Promises, findings: &mut Findings<'_>) {
    let got = |life: &Life| {
        let to = life.incarnation;
        delivered(life).map(move |send| (to, send.origin, send.sequence)).collect::<Vec<_>>()
    };
    let arrived: QuickSet<(Incarnation, Incarnation, u64)> = index.lives.iter().flat_map(got).collect();
    for life in &index.lives {
        // What is longer than a frame is told in other words, and may go out in the next view.
        for send in life.sends.iter().filter(|send| send.content.bytes <= promises.frame_bytes) {
            let Some(view) = send.view else { continue };
            let Some(next) = life.after(view) else { continue };
            let next = index.members(next);
            for to in addressees(index, send.event).iter().filter(|to| !next.contains(to)) {
                let known = life.losses.contains(&(view, *to));
                if !known && !arrived.contains(&(*to, life.incarnation, send.sequence)) {
                    findings.add(|| Finding {
                        what: format!(
                            "{to} did not get {}, and {} goes on without it and is not told",
                            life.name(Traffic::Send, send.sequence),
                            life.incarnation
                        ),
                        members: vec![*to, life.incarnation],
                        messages: vec![life.name(Traffic::Send, send.sequence)],
                        events: vec![send.event],
                    });
                }
            }
        }
    }
}

/// Whether two members went together from `view` to the end, alive.
fn stays_with(one: &Life, other: &Life, view: ViewId) -> bool {
    let from = |life: &Life| life.way.iter().position(|passed| *passed == view);
    let (Some(mine), Some(theirs)) = (from(one), from(other)) else { return false };
    one.lives() && other.lives() && one.way[mine..] == other.way[theirs..]
}

/// The first view after `view`, which it passed without the state, that a member was told of.
fn first_told(life: &Life, view: ViewId) -> Option<ViewId> {
    let at = life.way.iter().position(|passed| *passed == view && life.passed(view))?;
    life.way[at..].iter().find(|view| !life.passed(**view)).copied()
}

/// Whether `other` passed `view` without the state, and `one` went with it from there to the first view it was told of.
fn went_on_untold(one: &Life, other: &Life, view: ViewId) -> bool {
    let Some(told) = first_told(other, view) else { return false };
    let from = |life: &Life| life.way.iter().position(|passed| *passed == view);
    let (Some(mine), Some(theirs)) = (from(one), from(other)) else { return false };
    let ways = one.way[mine..].iter().zip(&other.way[theirs..]);
    let shared = ways.take_while(|(one, other)| one == other);
    shared.map(|(view, _)| *view).any(|view| view == told)
}

fn delivered(life: &Life) -> impl Iterator<Item = &Delivered> {
    life.stays.iter().flat_map(|stay| &stay.sends)
}

fn addressees<'a>(index: &Index<'a>, event: usize) -> &'a [Incarnation] {
    match &index.history.events[event].what {
        What::SendIssued { to, .. } => to,
        other => unreachable!("event {event} sends nothing: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::history::{Content, What};
    use crate::properties::Promises;
    use crate::properties::testing::*;

    #[test]
    fn sends_that_reach_whom_they_are_for_in_order_pass() {
        let mut run = Run::of(3);
        run.send(A, 1, &[B]).send(A, 2, &[C]).send(A, 3, &[B, C]).send(A, 4, &[]);
        run.get(B, A, 1).get(C, A, 2).get(C, A, 3).get(B, A, 3);
        assert_eq!(run.violated_in_the_end(), [""; 0]);
    }

    #[test]
    fn a_loss_of_which_who_goes_on_is_not_told_is_caught() {
        let promises = Promises { loss_is_told: true, ..Promises::reliable_fifo() };
        let goes_on_alone = |arrives: bool, told: bool| {
            let mut run = Run::of(2);
            run.send(A, 1, &[B]);
            if arrives {
                run.get(B, A, 1);
            }
            run.event(B, What::Crash);
            if told {
                run.event(A, What::SendsLost { to: B });
            }
            run.install(A, 2, &[A]);
            run.violated_under(&promises)
        };
        assert_eq!(goes_on_alone(false, false), ["sends-loss-is-told"]);
        assert_eq!(goes_on_alone(false, true), [""; 0]);
        assert_eq!(goes_on_alone(true, false), [""; 0]);
        assert_eq!(goes_on_alone(true, true), [""; 0], "it may be lost, as far as is known");
        let mut run = Run::of(2);
        run.send(A, 1, &[B]).install(A, 2, &[A, B]).event(A, What::SendsLost { to: B }).install(A, 3, &[A]);
        assert_eq!(run.violated_under(&promises), [""; 0], "it may come yet: others judge that");
        let mut run = Run::of(2);
        run.event(A, What::SendsLost { to: B }).install(A, 2, &[A, B]).send(A, 1, &[B]).install(A, 3, &[A]);
        assert_eq!(run.violated_under(&promises), ["sends-loss-is-told"], "that was of another view");
    }

    #[test]
    fn a_send_out_of_nothing_or_changed_is_caught() {
        let mut run = Run::of(2);
        run.get(B, A, 1);
        assert_eq!(run.violated(), ["sends-no-creation"]);
        let mut run = Run::of(2);
        run.get(B, A, 1).send(A, 1, &[B]);
        assert_eq!(run.violated(), ["sends-no-creation"], "it came before it was issued");
        let mut run = Run::of(2);
        let content = Content { bytes: 64, hash: 0 };
        run.send(A, 1, &[B]).event(B, What::SendDelivered { origin: A, sequence: 1, content, view: view(1) });
        assert_eq!(run.violated(), ["sends-no-creation"]);
    }

    #[test]
    fn a_cast_does_not_vouch_for_a_send() {
        let mut run = Run::of(2);
        run.cast(A, 1).get(B, A, 1);
        assert_eq!(run.violated(), ["sends-no-creation"]);
    }

    #[test]
    fn a_send_that_goes_astray_is_caught() {
        let mut run = Run::of(3);
        run.send(A, 1, &[B]).get(B, A, 1).get(C, A, 1);
        assert_eq!(run.violated(), ["sends-addressee"]);
    }

    #[test]
    fn a_send_delivered_twice_is_caught() {
        let mut run = Run::of(2);
        run.send(A, 1, &[B]).get(B, A, 1).get(B, A, 1);
        assert_eq!(run.violated(), ["sends-no-duplicates"]);
    }

    #[test]
    fn an_overtaken_send_is_caught() {
        let mut run = Run::of(2);
        run.send(A, 1, &[B]).send(A, 2, &[B]).get(B, A, 2).get(B, A, 1);
        assert_eq!(run.violated_in_the_end(), ["sends-fifo"]);
    }

    #[test]
    fn a_send_in_another_view_is_caught() {
        let mut run = Run::of(2);
        run.send(A, 1, &[B]).install(B, 2, &[A, B]).get(B, A, 1);
        assert_eq!(run.violated(), ["sends-view"]);
    }

    /// It is sent again, whole, in the view that follows.
    #[test]
    fn a_long_send_must_come_where_the_two_stay_together() {
        let long = Content { bytes: 1001, hash: 0 };
        let sent = |dies: bool| {
            let mut run = Run::of(2);
            let what = What::SendIssued { sequence: 1, content: long, to: vec![B], view: view(1) };
            run.event(A, what).install(A, 2, &[A, B]).install(B, 2, &[A, B]);
            if dies {
                run.event(B, What::Crash);
            }
            let fifo = Promises::reliable_fifo();
            let promises = Promises { frame_bytes: 1000, quiescent: true, ..fifo };
            run.violated_under(&promises)
        };
        assert_eq!(sent(false), ["sends-completeness"]);
        assert_eq!(sent(true), [""; 0]);
    }

    #[test]
    fn a_send_that_waited_for_the_state_may_come_in_the_first_view_that_is_told_and_must() {
        let waited = |gets: bool, both: bool| {
            let mut run = Run::started(2);
            run.install(A, 1, &[A, B]).send(A, 1, &[B]);
            run.event(B, What::Passed { view: view(1), members: vec![A, B] });
            if both {
                run.install(A, 2, &[A, B]);
            } else {
                run.install(A, 3, &[A]);
            }
            run.install(B, 2, &[A, B]);
            if gets {
                run.get(B, A, 1);
            }
            run.violated()
        };
        assert_eq!(waited(true, true), [""; 0]);
        assert_eq!(waited(false, true), ["sends-completeness"]);
        assert_eq!(waited(false, false), [""; 0], "they parted");
    }

    #[test]
    fn a_lost_send_is_caught_in_the_end_and_at_a_view_change() {
        let mut run = Run::of(3);
        run.send(A, 1, &[B, C]).get(C, A, 1);
        assert_eq!(run.violated(), [""; 0]);
        assert_eq!(run.violated_in_the_end(), ["sends-completeness"]);
        run.install(A, 2, &[A, B, C]).install(B, 2, &[A, B, C]);
        assert_eq!(run.violated(), ["sends-completeness"], "they went on together");
        let mut run = Run::of(3);
        run.send(A, 1, &[B]).event(B, What::Crash).install(A, 2, &[A, C]).install(C, 2, &[A, C]);
        assert_eq!(run.violated_in_the_end(), [""; 0], "the dead are excused");
    }
}
