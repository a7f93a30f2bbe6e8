//! All runs instead of some: the bounded explorer (`wadjet sim --explore`).
//!
//! A few processes are in one view, and have a few casts to issue; one of them may crash, and a few frames may be lost or
//! overtaken. At every step there is a choice of what happens next: which frame is delivered or lost, who casts, who
//! crashes and who is told of it, whose driver loop runs, or that nothing happens until the next timer. Every sequence of
//! choices up to a depth is taken; from then on everything arrives in order until the group is one view of those who live,
//! and has delivered everything. The oracle judges every run.
//!
//! A process's state follows from what has come to it, in order: so two sequences of choices after which every process has
//! had the same, and the same is under way, lead to the same state, and only one of them is followed. Steps take no time;
//! clocks move only when a choice says so. So what is independent commutes, and is taken once.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use wadjet::id::RankSet;
use wadjet::stack::property::{Properties, Property};
use wadjet::stack::registry::Registry;
use wadjet::stack::spec::Spec;
use wadjet::view::View;

use super::{Around, NEVER, Next, Phase, World};
use crate::faults::{Faults, LinkFaults};
use crate::outcome::{Outcome, Violation};
use crate::random::splitmix;
use crate::scenario::{Driver, Overrides, Scenario};
use crate::views::home::{desk, group, member};
use crate::views::setup::{Fate, Load, Seldom, ViewsSetup};
use crate::workload::Lengths;
use crate::world::caught;

/// What is explored.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Processes in the first view: from 1 to 8.
    pub members: usize,
    /// The stack, top to bottom; one that agrees on views.
    pub stack: String,
    /// Choices in a row; what follows takes its ordinary course.
    pub depth: usize,
    /// Casts, taken by the processes in turn.
    pub casts: usize,
    /// Processes that may crash.
    pub crashes: usize,
    /// Frames that may be lost or overtaken; of those of a crashed process any number may be lost.
    pub disturbances: usize,
    /// Whether plans are used, or the layers alone.
    pub accelerated: bool,
}

impl Bounds {
    /// Whether this can be explored.
    ///
    /// # Errors
    /// In words, what cannot.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=MEMBERS_MAX).contains(&self.members) {
            return Err(format!("{} members are explored; give 1 to {MEMBERS_MAX}", self.members));
        }
        let refuse = |error: &dyn fmt::Display| format!("the stack cannot be explored: {error}");
        let spec = Spec::parse(&self.stack).map_err(|error| refuse(&error))?;
        let registry = Registry::standard();
        let checked = spec.check(&registry, Properties::NONE).map_err(|error| refuse(&error))?;
        let top = checked.first().map_or(Properties::NONE, |(_, above)| *above);
        if !top.contains(Property::ConsistentViews) {
            return Err(refuse(&"its views do not follow each other; put MBRSHIP into it"));
        }
        Ok(())
    }
}

/// The most members that are explored.
const MEMBERS_MAX: usize = 8;

/// One thing that happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A process casts its next message.
    Cast(usize),
    /// The oldest frame under way on a link is delivered.
    Deliver(usize, usize),
    /// The second oldest is.
    Overtake(usize, usize),
    /// The oldest is lost.
    Lose(usize, usize),
    /// A process crashes.
    Crash(usize),
    /// A process is told by its application that another has failed.
    Accuse(usize, usize),
    /// The driver loop of a process runs.
    Turn(usize),
    /// Nothing happens until the next timer of anybody.
    Wait,
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Cast(process) => write!(formatter, "p{process} casts"),
            Choice::Deliver(from, to) => write!(formatter, "p{from}→p{to}"),
            Choice::Overtake(from, to) => write!(formatter, "p{from}⇒p{to} overtakes"),
            Choice::Lose(from, to) => write!(formatter, "p{from}→p{to} lost"),
            Choice::Crash(process) => write!(formatter, "p{process} crashes"),
            Choice::Accuse(process, whom) => write!(formatter, "p{process} accuses p{whom}"),
            Choice::Turn(process) => write!(formatter, "p{process} runs"),
            Choice::Wait => formatter.write_str("time passes"),
        }
    }
}

