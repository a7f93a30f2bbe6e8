//! The world of one run with views: processes that come and go, and what goes wrong.

use std::fmt;

use wadjet::accel::broken::Broken;
use wadjet::stack::registry::Registry;

use crate::faults::{Faults, LinkFaults, Partition};
use crate::random::Random;
use crate::scenario::{Driver, NUMBERS, acceleration, layers_need};
use crate::workload::Lengths;

/// The world of one run.
#[derive(Clone, Debug)]
pub struct ViewsSetup {
    /// How many processes there are: addresses, each with one life at a time.
    pub processes: usize,
    /// The stack, top to bottom.
    pub stack: String,
    /// Whether plans are used, or the layers alone.
    pub accelerated: bool,
    /// Where plans are used: processes, bit by bit, that have none, in all their lives.
    pub without_plans: u64,
    /// Whether messages are packed while the way is busy.
    pub packing: bool,
    /// Whether the layers repeat what plans did.
    pub shadow: bool,
    /// The largest frame.
    pub frame_bytes: usize,
    /// Region sizes are divided by this.
    pub scarcity: usize,
    /// Casts of one member that may be unacknowledged at once, in frames.
    pub window: u32,
    /// Frame numbers of one view.
    pub number_limit: u64,
    /// How long post-processing is put off.
    pub post_ns: u64,
    /// How long the channel of a past view stays open.
    pub linger_ns: u64,
    /// What is wrong, on purpose, beside layers.
    pub broken: Broken,
    /// The layers there are.
    pub registry: fn() -> Registry,
    /// All processes begin in one view; else each begins alone, some time in the beginning.
    pub together: bool,
    /// By process: it asks everybody for the group; else it knows all addresses.
    pub discover: Vec<bool>,
    /// In its first life no process does either: who was in a view together remembers.
    pub strange: bool,
    /// The transport knows which processes have ended.
    pub hints: bool,
    /// How long the opening of a channel takes.
    pub open_ns: u64,
    /// What each process's driver loop is like.
    pub drivers: Vec<Driver>,
    /// What goes wrong on the way between processes.
    pub faults: Faults,
    /// What happens to processes, by time.
    pub chaos: Vec<(u64, Chaos)>,
    /// How long all of this goes on.
    pub span_ns: u64,
    /// What the applications do.
    pub load: Load,
    /// Processes, bit by bit, that cast as much as they can once the faults are over for the core, until everybody else has got
    /// something through; nobody if zero.
    pub greedy: u64,
    /// Bytes of an application's state beside its digest, where the stack transfers states.
    pub state_bytes: usize,
    /// A member that is slow, where the stack has such a one expelled.
    pub expulsion: Option<Expulsion>,
    /// In a world that is gentle to all others: a process that hears nobody for a while. Its cuts are among the faults.
    pub deaf: Option<usize>,
    /// What becomes of each process when the faults are over.
    pub fates: Vec<Fate>,
    /// How long the core may then take to become one view and to deliver everything.
    pub patience_ns: u64,
}

/// What happens to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chaos {
    /// It begins a life, if it has none.
    Start {
        /// Which.
        process: usize,
    },
    /// It dies, and begins another life after a while.
    Crash {
        /// Which.
        process: usize,
        /// After how long; never if none.
        back_ns: Option<u64>,
    },
    /// It casts and dies while it sends, so that some get what it cast and others do not; it begins another life after
    /// a while.
    LastWords {
        /// Which.
        process: usize,
        /// How many messages.
        casts: u32,
        /// The processes that its last frames reach, bit by bit.
        reach: u64,
        /// After how long.
        back_ns: u64,
    },
    /// It leaves the group, and begins another life after a while.
    Leave {
        /// Which.
        process: usize,
        /// After how long.
        back_ns: u64,
    },
    /// It stands still.
    Pause {
        /// Which.
        process: usize,
        /// For how long.
        length_ns: u64,
    },
    /// All processes stand still at once, as on a machine that is suspended.
    Standstill {
        /// For how long.
        length_ns: u64,
    },
    /// Its application says that another member of its view has failed.
    Accuse {
        /// Which.
        process: usize,
        /// Whom, counted among the members of its view.
        whom: usize,
    },
}

impl Chaos {
    fn process(self) -> Option<usize> {
        Some(match self {
            Chaos::Standstill { .. } => return None,
            Chaos::Start { process }
            | Chaos::Crash { process, .. }
            | Chaos::LastWords { process, .. }
            | Chaos::Leave { process, .. }
            | Chaos::Pause { process, .. }
            | Chaos::Accuse { process, .. } => process,
        })
    }
}

/// Who is slow, and how long the others put up with that. Kept apart from drivers and stack, which are what they are without
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expulsion {
    /// Who takes in one frame per iteration of its driver loop.
    pub process: usize,
    /// How long such an iteration takes.
    pub iteration_ns: u64,
    /// How long FC waits for a member before it is expelled.
    pub expel_ms: u64,
    /// Everybody casts so many times as often.
    pub haste: u64,
}

