//! One run: homes, network and clock, through faults to a core that must become one view.

use std::collections::BTreeSet;
use std::rc::Rc;

use wadjet::id::{Incarnation, Rank, RankSet};
use wadjet::stack::event::ExitReason;
use wadjet::view::View;
use wadjet_oracle::{Measure, Promises, Traffic, What, check};

use crate::agenda::Agenda;
use crate::faults::Damage;
use crate::member::count_endpoint;
use crate::network::Network;
use crate::outcome::{Counters, Outcome, Streams, Violation};
use crate::random::{Random, splitmix};
use crate::scenario;
use crate::views::exclusions::by_lesser_parts;
use crate::views::expulsions;
use crate::views::home::{Around, Departure, Home, desk, group, member};
use crate::views::ledger::Ledger;
use crate::views::partings::partings;
use crate::views::setup::{Chaos, Fate, ViewsSetup};
use crate::views::wakes::{NEVER, Wakes};
use crate::world::caught;

/// What happens next.
enum Next {
    /// Bytes arrive at a process.
    Arrive { to: u32, bytes: Rc<[u8]>, damage: Option<Box<Damage>> },
    /// A process's driver loop runs: never on the agenda.
    Wake { process: usize },
    /// What the setup has planned, by its place there.
    Chaos { which: usize },
    /// A process begins another life.
    Begin { process: usize },
    /// The faults are over for the core.
    Settle,
    /// Is the core one view by now?
    Look,
}

/// Where the run has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Faults.
    Chaos,
    /// The core is to become one view.
    Gather,
    /// The core is one view since that time; some cast all they can, and what the others cast is to be delivered in bounded
    /// time all the same.
    Strain(u64),
    /// The core is one view, and is to deliver everything.
    Deliver,
    /// All was delivered at that time; a little later it must still be so.
    Quiet(u64),
}

impl Phase {
    /// Whether nobody casts of its own accord. Where who holds too much before the state is there leaves, and comes again, it never
    /// gets it while the others cast faster than that: they are to let up in the end.
    fn is_quiet(self, setup: &ViewsSetup) -> bool {
        match self {
            Phase::Chaos | Phase::Strain(_) => false,
            Phase::Gather => setup.sends_the_full_away(),
            Phase::Deliver | Phase::Quiet(_) => true,
        }
    }
}

/// How a run ended.
enum End {
    Quiet,
    Never(String),
}

/// Of a frame, at most.
const HEADERS_BYTES_MAX: u32 = 192;
/// How often the core is looked at.
const LOOK_NS: u64 = 500_000;
/// How long a cast may wait for its order while others cast all they can.
const STRAIN_NS_MAX: u64 = 500_000_000;
/// How long a run goes on after the last delivery: late copies must not come up.
const SETTLE_NS: u64 = 20_000_000;
/// More driver iterations than any sound run takes.
const ITERATIONS_MAX: u64 = 20_000_000;

/// Runs one seed in a world of the caller's making; with `narrate`, what layers counted is noted on the way.
pub fn run_views(seed: u64, scenario: &'static str, setup: ViewsSetup, narrate: bool) -> Outcome {
    let setup = setup.lived_in();
    World::new(seed, &setup, narrate).judged(scenario, World::live)
}

struct World<'w> {
    seed: u64,
    setup: &'w ViewsSetup,
    homes: Vec<Home>,
    living: Vec<Option<Incarnation>>,
    network: Network,
    agenda: Agenda<Next>,
    wakes: Wakes,
    ledger: Ledger,
    counters: Counters,
    departures: Vec<Departure>,
    phase: Phase,
    violations: Vec<Violation>,
    notes: Option<Vec<(usize, String)>>,
    /// Nobody who lives may be excluded, but who is deaf.
    gentle: bool,
    /// What is waited for while others cast all they can, once they have begun, and in which view: whose cast, and which.
    modest: Option<(wadjet_oracle::ViewId, Vec<(wadjet_oracle::Incarnation, u64)>)>,
    /// The view in which everybody of the core has said something last.
    marked: Option<wadjet_oracle::ViewId>,
    /// Those that were told to leave.
    leaving: BTreeSet<wadjet_oracle::Incarnation>,
}