/// What exploring came to.
#[derive(Clone, Debug)]
pub struct Explored {
    /// States, all different.
    pub states: u64,
    /// Choices taken in them.
    pub choices: u64,
    /// Choices that led to a state that was known.
    pub known: u64,
    /// Runs that were followed to their end and judged.
    pub runs: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// A run that is not as promised, if there is one.
    pub failure: Option<Misstep>,
}

/// What led to a run that is not as promised.
#[derive(Clone, Debug)]
pub struct Misstep {
    /// The choices.
    pub path: Vec<Choice>,
    /// What was violated.
    pub violations: Vec<Violation>,
    /// What happened, unless there was a panic before the end of the path.
    pub outcome: Option<Box<Outcome>>,
}

/// The seed of everything that is drawn all the same: incarnations, and payloads.
const SEED: u64 = 0;
const FRAME_BYTES: usize = 1024;
const MESSAGE_BYTES: usize = 24;
const WINDOW_FRAMES: u32 = 8;
/// Shorter than what heartbeats wait: post-processing is a step of its own.
const POST_NS: u64 = 20_000;
/// When choices have ended: how long frames and iterations take.
const DELAY_NS: u64 = 2_000;
const ITERATION_NS: u64 = 1_000;
/// What is under way when choices end arrives one by one.
const GAP_NS: u64 = 1_000;

/// Explores all runs within `bounds`.
///
/// # Panics
/// If the stack does not agree on views or is refused.
pub fn explore(bounds: &Bounds) -> Explored {
    let began = Instant::now();
    let mut explored = Explored { states: 0, choices: 0, known: 0, runs: 0, seconds: 0.0, failure: None };
    let mut known = HashSet::new();
    let mut frontier: Vec<Vec<Choice>> = vec![Vec::new()];
    for level in 0..=bounds.depth {
        let mut next = Vec::new();
        for path in frontier {
            let setup = setup(bounds, &path);
            let walked = caught(|| {
                let mut walk = Walk::new(bounds, &setup);
                path.iter().for_each(|choice| walk.take(*choice));
                walk
            });
            let walk = match walked {
                Ok(walk) => walk,
                Err(message) => {
                    let violations = vec![Violation::of("panic", message)];
                    explored.failure = Some(Misstep { path, violations, outcome: None });
                    break;
                }
            };
            // Of several ways to one state the first is followed.
            if !known.insert(walk.state()) {
                explored.known += 1;
                continue;
            }
            explored.states += 1;
            if level < bounds.depth {
                let choices = walk.choices();
                explored.choices += choices.len() as u64;
                next.extend(choices.into_iter().map(|choice| [&path[..], &[choice]].concat()));
                continue;
            }
            explored.runs += 1;
            let outcome = walk.end();
            if !outcome.violations.is_empty() {
                let violations = outcome.violations.clone();
                explored.failure = Some(Misstep { path, violations, outcome: Some(Box::new(outcome)) });
                break;
            }
        }
        if explored.failure.is_some() {
            break;
        }
        frontier = next;
    }
    explored.seconds = began.elapsed().as_secs_f64();
    explored
}

/// The world in which `path` is taken.
fn setup(bounds: &Bounds, path: &[Choice]) -> ViewsSetup {
    let overrides = Overrides {
        members: Some(bounds.members),
        stack: Some(bounds.stack.clone()),
        accelerated: Some(bounds.accelerated),
        packing: Some(false),
        shadow: Some(bounds.accelerated),
        without: Vec::new(),
    };
    let scenario = Scenario::named("views").expect("there is one");
    let drawn = scenario.views(SEED, &overrides);
    let processes = bounds.members;
    let fate = |process: usize| match path.contains(&Choice::Crash(process)) {
        true => Fate::Crashed,
        false => Fate::Core,
    };
    let link = LinkFaults { delay_ns: DELAY_NS, ..LinkFaults::default() };
    ViewsSetup {
        without_plans: 0,
        frame_bytes: FRAME_BYTES,
        scarcity: 1,
        window: WINDOW_FRAMES,
        post_ns: POST_NS,
        together: true,
        discover: vec![false; processes],
        hints: false,
        open_ns: 0,
        drivers: vec![Driver { iteration_ns: ITERATION_NS, ..drawn.drivers[0] }; processes],
        faults: Faults { links: vec![link; processes * processes], ..Faults::default() },
        chaos: Vec::new(),
        span_ns: 0,
        load: Load {
            gaps_ns: vec![0; processes],
            burst: 1,
            sends: 0,
            lengths: Lengths::Fixed(MESSAGE_BYTES),
            large: 0,
            large_bytes: 0,
            reply: 0,
            reserve: 0,
            agreed: 0,
            acknowledge: 0,
            stability: false,
            late_state: 0,
            torn_state: 0,
        },
        expulsion: None,
        seldom: Seldom::default(),
        fates: (0..processes).map(fate).collect(),
        ..drawn
    }
}