/// What becomes of a process when the faults are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It lives and can talk to all of the core.
    Core,
    /// It is dead and stays so.
    Crashed,
    /// No frame passes between it and the core.
    Apart,
    /// It stands still for ever.
    Stopped,
}

/// What the applications do. Chances are per million.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Mean time between the bursts of one process; 0 if it does nothing of its own accord.
    pub gaps_ns: Vec<u64>,
    /// The most messages in a burst.
    pub burst: u32,
    /// A message is a send.
    pub sends: u32,
    /// How long messages are.
    pub lengths: Lengths,
    /// A message is larger than a frame, where the stack carries such.
    pub large: u32,
    /// The longest message, in bytes.
    pub large_bytes: usize,
    /// A delivery is answered from inside the upcall.
    pub reply: u32,
    /// Casts are written in place.
    pub reserve: u32,
    /// Casts are agreed, where the others are safe.
    pub agreed: u32,
    /// A delivered cast, and all before it, is acknowledged.
    pub acknowledge: u32,
    /// What endpoints say of stability is written down.
    pub stability: bool,
    /// The application is not ready for a part of the state.
    pub late_state: u32,
    /// A snapshot cannot be read to its end.
    pub torn_state: u32,
}

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
/// Chances are per million.
const PERCENT: u32 = 10_000;

impl ViewsSetup {
    /// A parameter of a layer of the stack, in milliseconds.
    fn millis(&self, name: &str) -> u64 {
        let found = self.stack.split_once(&format!("{name}=")).map(|(_, rest)| rest);
        let digits = found.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(1000)
    }

    /// The world that `random` draws, with as many processes as `fixed` says if it does.
    pub(crate) fn draw(random: &mut Random, fixed: Option<usize>) -> ViewsSetup {
        let mut setup = ViewsSetup::draw_plain(random, fixed);
        setup.draw_more_layers(random);
        setup.draw_rarities(random);
        setup
    }

    /// Lets snapshots be torn, a member be slow and expelled, and somebody hear nothing for a while, or not. Drawn at the very end, for
    /// the same reason as layers are drawn late.
    pub(crate) fn draw_rarities(&mut self, random: &mut Random) {
        let torn = random.below(3) == 0;
        let chance = *random.pick(&[5 * PERCENT, 20 * PERCENT, 50 * PERCENT]);
        if torn && self.has_layer("XFER") {
            self.load.torn_state = chance;
        }
        self.strange = self.together && random.below(4) == 0;
        if self.is_gentle() {
            self.draw_gentle_rarities(random);
        }
        let expels = random.below(4) == 0;
        let expulsion = Expulsion {
            process: random.below(self.processes as u64) as usize,
            iteration_ns: random.scaled(MILLISECOND, 5 * MILLISECOND),
            expel_ms: random.scaled(4, 40),
            haste: *random.pick(&[1, 4, 16]),
        };
        // In a gentle world nobody is slow.
        self.expulsion = (expels && !self.is_gentle()).then_some(expulsion);
        let (is_deaf, process) = (random.below(6) == 0, random.below(self.processes as u64));
        let (at, length) = (random.below(self.span_ns), random.scaled(8 * MILLISECOND, 150 * MILLISECOND));
        if is_deaf && !self.is_gentle() {
            let side = ((1 << self.processes) - 1) & !(1 << process);
            self.faults.partitions.push(Partition { at, until: at + length, side, one_way: true });
        }
    }

    /// The world as it is lived in: with the slow member, and a stack that has such a one expelled.
    pub(crate) fn with_expulsion(mut self) -> ViewsSetup {
        if let Some(Expulsion { process, iteration_ns, expel_ms, haste }) = self.expulsion
            && self.has_layer("FC")
        {
            self.load.gaps_ns.iter_mut().for_each(|gap| *gap /= haste);
            let driver = &mut self.drivers[process];
            (driver.iteration_ns, driver.budget) = (iteration_ns, 1);
            let with = |named: &str| match named.strip_prefix("FC") {
                Some("") => format!("FC(expel_ms={expel_ms})"),
                Some(given) if given.starts_with('(') => format!("FC(expel_ms={expel_ms},{}", &given[1..]),
                _ => named.to_owned(),
            };
            self.stack = self.stack.split(':').map(with).collect::<Vec<_>>().join(":");
        }
        self
    }

