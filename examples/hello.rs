//! Hello, group: three members over shared memory; each greets the group, and hears all three greetings.
#![allow(clippy::print_stdout)]

use std::sync::mpsc::{Sender, channel};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{error::Error, thread};

use wadjet::runtime::{Driver, DriverOptions, Handle};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::*;

struct Greeter(Sender<String>);

impl Application for Greeter {
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        for text in delivery.messages().map(String::from_utf8_lossy) {
            let line = format!("member {} heard {} say {text:?}", group.view().rank(), delivery.origin());
            self.0.send(line).expect("main listens");
        }
    }
}

fn run(view: LocalView, heard: Sender<String>, handles: Sender<Handle>) -> Result<(), Box<dyn Error>> {
    let endpoint = Endpoint::new(Config::default(), view.member(view.rank()).incarnation)?;
    let shm = Shm::new(ShmOptions::default());
    let mut driver = Driver::new(endpoint, Greeter(heard), shm, DriverOptions::default());
    let group = driver.open(view)?;
    driver.group(group).cast(b"hello, group")?;
    handles.send(driver.handle())?;
    Ok(driver.run()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    // An incarnation is one life of one process: no two are ever the same.
    let born = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let members =
        [0, 1, 2].map(|at| Member { incarnation: Incarnation(born + at), address: Address(at.to_string()) });
    let view = View::fixed(GroupId::named("hello"), members.to_vec(), "STABLE:FC:UNICAST:LOCAL:NAK:COM");
    let ((heard, lines), (handles, driving)) = (channel(), channel());
    let threads = members.map(|Member { incarnation, .. }| {
        let (view, heard, handles) =
            (LocalView::new(view.clone(), incarnation), heard.clone(), handles.clone());
        thread::spawn(move || run(view.expect("a member"), heard, handles).expect("shared memory"))
    });
    lines.iter().take(9).for_each(|line| println!("{line}"));
    driving.iter().take(3).for_each(|handle| handle.stop());
    threads.into_iter().for_each(|thread| thread.join().expect("stopped in good order"));
    Ok(())
}
