//! Properties of casts.

use crate::history::{Incarnation, MessageName, Traffic, ViewId, What};
use crate::index::{Delivered, Index, Life, Stay};
use crate::properties::Promises;
use crate::properties::views::{Journey, journey};
use crate::quick::QuickMap;
use crate::report::{Finding, Findings};

pub(crate) fn no_creation(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        let delivered = life.stays.iter().flat_map(|stay| &stay.casts);
        created(index, Traffic::Cast, life, delivered, findings);
    }
}

/// Finds deliveries of what was not issued.
pub(crate) fn created<'l>(
    index: &Index<'_>,
    traffic: Traffic,
    life: &Life,
    deliveries: impl Iterator<Item = &'l Delivered>,
    findings: &mut Findings<'_>,
) {
    for delivered in deliveries {
        let issued = index.issued(traffic, delivered);
        let fault = match issued {
            None => "that nobody issued",
            Some(issued) if issued.event > delivered.event => "before it is issued",
            Some(issued) if issued.content.bytes != delivered.content.bytes => "with another length",
            Some(issued) if issued.content != delivered.content => "with another content",
            Some(_) => continue,
        };
        findings.add(|| Finding {
            what: format!("{} delivers {} {fault}", life.incarnation, name(traffic, delivered)),
            members: vec![life.incarnation, delivered.origin],
            messages: vec![name(traffic, delivered)],
            events: issued.map(|issued| issued.event).into_iter().chain([delivered.event]).collect(),
        });
    }
}

pub(crate) fn no_duplicates(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        let delivered = life.stays.iter().flat_map(|stay| &stay.casts);
        duplicated(Traffic::Cast, life, delivered, findings);
    }
}

/// Finds messages delivered twice at one member.
pub(crate) fn duplicated<'l>(
    traffic: Traffic,
    life: &Life,
    deliveries: impl Iterator<Item = &'l Delivered>,
    findings: &mut Findings<'_>,
) {
    let mut sorted: Vec<_> = deliveries.filter(|delivered| delivered.sequence > 0).collect();
    sorted.sort_by_key(|delivered| (delivered.origin, delivered.sequence, delivered.event));
    for pair in sorted.windows(2) {
        if (pair[0].origin, pair[0].sequence) == (pair[1].origin, pair[1].sequence) {
            findings.add(|| Finding {
                what: format!("{} delivers {} twice", life.incarnation, name(traffic, pair[0])),
                members: vec![life.incarnation],
                messages: vec![name(traffic, pair[0])],
                events: vec![pair[0].event, pair[1].event],
            });
        }
    }
}

pub(crate) fn fifo(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        overtaken(Traffic::Cast, life, life.stays.iter().flat_map(|stay| &stay.casts), findings);
    }
}

/// Finds messages delivered after a later one of the same origin.
pub(crate) fn overtaken<'l>(
    traffic: Traffic,
    life: &Life,
    deliveries: impl Iterator<Item = &'l Delivered>,
    findings: &mut Findings<'_>,
) {
    let mut latest: QuickMap<Incarnation, &Delivered> = QuickMap::default();
    for delivered in deliveries.filter(|delivered| delivered.sequence > 0) {
        let last = latest.entry(delivered.origin).or_insert(delivered);
        if delivered.sequence < last.sequence {
            let last = *last;
            findings.add(|| Finding {
                what: format!(
                    "{} delivers {} after {}",
                    life.incarnation,
                    name(traffic, delivered),
                    name(traffic, last)
                ),
                members: vec![life.incarnation, delivered.origin],
                messages: vec![name(traffic, delivered), name(traffic, last)],
                events: vec![last.event, delivered.event],
            });
        } else {
            *last = delivered;
        }
    }
}

