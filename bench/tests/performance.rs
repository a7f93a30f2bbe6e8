//! The tables in the document of performance are what its reports say.

use std::path::Path;

use wadjet_bench::performance::{MARKS, tables, with_tables};

#[test]
fn the_tables_are_made_from_the_reports_beside_the_document() {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = bench.join("../docs");
    let written = std::fs::read_to_string(documents.join("performance.md")).unwrap();
    let tables = tables(&bench.join("instructions.json"), &documents.join("performance")).unwrap();
    assert!(tables.contains("p99") && tables.contains("burst"), "there are figures: {tables}");
    assert_eq!(
        written,
        with_tables(&written, &tables).unwrap(),
        "run `wadjet performance` at the root of the repository"
    );
}

#[test]
fn what_is_written_around_the_tables_stays() {
    let [begin, end] = MARKS;
    let document = format!("before\n{begin}old\n{end}behind\n");
    assert_eq!(with_tables(&document, "new\n").unwrap(), format!("before\n{begin}new\n{end}behind\n"));
    let error = with_tables("nothing", "new\n").unwrap_err().to_string();
    assert!(error.starts_with("no place for tables"), "{error}");
}

#[test]
fn what_is_no_report_is_named() {
    let directory = std::env::temp_dir().join(format!("wadjet-no-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("other.json"), "{}").unwrap();
    let counts = directory.join("counts");
    std::fs::write(&counts, r#"{"tolerance_percent": 3.0, "instructions": {"burst-8": 800.4}}"#).unwrap();
    let error = tables(&counts, &directory).unwrap_err().to_string();
    assert!(error.contains("other.json: no report of `wadjet bench`"), "{error}");
    let error = tables(&directory.join("other.json"), &directory).unwrap_err().to_string();
    assert!(error.contains("other.json: missing field"), "{error}");
    std::fs::remove_dir_all(directory).unwrap();
}
