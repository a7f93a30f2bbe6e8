//! What the performance contract asks for (design section 9), beside what the reports say.

use std::fmt::Write;

use crate::memory_cost::{MemoryCost, Path};
use crate::performance::Instructions;
use crate::plan::Order;
use crate::report::{Report, RunReport};
use crate::workload::Pattern;

/// One row of the contract.
struct Row {
    what: String,
    must: String,
    measured: String,
    met: bool,
}

/// A figure that may be as large as this, or as small.
enum Bound {
    Most(f64),
    Least(f64),
}

impl Bound {
    fn holds(&self, figure: f64) -> bool {
        match self {
            Bound::Most(most) => figure <= *most,
            Bound::Least(least) => figure >= *least,
        }
    }
}

/// The rows of the contract that these counts and reports say something about, as a table in Markdown.
pub fn text(instructions: &Instructions, reports: &[Report]) -> String {
    let mut rows = Vec::new();
    for report in reports {
        closed_loop(&mut rows, report);
        memory(&mut rows, &report.memory_cost);
        total_order(&mut rows, report);
    }
    layers(&mut rows, instructions);
    for report in reports {
        open_loop(&mut rows, report);
    }
    hits(&mut rows, reports);
    let mut text = String::from("| what | must | measured | |\n|---|---|---|---|\n");
    for Row { what, must, measured, met } in rows {
        let met = if met { "met" } else { "**not met**" };
        writeln!(text, "| {what} | {must} | {measured} | {met} |").expect("a string takes what it is given");
    }
    text
}

/// Round trips, and streams from one member to another.
fn closed_loop(rows: &mut Vec<Row>, report: &Report) {
    // The curves by size and by number of members are not what the contract is about.
    let runs = || report.runs.iter().filter(|run| run.size == 64 && run.members == 2 && run.load.is_none());
    let beside_raw = || runs().filter(|run| !run.raw && run.vs_raw.is_some());
    for run in beside_raw().filter(|run| run.pattern == Pattern::Pingpong.name()) {
        round_trip(rows, run, report.floor.is_some());
    }
    if report.floor.is_none() {
        return;
    }
    for run in beside_raw().filter(|run| run.pattern == Pattern::Stream.name()) {
        let (transport, packing) = (run.transport.as_str(), packing(run));
        let millions = run.messages_per_second / 1e6;
        let ratio = run.vs_raw.map_or(0.0, |versus| versus.rate_ratio);
        let least = match (transport, run.pack) {
            // ADR 016.
            ("shm", pack) => {
                let least = if pack { 1.0 } else { 0.5 };
                row(
                    rows,
                    format!("shm stream, {packing}: of raw's rate"),
                    Bound::Least(least),
                    ratio,
                    "x",
                    2,
                );
                continue;
            }
            ("udp", true) => 15.0,
            ("udp", false) => 4.0,
            ("xdp", true) => 8.0,
            _ => continue,
        };
        row(rows, format!("{transport} stream, {packing}"), Bound::Least(least), millions, "M/s", 1);
    }
    let pingpong_of = |transport: &str| {
        beside_raw().find(|run| run.pattern == Pattern::Pingpong.name() && run.transport == transport)
    };
    if let Some((xdp, udp)) = pingpong_of("xdp").zip(pingpong_of("udp")) {
        let ratio = xdp.latency_ns.p50 as f64 / udp.latency_ns.p50 as f64;
        row(rows, "xdp ping-pong: p50 of udp's".into(), Bound::Most(0.5), ratio, "x", 2);
    }
    let streams = beside_raw().filter(|run| run.pattern == Pattern::Stream.name() && run.messages > 0);
    let calls = streams.map(|run| run.system_calls as f64 / run.messages as f64).fold(0.0, f64::max);
    row(
        rows,
        "system calls for a message of a stream, the most of all".into(),
        Bound::Most(1.0),
        calls,
        "",
        2,
    );
    let stacks: Vec<&RunReport> = beside_raw().collect();
    let sum = |of: fn(&RunReport) -> u64| stacks.iter().map(|run| of(run)).sum::<u64>() as f64;
    row(rows, "payload copies".into(), Bound::Most(0.0), sum(|run| run.copies), "", 0);
    let own = |run: &RunReport| if run.transport == "xdp" { 0 } else { run.allocations.unwrap_or(u64::MAX) };
    row(
        rows,
        "allocations (xdp apart, which reads the system's tables)".into(),
        Bound::Most(0.0),
        sum(own),
        "",
        0,
    );
}

