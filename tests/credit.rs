//! Credit that is lost, and nothing else: whoever waits for it asks. Seeds do not show who never does, for in them others
//! cast and report. And credit of a small window, which waits for nothing but the way there and back.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use common::live::{Seen, Town};
use wadjet::Config;
use wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY as STACK;
use wadjet::wire::control::{GOSSIP_HEADER_BYTES, GossipRow};
use wadjet::wire::full::{PREFIX_BYTES, Prefix, STACK_CONTROL};

const WINDOW: u64 = 8;

/// The row as it was, but that member 0 has no more credit than at first; `None` if it says nothing of that.
fn without_credit(bytes: &[u8]) -> Option<Vec<u8>> {
    let (prefix, ..) = Prefix::decode(bytes).ok()?;
    let begin = PREFIX_BYTES + 8 * usize::from(prefix.words);
    let row = (prefix.control == STACK_CONTROL).then(|| GossipRow::decode(&bytes[begin..]).ok())??;
    let credit =
        (0..usize::from(row.gossips)).find(|at| row.value(0, *at).is_some_and(|value| value > WINDOW))?;
    assert_eq!(row.first, 0, "one row speaks of all");
    let mut bytes = bytes.to_vec();
    let at = begin + GOSSIP_HEADER_BYTES + 8 * credit;
    bytes[at..at + 8].copy_from_slice(&WINDOW.to_le_bytes());
    Some(bytes)
}

/// Member 0 of three casts all that it may, everybody has it, and nobody but that member learns so much that there would be
/// more to tell. Whether what it casts then arrives.
fn goes_on(fc: &str) -> bool {
    let mut town = Town::of(3, &STACK.replace("FC", fc), &Config { pack: false, ..Config::default() });
    town.run(Duration::from_secs(1));
    let rows = Rc::new(RefCell::new(Vec::new()));
    let taken = Rc::clone(&rows);
    town.lose = Box::new(move |at, received| match without_credit(received.bytes()) {
        Some(row) if at == 0 => {
            taken.borrow_mut().push(row);
            true
        }
        _ => false,
    });
    for message in 0..2 * WINDOW {
        town.cast(0, &[message as u8]);
    }
    let mut lost = 0;
    town.until(Duration::from_millis(50), |town| {
        for row in rows.borrow_mut().drain(..) {
            lost += 1;
            let (now, process) = (town.now, &mut town.processes[0]);
            process.endpoint.receive(common::received(&row), now, &mut process.diary);
        }
        false
    });
    assert!(lost >= 2, "credit was given");
    let delivered = |town: &Town, at: usize| {
        town.processes[at].diary.seen.iter().filter(|seen| matches!(seen, Seen::Cast(..))).count() as u64
    };
    assert!(
        (0..3).all(|at| delivered(&town, at) == WINDOW),
        "{:?}",
        [0, 1, 2].map(|at| delivered(&town, at))
    );
    town.lose = Box::new(|_, _| false);
    town.until(Duration::from_secs(5), |town| (0..3).all(|at| delivered(town, at) == 2 * WINDOW))
}

#[test]
fn credit_that_was_lost_is_asked_for() {
    assert!(goes_on("FC(window=8)"));
}

#[cfg(feature = "laboratory")]
#[test]
fn who_never_asks_waits_for_ever() {
    assert!(!goes_on("FC(window=8,broken=never-asks)"));
}

/// Who casts alone through a small window waits for no timer: receivers say what they hold as often as the window asks for it.
#[test]
fn a_small_window_is_no_rate() {
    let late = Duration::from_secs(1);
    let config = Config { pack: false, gossip_delay: late, ..Config::default() };
    let micros = late.as_micros();
    for fc in ["FC", "FC(window=8)"] {
        let fc = fc.replace(')', &format!(",ask_us={micros},backoff_us={micros})"));
        let stable = format!("STABLE(report_us={micros},ask_us={micros},backoff_us={micros})");
        let mut town = Town::of(3, &STACK.replace("FC", &fc).replace("STABLE", &stable), &config);
        town.run(Duration::from_secs(1));
        let delivered = |town: &Town, at: usize| {
            town.processes[at].diary.seen.iter().filter(|seen| matches!(seen, Seen::Cast(..))).count() as u64
        };
        let casts = 20 * WINDOW;
        let mut next = 0;
        let all = town.until(late / 100, |town| {
            let process = &mut town.processes[0];
            while next < casts && process.endpoint.group(process.key).cast(&[next as u8]).is_ok() {
                next += 1;
            }
            (0..3).all(|at| delivered(town, at) == casts)
        });
        assert!(all, "{fc}: {:?}", [0, 1, 2].map(|at| delivered(&town, at)));
    }
}