macro_rules! around {
    ($world:expr) => {
        Around {
            seed: $world.seed,
            setup: $world.setup,
            ledger: &mut $world.ledger,
            work: &mut $world.counters.work,
            faults: &mut $world.counters.faults,
            living: &$world.living,
            quiet: $world.phase.is_quiet($world.setup),
            strained: matches!($world.phase, Phase::Strain(_)),
            notes: $world.notes.as_mut(),
        }
    };
}

mod explore;

pub use explore::{Bounds, Choice, Explored, Misstep, explore};

impl<'w> World<'w> {
    fn new(seed: u64, setup: &'w ViewsSetup, narrate: bool) -> World<'w> {
        let mut agenda = Agenda::new();
        for (which, (at, _)) in setup.chaos.iter().enumerate() {
            agenda.enter(*at, Next::Chaos { which });
        }
        World {
            seed,
            setup,
            homes: (0..setup.processes).map(|process| Home::new(seed, setup, process)).collect(),
            living: vec![None; setup.processes],
            network: Network::new(setup.processes, setup.faults.clone(), Random::new(seed, "network")),
            agenda,
            wakes: Wakes::new(setup.processes),
            ledger: Ledger::default(),
            counters: Counters::default(),
            departures: Vec::new(),
            phase: Phase::Chaos,
            violations: Vec::new(),
            notes: narrate.then(Vec::new),
            gentle: setup.is_gentle(),
            modest: None,
            marked: None,
            leaving: BTreeSet::new(),
        }
    }

    /// Lives, and is judged.
    fn judged(mut self, scenario: &'static str, live: impl FnOnce(&mut World<'w>) -> End) -> Outcome {
        let mut violations = Vec::new();
        let mut quiescent = false;
        match caught(|| live(&mut self)) {
            Ok(End::Quiet) => quiescent = true,
            Ok(End::Never(what)) => {
                let excerpt = self.homes.iter_mut().map(Home::describe).collect();
                violations.push(Violation { property: "liveness".into(), what, excerpt });
            }
            Err(message) => violations.push(Violation::of("panic", message)),
        }
        let panicked = violations.iter().any(|violation| violation.property == "panic");
        for home in &mut self.homes {
            if let Some(life) = home.life.as_mut() {
                life.papers.place(self.agenda.now(), u64::MAX, &mut self.ledger);
            }
        }
        // Whoever is not of the core is excused from what must hold in the end.
        let (at, setup) = (self.agenda.now(), self.setup);
        for home in self.homes.iter().filter(|home| setup.fates[home.process] != Fate::Core) {
            if let Some(life) = home.life.as_ref().filter(|life| life.papers.exited.is_none()) {
                self.ledger.push(at, life.papers.own, What::Crash);
            }
        }
        let promises = Promises {
            quiescent,
            stability_is_reported: quiescent && setup.load.stability,
            frame_bytes: match setup.has_layer("FRAG") {
                // With every header there may be.
                true => setup.frame_bytes as u32 - HEADERS_BYTES_MAX,
                false => u32::MAX,
            },
            ..Promises::reliable_fifo()
        };
        let mut promises = promises.of_stack(&setup.stack);
        // Who waits for the state holds what it delivers later.
        promises.held_is_delivered &= !setup.has_layer("XFER");
        // And does not deliver what it has acknowledged, if it dies before.
        promises.loss_is_told = !setup.has_layer("XFER");
        // Where nobody can read the state, who goes on without it does so beside those that have it.
        promises.one_state = !setup.goes_on_without_the_state() || self.counters.work.torn_states == 0;
        violations.extend(check(&self.ledger.history, &promises).into_iter().map(Violation::from));
        let (outcome, mut more) = self.finish(scenario, panicked, quiescent);
        violations.append(&mut more);
        Outcome { violations, ..outcome }
    }

