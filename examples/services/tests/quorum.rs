//! Replicas in a small model of views, cut and crashed at random: no acknowledged command is ever missing from a state that
//! counts, and what was refused never happened.
//!
//! The model has what the group promises and nothing more. A view has one order of casts. A member delivers what all of the
//! view hold. At the view's end those who go on together deliver what any of them holds: in the order as far as they know
//! it, and the rest by origin. Whoever is let in holds everything back until it is given a state.

use std::collections::{BTreeMap, BTreeSet};

use wadjet::Incarnation;
use wadjet::id::{Rank, ViewId};
use wadjet_services::quorum::{Answer, Claim, Outcome, Quorum};

const WORLDS: u64 = 1000;
const STEPS: usize = 1000;

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

type Command = usize;
/// What was executed, which is the whole state.
type Log = Vec<Command>;

#[derive(Clone, Debug)]
enum Message {
    Claim(Claim),
    Command(Command),
    State(Claim, Log),
}

#[derive(Clone, Debug)]
enum Event {
    View(ViewId, usize, Rank),
    Closes,
    Cast(Rank, Message),
}

/// A view's casts, in their order.
struct View {
    members: Vec<usize>,
    casts: Vec<(Rank, Message)>,
    /// By cast: the places that hold it.
    holders: Vec<BTreeSet<usize>>,
}

struct Member {
    quorum: Quorum,
    rank: Rank,
    log: Log,
    alive: bool,
    view: ViewId,
    delivered: usize,
    unsure: Vec<Command>,
    /// The state that is on its way, and what comes after it.
    given: Option<(Claim, Log, Vec<Event>)>,
}

struct World {
    seed: u64,
    dice: Dice,
    incarnations: u64,
    commands: usize,
    views: BTreeMap<ViewId, View>,
    members: Vec<Member>,
    failed: BTreeSet<usize>,
    acknowledged: Vec<(Command, ViewId)>,
    refused: BTreeSet<Command>,
    counted: usize,
}

impl World {
    fn new(seed: u64, replicas: usize) -> World {
        let mut world = World {
            seed,
            dice: Dice(seed),
            incarnations: 0,
            commands: 0,
            views: BTreeMap::new(),
            members: Vec::new(),
            failed: BTreeSet::new(),
            acknowledged: Vec::new(),
            refused: BTreeSet::new(),
            counted: 0,
        };
        for place in 0..replicas {
            let member = world.fresh(replicas);
            world.members.push(member);
            world.install(&[place]);
        }
        world
    }

    fn fresh(&self, replicas: usize) -> Member {
        Member {
            quorum: Quorum::new(replicas),
            rank: Rank(0),
            log: Log::new(),
            alive: true,
            view: ViewId { counter: 0, coordinator: Incarnation(0) },
            delivered: 0,
            unsure: Vec::new(),
            given: None,
        }
    }

    /// One event at a member, whose casts go into its view.
    fn handle(&mut self, place: usize, event: Event) {
        let member = &mut self.members[place];
        if !member.alive {
            return;
        }
        if let Some((_, _, held)) = &mut member.given {
            return held.push(event);
        }
        let outcome = match event {
            Event::Closes => return member.quorum.closes(),
            Event::View(view, size, rank) => {
                let claim = member.quorum.view(view, size, rank);
                return self.cast(place, Message::Claim(claim));
            }
            Event::Cast(origin, Message::Claim(claim)) => member.quorum.claim(origin, &claim),
            Event::Cast(_, Message::Command(command)) => return self.execute(place, command),
            Event::Cast(origin, Message::State(claim, log)) => {
                if member.quorum.is_handed(&claim) && origin != member.rank {
                    (member.log, member.unsure) = (log, Vec::new());
                }
                member.quorum.decide()
            }
        };
        match outcome {
            Outcome::Waits => {}
            Outcome::Counts => self.counts(place),
            Outcome::HandOver => {
                let member = &self.members[place];
                let state = Message::State(member.quorum.as_it_is(), member.log.clone());
                self.cast(place, state);
            }
            // All that were with it have what was acknowledged: this is no failure of those that may be too many.
            Outcome::Overruled => self.members[place].alive = false,
            other => panic!("seed {}: {other:?} at {place}, {:?}", self.seed, self.members[place].quorum),
        }
    }

    fn execute(&mut self, place: usize, command: Command) {
        let own = command % self.members.len() == place;
        let member = &mut self.members[place];
        if member.quorum.counts() {
            member.log.push(command);
        }
        match member.quorum.answer() {
            Answer::Now if own => self.acknowledged.push((command, member.quorum.epoch())),
            Answer::Later if own => member.unsure.push(command),
            Answer::Refused if own => drop(self.refused.insert(command)),
            _ => {}
        }
    }

