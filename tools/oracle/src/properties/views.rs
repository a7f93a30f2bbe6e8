//! Properties of views.

use crate::history::{Incarnation, ViewId, What};
use crate::index::{Index, Life, State};
use crate::properties::Promises;
use crate::quick::QuickMap;
use crate::report::{Finding, Findings};

pub(crate) fn self_inclusion(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        let transitional = life.stays.iter().flat_map(|stay| &stay.transitional);
        for event in life.stays.iter().map(|stay| &stay.event).chain(transitional) {
            let (view, members) = installed(index, *event);
            if !members.contains(&life.incarnation) {
                findings.add(|| Finding {
                    what: format!("{} installs {view}, which it is not in", life.incarnation),
                    members: vec![life.incarnation],
                    messages: Vec::new(),
                    events: vec![*event],
                });
            }
        }
    }
}

pub(crate) fn view_ids_grow(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        for pair in life.stays.windows(2).filter(|pair| pair[0].view >= pair[1].view) {
            findings.add(|| Finding {
                what: format!("{} installs {} after {}", life.incarnation, pair[1].view, pair[0].view),
                members: vec![life.incarnation],
                messages: Vec::new(),
                events: vec![pair[0].event, pair[1].event],
            });
        }
    }
}

pub(crate) fn one_membership(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for (view, (members, events)) in &index.views {
        for event in &events[1..] {
            if installed(index, *event).1 != members {
                let member = |event: usize| index.history.events[event].member;
                findings.add(|| Finding {
                    what: format!("{view} has other members at {} and {}", member(events[0]), member(*event)),
                    members: vec![member(events[0]), member(*event)],
                    messages: Vec::new(),
                    events: vec![events[0], *event],
                });
            }
        }
    }
}

pub(crate) fn current_view(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        for event in &life.homeless {
            findings.add(|| Finding {
                what: format!("{} delivers something before its first view", life.incarnation),
                members: vec![life.incarnation],
                messages: Vec::new(),
                events: vec![*event],
            });
        }
        for stay in &life.stays {
            let members = index.members(stay.view);
            for delivered in stay.casts.iter().chain(&stay.sends) {
                let fault = if delivered.view != stay.view {
                    format!("is said to be in {} but is in {}", delivered.view, stay.view)
                } else if !members.contains(&delivered.origin) {
                    format!("comes from {}, which is not in {}", delivered.origin, stay.view)
                } else {
                    continue;
                };
                findings.add(|| Finding {
                    what: format!("what {} delivers {fault}", life.incarnation),
                    members: vec![life.incarnation, delivered.origin],
                    messages: Vec::new(),
                    events: vec![stay.event, delivered.event],
                });
            }
        }
    }
}

pub(crate) fn common_view(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in index.lives.iter().filter(|life| life.lives()) {
        let Some(last) = life.stays.last() else { continue };
        let others = index.members(last.view).iter().filter_map(|member| index.life(*member));
        for other in others.filter(|other| other.lives()) {
            let theirs = other.stays.last();
            if theirs.is_none_or(|theirs| theirs.view != last.view) {
                findings.add(|| Finding {
                    what: format!(
                        "{} ends in {}; {}, a living member of it, ends in {}",
                        life.incarnation,
                        last.view,
                        other.incarnation,
                        theirs.map_or("no view".into(), |stay| stay.view.to_string())
                    ),
                    members: vec![life.incarnation, other.incarnation],
                    messages: Vec::new(),
                    events: [last.event].into_iter().chain(theirs.map(|stay| stay.event)).collect(),
                });
            }
        }
    }
}

pub(crate) fn transitional_precedes(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        for (at, stay) in life.stays.iter().enumerate() {
            let next = life.stays.get(at + 1);
            let fault = match (next, stay.transitional.len()) {
                (Some(_), 1) | (None, 0 | 1) => continue,
                (Some(next), 0) => format!("goes on to {} without a transitional view", next.view),
                (_, count) => format!("is told of {count} transitional views"),
            };
            findings.add(|| Finding {
                what: format!("{} in {} {fault}", life.incarnation, stay.view),
                members: vec![life.incarnation],
                messages: Vec::new(),
                events: [stay.event]
                    .into_iter()
                    .chain(stay.transitional.iter().copied())
                    .chain(next.map(|next| next.event))
                    .collect(),
            });
        }
    }
}