    fn live(&mut self) -> End {
        self.agenda.enter(self.setup.span_ns, Next::Settle);
        if self.setup.together {
            let members = (0..self.setup.processes).map(|process| member(self.seed, process, 0)).collect();
            let view = View::fixed(group(), members, &self.setup.stack);
            for process in 0..self.setup.processes {
                self.begin(0, process, Some(view.clone()));
            }
        }
        self.go_on(self.setup.span_ns + self.setup.patience_ns)
    }

    /// What happens next: at one time what is on the agenda goes before driver loops.
    fn take_next(&mut self) -> Option<(u64, Next)> {
        let (at, process) = self.wakes.next();
        if let Some(next) = self.agenda.take_until(at) {
            return Some(next);
        }
        self.agenda.go_on_to(at);
        (at < NEVER).then_some((at, Next::Wake { process }))
    }

    /// What is on the agenda happens, and what follows from it, until all is quiet or it is `gives_up_at`.
    fn go_on(&mut self, gives_up_at: u64) -> End {
        while let Some((now, next)) = self.take_next() {
            match next {
                Next::Arrive { to, bytes, damage } => self.arrive(now, to as usize, bytes, damage),
                Next::Wake { process } => self.wake(now, process),
                Next::Chaos { which } => self.chaos(now, self.setup.chaos[which].1),
                Next::Begin { process } => self.begin_again(now, process),
                Next::Settle => self.settle(now),
                Next::Look => {
                    if let Some(end) = self.look(now) {
                        return end;
                    }
                    self.agenda.enter(now + LOOK_NS, Next::Look);
                }
            }
            if now > gives_up_at {
                let why = match self.phase {
                    Phase::Gather => "the core has not become one view".to_string(),
                    _ => self.unfinished().unwrap_or_else(|| "it does not become quiet".into()),
                };
                let after = self.setup.patience_ns as f64 / 1e9;
                return End::Never(format!("{after:.1} s after the last fault: {why}"));
            }
            if self.counters.work.iterations > ITERATIONS_MAX {
                return End::Never(format!("{ITERATIONS_MAX} iterations, and no end"));
            }
        }
        End::Never("nobody has anything left to do".into())
    }

    fn note(&mut self, now: u64, text: impl FnOnce() -> String) {
        if let Some(notes) = &mut self.notes {
            let line = format!("{:>12.6} ms  -- {}", now as f64 / 1e6, text());
            notes.push((self.ledger.history.events.len(), line));
        }
    }

    fn begin(&mut self, now: u64, process: usize, view: Option<View>) {
        self.note(now, || format!("p{process} begins a life"));
        let mut around = around!(self);
        self.homes[process].begin(now, view, &mut around);
        self.counters.faults.restarts += u64::from(self.homes[process].lives > 1);
        self.living[process] = self.homes[process].life.as_ref().map(|life| life.incarnation);
        self.enter_wake(now, process);
    }

    /// Begins a life where there is none, unless it is to stay so.
    fn begin_again(&mut self, now: u64, process: usize) {
        let allowed = self.phase == Phase::Chaos || self.setup.fates[process] == Fate::Core;
        if self.homes[process].life.is_none() && allowed {
            self.begin(now, process, None);
        }
    }

    fn end(&mut self, now: u64, process: usize) {
        let home = &mut self.homes[process];
        if let Some(life) = &home.life {
            count_endpoint(&life.endpoint, life.key, &mut self.counters.endpoint);
            for problem in &life.papers.problems {
                let what = format!("at {}: {problem}", life.papers.own);
                self.violations.push(Violation::of("problem", what));
            }
            for divergence in life.endpoint.divergences(life.key) {
                let what = format!("at {}: {divergence}", life.papers.own);
                self.violations.push(Violation::of("shadow", what));
            }
            for region in home.end() {
                let what = format!("frames of {region} region of p{process} never came back");
                self.violations.push(Violation::of("frames-return", what));
            }
        }
        self.living[process] = None;
        self.note(now, || format!("p{process} has no life any more"));
    }

