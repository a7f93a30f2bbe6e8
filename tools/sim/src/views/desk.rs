//! The application of one life: casts, sends, answers, acknowledges, and enters everything in the ledger.

use wadjet::group::{
    Application, CastError, Delivery, Event, Group, SendError, Snapshot, Stability, StatePart,
};
use wadjet::id::{Rank, RankSet};
use wadjet::stack::event::{ExitReason, MessageId, Slow, SlowOutcome};
use wadjet_oracle::{Incarnation, Measure, Traffic, ViewId, What};

use crate::outcome::WorkCounters;
use crate::random::Random;
use crate::views::exclusions::Exclusion;
use crate::views::expulsions::{Expelled, Suspected};
use crate::views::ledger::{Ledger, NAME_BYTES, fill};
use crate::views::setup::Load;
use crate::views::state::{Frozen, State};
use crate::workload::{Lengths, cast_in_place};

/// What an application keeps from one upcall to the next.
pub(crate) struct Papers {
    /// The oracle's name of this life.
    pub(crate) own: Incarnation,
    /// The view it is in and its members, once it has been told of one.
    pub(crate) view: Option<(ViewId, Vec<Incarnation>)>,
    /// How many views it has been told of.
    pub(crate) views: u64,
    /// The view its endpoint is in: the application may wait for the state before it is told.
    within: Option<(ViewId, Vec<Incarnation>)>,
    /// Views that the endpoint was in and the application has not been told of, in order.
    untold: Vec<(ViewId, Vec<Incarnation>)>,
    /// What the application has made of what it delivered, where states are given to those who come in.
    pub(crate) state: Option<State>,
    /// Whose state it is: who goes on without the group's begins another one.
    line: u64,
    /// The tickets of its casts, in order, and how many of them are known to have gone out.
    tickets: Vec<u64>,
    placed: usize,
    /// Casts refused for the time being, which are tried again when the endpoint says so.
    postponed: u32,
    /// By origin in this view: for each frame, its number and its last cast.
    frames: Vec<Vec<(u64, u64)>>,
    /// The newest cast of this view, and that of the view before.
    newest: Option<MessageId>,
    late: Option<MessageId>,
    /// What was last reported stable in this view, by origin, number of members, and measure.
    reported: Vec<u64>,
    pub(crate) random: Random,
    /// When the application will say that it has stopped casting.
    pub(crate) block_due: Option<u64>,
    /// A flush waits for that word, and it has not been given in this view: what is cast belongs to this view.
    pub(crate) bound: bool,
    /// The counter of the view that the endpoint was in when the group's state had come: so far views are told late.
    late_through: u64,
    blocks: bool,
    pub(crate) exited: Option<ExitReason>,
    /// When it was told last that it had not run for a while.
    paused_at: Option<u64>,
    /// What the endpoint complained of.
    pub(crate) problems: Vec<String>,
    buffer: Vec<u8>,
}