/// A world, and what is under way in it.
struct Walk<'w> {
    world: World<'w>,
    now: u64,
    /// By origin and destination, oldest first.
    links: Vec<VecDeque<Rc<[u8]>>>,
    casts: usize,
    crashes: usize,
    disturbances: usize,
    /// Who has crashed, and who has been told of whom: bit by bit, by pair.
    crashed: u64,
    told: u64,
    /// By process: a hash of what has come to it, in order.
    inputs: Vec<u64>,
}

impl<'w> Walk<'w> {
    fn new(bounds: &Bounds, setup: &'w ViewsSetup) -> Walk<'w> {
        let mut world = World::new(SEED, setup, false);
        let processes = setup.processes;
        let members = (0..processes).map(|process| member(SEED, process, 0)).collect();
        let view = View::fixed(group(), members, &setup.stack);
        for process in 0..processes {
            // Steps take no time.
            world.homes[process].driver.iteration_ns = 0;
            world.homes[process].driver.submit_ns = 0;
            world.begin(0, process, Some(view.clone()));
        }
        let mut walk = Walk {
            world,
            now: 0,
            links: vec![VecDeque::new(); processes * processes],
            casts: bounds.casts,
            crashes: bounds.crashes,
            disturbances: bounds.disturbances,
            crashed: 0,
            told: 0,
            inputs: vec![0; processes],
        };
        (0..processes).for_each(|process| walk.run(process));
        walk
    }

    fn processes(&self) -> usize {
        self.inputs.len()
    }

    fn lives(&self, process: usize) -> bool {
        self.world.homes[process].life.is_some()
    }

    fn due(&self, process: usize) -> Option<u64> {
        self.world.homes[process].due(self.now)
    }

    /// Everything that can happen next.
    fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        let living: Vec<usize> = (0..self.processes()).filter(|process| self.lives(*process)).collect();
        if self.casts > 0 {
            choices.extend(living.iter().map(|process| Choice::Cast(*process)));
        }
        for from in 0..self.processes() {
            for to in &living {
                let link = &self.links[from * self.processes() + to];
                let disturbed = self.disturbances > 0;
                if !link.is_empty() {
                    choices.push(Choice::Deliver(from, *to));
                    if disturbed || self.crashed >> from & 1 == 1 {
                        choices.push(Choice::Lose(from, *to));
                    }
                }
                if link.len() > 1 && disturbed {
                    choices.push(Choice::Overtake(from, *to));
                }
            }
        }
        if self.crashes > 0 && living.len() > 1 {
            choices.extend(living.iter().map(|process| Choice::Crash(*process)));
        }
        for process in &living {
            for whom in (0..self.processes()).filter(|whom| self.crashed >> whom & 1 == 1) {
                if self.told >> (process * self.processes() + whom) & 1 == 0 {
                    choices.push(Choice::Accuse(*process, whom));
                }
            }
        }
        let turns: Vec<Choice> = living
            .iter()
            .filter(|process| self.due(**process).is_some_and(|due| due <= self.now))
            .map(|process| Choice::Turn(*process))
            .collect();
        // While somebody has something to do at once, time does not pass.
        if turns.is_empty() {
            choices.push(Choice::Wait);
        }
        choices.extend(turns);
        choices
    }

