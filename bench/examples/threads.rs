//! What other threads cost: casts through a `Handle`, and deliveries through `Workers`.
//!
//! ```text
//! cargo run --release -p wadjet-bench --example threads
//! ```
//!
//! A member alone in its view, over memory, casts 64 bytes to itself: by its own thread, by another one through a handle, and
//! with its deliveries handed on to one and two workers. With more threads than cores the figures are those of the scheduler.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use wadjet::runtime::{
    CommandOptions, Delivered, Driver, DriverOptions, Handle, HandleError, Order, Turn, Workers,
    WorkersOptions,
};
use wadjet::transport::memory::{Hub, HubOptions, MemoryTransport};
use wadjet::{
    Address, Application, Config, Delivery, Endpoint, Group, GroupId, GroupKey, Incarnation, LocalView,
    Member, Shadow, View,
};

const MESSAGE: [u8; 64] = [7; 64];
const CASTS: u64 = 1_000_000;
const LIMIT: Duration = Duration::from_secs(60);

/// Counts what is delivered, and hands it on if there is somebody to hand it to.
#[derive(Default)]
struct Count {
    delivered: u64,
    workers: Option<Workers>,
}

impl Application for Count {
    fn is_behind(&mut self) -> bool {
        self.workers.as_mut().is_some_and(Workers::is_behind)
    }

    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        self.delivered += delivery.len() as u64;
        if let Some(workers) = &mut self.workers {
            workers.hand_on(delivery, group).expect("workers do nothing that panics");
        }
    }
}

fn driver(workers: usize) -> Result<(Driver<MemoryTransport, Count>, GroupKey), Box<dyn Error>> {
    let own = Member { incarnation: Incarnation(1), address: Address("alone".to_owned()) };
    let view = View::fixed(GroupId::named("threads"), vec![own], wadjet::layers::FIXED_STACK_WITH_INTEGRITY);
    let config = Config { shadow: Shadow::Off, ..Config::default() };
    let mut count = Count::default();
    if workers > 0 {
        let options = WorkersOptions { workers, deliveries_max: 1024, order: Order::Total };
        let work = |_| {
            |delivered: &Delivered, turn: &mut Turn<'_>| {
                black_box(delivered.messages().map(<[u8]>::len).sum::<usize>());
                turn.wait();
            }
        };
        count.workers = Some(Workers::start(options, work)?);
    }
    let transport = Hub::new(HubOptions::default()).transport();
    let commands = CommandOptions { commands_max: 1024, message_bytes_max: MESSAGE.len() };
    let options = DriverOptions { commands, ..DriverOptions::default() };
    let mut driver = Driver::new(Endpoint::new(config, Incarnation(1))?, count, transport, options);
    let key = driver.open(LocalView::new(view, Incarnation(1))?)?;
    Ok((driver, key))
}

/// Nanoseconds per message, from the first cast to the last delivery that is done with.
fn alone(workers: usize) -> Result<f64, Box<dyn Error>> {
    let (mut driver, key) = driver(workers)?;
    let began = Instant::now();
    let mut cast = 0;
    let done = driver.run_until(LIMIT, |member| {
        let (mut group, count) = member.split(key);
        while cast < CASTS && group.cast(&MESSAGE).is_ok() {
            cast += 1;
        }
        count.delivered == CASTS && count.workers.as_ref().is_none_or(|workers| workers.waiting() == 0)
    });
    if !done {
        return Err("not everything was delivered".into());
    }
    Ok(began.elapsed().as_nanos() as f64 / CASTS as f64)
}

/// The same, cast by another thread; and what a call costs the caller that finds room.
fn through_a_handle() -> Result<(f64, f64), Box<dyn Error>> {
    let (mut driver, key) = driver(0)?;
    let handle = driver.handle();
    let began = Instant::now();
    let caller = std::thread::spawn(move || caller(&handle, key));
    if !driver.run_until(LIMIT, |member| member.application().delivered == CASTS) {
        return Err("not everything was delivered".into());
    }
    let whole = began.elapsed().as_nanos() as f64 / CASTS as f64;
    let call = caller.join().map_err(|_| "the caller panicked")?;
    Ok((whole, call))
}

/// Casts everything; nanoseconds per call that was taken.
fn caller(handle: &Handle, key: GroupKey) -> f64 {
    let (mut taken, mut spent) = (0, Duration::ZERO);
    // Ends when the driver has taken everything, or with it.
    while taken < CASTS {
        let began = Instant::now();
        match handle.cast(key, &MESSAGE) {
            Ok(_) => {
                spent += began.elapsed();
                taken += 1;
            }
            Err(HandleError::Full(_)) => std::thread::yield_now(),
            Err(_) => break,
        }
    }
    spent.as_nanos() as f64 / CASTS as f64
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("64 B casts to oneself over memory, ns per message ({CASTS} messages)");
    println!("{:44}{:8.0}", "by the driver's own thread", alone(0)?);
    let (whole, call) = through_a_handle()?;
    println!("{:44}{whole:8.0}   (a call: {call:.0}, two looks at the clock included)", "through a handle");
    for workers in [1, 2] {
        println!(
            "{:44}{:8.0}",
            format!("by its own thread, {workers} workers in total order"),
            alone(workers)?
        );
    }
    Ok(())
}
