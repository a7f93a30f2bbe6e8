//! The document of reliability figures is what its reports say.

use std::path::Path;

use wadjet_lab::reliability::document;

#[test]
fn the_document_is_made_from_the_reports_beside_it() {
    let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let written = std::fs::read_to_string(documents.join("reliability.md")).unwrap();
    assert_eq!(
        written,
        document(&documents.join("reliability")).unwrap(),
        "run `wadjet reliability` at the root of the repository"
    );
}

#[test]
fn what_is_no_report_is_named() {
    let directory = std::env::temp_dir().join(format!("wadjet-no-report-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("other.json"), "{}").unwrap();
    let error = document(&directory).unwrap_err().to_string();
    assert!(error.starts_with("other.json: this is neither a report of `wadjet chaos`"), "{error}");
    std::fs::remove_dir_all(directory).unwrap();
}
