//! Judges what real processes wrote, when it is over.
//!
//! A life that was killed has no end in its file: the conductor's file says so. Of its last casts it is not known
//! whether they had gone out; if so, then in its last view, for a view is in the file before anything goes out in it. Unless
//! it waited for the group's state: then it had not been told of the view it was in, and what others delivered of it says
//! which one that was.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use wadjet_oracle::{Event, History, Incarnation, Promises, ViewId, Violation, What, check};

/// The conductor's file in a directory of histories.
pub const CONDUCTOR: &str = "conductor.jsonl";

/// What came of it.
#[derive(Debug)]
pub struct Verdict {
    /// Lives in the histories.
    pub lives: usize,
    /// Views that anybody installed.
    pub views: usize,
    /// Casts that were issued.
    pub casts: usize,
    /// Casts delivered, all members together.
    pub delivered: usize,
    /// Sends delivered.
    pub sends: usize,
    /// States with which members began a view.
    pub states: usize,
    /// What the oracle found.
    pub violations: Vec<Violation>,
}

/// Writes which lives were killed, and when.
///
/// # Errors
/// If the file cannot be written.
pub fn write_conductor(directory: &Path, killed: &[(u64, u64)]) -> Result<(), Box<dyn Error>> {
    let mut history = History::default();
    for (incarnation, at) in killed {
        history.push(*at, Incarnation(*incarnation), What::Crash);
    }
    let mut file = File::create(directory.join(CONDUCTOR))?;
    history.write(&mut file)?;
    Ok(file.flush()?)
}

/// All histories of a directory.
///
/// # Errors
/// If it cannot be read.
pub fn files_of(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "jsonl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Judges the histories in `files` by what `stack` promises. `rested`: the run ended with nothing under way, so that
/// everything must have arrived.
///
/// # Errors
/// If a file cannot be read, or holds something else.
pub fn judge(files: &[PathBuf], stack: &str, rested: bool) -> Result<Verdict, Box<dyn Error>> {
    let logs: Result<Vec<History>, _> = files.iter().map(|file| read(file)).collect();
    let history = complete(History::merged(logs?));
    let promises = Promises::reliable_fifo().of_stack(stack);
    let promises = if rested { promises.quiescent() } else { promises };
    let violations = check(&history, &promises);
    let views: HashSet<ViewId> = history.events.iter().filter_map(|event| installed(&event.what)).collect();
    let lives: HashSet<Incarnation> = history.events.iter().map(|event| event.member).collect();
    let count = |is: fn(&What) -> bool| history.events.iter().filter(|event| is(&event.what)).count();
    Ok(Verdict {
        lives: lives.len(),
        views: views.len(),
        casts: count(|what| matches!(what, What::CastIssued { .. })),
        delivered: count(|what| matches!(what, What::CastDelivered { .. })),
        sends: count(|what| matches!(what, What::SendDelivered { .. })),
        states: count(|what| matches!(what, What::State { .. })),
        violations,
    })
}

fn installed(what: &What) -> Option<ViewId> {
    match what {
        What::View { view, transitional: false, .. } => Some(*view),
        _ => None,
    }
}

/// A history; the line that a killed process was writing does not count.
fn read(path: &Path) -> Result<History, Box<dyn Error>> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut input = BufReader::new(File::open(path).map_err(|error| named(&error))?);
    let (mut whole, mut line) = (Vec::new(), Vec::new());
    while input.read_until(b'\n', &mut line).map_err(|error| named(&error))? > 0 && line.ends_with(b"\n") {
        whole.append(&mut line);
    }
    History::read(&whole[..]).map_err(|error| named(&error).into())
}

