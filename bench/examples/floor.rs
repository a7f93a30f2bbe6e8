//! The floor alone: what a bare ring does between two cores now, and what one cache line costs that goes from one to the
//! other. Where the cores of a virtual machine lie changes; run it before and after anything that is compared with it.
//!
//! ```sh
//! cargo run --release -p wadjet-bench --example floor -- 5 0,1      # rounds, cores
//! ```
#![allow(clippy::print_stdout)]

use std::time::Duration;

use wadjet_bench::floor;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(5_u32);
    let cores: Vec<usize> = arguments
        .next()
        .map_or_else(|| vec![0, 1], |cores| cores.split(',').filter_map(|core| core.parse().ok()).collect());
    println!(
        "ring M/s  far M/s  p50 ns  line ns: chained  read  write  own read  own write  ring by that, M/s"
    );
    for _ in 0..rounds {
        let Some(floor) = floor::measure(&cores, Duration::from_millis(400)) else {
            println!("two cores are needed");
            return;
        };
        let lines = floor.lines;
        println!(
            "{:>8.1} {:>8.1} {:>7} {:>17.2} {:>5.2} {:>6.2} {:>9.2} {:>10.2} {:>18.1}",
            floor.messages_per_second / 1e6,
            floor.far_messages_per_second / 1e6,
            floor.round_trip_ns.p50,
            lines.chained_ns,
            lines.read_ns,
            lines.write_ns,
            lines.own_ns.0,
            lines.own_ns.1,
            lines.ring_messages_per_second() / 1e6,
        );
    }
}
