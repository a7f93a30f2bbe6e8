//! Properties of stacks that order casts across origins.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{Incarnation, Traffic, ViewId};
use crate::index::{Delivered, Index, Life, Stay};
use crate::properties::Promises;
use crate::properties::casts::name;
use crate::properties::views::{Journey, journey};
use crate::report::{Finding, Findings};

/// Where a cast stands among those of its origin.
type Key = (Incarnation, u64);

fn key(delivered: &Delivered) -> Key {
    (delivered.origin, delivered.sequence)
}

/// Casts that an origin had delivered when it issued one of its own, by the latest of each origin.
type Past = Vec<Key>;

pub(crate) fn causal(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    let pasts = pasts(index);
    for life in &index.lives {
        for stay in &life.stays {
            let mut latest: HashMap<Incarnation, u64> = HashMap::new();
            for delivered in &stay.casts {
                let past = pasts.get(&(stay.view, key(delivered))).map_or(&[][..], Vec::as_slice);
                let lacking = past.iter().find(|(origin, sequence)| {
                    latest.get(origin).is_none_or(|delivered| delivered < sequence)
                });
                if let Some((origin, sequence)) = lacking {
                    let origin_life = index.life(*origin);
                    let cause = origin_life.and_then(|life| life.issued(Traffic::Cast, *sequence));
                    let before = index.life(*origin).map(|life| life.name(Traffic::Cast, *sequence));
                    findings.add(|| Finding {
                        what: format!(
                            "{} delivers {}, whose origin had delivered cast {origin}#{sequence} when it issued it, \
                             but not yet that",
                            life.incarnation,
                            name(Traffic::Cast, delivered)
                        ),
                        members: vec![life.incarnation, delivered.origin, *origin],
                        messages: before.into_iter().chain([name(Traffic::Cast, delivered)]).collect(),
                        events: cause.map(|cast| cast.event).into_iter().chain([delivered.event]).collect(),
                    });
                }
                let known = latest.entry(delivered.origin).or_default();
                *known = (*known).max(delivered.sequence);
            }
        }
    }
}

/// By view and cast: what its origin had delivered in that view when it issued it there.
fn pasts(index: &Index<'_>) -> HashMap<(ViewId, Key), Past> {
    let mut pasts = HashMap::new();
    for life in &index.lives {
        for stay in &life.stays {
            let Some(own) = life.casts_by_view.get(&stay.view) else { continue };
            let mut latest: BTreeMap<Incarnation, u64> = BTreeMap::new();
            let mut delivered = stay.casts.iter().peekable();
            for cast in own.iter().map(|at| &life.casts[*at]) {
                while let Some(before) = delivered.next_if(|delivered| delivered.event < cast.event) {
                    let known = latest.entry(before.origin).or_default();
                    *known = (*known).max(before.sequence);
                }
                let past = latest.iter().map(|(origin, sequence)| (*origin, *sequence)).collect();
                pasts.insert((stay.view, (life.incarnation, cast.sequence)), past);
            }
        }
    }
    pasts
}

/// Everybody's stays, by view.
fn stays<'i>(index: &'i Index<'_>) -> BTreeMap<ViewId, Vec<(&'i Life, &'i Stay)>> {
    let mut stays: BTreeMap<ViewId, Vec<(&Life, &Stay)>> = BTreeMap::new();
    for life in &index.lives {
        for stay in &life.stays {
            stays.entry(stay.view).or_default().push((life, stay));
        }
    }
    stays
}

/// What a member delivered in a view, in its order.
type Sequence<'i> = (&'i Life, &'i [Delivered]);

pub(crate) fn total(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for (view, stays) in stays(index) {
        one_order(view, stays.iter().map(|(life, stay)| (*life, &stay.casts[..])), findings);
    }
}

pub(crate) fn total_together(index: &Index<'_>, promises: &Promises, findings: &mut Findings<'_>) {
    let mut journeys: BTreeMap<Journey, Vec<Sequence<'_>>> = BTreeMap::new();
    for life in &index.lives {
        for (at, stay) in life.stays.iter().enumerate() {
            if let Some(journey) = journey(life, at, promises) {
                journeys.entry(journey).or_default().push((life, &stay.casts));
            }
        }
    }
    for (journey, together) in journeys {
        one_order(journey.from, together.into_iter(), findings);
    }
}

pub(crate) fn total_while_whole(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for (view, stays) in stays(index) {
        one_order(view, stays.iter().map(|(life, stay)| (*life, while_whole(index, stay))), findings);
    }
}