    fn crash(&mut self, now: u64, process: usize) {
        let Some(life) = self.homes[process].life.as_mut() else { return };
        if life.papers.exited.is_none() {
            life.papers.place(now, u64::MAX, &mut self.ledger);
            self.ledger.push(now, life.papers.own, What::Crash);
        }
        self.counters.faults.crashes += 1;
        self.end(now, process);
    }

    /// It casts, and what it sends in this iteration reaches some of the others only.
    fn last_words(&mut self, now: u64, process: usize, casts: u32, reach: u64) {
        let home = &mut self.homes[process];
        let life =
            home.life.as_mut().filter(|life| life.papers.exited.is_none() && life.papers.view.is_some());
        let Some(life) = life.filter(|_| home.paused_until <= now) else { return };
        let mut around = around!(self);
        let mut group = life.endpoint.group(life.key);
        desk(now, &mut life.papers, &mut around).last_words(casts, &mut group);
        home.iterate(now, &mut around, &mut self.departures);
        self.departures.iter_mut().for_each(|(_, to)| *to &= reach);
        self.carry(now, process);
    }

    fn chaos(&mut self, now: u64, what: Chaos) {
        self.note(now, || format!("{what:?}"));
        match what {
            Chaos::Start { process } => self.begin_again(now, process),
            Chaos::Crash { process, back_ns } => {
                self.crash(now, process);
                if let Some(back) = back_ns {
                    self.agenda.enter(now + back, Next::Begin { process });
                }
            }
            Chaos::LastWords { process, casts, reach, back_ns } => {
                self.last_words(now, process, casts, reach);
                self.crash(now, process);
                self.agenda.enter(now + back_ns, Next::Begin { process });
            }
            Chaos::Leave { process, back_ns } => {
                let home = &mut self.homes[process];
                if let Some(life) = home.life.as_mut().filter(|life| life.papers.exited.is_none())
                    && home.paused_until <= now
                {
                    life.leaving = true;
                    life.papers.bound = false;
                    self.leaving.insert(life.papers.own);
                    home.back_ns = Some(back_ns);
                    life.endpoint.group(life.key).leave();
                    self.counters.faults.leaves += 1;
                    self.wake_soon(now, process);
                }
            }
            Chaos::Pause { process, length_ns } => {
                self.counters.faults.pauses += 1;
                let home = &mut self.homes[process];
                home.paused_until = home.paused_until.max(now + length_ns);
                self.enter_wake(now, process);
            }
            Chaos::Standstill { length_ns } => {
                self.counters.faults.standstills += 1;
                for process in 0..self.homes.len() {
                    let home = &mut self.homes[process];
                    home.paused_until = home.paused_until.max(now + length_ns);
                    self.enter_wake(now, process);
                }
            }
            Chaos::Accuse { process, whom } => {
                let home = &mut self.homes[process];
                if let Some(life) = home.life.as_mut().filter(|life| life.papers.exited.is_none())
                    && home.paused_until <= now
                {
                    let mut group = life.endpoint.group(life.key);
                    let whom = Rank::at(whom % group.view().size());
                    if whom != group.view().rank() {
                        group.suspect(&RankSet::one(whom));
                        self.counters.faults.accusations += 1;
                    }
                    self.wake_soon(now, process);
                }
            }
        }
    }

    /// Faults stop for the core; the rest stays broken.
    fn settle(&mut self, now: u64) {
        self.phase = Phase::Gather;
        self.note(now, || "the faults are over for the core".into());
        let fates = &self.setup.fates;
        let core = (0..self.setup.processes).filter(|process| fates[*process] == Fate::Core);
        self.network.heal_core(core.fold(0, |set, process| set | 1 << process));
        let whole = fates.iter().all(|fate| *fate == Fate::Core);
        self.counters.work.whole_cores += u64::from(whole);
        self.counters.work.part_cores += u64::from(!whole);
        for process in 0..self.setup.processes {
            match self.setup.fates[process] {
                Fate::Core => {
                    self.homes[process].paused_until = now;
                    self.begin_again(now, process);
                    self.wake_soon(now, process);
                }
                Fate::Crashed => self.crash(now, process),
                Fate::Apart => {}
                Fate::Stopped => self.homes[process].paused_until = u64::MAX,
            }
        }
        // To read slowly is a fault, too.
        let quick = self.setup.drivers.iter().min_by_key(|driver| driver.iteration_ns).copied();
        for home in self.homes.iter_mut().filter(|home| fates[home.process] == Fate::Core) {
            home.driver = quick.unwrap_or(home.driver);
        }
        self.agenda.enter(now + LOOK_NS, Next::Look);
    }

