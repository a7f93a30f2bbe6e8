//! What the performance contract asks for (design section 9), beside what the reports say.

use std::fmt::Write;

use serde::Deserialize;

use crate::histogram::LatencySummary;
use crate::memory_cost::{MemoryCost, Path};
use crate::performance::Instructions;
use crate::plan::Order;
use crate::report::{Report, RunReport};
use crate::workload::Pattern;

/// What the contract is held against.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// The recorded counts.
    pub instructions: &'a Instructions,
    /// What `wadjet bench` reported.
    pub reports: &'a [Report],
    /// What `wadjet bench --failure` did.
    pub failures: &'a [Failure],
}

/// What the contract asks of a report of `wadjet bench --failure`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Failure {
    transport: String,
    members: usize,
    fault: String,
    load: String,
    /// From the fault to the next view at each survivor.
    view_ns: LatencySummary,
}

/// All rows of the contract, as a table in Markdown. What nobody has measured is said to be so.
pub fn text(measured: Measured<'_>) -> String {
    let Measured { instructions, reports, failures } = measured;
    let mut rows = Rows::default();
    // The curves by size and by number of members are not what the contract is about.
    let whole = reports.iter().find(|report| report.floor.is_some());
    let beside_raw = |run: &&RunReport| {
        run.size == 64 && run.members == 2 && run.load.is_none() && !run.raw && run.vs_raw.is_some()
    };
    let runs: Vec<&RunReport> = whole.iter().flat_map(|report| &report.runs).filter(beside_raw).collect();
    round_trips(&mut rows, &runs, Order::Fifo);
    streams(&mut rows, &runs);
    memory(&mut rows, whole.map_or(&[], |report| &report.memory_cost));
    layers(&mut rows, instructions, whole.map_or(&[], |report| &report.memory_cost));
    each_message(&mut rows, &runs);
    hits(&mut rows, reports);
    noticed(&mut rows, failures);
    let in_orders = |report: &&Report| report.runs.iter().any(|run| run.order == Some(Order::Agreed));
    let runs: Vec<&RunReport> = reports.iter().filter(in_orders).flat_map(|report| &report.runs).collect();
    round_trips(&mut rows, &runs.iter().copied().filter(beside_raw).collect::<Vec<_>>(), Order::Agreed);
    total_order(&mut rows, &runs);
    open_loop(&mut rows, reports);
    rows.text()
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

#[derive(Default)]
struct Rows(Vec<Row>);

/// One row of the contract.
struct Row {
    what: String,
    must: String,
    /// The figure, and whether it is within the bound; if there is one.
    measured: Option<(String, bool)>,
}

impl Rows {
    /// `figure` is shown with so many digits behind the point.
    fn add(&mut self, what: impl Into<String>, bound: Bound, figure: Option<f64>, unit: &str, digits: usize) {
        let (most, word) = match bound {
            Bound::Most(most) => (most, "at most"),
            Bound::Least(least) => (least, "at least"),
        };
        let exact = format!("{most:.2}");
        let bound_text = exact.trim_end_matches('0').trim_end_matches('.');
        let with_unit = |figure: String| format!("{figure} {unit}").trim_end().to_owned();
        self.0.push(Row {
            what: what.into(),
            must: format!("{word} {}", with_unit(bound_text.to_owned())),
            measured: figure.map(|figure| (with_unit(format!("{figure:.digits$}")), bound.holds(figure))),
        });
    }

    fn text(self) -> String {
        let mut text = String::from("| what | must | measured | |\n|---|---|---|---|\n");
        for Row { what, must, measured } in self.0 {
            let (measured, met) = match measured {
                Some((figure, true)) => (figure, "met"),
                Some((figure, false)) => (figure, "**not met**"),
                None => ("not measured".to_owned(), ""),
            };
            writeln!(text, "| {what} | {must} | {measured} | {met} |")
                .expect("a string takes what it is given");
        }
        text
    }
}

/// Round trips beside raw's, and the header that they have.
fn round_trips(rows: &mut Rows, runs: &[&RunReport], order: Order) {
    let (named, header, header_bytes, [shm, xdp, udp]): (_, _, _, [f64; 3]) = match order {
        Order::Agreed => (", total order", ", total order", 32.0, [2.2, 1.15, 1.10]),
        _ => ("", ", no total order", 24.0, [2.0, 1.10, 1.05]),
    };
    // So many nanoseconds more than raw are allowed where that is short.
    let more_ns = |transport: &str| match (transport, order) {
        ("shm", Order::Agreed) => 120.0,
        ("shm", _) => 100.0,
        ("xdp", Order::Agreed) => 800.0,
        ("xdp", _) => 700.0,
        _ => 0.0,
    };
    let of = |transport: &str| {
        let is_it = |run: &&&RunReport| {
            run.transport == transport && run.pattern == Pattern::Pingpong.name() && run.order == Some(order)
        };
        runs.iter().find(is_it).copied()
    };
    for (transport, most) in [("shm", shm), ("xdp", xdp), ("udp", udp), ("uring", udp)] {
        // Nobody looks at what one order costs over uring, whose frames are udp's.
        if (transport, order) == ("uring", Order::Agreed) {
            continue;
        }
        let versus = of(transport).and_then(|run| run.vs_raw);
        let most = versus.map_or(most, |versus| most.max(1.0 + more_ns(transport) / versus.p50_raw_ns));
        let where_from = if transport == "xdp" { format!(" ({NANOSECONDS_MORE})") } else { String::new() };
        let what = format!("{transport} ping-pong{named}: p50 of raw's{where_from}");
        rows.add(what, Bound::Most(most), versus.map(|versus| versus.p50_ratio), "x", 2);
    }
    let bytes = of("shm").map(|run| run.header_bytes as f64);
    if order != Order::Agreed {
        let spread = of("shm").map(|run| run.latency_ns.p99 as f64 / run.latency_ns.p50 as f64);
        rows.add("shm ping-pong: p99 of its own p50", Bound::Most(2.0), spread, "x", 2);
        let p50 = |transport| of(transport).map(|run| run.latency_ns.p50 as f64);
        let ratio = p50("xdp").zip(p50("udp")).map(|(xdp, udp)| xdp / udp);
        rows.add("xdp ping-pong: p50 of udp's", Bound::Most(0.5), ratio, "x", 2);
    }
    rows.add(format!("fast header{header}"), Bound::Most(header_bytes), bytes, "B", 0);
}

/// From one member to another, as fast as it goes.
fn streams(rows: &mut Rows, runs: &[&RunReport]) {
    let of = |transport: &str, pack: bool| {
        let is_it = |run: &&&RunReport| {
            run.transport == transport && run.pack == pack && run.pattern == Pattern::Stream.name()
        };
        runs.iter().find(is_it)
    };
    for (pack, least) in [(true, 1.0), (false, 0.5)] {
        let what = format!("shm stream, {}: of raw's rate ({RAW_FRAMES})", packing(pack));
        let ratio = of("shm", pack).and_then(|run| run.vs_raw).map(|versus| versus.rate_ratio);
        rows.add(what, Bound::Least(least), ratio, "x", 2);
    }
    for (transport, pack, least) in [("udp", true, 15.0), ("udp", false, 4.0), ("xdp", true, 8.0)] {
        let millions = of(transport, pack).map(|run| run.messages_per_second / 1e6);
        rows.add(format!("{transport} stream, {}", packing(pack)), Bound::Least(least), millions, "M/s", 1);
    }
}

/// One message through a stack, without a transport.
fn memory(rows: &mut Rows, costs: &[MemoryCost]) {
    let eight = |cost: &MemoryCost| cost.layers == 8 && !cost.stack.contains("wire=yes");
    let full = |cost: &MemoryCost| cost.stack.contains("MBRSHIP");
    for (stack, is_it) in [("8 layers", &eight as &dyn Fn(&MemoryCost) -> bool), ("the full stack", &full)] {
        let of = |path: Path, checksum: bool| {
            costs.iter().find(|cost| (cost.path, cost.checksum) == (path, checksum) && is_it(cost))
        };
        // How fast this machine is, in the same run.
        let is_reference = |other: &&MemoryCost| (other.path, other.checksum) == (Path::Fused, false);
        let reference = costs.iter().find(is_reference).map(|cost| cost.warm_ns);
        for (checksum, most) in [(false, 45.0), (true, 70.0)] {
            let with = if checksum { "with" } else { "without" };
            let what = format!(
                "one 64 B cast in memory, sent and delivered, {stack}, {with} checksum: of the hand-fused reference's time \
                 ({HAND_FUSED})"
            );
            let cost = of(Path::Burst, checksum).map(|cost| cost.warm_ns).zip(reference);
            let ratio = cost.map(|(cost, reference)| cost / reference);
            rows.add(what, Bound::Most(most / REFERENCE_NS), ratio, "x", 2);
            if let (Some(Row { measured: Some((figure, _)), .. }), Some((cost, reference))) =
                (rows.0.last_mut(), cost)
            {
                *figure += &format!(" ({cost:.1} ns of {reference:.1})");
            }
        }
        let millions = of(Path::Packed, false).map(|cost| 1e3 / cost.warm_ns);
        let what = format!("1 B casts packed, delivered on one core, {stack}");
        rows.add(what, Bound::Least(100.0), millions, "M/s", 0);
    }
    let slow = costs.iter().find(|cost| cost.path == Path::Slow && !cost.checksum && eight(cost));
    let slow = slow.map(|cost| cost.warm_ns);
    rows.add("one 64 B cast in memory, by the layers alone, 8 layers", Bound::Most(1500.0), slow, "ns", 0);
}

/// What more layers cost.
fn layers(rows: &mut Rows, instructions: &Instructions, costs: &[MemoryCost]) {
    for path in [Path::Burst, Path::Fast] {
        let count = |layers: &str| instructions.instructions.get(&format!("{}-{layers}", path.name()));
        let ratio = count("20-effects").zip(count("5")).map(|(twenty, five)| twenty / five);
        let what =
            |unit: &str| format!("20 layers, ten of them with effects, over 5: {unit}, `{}`", path.name());
        rows.add(what("instructions"), Bound::Most(1.10), ratio, "x", 2);
        let time = |layers: usize, effects: bool| {
            let is_it = |cost: &&MemoryCost| {
                (cost.layers, cost.path, cost.checksum) == (layers, path, false)
                    && cost.stack.contains("METER") == effects
            };
            costs.iter().find(is_it).map(|cost| cost.warm_ns)
        };
        let ratio = time(20, true).zip(time(5, false)).map(|(twenty, five)| twenty / five);
        rows.add(what("nanoseconds in memory"), Bound::Most(1.10), ratio, "x", 2);
    }
}

/// What a message costs beside time.
fn each_message(rows: &mut Rows, runs: &[&RunReport]) {
    let is_stream = |run: &&&RunReport| run.pattern == Pattern::Stream.name() && run.messages > 0;
    let calls = runs.iter().filter(is_stream).map(|run| run.system_calls as f64 / run.messages as f64);
    let calls = calls.reduce(f64::max);
    rows.add("system calls for a message of a stream, the most of all", Bound::Most(1.0), calls, "", 2);
    let sum = |xdp: bool, of: &dyn Fn(&RunReport) -> Option<u64>| {
        let counts = runs.iter().filter(|run| (run.transport == "xdp") == xdp).map(|run| of(run));
        counts.reduce(|sum, count| sum.zip(count).map(|(sum, count)| sum + count)).flatten()
    };
    let copies = |xdp| sum(xdp, &|run| Some(run.copies));
    let copies = [copies(false), copies(true)].into_iter().flatten().reduce(|one, other| one + other);
    rows.add(
        "payload copies, of all ping-pongs and streams",
        Bound::Most(0.0),
        copies.map(|n| n as f64),
        "",
        0,
    );
    for (xdp, where_made) in
        [(false, "but over xdp"), (true, "over xdp, which reads the system's routes and neighbours")]
    {
        let allocations = sum(xdp, &|run| run.allocations).map(|count| count as f64);
        let what = format!("allocations, of all ping-pongs and streams {where_made}");
        rows.add(what, Bound::Most(0.0), allocations, "", 0);
    }
}

/// How many messages the plans carried, where members send as fast as they can and where all do.
fn hits(rows: &mut Rows, reports: &[Report]) {
    for (what, all) in [("one member casts", false), ("all members cast", true)] {
        // Members that share a core overrun each other, and repairs take the layers.
        let runs = reports.iter().flat_map(|report| &report.runs).filter(|run| {
            let alone = !run.shared_cores && run.load.is_none();
            !run.raw && run.accel && alone && (run.pattern == Pattern::AllToAll.name()) == all
        });
        let least = runs.filter_map(|run| run.fast_path.hit_rate()).reduce(f64::min);
        let what = format!("hits, {what}, members on cores of their own: the least of all runs");
        rows.add(what, Bound::Least(99.9), least.map(|rate| rate * 100.0), "%", 3);
    }
}

/// How long the others take to go on without a member.
fn noticed(rows: &mut Rows, failures: &[Failure]) {
    for (load, most) in [("idle", 20.0), ("full", 50.0)] {
        for (fault, transport) in
            ["kill", "stop"].into_iter().flat_map(|fault| TRANSPORTS.map(|transport| (fault, transport)))
        {
            let is_it = |failure: &&Failure| {
                (&*failure.fault, &*failure.transport, &*failure.load, failure.members)
                    == (fault, transport, load, 3)
            };
            let p99 = failures.iter().find(is_it).map(|failure| failure.view_ns.p99 as f64 / 1e6);
            let loaded = if load == "idle" { "idle" } else { "full load" };
            let what =
                format!("{fault} of one of 3 members over {transport}, {loaded}, to the next view: p99");
            rows.add(what, Bound::Most(most), p99, "ms", 1);
        }
    }
}

/// What one order for all costs, where a report has runs with and without.
fn total_order(rows: &mut Rows, runs: &[&RunReport]) {
    let [pingpong, stream, all] = [Pattern::Pingpong, Pattern::Stream, Pattern::AllToAll].map(Pattern::name);
    for transport in ["shm", "udp", "xdp"] {
        let of = |order: Order, pattern: &str, members: usize| {
            let is_it = |run: &&&RunReport| {
                (&*run.transport, &*run.pattern, run.members, run.size, run.order)
                    == (transport, pattern, members, 64, Some(order))
            };
            runs.iter().find(is_it)
        };
        let p50 = |order| of(order, pingpong, 2).map(|run| run.latency_ns.p50 as f64);
        let more = p50(Order::Safe).zip(p50(Order::Agreed)).map(|(safe, agreed)| safe / agreed);
        // One more round trip than agreed, whose ping-pong is one.
        rows.add(format!("{transport} ping-pong, safe: p50 of agreed's"), Bound::Most(2.0), more, "x", 2);
        for (pattern, what, least) in [(stream, "one member casts", 1.0 / 1.05), (all, "all cast", 0.7)] {
            for members in [2, 3] {
                let rate = |order| of(order, pattern, members).map(|run| run.messages_per_second);
                let rate = rate(Order::Agreed).zip(rate(Order::Fifo)).map(|(agreed, fifo)| agreed / fifo);
                let what = format!("{transport}, total order, {members} members, {what}: of FIFO's rate");
                rows.add(what, Bound::Least(least), rate, "x", 2);
            }
        }
    }
}

/// At half of the capacity.
fn open_loop(rows: &mut Rows, reports: &[Report]) {
    for transport in ["memory", "shm", "udp"] {
        for pack in [true, false] {
            let is_it = |run: &&RunReport| {
                let half = run.load == Some(50.0) && run.rate.is_some();
                !run.raw && half && run.transport == transport && run.pack == pack
            };
            let run = reports.iter().flat_map(|report| &report.runs).find(is_it);
            let what = format!("{transport} at half load, {}", packing(pack));
            let ratio = run.and_then(|run| run.p90_over_unloaded_p50);
            rows.add(format!("{what}: p90 of the unloaded p50"), Bound::Most(3.0), ratio, "x", 2);
            let ratio = run.and_then(|run| run.vs_raw).map(|versus| versus.p99_ratio);
            rows.add(format!("{what}: p99 of raw's at as many frames"), Bound::Most(1.5), ratio, "x", 2);
        }
    }
}

fn packing(pack: bool) -> &'static str {
    if pack { "packed" } else { "not packed" }
}