pub(crate) fn transitional_is_truthful(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    // Who went from one view to another, by both.
    let mut ways: QuickMap<(ViewId, ViewId), Vec<Incarnation>> = QuickMap::default();
    if index.lives.iter().all(|life| life.stays.iter().all(|stay| stay.transitional.is_empty())) {
        return;
    }
    for life in &index.lives {
        for pair in life.way.windows(2) {
            ways.entry((pair[0], pair[1])).or_default().push(life.incarnation);
        }
    }
    for life in &index.lives {
        for (at, stay) in life.stays.iter().enumerate() {
            let next = life.after(stay.view);
            for event in &stay.transitional {
                let (view, together) = installed(index, *event);
                let of_view = index.members(stay.view);
                let strange = together.iter().find(|member| !of_view.contains(member));
                // Who never hears of the next view, and goes elsewhere, is as good as dead to those who name it.
                let elsewhere = next.and_then(|next| {
                    together.iter().find(|member| {
                        let before = index.life(**member).and_then(|other| other.before(next));
                        before.is_some_and(|view| view != stay.view)
                    })
                });
                let left_out = next
                    .and_then(|next| together.iter().find(|member| !index.members(next).contains(member)));
                let forgotten = next.and_then(|next| {
                    let went = ways.get(&(stay.view, next)).map_or(&[][..], Vec::as_slice);
                    went.iter().find(|member| !together.contains(member))
                });
                let (whom, fault) = if view != stay.view {
                    (None, format!("is said to belong to {view}"))
                } else if let Some(member) = strange {
                    (Some(*member), format!("names {member}, which is not in that view"))
                } else if let Some(member) = elsewhere {
                    (Some(*member), format!("names {member}, which comes to the next view from another"))
                } else if let Some(member) = left_out {
                    (Some(*member), format!("names {member}, which is not in the next view"))
                } else if let Some(member) = forgotten {
                    (Some(*member), format!("does not name {member}, which goes on to the same view"))
                } else {
                    continue;
                };
                findings.add(|| Finding {
                    what: format!("the transitional view of {} in {} {fault}", life.incarnation, stay.view),
                    members: [life.incarnation].into_iter().chain(whom).collect(),
                    messages: Vec::new(),
                    events: [*event]
                        .into_iter()
                        .chain(life.stays.get(at + 1).map(|next| next.event))
                        .collect(),
                });
            }
        }
    }
}

/// Where a member went from one of its views: those with equal journeys go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Journey {
    pub(crate) from: ViewId,
    /// None: to the end of a quiescent run, alive.
    pub(crate) to: Option<ViewId>,
}

/// Where `life` went from its stay number `at`; none if it died there, or if the run was not over.
pub(crate) fn journey(life: &Life, at: usize, promises: &Promises) -> Option<Journey> {
    let from = life.stays[at].view;
    match life.after(from) {
        Some(next) => Some(Journey { from, to: Some(next) }),
        None if promises.quiescent && life.lives() => Some(Journey { from, to: None }),
        None => None,
    }
}

pub(crate) fn state_at_cut(index: &Index<'_>, promises: &Promises, findings: &mut Findings<'_>) {
    let mut states: QuickMap<(ViewId, u64), (&Life, &State)> = QuickMap::default();
    for life in &index.lives {
        for state in &life.states {
            let line = if promises.one_state { 0 } else { state.line };
            let (other, first) = *states.entry((state.view, line)).or_insert((life, state));
            if first.digest != state.digest {
                findings.add(|| Finding {
                    what: format!(
                        "{} and {} begin {} with different states",
                        other.incarnation, life.incarnation, state.view
                    ),
                    members: vec![other.incarnation, life.incarnation],
                    messages: Vec::new(),
                    events: vec![first.event, state.event],
                });
            }
        }
    }
}

