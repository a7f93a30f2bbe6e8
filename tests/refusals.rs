//! Processes that cannot be in one view: both sides are told, in words that name both, and both go on.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use common::live::{Seen, Town, group, member};
use wadjet::transport::{ChannelOptions, Outside, Transport, TransportError};
use wadjet::view::Neighbours;
use wadjet::wire::WIRE_VERSION;
use wadjet::wire::full::{PREFIX_BYTES, Prefix};
use wadjet::wire::outside::OUTSIDE_CONTROL;
use wadjet::{Address, Config, GroupId, Incarnation, Member, View};

const STACK: &str = wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY;
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

#[test]
fn processes_with_other_windows_or_longer_messages_are_not_let_in() {
    for (other, said) in [
        (Config { window_frames: 512, ..Config::default() }, "windows of 512 frames"),
        (Config { message_bytes_max: 1000, ..Config::default() }, "messages of 1000 bytes"),
    ] {
        let mut town = Town::new(STACK, &Config::default());
        let contacts = at_first(&mut town);
        town.config = other;
        town.start(View::alone(group(), member(2), STACK), 2, contacts);
        town.run(TIME);
        both_are_told(&mut town, &["p1", "p2", said, "messages of 16777216 bytes"]);
    }
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

/// A process of another group at the address where that of member 2 was, which nobody runs any more.
fn in_its_place(town: &mut Town, own: u64) {
    town.processes.truncate(2);
    let process = Member { incarnation: Incarnation(own), address: member(3).address };
    let village = View::alone(GroupId::named("village"), process, STACK);
    town.start_at(village, own, &member(3).address, Neighbours::default());
}

fn letters(town: &Town) -> usize {
    town.processes[..2].iter().map(|process| process.diary.letters.len()).sum()
}

#[test]
fn who_has_left_is_not_looked_for_and_may_be_in_another_group_where_it_was() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(20));
    let process = &mut town.processes[2];
    process.endpoint.group(process.key).leave();
    town.meet(&[0, 1], TIME);
    town.run(Duration::from_millis(20));
    let before = letters(&town);
    in_its_place(&mut town, 3);
    town.run(Duration::from_secs(1));
    assert_eq!([0, 1, 2].map(|at| problems(&town, at)), [const { Vec::<String>::new() }; 3]);
    assert_eq!(letters(&town), before, "nobody is missed");
}

#[test]
fn who_has_failed_is_looked_for_until_another_process_has_come_in_from_there() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(20));
    town.processes[2].stopped = true;
    town.meet(&[0, 1], TIME);
    let before = letters(&town);
    town.run(Duration::from_secs(1));
    assert!(letters(&town) > before + 3, "it may be found again");
    // It is begun again, comes in, and leaves.
    town.processes.pop();
    let again = Member { incarnation: Incarnation(4), address: member(3).address };
    let view = View::alone(group(), again, STACK);
    let contacts = Neighbours { contacts: vec![member(1).address], discover: false };
    town.start_at(view, 4, &member(3).address, contacts);
    town.meet(&[0, 1, 2], TIME);
    let process = &mut town.processes[2];
    process.endpoint.group(process.key).leave();
    town.meet(&[0, 1], TIME);
    town.run(Duration::from_millis(20));
    let before = letters(&town);
    in_its_place(&mut town, 5);
    town.run(Duration::from_secs(1));
    assert_eq!([0, 1, 2].map(|at| problems(&town, at)), [const { Vec::<String>::new() }; 3]);
    assert_eq!(letters(&town), before, "nobody is missed");
}

#[test]
fn who_was_taken_for_failed_and_says_that_it_is_in_another_group_is_not_looked_for_any_more() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(20));
    town.processes[2].stopped = true;
    town.meet(&[0, 1], TIME);
    in_its_place(&mut town, 3);
    town.run(TIME);
    let told = problems(&town, 0);
    assert!(
        matches!(&told[..], [problem] if problem.contains(&GroupId::named("village").to_string())),
        "{told:?}"
    );
    let before = letters(&town);
    town.run(Duration::from_secs(1));
    assert_eq!(letters(&town), before, "nobody is missed");
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
    both_are_told(&mut town, &["p1", "p2", "wire version 9", &format!(" speaks {WIRE_VERSION}")]);
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