    /// The lives of the core, if each has one that is in the group for good.
    fn core(&self) -> Option<Vec<wadjet_oracle::Incarnation>> {
        let core = self.homes.iter().filter(|home| self.setup.fates[home.process] == Fate::Core);
        core.map(|home| {
            let life = home.life.as_ref()?;
            (life.papers.exited.is_none() && !life.leaving).then_some(life.papers.own)
        })
        .collect()
    }

    /// The views in which the core's members are, if each of them is in one.
    fn core_views(&self) -> Option<Vec<&(wadjet_oracle::ViewId, Vec<wadjet_oracle::Incarnation>)>> {
        let homes = self.homes.iter().filter(|home| self.setup.fates[home.process] == Fate::Core);
        homes.map(|home| home.life.as_ref().and_then(|life| life.papers.view.as_ref())).collect()
    }

    /// The core's view, if it is one of exactly its members.
    fn one_view(&self) -> Option<wadjet_oracle::ViewId> {
        let (views, together) = (self.core_views()?, self.is_together());
        let (first, _) = views.first()?;
        (together && views.iter().all(|(id, _)| id == first)).then_some(*first)
    }

    /// Whether each of the core is in a view of exactly its members, though it may be another one.
    fn is_together(&self) -> bool {
        let (Some(mut core), Some(views)) = (self.core(), self.core_views()) else { return false };
        core.sort_unstable();
        views.iter().all(|(_, members)| {
            let mut members = members.clone();
            members.sort_unstable();
            members == core
        })
    }

    /// What is still missing in the core's view.
    fn unfinished(&self) -> Option<String> {
        let core = self.core().unwrap_or_default();
        if let Some(lacking) = self.one_view().and_then(|view| self.ledger.lacking(&core, view)) {
            return Some(lacking);
        }
        let homes = self.homes.iter().filter(|home| self.setup.fates[home.process] == Fate::Core);
        homes
            .filter_map(|home| {
                let life = home.life.as_ref()?;
                let stats = life.endpoint.stats(life.key);
                let (own, postponed) = (life.papers.own, life.papers.postponed());
                if postponed > 0 {
                    Some(format!("{own} is not told that it can cast again"))
                } else if stats.waiting > 0 {
                    Some(format!("casts wait at {own}"))
                } else if stats.retained > 0 {
                    Some(format!("frames are retained at {own}"))
                } else if home.overdue() > 0 {
                    Some(format!("frames of past views are still out at {own}"))
                } else {
                    None
                }
            })
            .next()
    }

    fn look(&mut self, now: u64) -> Option<End> {
        if let Phase::Strain(since) = self.phase {
            self.look_at_strain(now, since);
            return None;
        }
        let Some(view) = self.one_view() else {
            // Where numbers run out views of the same members follow each other, until what waits has gone out: to that nothing
            // is added.
            let delivers = matches!(self.phase, Phase::Deliver | Phase::Quiet(_)) && self.is_together();
            self.phase = if delivers { Phase::Deliver } else { Phase::Gather };
            return None;
        };
        match self.phase {
            Phase::Gather => {
                self.note(now, || "the core is one view".into());
                let greedy = self.core_processes().filter(|process| self.setup.is_greedy(*process)).count();
                if self.modest.is_none() && greedy > 0 && greedy < self.core_processes().count() {
                    self.strain(now);
                } else {
                    self.mark_all(now);
                }
            }
            Phase::Deliver | Phase::Quiet(_) if self.unfinished().is_some() => self.phase = Phase::Deliver,
            // The last of those views must deliver something, too.
            Phase::Deliver if self.marked != Some(view) => self.mark_all(now),
            Phase::Deliver => self.phase = Phase::Quiet(now),
            Phase::Quiet(since) if now > since + SETTLE_NS => {
                self.ask_for_stability(now);
                return Some(End::Quiet);
            }
            Phase::Quiet(_) | Phase::Chaos | Phase::Strain(_) => {}
        }
        None
    }