    fn counts(&mut self, place: usize) {
        let member = &mut self.members[place];
        let epoch = member.quorum.epoch();
        for (command, at) in &self.acknowledged {
            assert!(
                *at >= epoch || member.log.contains(command),
                "seed {}: command {command} was acknowledged in epoch {at} and is not in {epoch} at {place}",
                self.seed
            );
        }
        self.counted += 1;
        self.failed.remove(&place);
        if member.quorum.answer() == Answer::Now {
            let unsure = std::mem::take(&mut member.unsure);
            self.acknowledged.extend(unsure.into_iter().map(|command| (command, epoch)));
        }
    }

    /// A cast into the view that the member is in by now.
    fn cast(&mut self, place: usize, message: Message) {
        let member = &self.members[place];
        let Some(view) = self.views.get_mut(&member.view) else { return };
        view.casts.push((member.rank, message));
        view.holders.push(BTreeSet::from([place]));
    }

    /// The next cast of some origin reaches a member.
    fn hold(&mut self, place: usize) {
        let Some(view) = self.views.get_mut(&self.members[place].view) else { return };
        let origin = Rank::at(self.dice.below(view.members.len()));
        let mut casts = view.casts.iter().zip(&mut view.holders);
        let missing =
            casts.find_map(|((from, _), held)| (*from == origin && !held.contains(&place)).then_some(held));
        if let Some(held) = missing {
            held.insert(place);
        }
    }

    /// A member delivers the next cast, if all of its view hold it.
    fn deliver(&mut self, place: usize) {
        let member = &self.members[place];
        let Some(view) = self.views.get(&member.view) else { return };
        let Some(held) = view.holders.get(member.delivered) else { return };
        if view.members.iter().all(|other| held.contains(other)) {
            let (origin, message) = view.casts[member.delivered].clone();
            self.members[place].delivered += 1;
            self.handle(place, Event::Cast(origin, message));
        }
    }

    /// These are one view from now on, whatever they were.
    fn install(&mut self, places: &[usize]) {
        let mut parts: BTreeMap<ViewId, Vec<usize>> = BTreeMap::new();
        for place in places {
            parts.entry(self.members[*place].view).or_default().push(*place);
        }
        // What those who go on together have to deliver of the view that ends.
        let mut ends = Vec::new();
        for (id, part) in &parts {
            let Some(view) = self.views.get(id) else { continue };
            let held: Vec<bool> =
                view.holders.iter().map(|held| part.iter().any(|place| held.contains(place))).collect();
            let known = held.iter().position(|held| !held).unwrap_or(held.len());
            let mut rest: Vec<usize> = (known..held.len()).filter(|at| held[*at]).collect();
            rest.sort_by_key(|at| view.casts[*at].0);
            for place in part {
                let from = self.members[*place].delivered;
                let casts = (from.min(known)..known).chain(rest.iter().copied());
                let events = casts.map(|at| Event::Cast(view.casts[at].0, view.casts[at].1.clone()));
                ends.push((*place, events.collect::<Vec<_>>()));
            }
        }
        let counter = 1 + places.iter().map(|place| self.members[*place].view.counter).max().unwrap_or(0);
        self.incarnations += 1;
        let id = ViewId { counter, coordinator: Incarnation(self.incarnations) };
        for (place, events) in ends {
            // What is cast now is of no view any more.
            let old = std::mem::replace(&mut self.members[place].view, id);
            self.handle(place, Event::Closes);
            for event in events {
                self.handle(place, event);
            }
            if !self.members.iter().any(|member| member.alive && member.view == old) {
                self.views.remove(&old);
            }
        }
        let parts: Vec<Vec<usize>> = parts.into_values().collect();
        let has_state = |world: &World, part: &Vec<usize>| -> Option<usize> {
            let holders: Vec<usize> =
                part.iter().copied().filter(|place| world.members[*place].given.is_none()).collect();
            (!holders.is_empty()).then(|| holders[world.counted % holders.len()])
        };
        let group = self.dice.below(parts.len());
        let giver = has_state(self, &parts[group]).expect("each part has the state");
        self.views.insert(id, View { members: places.to_vec(), casts: Vec::new(), holders: Vec::new() });
        let view = |rank: usize| Event::View(id, places.len(), Rank::at(rank));
        for (rank, place) in places.iter().enumerate() {
            let member = &mut self.members[*place];
            (member.view, member.rank, member.delivered) = (id, Rank::at(rank), 0);
            if parts[group].contains(place) {
                self.handle(*place, view(rank));
            }
        }
        let state = (self.members[giver].quorum.as_it_is(), self.members[giver].log.clone());
        for (rank, place) in places.iter().enumerate() {
            if !parts[group].contains(place) {
                self.members[*place].given = Some((state.0, state.1.clone(), vec![view(rank)]));
            }
        }
    }

    /// The state has come.
    fn take(&mut self, place: usize) {
        let Some((claim, log, held)) = self.members[place].given.take() else { return };
        let member = &mut self.members[place];
        if member.quorum.is_given(&claim) {
            (member.log, member.unsure) = (log, Vec::new());
        }
        for event in held {
            self.handle(place, event);
        }
    }

