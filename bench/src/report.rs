//! What a run came to: the JSON contract of `wadjet bench`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::floor::Floor;
use crate::histogram::{LatencySummary, median};
use crate::machine::Machine;
use crate::memory_cost::MemoryCost;
use crate::party::{Account, FastPath};
use crate::payload::Faults;
use crate::plan::{MemberReport, Order, Plan, Side};
use crate::schedule::Arrivals;
use crate::workload::BlockResult;

/// Everything of one invocation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// How it was called.
    #[serde(default)]
    pub command: String,
    /// The runs, in the order they were made.
    pub runs: Vec<RunReport>,
    /// The bare ring, if it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
    /// What the stack costs in memory, if it was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory_cost: Vec<MemoryCost>,
}

impl Report {
    /// Whether every run delivered everything once and in order, and came to its end.
    pub fn good(&self) -> bool {
        self.runs.iter().all(RunReport::good)
    }
}

/// One run, raw or through a stack.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunReport {
    /// Over what.
    pub transport: String,
    /// The stack, top to bottom; empty if raw.
    pub stack: String,
    /// Its layers.
    pub layers: usize,
    /// Members of the view.
    pub members: usize,
    /// Who talked to whom.
    pub pattern: String,
    /// Bytes of a message.
    pub size: usize,
    /// The transport alone.
    pub raw: bool,
    /// Whether plans were used.
    pub accel: bool,
    /// Whether messages were packed while the way was busy.
    pub pack: bool,
    /// Whether runs of frames could be sent and received as one (UDP_SEGMENT, UDP_GRO); of udp and uring only.
    pub offload: bool,
    /// Messages per second each sender was to send, if that was given; raw beside a stack: as many as that sent frames.
    pub rate: Option<f64>,
    /// How they were spread over time.
    pub arrivals: Arrivals,
    /// Percent of the measured capacity that the rate was; without a rate, the run that measured the capacity.
    pub load: Option<f64>,
    /// Messages from others delivered at the member that stands for the run; in a ping-pong, rounds.
    pub messages: u64,
    /// In what time.
    pub seconds: f64,
    /// At one receiver; of blocks in a closed loop the median.
    pub messages_per_second: f64,
    /// In a ping-pong the round trip, else one way from the intended time of sending.
    pub latency_ns: LatencySummary,
    /// Of all members.
    pub fast_path: FastPath,
    /// Bytes of the fast header; without a stack, of the raw header.
    pub header_bytes: usize,
    /// The 90th percentile of its latency over the median of the same traffic at the lightest load measured.
    pub p90_over_unloaded_p50: Option<f64>,
    /// What the stack promises about the order of casts.
    pub order: Option<Order>,
    /// Frames that all members' casts took.
    pub cast_frames: u64,
    /// Frames sent by all members, once per destination addressed.
    pub frames: u64,
    /// System calls of all members' transports.
    pub system_calls: u64,
    /// Allocations of all members while measuring; null if not counted.
    pub allocations: Option<u64>,
    /// Payload copies by all members.
    pub copies: u64,
    /// Messages that never arrived, at all members.
    pub lost: u64,
    /// Messages that arrived again.
    pub duplicated: u64,
    /// Messages that arrived after later ones.
    pub misordered: u64,
    /// Messages that arrived with other bytes than were sent.
    pub corrupted: u64,
    /// Why plans were missed, in words, and how often, at all members.
    pub misses: BTreeMap<String, u64>,
    /// Why frames were dropped or passed on to others, in words, and how many, at all members.
    #[serde(default)]
    pub dropped: BTreeMap<String, u64>,
    /// Messages cast by all members, warm-up included.
    pub sent: u64,
    /// The largest resident memory of a member before and after measuring.
    pub resident_bytes: (u64, u64),
    /// Whether members had to share cores.
    pub shared_cores: bool,
    /// Whether members found other threads on their cores, and yielded to them.
    pub crowded: bool,
    /// Times a member's process was not running for longer than 10 ms.
    pub pauses: u64,
    /// Against the transport alone, in interleaved blocks.
    pub vs_raw: Option<VersusRaw>,
    /// What one should know when reading the figures.
    pub notes: Vec<String>,
    /// Why the run did not end well.
    pub failure: Option<String>,
}