    fn take(&mut self, choice: Choice) {
        let processes = self.processes();
        match choice {
            Choice::Cast(process) => {
                self.casts -= 1;
                self.note(process, 1);
                self.cast(process);
                self.run(process);
            }
            Choice::Deliver(from, to) => self.deliver(from, to, 0),
            Choice::Overtake(from, to) => {
                self.disturbances -= 1;
                self.deliver(from, to, 1);
            }
            Choice::Lose(from, to) => {
                self.disturbances -= usize::from(self.crashed >> from & 1 == 0);
                self.links[from * processes + to].pop_front();
            }
            Choice::Crash(process) => {
                self.crashes -= 1;
                self.crashed |= 1 << process;
                self.note(process, 2);
                self.world.crash(self.now, process);
                (0..processes).for_each(|from| self.links[from * processes + process].clear());
            }
            Choice::Accuse(process, whom) => {
                self.told |= 1 << (process * processes + whom);
                self.note(process, 3 + whom as u64);
                self.accuse(process, whom);
                self.run(process);
            }
            Choice::Turn(process) => self.run(process),
            Choice::Wait => {
                let living = 0..processes;
                let Some(next) = living.clone().filter_map(|process| self.due(process)).min() else { return };
                self.now = next;
                for process in living {
                    if self.due(process).is_some_and(|due| due <= next) {
                        self.run(process);
                    }
                }
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, at: usize) {
        let link = from * self.processes() + to;
        let Some(bytes) = self.links[link].remove(at) else { return };
        self.note(to, hash(&bytes));
        self.world.homes[to].inbox.push_back(bytes);
        self.run(to);
    }

    fn cast(&mut self, process: usize) {
        let (now, world) = (self.now, &mut self.world);
        let mut around = around!(world);
        if let Some(life) = world.homes[process].life.as_mut() {
            let mut group = life.endpoint.group(life.key);
            desk(now, &mut life.papers, &mut around).last_words(1, &mut group);
        }
    }

    fn accuse(&mut self, process: usize, whom: usize) {
        let gone = member(SEED, whom, 0).incarnation;
        if let Some(life) = self.world.homes[process].life.as_mut() {
            let mut group = life.endpoint.group(life.key);
            if let Some(rank) = group.view().rank_of(gone) {
                group.suspect(&RankSet::one(rank));
            }
        }
    }

    /// One iteration of a driver loop; what it sends is under way then.
    fn run(&mut self, process: usize) {
        let (now, processes) = (self.now, self.processes());
        self.note(process, now);
        let world = &mut self.world;
        if world.homes[process].life.is_none() {
            return;
        }
        let mut departures = std::mem::take(&mut world.departures);
        let mut around = around!(world);
        world.homes[process].iterate(now, &mut around, &mut departures);
        for (bytes, to) in departures.drain(..) {
            for to in (0..processes).filter(|other| to >> other & 1 == 1) {
                if world.homes[to].life.is_some() {
                    self.links[process * processes + to].push_back(bytes.clone());
                }
            }
        }
        world.departures = departures;
        if world.homes[process].is_over() {
            world.over(now, process);
        }
    }

    /// Something has come to a process.
    fn note(&mut self, process: usize, what: u64) {
        let inputs = &mut self.inputs[process];
        *inputs = splitmix(*inputs ^ what).wrapping_add(what);
    }

    /// What decides everything that can follow.
    fn state(&self) -> u64 {
        let budgets = [self.casts, self.crashes, self.disturbances].map(|left| left as u64);
        let mut state = 0;
        let mut enter = |word: u64| state = splitmix(state ^ word).wrapping_add(word);
        budgets.into_iter().chain(self.inputs.iter().copied()).for_each(&mut enter);
        [self.now, self.crashed, self.told].into_iter().for_each(&mut enter);
        for link in &self.links {
            enter(link.len() as u64);
            link.iter().for_each(|bytes| enter(hash(bytes)));
        }
        state
    }

    /// Everything takes its ordinary course from here; what came of it all.
    fn end(mut self) -> Outcome {
        let (now, processes) = (self.now, self.processes());
        let world = &mut self.world;
        let mut at = now;
        for (link, frames) in self.links.into_iter().enumerate() {
            for bytes in frames {
                at += GAP_NS;
                world.agenda.enter(at, Next::Arrive { to: (link % processes) as u32, bytes, damage: None });
            }
        }
        world.agenda.enter(at + GAP_NS, Next::Settle);
        for process in 0..processes {
            world.wakes.set(process, NEVER);
            world.homes[process].driver = world.setup.drivers[process];
            world.enter_wake(now, process);
        }
        let gives_up_at = at + world.setup.patience_ns;
        self.world.judged("explore", |world| world.go_on(gives_up_at))
    }
}

/// A hash of a frame.
fn hash(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        splitmix(hash ^ u64::from_le_bytes(word))
    })
}
