//! What the tests of the command line have in common.

use wadjet_lab::hosts::{Hosts, LabError};

/// Namespaces need root. Who is not is told so; in CI, which is, nothing is passed over.
#[expect(clippy::print_stdout, reason = "one line says what was not run, and why")]
pub(crate) fn may_make_hosts() -> bool {
    match Hosts::up(&format!("may{}", std::process::id()), 1) {
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
