//! The report for people.

use std::fmt::Write;

use crate::memory_cost::{MemoryCost, Path};
use crate::plan::Order;
use crate::report::{Report, RunReport};
use crate::workload::Pattern;

/// The whole report, aligned, with units, ending in a newline.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    writeln!(out, "{}", report.machine).expect("a string takes what it is given");
    let (open, closed): (Vec<&RunReport>, Vec<&RunReport>) =
        report.runs.iter().partition(|run| run.rate.is_some() || run.load.is_some());
    for pattern in [Pattern::Pingpong, Pattern::Stream, Pattern::AllToAll, Pattern::Alternating] {
        let runs: Vec<&RunReport> =
            closed.iter().copied().filter(|run| run.pattern == pattern.name()).collect();
        if !runs.is_empty() {
            out.push('\n');
            out.push_str(&section(pattern, &runs, report));
        }
    }
    if !open.is_empty() {
        out.push('\n');
        out.push_str(&open_loop(&open));
    }
    out.push_str(&memory(report));
    out.push_str(&notes(report));
    out
}

fn section(pattern: Pattern, runs: &[&RunReport], report: &Report) -> String {
    let mut table = Table::default();
    let latency = matches!(pattern, Pattern::Pingpong | Pattern::Alternating);
    table.row([
        pattern.name(),
        "",
        "members",
        "size B",
        "p50",
        "p99",
        "p99.9",
        "p50 vs raw",
        "M msg/s",
        "rate vs raw",
        "hit %",
        "header B",
        "frames",
        "calls",
        "allocs",
        "copies",
        "faults",
    ]);
    if matches!(pattern, Pattern::Pingpong | Pattern::Stream)
        && let Some(floor) = &report.floor
    {
        let (round, rate) = (floor.round_trip_ns, floor.messages_per_second);
        let is_pingpong = pattern == Pattern::Pingpong;
        let time = |nanoseconds: u64| if is_pingpong { duration(nanoseconds) } else { String::new() };
        table.row([
            "64 B ring",
            "floor",
            "2",
            "64",
            &time(round.p50),
            &time(round.p99),
            &time(round.p99_9),
            "",
            &if is_pingpong { String::new() } else { millions(rate) },
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
        ]);
    }
    for run in runs {
        let shown = latency && run.messages > 0;
        let time = |nanoseconds: u64| if shown { duration(nanoseconds) } else { "-".into() };
        let per_message = |count: u64| {
            if run.messages == 0 { "-".into() } else { ratio(count as f64 / run.messages as f64) }
        };
        let versus = |of: fn(&crate::report::VersusRaw) -> f64| {
            run.vs_raw.as_ref().map_or(String::new(), |versus| format!("{:.2} x", of(versus)))
        };
        table.row([
            &run.transport,
            &what(run),
            &run.members.to_string(),
            &run.size.to_string(),
            &time(run.latency_ns.p50),
            &time(run.latency_ns.p99),
            &time(run.latency_ns.p99_9),
            &if shown { versus(|versus| versus.p50_ratio) } else { String::new() },
            &millions(run.messages_per_second),
            &versus(|versus| versus.rate_ratio),
            &run.fast_path.hit_rate().map_or(String::new(), |rate| format!("{:.3}", rate * 100.0)),
            &run.header_bytes.to_string(),
            &per_message(run.frames),
            &per_message(run.system_calls),
            &run.allocations.map_or("?".into(), |count| count.to_string()),
            &run.copies.to_string(),
            &faults(run),
        ]);
    }
    table.text()
}