pub(crate) fn no_gaps(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    let first = first_casts(index);
    for life in &index.lives {
        for stay in &life.stays {
            let mut due: QuickMap<Incarnation, u64> = QuickMap::default();
            for delivered in stay.casts.iter().filter(|delivered| delivered.sequence > 0) {
                let first = || first.get(&(delivered.origin, stay.view)).copied();
                let due =
                    due.entry(delivered.origin).or_insert_with(|| first().unwrap_or(delivered.sequence));
                if delivered.sequence > *due {
                    let missing = MessageName { sequence: *due, ..name(Traffic::Cast, delivered) };
                    findings.add(|| Finding {
                        what: format!(
                            "{} delivers {} but not yet {missing}",
                            life.incarnation,
                            name(Traffic::Cast, delivered)
                        ),
                        members: vec![life.incarnation, delivered.origin],
                        messages: vec![missing, name(Traffic::Cast, delivered)],
                        events: issued_at(index, missing).into_iter().chain([delivered.event]).collect(),
                    });
                }
                *due = (*due).max(delivered.sequence + 1);
            }
        }
    }
}

/// The number of the first cast that each member issued in each view.
pub(crate) fn first_casts(index: &Index<'_>) -> QuickMap<(Incarnation, ViewId), u64> {
    let mut first = QuickMap::default();
    for life in &index.lives {
        for cast in &life.casts {
            if let Some(view) = cast.view {
                first.entry((life.incarnation, view)).or_insert(cast.sequence);
            }
        }
    }
    first
}

pub(crate) fn same_view(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    let mut views: QuickMap<(Incarnation, u64), (ViewId, &Life, &Delivered)> = QuickMap::default();
    if index.views.len() < 2 {
        return;
    }
    for life in &index.lives {
        for stay in &life.stays {
            for delivered in stay.casts.iter().filter(|delivered| delivered.sequence > 0) {
                let key = (delivered.origin, delivered.sequence);
                let (view, other, before) = *views.entry(key).or_insert((stay.view, life, delivered));
                if view != stay.view {
                    findings.add(|| Finding {
                        what: format!(
                            "{} is delivered in {view} at {} and in {} at {}",
                            name(Traffic::Cast, delivered),
                            other.incarnation,
                            stay.view,
                            life.incarnation
                        ),
                        members: vec![other.incarnation, life.incarnation],
                        messages: vec![name(Traffic::Cast, delivered)],
                        events: vec![before.event, delivered.event],
                    });
                }
            }
        }
    }
}

pub(crate) fn sending_view(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        for cast in &life.casts {
            let What::CastIssued { view, .. } = &index.history.events[cast.event].what else { continue };
            if view.is_some() && *view != cast.current {
                findings.add(|| Finding {
                    what: format!(
                        "{} is issued in a view that is not there yet, or over",
                        life.name(Traffic::Cast, cast.sequence)
                    ),
                    members: vec![life.incarnation],
                    messages: vec![life.name(Traffic::Cast, cast.sequence)],
                    events: vec![cast.event],
                });
            }
        }
        for stay in &life.stays {
            for delivered in &stay.casts {
                let Some(issued) = index.issued(Traffic::Cast, delivered) else { continue };
                if issued.view != Some(stay.view) {
                    findings.add(|| Finding {
                        what: format!(
                            "{} is delivered in {} at {}, but was issued in {}",
                            name(Traffic::Cast, delivered),
                            stay.view,
                            life.incarnation,
                            issued.view.map_or("none: it was never placed".into(), |view| view.to_string())
                        ),
                        members: vec![life.incarnation, delivered.origin],
                        messages: vec![name(Traffic::Cast, delivered)],
                        events: vec![issued.event, delivered.event],
                    });
                }
            }
        }
    }
}

