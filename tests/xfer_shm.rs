//! State transfer over shared memory, where the state goes in frames longer than those of casts.
#![cfg(target_os = "linux")]

use std::io::Cursor;
use std::time::{Duration, Instant};

use wadjet::endpoint::GroupKey;
use wadjet::group::{Application, Delivery, Event, Group, Snapshot, StatePart};
use wadjet::layers::LIVE_STACK_WITH_INTEGRITY;
use wadjet::runtime::{Driver, DriverOptions, JoinOptions};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::view::Neighbours;
use wadjet::{Address, Config, Endpoint, GroupId, Incarnation};

const PATIENCE: Duration = Duration::from_secs(60);
const STATE_BYTES: usize = 3 << 20;

/// Its state: some bytes that differ everywhere, and the sum of all casts, which goes with them.
#[derive(Default)]
struct Member {
    bytes: Vec<u8>,
    sum: u64,
    members: usize,
    parts: usize,
    longest: usize,
}

impl Application for Member {
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        for message in delivery.messages() {
            self.sum += u64::from_le_bytes(message.try_into().unwrap());
        }
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        match event {
            Event::View(view) => self.members = view.size(),
            Event::Problem(problem) => panic!("{}: {}", problem.layer, problem.what),
            _ => {}
        }
    }

    fn snapshot(&mut self, _group: &mut Group<'_>) -> Option<Box<dyn Snapshot>> {
        let mut bytes = self.bytes.clone();
        bytes.extend(self.sum.to_le_bytes());
        Some(Box::new(Cursor::new(bytes)))
    }

    fn install_state(&mut self, part: &StatePart<'_>, _group: &mut Group<'_>) -> Result<(), String> {
        if part.at == 0 {
            (self.bytes, self.sum, self.parts) = (Vec::new(), 0, 0);
        }
        assert_eq!(self.bytes.len() as u64, part.at, "nothing is missing");
        self.bytes.extend(part.bytes);
        self.parts += 1;
        self.longest = self.longest.max(part.bytes.len());
        if part.last {
            let sum = self.bytes.split_off(self.bytes.len() - 8);
            self.sum = u64::from_le_bytes(sum.try_into().unwrap());
        }
        Ok(())
    }
}

struct Party {
    driver: Driver<Shm, Member>,
    group: GroupKey,
}

fn party(own: u64, group: GroupId, application: Member) -> Party {
    let name = |own: u64| Address(format!("long{own}"));
    let endpoint = Endpoint::new(Config::default(), Incarnation(own)).unwrap();
    let transport = Shm::new(ShmOptions::default());
    let mut driver = Driver::new(endpoint, application, transport, DriverOptions::default());
    let contacts = if own == 1 { Vec::new() } else { vec![name(1)] };
    let options = JoinOptions {
        group,
        spec: format!("XFER:{LIVE_STACK_WITH_INTEGRITY}"),
        address: name(own),
        neighbours: Neighbours { contacts, discover: false },
    };
    let group = driver.join(options).unwrap();
    Party { driver, group }
}

/// Runs everybody, who cast `casts` at most, until it is so.
fn until(parties: &mut [Party], casts: u32, mut done: impl FnMut(&[Party]) -> bool) {
    let begun = Instant::now();
    let mut turns = 0_u32;
    while !done(parties) {
        let sums = || parties.iter().map(|party| party.driver.application().sum).collect::<Vec<u64>>();
        assert!(begun.elapsed() < PATIENCE, "after {turns} turns; {:?}", sums());
        turns += 1;
        for (at, party) in parties.iter_mut().enumerate() {
            if turns.is_multiple_of(16) && turns / 16 <= casts {
                // What is refused is not cast: no harm.
                let _ = party.driver.group(party.group).cast(&(u64::from(turns) << at).to_le_bytes());
            }
            party.driver.run_once();
        }
    }
}

#[test]
fn a_state_goes_in_long_frames_to_those_who_come_in_while_casts_go_on() {
    let group = GroupId(u64::from(std::process::id()) << 16 | 0x0f3a);
    let bytes: Vec<u8> = (0..STATE_BYTES as u32).map(|at| (at ^ at >> 9 ^ at >> 17) as u8).collect();
    let mut parties = vec![party(1, group, Member { bytes: bytes.clone(), ..Member::default() })];
    until(&mut parties, 0, |parties| parties[0].driver.application().members == 1);
    parties.push(party(2, group, Member::default()));
    let whole = |party: &Party, members: usize| {
        let application = party.driver.application();
        application.members == members && application.bytes.len() == STATE_BYTES
    };
    until(&mut parties, u32::MAX, |parties| parties.iter().all(|party| whole(party, 2)));
    parties.push(party(3, group, Member::default()));
    until(&mut parties, u32::MAX, |parties| parties.iter().all(|party| whole(party, 3)));
    // Nobody casts any more; what is under way arrives.
    let sum = |party: &Party| party.driver.application().sum;
    let mut quiet = 0;
    until(&mut parties, 0, |parties| {
        let same = sum(&parties[0]) > 0 && parties.iter().all(|party| sum(party) == sum(&parties[0]));
        quiet = if same { quiet + 1 } else { 0 };
        quiet > 1000
    });
    for party in &parties[1..] {
        let application = party.driver.application();
        assert!(application.bytes == bytes, "the state came over as it was");
        assert!(application.longest > 16 << 10, "the longest part was of {} bytes", application.longest);
        assert!(application.parts < STATE_BYTES / 16_384 + 2, "it took {} parts", application.parts);
    }
}