/// Gives every cast that has no view the one it went out in, if it went out: the last of its origin, or a later one that
/// its origin was in without having been told.
fn complete(history: History) -> History {
    let mut origins: HashMap<Incarnation, Origin> = HashMap::new();
    for event in &history.events {
        let origin = origins.entry(event.member).or_default();
        match &event.what {
            What::Start { .. } => origin.started = true,
            What::Exit { .. } => origin.exited = true,
            What::View { view, transitional: false, .. } => {
                (origin.view, origin.passes) = (Some(*view), false)
            }
            What::Passed { .. } => origin.passes = true,
            What::CastIssued { sequence, view: None, .. } => origin.issued.push(*sequence),
            What::CastPlaced { sequence, view } => {
                origin.passes |= origin.view.is_some_and(|told| told < *view);
                origin.placed.insert(*sequence);
            }
            _ => {}
        }
        if !matches!(event.what, What::Crash | What::Exit { .. }) {
            origin.last = event.at;
        }
    }
    // Who was killed before it began to write never lived, and who had exited by then had died before.
    let crashes = |member: &Incarnation| origins.get(member).is_some_and(|life| life.started && !life.exited);
    let untold = |event: &Event| matches!(event.what, What::Crash) && !crashes(&event.member);
    let events: Vec<Event> = history.events.into_iter().filter(|event| !untold(event)).collect();
    let mut placed = History::default();
    let untold = untold_views(&events, &origins);
    for (member, origin) in origins {
        let Some(last) = origin.view else { continue };
        for sequence in origin.issued.into_iter().filter(|sequence| !origin.placed.contains(sequence)) {
            let known = (!origin.passes).then_some(last);
            if let Some(view) = untold.get(&(member, sequence)).copied().or(known) {
                placed.push(origin.last, member, What::CastPlaced { sequence, view });
            }
        }
    }
    // What is placed comes after everything of its time, but before the end, which is later.
    let (mut ends, mut others) = (History::default(), History::default());
    for event in events {
        let end = matches!(event.what, What::Crash | What::Exit { .. });
        if end { ends.events.push(event) } else { others.events.push(event) }
    }
    History::merged([others, placed, ends])
}

/// What a file says of the life that wrote it.
#[derive(Default)]
struct Origin {
    started: bool,
    exited: bool,
    /// The last view it was told of, and whether it has passed others since: then it is in one that it does not name.
    view: Option<ViewId>,
    passes: bool,
    issued: Vec<u64>,
    placed: HashSet<u64>,
    last: u64,
}

/// Of casts without a view: one that is later than the last that their origin was told of, that it was a member of and in
/// which another member delivered them first.
fn untold_views(
    events: &[Event],
    origins: &HashMap<Incarnation, Origin>,
) -> HashMap<(Incarnation, u64), ViewId> {
    let mut members: HashMap<ViewId, &[Incarnation]> = HashMap::new();
    let mut views = HashMap::new();
    for event in events {
        match &event.what {
            What::View { view, members: of, .. } | What::Passed { view, members: of } => {
                members.entry(*view).or_insert(of);
            }
            What::CastDelivered { origin, sequence, view, .. } => {
                let waits = origins.get(origin).is_some_and(|life| {
                    life.view.is_some_and(|told| told < *view) && !life.placed.contains(sequence)
                });
                if waits && members.get(view).is_some_and(|of| of.contains(origin)) {
                    views.entry((*origin, *sequence)).or_insert(*view);
                }
            }
            _ => {}
        }
    }
    views
}

#[cfg(test)]
mod tests {
    use wadjet_oracle::Content;

    use super::*;

    fn write(directory: &Path, name: &str, history: &History, torn: &str) -> PathBuf {
        let path = directory.join(name);
        let mut file = File::create(&path).unwrap();
        history.write(&mut file).unwrap();
        file.write_all(torn.as_bytes()).unwrap();
        path
    }

