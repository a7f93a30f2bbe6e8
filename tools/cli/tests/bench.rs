//! `wadjet bench` as scripts use it.

mod common;

use std::ffi::OsStr;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::may_make_hosts;
use serde_json::Value;
use wadjet_lab::hosts::{Hosts, label_of_process};

fn wadjet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wadjet")).args(arguments).output().unwrap()
}

fn runs(arguments: &[&str]) -> Vec<Value> {
    let output = wadjet(&[&["bench", "--json", "-"], arguments].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&text).expect("nothing but JSON on standard output");
    assert!(report["machine"]["cores"].as_u64().unwrap() > 0);
    report["runs"].as_array().unwrap().clone()
}

#[test]
fn each_transport_delivers_everything_raw_and_through_the_stack() {
    for transport in ["memory", "shm", "udp", "uring"] {
        for pattern in ["pingpong", "stream", "all-to-all"] {
            let arguments = [
                "--transport",
                transport,
                "--pattern",
                pattern,
                "--vs-raw",
                "--blocks",
                "60",
                "--messages",
                "3000",
            ];
            let runs = runs(&arguments);
            let [raw, stack] = &runs[..] else { panic!("{transport} {pattern}: {} runs", runs.len()) };
            assert_eq!((&raw["raw"], &stack["raw"]), (&Value::Bool(true), &Value::Bool(false)));
            for run in [raw, stack] {
                for fault in ["lost", "duplicated", "misordered", "corrupted"] {
                    assert_eq!(run[fault], 0, "{transport} {pattern} {fault}");
                }
                assert_eq!(run["messages"], 3000, "{run}");
                assert!(run["latency_ns"]["p50"].as_u64().unwrap() > 0, "{run}");
            }
            assert_eq!(stack["vs_raw"]["blocks"], 60);
            assert!(stack["vs_raw"]["rate_ratio"].as_f64().unwrap() > 0.0);
            assert!(stack["fast_path"]["deliver_hit"].as_u64().unwrap() > 0);
        }
    }
}

#[test]
fn an_open_loop_measures_from_the_intended_time_and_a_soak_counts_what_everybody_cast() {
    let open = ["--transport", "shm", "--pattern", "stream", "--rate", "20000", "--duration", "0.2"];
    let run = runs(&open).remove(0);
    assert_eq!(run["messages"], 4000);
    assert!(run["latency_ns"]["p99"].as_u64().unwrap() > 0);
    let soak = ["--transport", "udp", "--members", "3", "--messages", "5000"];
    let run = runs(&soak).remove(0);
    assert_eq!((&run["pattern"], &run["messages"]), (&Value::from("all-to-all"), &Value::from(10_000)));
}

#[test]
fn loads_are_shares_of_a_capacity_and_raw_sends_what_the_stack_sent_frames() {
    let arguments = "--transport memory --pattern stream,alternating --members 3 --order agreed --arrivals poisson \
                     --open-loop 50 --vs-raw --blocks 50 --duration 0.2";
    let runs = runs(&arguments.split_whitespace().collect::<Vec<_>>());
    // Each: the capacity, and raw and stack at one percent and at fifty; packed and unpacked.
    assert_eq!(runs.len(), 2 * 2 * 5);
    for of_one in runs.chunks(5) {
        let [capacity, raw_idle, idle, raw, stack] = of_one else { panic!("{of_one:?}") };
        assert_eq!((&capacity["load"], &capacity["rate"]), (&Value::from(100.0), &Value::Null));
        assert_eq!((&idle["load"], &raw_idle["load"]), (&Value::from(1.0), &Value::from(1.0)));
        let (senders, heard) = if stack["pattern"] == "stream" { (1.0, 1.0) } else { (3.0, 2.0) };
        let number = |run: &Value, field: &str| run[field].as_f64().unwrap();
        let share = number(stack, "rate") * heard / number(capacity, "messages_per_second");
        assert!((share - 0.5).abs() < 1e-9, "{stack}");
        assert_eq!((&stack["order"], &stack["arrivals"]), (&Value::from("agreed"), &Value::from("poisson")));
        assert!(number(stack, "p90_over_unloaded_p50") > 0.0, "{stack}");
        assert!(stack["vs_raw"]["p99_ratio"].as_f64().unwrap() > 0.0, "{stack}");
        // The block before is not the block beside.
        let frames = number(raw, "messages") / (number(stack, "cast_frames") * heard / senders);
        assert!((0.5..2.0).contains(&frames), "{frames}\n{raw}\n{stack}");
    }
}

#[test]
fn who_casts_in_turn_waits_for_the_turn_before() {
    let arguments =
        ["--transport", "memory", "--pattern", "alternating", "--members", "3", "--messages", "1000"];
    let run = runs(&arguments).remove(0);
    assert_eq!(run["messages"], 2000, "each of the two others cast a thousand: {run}");
    assert!(run["latency_ns"]["p50"].as_u64().unwrap() > 0, "{run}");
}