const TRANSPORTS: [&str; 4] = ["shm", "udp", "uring", "xdp"];
/// What changed the bound of a row, as a link from the document.
const RAW_FRAMES: &str = "[ADR 016](adr/016-a-stream-beside-raw-frames.md)";
const NANOSECONDS_MORE: &str = "[ADR 021](adr/021-a-round-trip-over-xdp-is-raw-and-so-many-nanoseconds.md)";
const HAND_FUSED: &str = "[ADR 020](adr/020-a-cast-in-memory-beside-the-hand-fused-reference.md)";
/// What the hand-fused reference without checksum takes on the host for which the nanoseconds were written.
const REFERENCE_NS: f64 = 16.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::Floor;
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

    /// The contract held against these reports, and nothing else.
    fn beside(reports: &[Report]) -> String {
        text(Measured { instructions: &Instructions::default(), reports, failures: &[] })
    }

    #[test]
    fn a_row_is_met_up_to_its_bound_and_not_beyond() {
        // 100 ns on 80 are more than twice as long, and allowed.
        let met = beside(&[pingpong(2.25, 600)]);
        assert!(met.contains("| at most 2.25 x | 2.25 x | met |"), "{met}");
        assert!(met.contains("| at most 2 x | 2.00 x | met |"), "{met}");
        let missed = beside(&[pingpong(2.26, 603)]);
        assert!(missed.contains("| at most 2.25 x | 2.26 x | **not met** |"), "{missed}");
        assert!(missed.contains("| at most 2 x | 2.01 x | **not met** |"), "{missed}");
    }

    #[test]
    fn every_row_is_there_and_says_so_if_nobody_measured_it() {
        let (nothing, something) = (beside(&[]), beside(&[pingpong(2.0, 600)]));
        let named = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split('|').nth(1).unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(named(&nothing), named(&something));
        for row in nothing.lines().skip(2) {
            assert!(row.ends_with("| not measured |  |"), "{row}");
        }
        // The design's section 9, row by row.
        for what in [
            "| shm ping-pong: p50 of raw's | at most 2 x |",
            "| xdp ping-pong: p50 of raw's ([ADR 021](adr/021-a-round-trip-over-xdp-is-raw-and-so-many-nanoseconds.md)) | at most 1.1 x |",
            "| udp ping-pong: p50 of raw's | at most 1.05 x |",
            "| uring ping-pong: p50 of raw's | at most 1.05 x |",
            "| shm ping-pong: p99 of its own p50 | at most 2 x |",
            "8 layers, without checksum: of the hand-fused reference's time ([ADR 020](adr/020-a-cast-in-memory-beside-the-hand-fused-reference.md)) | at most 2.81 x |",
            "8 layers, with checksum: of the hand-fused reference's time ([ADR 020](adr/020-a-cast-in-memory-beside-the-hand-fused-reference.md)) | at most 4.38 x |",
            "over 5: instructions, `burst` | at most 1.1 x |",
            "over 5: nanoseconds in memory, `burst` | at most 1.1 x |",
            "| fast header, no total order | at most 24 B |",
            "| fast header, total order | at most 32 B |",
            "| shm stream, packed: of raw's rate ([ADR 016](adr/016-a-stream-beside-raw-frames.md)) | at least 1 x |",
            "| shm stream, not packed: of raw's rate ([ADR 016](adr/016-a-stream-beside-raw-frames.md)) | at least 0.5 x |",
            "| 1 B casts packed, delivered on one core, 8 layers | at least 100 M/s |",
            "| udp stream, packed | at least 15 M/s |",
            "| udp stream, not packed | at least 4 M/s |",
            "| xdp stream, packed | at least 8 M/s |",
            "| hits, one member casts, members on cores of their own: the least of all runs | at least 99.9 % |",
            "| payload copies, of all ping-pongs and streams | at most 0 |",
            "| allocations, of all ping-pongs and streams but over xdp | at most 0 |",
            "| allocations, of all ping-pongs and streams over xdp, which",
            "| kill of one of 3 members over shm, idle, to the next view: p99 | at most 20 ms |",
            "| stop of one of 3 members over xdp, full load, to the next view: p99 | at most 50 ms |",
        ] {
            assert!(nothing.contains(what), "{what}\n{nothing}");
        }
    }

    #[test]
    fn what_was_not_counted_is_not_measured_and_what_xdp_allocates_is_not_hidden() {
        let mut report = pingpong(2.0, 600);
        report.runs[0].allocations = None;
        assert!(beside(&[report]).contains("streams but over xdp | at most 0 | not measured |"));
        let mut report = pingpong(2.0, 600);
        let over_xdp = RunReport { transport: "xdp".into(), allocations: Some(18), ..report.runs[0].clone() };
        report.runs.push(over_xdp);
        let text = beside(&[report]);
        assert!(text.contains("streams but over xdp | at most 0 | 0 | met |"), "{text}");
        assert!(text.contains("routes and neighbours | at most 0 | 18 | **not met** |"), "{text}");
    }

    #[test]
    fn a_failure_is_held_against_the_bound_of_its_load() {
        let failure = |load: &str| Failure {
            transport: "udp".into(),
            members: 3,
            fault: "stop".into(),
            load: load.into(),
            view_ns: LatencySummary { p99: 30_600_000, ..LatencySummary::default() },
        };
        let failures = [failure("idle"), failure("full")];
        let text =
            text(Measured { instructions: &Instructions::default(), reports: &[], failures: &failures });
        assert!(
            text.contains("over udp, idle, to the next view: p99 | at most 20 ms | 30.6 ms | **not met** |")
        );
        assert!(
            text.contains("over udp, full load, to the next view: p99 | at most 50 ms | 30.6 ms | met |")
        );
    }
}
