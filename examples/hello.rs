//! Hello, group. Run it in two shells, with a name each: whoever comes is greeted by all.
#![allow(clippy::print_stdout)]

use wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY;
use wadjet::runtime::fresh_incarnation;
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::{Application, Config, Driver, DriverOptions, Endpoint, Event, Group, JoinOptions, Rank};

struct Greeter(String);

impl Application for Greeter {
    fn event(&mut self, event: &Event, group: &mut Group<'_>) {
        if let Event::View(view) = event {
            println!("{} of us", view.size());
            group.cast(format!("hello from {}", self.0).as_bytes()).expect("there is room for one");
        }
    }
    fn message(&mut self, _from: Rank, message: &[u8], _group: &mut Group<'_>) {
        println!("{}", String::from_utf8_lossy(message));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).ok_or("give a name: cargo run --example hello -- ada")?;
    let options = JoinOptions::discover("hello", &name, DEFAULT_STACK_WITH_INTEGRITY);
    let (endpoint, shm) =
        (Endpoint::new(Config::default(), fresh_incarnation())?, Shm::new(ShmOptions::default()));
    let mut driver = Driver::new(endpoint, Greeter(name), shm, DriverOptions::default());
    driver.join(options)?;
    println!("{}", driver.run()?);
    Ok(())
}