/// Medians over pairs of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VersusRaw {
    /// Pairs of blocks.
    pub blocks: usize,
    /// Of the ratios of the blocks' medians.
    pub p50_ratio: f64,
    /// Of the raw blocks' medians.
    pub p50_raw_ns: f64,
    /// Of the stack blocks' medians.
    pub p50_stack_ns: f64,
    /// Of the ratios of the blocks' rates.
    pub rate_ratio: f64,
    /// Of the ratios of the blocks' 99th percentiles; says something where a block has some hundred messages.
    pub p99_ratio: f64,
}

impl RunReport {
    /// Whether something was delivered at all, everything once and in order, and the run came to its end.
    pub fn good(&self) -> bool {
        self.failure.is_none() && self.messages > 0 && self.faults() == Faults::default()
    }

    /// What went wrong with messages.
    pub fn faults(&self) -> Faults {
        let RunReport { lost, duplicated, misordered, corrupted, .. } = *self;
        Faults { lost, duplicated, misordered, corrupted }
    }
}

/// The runs of a plan: the raw one first, if there is one.
pub fn of_plan(plan: &Plan, members: &[MemberReport]) -> Vec<RunReport> {
    let mut runs = Vec::new();
    if let Some(raw) = of_side(plan, members, true) {
        runs.push(raw);
    }
    if let Some(mut stack) = of_side(plan, members, false) {
        let measured = members.get(plan.pattern.measured_at(plan.members));
        stack.vs_raw = measured.and_then(|member| Some(versus(member.raw.as_ref()?, member.stack.as_ref()?)));
        runs.push(stack);
    }
    if runs.is_empty() {
        // Nothing was measured: the warm-up may have failed.
        let failure = failures(members).unwrap_or_else(|| "no member reported".into());
        runs.push(RunReport { failure: Some(failure), ..bare(plan, false) });
    }
    runs
}

/// Compares latencies under load with the median of the same kind of run without.
pub fn relate_to_unloaded(runs: &mut [RunReport], unloaded_percent: f64) {
    for raw in [true, false] {
        let unloaded = runs.iter().find(|run| run.raw == raw && run.load == Some(unloaded_percent));
        let Some(p50) = unloaded.map(|run| run.latency_ns.p50).filter(|p50| *p50 > 0) else { continue };
        for run in runs.iter_mut().filter(|run| run.raw == raw && run.rate.is_some() && run.messages > 0) {
            run.p90_over_unloaded_p50 = Some(run.latency_ns.p90 as f64 / p50 as f64);
        }
    }
}

/// A run that could not be made.
pub fn failed(plan: &Plan, why: String) -> RunReport {
    RunReport { failure: Some(why), ..bare(plan, plan.subject == crate::plan::Subject::Raw) }
}

fn bare(plan: &Plan, raw: bool) -> RunReport {
    RunReport {
        transport: plan.transport.name().into(),
        stack: if raw { String::new() } else { plan.stack.clone() },
        layers: if raw { 0 } else { plan.layers() },
        members: plan.members,
        pattern: plan.pattern.name().into(),
        size: plan.size,
        raw,
        accel: plan.accel && !raw,
        pack: plan.pack && !raw,
        offload: plan.offload && plan.transport.is_ip(),
        rate: plan.rate,
        arrivals: plan.arrivals,
        load: plan.load,
        order: (!raw).then(|| plan.order()),
        shared_cores: plan.shares_cores(),
        ..RunReport::default()
    }
}

