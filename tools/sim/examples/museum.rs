//! How well the simulator catches what is wrong on purpose: of the first seeds, how many catch each variant, up to three.
//!
//! `cargo run --release -p wadjet-sim --example museum -- 100`. Exit status 1 if too few variants are caught by any of them.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../tests/rooms/mod.rs"]
mod rooms;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A way to be wrong: room, layer, variant, and what a seed says of it.
type Piece = (&'static str, &'static str, &'static str, fn(&str, &str, u64) -> Option<String>);

/// Of a hundred variants so many are caught by one of the first twenty seeds, at least. The rest takes worlds that few
/// seeds draw: the tests find a seed for each of them.
const CAUGHT_PERCENT_MIN: usize = 65;
/// A variant that was caught so often is not looked at any more: a broken group is watched to the end of its patience.
const CATCHES_MAX: usize = 3;

fn main() -> ExitCode {
    let seeds = match std::env::args().nth(1).map(|given| given.parse()) {
        None => 20,
        Some(Ok(seeds)) => seeds,
        Some(Err(_)) => {
            eprintln!("give the number of seeds");
            return ExitCode::from(2);
        }
    };
    let of_layers = rooms::OF_SOME.iter().map(|piece| ("known", piece));
    let of_layers = of_layers.chain(rooms::EXPULSION.iter().map(|piece| ("expulsion", piece)));
    let of_layers = of_layers.chain(rooms::UNSEEN.iter().map(|piece| ("unseen", piece)));
    let mut pieces: Vec<Piece> =
        of_layers.map(|(room, (layer, variant, _))| (room, *layer, *variant, rooms::layer as _)).collect();
    pieces.extend(
        rooms::ORDER.iter().map(|(layer, variant, _)| ("order", *layer, *variant, rooms::order as _)),
    );
    let membership: fn(&str, &str, u64) -> Option<String> =
        |_, variant, seed| rooms::membership(variant, seed);
    pieces
        .extend(rooms::MEMBERSHIP.iter().map(|(variant, _)| ("membership", "MBRSHIP", *variant, membership)));
    let next = AtomicUsize::new(0);
    // By piece: how many seeds have caught it, of how many.
    let counts: Vec<Mutex<(usize, u64)>> = pieces.iter().map(|_| Mutex::default()).collect();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((at, (_, layer, variant, caught))) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    pieces.get(at).map(|piece| (at, piece))
                } {
                    let mut count = (0, 0);
                    while count.0 < CATCHES_MAX && count.1 < seeds {
                        count.0 += usize::from(caught(layer, variant, count.1).is_some());
                        count.1 += 1;
                    }
                    eprintln!("{layer} {variant}: {} of {}", count.0, count.1);
                    *counts[at].lock().expect("nobody panics with it") = count;
                }
            });
        }
    });
    println!("so many of the first seeds catch");
    let mut uncaught = Vec::new();
    for ((room, layer, variant, _), count) in pieces.iter().zip(&counts) {
        let (count, tried) = *count.lock().expect("nobody panics with it");
        println!("  {room:<11} {layer:<10} {variant:<24}{count:>3} of {tried}");
        if count == 0 {
            uncaught.push(format!("{layer} {variant}"));
        }
    }
    let caught = pieces.len() - uncaught.len();
    println!(
        "{caught} of {} are caught by one of them; not by these seeds: {}",
        pieces.len(),
        uncaught.join(", ")
    );
    if caught * 100 < pieces.len() * CAUGHT_PERCENT_MIN {
        eprintln!("less than {CAUGHT_PERCENT_MIN} % are caught: the simulator sleeps");
        return ExitCode::from(1);
    }
    ExitCode::SUCCESS
}
