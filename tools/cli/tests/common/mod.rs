//! What the tests of the command line have in common.

use std::sync::atomic::{AtomicU32, Ordering};

use wadjet_lab::hosts::{Hosts, LabError, label_of_this_process};

/// Namespaces need root. Who is not is told so; in CI, which is, nothing is passed over.
#[expect(clippy::print_stdout, reason = "one line says what was not run, and why")]
pub(crate) fn may_make_hosts() -> bool {
    // Tests of one process ask at the same time.
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    match Hosts::up(&format!("{}-{asked}", label_of_this_process("may")), 1) {
        Ok(_) => true,
        Err(error @ (LabError::NotPermitted { .. } | LabError::NoCommand { .. }))
            if std::env::var_os("CI").is_none() =>
        {
            println!("not run: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}
