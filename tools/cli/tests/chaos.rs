//! Real processes to which things happen, judged by what they wrote; short forms of what `wadjet chaos` does at length.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::may_make_hosts;
use serde_json::Value;
use wadjet::GroupId;
use wadjet_lab::chaos::{Faults, Plan, stopped_sender};
use wadjet_lab::hosts::{Hosts, LabError, label_of_process};
use wadjet_lab::seat::{Carrier, Extras};

fn wadjet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wadjet")).args(arguments).output().unwrap()
}

fn report(arguments: &[&str]) -> Value {
    let output = wadjet(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}\n{said}");
    serde_json::from_str(&text).expect("nothing but JSON on standard output")
}

#[test]
fn whatever_is_killed_and_stopped_over_shared_memory_no_promise_is_broken() {
    let report = report(&["chaos", "--transport", "shm", "--kills", "12", "--stops", "12", "--json", "-"]);
    let run = &report["chaos"][0];
    assert_eq!((&run["faults"]["kills"], &run["faults"]["stops"]), (&Value::from(12), &Value::from(12)));
    assert_eq!(run["violations"], Value::Array(Vec::new()));
    // Who was killed started anew, and each time there were new views, in which something was delivered.
    assert!(run["lives"].as_u64().unwrap() >= 3 + 12, "{run}");
    assert!(run["views"].as_u64().unwrap() > 24 && run["delivered"].as_u64().unwrap() > 1000, "{run}");
}

#[test]
fn nor_over_a_network_whose_ports_go_down_and_which_loses_packets() {
    if !may_make_hosts() {
        return;
    }
    let faults = ["--kills", "6", "--stops", "6", "--partitions", "6", "--losses", "4", "--chapter", "11"];
    for transport in ["udp", "uring", "xdp"] {
        let report = report(&[&["chaos", "--transport", transport, "--json", "-"], &faults[..]].concat());
        let run = &report["chaos"][0];
        assert_eq!(
            (&run["faults"]["partitions"], &run["faults"]["losses"]),
            (&Value::from(6), &Value::from(4))
        );
        assert_eq!((&run["violations"], &run["chapters"]), (&Value::Array(Vec::new()), &Value::from(2)));
        assert!(run["views"].as_u64().unwrap() > 16, "{run}");
    }
}

/// Stacks of replicated services, whose members give each other their state: orders, safe delivery, sends, casts larger
/// than a frame and the states that members begin their views with are all judged.
#[test]
fn nor_is_the_one_order_of_all_casts_nor_safe_delivery_nor_the_state_of_who_comes_in() {
    let on_a_bridge: &[&str] = if may_make_hosts() {
        &["--partitions", "3", "--losses", "2"]
    } else {
        &["--partitions", "0", "--losses", "0"]
    };
    let on_hosts: &[(&str, &str)] = &[("uring", "XFER:SAFE:TOTAL"), ("xdp", "XFER:SEQUENCER")];
    let on_hosts = if may_make_hosts() { on_hosts } else { &[] };
    let everywhere = ["shm", "udp"]
        .iter()
        .flat_map(|transport| ["XFER:SAFE:TOTAL", "XFER:SEQUENCER"].map(|order| (*transport, order)));
    for (transport, order) in everywhere.chain(on_hosts.iter().copied()) {
        let rest = if transport == "shm" { "NAK:COM" } else { "NAK:CHKSUM:COM" };
        let stack = format!("{order}:EVS:MBRSHIP:SUSPECT:FRAG:STABLE:FC:UNICAST:LOCAL:{rest}");
        let run = ["chaos", "--transport", transport, "--stack", &stack, "--json", "-"];
        let faults = if transport == "shm" { &[] } else { on_a_bridge };
        let report = report(&[&run[..], &["--kills", "4", "--stops", "4"], faults].concat());
        let run = &report["chaos"][0];
        assert_eq!(run["violations"], Value::Array(Vec::new()), "{transport} {order}");
        let count = |what: &str| run[what].as_u64().unwrap();
        assert!(count("views") > 8 && count("delivered") > 500, "{run}");
        assert!(count("sends") > 100 && count("states") > 8, "{run}");
    }
}