    fn core_processes(&self) -> impl Iterator<Item = usize> + use<'w> {
        let setup = self.setup;
        (0..setup.processes).filter(|process| setup.fates[*process] == Fate::Core)
    }

    /// Everybody says something, and nothing more after that.
    fn mark_all(&mut self, now: u64) {
        (self.phase, self.marked) = (Phase::Deliver, self.one_view());
        self.core_processes().for_each(|process| self.mark(now, process));
    }

    /// From now on the greedy cast all they can; the others have something to say, too.
    fn strain(&mut self, now: u64) {
        self.phase = Phase::Strain(now);
        self.counters.work.strains += 1;
        let (setup, mut modest) = (self.setup, Vec::new());
        for process in self.core_processes().filter(|process| !setup.is_greedy(*process)) {
            self.mark(now, process);
            if let Some(life) = &self.homes[process].life {
                let own = life.papers.own;
                modest.push((own, self.ledger.next(own, Traffic::Cast) - 1));
            }
        }
        self.modest = self.one_view().map(|view| (view, modest));
        self.core_processes().for_each(|process| self.wake_soon(now, process));
    }

    /// Whether what the others cast is delivered everywhere by now.
    fn look_at_strain(&mut self, now: u64, since: u64) {
        let Some((view, modest)) = &self.modest else { return };
        if self.one_view() != Some(*view) {
            // A fault came to light late: what was cast may have gone out in a view of others.
            (self.phase, self.modest) = (Phase::Gather, None);
            return;
        }
        let core = self.core().unwrap_or_default();
        let waits = |(origin, cast): &&(wadjet_oracle::Incarnation, u64)| {
            core.iter().any(|member| self.ledger.last_cast_delivered(*member, *origin) < *cast)
        };
        let late = modest.iter().find(waits);
        if let Some((origin, cast)) = late.filter(|_| now > since + STRAIN_NS_MAX) {
            let what = format!(
                "cast {origin}#{cast} is not delivered everywhere {} ms after it was issued, while others cast all they can",
                STRAIN_NS_MAX / 1_000_000
            );
            self.violations.push(Violation::of("bounded-waiting", what));
            self.mark_all(now);
        } else if late.is_none() {
            self.mark_all(now);
        }
    }

    fn mark(&mut self, now: u64, process: usize) {
        let mut around = around!(self);
        if let Some(life) = self.homes[process].life.as_mut() {
            let mut group = life.endpoint.group(life.key);
            desk(now, &mut life.papers, &mut around).mark(&mut group);
        }
        self.wake_soon(now, process);
    }

    /// Enters what every endpoint of the core says of stability in the end.
    fn ask_for_stability(&mut self, now: u64) {
        if !self.setup.load.stability {
            return;
        }
        for process in 0..self.setup.processes {
            let mut around = around!(self);
            // Who has left and stands still since says no more.
            let life = self.homes[process].life.as_mut();
            if let Some(life) = life.filter(|life| life.papers.exited.is_none()) {
                let stability = life.endpoint.group(life.key).stability();
                desk(now, &mut life.papers, &mut around).report_stability(&stability);
            }
        }
    }

    fn arrive(&mut self, now: u64, to: usize, bytes: Rc<[u8]>, damage: Option<Box<Damage>>) {
        let home = &mut self.homes[to];
        if home.life.is_none() {
            return;
        }
        if home.inbox.len() >= home.driver.inbox_frames_max {
            self.counters.faults.overflowed += 1;
            return;
        }
        let bytes = match damage {
            Some(damage) => {
                let mut changed = bytes.to_vec();
                damage.apply(&mut changed, self.setup.frame_bytes.max(bytes.len()));
                changed.into()
            }
            None => bytes,
        };
        home.inbox.push_back(bytes);
        if home.busy_until <= now && home.paused_until <= now {
            self.wake(now, to);
        } else {
            // As soon as it can, whatever else it has to do.
            let due = home.busy_until.max(home.paused_until);
            self.wakes.set_sooner(to, due);
        }
    }

    /// Something was done to it from outside its loop.
    fn wake_soon(&mut self, now: u64, process: usize) {
        let home = &self.homes[process];
        let due = now.max(home.busy_until).max(home.paused_until);
        let entered = self.wakes.due(process);
        if due < entered || entered < now {
            self.wakes.set(process, due);
        }
    }

    fn wake(&mut self, now: u64, process: usize) {
        self.wakes.set(process, NEVER);
        if self.homes[process].paused_until <= now {
            let mut around = around!(self);
            self.homes[process].iterate(now, &mut around, &mut self.departures);
            self.carry(now, process);
            if self.homes[process].is_over() {
                self.over(now, process);
            }
        }
        self.enter_wake(now, process);
    }

    /// The group is over for the life that is lived there: another one follows.
    fn over(&mut self, now: u64, process: usize) {
        let life = self.homes[process].life.as_ref();
        let exited = life.and_then(|life| life.papers.exited.map(|reason| (life.papers.own, reason)));
        // Those who are cut off from the core in the end are excluded with reason.
        let within = self.phase == Phase::Chaos || self.setup.fates[process] == Fate::Core;
        let within = within && self.setup.deaf != Some(process);
        if let Some((own, reason @ ExitReason::Excluded { .. })) = exited
            && within
            && self.gentle
        {
            let what = format!("{own} lived and was heard all the time, and is out of its group: {reason}");
            self.violations.push(Violation::of("undue-exclusion", what));
        }
        if let Some((own, ExitReason::NoState)) = exited {
            self.leaving.insert(own);
        }
        self.end(now, process);
        let home = &mut self.homes[process];
        let back = home.back_ns.take().unwrap_or_else(|| home.random.scaled(100_000, 50_000_000));
        self.agenda.enter(now + back, Next::Begin { process });
    }

    /// Hands what `from` submitted to the network.
    fn carry(&mut self, now: u64, from: usize) {
        for (bytes, to) in self.departures.drain(..) {
            let mut left = to;
            while left != 0 {
                let to = left.trailing_zeros() as usize;
                left &= left - 1;
                let (network, counters, agenda) = (&mut self.network, &mut self.counters, &mut self.agenda);
                network.carry(from, to, now, &mut counters.faults, &mut |arrival| {
                    let bytes = bytes.clone();
                    let (to, damage) = (to as u32, arrival.damage.map(Box::new));
                    agenda.enter(arrival.at, Next::Arrive { to, bytes, damage });
                });
            }
        }
    }

    /// Enters the process's next iteration, if it is sooner than the one entered.
    fn enter_wake(&mut self, now: u64, process: usize) {
        let Some(due) = self.homes[process].due(now) else { return };
        self.wakes.set_sooner(process, due.max(now));
    }

    /// Takes the world apart: its outcome, and what was found wrong on the way.
    fn finish(
        mut self,
        scenario: &'static str,
        panicked: bool,
        quiescent: bool,
    ) -> (Outcome, Vec<Violation>) {
        let now = self.agenda.now();
        if panicked {
            std::mem::forget(std::mem::take(&mut self.homes));
        } else {
            for process in 0..self.setup.processes {
                if quiescent && self.homes[process].life.is_none() && self.setup.fates[process] == Fate::Core
                {
                    self.violations.push(Violation::of("liveness", format!("p{process} has no life")));
                }
                self.end(now, process);
            }
        }
        let mut counters = self.counters;
        counters.work.runs = 1;
        counters.work.views_runs = 1;
        counters.work.accelerated_runs = u64::from(self.setup.accelerated);
        counters.work.partly_accelerated_runs =
            u64::from(self.setup.accelerated && self.setup.without_plans != 0);
        counters.work.packing_runs = u64::from(self.setup.packing);
        counters.work.shadow_runs = u64::from(self.setup.shadow);
        counters.work.microseconds = now / 1000;
        let history = std::mem::take(&mut self.ledger.history);
        if self.setup.delays_nobody_else() {
            let hindered = |process: u32, caster: u32, from: u64, until: u64| {
                self.setup.hinders(process as usize, caster as usize, from, until)
            };
            let Ledger { expulsions, suspicions, .. } = &self.ledger;
            let undue = expulsions::undue(&history, expulsions, suspicions, hindered).into_iter();
            self.violations.extend(undue.map(|what| Violation::of("undue-expulsion", what)));
            if quiescent {
                let heard = |since: u64| !self.setup.parts_anybody(since, u64::MAX);
                let untold = expulsions::untold(&history, &self.ledger.expulsions, self.setup.span_ns, heard)
                    .into_iter();
                self.violations.extend(untold.map(|what| Violation::of("untold-expulsion", what)));
            }
        }
        let excluded = by_lesser_parts(&history, &self.ledger.exclusions).into_iter();
        self.violations.extend(excluded.map(|what| Violation::of("lesser-part", what)));
        if self.gentle {
            // In the end some are cut off from the core for good.
            let (span, fates) = (self.setup.span_ns, &self.setup.fates);
            let bound = |at: u64, process: u32| {
                let deaf = self.setup.deaf == Some(process as usize);
                !deaf && (at < span || fates[process as usize] == Fate::Core)
            };
            let parted = partings(&history, &self.leaving, bound).into_iter();
            self.violations.extend(parted.map(|what| Violation::of("undue-parting", what)));
        }
        let outcome = Outcome {
            seed: self.seed,
            scenario,
            world: scenario::World::Views(Box::new(self.setup.clone())),
            violations: Vec::new(),
            digest: digest(&history),
            counters,
            history,
            streams: Streams::new(),
            notes: self.notes.unwrap_or_default(),
        };
        (outcome, self.violations)
    }
}