impl Papers {
    pub(crate) fn new(own: Incarnation, random: Random, blocks: bool) -> Papers {
        Papers {
            own,
            view: None,
            views: 0,
            within: None,
            untold: Vec::new(),
            state: None,
            line: 0,
            tickets: Vec::new(),
            placed: 0,
            postponed: 0,
            frames: Vec::new(),
            newest: None,
            late: None,
            reported: Vec::new(),
            random,
            block_due: None,
            bound: false,
            late_through: 0,
            blocks,
            exited: None,
            paused_at: None,
            problems: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Casts that wait for the endpoint to take them.
    pub(crate) fn postponed(&self) -> u32 {
        self.postponed
    }

    /// The last cast of `origin` in its frames below `number`, 0 if there is none.
    fn last_cast_below(&self, origin: usize, number: u64) -> u64 {
        let frames = &self.frames[origin];
        let below = frames.partition_point(|(frame, _)| *frame < number);
        below.checked_sub(1).map_or(0, |at| frames[at].1)
    }

    /// The endpoint may have gone on to another view: what was cast before went out in the one before.
    pub(crate) fn follow(&mut self, at: u64, group: &Group<'_>, ledger: &mut Ledger) {
        let id = ledger.view_id(group.endpoint_view().view().id);
        if self.within.as_ref().is_some_and(|(within, _)| *within == id) {
            return;
        }
        self.place(at, group.first_ticket().0, ledger);
        let members = group.endpoint_view().view().members.iter();
        let members = members.map(|member| ledger.name(member.incarnation.0)).collect();
        if let Some((view, members)) = self.within.replace((id, members))
            && self.view.as_ref().is_none_or(|(told, _)| *told != view)
        {
            self.untold.push((view, members));
        }
    }

    /// The application is told of a view: what it was not told of before it never will be.
    fn pass(&mut self, at: u64, told: ViewId, ledger: &mut Ledger, work: &mut WorkCounters) {
        let until = self.untold.iter().position(|(view, _)| *view == told);
        let late = until.is_some();
        let is_present = self.within.as_ref().is_some_and(|(view, _)| *view == told);
        // What comes behind one of those is of later ones.
        let until = until.unwrap_or(if is_present { self.untold.len() } else { 0 });
        for (view, members) in self.untold.drain(..until) {
            work.passed_views += 1;
            ledger.push(at, self.own, What::Passed { view, members });
        }
        if late {
            work.late_views += 1;
            self.untold.remove(0);
        }
    }

    /// All casts with tickets below `limit` that were not placed yet have gone out in the present view.
    pub(crate) fn place(&mut self, at: u64, limit: u64, ledger: &mut Ledger) {
        let Some((view, _)) = &self.within else { return };
        while let Some(ticket) = self.tickets.get(self.placed).filter(|ticket| **ticket < limit) {
            let _ = ticket;
            self.placed += 1;
            let what = What::CastPlaced { sequence: self.placed as u64, view: *view };
            ledger.push(at, self.own, what);
        }
    }
}

/// An application at work.
pub(crate) struct Desk<'d> {
    pub(crate) seed: u64,
    pub(crate) now: u64,
    pub(crate) load: &'d Load,
    pub(crate) ledger: &'d mut Ledger,
    pub(crate) work: &'d mut WorkCounters,
    pub(crate) papers: &'d mut Papers,
}

impl Desk<'_> {
    /// What the application does of its own accord: some casts and sends.
    pub(crate) fn act(&mut self, group: &mut Group<'_>) {
        let most = u64::from(self.load.burst.max(1));
        for _ in 0..self.papers.random.between(1, most) {
            if self.papers.random.chance(self.load.sends) {
                let to = self.addressees(group.view().size(), group.view().rank().index());
                self.send(to, group);
            } else {
                self.cast(group);
            }
        }
    }

    /// One cast, and one send to every other member.
    pub(crate) fn mark(&mut self, group: &mut Group<'_>) {
        self.cast(group);
        let own = group.view().rank();
        let others: RankSet = (0..group.view().size()).map(Rank::at).filter(|rank| *rank != own).collect();
        if !others.is_empty() {
            self.send(others, group);
        }
    }

    /// So many casts.
    pub(crate) fn last_words(&mut self, casts: u32, group: &mut Group<'_>) {
        (0..casts).for_each(|_| self.cast(group));
    }

    /// As many casts as are taken.
    pub(crate) fn fill(&mut self, group: &mut Group<'_>) {
        for _ in 0..FILL_MAX {
            if self.papers.postponed > 0 || !self.try_to_cast(group) {
                // It is told when there is room again.
                self.papers.postponed = self.papers.postponed.max(1);
                return;
            }
        }
    }

    fn addressees(&mut self, members: usize, own: usize) -> RankSet {
        let random = &mut self.papers.random;
        let one = random.below(members.max(1) as u64) as usize;
        let some = random.word();
        match random.below(4) {
            0 => (0..members).filter(|rank| *rank != own && some >> rank & 1 == 1).map(Rank::at).collect(),
            _ => RankSet::one(Rank::at(one)),
        }
    }

    fn cast(&mut self, group: &mut Group<'_>) {
        if self.papers.postponed > 0 {
            // Behind those that wait; a queue that grows without end is no use to anybody.
            self.papers.postponed = (self.papers.postponed + 1).min(POSTPONED_MAX);
        } else if !self.try_to_cast(group) {
            self.papers.postponed = 1;
        }
    }