/// Traffic that does not wait for answers, at each load.
fn open_loop(runs: &[&RunReport]) -> String {
    let mut table = Table::default();
    table.row([
        "open loop",
        "",
        "pattern",
        "arrivals",
        "members",
        "size B",
        "load %",
        "M msg/s",
        "M frames/s",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p90 vs unloaded p50",
        "p99 vs raw",
        "hit %",
        "faults",
    ]);
    for run in runs {
        // As fast as it goes, a message waits for those before it: its latency says how long the queues are.
        let shown = run.rate.is_some() && run.messages > 0;
        let time = |nanoseconds: u64| if shown { duration(nanoseconds) } else { "-".into() };
        let times = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2} x"));
        let frames = if run.seconds > 0.0 { run.cast_frames as f64 / run.seconds } else { 0.0 };
        table.row([
            &run.transport,
            &what(run),
            &run.pattern,
            if shown { run.arrivals.name() } else { "" },
            &run.members.to_string(),
            &run.size.to_string(),
            &match (run.rate, run.load) {
                (Some(_), Some(percent)) => percent.to_string(),
                (None, Some(_)) => "capacity".into(),
                (_, None) => String::new(),
            },
            &millions(run.messages_per_second),
            &millions(frames),
            &time(run.latency_ns.p50),
            &time(run.latency_ns.p90),
            &time(run.latency_ns.p99),
            &time(run.latency_ns.p99_9),
            &times(run.p90_over_unloaded_p50),
            &times(run.vs_raw.map(|versus| versus.p99_ratio)),
            &run.fast_path.hit_rate().map_or(String::new(), |rate| format!("{:.3}", rate * 100.0)),
            &faults(run),
        ]);
    }
    table.text()
}

fn faults(run: &RunReport) -> String {
    let faults = run.faults();
    if run.failure.is_some() {
        "FAILED".into()
    } else if faults.any() {
        format!(
            "LOST {} DUP {} ORDER {} BYTES {}",
            faults.lost, faults.duplicated, faults.misordered, faults.corrupted
        )
    } else {
        "0".into()
    }
}

fn what(run: &RunReport) -> String {
    if run.raw {
        return "raw".into();
    }
    let mut words = String::from("stack");
    if let Some(order) = run.order.filter(|order| *order != Order::Fifo) {
        words = words + ", " + order.name();
    }
    for (said, word) in [(!run.accel, ", layers only"), (!run.pack, ", no packing")] {
        words.push_str(if said { word } else { "" });
    }
    words
}

fn memory(report: &Report) -> String {
    if report.memory_cost.is_empty() {
        return String::new();
    }
    let mut table = Table::default();
    table.row(["one 64 B cast", "checksum", "layers", "warm ns", "cold ns", "warm vs fused"]);
    for cost in &report.memory_cost {
        let is_reference = |other: &&MemoryCost| other.path == Path::Fused && other.checksum == cost.checksum;
        let comparable = matches!(cost.path, Path::Burst | Path::Fast | Path::Slow);
        let fused = report.memory_cost.iter().find(is_reference).filter(|_| comparable);
        let path = match cost.path {
            Path::Fused => "hand-fused reference",
            Path::Burst => "compiled plan, 16 to an iteration",
            Path::Fast => "compiled plan, 1 to an iteration",
            Path::Packed => "compiled plan, 1 B casts packed",
            Path::Slow => "layers only, 1 to an iteration",
        };
        let special = [
            ("MBRSHIP", ", the full stack"),
            ("TOTAL", ", TOTAL"),
            ("SEQUENCER", ", SEQUENCER"),
            ("METER", ", ten with effects"),
            ("wire=yes", ", a field that travels"),
        ];
        let of = special.iter().find(|(mark, _)| cost.stack.contains(mark)).map_or("", |(_, of)| *of);
        table.row([
            &format!("{path}{of}"),
            if cost.checksum { "CRC32C" } else { "none" },
            &if cost.layers == 0 { String::new() } else { cost.layers.to_string() },
            &format!("{:.1}", cost.warm_ns),
            &format!("{:.0}", cost.cold_ns),
            &fused.map_or(String::new(), |fused| format!("{:.2} x", cost.warm_ns / fused.warm_ns)),
        ]);
    }
    format!("\n{}", table.text())
}