    /// What must make nobody look dead either: the machine stands still for a while, or one process hears nobody and finds
    /// fault with all.
    fn draw_gentle_rarities(&mut self, random: &mut Random) {
        let (still, deaf) = (random.below(3) == 0, random.below(3) == 0);
        if still {
            for _ in 0..random.between(1, 3) {
                let (at, length_ns) =
                    (random.below(self.span_ns), random.scaled(5 * MILLISECOND, 500 * MILLISECOND));
                self.chaos.push((at, Chaos::Standstill { length_ns }));
            }
            self.chaos.sort_by_key(|(at, _)| *at);
        }
        // Whoever has not run itself for a while believes the few as well: not both in one world.
        if deaf && !still && self.processes > 2 {
            let whom = random.below(self.processes as u64) as usize;
            // When it hears again all others have gone on without it for long: who hears it too soon believes it.
            let patience =
                ["most_ms", "busy_ms", "first_ms", "flush_ms"].map(|name| MILLISECOND * self.millis(name));
            let length = random.between(1, 3) * patience.into_iter().sum::<u64>();
            let at = random.below(self.span_ns);
            self.span_ns = self.span_ns.max(at + length);
            self.deaf = Some(whom);
            let others = (0..self.processes).filter(|from| *from != whom);
            self.faults.cuts.extend(others.map(|from| (from, whom, at, length)));
        }
    }

    /// Puts FRAG and XFER into the stack, or not. Drawn last: what was drawn before is as it would be without.
    pub(crate) fn draw_more_layers(&mut self, random: &mut Random) {
        let (large, transfer) = (random.below(2) == 0, random.below(3) == 0);
        let large_chance = random.scaled(u64::from(PERCENT), 30 * u64::from(PERCENT)) as u32;
        let large_bytes = self.frame_bytes * random.between(2, LARGE_FRAMES_MAX) as usize;
        let state_bytes = *random.pick(&[0, 0, 2_000, 20_000, 60_000]);
        let flight = random.scaled(1, 64);
        let hold = *random.pick(&["", "", "", ",hold_kib_max=4", ",hold_kib_max=1"]);
        if large {
            self.stack = self.stack.replacen(":STABLE", ":FRAG:STABLE", 1);
            (self.load.large, self.load.large_bytes) = (large_chance, large_bytes);
        }
        if transfer {
            self.stack = format!("XFER(flight_kib={flight}{hold}):{}", self.stack);
            self.state_bytes = state_bytes;
            self.load.late_state = *random.pick(&[0, 0, 5 * PERCENT, 50 * PERCENT]);
        }
    }

    /// The world without one of the layers that are drawn last.
    fn without_layer(&mut self, layer: &str) {
        let layers = self.stack.split(':').filter(|named| named.split('(').next() != Some(layer));
        self.stack = layers.collect::<Vec<_>>().join(":");
    }

    /// Whether a flush waits for the application's word.
    pub(crate) fn blocks(&self) -> bool {
        self.stack.contains("block=yes")
    }

    /// Whether a process casts all it can in the end.
    pub(crate) fn is_greedy(&self, process: usize) -> bool {
        self.greedy >> process & 1 == 1
    }

    /// Whether the stack has a layer.
    pub(crate) fn has_layer(&self, layer: &str) -> bool {
        self.stack.split(':').any(|named| named.split('(').next() == Some(layer))
    }