/// What was delivered in a view while it was whole: up to the last safe cast before the transitional view.
fn while_whole<'s>(index: &Index<'_>, stay: &'s Stay) -> &'s [Delivered] {
    let end = stay.transitional.first().copied().unwrap_or(usize::MAX);
    let before = &stay.casts[..stay.casts.partition_point(|delivered| delivered.event < end)];
    let is_safe = |cast: &Delivered| !index.issued(Traffic::Cast, cast).is_some_and(|cast| cast.agreed);
    &before[..before.iter().rposition(is_safe).map_or(0, |last| last + 1)]
}

/// Finds members that delivered the same casts in different orders.
fn one_order<'i>(view: ViewId, all: impl Iterator<Item = Sequence<'i>>, findings: &mut Findings<'_>) {
    let mut known: HashSet<Vec<Key>> = HashSet::new();
    let different: Vec<_> = all.filter(|(_, casts)| known.insert(casts.iter().map(key).collect())).collect();
    for (at, (life, ours)) in different.iter().enumerate() {
        let places: HashMap<Key, &Delivered> = ours.iter().map(|cast| (key(cast), cast)).collect();
        for (other, theirs) in &different[..at] {
            let common = || theirs.iter().filter_map(|cast| Some((cast, *places.get(&key(cast))?)));
            let swapped = common().zip(common().skip(1)).find(|(one, next)| one.1.event > next.1.event);
            if let Some(((first, ours_late), (second, ours_early))) = swapped {
                findings.add(|| Finding {
                    what: format!(
                        "in {view} {} delivers {} before {}, and {} after it",
                        other.incarnation,
                        name(Traffic::Cast, first),
                        name(Traffic::Cast, second),
                        life.incarnation
                    ),
                    members: vec![life.incarnation, other.incarnation],
                    messages: vec![name(Traffic::Cast, first), name(Traffic::Cast, second)],
                    events: vec![first.event, second.event, ours_early.event, ours_late.event],
                });
            }
        }
    }
}

pub(crate) fn without_holes(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for (view, stays) in stays(index) {
        let Some((first, longest)) = stays.iter().max_by_key(|(_, stay)| stay.casts.len()) else { continue };
        for (life, stay) in &stays {
            let differs =
                stay.casts.iter().zip(&longest.casts).find(|(ours, theirs)| key(ours) != key(theirs));
            if let Some((ours, theirs)) = differs {
                findings.add(|| Finding {
                    what: format!(
                        "in {view} {} delivers {} where {} delivers {}",
                        life.incarnation,
                        name(Traffic::Cast, ours),
                        first.incarnation,
                        name(Traffic::Cast, theirs)
                    ),
                    members: vec![life.incarnation, first.incarnation],
                    messages: vec![name(Traffic::Cast, ours), name(Traffic::Cast, theirs)],
                    events: vec![ours.event, theirs.event],
                });
            }
        }
    }
}

