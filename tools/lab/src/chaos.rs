//! Chaos with real processes: faults at random times, also in the middle of view changes; the histories are judged
//! afterwards.
//!
//! A run has chapters, so that no history grows without bound: each is a new group, a number of faults in an order and
//! at times that the seed draws, then peace, in which all must come together and deliver everything, and the verdict.
//! The seed draws the faults, not what becomes of them: real processes do not repeat.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wadjet_bench::histogram::{Latencies, LatencySummary};
use wadjet_bench::machine::Machine;

use crate::clock;
use crate::crew::{Crew, CrewOptions};
use crate::failure::Dice;
use crate::hosts::{Hosts, label_of_this_process};
use crate::judge::{self, Verdict};
use crate::seat::{Carrier, Extras, Load, Order, Waiting};

/// How many faults of which kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Members killed (SIGKILL) and started anew as new incarnations.
    pub kills: u32,
    /// Members stopped (SIGSTOP) and continued.
    pub stops: u32,
    /// Ports of the bridge taken down, and up again.
    pub partitions: u32,
    /// Times in which the bridge loses packets.
    pub losses: u32,
}

impl Faults {
    /// All together.
    pub fn count(&self) -> u32 {
        self.kills + self.stops + self.partitions + self.losses
    }
}

/// What is done to whom.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Over what.
    pub carrier: Carrier,
    /// The stack.
    pub stack: String,
    /// Members.
    pub members: usize,
    /// Faults.
    pub faults: Faults,
    /// Casts of each member per second.
    pub rate: u32,
    /// Bytes of a cast.
    pub bytes: usize,
    /// What members do beside casting.
    pub extras: Extras,
    /// Faults of a chapter.
    pub chapter: u32,
    /// Draws.
    pub seed: u64,
    /// The program that has the members' hidden command.
    pub program: PathBuf,
    /// Where histories are written. Those of chapters without a violation are removed.
    pub directory: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChaosRun {
    /// Over what.
    pub transport: Carrier,
    /// The stack.
    pub stack: String,
    /// Members.
    pub members: usize,
    /// Faults made.
    pub faults: Faults,
    /// The seed.
    pub seed: u64,
    /// Chapters.
    pub chapters: u32,
    /// Lives of members.
    pub lives: usize,
    /// Views installed by anybody.
    pub views: usize,
    /// Casts issued.
    pub casts: usize,
    /// Casts delivered, all members together.
    pub delivered: usize,
    /// Sends delivered.
    pub sends: usize,
    /// States with which members began a view, which were compared.
    pub states: usize,
    /// From the end of some faults until all are in one view again, in nanoseconds.
    pub together_ns: LatencySummary,
    /// The slowest of these, the slowest first.
    #[serde(default)]
    pub slowest: Vec<Reunion>,
    /// What the oracle found, in words, and where the histories are.
    pub violations: Vec<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What went wrong otherwise.
    pub error: Option<String>,
}

/// How all came together again after some faults.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reunion {
    /// From the end of the faults until all are in one view, in nanoseconds.
    pub together_ns: u64,
    /// In which chapter, and how long after the beginning of the run the faults ended, in seconds.
    pub chapter: u32,
    /// See there.
    pub at_s: f64,
    /// What had been done: faults since all were together before, in order.
    pub faults: Vec<String>,
    /// What was done, what members said, and who was in which view, by place and life: since all were together before,
    /// in milliseconds before and after the end of the faults.
    pub story: Vec<String>,
}

impl Reunion {
    /// In one line.
    fn line(&self) -> String {
        let faults = if self.faults.is_empty() { "the start".to_owned() } else { self.faults.join(", ") };
        format!(
            "{:.0} ms after {faults} (chapter {}, {:.1} s after the beginning)",
            self.together_ns as f64 / 1e6,
            self.chapter,
            self.at_s
        )
    }
}

/// The report of `wadjet chaos`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChaosReport {
    /// The machine.
    pub machine: Machine,
    /// The command line.
    pub command: String,
    /// One run per transport.
    pub chaos: Vec<ChaosRun>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Stop,
    Partition,
    Loss,
}

/// What will be put right, and when.
#[derive(Clone, Copy, Debug)]
enum Mend {
    Start(usize),
    Continue(usize),
    Port(usize),
    Loss,
}