fn exits(town: &Town, at: usize) -> Vec<String> {
    let exit = |seen: &Seen| if let Seen::Exit(why) = seen { Some(why.clone()) } else { None };
    town.processes[at].diary.seen.iter().filter_map(exit).collect()
}

fn views(town: &Town, at: usize) -> usize {
    town.processes[at].diary.seen.iter().filter(|seen| matches!(seen, Seen::View(..))).count()
}

/// Another process that says it is incarnation `incarnation`.
fn second(incarnation: u64, address: &str) -> Member {
    Member { incarnation: Incarnation(incarnation), address: Address(address.into()) }
}

fn looks_at(contacts: &[u64]) -> Neighbours {
    let contacts = contacts.iter().map(|contact| member(*contact).address).collect();
    Neighbours { contacts, discover: false }
}

/// Whether it asks another member, the very process whose incarnation it has, or everybody.
#[test]
fn a_second_process_under_a_live_incarnation_is_told_so_and_its_group_ends() {
    let everybody = Neighbours { contacts: Vec::new(), discover: true };
    for neighbours in [looks_at(&[1]), looks_at(&[2]), everybody] {
        let mut town = Town::of(2, STACK, &Config::default());
        town.run(Duration::from_millis(20));
        let twin = second(2, "elsewhere");
        let view = View::alone(group(), twin.clone(), STACK);
        town.start_at(view, 2, &twin.address, neighbours);
        town.run(TIME);
        let [told] = &problems(&town, 2)[..] else { panic!("{:?}", problems(&town, 2)) };
        for part in ["elsewhere", "p2", "incarnation"] {
            assert!(told.contains(part), "{told}");
        }
        let [exit] = &exits(&town, 2)[..] else { panic!("{:?}", exits(&town, 2)) };
        assert!(exit.contains("incarnation"), "{exit}");
        let others: Vec<String> = [0, 1].into_iter().flat_map(|at| problems(&town, at)).collect();
        assert!(others.contains(told), "{others:?}");
        for at in [0, 1] {
            assert_eq!((views(&town, at), exits(&town, at).len()), (1, 0));
        }
    }
}

#[test]
fn of_two_processes_under_one_incarnation_that_are_alone_the_founder_stays() {
    let mut town = Town::new(STACK, &Config::default());
    let [one, other] = ["here", "there"].map(|address| second(7, address));
    for (own, peer) in [(&one, &other), (&other, &one)] {
        let neighbours = Neighbours { contacts: vec![peer.address.clone()], discover: false };
        let first = own.address < peer.address;
        let view = if first {
            View::fixed(group(), vec![own.clone()], STACK)
        } else {
            View::alone(group(), own.clone(), STACK)
        };
        town.start_at(view, 7, &own.address, neighbours);
    }
    town.run(TIME);
    assert_eq!([exits(&town, 0).len(), exits(&town, 1).len()], [0, 1]);
    for at in [0, 1] {
        let told = problems(&town, at);
        let both = |told: &String| told.contains("here") && told.contains("there");
        assert!(!told.is_empty() && told.iter().all(both), "{told:?}");
    }
}

