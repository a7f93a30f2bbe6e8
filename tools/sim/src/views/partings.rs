//! What must not happen in a gentle world, where nothing makes a living process look dead: that a member goes on to a
//! view without another one that lives and was in the view before.

use std::collections::{BTreeMap, BTreeSet};

use wadjet_oracle::{History, Incarnation, ViewId, What};

/// Who went on without whom, in words. Those who are `leaving` want to be gone without; and `bound` says whether the
/// world is gentle to a process at a time.
pub(crate) fn partings(
    history: &History,
    leaving: &BTreeSet<Incarnation>,
    bound: impl Fn(u64, u32) -> bool,
) -> Vec<String> {
    let mut processes: BTreeMap<Incarnation, u32> = BTreeMap::new();
    let mut stays: BTreeMap<Incarnation, (ViewId, &[Incarnation])> = BTreeMap::new();
    let mut installed: BTreeSet<(Incarnation, ViewId)> = BTreeSet::new();
    let mut found = Vec::new();
    for event in &history.events {
        let own = event.member;
        match &event.what {
            What::Start { process } => {
                processes.insert(own, *process);
            }
            What::Crash | What::Exit { .. } => {
                processes.remove(&own);
            }
            What::View { view, members, transitional: false } => {
                installed.insert((own, *view));
                let Some((before, together)) = stays.insert(own, (*view, members)) else { continue };
                let bound = |who: &Incarnation| processes.get(who).is_some_and(|at| bound(event.at, *at));
                // Who never came into the view before had given up when it was let in.
                let parted = together.iter().filter(|other| {
                    !members.contains(other)
                        && installed.contains(&(**other, before))
                        && !leaving.contains(other)
                        && bound(other)
                });
                if bound(&own) {
                    found.extend(parted.map(|other| {
                        format!(
                            "{own} went on from {before} to {view} without {other}, which lived and was there"
                        )
                    }));
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Incarnation = Incarnation(1);
    const B: Incarnation = Incarnation(2);

    fn found(leaving: &[Incarnation], bound: bool, change: impl FnOnce(&mut History)) -> usize {
        let mut history = History::default();
        let view = |counter, members: &[Incarnation]| What::View {
            view: ViewId { counter, coordinator: A },
            members: members.to_vec(),
            transitional: false,
        };
        for (process, member) in [A, B].into_iter().enumerate() {
            history.push(0, member, What::Start { process: process as u32 });
            history.push(0, member, view(0, &[member]));
        }
        history.push(1, A, view(1, &[A, B]));
        change(&mut history);
        history.push(3, A, view(2, &[A]));
        partings(&history, &leaving.iter().copied().collect(), |_, _| bound).len()
    }

    #[test]
    fn who_lives_and_was_in_the_view_is_missed_and_nobody_else() {
        let view = ViewId { counter: 1, coordinator: A };
        let comes = |history: &mut History| {
            history.push(2, B, What::View { view, members: vec![A, B], transitional: false });
        };
        assert_eq!(found(&[], true, comes), 1);
        assert_eq!(found(&[B], true, comes), 0, "it wanted to leave");
        assert_eq!(found(&[], false, comes), 0, "the world is not gentle to it");
        assert_eq!(found(&[], true, |_| {}), 0, "it never was there");
        let dies = |history: &mut History| {
            comes(history);
            history.push(2, B, What::Crash);
        };
        assert_eq!(found(&[], true, dies), 0, "it died");
    }
}