/// Runs all chapters.
///
/// # Errors
/// If hosts or histories cannot be made. What goes wrong in a chapter stands in the run's `error`.
pub fn run(plan: &Plan) -> Result<ChaosRun, Box<dyn Error>> {
    let begun = Instant::now();
    let label = label_of_this_process("chaos");
    let bridged = plan.faults.partitions + plan.faults.losses > 0 || plan.carrier.needs_hosts();
    let mut hosts = if bridged { Some(Hosts::up(&label, plan.members)?) } else { None };
    // What is measured is how long the group takes, not how long kernels take to ask for addresses.
    hosts.iter().try_for_each(Hosts::introduce)?;
    let mut dice = Dice::new(plan.seed);
    let mut kinds = shuffled(&plan.faults, &mut dice);
    let mut run = ChaosRun {
        transport: plan.carrier,
        stack: plan.stack.clone(),
        members: plan.members,
        faults: Faults::default(),
        seed: plan.seed,
        chapters: 0,
        lives: 0,
        views: 0,
        casts: 0,
        delivered: 0,
        sends: 0,
        states: 0,
        together_ns: LatencySummary::default(),
        slowest: Vec::new(),
        violations: Vec::new(),
        seconds: 0.0,
        error: None,
    };
    let mut together = Latencies::new();
    while !kinds.is_empty() {
        let rest = kinds.split_off(kinds.len().min(plan.chapter.max(1) as usize));
        let faults = std::mem::replace(&mut kinds, rest);
        run.chapters += 1;
        let directory = plan.directory.join(format!("chapter-{}", run.chapters));
        std::fs::create_dir_all(&directory)?;
        let mut chapter = Chapter {
            plan,
            dice: &mut dice,
            hosts: hosts.as_mut(),
            mends: Vec::new(),
            begun,
            faults: Vec::new(),
            run: &mut run,
            together: &mut together,
        };
        let group = format!("{label}-{}", chapter.run.chapters);
        let outcome = chapter.play(&group, &faults, &directory);
        let verdict =
            outcome.and_then(|rested| judge::judge(&judge::files_of(&directory)?, &plan.stack, rested));
        match verdict {
            Ok(verdict) => enter(&mut run, &verdict, &directory)?,
            Err(error) => {
                // What was written so far may say more than that the group did not come together.
                let verdict = judge::judge(&judge::files_of(&directory)?, &plan.stack, false)?;
                enter_violations(&mut run, &verdict, &directory);
                run.error = Some(format!("{error}\nhistories: {}", directory.display()));
                break;
            }
        }
    }
    run.together_ns = together.summary();
    run.seconds = begun.elapsed().as_secs_f64();
    Ok(run)
}

fn enter(run: &mut ChaosRun, verdict: &Verdict, directory: &Path) -> Result<(), Box<dyn Error>> {
    run.lives += verdict.lives;
    run.views += verdict.views;
    run.casts += verdict.casts;
    run.delivered += verdict.delivered;
    run.sends += verdict.sends;
    run.states += verdict.states;
    enter_violations(run, verdict, directory);
    if verdict.violations.is_empty() {
        std::fs::remove_dir_all(directory)?;
    }
    Ok(())
}

fn enter_violations(run: &mut ChaosRun, verdict: &Verdict, directory: &Path) {
    let told = verdict.violations.iter();
    run.violations.extend(told.map(|violation| format!("{violation}histories: {}\n", directory.display())));
}

fn shuffled(faults: &Faults, dice: &mut Dice) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for (kind, count) in [
        (Kind::Kill, faults.kills),
        (Kind::Stop, faults.stops),
        (Kind::Partition, faults.partitions),
        (Kind::Loss, faults.losses),
    ] {
        kinds.extend((0..count).map(|_| kind));
    }
    for at in (1..kinds.len()).rev() {
        kinds.swap(at, dice.below(at as u64 + 1) as usize);
    }
    kinds
}

struct Chapter<'c> {
    plan: &'c Plan,
    dice: &'c mut Dice,
    hosts: Option<&'c mut Hosts>,
    mends: Vec<(Instant, Mend)>,
    /// When the run began.
    begun: Instant,
    /// Faults since all were together.
    faults: Vec<String>,
    run: &'c mut ChaosRun,
    together: &'c mut Latencies,
}