    fn retry(&mut self, group: &mut Group<'_>) {
        while self.papers.postponed > 0 && self.try_to_cast(group) {
            self.papers.postponed -= 1;
        }
    }

    /// One that fits `limit` bytes, or a larger one if the stack carries up to `most`.
    fn payload(&mut self, traffic: Traffic, limit: usize, most: usize) -> Vec<u8> {
        let sequence = self.ledger.next(self.papers.own, traffic);
        let random = &mut self.papers.random;
        let (low, high) = match self.load.lengths {
            Lengths::Fixed(bytes) => (bytes, bytes),
            Lengths::Tiny => (NAME_BYTES, NAME_BYTES),
            Lengths::Small => (NAME_BYTES, 128),
            Lengths::Any | Lengths::Mixed => (NAME_BYTES, limit),
            Lengths::Largest => (limit.saturating_sub(2), limit),
        };
        let carries = (limit + 1..=most).contains(&self.load.large_bytes);
        let large = carries && random.chance(self.load.large);
        self.work.large += u64::from(large);
        let (low, high, limit) = match large {
            true => (limit + 1, self.load.large_bytes, self.load.large_bytes),
            false => (low, high, limit),
        };
        let length = random.between(low as u64, high.max(low) as u64) as usize;
        let mut payload = std::mem::take(&mut self.papers.buffer);
        payload.resize(length.clamp(NAME_BYTES, limit), 0);
        fill(self.seed, self.papers.own, traffic, sequence, &mut payload);
        payload
    }

    /// Whether it was taken, or can never be.
    fn try_to_cast(&mut self, group: &mut Group<'_>) -> bool {
        if self.papers.exited.is_some() {
            return true;
        }
        let payload = self.payload(Traffic::Cast, group.reserve_bytes_max(), group.message_bytes_max());
        let large = payload.len() > group.reserve_bytes_max();
        let reserve = self.papers.random.chance(self.load.reserve) && !large;
        let agreed = self.papers.random.chance(self.load.agreed);
        let view = self.promised_view(group);
        let result = match (reserve, agreed) {
            (true, _) => cast_in_place(group, &payload, agreed),
            (false, true) => group.agreed().cast(&payload),
            (false, false) => group.cast(&payload),
        };
        let taken = match result {
            Ok(ticket) => {
                self.papers.tickets.push(ticket.0);
                self.ledger.cast_issued(self.now, self.papers.own, &payload, view, agreed);
                self.work.casts += 1;
                self.work.agreed += u64::from(agreed);
                true
            }
            // Numbers run out just before the next view, which renews them.
            Err(CastError::Full { .. } | CastError::NoFrame(_) | CastError::NumberLimit) => {
                self.work.postponed += 1;
                false
            }
            Err(CastError::Exited(_)) => true,
            Err(error @ (CastError::TooLong { .. } | CastError::BeyondFrame { .. })) => {
                panic!("{} bytes are refused: {error}", payload.len())
            }
        };
        self.papers.buffer = payload;
        taken
    }

    /// The view to which a cast belongs from the moment on that it is taken, if there is one.
    fn promised_view(&self, group: &Group<'_>) -> Option<ViewId> {
        let within = self.ledger.view_id(group.endpoint_view().view().id);
        let told = self.papers.view.as_ref().is_some_and(|(told, _)| *told == within);
        (self.papers.bound && told).then_some(within)
    }

    fn send(&mut self, to: RankSet, group: &mut Group<'_>) {
        if self.papers.view.is_none() || to.is_empty() || self.papers.exited.is_some() {
            return;
        }
        self.papers.follow(self.now, group, self.ledger);
        let (Some((view, _)), Some((_, members))) = (self.papers.within.clone(), self.papers.view.clone())
        else {
            return;
        };
        let most = group.send_bytes_max();
        let fits = if self.load.large_bytes > 0 { most.min(group.reserve_bytes_max()) } else { most };
        let payload = self.payload(Traffic::Send, fits, most);
        let behind = self.papers.view.as_ref().is_some_and(|(told, _)| *told != view);
        match group.send(&to, &payload) {
            Ok(()) => {
                let to = to.iter().map(|rank| members[rank.index()]).collect();
                self.ledger.send_issued(self.now, self.papers.own, &payload, to, view);
                self.work.sends += 1;
            }
            Err(SendError::Full { .. } | SendError::NoFrame(_) | SendError::NumberLimit(_)) => {
                self.work.postponed += 1;
            }
            Err(SendError::Exited(_)) => {}
            // It is gone, and the application is not told yet.
            Err(SendError::NotAMember(_)) if behind => self.work.postponed += 1,
            Err(error @ (SendError::TooLong { .. } | SendError::NoLayer | SendError::NotAMember(_))) => {
                panic!("a send is refused: {error}")
            }
        }
        self.papers.buffer = payload;
    }

