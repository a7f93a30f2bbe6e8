//! A replicated key-value store: `put KEY VALUE`, `get KEY`, `delete KEY`. Reads take their turn in the order, so what was
//! acknowledged anywhere before is read everywhere after.
#![allow(clippy::print_stderr)]

use clap::Parser;
use wadjet_services::replica::{ReplicaOptions, run};
use wadjet_services::store::Store;

fn main() {
    let code = run::<Store>(&ReplicaOptions::parse()).unwrap_or_else(|failure| {
        eprintln!("key_value: {failure}");
        failure.code
    });
    std::process::exit(code);
}