impl Chapter<'_> {
    /// Whether the chapter ended at rest.
    fn play(&mut self, group: &str, faults: &[Kind], directory: &Path) -> Result<bool, Box<dyn Error>> {
        let options = CrewOptions {
            carrier: self.plan.carrier,
            stack: self.plan.stack.clone(),
            members: self.plan.members,
            load: Load::Rate(self.plan.rate),
            bytes: self.plan.bytes,
            extras: self.plan.extras,
            waiting: Waiting::Park,
            histories: Some(directory.to_owned()),
            life: LIFE + FAULT_MAX * faults.len() as u32,
        };
        // The crew looks at the hosts, the chapter changes them: a second handle that removes nothing.
        let hosts = self.hosts.as_ref().map(|hosts| hosts.alias());
        let mut crew = Crew::new(options, &self.plan.program, group, hosts.as_ref())?;
        let outcome = self.act(&mut crew, faults);
        crew.end();
        judge::write_conductor(directory, &crew.killed)?;
        outcome
    }

    fn act(&mut self, crew: &mut Crew<'_>, faults: &[Kind]) -> Result<bool, Box<dyn Error>> {
        (0..self.plan.members).try_for_each(|at| crew.start(at))?;
        self.meet(crew)?;
        for (at, kind) in faults.iter().enumerate() {
            let pause = self.pause();
            self.wait(crew, pause)?;
            self.make(crew, *kind)?;
            if at % PEACE_EVERY == PEACE_EVERY - 1 {
                self.peace(crew)?;
            }
        }
        let begun = Instant::now();
        while begun.elapsed() < TOGETHER_MAX {
            self.peace(crew)?;
            if crew.settle(REST_MAX)? {
                return crew.close(REST_MAX);
            }
        }
        Err(format!("the group does not stay together:\n{}", crew.describe()).into())
    }

    /// Every second fault comes into what the one before has set off.
    fn pause(&mut self) -> Duration {
        match self.dice.below(4) {
            0 => Duration::from_micros(self.dice.below(20_000)),
            1 => Duration::from_micros(self.dice.below(60_000)),
            _ => Duration::from_millis(60 + self.dice.below(200)),
        }
    }

    /// Lets time pass, in which faults are mended when they are due, and who is out starts anew.
    fn wait(&mut self, crew: &mut Crew<'_>, time: Duration) -> Result<(), Box<dyn Error>> {
        let end = Instant::now() + time;
        loop {
            let now = Instant::now();
            let due = self.mends.iter().position(|(when, _)| *when <= now);
            if let Some(due) = due {
                let (_, mend) = self.mends.swap_remove(due);
                self.mend(crew, mend)?;
                continue;
            }
            self.revive(crew)?;
            if now >= end {
                return Ok(());
            }
            let next = self.mends.iter().map(|(when, _)| *when).min().unwrap_or(end).min(end);
            let step = next.saturating_duration_since(now).min(LOOK);
            crew.pass(step);
        }
    }

    /// Starts anew who was excluded and ended; who was killed waits for its time.
    fn revive(&self, crew: &mut Crew<'_>) -> Result<(), Box<dyn Error>> {
        let waits =
            |at: usize| self.mends.iter().any(|(_, mend)| matches!(mend, Mend::Start(one) if *one == at));
        for at in 0..self.plan.members {
            if let Some(why) = &crew.places[at].life.failed {
                return Err(format!("member {at} failed: {why}").into());
            }
            if !crew.lives(at) && !crew.places[at].stopped && !waits(at) {
                crew.start(at)?;
            }
        }
        Ok(())
    }

    fn later(&mut self, least: u64, most: u64, mend: Mend) {
        let after = Duration::from_millis(least + self.dice.below(most - least));
        self.mends.push((Instant::now() + after, mend));
    }

    fn make(&mut self, crew: &mut Crew<'_>, kind: Kind) -> Result<(), Box<dyn Error>> {
        let victim = self.victim(crew, kind);
        match (kind, victim) {
            (Kind::Kill, Some(victim)) => {
                crew.kill(victim)?;
                self.note(crew, format!("kill of {victim}"));
                // Whatever else it waited for, it does no more.
                self.mends.retain(|(_, mend)| !matches!(mend, Mend::Continue(one) if *one == victim));
                self.later(1, 300, Mend::Start(victim));
                self.run.faults.kills += 1;
            }
            (Kind::Stop, Some(victim)) => {
                crew.stop(victim)?;
                self.note(crew, format!("stop of {victim}"));
                self.later(1, 500, Mend::Continue(victim));
                self.run.faults.stops += 1;
            }
            (Kind::Partition, Some(victim)) => {
                self.hosts()?.set_port(victim + 1, false)?;
                self.note(crew, format!("port of {victim} down"));
                self.later(1, 600, Mend::Port(victim));
                self.run.faults.partitions += 1;
            }
            (Kind::Loss, _) => {
                let permille = 10 + self.dice.below(250) as u32;
                self.hosts()?.set_loss(permille)?;
                self.note(crew, format!("loss of {permille} permille"));
                self.mends.retain(|(_, mend)| !matches!(mend, Mend::Loss));
                self.later(50, 500, Mend::Loss);
                self.run.faults.losses += 1;
            }
            // Nobody is left to whom it could happen: peace first, then again.
            (_, None) => {
                self.peace(crew)?;
                self.victim(crew, kind).ok_or("in peace there is nobody to whom a fault could happen")?;
                self.make(crew, kind)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, crew: &mut Crew<'_>, fault: String) {
        crew.note(fault.clone());
        self.faults.push(fault);
    }

    fn hosts(&mut self) -> Result<&mut Hosts, Box<dyn Error>> {
        Ok(self.hosts.as_deref_mut().ok_or("this needs test hosts")?)
    }

    fn victim(&mut self, crew: &Crew<'_>, kind: Kind) -> Option<usize> {
        let cut_off =
            |at: usize| self.mends.iter().any(|(_, mend)| matches!(mend, Mend::Port(one) if *one == at));
        let may = |at: &usize| match kind {
            Kind::Kill => crew.lives(*at),
            Kind::Stop => crew.lives(*at) && !crew.places[*at].stopped,
            Kind::Partition => !cut_off(*at),
            Kind::Loss => true,
        };
        let candidates: Vec<usize> = (0..self.plan.members).filter(may).collect();
        let at = self.dice.below(candidates.len() as u64) as usize;
        candidates.get(at).copied()
    }

    fn mend(&mut self, crew: &mut Crew<'_>, mend: Mend) -> Result<(), Box<dyn Error>> {
        match mend {
            Mend::Start(at) => crew.start(at)?,
            Mend::Continue(at) => drop(crew.go_on(at)?),
            Mend::Port(at) => self.hosts()?.set_port(at + 1, true)?,
            Mend::Loss => self.hosts()?.set_loss(0)?,
        }
        crew.note(match mend {
            Mend::Start(at) => format!("{at} started anew"),
            Mend::Continue(at) => format!("{at} continued"),
            Mend::Port(at) => format!("port of {at} up"),
            Mend::Loss => "no loss".to_owned(),
        });
        Ok(())
    }

    /// Mends everything; then all must come together.
    fn peace(&mut self, crew: &mut Crew<'_>) -> Result<(), Box<dyn Error>> {
        for (_, mend) in std::mem::take(&mut self.mends) {
            self.mend(crew, mend)?;
        }
        self.meet(crew)
    }

    fn meet(&mut self, crew: &mut Crew<'_>) -> Result<(), Box<dyn Error>> {
        let (begun, end_of_faults) = (Instant::now(), clock::now());
        let all: Vec<usize> = (0..self.plan.members).collect();
        let mut ask = ASK_FIRST;
        while begun.elapsed() < TOGETHER_MAX {
            self.revive(crew)?;
            if crew.until(LOOK, |crew| crew.together(&all)) {
                self.met(crew, begun, end_of_faults);
                return Ok(());
            }
            if begun.elapsed() >= ask {
                ask *= 2;
                all.iter().for_each(|at| crew.tell(*at, Order::Tell));
            }
        }
        self.met(crew, begun, end_of_faults);
        Err(format!("after {TOGETHER_MAX:?} without a fault the group is not together:\n{}", crew.describe())
            .into())
    }

    /// Notes how long that took, and if it was long how it went.
    fn met(&mut self, crew: &mut Crew<'_>, begun: Instant, end_of_faults: u64) {
        let together_ns = begun.elapsed().as_nanos() as u64;
        self.together.record(together_ns);
        let (story, faults) = (crew.take_story(), std::mem::take(&mut self.faults));
        let slowest = &mut self.run.slowest;
        let at = slowest.partition_point(|slower| slower.together_ns >= together_ns);
        if at >= SLOWEST_MAX {
            return;
        }
        let line = |(at, what): &(u64, String)| {
            let after_ms = (*at as i64 - end_of_faults as i64) as f64 / 1e6;
            format!("{after_ms:+.1} ms: {what}")
        };
        let reunion = Reunion {
            together_ns,
            chapter: self.run.chapters,
            at_s: begun.duration_since(self.begun).as_secs_f64(),
            faults,
            story: story.iter().map(line).collect(),
        };
        slowest.insert(at, reunion);
        slowest.truncate(SLOWEST_MAX);
    }
}

/// A member that is stopped while it casts, survivors that go on without it, and its return to a group that is under
/// load: what it casts into the old view then must not change what was forwarded for it, nor reach anybody.
///
/// # Errors
/// If the group does not do what it must, or the oracle finds a violation.
pub fn stopped_sender(plan: &Plan, rounds: usize) -> Result<Verdict, Box<dyn Error>> {
    std::fs::create_dir_all(&plan.directory)?;
    let options = CrewOptions {
        carrier: plan.carrier,
        stack: plan.stack.clone(),
        members: plan.members,
        load: Load::Rate(plan.rate),
        bytes: plan.bytes,
        extras: plan.extras,
        waiting: Waiting::Park,
        histories: Some(plan.directory.clone()),
        life: LIFE + FAULT_MAX * rounds as u32,
    };
    let group = format!("stopped-sender-{}", std::process::id());
    let mut crew = Crew::new(options, &plan.program, &group, None)?;
    let all: Vec<usize> = (0..plan.members).collect();
    let meet = |crew: &mut Crew<'_>, whom: &[usize]| -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        while begun.elapsed() < TOGETHER_MAX {
            crew.revive(whom)?;
            if crew.until(LOOK, |crew| crew.together(whom)) {
                return Ok(());
            }
        }
        Err(format!("not together:\n{}", crew.describe()).into())
    };
    let mut play = || -> Result<bool, Box<dyn Error>> {
        let mut dice = Dice::new(plan.seed);
        for round in 0..rounds {
            meet(&mut crew, &all)?;
            crew.pass(Duration::from_millis(30) + Duration::from_micros(dice.below(5000)));
            let victim = round % plan.members;
            let survivors: Vec<usize> = all.iter().copied().filter(|at| *at != victim).collect();
            crew.stop(victim)?;
            meet(&mut crew, &survivors)?;
            // The survivors' rings go round meanwhile.
            crew.pass(Duration::from_millis(dice.below(200)));
            crew.go_on(victim)?;
        }
        meet(&mut crew, &all)?;
        let settled = crew.settle(REST_MAX)?;
        Ok(settled && crew.close(REST_MAX)?)
    };
    let outcome = play();
    crew.end();
    judge::write_conductor(&plan.directory, &crew.killed)?;
    judge::judge(&judge::files_of(&plan.directory)?, &plan.stack, outcome?)
}

