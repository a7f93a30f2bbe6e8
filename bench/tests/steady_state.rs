//! What a message costs beside time once everything runs: nothing allocated, nothing copied.

use wadjet_bench::allocations::Counting;
use wadjet_bench::member::Hosted;
use wadjet_bench::plan::{Length, Plan, Seat, Subject, TransportKind};
use wadjet_bench::report;
use wadjet_bench::schedule::Arrivals;
use wadjet_bench::workload::Pattern;
use wadjet_bench::xdp::XdpArguments;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn memory(pattern: Pattern, members: usize, pack: bool, messages: u64) -> report::RunReport {
    let plan = Plan {
        transport: TransportKind::Memory,
        subject: Subject::Stack,
        stack: wadjet::layers::DEFAULT_STACK.to_owned(),
        agreed: false,
        accel: true,
        pack,
        offload: true,
        lab: None,
        xdp: XdpArguments::default(),
        members,
        size: 64,
        pattern,
        rate: None,
        arrivals: Arrivals::Even,
        load: None,
        length: Length::Messages(messages),
        cores: Vec::new(),
    };
    let names = |kind: &str| (0..members).map(|rank| format!("{kind}-{rank}")).collect();
    let seat = Seat {
        plan: plan.clone(),
        rank: 0,
        run: 7,
        stack_addresses: names("stack"),
        raw_addresses: names("raw"),
    };
    let reports = Hosted::memory(&seat).unwrap().run();
    report::of_plan(&plan, &reports).remove(0)
}

const RUNS_MAX: usize = 100;

#[test]
fn a_message_allocates_and_copies_nothing_and_takes_the_fast_path() {
    // One test, for allocations are counted for the whole process.
    for (pattern, members, pack) in [
        (Pattern::Pingpong, 2, true),
        (Pattern::Stream, 2, true),
        (Pattern::Stream, 2, false),
        (Pattern::AllToAll, 3, true),
        (Pattern::AllToAll, 3, false),
    ] {
        // A process that did not run for a while asks the others whether they have gone on without it: another run, then.
        let undisturbed =
            (0..RUNS_MAX).map(|_| memory(pattern, members, pack, 100_000)).find(|run| run.pauses == 0);
        let run = undisturbed.expect("the machine lets this process run for a tenth of a second at a time");
        assert!(run.good(), "{run:?}");
        assert!(run.messages >= 100_000);
        assert_eq!((run.allocations, run.copies), (Some(0), 0), "{}", run.pattern);
        assert!(run.fast_path.hit_rate().unwrap() > 0.999, "{:?} {:?}", run.fast_path, run.misses);
    }
}