/// Two views, in each of which somebody has the same incarnation: they cannot merge, which is found out before anybody stops
/// casting.
#[test]
fn views_that_cannot_merge_are_told_so_and_ask_with_less_and_less_hurry_and_stay_what_they_are() {
    let spec = STACK.replace("MBRSHIP", "MBRSHIP(merge_ms=20,probe_most_ms=20)");
    let mut town = Town::of(3, &spec, &Config::default());
    let twin = second(2, "elsewhere");
    let view = View::fixed(group(), vec![member(9), twin.clone()], &spec);
    town.start(view.clone(), 9, looks_at(&[1]));
    town.start_at(view, 2, &twin.address, Neighbours::default());
    town.run(Duration::from_secs(1));
    for at in [0, 3] {
        let [told] = &problems(&town, at)[..] else { panic!("{at}: {:?}", problems(&town, at)) };
        for part in ["elsewhere", "p2", "incarnation"] {
            assert!(told.contains(part), "{told}");
        }
    }
    // Every 20 ms would be 50 times; after 40, 80, and then every 160 ms it is 8 times.
    const ASKS: Option<&u8> = Some(&1);
    let letters = town.processes[3].diary.letters.iter();
    let asked = letters.filter(|bytes| bytes.get(PREFIX_BYTES + 10) == ASKS).count();
    assert!((5..=10).contains(&asked), "{asked} times");
    assert_eq!(views(&town, 3), 1);
    assert_eq!([views(&town, 0), exits(&town, 4).len()], [1, 0]);
}

/// Who is restarted is let in when the others have given its former life up. Where they do not, it is told.
#[test]
fn an_address_that_is_in_the_view_already_is_spoken_of_if_that_lasts() {
    for (first_ms, lasts) in [(100, false), (3000, true)] {
        let suspect = format!("SUSPECT(first_ms={first_ms},least_ms={first_ms},most_ms={first_ms})");
        let spec = STACK.replace("SUSPECT", &suspect);
        let mut town = Town::of(2, &spec, &Config::default());
        town.run(Duration::from_millis(20));
        town.processes.pop();
        let restarted = second(9, &member(2).address.0);
        let view = View::alone(group(), restarted.clone(), &spec);
        town.start_at(view, 9, &restarted.address, looks_at(&[1]));
        town.run(Duration::from_millis(1500));
        assert_eq!(town.together(&[0, 1]), !lasts);
        for at in [0, 1] {
            let told = problems(&town, at);
            assert_eq!(told.len(), usize::from(lasts), "{told:?}");
            for part in ["p2".to_owned(), Incarnation(2).to_string(), Incarnation(9).to_string()] {
                assert!(told.iter().all(|told| told.contains(&part)), "{told:?}");
            }
        }
    }
}

#[test]
fn views_that_together_have_more_members_than_a_view_holds_are_told_so() {
    let most = wadjet::id::MEMBERS_MAX as u64;
    let config = Config { window_frames: 8, control_frames: 64, ..Config::default() };
    let mut town = Town::new(STACK, &config);
    let members: Vec<Member> = (1..=most).map(member).collect();
    for own in 1..=most {
        town.start(View::fixed(group(), members.clone(), STACK), own, Neighbours::default());
    }
    let late = town.start(View::alone(group(), member(most + 1), STACK), most + 1, looks_at(&[1]));
    town.until(TIME, |town| [0, late].into_iter().all(|at| !problems(town, at).is_empty()));
    for at in [0, late] {
        let [told] = &problems(&town, at)[..] else { panic!("{at}: {:?}", problems(&town, at)) };
        for part in ["p1 ", &format!("p{}", most + 1), "128"] {
            assert!(told.contains(part), "{told}");
        }
    }
}

/// Nobody agrees on fixed views: what one was given is not what the others were.
#[test]
fn members_of_a_fixed_view_with_different_stacks_or_windows_are_told_of_each_other_once() {
    const FIXED: &str = wadjet::layers::FIXED_STACK;
    let other_spec = FIXED.replace("NAK", "NAK(repair_us=300)");
    let members: Vec<Member> = (1..=3).map(member).collect();
    for (spec, window_frames) in [(&other_spec[..], 1024), (FIXED, 512)] {
        let mut town = Town::new(FIXED, &Config { window_frames: 1024, ..Config::default() });
        for own in 1..=3 {
            let spec = if own == 3 { spec } else { FIXED };
            town.config.window_frames = if own == 3 { window_frames } else { 1024 };
            town.start(View::fixed(group(), members.clone(), spec), own, Neighbours::default());
        }
        for _ in 0..5 {
            (0..3).for_each(|at| town.cast(at, b"hello"));
            town.run(Duration::from_millis(2));
        }
        for (at, told_of) in [(0, &["p3 "][..]), (1, &["p3 "]), (2, &["p1 ", "p2 "])] {
            let told = problems(&town, at);
            assert_eq!(told.len(), told_of.len(), "{told:?}");
            for of in told_of {
                assert!(told.iter().any(|told| told.starts_with(of) && told.contains("stack")), "{told:?}");
            }
        }
        // The two that are alike go on.
        for at in [0, 1] {
            let casts = town.processes[at].diary.seen.iter().filter(|seen| matches!(seen, Seen::Cast(..)));
            assert_eq!(casts.count(), 10);
        }
    }
}