/// The figures as tables of markdown, one for each stack.
pub fn table(runs: &[ChaosRun]) -> String {
    let mut text = String::new();
    let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
    let mut stack = None;
    for run in runs {
        if stack.replace(&run.stack) != Some(&run.stack) {
            text += &format!("{}`{}`\n\n", if text.is_empty() { "" } else { "\n" }, run.stack);
            text += HEAD;
        }
        let Faults { kills, stops, partitions, losses } = run.faults;
        text += &format!(
            "| {} | {} | {kills} | {stops} | {partitions} | {losses} | {} | {} | {} | {} | {} | {} | {:.0} / {:.0} | {} |\n",
            run.transport.name(),
            run.members,
            run.lives,
            run.views,
            run.casts,
            run.delivered,
            run.sends,
            run.states,
            ms(run.together_ns.p50),
            ms(run.together_ns.max),
            run.violations.len()
        );
    }
    for run in runs {
        if let Some(slowest) = run.slowest.first() {
            text += &format!("\nSlowest over {}: {}.\n", run.transport.name(), slowest.line());
        }
        run.violations.iter().chain(&run.error).for_each(|what| text += &format!("\n{what}\n"));
    }
    text
}

/// How those went that took long enough for somebody to ask.
pub fn stories(runs: &[ChaosRun]) -> String {
    let long = |reunion: &&Reunion| u128::from(reunion.together_ns) >= ASK_FIRST.as_nanos();
    let slow = runs.iter().flat_map(|run| run.slowest.iter().filter(long));
    slow.map(|reunion| format!("\n{}\n  {}\n", reunion.line(), reunion.story.join("\n  "))).collect()
}

const HEAD: &str = "\
| transport | members | kills | stops | partitions | lossy times | lives | views | casts | deliveries | sends delivered \
| states compared | all together again p50 / max, ms | violations |\n\
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";

/// Words of members are looked at, and who is out is started anew, so often.
const LOOK: Duration = Duration::from_millis(10);
/// After so many faults everything is mended and all must meet.
const PEACE_EVERY: usize = 6;
/// Members are asked how their stacks stand when it takes so long, and when it takes twice as long.
const ASK_FIRST: Duration = Duration::from_millis(500);
/// So many are told of.
const SLOWEST_MAX: usize = 3;
const TOGETHER_MAX: Duration = Duration::from_secs(20);
const REST_MAX: Duration = Duration::from_secs(20);
const FAULT_MAX: Duration = Duration::from_secs(25);
const LIFE: Duration = Duration::from_secs(120);
