//! What must not happen where a stack has slow members expelled: that one is which took in everything in time, because
//! another one was slow to hear of it.

use std::collections::{BTreeMap, BTreeSet};

use wadjet::stack::event::Holdup;
use wadjet_oracle::{Event, History, Incarnation, ViewId, What};

/// A member that another one has expelled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expelled {
    /// When.
    pub(crate) at: u64,
    /// By whom.
    pub(crate) by: Incarnation,
    /// Who.
    pub(crate) member: Incarnation,
    /// What for.
    pub(crate) why: Holdup,
    /// For how long.
    pub(crate) lasting_ns: u64,
}

/// A member that one member suspects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspected {
    /// Since when.
    pub(crate) at: u64,
    /// By whom.
    pub(crate) by: Incarnation,
    /// Who.
    pub(crate) member: Incarnation,
}

/// Who was expelled though nothing kept it from taking in what was cast, in words. `hindered` says whether something did so
/// between two times: to the process, or to what it is told by who has expelled it. That it waits for a third one is no reason, nor that it is not heard. Who may have been in a view change was kept from it, too,
/// though others went on: one that suspects all before itself leads one until it goes on or is gone, and is obeyed by those that do
/// not suspect it, until they do.
pub(crate) fn undue(
    history: &History,
    expulsions: &[Expelled],
    suspicions: &[Suspected],
    hindered: impl Fn(u32, u32, u64, u64) -> bool,
) -> Vec<String> {
    let mut processes: BTreeMap<Incarnation, u32> = BTreeMap::new();
    let mut stays: BTreeMap<Incarnation, (ViewId, u64, &[Incarnation])> = BTreeMap::new();
    // When each has begun its stay, or has ended it for good.
    let mut moved: BTreeMap<Incarnation, u64> = BTreeMap::new();
    let mut events = history.events.iter().peekable();
    let mut found = Vec::new();
    for Expelled { at, by, member, why, lasting_ns } in expulsions {
        while let Some(event) = events.next_if(|event| event.at <= *at) {
            match &event.what {
                What::Start { process } => {
                    processes.insert(event.member, *process);
                }
                What::View { view, members, transitional: false } => {
                    stays.insert(event.member, (*view, event.at, members));
                    moved.insert(event.member, event.at);
                }
                What::Crash | What::Exit { .. } => {
                    stays.remove(&event.member);
                    moved.insert(event.member, event.at);
                }
                _ => {}
            }
        }
        let (Some(process), Some(caster), Some((view, since, members)), Some((theirs, ..))) =
            (processes.get(member), processes.get(by), stays.get(member), stays.get(by))
        else {
            continue;
        };
        // Who has gone elsewhere is not slow, but cannot be told from one that is.
        let begun = at.saturating_sub(*lasting_ns);
        let suspects = |by: &Incarnation, member: &Incarnation| {
            let of_it = suspicions.iter().filter(|suspected| {
                (suspected.by, suspected.member) == (*by, *member) && (*since..=*at).contains(&suspected.at)
            });
            of_it.map(|suspected| suspected.at).min()
        };
        let leads = |(rank, leader): (usize, &Incarnation)| {
            // Who has gone on before this wait began holds nobody up any more.
            let here = stays.get(leader).is_some_and(|stay| stay.0 == *view)
                || moved.get(leader).is_some_and(|moved| *moved >= begun);
            let of_all: Option<Vec<u64>> =
                members[..rank].iter().map(|before| suspects(leader, before)).collect();
            // Nobody is before the first of all.
            let Some(leads_since) = of_all.and_then(|times| times.into_iter().max()) else { return false };
            // Nor does it hold up whom it could not lead, or not for as long as this wait.
            let obeyed = suspects(member, leader).is_none_or(|parted| parted > leads_since.max(begun));
            leader != member && here && obeyed
        };
        let led = members.iter().enumerate().any(leads);
        if view == theirs && *since <= begun && !led && !hindered(*process, *caster, begun, *at) {
            let millis = *lasting_ns as f64 / 1e6;
            found.push(format!(
                "{by} expelled {member} after {millis} ms, because {why}; nothing kept it from it"
            ));
        }
    }
    found
}

