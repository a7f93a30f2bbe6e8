//! Views that the application learns of later than this process went through them.
//!
//! A member that takes the group's state in is in a view, or in several in turn, of which its application is told when the
//! state is there (layer XFER). What was delivered in a view before names members by their ranks in it. Until the
//! application has been told of the present view, ranks it is given and gives are those of the last one it was told of.

use std::rc::Rc;

use super::Stack;
use crate::group::SendError;
use crate::id::{Rank, RankSet};
use crate::view::LocalView;

impl Stack {
    /// The view before the present one that the application was told of last.
    #[inline]
    pub(super) fn past(&self) -> Option<&Rc<LocalView>> {
        self.past.as_ref()
    }

    /// The view that the application was told of last; before the first, the one this process is in.
    pub(crate) fn told_view(&self) -> &LocalView {
        self.past.as_ref().unwrap_or(&self.engine.core.view)
    }

    /// The application knows what it knew in the view before.
    pub(super) fn follow_view(&mut self, old: &mut Stack) {
        self.untold = std::mem::take(&mut old.untold);
        self.large.follow(&mut old.large);
        if old.told {
            self.past = Some(Rc::clone(&old.engine.core.view));
            self.ids_of = old.views;
        } else {
            self.past = old.past.take();
            self.ids_of = old.ids_of;
            self.untold.push((old.engine.core.view.view().id, old.views));
        }
    }

    /// The application is about to be told of a view.
    pub(super) fn tell_view(&mut self, view: &Rc<LocalView>) {
        // Of what is not whole in the view before the rest never comes.
        self.large.begin_view(view.size());
        let id = view.view().id;
        if id == self.engine.core.view.view().id {
            (self.told, self.past, self.ids_of) = (true, None, self.views);
            self.untold.clear();
            return;
        }
        let number = self.untold.iter().find(|(untold, _)| *untold == id);
        self.ids_of = number.map_or(self.ids_of, |(_, number)| *number);
        self.past = Some(Rc::clone(view));
    }

    /// The present view is about to end, and the application does not know it. What it has cast so far belongs to it, and
    /// nobody waits for its word: it will be told of both when it is told of the view, if that has not ended by then.
    pub(super) fn block_untold(&mut self) {
        self.block_untold = true;
        self.block_ok();
    }

    /// Sends `message` to members by their ranks in the view that the application was told of last.
    pub(crate) fn send_as_told(&mut self, to: &RankSet, message: &[u8]) -> Result<(), SendError> {
        let Some(past) = self.past.clone() else { return self.send(to, message) };
        let present = to.iter().map(|rank| self.present(&past, rank).ok_or(rank)).collect::<Result<_, _>>();
        let present = present.map_err(SendError::NotAMember)?;
        let view = Rc::clone(&self.engine.core.view);
        let told =
            |rank: Rank| past.rank_of(view.member(rank).incarnation).expect("it has been found by that one");
        self.send(&present, message).map_err(|error| match error {
            SendError::Full { to, why } => SendError::Full { to: told(to), why },
            SendError::NumberLimit(to) => SendError::NumberLimit(told(to)),
            error => error,
        })
    }

    /// Members that the application holds to have failed, by their ranks in the view that it was told of last.
    pub(crate) fn suspect_as_told(&mut self, ranks: &RankSet) {
        let ranks = match &self.past {
            None => *ranks,
            Some(past) => ranks.iter().filter_map(|rank| self.present(past, rank)).collect(),
        };
        self.suspect(ranks);
    }

    /// The rank that a member of a view before has now, if it is one still.
    fn present(&self, past: &LocalView, rank: Rank) -> Option<Rank> {
        let member = past.view().members.get(rank.index())?;
        self.engine.core.view.rank_of(member.incarnation)
    }
}