fn round_trip(rows: &mut Vec<Row>, run: &RunReport, is_default: bool) {
    let Some(versus) = run.vs_raw else { return };
    let transport = &run.transport;
    let (order, header_bytes, most) = match (is_default, run.order) {
        (true, Some(Order::Fifo)) => ("", 24.0, [2.0, 100.0, 1.05, 1.10]),
        (false, Some(Order::Agreed)) => (", total order", 32.0, [2.2, 120.0, 1.10, 1.15]),
        _ => return,
    };
    let [shm, shm_ns, udp, xdp] = most;
    let most = match transport.as_str() {
        "shm" => (1.0 + shm_ns / versus.p50_raw_ns).max(shm),
        "xdp" => xdp,
        "udp" | "uring" => udp,
        _ => return,
    };
    let what = format!("{transport} ping-pong{order}: p50 of raw's");
    row(rows, what, Bound::Most(most), versus.p50_ratio, "x", 2);
    if transport == "shm" {
        let header = format!("fast header{}", if order.is_empty() { ", no total order" } else { order });
        row(rows, header, Bound::Most(header_bytes), run.header_bytes as f64, "B", 0);
        if is_default {
            let spread = run.latency_ns.p99 as f64 / run.latency_ns.p50 as f64;
            row(rows, "shm ping-pong: p99 of its own p50".into(), Bound::Most(2.0), spread, "x", 2);
        }
    }
}

/// What one order for all costs, where a report has runs with and without.
fn total_order(rows: &mut Vec<Row>, report: &Report) {
    for agreed in report.runs.iter().filter(|run| run.order == Some(Order::Agreed)) {
        let is_same = |run: &&RunReport| {
            (&run.transport, run.members, run.size, &run.pattern)
                == (&agreed.transport, agreed.members, agreed.size, &agreed.pattern)
        };
        let beside = |order| report.runs.iter().filter(is_same).find(|run| run.order == Some(order));
        let (transport, members) = (&agreed.transport, agreed.members);
        let (pingpong, stream, all) =
            (Pattern::Pingpong.name(), Pattern::Stream.name(), Pattern::AllToAll.name());
        if let Some(fifo) = beside(Order::Fifo) {
            let rate = agreed.messages_per_second / fifo.messages_per_second;
            let (what, least) = match agreed.pattern.as_str() {
                name if name == stream => ("one member casts", 1.0 / 1.05),
                name if name == all => ("all cast", 0.7),
                _ => ("", 0.0),
            };
            if !what.is_empty() {
                let what = format!("{transport}, total order, {members} members, {what}: of FIFO's rate");
                row(rows, what, Bound::Least(least), rate, "x", 2);
            }
        }
        if let Some(safe) = beside(Order::Safe).filter(|_| agreed.pattern == pingpong && members == 2) {
            let more = safe.latency_ns.p50 as f64 / agreed.latency_ns.p50 as f64;
            let what = format!("{transport} ping-pong, safe: p50 of agreed's");
            // One more round trip than agreed, whose ping-pong is one.
            row(rows, what, Bound::Most(2.0), more, "x", 2);
        }
    }
}

/// One message through a stack, without a transport.
fn memory(rows: &mut Vec<Row>, costs: &[MemoryCost]) {
    let eight = |cost: &MemoryCost| cost.layers == 8 && !cost.stack.contains("wire=yes");
    let full = |cost: &MemoryCost| cost.stack.contains("MBRSHIP");
    for (stack, is_it) in [("8 layers", &eight as &dyn Fn(&MemoryCost) -> bool), ("the full stack", &full)] {
        let of = |path: Path| costs.iter().filter(move |cost| cost.path == path && is_it(cost));
        for cost in of(Path::Burst) {
            let (checksum, most) = if cost.checksum { ("with", 70.0) } else { ("without", 45.0) };
            let what = format!("one 64 B cast in memory, sent and delivered, {stack}, {checksum} checksum");
            row(rows, what, Bound::Most(most), cost.warm_ns, "ns", 1);
            // How fast this machine is, in the same run.
            let is_reference =
                |other: &&MemoryCost| other.path == Path::Fused && other.checksum == cost.checksum;
            if let Some(reference) = costs.iter().find(is_reference)
                && let Some(row) = rows.last_mut()
            {
                row.measured += &format!(" (the hand-fused reference {:.1})", reference.warm_ns);
            }
        }
        for cost in of(Path::Packed).filter(|cost| !cost.checksum) {
            let what = format!("1 B casts packed, delivered on one core, {stack}");
            row(rows, what, Bound::Least(100.0), 1e3 / cost.warm_ns, "M/s", 0);
        }
        for cost in of(Path::Slow).filter(|cost| !cost.checksum) {
            let what = format!("one 64 B cast in memory, by the layers alone, {stack}");
            row(rows, what, Bound::Most(1500.0), cost.warm_ns, "ns", 0);
        }
    }
}