    fn take(&mut self, traffic: Traffic, origin: Rank, payload: &[u8]) -> u64 {
        match traffic {
            Traffic::Cast => self.work.casts_delivered += 1,
            Traffic::Send => self.work.sends_delivered += 1,
        }
        let Some((view, members)) = &self.papers.view else {
            self.papers.problems.push("a delivery before the first view".into());
            return 0;
        };
        let origin = members[origin.index()];
        let sequence = self.ledger.delivered(self.now, self.papers.own, traffic, origin, payload, *view);
        if traffic == Traffic::Cast
            && let Some(state) = &mut self.papers.state
        {
            state.take(origin, sequence);
        }
        sequence
    }

    fn installed(&mut self, view: &wadjet::LocalView, group: &mut Group<'_>) {
        self.papers.follow(self.now, group, self.ledger);
        let members: Vec<Incarnation> =
            view.view().members.iter().map(|member| self.ledger.name(member.incarnation.0)).collect();
        let id = self.ledger.view_id(view.view().id);
        let size = members.len();
        self.papers.pass(self.now, id, self.ledger, self.work);
        self.papers.view = Some((id, members.clone()));
        self.papers.views += 1;
        self.papers.frames = vec![Vec::new(); size];
        self.papers.reported = vec![0; size * size * 2];
        self.papers.late = self.papers.newest.take();
        self.papers.block_due = None;
        // That a view has begun to end of which it is told late, with its state, it may hear behind that, and is not waited for.
        self.papers.bound = self.papers.blocks && view.view().id.counter > self.papers.late_through;
        self.work.views += 1;
        self.ledger.push(self.now, self.papers.own, What::View { view: id, members, transitional: false });
        if let Some(state) = &self.papers.state {
            self.ledger.state(self.now, self.papers.own, id, (self.papers.line, state.digest()));
        }
    }

    /// Enters whom this member has expelled, which is judged.
    fn slow(&mut self, slow: &Slow, group: &Group<'_>) {
        let view = group.view();
        // The endpoint may have gone on already; ranks are those of the view that was told last.
        if slow.outcome == (SlowOutcome::Expelled { by: view.rank() })
            && let Some(member) = view.view().members.get(slow.member.index())
        {
            let (by, member) = (self.papers.own, self.ledger.name(member.incarnation.0));
            let lasting_ns = slow.lasting.as_nanos() as u64;
            self.ledger.expulsions.push(Expelled { at: self.now, by, member, why: slow.why, lasting_ns });
        }
    }

    /// Enters an exclusion, which is judged, unless it followed on a pause: then a few may have gone on without this member. Nor
    /// is it judged where its application was not told of the view.
    fn excluded(&mut self, reason: ExitReason) {
        let Papers { own, view, within, paused_at, .. } = &self.papers;
        let (ExitReason::Excluded { .. }, Some((view, members))) = (reason, view) else { return };
        let stood_still = paused_at.is_some_and(|at| self.now <= at + AWAY_NS);
        if !stood_still && within.as_ref().is_some_and(|(within, _)| within == view) {
            let (member, view, members) = (*own, *view, members.clone());
            self.ledger.exclusions.push(Exclusion { member, view, members });
        }
    }

