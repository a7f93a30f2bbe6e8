//! A replicated order book: `buy ID PRICE QUANTITY`, `sell ID PRICE QUANTITY`, `cancel ID`, `book`. All replicas match the same
//! orders in the same sequence, and so make the same trades.
#![allow(clippy::print_stderr)]

use clap::Parser;
use wadjet_services::book::Book;
use wadjet_services::replica::{ReplicaOptions, run};

fn main() {
    let code = run::<Book>(&ReplicaOptions::parse()).unwrap_or_else(|failure| {
        eprintln!("order_book: {failure}");
        failure.code
    });
    std::process::exit(code);
}
