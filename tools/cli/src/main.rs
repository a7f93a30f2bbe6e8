//! The `wadjet` command line.
#![allow(clippy::print_stderr)]

mod ending;
mod explain;
mod live;
mod node;

use std::any::Any;
use std::io::{Write, stderr};
use std::panic;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use wadjet_bench::allocations::Counting;
use wadjet_bench::{BenchOptions, PerformanceOptions};
use wadjet_lab::hosts::Hosts;
use wadjet_lab::{ChaosOptions, FailureOptions, JudgeOptions, LabOptions, ReliabilityOptions};
use wadjet_sim::SimArgs;

use explain::ExplainOptions;
use node::NodeOptions;

/// The benchmarks say how many allocations a message costs, so this program counts them.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Microsecond group communication: process groups composed from layers, on a compiled fast path.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure this machine: each transport, raw and through the stack, side by side
    #[command(after_help = BENCH_HELP)]
    Bench(BenchArguments),
    /// Say what a stack is: properties, fields, header sizes, compiled plans
    #[command(after_help = EXPLAIN_HELP)]
    Explain(ExplainOptions),
    /// Run endpoints on a simulated clock and a faulty network, judged by the oracle
    #[command(after_help = SIM_HELP)]
    Sim(SimArgs),
    /// Take part in a group by hand: what is typed is cast, what happens is told
    #[command(after_help = NODE_HELP)]
    Node(NodeOptions),
    /// Test hosts: network namespaces on a bridge
    #[command(after_help = LAB_HELP)]
    Lab(LabOptions),
    /// Kill, stop and cut off real processes at random; judge by the oracle what they delivered
    #[command(after_help = CHAOS_HELP)]
    Chaos(ChaosOptions),
    /// Judge histories that real processes wrote
    Judge(JudgeOptions),
    /// Make the document of reliability figures from the reports of chaos and bench --failure
    Reliability(ReliabilityOptions),
    /// Make the tables of the document of performance from the reports of bench
    Performance(PerformanceOptions),
    /// A member of a benchmark in a process of its own; started by `bench`
    #[command(name = wadjet_bench::processes::MEMBER_COMMAND, hide = true)]
    BenchMember,
    /// A member of a group to which things happen; started by `chaos` and `bench --failure`
    #[command(name = wadjet_lab::member::MEMBER_COMMAND, hide = true)]
    LabMember,
}

/// Of messages, or of failures.
#[derive(Args)]
struct BenchArguments {
    #[command(flatten)]
    bench: BenchOptions,
    #[command(flatten)]
    failure: FailureOptions,
}

fn main() -> ExitCode {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| match unprintable(panic.payload()) {
        Some(_) if nobody_reads(panic.payload()) => {}
        Some(why) => drop(writeln!(stderr(), "wadjet: {why}")),
        None => usual(panic),
    }));
    match panic::catch_unwind(run) {
        Ok(code) => code,
        // What was begun is undone on the way here: hosts are removed, members ended.
        Err(panic) if nobody_reads(&*panic) => ExitCode::from(NOBODY_READS),
        Err(panic) if unprintable(&*panic).is_some() => ExitCode::from(MISUSED),
        Err(panic) => panic::resume_unwind(panic),
    }
}

/// What a panic says if it is the one of `println!`, or `eprintln!`, that cannot write: the standard library has no other way
/// to end a program there.
fn unprintable(panic: &(dyn Any + Send)) -> Option<&str> {
    let text = panic.downcast_ref::<String>()?;
    text.starts_with("failed printing to std").then_some(text)
}

/// Whether it was into a pipe whose reader has ended (`| head`).
fn nobody_reads(panic: &(dyn Any + Send)) -> bool {
    unprintable(panic).is_some_and(|why| why.contains("Broken pipe"))
}

fn run() -> ExitCode {
    let command = Arguments::parse().command;
    if let Command::Bench(_) | Command::Chaos(_) = command
        && let Err(error) = ending::undo_at_the_end(|| drop(Hosts::clear_own()))
    {
        eprintln!(
            "wadjet: signals cannot be handled ({error}); test hosts stay until the next run if this one is ended"
        );
    }
    let outcome = match command {
        Command::Bench(BenchArguments { bench, failure }) => match failure.failure {
            Some(_) => wadjet_lab::failure::bench(&bench, &failure),
            None => wadjet_bench::bench(&bench),
        },
        Command::Explain(options) => explain::run(&options),
        Command::Sim(arguments) => return wadjet_sim::command(&arguments),
        Command::Node(options) => node::run(&options),
        Command::Lab(options) => wadjet_lab::command::lab(&options),
        Command::Chaos(options) => wadjet_lab::command::chaos(&options),
        Command::Judge(options) => wadjet_lab::command::judge(&options),
        Command::Reliability(options) => wadjet_lab::command::reliability(&options),
        Command::Performance(options) => wadjet_bench::performance(&options),
        Command::LabMember => return ExitCode::from(wadjet_lab::member::be_member() as u8),
        Command::BenchMember => return ExitCode::from(wadjet_bench::processes::be_member() as u8),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("wadjet: {error}");
            ExitCode::from(MISUSED)
        }
    }
}

/// A run lost, duplicated or misordered something, or did not come to its end.
const FAILED: u8 = 1;
/// The arguments make no sense, or a file cannot be written.
const MISUSED: u8 = 2;
/// What a shell says of a program that SIGPIPE ended.
const NOBODY_READS: u8 = 141;

