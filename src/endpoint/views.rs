//! Views follow each other: what an endpoint asks its driver for, and what becomes of that.

use std::rc::Rc;

use super::{Endpoint, GroupKey, Request, Retired, Room};
use crate::buf::Frame;
use crate::group::Application;
use crate::id::{MEMBERS_MAX, Rank, RankSet};
use crate::stack::event::{Problem, Up};
use crate::stack::run::{InstallError, Stack};
use crate::time::Time;
use crate::transport::{Caps, Channel, ChannelId, ChannelOptions, Outside, TransportError};
use crate::view::{LocalView, View};
use crate::wire::Traffic;
use crate::wire::full::Identification;
use crate::wire::outside;

impl Endpoint {
    /// What the endpoint wants of its transport next: asked after every [`Endpoint::poll`], until there is nothing.
    #[inline]
    pub fn request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// The channel of the next view is open, or it could not be opened: answers [`Request::Open`]. The channel is closed
    /// ([`Request::Close`]) if the group is over by now.
    pub fn opened(
        &mut self,
        group: GroupKey,
        opened: Result<(Channel, Caps), String>,
        now: Time,
        app: &mut dyn Application,
    ) {
        self.now = now;
        let index = group.index as usize;
        let here = self.has_group(group) && self.stacks[index].exited().is_none();
        let Some(next) = self.stacks.get(index).filter(|_| here).and_then(Stack::next_view).cloned() else {
            self.requests.extend(opened.ok().map(|(channel, _)| Request::Close(channel.id)));
            return;
        };
        let stack = &mut self.stacks[index];
        let view = LocalView::new(next, self.incarnation);
        let old = &stack.core().view;
        let view = match view {
            Ok(view) => Rc::new(view),
            Err(error) => {
                let old = LocalView::clone(old);
                stack.not_opened(&old, error.to_string(), app);
                return;
            }
        };
        let neighbours = Rc::clone(&stack.core().neighbours);
        let made = opened.and_then(|(channel, caps)| {
            let id = channel.id;
            let (config, specs) = (&self.config, &mut self.specs);
            let fits = config.check_regions(view.size()).map_err(InstallError::from);
            let made = fits.and_then(|()| {
                let legacies = stack.bequeath();
                Stack::new(config, specs, Rc::clone(&view), neighbours, channel, &caps, legacies, now)
            });
            made.map_err(|error| {
                self.requests.push_back(Request::Close(id));
                error.to_string()
            })
        });
        let new = match made {
            Ok(new) => new,
            Err(why) => {
                stack.not_opened(&view, why, app);
                return;
            }
        };
        #[cfg(feature = "laboratory")]
        let new = new.with_cookies_masked(self.cookie_mask);
        let mut new = new;
        let core = &mut new.engine.core;
        core.gossip.introduce(core.view.rank(), self.life, core.view.others().collect(), now);
        core.counter_used = core.counter_used.max(stack.core().counter_used);
        new.set_room(&self.room);
        new.succeed(stack);
        let (channel, outbox) = stack.take_outbox();
        self.retired.push(Retired { channel, outbox, until: now + self.config.linger_delay });
        *stack = new;
        self.full[index] = false;
        self.learn_cookies();
        self.ask_identification(None);
        self.tell_views(app);
        self.stacks[index].poll(now, app);
        for ahead in std::mem::take(&mut self.ahead) {
            self.receive(ahead.received, now, app);
        }
        self.collect(index);
    }

    /// A channel finds no room: whether that of a past view, the oldest that has said everything, is closed for it
    /// ([`Request::Close`]).
    pub fn make_room(&mut self) -> bool {
        let Some(at) = self.retired.iter().position(|retired| retired.outbox.is_empty()) else {
            return false;
        };
        let retired = self.retired.remove(at);
        self.requests.push_back(Request::Close(retired.channel));
        true
    }

    /// Learns what the transport has room for, by asking `room_for` (as [`Transport::room_for`]) about views of some sizes:
    /// nobody is let into a view that is larger. Before it is called, there is room for all that the configuration allows.
    ///
    /// [`Transport::room_for`]: crate::transport::Transport::room_for
    pub fn room(&mut self, room_for: &dyn Fn(usize, &ChannelOptions) -> Result<(), TransportError>) {
        let all = self.members_max;
        let ask = |members: usize| room_for(members, &self.config.channel_options(members));
        let mut room = None;
        if let Err(error) = ask(all) {
            // There is room for `least`, or it is one; there is none for `most`.
            let (mut least, mut most, mut why) = (1, all, error);
            while most - least > 1 {
                let middle = least.midpoint(most);
                match ask(middle) {
                    Ok(()) => least = middle,
                    Err(error) => (most, why) = (middle, error),
                }
            }
            room = Some((least, why));
        }
        // Nothing is written where nothing has changed, which is so nearly every time.
        if room.as_ref().map_or(MEMBERS_MAX, |(members_max, _)| *members_max) == self.room.members_max {
            return;
        }
        self.room = match room {
            Some((members_max, why)) => Room { members_max, why: why.to_string() },
            None => Room::default(),
        };
        for stack in self.stacks.iter_mut().filter(|stack| stack.exited().is_none()) {
            stack.set_room(&self.room);
        }
    }