    fn living(&self, of: ViewId) -> Vec<usize> {
        (0..self.members.len())
            .filter(|place| self.members[*place].alive && self.members[*place].view == of)
            .collect()
    }

    /// Whether these can go on alone: one that waits for a state cannot.
    fn can_go_on(&self, places: &[usize]) -> bool {
        places.iter().any(|place| self.members[*place].given.is_none())
    }

    /// A view parts, or two meet.
    fn change(&mut self) {
        let views: Vec<ViewId> = self.views.keys().copied().collect();
        let [one, other] =
            [(); 2].map(|()| views[self.dice.below(views.len())]).map(|view| self.living(view));
        let split = self.dice.below(1 << self.members.len());
        let (left, right): (Vec<usize>, Vec<usize>) = one.iter().partition(|place| split >> **place & 1 == 0);
        let parts = match self.dice.below(3) {
            0 => vec![left, right],
            // They part, and some meet others in the same moment.
            1 if one != other => vec![[left, other].concat(), right],
            2 if one != other => vec![[one, other].concat()],
            _ => vec![one],
        };
        let parts: Vec<Vec<usize>> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let whole = |part: &Vec<usize>| {
            let mut views: Vec<ViewId> = part.iter().map(|place| self.members[*place].view).collect();
            views.dedup();
            views.iter().all(|view| {
                let of: Vec<usize> =
                    part.iter().copied().filter(|place| self.members[*place].view == *view).collect();
                self.can_go_on(&of)
            })
        };
        // Whoever loses those that give it the state ends by itself, which is a failure.
        if parts.iter().all(whole) {
            parts.iter().for_each(|part| self.install(part));
        }
    }

    fn crash(&mut self) {
        let place = self.dice.below(self.members.len());
        let may = self.failed.contains(&place) || self.failed.len() < (self.members.len() - 1) / 2;
        let left: Vec<usize> =
            self.living(self.members[place].view).into_iter().filter(|other| *other != place).collect();
        if may && self.members[place].alive && (left.is_empty() || self.can_go_on(&left)) {
            self.failed.insert(place);
            self.members[place].alive = false;
        }
    }

    /// A new process at the place of one that crashed; those it was with have noticed.
    fn restart(&mut self, place: usize) {
        let left = self.living(self.members[place].view);
        if !left.is_empty() {
            self.install(&left);
        }
        self.members[place] = self.fresh(self.members.len());
        self.install(&[place]);
    }

    fn step(&mut self) {
        let place = self.dice.below(self.members.len());
        match self.dice.below(100) {
            0..2 => self.crash(),
            2..8 if !self.members[place].alive => self.restart(place),
            _ if !self.members[place].alive => {}
            8..12 => self.take(place),
            12..60 => self.hold(place),
            60..90 => self.deliver(place),
            _ => {
                let command = self.commands * self.members.len() + place;
                self.commands += 1;
                self.cast(place, Message::Command(command));
            }
        }
    }

    /// All are well again: they have one state with everything that was acknowledged, and nothing that was refused.
    fn heal(&mut self) {
        let all: Vec<usize> = (0..self.members.len()).collect();
        // Again if one was overruled.
        for _ in 0..all.len() {
            for place in &all {
                if !self.members[*place].alive {
                    self.restart(*place);
                }
                self.take(*place);
            }
            self.install(&all);
            for _ in 0..5000 {
                let place = self.dice.below(all.len());
                self.take(place);
                self.hold(place);
                self.deliver(place);
            }
            if self.members.iter().all(|member| member.alive) {
                break;
            }
        }
        let log = self.members[0].log.clone();
        for (place, member) in self.members.iter().enumerate() {
            assert!(member.quorum.counts(), "seed {}: {place}: {:?}", self.seed, member.quorum);
            assert_eq!(member.log, log, "seed {}: {place} and 0 differ", self.seed);
        }
        for (command, epoch) in &self.acknowledged {
            assert!(log.contains(command), "seed {}: {command} of epoch {epoch} is lost", self.seed);
        }
        for command in &self.refused {
            assert!(!log.contains(command), "seed {}: {command} was refused and happened", self.seed);
        }
    }
}

#[test]
fn nothing_acknowledged_gives_way_whatever_is_cut_or_crashes() {
    let (mut acknowledged, mut refused, mut counted) = (0, 0, 0);
    for seed in 0..WORLDS {
        let mut world = World::new(seed, if seed % 3 == 0 { 5 } else { 3 });
        let mut calm = 0;
        for _ in 0..STEPS {
            if calm == 0 {
                world.change();
                // One change after the other: most of what can go wrong is between two of them.
                calm =
                    if world.dice.below(2) == 0 { 1 + world.dice.below(20) } else { world.dice.below(200) };
            }
            calm = calm.saturating_sub(1);
            world.step();
        }
        world.heal();
        acknowledged += world.acknowledged.len();
        refused += world.refused.len();
        counted += world.counted;
    }
    assert!(
        acknowledged > 1000 && refused > 1000,
        "{acknowledged} acknowledged, {refused} refused, counted {counted} times"
    );
}