/// What one must know to read the figures, and what went wrong.
fn notes(report: &Report) -> String {
    let mut out = String::from("\n");
    let mut say = |line: &str| {
        out.push_str("  ");
        out.push_str(line);
        out.push('\n');
    };
    if report.runs.iter().any(|run| run.vs_raw.is_some()) {
        let blocks =
            report.runs.iter().filter_map(|run| run.vs_raw).map(|versus| versus.blocks).min().unwrap_or(0);
        say(&format!(
            "\"vs raw\": the median over at least {blocks} pairs of interleaved blocks; rows of different runs compare badly."
        ));
    }
    say(
        "raw: the same transport, frames and loop without a stack, one message per frame behind a 16-byte header.",
    );
    say(
        "stack: packs messages while the way is busy; every delivery is checked for loss, repetition, order and bytes.",
    );
    if report.runs.iter().any(|run| run.stack.contains("MBRSHIP")) {
        say(
            "stack: views are agreed on, heartbeats go every millisecond; nobody is suspected here for seconds.",
        );
    }
    say("p50..p99.9: ping-pong the round trip; otherwise one way from the intended time of sending.");
    say(
        "M msg/s: messages of others delivered at one receiver (own copies not counted), the median block of a closed loop; ping-pong: rounds.",
    );
    say(
        "frames, calls: all members' frames and system calls per such message. allocs, copies: all members', whole run.",
    );
    if report.runs.iter().any(|run| run.load.is_some()) {
        say(
            "load: percent of the capacity, which is what went as fast as it goes, every latency taken; unloaded: the lightest load.",
        );
    }
    if report.runs.iter().any(|run| run.rate.is_some() && run.vs_raw.is_some()) {
        say(
            "open loop: the raw blocks beside a stack's send as many messages as the stack's block before sent frames.",
        );
        say(
            "open loop: p50, p90 and p99 are medians over the blocks of the blocks' own; p99.9 is that of all messages together.",
        );
    }
    if report.runs.iter().any(|run| run.shared_cores) {
        say("members shared cores: they yield to each other, and latencies are those of the scheduler.");
    }
    if !report.memory_cost.is_empty() {
        say(
            "one 64 B cast: both upcalls and all that follows included (own copy, gossip, trimming), no transport.",
        );
    }
    if let Some(floor) = report.floor.as_ref().filter(|floor| floor.far_messages_per_second > 0.0) {
        let far = millions(floor.far_messages_per_second);
        say(&format!(
            "64 B ring: of 256 KiB, from cache to cache; one of 64 MiB, read long after it is written, {far} M/s."
        ));
    }
    if let Some(lines) = report.floor.as_ref().map(|floor| floor.lines).filter(|lines| lines.write_ns > 0.0) {
        let ring = millions(lines.ring_messages_per_second());
        say(&format!(
            "one line from core to core: alone {:.0} ns, read in order {:.1}, taken back to be written {:.1}: a ring of lines goes at {ring} M/s.",
            lines.chained_ns, lines.read_ns, lines.write_ns
        ));
        say(if lines.share_a_cache() {
            "the cores share a cache (near): rings go several times as fast as between cores that lie apart."
        } else {
            "the cores lie apart, without a cache in common; near each other rings go several times as fast."
        });
    }
    if report.machine.virtual_machine {
        say("virtual machine: the hypervisor takes time away; p99.9 shows it, whatever the code does.");
    }
    let disturbed = report.runs.iter().filter(|run| run.crowded || run.pauses > 0).count();
    if disturbed > 0 {
        let pauses: u64 = report.runs.iter().map(|run| run.pauses).sum();
        say(&format!(
            "{disturbed} of {} rows were disturbed by other processes: members yielded to them, or did not run for more than 10 ms ({pauses} times).",
            report.runs.len()
        ));
    }
    for run in &report.runs {
        let name = format!("{} {} {}", run.transport, run.pattern, what(run));
        if let Some(failure) = &run.failure {
            say(&format!("FAILED {name}: {failure}"));
        } else if !run.good() {
            say(&format!("FAULTY {name}: see its row; this is a bug, or the raw transport loses"));
        }
        let missed: u64 = run.misses.values().sum();
        if run.accel && run.fast_path.hit_rate().is_some_and(|rate| rate < HIT_RATE_EXPECTED) {
            for (why, count) in &run.misses {
                if count * 20 >= missed {
                    say(&format!("{name}: {count} x {why}"));
                }
            }
        }
        if !run.dropped.is_empty() {
            let reasons: Vec<String> =
                run.dropped.iter().map(|(why, count)| format!("{count} {why}")).collect();
            say(&format!("{name}: frames dropped: {}", reasons.join(", ")));
        }
        for note in &run.notes {
            say(&format!("{name}: {note}"));
        }
    }
    out
}

