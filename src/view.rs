//! Views: who is in the group, as one member sees it.

use std::fmt;

use crate::id::{GroupId, Hasher64, Incarnation, MEMBERS_MAX, Rank, ViewId};
use crate::wire::WIRE_VERSION;

/// The longest address, in bytes: a view of [`MEMBERS_MAX`] members is told in one letter.
pub const ADDRESS_BYTES_MAX: usize = 128;

/// Where a member can be reached. What the text means is the transport's affair: `ip:port` for udp, a name for shm. At most
/// [`ADDRESS_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub String);

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One member of a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Which life of which process.
    pub incarnation: Incarnation,
    /// Where it is reached.
    pub address: Address,
}

/// The members of a group that see each other, in rank order, and what they agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The group.
    pub group: GroupId,
    /// This view's id.
    pub id: ViewId,
    /// The members; a member's index is its rank.
    pub members: Vec<Member>,
    /// The stack, top to bottom.
    pub spec: String,
    /// Version of the wire format in force.
    pub wire_version: u8,
    /// Chosen by the coordinator; enters every cookie.
    pub salt: u64,
    /// The longest frame that every member can send and receive, in bytes, where members agree on their views; zero if
    /// they have not done so yet.
    pub frame_bytes: u32,
}

impl View {
    /// The view of a process that has found nobody yet. For an endpoint that takes part in a group again:
    /// [`Endpoint::first_view`](crate::Endpoint::first_view).
    pub fn alone(group: GroupId, member: Member, spec: &str) -> View {
        let mut view = View::fixed(group, vec![member], spec);
        view.id.counter = 0;
        view
    }

    /// The view of a group whose members are all named at the start, in rank order; `spec` names the stack. Members
    /// that are given the same three have the same view: the first member counts as its coordinator.
    ///
    /// ```
    /// use wadjet::{Address, GroupId, Incarnation, Member, View};
    ///
    /// let member = |own: u64| Member { incarnation: Incarnation(own), address: Address(format!("127.0.0.1:{own}")) };
    /// let view = View::fixed(GroupId::named("orders"), vec![member(7001), member(7002)], "LOCAL:NAK:CHKSUM:COM");
    /// assert_eq!(view.id.coordinator, Incarnation(7001));
    /// ```
    pub fn fixed(group: GroupId, members: Vec<Member>, spec: &str) -> View {
        let mut salt = Hasher64::new(0x7361_6c74_0000_0001);
        members.iter().for_each(|member| salt.word(member.incarnation.0));
        View {
            group,
            id: ViewId {
                counter: 1,
                coordinator: members.first().map_or(Incarnation(0), |first| first.incarnation),
            },
            members,
            spec: spec.to_owned(),
            wire_version: WIRE_VERSION,
            salt: salt.finish(),
            frame_bytes: 0,
        }
    }
}

/// Who can be found outside the view: how a process joins a group, and how the parts of a divided one find each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// Addresses at which members of the group may be reached; any one of them will do.
    pub contacts: Vec<Address>,
    /// Whether to ask for the group wherever the transport can ask everybody.
    pub discover: bool,
}

/// Why a view cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// No members.
    #[error("the view names no members; name at least this process")]
    Empty,
    /// Too many members.
    #[error("the view names {0} members; the most is {MEMBERS_MAX}")]
    TooManyMembers(usize),
    /// An incarnation stands twice.
    #[error("incarnation {0} stands twice in the view; every process needs one of its own")]
    Duplicate(Incarnation),
    /// An address is too long.
    #[error("an address has {0} bytes; the most is {ADDRESS_BYTES_MAX}")]
    AddressTooLong(usize),
    /// This process is not in it: it was restarted, or never was a member.
    #[error(
        "incarnation {0} is not in the view; a restarted process has a new incarnation and must be given a new view"
    )]
    NotAMember(Incarnation),
}

/// A view with this process's place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalView {
    view: View,
    rank: Rank,
}

impl LocalView {
    /// The view as the member with `incarnation` sees it.
    ///
    /// # Errors
    /// If the view is empty, too large, names an incarnation twice or too long an address, or does not name `incarnation`.
    pub fn new(view: View, incarnation: Incarnation) -> Result<LocalView, ViewError> {
        if view.members.is_empty() {
            return Err(ViewError::Empty);
        }
        if view.members.len() > MEMBERS_MAX {
            return Err(ViewError::TooManyMembers(view.members.len()));
        }
        for (at, member) in view.members.iter().enumerate() {
            if view.members[..at].iter().any(|other| other.incarnation == member.incarnation) {
                return Err(ViewError::Duplicate(member.incarnation));
            }
            if member.address.0.len() > ADDRESS_BYTES_MAX {
                return Err(ViewError::AddressTooLong(member.address.0.len()));
            }
        }
        let rank = view
            .members
            .iter()
            .position(|member| member.incarnation == incarnation)
            .map(Rank::at)
            .ok_or(ViewError::NotAMember(incarnation))?;
        Ok(LocalView { view, rank })
    }

    /// The view.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// This process's rank.
    #[inline]
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// How many members the view has.
    #[inline]
    pub fn size(&self) -> usize {
        self.view.members.len()
    }

    /// The member at `rank`.
    ///
    /// # Panics
    /// If `rank` is not in the view.
    pub fn member(&self, rank: Rank) -> &Member {
        &self.view.members[rank.index()]
    }

    /// The rank of `incarnation`, if it is a member.
    pub fn rank_of(&self, incarnation: Incarnation) -> Option<Rank> {
        self.view.members.iter().position(|member| member.incarnation == incarnation).map(Rank::at)
    }

    /// All ranks but this process's own.
    pub fn others(&self) -> impl Iterator<Item = Rank> + use<> {
        let own = self.rank;
        (0..self.size()).map(Rank::at).filter(move |rank| *rank != own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(incarnations: &[u64]) -> View {
        View {
            group: GroupId::named("test"),
            id: ViewId { counter: 1, coordinator: Incarnation(1) },
            members: incarnations
                .iter()
                .map(|n| Member { incarnation: Incarnation(*n), address: Address(format!("m{n}")) })
                .collect(),
            spec: "NAK:COM".into(),
            wire_version: 1,
            salt: 0,
            frame_bytes: 0,
        }
    }

    #[test]
    fn a_restarted_process_is_not_a_member() {
        assert_eq!(LocalView::new(view(&[1, 2]), Incarnation(2)).unwrap().rank(), Rank(1));
        assert_eq!(LocalView::new(view(&[1, 2]), Incarnation(3)), Err(ViewError::NotAMember(Incarnation(3))));
    }

    #[test]
    fn impossible_views_are_refused() {
        assert_eq!(LocalView::new(view(&[]), Incarnation(1)), Err(ViewError::Empty));
        assert_eq!(LocalView::new(view(&[1, 1]), Incarnation(1)), Err(ViewError::Duplicate(Incarnation(1))));
        let many: Vec<u64> = (0..129).collect();
        assert_eq!(LocalView::new(view(&many), Incarnation(1)), Err(ViewError::TooManyMembers(129)));
    }
}