/// A state of a hundred parts, made as it is read and compared as it comes. Without optimisation that is slow work, for which the
/// others have to have patience; what a large state does to impatient ones `wadjet chaos --state 20000000` shows, built for release.
#[test]
fn members_with_a_state_of_many_parts_come_together_again_too() {
    const PATIENT: &str = "SUSPECT(least_ms=150,busy_ms=200,most_ms=400,first_ms=400)";
    for (transport, rest) in [("shm", "NAK:COM"), ("udp", "NAK:CHKSUM:COM")] {
        let stack = format!("XFER:SAFE:TOTAL:EVS:MBRSHIP:{PATIENT}:FRAG:STABLE:FC:UNICAST:LOCAL:{rest}");
        let run = ["chaos", "--transport", transport, "--stack", &stack, "--json", "-"];
        let network: &[&str] = if transport == "shm" { &[] } else { &["--partitions", "0", "--losses", "0"] };
        let faults = ["--state", "2000000", "--kills", "3", "--stops", "3"];
        let report = report(&[&run[..], &faults, network].concat());
        let run = &report["chaos"][0];
        assert_eq!((&run["violations"], &run["error"]), (&Value::Array(Vec::new()), &Value::Null));
        assert!(run["states"].as_u64().unwrap() > 8, "{run}");
    }
}

