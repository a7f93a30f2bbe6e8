//! Who is excluded by whom: that a lesser part of a view sends nobody away.

use std::collections::BTreeMap;
use std::ops::Bound;

use wadjet_oracle::{History, Incarnation, ViewId, What};

/// A member whose group is over because others have gone on without it, though it did not stand still.
pub(crate) struct Exclusion {
    pub(crate) member: Incarnation,
    /// The view it was in, which is one that its application was told of.
    pub(crate) view: ViewId,
    pub(crate) members: Vec<Incarnation>,
}

/// The views that more than half of the members were excluded from, in words: half and more exclude, and those that go on
/// together are not excluded by each other. Whoever was in what followed somewhere was excluded from that.
pub(crate) fn by_lesser_parts(history: &History, exclusions: &[Exclusion]) -> Vec<String> {
    let mut views: BTreeMap<Incarnation, BTreeMap<ViewId, &[Incarnation]>> = BTreeMap::new();
    for event in &history.events {
        if let What::View { view, members, transitional: false } | What::Passed { view, members } =
            &event.what
        {
            views.entry(event.member).or_default().insert(*view, members);
        }
    }
    let mut out: BTreeMap<ViewId, (usize, Vec<String>)> = BTreeMap::new();
    for Exclusion { member, view, members } in exclusions {
        let followed_by = |other: &Incarnation| {
            let after = (Bound::Excluded(*view), Bound::Unbounded);
            views.get(other).and_then(|views| views.range(after).next())
        };
        let mut next = members.iter().filter_map(followed_by);
        if !next.any(|(_, members)| members.contains(member)) {
            let (_, excluded) = out.entry(*view).or_insert_with(|| (members.len(), Vec::new()));
            excluded.push(member.to_string());
        }
    }
    let most = out.into_iter().filter(|(_, (size, excluded))| 2 * excluded.len() > *size);
    most.map(|(view, (size, excluded))| {
        format!(
            "of the {size} members of {view} more than half were excluded, and stood not still: {}",
            excluded.join(" ")
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(range: std::ops::Range<u64>) -> Vec<Incarnation> {
        range.map(Incarnation).collect()
    }

    fn view(counter: u64) -> ViewId {
        ViewId { counter, coordinator: Incarnation(1) }
    }

    fn found(size: u64, out: std::ops::Range<u64>, next: Vec<Incarnation>) -> usize {
        let mut history = History::default();
        for member in members(0..size) {
            let members = members(0..size);
            history.push(0, member, What::View { view: view(1), members, transitional: false });
        }
        history.push(1, Incarnation(0), What::View { view: view(2), members: next, transitional: false });
        let of = |member| Exclusion { member, view: view(1), members: members(0..size) };
        let exclusions: Vec<Exclusion> = members(out.start..out.end).into_iter().map(of).collect();
        by_lesser_parts(&history, &exclusions).len()
    }

    #[test]
    fn more_than_half_of_a_view_are_excluded_from_it_and_no_later_one() {
        assert_eq!(found(5, 1..5, members(0..1)), 1);
        assert_eq!(found(5, 2..5, members(0..1)), 1);
        assert_eq!(found(5, 3..5, members(0..3)), 0);
        assert_eq!(found(4, 2..4, members(0..2)), 0, "half of them");
        assert_eq!(found(5, 1..5, members(0..4)), 0, "the others were excluded from the next");
    }
}