pub(crate) fn safe(index: &Index<'_>, promises: &Promises, findings: &mut Findings<'_>) {
    for (view, stays) in stays(index) {
        // What somebody delivered while the view was whole: with a safe cast, all before it.
        let mut whole: BTreeMap<Key, (&Life, &Delivered)> = BTreeMap::new();
        for (life, stay) in &stays {
            for delivered in while_whole(index, stay) {
                whole.entry(key(delivered)).or_insert((life, delivered));
            }
        }
        for (life, stay) in &stays {
            let at = life.stays.iter().position(|other| other.event == stay.event);
            if at.and_then(|at| journey(life, at, promises)).is_none() {
                continue;
            }
            let delivered: HashSet<Key> = stay.casts.iter().map(key).collect();
            for (key, (other, cast)) in whole.iter().filter(|(key, _)| !delivered.contains(key)) {
                let (origin, sequence) = key;
                findings.add(|| Finding {
                    what: format!(
                        "{} delivers cast {origin}#{sequence} in {view}, all of whose members hold it therefore, but {} \
                         goes on from there without it",
                        other.incarnation, life.incarnation
                    ),
                    members: vec![other.incarnation, life.incarnation],
                    messages: vec![name(Traffic::Cast, cast)],
                    events: vec![cast.event, stay.event],
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::history::Incarnation;
    use crate::properties::Promises;
    use crate::properties::testing::*;

    fn ordered() -> Promises {
        Promises { total: true, without_holes: true, causal: true, safe: true, ..Promises::reliable_fifo() }
    }

    /// A casts 1, B answers with 1 of its own, A casts 2; two members deliver all in that order, C one less.
    fn good() -> Run {
        let mut run = Run::of(3);
        run.cast(A, 1).deliver(A, A, 1).deliver(B, A, 1).cast(B, 1).deliver(A, B, 1).cast(A, 2);
        run.deliver(A, A, 2).deliver(B, B, 1).deliver(B, A, 2).deliver(C, A, 1).deliver(C, B, 1);
        run
    }

    #[test]
    fn one_order_passes_and_whoever_is_behind_may_be() {
        assert_eq!(good().violated_under(&ordered()), [""; 0]);
        let mut run = good();
        run.deliver(C, A, 2);
        assert_eq!(run.violated_under(&ordered().quiescent()), [""; 0]);
    }

    #[test]
    fn an_answer_before_its_question_is_caught() {
        let mut run = Run::of(3);
        run.cast(A, 1).deliver(A, A, 1).deliver(B, A, 1).cast(B, 1).deliver(C, B, 1).deliver(C, A, 1);
        assert_eq!(run.violated_under(&Promises { causal: true, ..Promises::reliable_fifo() }), ["causal"]);
        assert_eq!(run.violated(), [""; 0], "FIFO does not promise it");
    }

    #[test]
    fn two_orders_are_caught_and_so_is_a_hole() {
        let mut run = Run::of(3);
        run.cast(A, 1).cast(B, 1);
        run.deliver(A, A, 1).deliver(A, B, 1).deliver(C, B, 1).deliver(C, A, 1);
        assert_eq!(run.violated_under(&ordered()), ["total", "without-holes"]);
        let mut run = Run::of(3);
        run.cast(A, 1).cast(B, 1);
        run.deliver(A, A, 1).deliver(A, B, 1).deliver(C, B, 1);
        assert_eq!(run.violated_under(&ordered()), ["without-holes"], "C lacks what A delivered before");
    }

    /// A and B deliver two casts in two orders, and go on to the views that these numbers stand for.
    fn two_orders(to: [u64; 2], transit: bool) -> Run {
        let mut run = Run::of(3);
        run.cast(A, 1).cast(B, 1).deliver(A, A, 1).deliver(A, B, 1);
        if transit {
            run.transit(A, &[A]).transit(B, &[B]);
        }
        run.deliver(B, B, 1).deliver(B, A, 1);
        for (member, next) in [(A, to[0]), (B, to[1])] {
            let members: &[Incarnation] = if to[0] == to[1] { &[A, B] } else { &[member] };
            run.install(member, next, members);
        }
        run
    }

    #[test]
    fn two_orders_of_those_that_part_are_caught_where_nobody_may_differ() {
        let together = Promises { total_together: true, ..Promises::reliable_fifo() };
        assert_eq!(two_orders([2, 2], false).violated_under(&together), ["total-together"]);
        assert_eq!(two_orders([2, 3], false).violated_under(&together), [""; 0]);
        let whole = Promises { total_while_whole: true, transitional: true, ..Promises::reliable_fifo() };
        assert_eq!(
            two_orders([2, 3], true).violated_under(&whole),
            [""; 0],
            "B delivers after the whole view"
        );
        let whole = Promises { transitional: false, ..whole };
        assert_eq!(two_orders([2, 3], false).violated_under(&whole), ["total-while-whole"]);
        let total = Promises { total: true, ..Promises::reliable_fifo() };
        assert_eq!(two_orders([2, 3], false).violated_under(&total), ["total"]);
    }

    /// A delivers 1 in the whole view, and parts from B, which goes on without.
    #[test]
    fn what_a_whole_view_has_delivered_all_have_wherever_they_go() {
        let parted = |late: bool| {
            let mut run = Run::of(2);
            run.cast(A, 1);
            if late {
                run.transit(A, &[A]).deliver(A, A, 1);
            } else {
                run.deliver(A, A, 1).transit(A, &[A]);
            }
            run.transit(B, &[B]).install(A, 2, &[A]).install(B, 3, &[B]);
            run.violated_under(&Promises { transitional: true, ..ordered() })
        };
        assert_eq!(parted(false), ["safe"]);
        assert_eq!(parted(true), [""; 0], "after the transitional view it is promised to A alone");
    }

    /// A delivers an agreed cast in the whole view, and perhaps a safe one after it; B goes on with that alone, or with nothing.
    #[test]
    fn an_agreed_cast_is_promised_to_all_by_the_safe_one_behind_it() {
        let parted = |safe: bool| {
            let mut run = Run::of(2);
            run.cast_agreed(A, 1).deliver(A, A, 1);
            if safe {
                run.cast(B, 1).deliver(A, B, 1);
            }
            run.transit(A, &[A]).transit(B, &[B]);
            if safe {
                run.deliver(B, B, 1);
            }
            run.install(A, 2, &[A]).install(B, 3, &[B]);
            run.violated_under(&Promises {
                transitional: true,
                without_holes: false,
                causal: false,
                ..ordered()
            })
        };
        assert_eq!(parted(false), [""; 0]);
        assert_eq!(parted(true), ["safe"]);
    }
}