    /// Enters what the endpoint says of stability.
    pub(crate) fn report_stability(&mut self, stability: &Stability) {
        let members = self.papers.frames.len();
        let told = self.papers.view.as_ref().map(|(view, _)| view);
        if stability.held.len() != members || told != self.papers.within.as_ref().map(|(view, _)| view) {
            return;
        }
        for origin in 0..members {
            for at_members in 1..=members {
                for (measure, frames) in [
                    (Measure::Held, stability.held_by(at_members, Rank::at(origin))),
                    (Measure::Seen, stability.seen_by(at_members, Rank::at(origin))),
                ] {
                    let through = self.papers.last_cast_below(origin, frames);
                    let at = (origin * members + at_members - 1) * 2 + usize::from(measure == Measure::Seen);
                    if through > self.papers.reported[at] {
                        self.papers.reported[at] = through;
                        match measure {
                            Measure::Held => self.work.held_reports += 1,
                            Measure::Seen => self.work.seen_reports += 1,
                        }
                        let origin = self.papers.view.as_ref().expect("it has members").1[origin];
                        self.ledger.stable(self.now, self.papers.own, measure, origin, through, at_members);
                    }
                }
            }
        }
    }
}

/// Casts of one iteration of who casts all it can, at most.
const FILL_MAX: usize = 256;
/// Casts that an application keeps for later, at most.
const POSTPONED_MAX: u32 = 64;