    /// The same without the layers that are drawn last.
    pub(crate) fn draw_plain(random: &mut Random, fixed: Option<usize>) -> ViewsSetup {
        let drawn = match random.below(40) {
            0 => random.between(9, 20),
            1..=9 => 2,
            10..=20 => 3,
            21..=33 => random.between(4, 5),
            _ => random.between(6, 8),
        };
        let processes = fixed.unwrap_or(drawn as usize);
        let delay_ns = random.scaled(2 * MICROSECOND, 200 * MICROSECOND);
        let link =
            LinkFaults { delay_ns, jitter_ns: random.between(0, 2 * delay_ns), ..LinkFaults::default() };
        let driver = Driver {
            iteration_ns: random.scaled(500, 20 * MICROSECOND),
            budget: random.scaled(4, 64) as usize,
            inbox_frames_max: 4096,
            submit_ns: random.scaled(100, 3 * MICROSECOND),
            submitted_frames_max: random.scaled(16, 256) as usize,
        };
        let span_ns = random.scaled(20 * MILLISECOND, 1_000 * MILLISECOND);
        let gentle = random.below(GENTLE_ONE_OF) == 0;
        let mut setup = ViewsSetup {
            processes,
            stack: draw_stack(random, gentle),
            accelerated: random.below(8) > 0,
            without_plans: 0,
            packing: random.chance(70 * PERCENT),
            shadow: random.below(8) == 0,
            frame_bytes: *random.pick(&[512, 1472, 1472, 2048]),
            scarcity: 1,
            window: *random.pick(&[8, 16, 32, 64]),
            number_limit: NUMBERS,
            post_ns: *random.pick(&[0, 0, 0, 20 * MICROSECOND, 200 * MICROSECOND]),
            linger_ns: random.scaled(MILLISECOND, 1_000 * MILLISECOND),
            broken: Broken::No,
            registry: Registry::standard,
            together: random.below(2) == 0,
            discover: (0..processes).map(|_| random.below(2) == 0).collect(),
            strange: false,
            hints: random.below(2) == 0,
            open_ns: random.scaled(MICROSECOND, 2 * MILLISECOND),
            drivers: vec![driver; processes],
            faults: Faults { links: vec![link; processes * processes], ..Faults::default() },
            chaos: Vec::new(),
            span_ns,
            load: draw_load(random, processes),
            greedy: 0,
            state_bytes: 0,
            expulsion: None,
            deaf: None,
            fates: Vec::new(),
            patience_ns: 0,
        };
        if !setup.together {
            let first = random.scaled(MICROSECOND, span_ns);
            for process in 0..processes {
                setup.chaos.push((random.below(first), Chaos::Start { process }));
            }
        }
        if gentle {
            draw_gently(random, &mut setup);
        } else {
            draw_link_faults(random, &mut setup);
            draw_chaos(random, &mut setup);
        }
        if random.below(3) == 0 {
            draw_storms(random, &mut setup, gentle);
        }
        setup.chaos.sort_by_key(|(at, _)| *at);
        draw_fates(random, &mut setup);
        if gentle {
            draw_last_words(random, &mut setup);
            setup.chaos.sort_by_key(|(at, _)| *at);
        }
        // Every time-out may pass several times, one after the other, for every process that is found out to be gone.
        let [first, most, flush, merge, probe] =
            ["first_ms", "most_ms", "flush_ms", "merge_ms", "probe_most_ms"].map(|name| setup.millis(name));
        let most = most.max(setup.millis("busy_ms"));
        setup.patience_ns = MILLISECOND * (2_000 + 10 * (first + most + 3 * flush + 2 * merge + 2 * probe));
        setup
    }
}

/// The longest messages, in frames.
pub(crate) const LARGE_FRAMES_MAX: u64 = 8;
/// So many worlds are one in which nothing makes a living process look dead.
const GENTLE_ONE_OF: u64 = 6;
/// In a gentle world so many frames of a million are lost at most: never enough heartbeats in a row.
const GENTLE_LOSS: u32 = 5 * PERCENT;

impl ViewsSetup {
    /// Whether nothing in this world can make a living process look dead or slow, crashes and leaves of others
    /// notwithstanding, but for the one that is deaf: then nobody else may be excluded.
    pub(crate) fn is_gentle(&self) -> bool {
        let quiet = |(_, what): &(u64, Chaos)| !matches!(what, Chaos::Pause { .. } | Chaos::Accuse { .. });
        // Ten beats must be missed, and the second check as well.
        let patient = self.millis("least_ms") * 1000 >= 10 * self.millis("beat_us");
        // Who does not hear some of the others only may be believed.
        let [cuts, first] = [&self.faults.cuts[..], &self.faults.cuts[..self.faults.cuts.len().min(1)]];
        let alike = |cut: &(usize, usize, u64, u64)| {
            first.iter().all(|(_, to, at, length)| (cut.1, cut.2, cut.3) == (*to, *at, *length))
        };
        let whole = cuts.is_empty() || cuts.len() + 1 == self.processes && cuts.iter().all(alike);
        patient
            && self.millis("least_ms") >= 10
            && self.millis("flush_ms") >= 60
            && self.scarcity == 1
            && self.processes <= 8
            && self.faults.partitions.is_empty()
            && whole
            && self.deaf == first.first().map(|cut| cut.1)
            && self.faults.links.iter().all(is_calm)
            && self.chaos.iter().all(quiet)
            && self.drivers.iter().all(is_quick)
    }
}

/// Longer than any view change that an accusation leads to.
const ACCUSED_NS: u64 = 1_000_000_000;
/// Frames that are lost and repeated, and a pause that is made up for.
const MADE_UP_FOR_NS: u64 = 50 * MILLISECOND;

impl ViewsSetup {
    /// Whether nothing in this world makes anybody slow but pauses, cuts, and that one process is.
    pub(crate) fn delays_nobody_else(&self) -> bool {
        let quick = |(process, driver): (usize, &Driver)| {
            is_quick(driver) || self.expulsion.is_some_and(|expulsion| expulsion.process == process)
        };
        self.expulsion.is_some()
            && self.scarcity == 1
            && self.faults.links.iter().all(is_calm)
            && self.drivers.iter().enumerate().all(quick)
    }

    /// Whether a process may not have taken in what another one cast between two times, in a world where
    /// [`ViewsSetup::delays_nobody_else`].
    pub(crate) fn hinders(&self, process: usize, from: u64, until: u64) -> bool {
        self.expulsion.is_some_and(|expulsion| expulsion.process == process)
            || self.parts_anybody(from, until)
    }

