//! `wadjet explain` as scripts use it.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn explain(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wadjet")).arg("explain").args(arguments).output().unwrap()
}

#[test]
fn a_plan_grows_only_by_what_extra_layers_declare() {
    let steps = |stack: &str| {
        let output = explain(&[stack, "--transport", "shm", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let plans = report["plans"].as_array().unwrap();
        let cast = plans.iter().find(|plan| plan["kind"].as_str().unwrap().contains("cast")).unwrap();
        (report["layers"].as_array().unwrap().len(), cast["steps"].as_u64().unwrap())
    };
    let (six, steps_of_six) = steps("STABLE:FC:UNICAST:LOCAL:NAK:COM");
    let tracers = "TRACE:".repeat(14);
    let (twenty, steps_of_twenty) = steps(&format!("{tracers}STABLE:FC:UNICAST:LOCAL:NAK:COM"));
    assert_eq!((six, twenty), (6, 20));
    assert!(steps_of_six > 0 && steps_of_twenty == steps_of_six, "{steps_of_six} {steps_of_twenty}");
}

#[test]
fn a_person_gets_layers_fields_headers_and_plans() {
    let output = explain(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["layers, top to bottom", "fields", "headers", "plan "] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// Where another program reads only the beginning (`| head`).
#[test]
fn a_command_to_which_nobody_listens_any_more_ends_quietly() {
    let history = std::env::temp_dir().join(format!("wadjet-unheard-{}.jsonl", std::process::id()));
    std::fs::write(&history, "{\"at\":1,\"member\":1,\"event\":\"start\",\"process\":0}\n").unwrap();
    let commands: [&[&str]; 5] = [
        &["explain"],
        &["explain", "--json"],
        &["judge", history.to_str().unwrap()],
        &["sim", "--seeds", "1"],
        &["bench", "--transport", "memory", "--pattern", "stream", "--messages", "1000"],
    ];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_wadjet"));
        let output = command.args(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(141), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
    // Nor where it hears no errors.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_wadjet"));
    let status = command.args(["explain", "NAK"]).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(141));
    // What cannot be written is said in one line.
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for arguments in
        [&["explain"][..], &["node", "--transport", "shm", "--group", "full", "--address", "one"]]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wadjet"));
        let output =
            command.args(arguments).stdin(Stdio::null()).stdout(full()).stderr(Stdio::piped()).output();
        let output = output.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{arguments:?}: {said}");
        assert!(said.contains("failed printing to stdout: No space left"), "{said}");
    }
    std::fs::remove_file(history).unwrap();
}

#[test]
fn a_window_that_is_wider_than_usual_is_taken_by_whoever_runs_the_stack() {
    let stack = "STABLE:FC:UNICAST:LOCAL:NAK(window=4096):COM";
    let output = explain(&[stack, "--transport", "shm"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for transport in ["memory", "shm"] {
        let run = ["bench", "--transport", transport, "--pattern", "stream", "--messages", "1000"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_wadjet"));
        let output = command.args(run).args(["--stack", stack]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn a_refused_stack_is_pointed_at() {
    let output = explain(&["FC:LOCAL:NAK:COM", "--transport", "shm"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("UNICAST") && said.contains('^'), "{said}");
}