#[test]
fn a_sender_that_was_stopped_and_goes_on_after_the_view_change_changes_nothing() {
    let directory = std::env::temp_dir().join(format!("wadjet-stopped-sender-{}", std::process::id()));
    let plan = Plan {
        carrier: Carrier::Shm,
        stack: Carrier::Shm.stack().to_owned(),
        members: 3,
        faults: Faults::default(),
        rate: 20_000,
        bytes: 200,
        extras: Extras { sends: true, ..Extras::default() },
        chapter: 0,
        seed: 5,
        program: PathBuf::from(env!("CARGO_BIN_EXE_wadjet")),
        directory: directory.clone(),
    };
    let verdict = stopped_sender(&plan, 6).unwrap();
    assert_eq!(verdict.violations, [], "histories: {}", directory.display());
    assert!(verdict.views > 12 && verdict.delivered > 10_000, "{verdict:?}");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_failure_is_measured_at_each_survivor() {
    let with_hosts = if may_make_hosts() { Some(("xdp", "kill")) } else { None };
    for (transport, fault) in
        [("shm", "kill"), ("udp", "stop"), ("uring", "kill")].into_iter().chain(with_hosts)
    {
        let arguments =
            ["bench", "--failure", fault, "--transport", transport, "--faults", "3", "--json", "-"];
        let report = report(&arguments);
        let run = &report["failures"][0];
        assert_eq!((&run["faults"], &run["not_together"]), (&Value::from(3), &Value::from(0)), "{run}");
        let [view, first] =
            ["view_ns", "first_cast_ns"].map(|which| run[which]["p50"].as_u64().expect("a number"));
        // Nobody is given up at once, and nothing is delivered in a view before it is installed.
        assert!(view > 1_000_000 && first >= view, "{run}");
        assert!(!run["histograms"]["view"].as_array().unwrap().is_empty());
    }
}

/// Members that are killed remove nothing, and who ends at the end may be killed before it has: whoever comes next to the
/// group removes what they left, and after the end of a run nobody comes.
#[test]
fn a_run_over_shared_memory_leaves_nothing_of_its_groups_behind() {
    let runs: [(&str, &[&str]); 4] = [
        ("failure", &["bench", "--failure", "kill", "--transport", "shm", "--faults", "4"]),
        ("failure", &["bench", "--failure", "stop", "--transport", "shm", "--faults", "4", "--load", "full"]),
        ("failure", &["bench", "--failure", "join", "--transport", "shm", "--faults", "1", "--members", "6"]),
        ("chaos", &["chaos", "--transport", "shm", "--kills", "5", "--stops", "5", "--chapter", "5"]),
    ];
    for (word, arguments) in runs {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wadjet"));
        let mut running =
            command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let label = label_of_process(word, running.id());
        assert!(running.wait().unwrap().success(), "{arguments:?}");
        let chapters = (1..=2).map(|chapter| format!("{label}-{chapter}"));
        let groups: Vec<String> = [label.clone()].into_iter().chain(chapters).collect();
        let of_the_run = |name: &String| {
            groups.iter().any(|group| name.starts_with(&format!("wadjet-{}-", GroupId::named(group))))
        };
        let names = std::fs::read_dir("/dev/shm").unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        assert_eq!(names.filter(of_the_run).collect::<Vec<_>>(), [""; 0], "{arguments:?}");
    }
}

/// Who ends a run by a signal finds no hosts of it afterwards, and whoever waits for the run hears of the signal.
#[test]
fn a_run_that_is_ended_by_a_signal_takes_its_hosts_along() {
    if !may_make_hosts() {
        return;
    }
    let hosts_of = |label: &str| {
        let namespaces = Command::new("ip").args(["netns", "list"]).output().unwrap().stdout;
        String::from_utf8(namespaces).unwrap().lines().filter(|name| name.contains(label)).count()
    };
    for signal in [("-INT", 2), ("-TERM", 15)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wadjet"));
        command.args(["chaos", "--transport", "udp", "--kills", "500", "--stops", "500"]);
        let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let label = label_of_process("chaos", running.id());
        // Three members' and the bridge's.
        let end = Instant::now() + Duration::from_secs(60);
        while hosts_of(&label) < 4 {
            assert!(Instant::now() < end && running.try_wait().unwrap().is_none(), "it has made no hosts");
            std::thread::yield_now();
        }
        let asked = Command::new("kill").args([signal.0, &running.id().to_string()]).status().unwrap();
        assert!(asked.success());
        assert_eq!(running.wait().unwrap().signal(), Some(signal.1));
        assert_eq!(hosts_of(&label), 0);
    }
}

#[test]
fn processes_come_together_one_after_the_other_and_all_at_once() {
    let members = ["--members", "10", "--failure", "join", "--faults", "1"];
    let arguments = [&["bench", "--transport", "shm", "--json", "-"][..], &members].concat();
    let run = &report(&arguments)["failures"][0];
    let sizes = run["join_by_size_ns"].as_array().unwrap();
    assert_eq!(sizes.len(), 10);
    for times in sizes.iter().chain([&run["whole_ns"]]) {
        assert!(times["max"].as_u64().expect("a number") > 0, "{run}");
    }
}

#[test]
fn hosts_reach_each_other_until_a_port_goes_down_and_leave_nothing_behind() {
    if !may_make_hosts() {
        return;
    }
    let label = wadjet_lab::hosts::label_of_this_process("hosts");
    let hosts = Hosts::up(&label, 2).unwrap();
    let carrier = |host: usize| {
        let output = hosts.command(host, "cat".as_ref()).arg("/sys/class/net/lan0/carrier").output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!([carrier(1), carrier(2)], ["1", "1"]);
    hosts.set_port(2, false).unwrap();
    assert_eq!([carrier(1), carrier(2)], ["1", "0"]);
    hosts.set_port(2, true).unwrap();
    // As after a crash: nobody has removed them.
    hosts.keep();
    assert_eq!((Hosts::down(&label).unwrap(), Hosts::down(&label).unwrap()), (3, 0));
    assert!(matches!(Hosts::up("no spaces", 1), Err(LabError::Senseless(_))));
}

#[test]
fn what_cannot_happen_is_refused_before_anything_begins() {
    let live = Carrier::Shm.stack();
    let fixed = live.replace("EVS:MBRSHIP:SUSPECT:", "");
    let empty = std::env::temp_dir().join(format!("wadjet-empty-{}", std::process::id()));
    std::fs::create_dir_all(&empty).unwrap();
    let nothing = empty.to_str().unwrap();
    for (arguments, words) in [
        (&["chaos", "--transport", "shm", "--partitions", "3"][..], "--transport shm there is none"),
        (&["chaos", "--transport", "shm", "--losses", "1"], "--transport shm there is none"),
        (&["chaos", "--transport", "shm", "--stack", &fixed], "MBRSHIP"),
        (&["chaos", "--transport", "shm", "--stack", "NAK"], "must be COM"),
        (&["bench", "--failure", "kill", "--transport", "shm", "--stack", &fixed], "MBRSHIP"),
        // Where commands are looked for there is none.
        (&["chaos", "--transport", "udp", "--losses", "1"], "nftables"),
        (&["judge", nothing], "there is nothing to judge"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wadjet"));
        let output = command.args(arguments).env("PATH", &empty).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(words) && !said.contains("chaos over"), "{arguments:?}: {said}");
    }
    std::fs::remove_dir(empty).unwrap();
}

#[test]
fn a_history_with_a_violation_is_judged_so() {
    let file = std::env::temp_dir().join(format!("wadjet-judge-me-{}.jsonl", std::process::id()));
    let view = r#""view":{"counter":1,"coordinator":1}"#;
    let lines = [
        r#"{"at":1,"member":1,"event":"start","process":0}"#.to_owned(),
        format!(r#"{{"at":2,"member":1,"event":"view",{view},"members":[1]}}"#),
        format!(
            r#"{{"at":3,"member":1,"event":"cast_delivered","origin":1,"sequence":7,"content":{{"bytes":0,"hash":0}},{view}}}"#
        ),
    ];
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    let output = wadjet(&["judge", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no-creation: m1 delivers cast m1#7 that nobody issued"), "{said}");
    std::fs::remove_file(file).unwrap();
}
