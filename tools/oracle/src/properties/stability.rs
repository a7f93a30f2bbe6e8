//! Properties of stability reports: they never say more than is so.

use crate::history::{Incarnation, Measure, MessageName, Traffic, ViewId};
use crate::index::{Index, Life, Report};
use crate::properties::Promises;
use crate::properties::casts::first_casts;
use crate::quick::QuickMap;
use crate::report::{Finding, Findings};

pub(crate) fn held_is_truthful(index: &Index<'_>, promises: &Promises, findings: &mut Findings<'_>) {
    // What a member issued it holds from then on, though its own copy comes up a little later.
    let delivered = |life: &Life, progress: &mut Progress| {
        for cast in &life.casts {
            if let Some(view) = cast.view {
                progress.note(life.incarnation, view, life.incarnation, cast.sequence, cast.event);
            }
        }
        for stay in &life.stays {
            for cast in &stay.casts {
                progress.note(life.incarnation, stay.view, cast.origin, cast.sequence, cast.event);
            }
        }
    };
    truthful(index, promises, Measure::Held, delivered, findings);
}

pub(crate) fn seen_is_truthful(index: &Index<'_>, promises: &Promises, findings: &mut Findings<'_>) {
    let acknowledged = |life: &Life, progress: &mut Progress| {
        for seen in &life.seen {
            progress.note_through(life.incarnation, seen.view, seen.origin, seen.through, seen.event);
        }
    };
    truthful(index, promises, Measure::Seen, acknowledged, findings);
}

/// Finds reports of `measure` that name more members than have done what it says.
fn truthful(
    index: &Index<'_>,
    promises: &Promises,
    measure: Measure,
    collect: impl Fn(&Life, &mut Progress),
    findings: &mut Findings<'_>,
) {
    let of_measure = |report: &&Report| report.measure == measure;
    if !index.lives.iter().any(|life| life.reports.iter().any(|report| of_measure(&report))) {
        return;
    }
    let mut progress = Progress { first: first_casts(index), done: QuickMap::default() };
    for life in &index.lives {
        collect(life, &mut progress);
    }
    progress.settle();
    for life in &index.lives {
        for report in life.reports.iter().filter(of_measure) {
            let members = index.members(report.view);
            // Where delivery may come after holding, it must still come, unless the member dies, the run is cut, or the
            // view ends before: then what it holds may follow on something that it does not.
            let late = measure == Measure::Held && !promises.held_is_delivered;
            let excused = |member: Incarnation| {
                let stays = |life: &Life| life.stays.last().is_some_and(|last| last.view == report.view);
                let waits = |life: &Life| life.lives() && stays(life);
                late && (!promises.quiescent || !index.life(member).is_some_and(waits))
            };
            let before = if late { usize::MAX } else { report.event };
            let lacking: Vec<Incarnation> = members
                .iter()
                .filter(|member| !excused(**member) && !progress.reached(**member, report, before))
                .copied()
                .collect();
            if members.len() - lacking.len() < report.members as usize {
                let message =
                    MessageName { traffic: Traffic::Cast, origin: report.origin, sequence: report.through };
                let (what, verb) = match measure {
                    Measure::Held => ("held", "delivered"),
                    Measure::Seen => ("seen", "acknowledged"),
                };
                findings.add(|| Finding {
                    what: format!(
                        "{} hears that all casts up to {message} are {what} at {} members; {} of {} have not {verb} them",
                        life.incarnation,
                        report.members,
                        lacking.len(),
                        members.len()
                    ),
                    members: [life.incarnation].into_iter().chain(lacking).collect(),
                    messages: vec![message],
                    events: vec![report.event],
                });
            }
        }
    }
}

/// When each member had done something with all casts of an origin, up to each of them, in a view.
struct Progress {
    first: QuickMap<(Incarnation, ViewId), u64>,
    /// By (member, view, origin): at index n, the event by which the first n + 1 casts of the view were done.
    done: QuickMap<(Incarnation, ViewId, Incarnation), Vec<usize>>,
}