pub(crate) fn agreement(index: &Index<'_>, promises: &Promises, findings: &mut Findings<'_>) {
    let mut travellers: QuickMap<Journey, Traveller<'_>> = QuickMap::default();
    for life in &index.lives {
        for (at, stay) in life.stays.iter().enumerate() {
            let Some(journey) = journey(life, at, promises).filter(|journey| journey.to.is_some()) else {
                continue;
            };
            let mine = delivered_set(stay);
            let Some((other, theirs_stay, theirs)) = travellers.get(&journey) else {
                travellers.insert(journey, (life, stay, mine));
                continue;
            };
            disagreement((life, stay, &mine), (other, theirs_stay, theirs), findings);
            disagreement((other, theirs_stay, theirs), (life, stay, &mine), findings);
        }
    }
}

/// Who went some way first, and what it had delivered in the view it came from.
type Traveller<'a> = (&'a Life, &'a Stay, Vec<(Incarnation, u64)>);
type Side<'a> = (&'a Life, &'a Stay, &'a [(Incarnation, u64)]);

/// Finds what `one` delivered and `other`, which went the same way, did not.
fn disagreement(one: Side<'_>, other: Side<'_>, findings: &mut Findings<'_>) {
    for (origin, sequence) in one.2.iter().filter(|message| other.2.binary_search(message).is_err()) {
        let message = MessageName { traffic: Traffic::Cast, origin: *origin, sequence: *sequence };
        let delivered = one.1.casts.iter().find(|cast| (cast.origin, cast.sequence) == (*origin, *sequence));
        findings.add(|| Finding {
            what: format!(
                "{} delivered {message} in {} and {}, which left that view for the same next, did not",
                one.0.incarnation, one.1.view, other.0.incarnation
            ),
            members: vec![one.0.incarnation, other.0.incarnation],
            messages: vec![message],
            events: delivered.map(|cast| cast.event).into_iter().chain([other.1.event]).collect(),
        });
    }
}

/// What was delivered in a stay, sorted.
fn delivered_set(stay: &Stay) -> Vec<(Incarnation, u64)> {
    let mut set: Vec<_> = stay.casts.iter().map(|cast| (cast.origin, cast.sequence)).collect();
    set.sort_unstable();
    set.dedup();
    set
}

pub(crate) fn own_copies(index: &Index<'_>, promises: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        for (at, stay) in life.stays.iter().enumerate() {
            if journey(life, at, promises).is_some() {
                missing(life, stay, life, &delivered_set(stay), findings);
            }
        }
    }
}

pub(crate) fn completeness(index: &Index<'_>, promises: &Promises, findings: &mut Findings<'_>) {
    let to_the_end = |life: &&Life| {
        life.stays.len().checked_sub(1).is_some_and(|last| journey(life, last, promises).is_some())
    };
    for life in index.lives.iter().filter(to_the_end) {
        let stay = life.stays.last().expect("it has a journey");
        let delivered = delivered_set(stay);
        let origins = index.lives.iter().filter(|origin| origin.incarnation != life.incarnation);
        for origin in
            origins.filter(to_the_end).filter(|origin| origin.stays.last().unwrap().view == stay.view)
        {
            missing(life, stay, origin, &delivered, findings);
        }
    }
}

/// Finds casts that `origin` issued in the view of `stay` and that are not in `delivered`.
fn missing(
    life: &Life,
    stay: &Stay,
    origin: &Life,
    delivered: &[(Incarnation, u64)],
    findings: &mut Findings<'_>,
) {
    let of_view = origin.casts_by_view.get(&stay.view).map_or(&[][..], Vec::as_slice);
    for cast in of_view.iter().map(|at| &origin.casts[*at]) {
        if delivered.binary_search(&(origin.incarnation, cast.sequence)).is_err() {
            let message = origin.name(Traffic::Cast, cast.sequence);
            findings.add(|| Finding {
                what: format!("{} never delivers {message} of {}", life.incarnation, stay.view),
                members: vec![life.incarnation, origin.incarnation],
                messages: vec![message],
                events: vec![cast.event],
            });
        }
    }
}