#[test]
fn a_view_takes_in_no_more_members_than_its_regions_have_room_for() {
    let config = Config { region_bytes_max: 16 << 20, ..Config::default() };
    let most = config.members_max();
    assert!((3..20).contains(&most), "{most}");
    let mut town = Town::new(STACK, &config);
    let contacts = at_first(&mut town);
    for number in 2..=most as u64 + 1 {
        town.start(View::alone(group(), member(number), STACK), number, contacts.clone());
        town.run(TIME);
    }
    let all: Vec<usize> = (0..most).collect();
    assert!(town.together(&all), "those that there is room for are together");
    assert!(town.together(&[most]), "the other one is alone");
    let told = problems(&town, most);
    let what = format!("a view has at most {most} (region_bytes_max)");
    assert!(told.iter().any(|problem| problem.contains(&what)), "{told:?}");
}

#[test]
fn a_process_goes_into_no_view_that_its_own_regions_have_no_room_for() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(20));
    let room_for_three = (1 << 20..).step_by(1 << 20);
    let small = room_for_three.map(|region_bytes_max| Config { region_bytes_max, ..Config::default() });
    town.config = small.into_iter().find(|config| config.members_max() == 3).unwrap();
    let contacts = Neighbours { contacts: vec![member(1).address], discover: false };
    let fourth = town.start(View::alone(group(), member(4), STACK), 4, contacts);
    town.run(TIME);
    assert!(town.together(&[0, 1, 2]) && town.together(&[fourth]));
    let told = problems(&town, fourth);
    let [told] = &told[..] else { panic!("{told:?}") };
    assert!(told.contains("that of p1 has 3: a view has at most 3 (region_bytes_max)"), "{told}");
}

#[test]
fn nobody_is_let_in_where_a_members_transport_has_no_room_and_the_view_stays() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(20));
    let view = town.processes[0].view();
    // The second of three, which is not asked by anybody.
    let full = |members: usize, _: &ChannelOptions| match members {
        0..=3 => Ok(()),
        _ => Err(TransportError::NoSpace { what: "a test".into(), bytes: 7, remedy: "make some".into() }),
    };
    town.processes[1].endpoint.room(&full);
    town.run(Duration::from_millis(20));
    let contacts = Neighbours { contacts: vec![member(1).address], discover: false };
    let fourth = town.start(View::alone(group(), member(4), STACK), 4, contacts.clone());
    town.run(TIME);
    assert!(town.together(&[0, 1, 2]) && town.together(&[fourth]));
    assert_eq!(town.processes[0].view(), view, "no view was changed for it");
    let told = problems(&town, fourth);
    assert!(told[0].contains("a view has at most 3 (there is room for no more at p2)"), "{told:?}");
    // There is more room, and it is asked again.
    town.processes[1].endpoint.room(&|_, _| Ok(()));
    town.run(4 * TIME);
    assert!(town.together(&[0, 1, 2, fourth]));
    // Who has no room itself asks nobody.
    let fifth = town.start(View::alone(group(), member(5), STACK), 5, contacts);
    town.processes[fifth].endpoint.room(&full);
    town.run(TIME);
    assert!(town.together(&[0, 1, 2, fourth]) && town.together(&[fifth]));
    let told = problems(&town, fifth);
    assert!(told[0].contains("at most 3 (no room for a test (7 bytes): make some)"), "{told:?}");
}
