//! What each seed draws of a world with views.

use wadjet::accel::broken::Broken;
use wadjet::stack::registry::Registry;

use super::{
    Chaos, Expulsion, Fate, GENTLE_LOSS, LARGE_FRAMES_MAX, Load, MICROSECOND, MILLISECOND, PERCENT, Seldom,
    ViewsSetup,
};
use crate::faults::{Faults, LinkFaults, Partition};
use crate::random::Random;
use crate::scenario::{Driver, NUMBERS, layers_need};
use crate::workload::Lengths;

impl ViewsSetup {
    /// The world that `random` draws, with as many processes as `fixed` says if it does.
    pub(crate) fn draw(random: &mut Random, fixed: Option<usize>) -> ViewsSetup {
        let mut setup = ViewsSetup::draw_plain(random, fixed);
        setup.draw_more_layers(random);
        setup.draw_rarities(random);
        setup
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
            seldom: Seldom::default(),
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
        if self.expulsion.is_some() {
            self.draw_parted_pairs(random);
        }
    }

    /// Some do not hear another one, now and then, for longer than it takes to be expelled and not for as long as it takes to be
    /// suspected.
    fn draw_parted_pairs(&mut self, random: &mut Random) {
        let expel_ms = self.expulsion.map_or(0, |expulsion| expulsion.expel_ms);
        for _ in 0..random.below(9) {
            let [from, to] = [0; 2].map(|_| random.below(self.processes as u64) as usize);
            let longest = self.millis("least_ms").max(expel_ms + 1);
            let length = random.between(expel_ms, longest) * MILLISECOND;
            let at = random.below(self.span_ns);
            self.faults.cuts.push((from, to, at, length));
        }
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
            for from in (0..self.processes).filter(|from| *from != whom) {
                self.faults.cuts.push((from, whom, at, length));
                // Nor does it hear again what it has heard before.
                self.faults.links[from * self.processes + whom].stale = 0;
            }
        }
    }
}

/// So many worlds are one in which nothing makes a living process look dead.
const GENTLE_ONE_OF: u64 = 6;

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