    /// Whether somebody stands still or is cut off between two times, or not long before.
    pub(crate) fn parts_anybody(&self, from: u64, until: u64) -> bool {
        let overlaps = |at: u64, length: u64| at <= until && from <= at + length + MADE_UP_FOR_NS;
        let pauses = |(at, what): &(u64, Chaos)| match what {
            Chaos::Pause { length_ns, .. } => overlaps(*at, *length_ns),
            // Who is given up by one is heard by the others, until one of the two goes.
            Chaos::Accuse { .. } => overlaps(*at, ACCUSED_NS),
            _ => false,
        };
        until >= self.span_ns && self.fates.iter().any(|fate| *fate != Fate::Core)
            || self.chaos.iter().any(pauses)
            || self.faults.partitions.iter().any(|cut| overlaps(cut.at, cut.until - cut.at))
            || self.faults.cuts.iter().any(|(_, _, at, length)| overlaps(*at, *length))
    }
}

/// Whether a link loses and delays so little that nobody notices.
fn is_calm(link: &LinkFaults) -> bool {
    let LinkFaults { loss, burst, spike, corrupt, delay_ns, jitter_ns, reorder_ns, .. } = *link;
    loss <= GENTLE_LOSS
        && burst == 0
        && spike == 0
        && corrupt == 0
        && delay_ns + jitter_ns + reorder_ns < MILLISECOND
}

/// Whether a process takes in at once what has come.
fn is_quick(driver: &Driver) -> bool {
    driver.iteration_ns <= 20 * MICROSECOND && driver.inbox_frames_max >= 4096
}

/// Losses, duplicates and disorder of a sound network; processes that crash and leave.
fn draw_gently(random: &mut Random, setup: &mut ViewsSetup) {
    let loss = random.scaled(1_000, u64::from(GENTLE_LOSS)) as u32;
    on_links(random, setup, |link| link.loss = loss);
    if random.below(2) == 0 {
        let (reorder, duplicate) =
            (random.scaled(1_000, 100_000) as u32, random.scaled(1_000, 50_000) as u32);
        on_links(random, setup, |link| {
            (link.reorder, link.reorder_ns, link.duplicate) = (reorder, 2 * link.delay_ns, duplicate);
        });
    }
    for _ in 0..random.between(1, 5) {
        let (at, process) = (random.below(setup.span_ns), random.below(setup.processes as u64) as usize);
        let back_ns = random.scaled(100 * MICROSECOND, 300 * MILLISECOND);
        let what = match random.below(3) {
            0 => Chaos::Leave { process, back_ns },
            _ => Chaos::Crash { process, back_ns: Some(back_ns) },
        };
        setup.chaos.push((at, what));
    }
}

/// Processes die in the middle of sending.
fn draw_last_words(random: &mut Random, setup: &mut ViewsSetup) {
    for _ in 0..random.between(1, 3) {
        let (at, process) = (random.below(setup.span_ns), random.below(setup.processes as u64) as usize);
        let (casts, reach) = (random.between(1, 6) as u32, random.word());
        let back_ns = random.scaled(MILLISECOND, 300 * MILLISECOND);
        setup.chaos.push((at, Chaos::LastWords { process, casts, reach, back_ns }));
    }
}

/// Several things at nearly the same time: a view change meets the next.
fn draw_storms(random: &mut Random, setup: &mut ViewsSetup, gentle: bool) {
    let processes = setup.processes as u64;
    for _ in 0..random.between(1, 4) {
        let (mut at, pace) = (random.below(setup.span_ns), random.scaled(20 * MICROSECOND, 10 * MILLISECOND));
        for _ in 0..random.between(2, 6) {
            let process = random.below(processes) as usize;
            let back_ns = random.scaled(100 * MICROSECOND, 30 * MILLISECOND);
            let what = match random.below(if gentle { 4 } else { 7 }) {
                0 | 1 => Chaos::Crash { process, back_ns: Some(back_ns) },
                2 => Chaos::Leave { process, back_ns },
                3 => Chaos::Start { process },
                4 => Chaos::Pause { process, length_ns: back_ns },
                _ => Chaos::Accuse { process, whom: random.below(processes) as usize },
            };
            setup.chaos.push((at, what));
            at = (at + random.below(2 * pace)).min(setup.span_ns - 1);
        }
    }
}