/// A hash of all that happened.
fn digest(history: &wadjet_oracle::History) -> u64 {
    let mut digest = 0;
    let mut enter = |word: u64| digest = splitmix(digest ^ word).wrapping_add(word);
    for event in &history.events {
        enter(event.at);
        enter(event.member.0);
        match &event.what {
            What::View { view, members, transitional } => {
                enter(view.counter << 1 | u64::from(*transitional));
                enter(view.coordinator.0);
                members.iter().for_each(|member| enter(member.0));
            }
            What::CastIssued { sequence, content, .. } | What::SendIssued { sequence, content, .. } => {
                enter(*sequence);
                enter(content.hash);
            }
            What::CastDelivered { origin, sequence, content, .. } => {
                enter(origin.0 << 8 | Traffic::Cast as u64);
                enter(*sequence ^ content.hash);
            }
            What::SendDelivered { origin, sequence, content, .. } => {
                enter(origin.0 << 8 | Traffic::Send as u64);
                enter(*sequence ^ content.hash);
            }
            What::Seen { origin, through } => enter(origin.0 << 32 | through),
            What::Stable { measure, origin, through, members } => {
                enter(origin.0 << 32 | through);
                enter(u64::from(*members) << 1 | u64::from(*measure == Measure::Held));
            }
            What::CastPlaced { sequence, view } => enter(*sequence ^ view.counter << 32),
            What::Start { process } => enter(u64::from(*process)),
            What::State { view, digest, .. } => enter(view.counter ^ digest),
            What::Passed { view, .. } => enter(view.counter << 2),
            What::SendsLost { to } => enter(to.0 << 3),
            What::CastRefused { .. } | What::SendRefused { .. } | What::Crash | What::Exit { .. } => enter(1),
        }
    }
    digest
}