/// What more layers cost.
fn layers(rows: &mut Vec<Row>, instructions: &Instructions) {
    let count = |name: &str| instructions.instructions.get(name).copied();
    for way in ["burst", "fast"] {
        let twenty = count(&format!("{way}-20-effects"));
        if let Some((twenty, five)) = twenty.zip(count(&format!("{way}-5"))) {
            let what = format!("20 layers, ten with effects, over 5: instructions, `{way}`");
            row(rows, what, Bound::Most(1.10), twenty / five, "x", 2);
        }
    }
}

/// At half of the capacity.
fn open_loop(rows: &mut Vec<Row>, report: &Report) {
    for run in report.runs.iter().filter(|run| !run.raw && run.load == Some(50.0) && run.rate.is_some()) {
        let what = format!("{} at half load, {}", run.transport, packing(run));
        if let Some(ratio) = run.p90_over_unloaded_p50 {
            row(rows, format!("{what}: p90 of the unloaded p50"), Bound::Most(3.0), ratio, "x", 2);
        }
        if let Some(versus) = run.vs_raw {
            let what = format!("{what}: p99 of raw's at as many frames");
            row(rows, what, Bound::Most(1.5), versus.p99_ratio, "x", 2);
        }
    }
}

/// How many messages the plans carried, where members send as fast as they can and where all do.
fn hits(rows: &mut Vec<Row>, reports: &[Report]) {
    for (what, all) in [("one member casts", false), ("all members cast", true)] {
        // Members that share a core overrun each other, and repairs take the layers.
        let runs = reports.iter().flat_map(|report| &report.runs).filter(|run| {
            let alone = !run.shared_cores && run.load.is_none();
            !run.raw && run.accel && alone && (run.pattern == Pattern::AllToAll.name()) == all
        });
        let rates = runs.filter_map(|run| run.fast_path.hit_rate());
        if let Some(least) = rates.reduce(f64::min) {
            row(
                rows,
                format!("hits, {what}, members on cores of their own: the least of all runs"),
                Bound::Least(99.9),
                least * 100.0,
                "%",
                3,
            );
        }
    }
}

fn packing(run: &RunReport) -> &'static str {
    if run.pack { "packed" } else { "not packed" }
}

fn row(rows: &mut Vec<Row>, what: String, bound: Bound, figure: f64, unit: &str, digits: usize) {
    let (most, word) = match bound {
        Bound::Most(most) => (most, "at most"),
        Bound::Least(least) => (least, "at least"),
    };
    let exact = format!("{most:.2}");
    let bound_text = exact.trim_end_matches('0').trim_end_matches('.');
    let must = format!("{word} {bound_text} {unit}");
    let measured = format!("{figure:.digits$} {unit}");
    let [must, measured] = [must, measured].map(|cell| cell.trim_end().to_owned());
    rows.push(Row { what, must, measured, met: bound.holds(figure) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::Floor;
    use crate::histogram::LatencySummary;
    use crate::report::VersusRaw;

    fn pingpong(p50_ratio: f64, p99: u64) -> Report {
        let run = RunReport {
            transport: "shm".into(),
            members: 2,
            size: 64,
            pattern: Pattern::Pingpong.name().into(),
            order: Some(Order::Fifo),
            latency_ns: LatencySummary { p50: 300, p99, ..LatencySummary::default() },
            vs_raw: Some(VersusRaw { p50_ratio, p50_raw_ns: 80.0, ..VersusRaw::default() }),
            allocations: Some(0),
            ..RunReport::default()
        };
        Report {
            machine: crate::machine::Machine::read(),
            command: String::new(),
            runs: vec![run],
            floor: Some(Floor::default()),
            memory_cost: Vec::new(),
        }
    }

    #[test]
    fn a_row_is_met_up_to_its_bound_and_not_beyond() {
        // 100 ns on 80 are more than twice as long, and allowed.
        let met = text(&Instructions::default(), &[pingpong(2.25, 600)]);
        assert!(met.contains("| at most 2.25 x | 2.25 x | met |"), "{met}");
        assert!(met.contains("| at most 2 x | 2.00 x | met |"), "{met}");
        let missed = text(&Instructions::default(), &[pingpong(2.26, 603)]);
        assert!(missed.contains("| at most 2.25 x | 2.26 x | **not met** |"), "{missed}");
        assert!(missed.contains("| at most 2 x | 2.01 x | **not met** |"), "{missed}");
    }

    #[test]
    fn what_was_not_measured_is_no_row() {
        assert_eq!(text(&Instructions::default(), &[]).lines().count(), 2);
    }
}