impl Progress {
    fn note(&mut self, member: Incarnation, view: ViewId, origin: Incarnation, sequence: u64, event: usize) {
        let Some(first) = self.first.get(&(origin, view)) else { return };
        let Some(at) = sequence.checked_sub(*first).and_then(|at| usize::try_from(at).ok()) else { return };
        let done = self.done.entry((member, view, origin)).or_default();
        if at < CASTS_MAX {
            if done.len() <= at {
                done.resize(at + 1, usize::MAX);
            }
            done[at] = done[at].min(event);
        }
    }

    /// The same for all casts up to `through`.
    fn note_through(
        &mut self,
        member: Incarnation,
        view: ViewId,
        origin: Incarnation,
        through: u64,
        event: usize,
    ) {
        let done = self.done.get(&(member, view, origin)).map_or(0, Vec::len) as u64;
        let Some(first) = self.first.get(&(origin, view)).copied() else { return };
        for sequence in first + done..=through.min(first + CASTS_MAX as u64) {
            self.note(member, view, origin, sequence, event);
        }
    }

    /// Turns "this cast was done by" into "this cast and all before it were done by".
    fn settle(&mut self) {
        for done in self.done.values_mut() {
            for at in 1..done.len() {
                done[at] = done[at].max(done[at - 1]);
            }
        }
    }

    fn reached(&self, member: Incarnation, report: &Report, before: usize) -> bool {
        let Some(first) = self.first.get(&(report.origin, report.view)) else { return report.through == 0 };
        let Some(at) = report.through.checked_sub(*first) else { return true };
        let done = self.done.get(&(member, report.view, report.origin));
        done.and_then(|done| done.get(at as usize)).is_some_and(|event| *event < before)
    }
}

/// A number above this is no cast of one run: it is named in `no-creation`, not remembered here.
const CASTS_MAX: usize = 1 << 26;

pub(crate) fn stability_grows(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in &index.lives {
        let mut last: QuickMap<(Measure, Incarnation, ViewId, u32), &Report> = QuickMap::default();
        for report in &life.reports {
            let key = (report.measure, report.origin, report.view, report.members);
            let before = last.insert(key, report);
            if let Some(before) = before.filter(|before| before.through > report.through) {
                findings.add(|| Finding {
                    what: format!(
                        "{} hears of {}#{} at {} members after {}#{}",
                        life.incarnation,
                        report.origin,
                        report.through,
                        report.members,
                        report.origin,
                        before.through
                    ),
                    members: vec![life.incarnation],
                    messages: Vec::new(),
                    events: vec![before.event, report.event],
                });
            }
        }
    }
}

pub(crate) fn completeness(index: &Index<'_>, _: &Promises, findings: &mut Findings<'_>) {
    for life in index.lives.iter().filter(|life| life.lives()) {
        let Some(stay) = life.stays.last() else { continue };
        let members = index.members(stay.view);
        for origin in members.iter().filter_map(|member| index.life(*member)) {
            let last = origin.casts.iter().rev().find(|cast| cast.view == Some(stay.view));
            let told = life.reports.iter().any(|report| {
                report.measure == Measure::Held
                    && report.origin == origin.incarnation
                    && report.view == stay.view
                    && report.members as usize >= members.len()
                    && last.is_some_and(|last| report.through >= last.sequence)
            });
            if let Some(last) = last.filter(|_| !told && members.iter().all(|member| alive(index, *member))) {
                let message = origin.name(Traffic::Cast, last.sequence);
                findings.add(|| Finding {
                    what: format!("{} is never told that {message} is held by all", life.incarnation),
                    members: vec![life.incarnation],
                    messages: vec![message],
                    events: vec![last.event],
                });
            }
        }
    }
}

fn alive(index: &Index<'_>, member: Incarnation) -> bool {
    index.life(member).is_some_and(Life::lives)
}

#[cfg(test)]
mod tests {
    use crate::history::What;
    use crate::properties::Promises;
    use crate::properties::testing::*;

    fn casts(count: u64) -> Run {
        let mut run = Run::of(3);
        for sequence in 1..=count {
            run.cast(A, sequence).deliver(A, A, sequence).deliver(B, A, sequence);
        }
        run
    }

    #[test]
    fn true_reports_pass() {
        let mut run = casts(2);
        run.event(B, held(A, 2, 2)).deliver(C, A, 1).event(A, held(A, 1, 3)).deliver(C, A, 2);
        run.event(A, held(A, 2, 3)).event(C, held(B, 0, 3));
        assert_eq!(run.violated_in_the_end(), [""; 0]);
    }