fn draw_stack(random: &mut Random, gentle: bool) -> String {
    let least = random.scaled(if gentle { 16 } else { 8 }, 48);
    // In most worlds traffic makes nobody more patient: what is suspected soon is where mistakes are made.
    let busy = if least.is_multiple_of(4) { least * 2 } else { least };
    let suspect = format!(
        "SUSPECT(beat_us={},least_ms={least},busy_ms={busy},most_ms={},first_ms={},pause_ms={})",
        // Several beats must be missed before anybody is suspected.
        random.scaled(1_000, 10_000).min(least * 1000 / if gentle { 12 } else { random.between(4, 12) }),
        least * random.between(1, 4),
        random.scaled(50, 400),
        random.scaled(10, 50),
    );
    let membership = format!(
        "MBRSHIP(block={},flush_ms={},merge_ms={},gather_us={},probe_ms={},probe_most_ms={})",
        if random.below(6) == 0 { "yes" } else { "no" },
        random.scaled(if gentle { 100 } else { 20 }, 400),
        random.scaled(10, 200),
        random.scaled(1, 8_000),
        random.scaled(1, 16),
        random.scaled(20, 400),
    );
    let rest = *random.pick(&[
        "STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
        "STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
        "STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
        "STABLE(ask_us=2000,report_us=500):FC(window=5):UNICAST(window=3,repeat_us=500):LOCAL:\
         NAK(window=7,repair_us=50,status_us=500):CHKSUM:COM",
    ]);
    let above = if least.is_multiple_of(3) { "EVS:" } else { "" };
    format!("{above}{membership}:{suspect}:{rest}")
}

fn draw_load(random: &mut Random, processes: usize) -> Load {
    use Lengths::*;
    let burst = *random.pick(&[1, 1, 4, 16]);
    let gap =
        random.scaled(2 * MILLISECOND, 20 * MILLISECOND) * processes as u64 * (u64::from(burst) + 3) / 8;
    let often = |random: &mut Random, of: u64, chance: u32| if random.below(of) == 0 { chance } else { 0 };
    Load {
        gaps_ns: (0..processes).map(|_| if random.below(6) == 0 { 0 } else { gap }).collect(),
        burst,
        sends: *random.pick(&[0, 10 * PERCENT, 50 * PERCENT]),
        lengths: *random.pick(&[Fixed(64), Tiny, Small, Small, Any, Largest]),
        large: 0,
        large_bytes: 0,
        reply: often(random, 4, 5 * PERCENT),
        reserve: 30 * PERCENT,
        agreed: 0,
        acknowledge: often(random, 2, 30 * PERCENT),
        stability: random.below(3) == 0,
        late_state: 0,
        torn_state: 0,
    }
}

/// Changes every link, or only some.
fn on_links(random: &mut Random, setup: &mut ViewsSetup, mut change: impl FnMut(&mut LinkFaults)) {
    let everywhere = random.below(3) > 0;
    for link in &mut setup.faults.links {
        if everywhere || random.below(3) == 0 {
            change(link);
        }
    }
}

fn draw_link_faults(random: &mut Random, setup: &mut ViewsSetup) {
    let mut some = |of: u64| random.below(of) == 0;
    let (loses, bursts, duplicates, reorders) = (some(3), some(5), some(4), some(4));
    let (stale, spikes, corrupts) = (some(6), some(5), some(6));
    let (divides, one_way) = (some(3), some(4));
    let percent = |random: &mut Random, most: u64| random.scaled(1_000, most * u64::from(PERCENT)) as u32;
    if loses {
        let loss = percent(random, 30);
        on_links(random, setup, |link| link.loss = loss);
    }
    if bursts {
        let (burst, burst_frames) = (percent(random, 1), random.scaled(2, 64) as u32);
        on_links(random, setup, |link| (link.burst, link.burst_frames) = (burst, burst_frames));
    }
    if duplicates {
        let duplicate = percent(random, 30);
        on_links(random, setup, |link| link.duplicate = duplicate);
    }
    if reorders {
        let (reorder, times) = (percent(random, 40), random.scaled(1, 32));
        on_links(random, setup, |link| {
            (link.reorder, link.reorder_ns) = (reorder, times * (link.delay_ns + link.jitter_ns));
        });
    }
    if stale {
        let (stale, stale_ns) = (percent(random, 5), random.scaled(MILLISECOND, 500 * MILLISECOND));
        on_links(random, setup, |link| (link.stale, link.stale_ns) = (stale, stale_ns));
    }
    if spikes {
        let (spike, spike_ns) = (percent(random, 1), random.scaled(MILLISECOND, 100 * MILLISECOND));
        on_links(random, setup, |link| (link.spike, link.spike_ns) = (spike, spike_ns));
    }
    if corrupts {
        let corrupt = percent(random, 10);
        on_links(random, setup, |link| link.corrupt = corrupt);
    }
    let (span, processes) = (setup.span_ns, setup.processes as u64);
    if divides {
        for _ in 0..random.between(1, 6) {
            let (at, length) = (random.below(span), random.scaled(MILLISECOND, 400 * MILLISECOND));
            let side = random.word() & ((1 << processes) - 1);
            setup.faults.partitions.push(Partition { at, until: at + length, side, one_way: false });
        }
    }
    if one_way {
        for _ in 0..random.between(1, 4) {
            let (at, length) = (random.below(span), random.scaled(MILLISECOND, 400 * MILLISECOND));
            if random.below(2) == 0 {
                let side = 1 << random.below(processes);
                setup.faults.partitions.push(Partition { at, until: at + length, side, one_way: true });
            } else {
                let (from, to) = (random.below(processes) as usize, random.below(processes) as usize);
                setup.faults.cuts.push((from, to, at, length));
            }
        }
    }
}