#[test]
fn of_three_members_two_answer_one() {
    for transport in ["memory", "shm", "udp"] {
        for raw in [&["--raw"][..], &[]] {
            let arguments = ["--transport", transport, "--pattern", "pingpong", "--members", "3"];
            let run = runs(&[&arguments[..], &["--messages", "1000"], raw].concat()).remove(0);
            assert_eq!(run["messages"], 1000, "{run}");
            // A round is a ping and two answers, counted where each was cast.
            let warm_up = 50;
            assert_eq!(run["sent"], 3 * (1000 + warm_up), "{run}");
            assert!(run["latency_ns"]["p50"].as_u64().unwrap() > 0, "{run}");
        }
    }
}

/// What each member checks alone (nothing lost, doubled or out of its sender's order) these have all kept.
#[test]
fn members_that_deliver_in_different_orders_end_the_bench_with_an_error_that_names_them() {
    for (transport, order, broken) in [
        ("memory", "TOTAL", "gives-twice"),
        ("shm", "SEQUENCER", "free-for-all"),
        ("udp", "SEQUENCER", "free-for-all"),
    ] {
        for (order, code) in [(order.to_owned(), 0), (format!("{order}(broken={broken})"), 1)] {
            let stack = format!("{order}:FIXED:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM");
            let traffic = "--pattern all-to-all --members 3 --messages 3000 --json -".split(' ');
            let arguments = ["bench", "--transport", transport, "--stack", &stack].into_iter().chain(traffic);
            let arguments = arguments.collect::<Vec<_>>();
            // Two members may come to one order without a layer that sees to it, if others have their processors.
            let mut runs = (0..3).map(|_| wadjet(&arguments));
            let output = runs.find(|output| output.status.code() == Some(code)).expect("one of three");
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let run = &report["runs"][0];
            assert_eq!(run["misordered"], 0, "{stack}: {run}");
            if code == 1 {
                let failure = run["failure"].as_str().unwrap();
                assert!(failure.contains("different orders"), "{failure}");
                for member in ["0", "1", "2"] {
                    assert!(failure.contains(member), "{failure}");
                }
            }
        }
    }
}

#[test]
fn layers_alone_do_the_same_work() {
    let run =
        runs(&["--transport", "memory", "--pattern", "stream", "--no-accel", "--messages", "3000"]).remove(0);
    assert_eq!((&run["accel"], &run["fast_path"]["send_hit"]), (&Value::Bool(false), &Value::from(0)));
    assert_eq!(run["messages"], 3000);
}

#[test]
fn senseless_arguments_are_refused_in_words_and_with_exit_code_2() {
    for (arguments, words) in [
        (&["--rate", "1000"][..], "ping-pong"),
        (&["--open-loop", "0", "--pattern", "stream"], "between 0.1 and 200 percent"),
        (&["--order", "safe", "--raw"], "cannot be used with"),
        (&["--members", "1"], "--members must be between"),
        (&["--transport", "pigeon"], "memory, shm, udp"),
        (&["--raw", "--no-accel"], "cannot be used with"),
        (&["--transport", "udp", "--raw", "--size", "2000"], "choose --size"),
        (&["--transport", "memory", "--stack", "FC:COM"], "FC"),
    ] {
        let output = wadjet(&[&["bench"], arguments].concat());
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

/// Counted by the transports themselves; `strace -f -c` counts the same (`docs/performance.md`).
#[test]
fn a_stream_takes_less_than_one_system_call_per_message() {
    let with_hosts = may_make_hosts().then_some("xdp");
    for transport in ["shm", "udp", "uring"].into_iter().chain(with_hosts) {
        let run = runs(&["--transport", transport, "--pattern", "stream", "--messages", "300000"]).remove(0);
        let (messages, calls) = (run["messages"].as_u64().unwrap(), run["system_calls"].as_u64().unwrap());
        assert!(messages == 300_000 && calls < messages, "{transport}: {calls} calls, {messages} messages");
    }
}

/// A run over AF_XDP that is ended with this, however the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn while_a_bench_runs_over_af_xdp_the_system_shows_its_program_and_its_socket() {
    if !may_make_hosts() {
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_wadjet"));
    command.args(["bench", "--transport", "xdp", "--pattern", "stream", "--duration", "3", "--json", "-"]);
    let mut running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let label = label_of_process("bench", running.0.id());
    let said = |line: &[&str]| {
        let hosts = Hosts::standing(&label, 2).ok()?;
        let output = hosts.command(1, OsStr::new(line[0])).args(&line[1..]).output().unwrap();
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let shown =
        |line: &[&str], what: &dyn Fn(&str) -> bool| said(line).is_some_and(|text| text.lines().any(what));
    // Name, bytes of a socket, sockets there are. `ss --xdp` says more, where the kernel has CONFIG_XDP_SOCKETS_DIAG.
    let socket = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words[0] == "XDP" && words[2] != "0"
    };
    let end = Instant::now() + Duration::from_secs(60);
    while !(shown(&["ip", "-d", "link", "show", "dev", "lan0"], &|line| line.contains("name steer"))
        && shown(&["cat", "/proc/net/protocols"], &socket))
    {
        assert!(
            Instant::now() < end && running.0.try_wait().unwrap().is_none(),
            "{:?}",
            said(&["ip", "link"])
        );
    }
    assert!(running.0.wait().unwrap().success());
    assert!(Hosts::standing(&label, 2).is_err(), "its hosts are gone");
}