pub(crate) fn name(traffic: Traffic, delivered: &Delivered) -> MessageName {
    MessageName { traffic, origin: delivered.origin, sequence: delivered.sequence }
}

fn issued_at(index: &Index<'_>, message: MessageName) -> Option<usize> {
    Some(index.life(message.origin)?.issued(message.traffic, message.sequence)?.event)
}

#[cfg(test)]
mod tests {
    use crate::history::{Content, What};
    use crate::properties::testing::*;

    /// Two casts of A and one of B, everywhere.
    fn good() -> Run {
        let mut run = Run::of(3);
        run.cast(A, 1).cast(B, 1).cast(A, 2);
        for member in [A, B, C] {
            run.deliver(member, A, 1).deliver(member, A, 2).deliver(member, B, 1);
        }
        run
    }

    #[test]
    fn what_everybody_gets_in_order_passes() {
        assert_eq!(good().violated_in_the_end(), [""; 0]);
    }

    #[test]
    fn a_cast_out_of_nothing_is_caught() {
        let mut run = good();
        run.deliver(C, A, 3);
        assert_eq!(run.violated(), ["no-creation"]);
        let mut run = good();
        run.deliver(C, A, 0);
        assert_eq!(run.violated(), ["no-creation"], "number 0 is nobody's");
        let mut run = good();
        run.deliver(C, D, 1);
        assert!(run.violated().contains(&"no-creation"), "D never lived");
    }

    #[test]
    fn a_cast_delivered_before_it_is_issued_is_caught() {
        let mut run = Run::of(2);
        run.deliver(B, A, 1).cast(A, 1).deliver(A, A, 1);
        assert_eq!(run.violated_in_the_end(), ["no-creation"]);
    }

    #[test]
    fn a_changed_content_is_caught() {
        for other in [Content { bytes: 64, hash: 9 }, Content { bytes: 63, ..content(A, 1) }] {
            let mut run = Run::of(2);
            run.cast(A, 1);
            run.event(B, What::CastDelivered { origin: A, sequence: 1, content: other, view: view(1) });
            assert_eq!(run.violated(), ["no-creation"]);
        }
    }

    #[test]
    fn a_cast_under_another_name_is_caught() {
        let mut run = Run::of(2);
        run.cast(A, 1).cast(B, 1);
        run.event(B, What::CastDelivered { origin: B, sequence: 1, content: content(A, 1), view: view(1) });
        assert_eq!(run.violated(), ["no-creation"]);
    }

    #[test]
    fn a_duplicate_is_caught_at_once_and_much_later() {
        let mut run = Run::of(2);
        run.cast(A, 1).deliver(B, A, 1).deliver(B, A, 1);
        assert_eq!(run.violated(), ["no-duplicates"]);
        let mut run = good();
        run.deliver(B, A, 1);
        assert!(run.violated().contains(&"no-duplicates"));
        let mut run = good();
        for member in [A, B, C] {
            run.install(member, 2, &[A, B, C]);
        }
        run.deliver(C, A, 2);
        assert!(run.violated().contains(&"no-duplicates"), "across views too");
    }

    #[test]
    fn an_overtaken_cast_is_caught() {
        let mut run = Run::of(2);
        run.cast(A, 1).cast(A, 2).deliver(B, A, 2).deliver(B, A, 1);
        assert_eq!(run.violated(), ["fifo", "no-gaps"]);
    }

    #[test]
    fn a_gap_is_caught_even_if_it_is_never_filled() {
        let mut run = Run::of(2);
        run.cast(A, 1).cast(A, 2).cast(A, 3).deliver(B, A, 1).deliver(B, A, 3);
        assert_eq!(run.violated(), ["no-gaps"]);
        let mut run = Run::of(2);
        run.cast(A, 1).cast(A, 2).deliver(B, A, 2);
        assert_eq!(run.violated(), ["no-gaps"], "the first one of the view is missing");
    }