/// The view that `event` installed.
fn installed<'a>(index: &Index<'a>, event: usize) -> (ViewId, &'a [Incarnation]) {
    match &index.history.events[event].what {
        What::View { view, members, .. } => (*view, members),
        other => unreachable!("event {event} installs no view: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::history::{Incarnation, What};
    use crate::properties::Promises;
    use crate::properties::testing::*;

    #[test]
    fn all_begin_a_view_with_one_state_and_whoever_does_not_is_caught() {
        let begun = |digest: u64| {
            let mut run = Run::of(3);
            let view = run.view;
            for (member, digest) in [(A, 7), (B, 7), (C, digest)] {
                run.event(member, What::State { view, line: 0, digest });
            }
            run.violated_in_the_end()
        };
        assert_eq!(begun(7), [""; 0]);
        assert_eq!(begun(8), ["state-at-cut"]);
    }

    #[test]
    fn several_states_are_in_one_view_only_where_that_may_be_and_each_is_one() {
        let begun = |one_state: bool, states: [(u64, u64); 3]| {
            let mut run = Run::of(3);
            let view = run.view;
            for (member, (line, digest)) in [A, B, C].into_iter().zip(states) {
                run.event(member, What::State { view, line, digest });
            }
            run.violated_under(&Promises { one_state, ..Promises::reliable_fifo().quiescent() })
        };
        let apart = [(0, 7), (1, 8), (1, 8)];
        assert_eq!(begun(false, apart), [""; 0]);
        assert_eq!(begun(true, apart), ["state-at-cut"]);
        assert_eq!(begun(false, [(0, 7), (1, 8), (1, 9)]), ["state-at-cut"]);
    }

    #[test]
    fn who_passes_a_view_without_the_state_goes_through_it() {
        let passed = |together: &[Incarnation], past: &[Incarnation]| {
            let mut run = Run::of(2);
            run.transit(B, together);
            let through = What::Passed { view: view(2), members: past.to_vec() };
            run.event(A, What::Crash).event(B, through).install(B, 3, &[B]);
            run.violated_in_the_end()
        };
        assert_eq!(passed(&[A, B], &[A, B]), [""; 0], "A was in the view that was passed");
        assert_eq!(passed(&[A, B], &[B]), ["transitional-is-truthful"]);
    }

    #[test]
    fn members_that_install_growing_views_they_are_in_pass() {
        let mut run = Run::of(3);
        run.install(A, 2, &[A, B]).install(B, 2, &[A, B]).event(C, What::Crash);
        assert_eq!(run.violated_in_the_end(), [""; 0]);
    }

    #[test]
    fn a_view_without_its_installer_is_caught() {
        let mut run = Run::of(3);
        run.install(C, 2, &[A, B]);
        assert_eq!(run.violated(), ["self-inclusion"]);
        let mut run = Run::of(3);
        let transitional = What::View { view: view(1), members: vec![A, B], transitional: true };
        run.event(C, transitional);
        assert_eq!(run.violated(), ["self-inclusion"]);
    }

    #[test]
    fn a_view_id_that_does_not_grow_is_caught() {
        let mut run = Run::of(2);
        run.install(A, 1, &[A, B]);
        assert_eq!(run.violated(), ["view-ids-grow"]);
        let mut run = Run::started(2);
        run.install(A, 3, &[A, B]).install(A, 2, &[A, B]);
        assert_eq!(run.violated(), ["view-ids-grow"]);
    }

    #[test]
    fn two_memberships_under_one_id_are_caught() {
        let mut run = Run::started(3);
        run.install(A, 1, &[A, B, C]).install(B, 1, &[A, B]);
        assert_eq!(run.violated(), ["one-membership"]);
        let mut run = Run::started(2);
        run.install(A, 1, &[A, B]).install(B, 1, &[B, A]);
        assert_eq!(run.violated(), ["one-membership"], "ranks differ");
    }

    #[test]
    fn delivery_outside_of_a_view_is_caught() {
        let mut run = Run::started(2);
        run.install(A, 1, &[A, B]).cast(A, 1).deliver(B, A, 1);
        assert_eq!(run.violated(), ["current-view"], "before the first view");
        let mut run = Run::of(2);
        run.cast(A, 1).install(B, 2, &[A, B]);
        run.view = view(1);
        run.deliver(B, A, 1);
        assert!(run.violated().contains(&"current-view"), "the old view is over");
        let mut run = Run::started(3);
        run.install(A, 1, &[A, B]).install(B, 1, &[A, B]).cast(C, 1).deliver(A, C, 1);
        assert!(run.violated().contains(&"current-view"), "from outside of the view");
    }

    #[test]
    fn members_that_end_in_different_views_are_caught() {
        let mut run = Run::of(2);
        assert_eq!(run.violated_in_the_end(), [""; 0]);
        run.install(A, 2, &[A, B]);
        assert_eq!(run.violated_in_the_end(), ["common-view"]);
        let mut run = Run::started(2);
        run.install(A, 1, &[A, B]);
        assert_eq!(run.violated_in_the_end(), ["common-view"], "one has no view at all");
        assert_eq!(run.event(B, What::Crash).violated_in_the_end(), [""; 0], "the dead are excused");
    }

    fn evs() -> Promises {
        Promises { transitional: true, ..Promises::reliable_fifo() }
    }

    #[test]
    fn transitional_views_that_say_who_goes_together_pass() {
        let mut run = Run::of(3);
        run.transit(A, &[A, B]).install(A, 2, &[A, B]);
        run.view = view(1);
        run.transit(B, &[A, B]).install(B, 2, &[A, B]);
        assert_eq!(run.violated_under(&evs()), [""; 0]);
        // C is alone; and who dies before the next view is excused.
        run.view = view(1);
        run.transit(C, &[C]).install(C, 3, &[C]).transit(C, &[C]).event(C, What::Crash);
        assert_eq!(run.violated_under(&evs()), [""; 0]);
    }

    #[test]
    fn regular_views_without_a_transitional_one_before_are_caught() {
        let mut run = Run::of(2);
        run.install(A, 2, &[A]);
        assert_eq!(run.violated_under(&evs()), ["transitional-precedes"]);
        assert_eq!(run.violated(), [""; 0], "unless it is not promised");
        let mut run = Run::of(2);
        run.transit(A, &[A]).transit(A, &[A]).install(A, 2, &[A]);
        assert_eq!(run.violated_under(&evs()), ["transitional-precedes"]);
    }

    #[test]
    fn transitional_views_that_lie_are_caught() {
        let truth = |told: &[Incarnation], b_goes_along: bool| {
            let mut run = Run::of(3);
            run.transit(A, told).install(A, 2, &[A, B]);
            run.view = view(1);
            if b_goes_along {
                run.transit(B, &[A, B]).install(B, 2, &[A, B]);
            } else {
                run.transit(B, &[B]).install(B, 3, &[B]);
            }
            run.violated_under(&evs())
        };
        assert_eq!(truth(&[A, B], true), [""; 0]);
        assert_eq!(truth(&[A], true), ["transitional-is-truthful"], "one that goes along is not named");
        assert_eq!(truth(&[A, B], false), [""; 0], "one never hears of the next view, and goes elsewhere");
        assert_eq!(truth(&[A, B, C], true), ["transitional-is-truthful"], "one is not in the next view");
        let mut run = Run::of(2);
        run.install(B, 2, &[B]);
        run.view = view(1);
        run.transit(A, &[A, B]).install(A, 3, &[A, B]).install(B, 3, &[A, B]);
        assert_eq!(run.violated(), ["transitional-is-truthful"], "one comes from another view");
        assert_eq!(truth(&[A, B, D], true), ["transitional-is-truthful"], "one was never there");
        assert_eq!(truth(&[B], true), ["self-inclusion", "transitional-is-truthful"], "not even itself");
        let mut run = Run::of(1);
        run.view = view(2);
        run.transit(A, &[A]).install(A, 2, &[A]);
        assert_eq!(run.violated_under(&evs()), ["transitional-is-truthful"], "it belongs to the view before");
    }
}