fn of_side(plan: &Plan, members: &[MemberReport], raw: bool) -> Option<RunReport> {
    let side = |member: &'_ MemberReport| -> Option<Side> {
        if raw { member.raw.clone() } else { member.stack.clone() }
    };
    let sides: Vec<Side> = members.iter().filter_map(side).collect();
    let measured = sides.get(plan.pattern.measured_at(plan.members)).or(sides.first())?;
    let account = sides.iter().fold(Account::default(), |sum, side| sum.plus(&side.account));
    let faults = sides.iter().fold(Faults::default(), |sum, side| sum.plus(&side.faults));
    let allocations = sides.iter().map(|side| side.allocations).sum::<Option<u64>>();
    let largest = |of: fn(&MemberReport) -> u64| members.iter().map(of).max().unwrap_or(0);
    // Who did not come to its end has delivered less, which is said already.
    let is_total = !raw && plan.order().is_total();
    let failure = failures(members).or_else(|| parted(members).filter(|_| is_total));
    Some(RunReport {
        messages: measured.total.delivered,
        seconds: measured.total.seconds,
        messages_per_second: rate(measured, plan.rate.is_some()),
        latency_ns: latency(measured, plan.rate.is_some()),
        fast_path: account.fast_path,
        header_bytes: account.header_bytes,
        cast_frames: account.cast_frames,
        frames: account.frames,
        system_calls: account.system_calls,
        // In memory all members share one process, each of whose counts is the whole.
        allocations: if plan.transport == crate::plan::TransportKind::Memory {
            measured.allocations
        } else {
            allocations
        },
        copies: account.copies,
        lost: faults.lost,
        duplicated: faults.duplicated,
        misordered: faults.misordered,
        corrupted: faults.corrupted,
        misses: account.misses,
        dropped: account.dropped,
        sent: sides.iter().map(|side| side.sent).sum(),
        resident_bytes: (
            largest(|member| member.resident_bytes.0),
            largest(|member| member.resident_bytes.1),
        ),
        pauses: account.pauses,
        notes: measured.notes.clone(),
        crowded: members.iter().any(|member| member.crowded),
        failure,
        ..bare(plan, raw)
    })
}

/// Why members did not come to their end, in their words.
fn failures(members: &[MemberReport]) -> Option<String> {
    let failures: Vec<String> = members.iter().filter_map(|member| member.failure.clone()).collect();
    (!failures.is_empty()).then(|| failures.join("; "))
}

/// Which members delivered the messages of all in another order than which, in words, if they did not all in one.
fn parted(members: &[MemberReport]) -> Option<String> {
    let mut sequences: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (rank, member) in members.iter().enumerate() {
        sequences.entry(member.stack.as_ref()?.sequence).or_default().push(rank);
    }
    let mut groups: Vec<Vec<usize>> = sequences.into_values().collect();
    groups.sort();
    let named = |ranks: &Vec<usize>| {
        let names: Vec<String> = ranks.iter().map(ToString::to_string).collect();
        format!("member{} {}", if ranks.len() == 1 { "" } else { "s" }, names.join(" and "))
    };
    let names: Vec<String> = groups.iter().map(named).collect();
    (names.len() > 1).then(|| {
        format!(
            "members delivered the same messages in different orders, where the stack promises one: {}",
            names.join(" against ")
        )
    })
}

/// Deliveries per second; of short blocks the median, which others on the machine disturb least, unless it was given.
fn rate(side: &Side, open_loop: bool) -> f64 {
    match side.blocks.len() {
        0 | 1 => side.total.rate(),
        _ if open_loop => side.total.rate(),
        _ => median(side.blocks.iter().map(BlockResult::rate).collect()),
    }
}

/// Latencies; in an open loop the median over the blocks, if there are many, of each but the extremes. A time slice that
/// another process got is then in the blocks it falls into, and not in the percentiles of all.
fn latency(side: &Side, open_loop: bool) -> LatencySummary {
    let total = side.total.latency;
    if !open_loop || side.blocks.len() < BLOCKS_MANY {
        return total;
    }
    let middle = |of: fn(&LatencySummary) -> u64| {
        median(side.blocks.iter().map(|block| of(&block.latency) as f64).collect()) as u64
    };
    LatencySummary {
        p50: middle(|block| block.p50),
        p90: middle(|block| block.p90),
        p99: middle(|block| block.p99),
        ..total
    }
}