/// Who was expelled, lives, and was never told so, in words: at the end of a run, where `heard` says that nothing kept word
/// from being heard since that time, and nobody is slow from `slow_until` on.
pub(crate) fn untold(
    history: &History,
    expulsions: &[Expelled],
    slow_until: u64,
    heard: impl Fn(u64) -> bool,
) -> Vec<String> {
    let over = |event: &Event| matches!(event.what, What::Crash | What::Exit { .. });
    let gone: BTreeSet<Incarnation> =
        history.events.iter().filter(|event| over(event)).map(|event| event.member).collect();
    // Two that have expelled each other go separate ways, and so does a slow one that gives the others up before it takes the
    // word in.
    let mutual =
        |one: &Expelled| expulsions.iter().any(|other| (other.by, other.member) == (one.member, one.by));
    let parted = |one: &Expelled| {
        let slow = history.events.iter().filter(|event| (one.at..slow_until).contains(&event.at));
        let without = |what: &What| matches!(what, What::View { members, .. } if !members.contains(&one.by));
        slow.filter(|event| event.member == one.member).any(|event| without(&event.what))
    };
    // Who has gone elsewhere, or has not come into the view yet, hears nothing of it.
    let view = |member: Incarnation, until: u64| {
        let of_it = |event: &&Event| event.member == member && event.at <= until;
        history.events.iter().filter(of_it).rev().find_map(|event| match event.what {
            What::View { view, transitional: false, .. } => Some(view),
            _ => None,
        })
    };
    let together = |one: &Expelled| view(one.by, one.at - one.lasting_ns) == view(one.member, one.at);
    let untold = |one: &&Expelled| {
        !gone.contains(&one.member) && heard(one.at) && !mutual(one) && !parted(one) && together(one)
    };
    let say = |Expelled { at, by, member, .. }: &Expelled| {
        format!("{by} expelled {member} at {:.6} ms, which lives on in the group", *at as f64 / 1e6)
    };
    expulsions.iter().filter(untold).map(say).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Incarnation = Incarnation(1);
    const B: Incarnation = Incarnation(2);
    const B_BY_A: Expelled = Expelled { at: 10, by: A, member: B, why: Holdup::NoCredit, lasting_ns: 4 };

    /// Two that are in one view since `since`.
    fn together(since: u64) -> History {
        let mut history = History::default();
        for (process, member) in [A, B].into_iter().enumerate() {
            history.push(0, member, What::Start { process: process as u32 });
            let view = ViewId { counter: 1, coordinator: A };
            history.push(since, member, What::View { view, members: vec![A, B], transitional: false });
        }
        history
    }

    #[test]
    fn who_was_sound_all_the_time_and_in_the_view_is_not_to_be_expelled() {
        let found = |since, hindered| undue(&together(since), &[B_BY_A], &[], |_, _, _, _| hindered).len();
        assert_eq!(found(5, false), 1);
        assert_eq!(found(5, true), 0, "it was slow");
        assert_eq!(found(8, false), 0, "it has not been there for so long");
        let mut elsewhere = together(5);
        let view = ViewId { counter: 2, coordinator: B };
        elsewhere.push(7, B, What::View { view, members: vec![B], transitional: false });
        assert_eq!(undue(&elsewhere, &[B_BY_A], &[], |_, _, _, _| false).len(), 0, "it has gone elsewhere");
    }

    #[test]
    fn who_obeyed_a_view_change_was_kept_from_taking_in_what_was_cast() {
        const C: Incarnation = Incarnation(3);
        let mut history = History::default();
        for (process, member) in [A, C, B].into_iter().enumerate() {
            history.push(0, member, What::Start { process: process as u32 });
            let view = ViewId { counter: 1, coordinator: A };
            history.push(5, member, What::View { view, members: vec![A, C, B], transitional: false });
        }
        let found =
            |suspicions: &[Suspected]| undue(&history, &[B_BY_A], suspicions, |_, _, _, _| false).len();
        let suspected = |at, by, member| Suspected { at, by, member };
        assert_eq!(found(&[suspected(6, C, A)]), 0, "C leads");
        assert_eq!(found(&[suspected(3, C, A)]), 1, "it did so in another view");
        assert_eq!(found(&[suspected(6, C, B)]), 1, "A would lead");
        assert_eq!(found(&[suspected(6, B, A), suspected(6, B, C)]), 1, "it has nobody to obey but itself");
        assert_eq!(found(&[suspected(6, C, A), suspected(6, B, C)]), 1, "B did not obey C");
        assert_eq!(found(&[suspected(6, C, A), suspected(5, B, C)]), 1, "B never would have");
        assert_eq!(found(&[suspected(6, C, A), suspected(8, B, C)]), 0, "until then it did");
        assert_eq!(found(&[suspected(5, C, A), suspected(6, B, C)]), 1, "it did, before it was waited for");
        let until = |at, what| {
            let mut history = history.clone();
            history.push(at, C, what);
            // Waited for from 8 to 12.
            let expelled = Expelled { at: 12, ..B_BY_A };
            undue(&history, &[expelled], &[suspected(6, C, A)], |_, _, _, _| false).len()
        };
        let next = || {
            let view = ViewId { counter: 2, coordinator: C };
            What::View { view, members: vec![C], transitional: false }
        };
        assert_eq!(until(7, next()), 1, "C had gone on before B was waited for");
        assert_eq!(until(7, What::Crash), 1, "C was gone by then");
        assert_eq!(until(9, next()), 0, "C went on meanwhile");
    }

    #[test]
    fn who_was_expelled_is_to_hear_of_it() {
        let found =
            |history: &History, expelled: &[Expelled], heard| untold(history, expelled, 20, |_| heard).len();
        let mut history = together(5);
        assert_eq!(found(&history, &[B_BY_A], true), 1);
        assert_eq!(found(&history, &[B_BY_A], false), 0, "word may have been lost");
        let both = [B_BY_A, Expelled { by: B, member: A, ..B_BY_A }];
        assert_eq!(found(&history, &both, true), 0, "two that expel each other go separate ways");
        let view = ViewId { counter: 2, coordinator: B };
        let alone = |at: u64| {
            let mut history = together(5);
            history.push(at, B, What::View { view, members: vec![B], transitional: false });
            found(&history, &[B_BY_A], true)
        };
        assert_eq!(alone(12), 0, "it has given the others up before it took the word in");
        assert_eq!(alone(25), 1, "it is not slow any more");
        history.push(12, B, What::Exit { reason: "expelled".into() });
        assert_eq!(found(&history, &[B_BY_A], true), 0);
    }
}