impl Application for Desk<'_> {
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        let origin = delivery.origin();
        let id = delivery.id();
        let mut last = 0;
        for payload in delivery.messages() {
            last = last.max(self.take(Traffic::Cast, origin, payload));
        }
        let Some(frames) = self.papers.frames.get_mut(origin.index()) else { return };
        frames.push((id.number, last));
        self.papers.newest = Some(id);
        if let Some(late) = self.papers.late {
            // As an application does that hears late from its disk: rank and number may be another cast's by now.
            group.ack(late);
        }
        if last > 0 && self.papers.random.chance(self.load.acknowledge) {
            let (_, members) = self.papers.view.as_ref().expect("it delivers");
            let what = What::Seen { origin: members[origin.index()], through: last };
            self.ledger.push(self.now, self.papers.own, what);
            self.work.acknowledged += 1;
            group.ack(id);
        }
        if origin != group.view().rank() && self.papers.random.chance(self.load.reply) {
            self.work.replies += 1;
            Desk::cast(self, group);
        }
    }

    fn send(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        for payload in delivery.messages() {
            self.take(Traffic::Send, delivery.origin(), payload);
        }
        if self.papers.random.chance(self.load.reply) {
            self.work.echoes += 1;
            Desk::send(self, RankSet::one(delivery.origin()), group);
        }
    }

    fn snapshot(&mut self, _: &mut Group<'_>) -> Option<Box<dyn Snapshot>> {
        let state = self.papers.state.as_ref()?;
        self.work.snapshots += 1;
        self.ledger.lines.insert(state.digest(), self.papers.line);
        let mut state = state.snapshot();
        if !self.papers.random.chance(self.load.torn_state) {
            return Some(Box::new(state));
        }
        self.work.torn_states += 1;
        state.cut(self.papers.random.below(state.bytes() + 1));
        Some(Box::new(Torn(state)))
    }

    fn install_state(&mut self, part: &StatePart<'_>, group: &mut Group<'_>) -> Result<(), String> {
        let Some(state) = &mut self.papers.state else { return Err("nothing is to be taken in".into()) };
        match state.install(part) {
            Ok(last) => {
                self.work.states += u64::from(last);
                if last {
                    self.papers.line = self.ledger.lines.get(&state.digest()).copied().unwrap_or(0);
                    self.papers.late_through = group.endpoint_view().view().id.counter;
                }
            }
            Err(why) => self.papers.problems.push(why),
        }
        Ok(())
    }

    fn is_ready_for_state(&mut self, _: usize) -> bool {
        let ready = !self.papers.random.chance(self.load.late_state);
        self.work.late_parts += u64::from(!ready);
        ready
    }

    fn event(&mut self, event: &Event, group: &mut Group<'_>) {
        match event {
            Event::View(view) => self.installed(view, group),
            Event::Writable => self.retry(group),
            // A few say as much as all of them, and cost less.
            Event::Stable if !self.load.stability || self.papers.random.below(4) > 0 => {}
            Event::Stable => self.report_stability(&group.stability()),
            Event::Block => {
                self.work.blocks += 1;
                match self.papers.random.below(3) {
                    0 => {
                        self.papers.bound = false;
                        group.block_ok();
                    }
                    _ => {
                        let later = self.now + self.papers.random.scaled(1_000, 5_000_000);
                        self.papers.block_due = Some(later);
                    }
                }
            }
            Event::Transitional(together) => {
                let Some((view, members)) = &self.papers.view else { return };
                let members = together.iter().map(|rank| members[rank.index()]).collect();
                let what = What::View { view: *view, members, transitional: true };
                self.ledger.push(self.now, self.papers.own, what);
            }
            Event::Exit(reason) => {
                self.papers.follow(self.now, group, self.ledger);
                self.papers.place(self.now, u64::MAX, self.ledger);
                // Of views that wait behind the one it was told of last it says nothing: it had not all of that one either, when
                // the rest of it waits with them, and who goes on to a view has delivered what others have in the one before.
                self.papers.untold.clear();
                self.papers.exited = Some(*reason);
                self.work.exits += 1;
                self.work.expulsions += u64::from(matches!(reason, ExitReason::Expelled { .. }));
                self.excluded(*reason);
                self.ledger.push(self.now, self.papers.own, What::Exit { reason: reason.to_string() });
            }
            // What XFER says when it leaves because nobody has the state: the group's end, and as it should be.
            Event::Problem(problem)
                if problem.layer == "XFER" && problem.what.contains("had the group's state are gone") => {}
            // So it is if more was cast meanwhile than it may hold, where such a one is to leave.
            Event::Problem(problem) if problem.layer == "XFER" && problem.what.contains("(hold_kib_max)") => {
                self.work.full_leaves += 1;
            }
            // So it is if nobody can read it; and where it was torn, that is told.
            Event::Problem(problem)
                if problem.layer == "XFER"
                    && (problem.what.contains("can read it") || problem.what.contains(TORN)) => {}
            // What becomes of a send is judged.
            Event::Problem(problem) if problem.what.starts_with("a large send to ") => {}
            // Links that are cut one way, and processes that crash as soon as they are let in.
            Event::Problem(problem) if problem.what.ends_with("do frames pass both ways?") => {}
            // One that is heard and hears nothing for longer than a cast is sent again in silence.
            Event::Problem(problem)
                if problem.layer == "NAK" && problem.what.contains("sent again each time") => {}
            // Of stacks that are slow on purpose.
            Event::Problem(problem) if problem.what.starts_with("no fast path for ") => {}
            // By somebody whose disk takes its time.
            Event::Problem(problem) if problem.what.starts_with("nobody has cast for ") => {}
            Event::Problem(problem) => self.papers.problems.push(format!("{problem:?}")),
            Event::StateLost { goes_on } => {
                self.work.lost_states += 1;
                self.papers.line = self.work.lost_states;
                // What was cast since it came in may be in no state: it matters, so that is cast again.
                if *goes_on && self.ledger.next(self.papers.own, Traffic::Cast) > 1 {
                    self.cast(group);
                }
            }
            Event::LostMessage { origin, .. } => {
                if let Some((_, members)) = &self.papers.view {
                    let what = What::SendsLost { to: members[origin.index()] };
                    self.ledger.push(self.now, self.papers.own, what);
                }
            }
            Event::Slow(slow) => self.slow(slow, group),
            Event::Paused(_) => self.papers.paused_at = Some(self.now),
            Event::Suspect(suspicion) => {
                let members = self.papers.view.iter().flat_map(|(_, members)| members);
                if let Some(member) = members.copied().nth(suspicion.member.index()) {
                    let by = self.papers.own;
                    self.ledger.suspicions.push(Suspected { at: self.now, by, member });
                }
            }
            Event::Left(_) => {}
        }
    }
}

/// For so long a pause may be why a member is excluded.
const AWAY_NS: u64 = 100_000_000;

/// A snapshot that cannot be read on where it ends.
struct Torn(Frozen);

/// What is said of it.
const TORN: &str = "the simulated disk is torn";

impl Snapshot for Torn {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, String> {
        match self.0.read(into)? {
            0 => Err(TORN.to_owned()),
            bytes => Ok(bytes),
        }
    }
}