    /// A casts in a view with B and is killed; B delivers it, in that view or in the next.
    fn story(delivered_late: bool) -> Vec<Violation> {
        let directory =
            std::env::temp_dir().join(format!("wadjet-judge-{}-{delivered_late}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (a, b) = (Incarnation(1), Incarnation(2));
        let view = |counter| ViewId { counter, coordinator: b };
        let content = Content::of(b"tail");
        let both = What::View { view: view(1), members: vec![a, b], transitional: false };
        let alone = What::View { view: view(2), members: vec![b], transitional: false };
        let mut of_a = History::default();
        of_a.push(1, a, What::Start { process: 0 });
        of_a.push(2, a, both.clone());
        of_a.push(3, a, What::CastIssued { sequence: 1, content, view: None, agreed: false });
        let mut of_b = History::default();
        of_b.push(1, b, What::Start { process: 1 });
        of_b.push(2, b, both);
        let (mut at, in_view) = (vec![5, 6], view(1 + u64::from(delivered_late)));
        if delivered_late {
            at.reverse();
        }
        let deliver = What::CastDelivered { origin: a, sequence: 1, content, view: in_view };
        let mut rest = [(at[0], deliver), (at[1], alone)];
        rest.sort_by_key(|(at, _)| *at);
        rest.into_iter().for_each(|(at, what)| of_b.push(at, b, what));
        let files =
            [write(&directory, "a.jsonl", &of_a, "{\"at\":4,\"mem"), write(&directory, "b.jsonl", &of_b, "")];
        write_conductor(&directory, &[(1, 4)]).unwrap();
        let files = [&files[..], &[directory.join(CONDUCTOR)]].concat();
        let verdict = judge(&files, "", false).unwrap();
        assert_eq!((verdict.lives, verdict.views, verdict.casts, verdict.delivered), (2, 2, 1, 1));
        std::fs::remove_dir_all(&directory).unwrap();
        verdict.violations
    }

    #[test]
    fn two_orders_of_the_same_casts_break_the_promise_of_a_stack_that_makes_one() {
        let directory = std::env::temp_dir().join(format!("wadjet-judge-order-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (members, content) = ([Incarnation(1), Incarnation(2)], Content::of(b""));
        let view = ViewId { counter: 1, coordinator: members[0] };
        let mut files = Vec::new();
        for (at, member) in members.iter().enumerate() {
            let mut history = History::default();
            history.push(1, *member, What::Start { process: at as u32 });
            history.push(2, *member, What::View { view, members: members.to_vec(), transitional: false });
            history.push(3, *member, What::CastIssued { sequence: 1, content, view: None, agreed: false });
            for (later, origin) in [member, &members[1 - at]].into_iter().enumerate() {
                let delivered = What::CastDelivered { origin: *origin, sequence: 1, content, view };
                history.push(4 + later as u64, *member, delivered);
            }
            files.push(write(&directory, &format!("{at}.jsonl"), &history, ""));
        }
        let broken = |stack: &str| {
            let violations = judge(&files, stack, true).unwrap().violations;
            violations.iter().map(|violation| violation.property).collect::<Vec<_>>()
        };
        assert!(broken("EVS:MBRSHIP:STABLE:LOCAL:NAK:COM").is_empty());
        assert!(broken("TOTAL(turn=8):EVS:MBRSHIP:STABLE:LOCAL:NAK:COM").contains(&"total"));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_view_change_without_a_transitional_view_breaks_the_promise_of_a_stack_that_makes_it() {
        let directory = std::env::temp_dir().join(format!("wadjet-judge-evs-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let member = Incarnation(1);
        let mut history = History::default();
        history.push(1, member, What::Start { process: 0 });
        for counter in [1, 2] {
            let view = ViewId { counter, coordinator: member };
            history.push(
                1 + counter,
                member,
                What::View { view, members: vec![member], transitional: false },
            );
        }
        let files = [write(&directory, "a.jsonl", &history, "")];
        let broken = |stack: &str| {
            let violations = judge(&files, stack, true).unwrap().violations;
            violations.iter().map(|violation| violation.property).collect::<Vec<_>>()
        };
        assert_eq!(broken("MBRSHIP:STABLE:LOCAL:NAK:COM"), [""; 0]);
        assert_eq!(broken("XFER:EVS:MBRSHIP:STABLE:LOCAL:NAK:COM"), ["transitional-precedes"]);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_a_member_cast_last_that_waited_for_the_state_went_out_where_others_delivered_it() {
        let (a, b) = (Incarnation(1), Incarnation(2));
        let view = |counter| ViewId { counter, coordinator: b };
        let content = Content::of(b"tail");
        let mut history = History::default();
        history.push(1, a, What::Start { process: 0 });
        history.push(1, b, What::Start { process: 1 });
        history.push(2, a, What::View { view: view(1), members: vec![a], transitional: false });
        history.push(3, a, What::Passed { view: view(2), members: vec![a, b] });
        for sequence in [1, 2] {
            history.push(4, a, What::CastIssued { sequence, content, view: None, agreed: false });
        }
        history.push(5, b, What::View { view: view(3), members: vec![b, a], transitional: false });
        history.push(6, b, What::CastDelivered { origin: a, sequence: 1, content, view: view(3) });
        history.push(7, a, What::Crash);
        let complete = complete(history);
        let placed = complete.events.iter().filter(|event| matches!(event.what, What::CastPlaced { .. }));
        let placed: Vec<_> = placed.map(|event| event.what.clone()).collect();
        assert_eq!(placed, [What::CastPlaced { sequence: 1, view: view(3) }], "of the second nobody knows");
    }

    #[test]
    fn who_was_killed_before_it_began_or_after_it_exited_did_not_crash() {
        let (never, out) = (Incarnation(1), Incarnation(2));
        let mut history = History::default();
        history.push(1, out, What::Start { process: 0 });
        history.push(2, out, What::Exit { reason: "excluded".into() });
        let told = history.clone();
        history.push(3, never, What::Crash);
        history.push(4, out, What::Crash);
        assert_eq!(complete(history), told);
    }

    #[test]
    fn what_a_killed_member_cast_last_may_arrive_in_its_last_view_and_in_no_other() {
        assert_eq!(story(false), []);
        let late = story(true);
        assert!(late.iter().any(|violation| violation.property == "sending-view-delivery"), "{late:?}");
    }
}
