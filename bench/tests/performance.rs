//! The contract in the document of performance and the tables behind it are what their reports say.

use std::path::Path;

use wadjet_bench::performance::{MARKS, between, made};

#[test]
fn the_contract_and_the_tables_are_made_from_the_reports_beside_them() {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = bench.join("../docs");
    let read = |name: &str| std::fs::read_to_string(documents.join(name)).unwrap();
    let (document, tables) = (read("performance.md"), read("performance/tables.md"));
    let reports = [documents.join("performance"), documents.join("reliability")];
    let made = made(&bench.join("instructions.json"), &reports[0], &reports[1]).unwrap();
    for part in [&made.contract, &made.tables] {
        assert!(part.contains("p99") && part.contains("burst"), "there are figures: {part}");
    }
    let again = "run `wadjet performance` at the root of the repository";
    assert_eq!(document, between(&document, MARKS, &made.contract).unwrap(), "{again}");
    assert_eq!(tables, made.tables, "{again}");
}

#[test]
fn what_is_written_around_a_part_stays() {
    let [begin, end] = MARKS;
    let document = format!("before\n{begin}old\n{end}behind\n");
    assert_eq!(between(&document, MARKS, "new\n").unwrap(), format!("before\n{begin}new\n{end}behind\n"));
    let error = between("nothing", MARKS, "new\n").unwrap_err().to_string();
    assert!(error.starts_with("no place in the document"), "{error}");
}

#[test]
fn what_is_no_report_is_named() {
    let directory = std::env::temp_dir().join(format!("wadjet-no-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("other.json"), "{}").unwrap();
    let counts = directory.join("counts");
    std::fs::write(&counts, r#"{"tolerance_percent": 3.0, "instructions": {"burst-8": 800.4}}"#).unwrap();
    let error = made(&counts, &directory, &directory).unwrap_err().to_string();
    assert!(error.contains("other.json: no report of `wadjet bench`"), "{error}");
    let error = made(&directory.join("other.json"), &directory, &directory).unwrap_err().to_string();
    assert!(error.contains("other.json: missing field"), "{error}");
    std::fs::remove_dir_all(directory).unwrap();
}