    #[test]
    fn an_origin_holds_what_it_cast_before_its_own_copy_comes_up() {
        let mut run = Run::of(2);
        run.cast(A, 1).deliver(B, A, 1).event(A, held(A, 1, 2)).deliver(A, A, 1);
        assert_eq!(run.violated_in_the_end(), [""; 0]);
    }

    #[test]
    fn held_before_all_have_it_is_caught() {
        let mut run = casts(2);
        run.event(A, held(A, 2, 3)).deliver(C, A, 1).deliver(C, A, 2);
        assert_eq!(run.violated_in_the_end(), ["held-is-truthful"]);
        let ordered = Promises { held_is_delivered: false, ..Promises::reliable_fifo() };
        assert_eq!(run.violated_under(&ordered.quiescent()), [""; 0], "an ordering layer may still have it");
    }

    #[test]
    fn held_and_never_delivered_is_caught_behind_an_ordering_layer_too() {
        let mut run = casts(2);
        run.event(A, held(A, 2, 3)).deliver(C, A, 1);
        let ordered = Promises { held_is_delivered: false, ..Promises::reliable_fifo() };
        assert_eq!(run.violated_under(&ordered), [""; 0]);
        assert_eq!(run.violated_under(&ordered.quiescent()), ["completeness", "held-is-truthful"]);
    }

    #[test]
    fn held_beyond_what_was_cast_is_caught() {
        let mut run = casts(2);
        run.event(B, held(A, 3, 1));
        assert_eq!(run.violated(), ["held-is-truthful"]);
        let mut run = casts(2);
        run.event(B, held(C, 1, 1));
        assert_eq!(run.violated(), ["held-is-truthful"], "C never cast");
    }

    #[test]
    fn seen_needs_acknowledgements_that_reach_it() {
        let ack = |through| What::Seen { origin: A, through };
        let mut run = casts(3);
        run.event(A, ack(1)).event(A, ack(2)).event(B, ack(3)).event(B, ack(1));
        run.event(B, seen(A, 2, 2)).event(C, seen(A, 0, 3));
        assert_eq!(run.violated(), [""; 0]);
        let mut run = casts(3);
        run.event(A, ack(1)).event(B, ack(2)).event(A, seen(A, 2, 2));
        assert_eq!(run.violated(), ["seen-is-truthful"], "A has not seen 2");
        let mut run = casts(3);
        run.event(A, seen(A, 1, 1)).event(A, ack(1));
        assert_eq!(run.violated(), ["seen-is-truthful"], "too early");
        let mut run = casts(3);
        run.event(A, ack(1)).event(B, ack(1)).event(A, seen(A, 1, 3));
        assert_eq!(
            run.violated(),
            ["seen-is-truthful"],
            "delivered at A and B, acknowledged at two of three"
        );
    }

    #[test]
    fn the_next_view_counts_from_its_own_first_cast() {
        let mut run = casts(2);
        run.deliver(C, A, 1).deliver(C, A, 2);
        for member in [A, B, C] {
            run.install(member, 2, &[A, B, C]);
        }
        run.cast(A, 3).deliver(A, A, 3).deliver(B, A, 3);
        run.event(B, held(A, 3, 2)).event(B, held(A, 2, 3));
        assert_eq!(run.violated(), [""; 0]);
        run.event(B, held(A, 3, 3));
        assert_eq!(run.violated(), ["held-is-truthful"]);
    }

    #[test]
    fn a_report_that_goes_back_is_caught() {
        let mut run = casts(2);
        run.event(B, held(A, 2, 2)).event(B, held(A, 1, 2));
        assert_eq!(run.violated(), ["stability-grows"]);
    }

    #[test]
    fn silence_about_stability_is_caught_in_the_end() {
        let promises = Promises { stability_is_reported: true, ..Promises::reliable_fifo() }.quiescent();
        let mut run = Run::of(2);
        run.cast(A, 1).deliver(A, A, 1).deliver(B, A, 1).event(A, held(A, 1, 2));
        assert_eq!(run.violated_under(&promises), ["stability-completeness"]);
        run.event(B, held(A, 1, 2));
        assert_eq!(run.violated_under(&promises), [""; 0]);
    }
}
