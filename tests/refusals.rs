//! Processes that cannot be in one view: both sides are told, in words that name both, and both go on.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use common::live::{Seen, Town, group, member};
use wadjet::transport::{Outside, Transport};
use wadjet::view::Neighbours;
use wadjet::wire::full::{PREFIX_BYTES, Prefix};
use wadjet::wire::outside::OUTSIDE_CONTROL;
use wadjet::{Config, GroupId, View};

const STACK: &str = wadjet::layers::LIVE_STACK_WITH_INTEGRITY;
const TIME: Duration = Duration::from_millis(500);

fn problems(town: &Town, at: usize) -> Vec<String> {
    let problem = |seen: &Seen| if let Seen::Problem(what) = seen { Some(what.clone()) } else { None };
    town.processes[at].diary.seen.iter().filter_map(problem).collect()
}

/// Each of two processes has told its application once, in words that have all of `parts`, and both are where they were.
fn both_are_told(town: &mut Town, parts: &[&str]) {
    for at in [0, 1] {
        let problems = problems(town, at);
        let [problem] = &problems[..] else { panic!("process {at}: {problems:?}") };
        for part in parts {
            assert!(problem.contains(part), "process {at}: {problem}");
        }
        town.cast(at, b"goes on");
    }
    town.run(Duration::from_millis(5));
    for at in [0, 1] {
        assert!(town.together(&[at]));
        assert_eq!(
            town.processes[at].diary.seen.last(),
            Some(&Seen::Cast(at as u64 + 1, b"goes on".to_vec()))
        );
    }
}

fn at_first(town: &mut Town) -> Neighbours {
    town.join(&[]);
    town.run(Duration::from_millis(20));
    Neighbours { contacts: vec![member(1).address], discover: false }
}

#[test]
fn two_groups_of_one_name_and_different_stacks_meet_and_go_on() {
    let mut town = Town::new(STACK, &Config::default());
    let contacts = at_first(&mut town);
    let other = STACK.replace("NAK", "NAK(repair_us=300)");
    town.start(View::alone(group(), member(2), &other), 2, contacts);
    town.run(TIME);
    both_are_told(&mut town, &["p1", "p2", STACK, &other]);
}

/// However they order: by turns, by a sequencer, safely or not.
#[test]
fn two_groups_that_order_differently_meet_and_go_on() {
    let orders = ["", "TOTAL:", "SEQUENCER:", "SAFE:TOTAL:", "TOTAL(burst=3):"];
    for (one, other) in orders.iter().zip(&orders[1..]) {
        let [one, other] = [one, other].map(|order| STACK.replace("MBRSHIP", &format!("{order}MBRSHIP")));
        let mut town = Town::new(&one, &Config::default());
        let contacts = at_first(&mut town);
        town.start(View::alone(group(), member(2), &other), 2, contacts);
        town.run(TIME);
        both_are_told(&mut town, &["p1", "p2", &one, &other]);
    }
}

#[test]
fn who_looks_for_another_group_at_this_address_is_told_and_so_is_this_one() {
    let mut town = Town::new(STACK, &Config::default());
    let contacts = at_first(&mut town);
    let village = GroupId::named("village");
    town.start(View::alone(village, member(2), STACK), 2, contacts);
    town.run(TIME);
    both_are_told(&mut town, &["p1", "p2", &group().to_string(), &village.to_string()]);
}

#[test]
fn who_calls_for_another_group_wherever_somebody_listens_is_no_problem() {
    let mut town = Town::new(STACK, &Config::default());
    at_first(&mut town);
    let view = View::alone(GroupId::named("village"), member(2), STACK);
    town.start(view, 2, Neighbours { contacts: Vec::new(), discover: true });
    town.run(TIME);
    assert_eq!([problems(&town, 0), problems(&town, 1)], [const { Vec::<String>::new() }; 2]);
}

#[test]
fn who_speaks_another_wire_version_is_told_and_so_is_this_one() {
    let mut town = Town::new(STACK, &Config::default());
    let contacts = at_first(&mut town);
    // Whatever these two write to each other arrives in version 9.
    let letters = Rc::new(RefCell::new(Vec::new()));
    let taken = Rc::clone(&letters);
    town.lose = Box::new(move |at, received| {
        let bytes = received.bytes();
        let letter = Prefix::decode(bytes).is_ok_and(|(prefix, ..)| prefix.control == OUTSIDE_CONTROL);
        if letter {
            taken.borrow_mut().push((at as u64 + 1, bytes.to_vec()));
        }
        letter
    });
    town.start(View::alone(group(), member(2), STACK), 2, contacts);
    let mut post = town.hub.transport();
    town.until(TIME, |_| {
        for (to, mut bytes) in letters.borrow_mut().drain(..) {
            bytes[2] = 9;
            let checksum = crc32c::crc32c(&bytes[..PREFIX_BYTES]);
            let checksum = crc32c::crc32c_append(checksum, &bytes[PREFIX_BYTES + 4..]);
            bytes[PREFIX_BYTES..PREFIX_BYTES + 4].copy_from_slice(&checksum.to_le_bytes());
            post.send_outside(group(), &Outside::To(member(to).address), &bytes);
        }
        false
    });
    both_are_told(&mut town, &["p1", "p2", "wire version 9", " speaks 1"]);
}

#[test]
fn many_processes_of_another_group_are_spoken_of_ten_times_a_second_at_most() {
    let mut town = Town::new(STACK, &Config::default());
    let contacts = at_first(&mut town);
    for own in 2..30 {
        let view = View::alone(GroupId::named("village"), member(own), STACK);
        town.start(view, own, contacts.clone());
    }
    town.run(TIME);
    let told = problems(&town, 0).len();
    assert!((2..=6).contains(&told), "{told} in {TIME:?}");
}