const AFTER_HELP: &str = "\
Examples:
  wadjet bench                                    everything this machine can run, within two minutes
  wadjet bench --transport shm --vs-raw           one transport, against its own baseline
  wadjet explain STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM
  wadjet node --group tea --address 127.0.0.1:7001   a member by hand; see wadjet node --help
  wadjet sim --seeds 0..1000                      a thousand faulty worlds, each judged by the oracle

Exit codes: 0 all is well; 1 a check failed (something lost, duplicated, misordered, or a run did not end);
2 the arguments make no sense or something cannot be read or written.";

const NODE_HELP: &str = "\
Example, in three shells of one machine:
  wadjet node --group tea --address 127.0.0.1:7001
  wadjet node --group tea --address 127.0.0.1:7002 --peers 127.0.0.1:7001
  wadjet node --group tea --address 127.0.0.1:7003 --peers 127.0.0.1:7001
What is typed in one appears in all. End one with Ctrl-C and it leaves the group (so it does by SIGTERM and SIGHUP; a second one
ends it at once); stop it with Ctrl-Z: the others say so and go on without it.
On one host without a network, --address is a name, and nobody needs to be told where the others are:
  wadjet node --group tea --transport shm --discover --address alice
While it runs:
  /members  /send ADDR TEXT  /stats  /leave (or /quit, /exit)  /help

`view 4, 3 members` is the list of members that all of them have agreed on, and its number. Numbers only grow, and may skip
some. Whoever starts a group is alone in its view 1; whoever looks for one is alone in its view 0 until it is let in.

Exit codes: 0 it left as it was told to; 1 the others went on without it, the group ended for it, or others were named by
--peers and it was never in a view with anybody; 2 misuse.";

const LAB_HELP: &str = "\
Examples, as root:
  wadjet lab up 3                                 three hosts, 10.78.0.1 to 10.78.0.3
  ip netns exec wadjet-lab-1 wadjet node --group tea --address 10.78.0.1:7000 --peers 10.78.0.2:7000
  ip -n wadjet-lab-hub link set port1 down        cut the first one off; `up` lets it back
  wadjet lab down
  wadjet lab run 2 -- wadjet node --group tea --address {}:7000 --discover --leave-after 5
Nothing is made outside namespaces whose names begin with wadjet-, and nothing leaves them.";

const CHAOS_HELP: &str = "\
Examples:
  wadjet chaos                                    a few dozen faults over udp and shm
  wadjet chaos --transport udp --kills 200 --stops 200 --partitions 100 --losses 50
  wadjet chaos --transport shm --members 5 --rate 10000 --seed 7 --histories h
  wadjet chaos --transport shm --stack SAFE:TOTAL:EVS:MBRSHIP:SUSPECT:FRAG:STABLE:FC:UNICAST:LOCAL:NAK:COM
      total order and safe delivery are judged where the stack promises them
  wadjet judge --rested h/shm/chapter-1           judge again what a run has left; --stack SPEC for its order

Exit codes: 0 no violation; 1 a violation, or the group did not come together; 2 misuse.";

const BENCH_HELP: &str = "\
Examples:
  wadjet bench
      memory, shm, udp, uring and (as root) xdp, raw and stack side by side, pinned, one table
  wadjet bench --transport shm --pattern pingpong --vs-raw
      interleaves 100 pairs of raw and stack blocks: the way to compare on a shared machine
  wadjet bench --transport udp --pattern stream --rate 500000 --duration 5
      open loop: latency from the time each message was meant to be sent
  wadjet bench --transport shm --open-loop --vs-raw
      open loop at 10, 50 and 90 % of the capacity, packed and unpacked, beside raw frames at the same rate
  wadjet bench --transport udp --open-loop 50 --arrivals poisson --vs-raw \
               --order fifo,agreed,safe --members 2,3 --pattern stream,all-to-all,alternating
      the same for total order and safe delivery; one sender, all at once, all in turn
  wadjet bench --transport udp --messages 10000000
      soak: every member casts ten million; nothing may be lost, duplicated or misordered
  wadjet bench --transport shm --pattern stream --no-accel --json -
      the layers without their compiled plans, as JSON on standard output
  wadjet bench --failure kill --transport shm --members 3 --faults 100 --load full
      from the fault to the next view at each survivor, and to the first cast in it; also stop, partition, none

Exit codes: 0 all is well; 1 something was lost, duplicated, misordered, or a run did not end; 2 misuse.";

const SIM_HELP: &str = "\
Examples:
  wadjet sim --seeds 0..10000                     ten thousand worlds, whatever each seed draws
  wadjet sim --seeds 42 --trace                   one world again, bit for bit, with every event
  wadjet sim --scenario loss --members 5 --json   one kind of world, the figures as JSON

Exit codes: 0 no violation; 1 a violation, with the seed that shows it, or 400 seeds and more that drew everything
themselves and in which too little has happened; 2 misuse.";

const EXPLAIN_HELP: &str = "\
Examples:
  wadjet explain                                              the default stack
  wadjet explain STABLE:FC:UNICAST:LOCAL:NAK:COM --transport shm   without CHKSUM, where bytes are kept whole
  wadjet explain COUNT:LOCAL:NAK:COM --json                   for programs; a refused stack says what is missing

Exit codes: 0; 2 the stack is refused, with a mark under the layer and what would help.";