    #[test]
    fn numbers_go_on_in_the_next_view_without_a_gap() {
        let mut run = good();
        for member in [A, B, C] {
            run.install(member, 2, &[A, B, C]);
        }
        run.cast(A, 3).deliver(A, A, 3).deliver(B, A, 3).deliver(C, A, 3);
        assert_eq!(run.violated_in_the_end(), [""; 0]);
    }

    #[test]
    fn members_that_go_together_must_agree() {
        let mut run = Run::of(3);
        run.cast(C, 1).deliver(A, C, 1).event(C, What::Crash);
        let mut apart = Run { history: run.history.clone(), view: run.view };
        run.install(A, 2, &[A, B]).install(B, 2, &[A, B]);
        assert_eq!(run.violated_in_the_end(), ["agreement"]);
        apart.install(A, 2, &[A]).install(B, 3, &[B]);
        assert_eq!(apart.violated(), [""; 0], "they did not go together");
    }

    #[test]
    fn an_old_cast_in_a_new_view_is_caught() {
        let mut run = Run::of(3);
        run.cast(A, 1).deliver(A, A, 1).deliver(B, A, 1);
        run.install(A, 2, &[A, B, C]).install(C, 2, &[A, B, C]).deliver(C, A, 1);
        let violated = run.violated();
        assert!(violated.contains(&"same-view-delivery") && violated.contains(&"sending-view-delivery"));
        let mut run = Run::of(2);
        run.cast(A, 1).install(A, 2, &[A, B]).install(B, 2, &[A, B]).deliver(A, A, 1).deliver(B, A, 1);
        let violated = run.violated();
        assert!(violated.contains(&"sending-view-delivery") && !violated.contains(&"same-view-delivery"));
    }

    #[test]
    fn a_queued_cast_belongs_to_the_view_it_was_placed_in() {
        let queued = What::CastIssued { sequence: 1, content: content(A, 1), view: None, agreed: false };
        let mut run = Run::of(2);
        run.event(A, queued.clone()).install(A, 2, &[A, B]).install(B, 2, &[A, B]);
        run.event(A, What::CastPlaced { sequence: 1, view: view(2) }).deliver(A, A, 1).deliver(B, A, 1);
        assert_eq!(run.violated_in_the_end(), [""; 0]);
        let mut run = Run::of(2);
        run.event(A, queued).deliver(A, A, 1).deliver(B, A, 1);
        assert_eq!(run.violated(), ["sending-view-delivery"], "it was never placed");
    }

    #[test]
    fn a_cast_issued_in_a_view_that_is_over_is_caught() {
        let mut run = Run::of(2);
        run.install(A, 2, &[A, B]).install(B, 2, &[A, B]);
        run.view = view(1);
        run.cast(A, 1);
        assert_eq!(run.violated(), ["sending-view-delivery", "own-copies"]);
        let mut run = Run::of(2);
        run.view = view(2);
        run.cast(A, 1);
        assert_eq!(run.violated(), ["sending-view-delivery"], "a view that is not there yet");
    }

    #[test]
    fn a_missing_own_copy_is_caught() {
        let mut run = Run::of(2);
        run.cast(A, 1).deliver(B, A, 1);
        assert_eq!(run.violated(), [""; 0], "it may still come");
        assert_eq!(run.violated_in_the_end(), ["own-copies"]);
        run.install(A, 2, &[A, B]);
        assert_eq!(run.violated(), ["own-copies"], "the view is over");
    }

    #[test]
    fn a_lost_cast_is_caught_in_the_end() {
        let mut run = Run::of(3);
        run.cast(A, 1).deliver(A, A, 1).deliver(B, A, 1);
        assert_eq!(run.violated(), [""; 0]);
        assert_eq!(run.violated_in_the_end(), ["completeness"]);
        run.event(A, What::Crash);
        assert_eq!(run.violated_in_the_end(), [""; 0], "its origin is dead, and no view followed");
    }
}