fn draw_chaos(random: &mut Random, setup: &mut ViewsSetup) {
    let (span, processes) = (setup.span_ns, setup.processes as u64);
    let mut some = |of: u64| random.below(of) == 0;
    let (crashes, leaves, pauses, accuses) = (some(2), some(4), some(3), some(8));
    let (slows, scarce, runs_out) = (some(8), some(8), some(12));
    let times = |random: &mut Random| random.scaled(1, 6);
    let someone = |random: &mut Random| random.below(processes) as usize;
    if crashes {
        for _ in 0..times(random) {
            let back_ns = (random.below(4) > 0).then(|| random.scaled(100 * MICROSECOND, 300 * MILLISECOND));
            setup.chaos.push((random.below(span), Chaos::Crash { process: someone(random), back_ns }));
        }
    }
    if leaves {
        for _ in 0..times(random) {
            let back_ns = random.scaled(100 * MICROSECOND, 300 * MILLISECOND);
            setup.chaos.push((random.below(span), Chaos::Leave { process: someone(random), back_ns }));
        }
    }
    if pauses {
        for _ in 0..times(random) {
            let length_ns = random.scaled(MILLISECOND, 600 * MILLISECOND);
            setup.chaos.push((random.below(span), Chaos::Pause { process: someone(random), length_ns }));
        }
    }
    if accuses {
        for _ in 0..times(random) {
            let (process, whom) = (someone(random), someone(random));
            setup.chaos.push((random.below(span), Chaos::Accuse { process, whom }));
        }
    }
    if slows {
        let driver = &mut setup.drivers[random.below(processes) as usize];
        driver.iteration_ns = random.scaled(20 * MICROSECOND, 2 * MILLISECOND);
        driver.budget = random.scaled(1, 8) as usize;
        driver.inbox_frames_max = random.scaled(2, 64).max(2 * processes) as usize;
    }
    if scarce {
        setup.scarcity = random.scaled(2, 8) as usize;
        setup.window = (random.scaled(2, 32) as u32).max(layers_need(&setup.stack));
        for driver in &mut setup.drivers {
            driver.submitted_frames_max = random.scaled(2, 16) as usize;
        }
    }
    if runs_out {
        setup.number_limit = random.scaled(8, 256);
    }
}

fn draw_fates(random: &mut Random, setup: &mut ViewsSetup) {
    let whole = random.below(2) == 0;
    setup.fates = (0..setup.processes)
        .map(|_| match random.below(6) {
            _ if whole => Fate::Core,
            0 => Fate::Crashed,
            1 => Fate::Apart,
            2 => Fate::Stopped,
            _ => Fate::Core,
        })
        .collect();
    if !setup.fates.contains(&Fate::Core) {
        setup.fates[random.below(setup.processes as u64) as usize] = Fate::Core;
    }
}

impl fmt::Display for ViewsSetup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |on: bool| if on { "on" } else { "off" };
        let millis = |ns: u64| ns as f64 / 1e6;
        writeln!(
            formatter,
            "{} processes of {}, frames of {} B, acceleration {}, packing {}, shadow {}, window {}, scarcity {}, \
             numbers {}, post-processing after {} ms, lingers {} ms, opens in {} ms, {}, hints {}, {} ms of faults",
            self.processes,
            self.stack,
            self.frame_bytes,
            acceleration(self.accelerated, self.without_plans),
            on(self.packing),
            on(self.shadow),
            self.window,
            self.scarcity,
            self.number_limit,
            millis(self.post_ns),
            millis(self.linger_ns),
            millis(self.open_ns),
            match (self.together, self.strange) {
                (false, _) => "alone at first",
                (true, false) => "in one view from the start",
                (true, true) => "in one view from the start and with no other address",
            },
            on(self.hints),
            millis(self.span_ns),
        )?;
        if self.greedy != 0 {
            let greedy: Vec<usize> = (0..self.processes).filter(|at| self.greedy >> at & 1 == 1).collect();
            writeln!(formatter, "  in the end {greedy:?} cast without end, until all others are heard")?;
        }
        writeln!(formatter, "  {:?}", self.load)?;
        for (process, driver) in self.drivers.iter().enumerate() {
            let (fate, discover) = (self.fates[process], on(self.discover[process]));
            writeln!(formatter, "  p{process}: {driver:?}, discovers {discover}, in the end {fate:?}")?;
        }
        let pairs = self.faults.links.iter().enumerate().map(|(at, link)| {
            (format!("p{} to p{}", at / self.processes, at % self.processes), format!("{link:?}"))
        });
        let mut alike: Vec<(String, Vec<String>)> = Vec::new();
        for (pair, link) in pairs {
            match alike.iter_mut().find(|(known, _)| *known == link) {
                Some((_, pairs)) => pairs.push(pair),
                None => alike.push((link, vec![pair])),
            }
        }
        for (link, pairs) in alike {
            let which = if pairs.len() > 6 { format!("{} links", pairs.len()) } else { pairs.join(", ") };
            writeln!(formatter, "  {which}: {link}")?;
        }
        for (at, chaos) in &self.chaos {
            writeln!(formatter, "  at {:.3} ms {chaos:?}", millis(*at))?;
        }
        for Partition { at, until, side, one_way } in &self.faults.partitions {
            let side: Vec<usize> = (0..self.processes).filter(|process| side >> process & 1 == 1).collect();
            let way = if *one_way { "is not heard" } else { "is apart" };
            writeln!(formatter, "  from {:.3} to {:.3} ms {side:?} {way}", millis(*at), millis(*until))?;
        }
        for (from, to, at, length) in &self.faults.cuts {
            let until = millis(at + length);
            writeln!(formatter, "  from {:.3} to {until:.3} ms p{from} to p{to} is cut", millis(*at))?;
        }
        Ok(())
    }
}