fn versus(raw: &Side, stack: &Side) -> VersusRaw {
    let ratios = |of: fn(&BlockResult) -> f64| {
        let pairs = raw.blocks.iter().zip(&stack.blocks);
        median(
            pairs
                .map(|(raw, stack)| (of(raw), of(stack)))
                .filter(|(raw, _)| *raw > 0.0)
                .map(|(r, s)| s / r)
                .collect(),
        )
    };
    let p50 = |block: &BlockResult| block.latency.p50 as f64;
    VersusRaw {
        blocks: raw.blocks.len().min(stack.blocks.len()),
        p50_ratio: ratios(p50),
        p50_raw_ns: median(raw.blocks.iter().map(p50).collect()),
        p50_stack_ns: median(stack.blocks.iter().map(p50).collect()),
        rate_ratio: ratios(BlockResult::rate),
        p99_ratio: ratios(|block| block.latency.p99 as f64),
    }
}

/// So many blocks have a median worth the name.
const BLOCKS_MANY: usize = 50;

/// How this program was called, but for where it wrote.
pub fn command_line() -> String {
    let mut words = vec!["wadjet".to_owned()];
    let mut arguments = std::env::args().skip(1);
    while let Some(word) = arguments.next() {
        match word.as_str() {
            "--json" | "--histories" => drop(arguments.next()),
            _ if word.contains(' ') => words.push(format!("'{word}'")),
            _ => words.push(word),
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(blocks: &[(u64, f64)]) -> Side {
        let block = |(p50, seconds): &(u64, f64)| BlockResult {
            delivered: 1000,
            seconds: *seconds,
            latency: LatencySummary { p50: *p50, ..LatencySummary::default() },
        };
        Side { blocks: blocks.iter().map(block).collect(), ..Side::default() }
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // The machine was three times slower in the second pair; the ratio is 1.5 in each.
        let raw = side(&[(100, 1.0), (300, 3.0), (100, 1.0)]);
        let stack = side(&[(150, 2.0), (450, 6.0), (150, 2.0)]);
        let versus = versus(&raw, &stack);
        assert_eq!((versus.p50_ratio, versus.rate_ratio, versus.blocks), (1.5, 0.5, 3));
        assert_eq!((versus.p50_raw_ns, versus.p50_stack_ns), (100.0, 150.0));
    }

    #[test]
    fn raw_and_stack_are_related_to_what_each_is_without_load() {
        let run = |raw, load: f64, p50, p90| RunReport {
            raw,
            load: Some(load),
            rate: Some(load),
            messages: 1,
            latency_ns: LatencySummary { p50, p90, ..LatencySummary::default() },
            ..RunReport::default()
        };
        let mut runs = [
            run(true, 1.0, 100, 110),
            run(false, 1.0, 200, 220),
            run(true, 50.0, 150, 400),
            run(false, 50.0, 210, 500),
        ];
        relate_to_unloaded(&mut runs, 1.0);
        let ratios = runs.map(|run| run.p90_over_unloaded_p50.unwrap());
        assert_eq!(ratios, [1.1, 1.1, 4.0, 2.5]);
    }

    #[test]
    fn a_fault_anywhere_makes_the_run_bad() {
        let good = RunReport { messages: 1, ..RunReport::default() };
        assert!(good.good());
        assert!(!RunReport { messages: 0, ..good.clone() }.good(), "nothing was measured");
        assert!(!RunReport { lost: 1, ..good.clone() }.good());
        assert!(!RunReport { duplicated: 1, ..good.clone() }.good());
        assert!(!RunReport { misordered: 1, ..good.clone() }.good());
        assert!(!RunReport { failure: Some("stalled".into()), ..good }.good());
    }
}