/// Below this a run says why plans were missed.
const HIT_RATE_EXPECTED: f64 = 0.999;

/// Columns as wide as their widest cell; the first two flush left, the others right.
#[derive(Default)]
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.rows.push(cells.iter().map(|cell| (*cell).to_owned()).collect());
    }

    fn text(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = if at == 0 || *width == 0 { "" } else { "  " };
                let cell = if at < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
                line.push_str(gap);
                line.push_str(&cell);
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

fn duration(nanoseconds: u64) -> String {
    match nanoseconds {
        0..10_000 => format!("{nanoseconds} ns"),
        10_000..1_000_000 => format!("{:.1} us", nanoseconds as f64 / 1e3),
        _ => format!("{:.1} ms", nanoseconds as f64 / 1e6),
    }
}

fn millions(per_second: f64) -> String {
    format!("{:.3}", per_second / 1e6)
}

fn ratio(value: f64) -> String {
    if value >= 10.0 { format!("{value:.1}") } else { format!("{value:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    fn report(runs: Vec<RunReport>) -> Report {
        Report {
            machine: Machine::read(),
            command: String::new(),
            runs,
            floor: None,
            memory_cost: Vec::new(),
        }
    }

    #[test]
    fn columns_line_up_and_faults_stand_out() {
        let run = |transport: &str, lost| RunReport {
            transport: transport.into(),
            pattern: "pingpong".into(),
            lost,
            ..RunReport::default()
        };
        let text = text(&report(vec![run("memory", 0), run("udp", 3)]));
        let lines: Vec<&str> = text.lines().skip(2).take(3).collect();
        assert!(lines[2].ends_with("LOST 3 DUP 0 ORDER 0 BYTES 0"), "{text}");
        let column = lines[0].find("members").unwrap() + "members".len();
        assert!(lines[1..].iter().all(|line| line[..column].ends_with('0')), "{text}");
        assert!(text.contains("FAULTY udp pingpong"), "{text}");
    }

    #[test]
    fn an_open_loop_has_rows_of_its_own() {
        let run = |load, rate| RunReport {
            transport: "udp".into(),
            pattern: "stream".into(),
            order: Some(Order::Agreed),
            accel: true,
            messages: 1000,
            seconds: 0.001,
            load: Some(load),
            rate,
            ..RunReport::default()
        };
        let text = text(&report(vec![run(100.0, None), run(50.0, Some(5e5))]));
        assert!(!text.contains("rate vs raw"), "no closed loop was measured: {text}");
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("udp")).collect();
        assert!(rows[0].contains("stack, agreed, no packing") && rows[0].contains("capacity"), "{text}");
        assert!(rows[1].contains("even") && rows[1].contains("50"), "{text}");
    }

    #[test]
    fn times_keep_three_digits() {
        assert_eq!([duration(190), duration(27_130), duration(1_230_000)], ["190 ns", "27.1 us", "1.2 ms"]);
    }
}