    /// A member was excluded from its channel; what is kept of its casts is copied to memory of this process's own, and
    /// believed if `intact` says so afterwards. Answers [`Request::Exclude`].
    pub fn excluded(
        &mut self,
        group: GroupKey,
        channel: ChannelId,
        rank: Rank,
        intact: &dyn Fn(&Frame) -> bool,
    ) {
        let stack = self.stack_mut(group);
        if stack.core().channel == channel {
            stack.rescue(rank, intact);
        }
    }

    /// The processes of these members are known to be gone: a hint. Answers [`Request::Hint`].
    pub fn gone(&mut self, group: GroupKey, channel: ChannelId, ranks: RankSet, app: &mut dyn Application) {
        let stack = self.stack_mut(group);
        if stack.core().channel == channel && !ranks.is_empty() {
            stack.gone(ranks, app);
        }
    }

    /// These members are ready to run and have had no processor for a while: a hint. Answers [`Request::Hint`], too.
    pub fn starved(
        &mut self,
        group: GroupKey,
        channel: ChannelId,
        ranks: RankSet,
        app: &mut dyn Application,
    ) {
        let stack = self.stack_mut(group);
        if stack.core().channel == channel && !ranks.is_empty() {
            stack.starved(ranks, app);
        }
    }

    /// These members have excluded this one from the channel, or have closed theirs, so that only a message outside any view
    /// reaches them: a hint. Answers [`Request::Hint`], too.
    pub fn parted(&mut self, group: GroupKey, channel: ChannelId, ranks: RankSet, app: &mut dyn Application) {
        let stack = self.stack_mut(group);
        if stack.core().channel == channel && !ranks.is_empty() {
            stack.parted(ranks, app);
        }
    }

    /// Makes requests of what a stack wants.
    pub(super) fn collect(&mut self, index: usize) {
        let group = self.key(index);
        let stack = &mut self.stacks[index];
        let channel = stack.core().channel;
        if let Some(wants) = stack.take_wants() {
            for rank in wants.excluded {
                self.requests.push_back(Request::Exclude { group, channel, rank });
            }
            if wants.hint {
                self.requests.push_back(Request::Hint { group, channel });
            }
            for (to, body) in wants.outside {
                let identification: Identification = self.stacks[index].core().identification;
                self.letters_written = self.letters_written.wrapping_add(1);
                let traffic = if to == Outside::Discover { Traffic::Cast } else { Traffic::Raw };
                for bytes in outside::split(identification, traffic, self.letters_written, &body) {
                    let group = identification.group;
                    self.requests.push_back(Request::Outside { group, to: to.clone(), bytes });
                }
            }
        }
        let stack = &mut self.stacks[index];
        self.stop |= std::mem::take(&mut stack.asks_to_stop);
        if stack.exited().is_some() {
            if stack.core().all_submitted() && !stack.closed {
                stack.closed = true;
                self.last_exit = stack.exited();
                self.requests.push_back(Request::Close(channel));
            }
        } else if let Some(next) = stack.next_view().filter(|_| !stack.opening) {
            let next: View = next.clone();
            stack.opening = true;
            let mut options = self.channel_options(next.members.len());
            if next.frame_bytes > 0 {
                // What the members have agreed on: who can take no more loses nothing.
                options.frame_bytes = options.frame_bytes.min(next.frame_bytes as usize);
            }
            match LocalView::new(next, self.incarnation) {
                Ok(view) => self.requests.push_back(Request::Open { group, view, options }),
                Err(error) => unreachable!("a layer hands up views that this process is in: {error}"),
            }
        }
    }

    pub(super) fn retire(&mut self) {
        let now = self.now;
        let over = |retired: &Retired| now >= retired.until;
        for retired in self.retired.iter().filter(|retired| over(retired)) {
            self.requests.push_back(Request::Close(retired.channel));
        }
        self.retired.retain(|retired| !over(retired));
    }

    /// The transport has something to say that was not so when it was made ([`Caps::notes`]): all groups are told.
    pub fn noted(&mut self, note: &str, app: &mut dyn Application) {
        for stack in self.stacks.iter_mut().filter(|stack| stack.exited().is_none()) {
            let what = note.to_owned().into();
            let problem = Problem { layer: "transport", origin: None, what };
            stack.engine.core.emit_application(Up::Problem(problem));
            stack.drain(app);
        }
    }
}
