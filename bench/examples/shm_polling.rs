//! What it costs a member of a large group on shared memory to look whether anything has come.
//!
//! ```text
//! cargo run --release -p wadjet-bench --example shm_polling
//! ```
//!
//! All members live in one thread, on lines that nobody else writes meanwhile: what is measured is the looking. Prints
//! nanoseconds per iteration of `reap` and `receive` in which nothing comes, the best of many blocks.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::{Duration, Instant};

use wadjet::id::{GroupId, Incarnation, ViewId};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::{Channel, ChannelOptions, Transport};
use wadjet::view::{Address, LocalView, Member, View};

fn main() -> Result<(), Box<dyn Error>> {
    println!("members  nothing comes, ns");
    for count in [2, 4, 8, 16, 32, 64] {
        let mut members = open(count)?;
        println!("{count:>7}  {:>17.1}", idle(&mut members));
    }
    Ok(())
}

fn open(count: u64) -> Result<Vec<(Shm, Channel)>, Box<dyn Error>> {
    let member = |n| Member { incarnation: Incarnation(n), address: Address(format!("m{n}")) };
    let view = View {
        group: GroupId::named(&format!("polling {}", std::process::id())),
        id: ViewId { counter: count, coordinator: Incarnation(0) },
        members: (0..count).map(member).collect(),
        spec: String::new(),
        wire_version: 1,
        salt: 0,
        frame_bytes: 0,
    };
    let options = ChannelOptions {
        cast_frames: 64,
        control_frames: 16,
        receive_frames: 64,
        frame_bytes: 256,
        huge_pages: false,
    };
    let mut members = Vec::new();
    for own in 0..count {
        let mut shm = Shm::new(ShmOptions::default());
        let local = LocalView::new(view.clone(), Incarnation(own))?;
        let channel = shm.open(&local, &options)?;
        members.push((shm, channel));
    }
    let begun = Instant::now();
    while members.iter().any(|(shm, channel)| shm.peers(channel.id) + 1 < count as usize) {
        members.iter_mut().for_each(|(shm, _)| shm.reap());
        if begun.elapsed() > PATIENCE {
            return Err("members do not find each other".into());
        }
    }
    Ok(members)
}

fn idle(members: &mut [(Shm, Channel)]) -> f64 {
    let (shm, _) = &mut members[0];
    best(|| {
        for _ in 0..ROUNDS {
            shm.reap();
            shm.receive(64, &mut drop);
        }
    })
}

/// Nanoseconds per round, of the best block.
fn best(mut block: impl FnMut()) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..BLOCKS {
        let begun = Instant::now();
        block();
        best = best.min(begun.elapsed());
    }
    best.as_nanos() as f64 / f64::from(ROUNDS)
}

const ROUNDS: u32 = 2_000;
const BLOCKS: u32 = 100;
const PATIENCE: Duration = Duration::from_secs(10);
