//! `wadjet explain` as scripts use it.

use std::process::{Command, Output};

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

#[test]
fn a_refused_stack_is_pointed_at() {
    let output = explain(&["FC:LOCAL:NAK:COM", "--transport", "shm"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("UNICAST") && said.contains('^'), "{said}");
}