/// What can be taken out of a world, to see whether it still fails.
impl ViewsSetup {
    /// How many things that can be taken out there are.
    pub(crate) fn parts(&self) -> usize {
        PLAIN_PARTS
            + self.processes
            + self.chaos.len()
            + self.faults.partitions.len()
            + self.faults.cuts.len()
    }

    /// The world without some of its parts, by number.
    pub(crate) fn without(&self, parts: &[usize]) -> ViewsSetup {
        let gone = |part: usize| parts.contains(&part);
        let mut setup = self.clone();
        let base = PLAIN_PARTS;
        let process_gone = |process: usize| gone(base + process);
        let base = base + self.processes;
        let numbered = |base: usize| move |at: usize| base + at;
        let (chaos, partitions) = (numbered(base), numbered(base + self.chaos.len()));
        let cuts = numbered(base + self.chaos.len() + self.faults.partitions.len());
        setup.chaos = (self.chaos.iter().enumerate())
            .filter(|(at, (_, what))| !gone(chaos(*at)) && !what.process().is_some_and(process_gone))
            .map(|(_, what)| *what)
            .collect();
        setup.faults.partitions = (self.faults.partitions.iter().enumerate())
            .filter(|(at, _)| !gone(partitions(*at)))
            .map(|(_, what)| *what)
            .collect();
        setup.faults.cuts = (self.faults.cuts.iter().enumerate())
            .filter(|(at, _)| !gone(cuts(*at)))
            .map(|(_, what)| *what)
            .collect();
        for process in (0..self.processes).filter(|process| process_gone(*process)) {
            setup.fates[process] = Fate::Crashed;
            setup.chaos.insert(0, (0, Chaos::Crash { process, back_ns: None }));
        }
        for link in &mut setup.faults.links {
            let LinkFaults { loss, burst, duplicate, stale, reorder, spike, corrupt, jitter_ns, .. } = link;
            let faults = [loss, burst, duplicate, stale, reorder, spike, corrupt];
            for (part, chance) in faults.into_iter().enumerate() {
                if gone(part) {
                    *chance = 0;
                }
            }
            if gone(7) {
                *jitter_ns = 0;
            }
        }
        if gone(8) {
            setup.load.gaps_ns.fill(0);
        }
        if gone(9) {
            (setup.load.burst, setup.load.reply, setup.load.acknowledge) = (1, 0, 0);
        }
        if gone(10) {
            setup.load.sends = 0;
        }
        if gone(11) {
            (setup.scarcity, setup.number_limit) = (1, NUMBERS);
        }
        if gone(12) {
            setup.accelerated = false;
        }
        if gone(13) {
            setup.packing = false;
        }
        if gone(14) {
            setup.hints = false;
        }
        if gone(15) {
            setup.load.gaps_ns.iter_mut().for_each(|gap| *gap *= 8);
        }
        if gone(16) {
            (setup.load.large, setup.load.large_bytes) = (0, 0);
            setup.without_layer("FRAG");
        }
        if gone(17) {
            setup.without_layer("XFER");
        }
        if gone(18) {
            setup.load.late_state = 0;
        }
        if gone(19) {
            setup.greedy = 0;
        }
        if gone(20) {
            setup.load.torn_state = 0;
        }
        if gone(21) {
            setup.expulsion = None;
        }
        if gone(22) {
            setup.without_plans = 0;
        }
        setup
    }
}

/// Faults of links, workload and the like.
const PLAIN_PARTS: usize = 23;
