//! Views that are agreed on: failures, joins, leaves, and what was delivered in between, with the shadow on.

mod common;

use std::time::Duration;

use common::live::{Seen, Town, group, member};
use wadjet::group::{Grounds, HeldFor};
use wadjet::transport::ChannelId;
use wadjet::view::Neighbours;
use wadjet::{CastError, Config, Group, Incarnation, SendError, View};

const STACK: &str = wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY;
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn survivors_deliver_the_same_and_casts_of_the_flush_go_out_in_the_next_view() {
    for victim in 0..3 {
        let mut town = Town::of(3, STACK, &Config::default());
        town.run(Duration::from_millis(30));
        for n in 0..200u32 {
            for at in 0..3 {
                if !(at == victim && n > 100) {
                    town.cast(at, &n.to_le_bytes());
                }
            }
            town.step();
            if n == 100 {
                town.processes[victim].stopped = true;
            }
        }
        let others: Vec<usize> = (0..3).filter(|at| *at != victim).collect();
        town.meet(&others, SECOND);
        town.run(Duration::from_millis(100));
        let [a, b] = [others[0], others[1]].map(|at| town.processes[at].casts_by_view());
        assert_eq!(a.len(), 2);
        let by_origin = |casts: &[(u64, Vec<u8>)], origin: u64| -> Vec<Vec<u8>> {
            casts.iter().filter(|(o, _)| *o == origin).map(|(_, m)| m.clone()).collect()
        };
        for origin in 1..=3 {
            for view in 0..2 {
                assert_eq!(by_origin(&a[view].1, origin), by_origin(&b[view].1, origin), "{victim} {origin}");
            }
            let all: usize = a.iter().map(|(_, casts)| by_origin(casts, origin).len()).sum();
            if origin != victim as u64 + 1 {
                assert_eq!(all, 200, "nothing of a survivor is lost");
            }
        }
    }
}

#[test]
fn ten_processes_that_start_at_once_form_one_view() {
    let mut town = Town::new(STACK, &Config::default());
    for n in 0..10 {
        town.join(if n == 0 { &[] } else { &[1] });
    }
    let took = town.meet(&(0..10).collect::<Vec<_>>(), SECOND);
    assert!(took < Duration::from_millis(50), "{took:?}");
    town.cast(3, b"hello");
    town.run(Duration::from_millis(10));
    for process in &town.processes {
        let views = process.casts_by_view();
        assert_eq!(views.last().unwrap().1, [(4, b"hello".to_vec())]);
    }
}

#[test]
fn a_process_joins_through_any_member_and_leaves_again() {
    for contact in 1..=3 {
        let mut town = Town::of(3, STACK, &Config::default());
        town.run(Duration::from_millis(10));
        town.join(&[contact]);
        town.meet(&[0, 1, 2, 3], SECOND);
        let leaver = &mut town.processes[1];
        leaver.endpoint.group(leaver.key).leave();
        let took = town.meet(&[0, 2, 3], SECOND);
        assert!(took < Duration::from_millis(10), "nobody waits for a time-out: {took:?}");
        town.run(Duration::from_millis(10));
        assert_eq!(town.processes[1].diary.seen.last(), Some(&Seen::Exit("left the group".into())));
        for at in [0, 2, 3] {
            let left = town.processes[at].diary.seen.iter().filter(|seen| matches!(seen, Seen::Left(_)));
            assert_eq!(left.count(), 1, "told once that it leaves");
        }
    }
}

#[test]
fn who_was_away_learns_that_the_others_have_gone_on() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    town.processes[2].stopped = true;
    town.meet(&[0, 1], SECOND);
    town.run(SECOND);
    town.processes[2].stopped = false;
    let exits = |town: &mut Town| matches!(town.processes[2].diary.seen.last(), Some(Seen::Exit(_)));
    assert!(town.until(SECOND, exits), "{:?}", town.processes[2].diary.seen);
    assert!(town.together(&[0, 1]));
}

#[test]
fn a_transitional_view_says_who_goes_on_together_before_the_view_does() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    town.processes[1].stopped = true;
    town.meet(&[0, 2], SECOND);
    town.run(Duration::from_millis(1));
    for at in [0, 2] {
        let views = town.processes[at].diary.seen.iter();
        let views = views.filter(|seen| matches!(seen, Seen::View(..) | Seen::Transitional(_)));
        let [Seen::View(..), Seen::Transitional(together), Seen::View(_, members)] =
            &views.collect::<Vec<_>>()[..]
        else {
            panic!("{:?}", town.processes[at].diary.seen)
        };
        assert_eq!((&together[..], &members[..]), (&[0, 2][..], &[1, 3][..]));
    }
}

#[test]
fn with_block_the_view_ends_when_the_application_has_said_so_and_holds_what_it_cast_until_then() {
    // Behind a narrow window most of it waits when the application says so.
    for window in ["FC", "FC(window=5)"] {
        with_block(&STACK.replace("MBRSHIP", "MBRSHIP(block=yes)").replace("FC", window));
    }
}

fn with_block(spec: &str) {
    const FIRST: [&[u8]; 3] = [b"first", b"second", b"third"];
    let mut town = Town::of(3, spec, &Config { pack: false, waiting_frames_max: 512, ..Config::default() });
    town.run(Duration::from_millis(30));
    town.processes[2].stopped = true;
    let blocked = |town: &mut Town, at: usize| town.processes[at].diary.seen.contains(&Seen::Block);
    assert!(town.until(SECOND, |town| blocked(town, 0) && blocked(town, 1)));
    town.run(Duration::from_millis(20));
    assert!(!town.together(&[0, 1]), "nobody has said that it stopped casting");
    for at in [0, 1] {
        for n in 0..300u32 {
            town.cast(at, &n.to_le_bytes());
        }
        let process = &mut town.processes[at];
        process.endpoint.group(process.key).cast(b"last").unwrap();
        process.endpoint.group(process.key).block_ok();
        for message in FIRST {
            process.endpoint.group(process.key).cast(message).unwrap();
        }
    }
    town.meet(&[0, 1], SECOND);
    town.run(Duration::from_millis(10));
    for at in [0, 1] {
        let views = town.processes[at].casts_by_view();
        for origin in [1, 2] {
            let of = |view: usize| -> Vec<Vec<u8>> {
                views[view].1.iter().filter(|(o, _)| *o == origin).map(|(_, m)| m.clone()).collect()
            };
            assert_eq!(of(0).last().map(Vec::as_slice), Some(&b"last"[..]));
            assert_eq!(of(1), FIRST.map(|message| message.to_vec()));
        }
    }
}

#[test]
fn members_die_one_after_the_other_while_frames_are_lost_and_everybody_casts() {
    for seed in 0..12u64 {
        let mut town = Town::of(5, wadjet::layers::DEFAULT_STACK, &Config::default());
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let mut lossy = draw;
        town.lose = Box::new(move |_, _| lossy() % 10 == 0);
        for n in 0..4000u32 {
            for at in 0..5 {
                let process = &mut town.processes[at];
                if !process.stopped && draw() % 4 == 0 {
                    // Refused when the queue is full: that is flow control.
                    let _ = process.endpoint.group(process.key).cast(&n.to_le_bytes());
                }
            }
            if n == 500 || n == 700 || n == 2500 {
                let victim = draw() as usize % 5;
                town.processes[victim].stopped = true;
            }
            town.step();
        }
        let living: Vec<usize> = (0..5).filter(|at| !town.processes[*at].stopped).collect();
        town.meet(&living, SECOND);
        town.run(Duration::from_millis(100));
        let views: Vec<_> = living.iter().map(|at| town.processes[*at].casts_by_view()).collect();
        for (one, other) in views.iter().zip(&views[1..]) {
            for ((id, casts), (other_id, other_casts)) in one.iter().zip(other) {
                assert_eq!(id, other_id, "seed {seed}");
                for origin in 1..=5 {
                    let of = |casts: &[(u64, Vec<u8>)]| -> Vec<Vec<u8>> {
                        casts.iter().filter(|(o, _)| *o == origin).map(|(_, m)| m.clone()).collect()
                    };
                    assert_eq!(of(casts), of(other_casts), "seed {seed}, {id}, member {origin}");
                }
            }
        }
    }
}

#[test]
fn a_cast_refused_because_numbers_run_out_is_asked_for_again_in_the_next_view() {
    let config = Config { frame_number_limit: 8, pack: false, ..Config::default() };
    let mut town = Town::of(2, STACK, &config);
    town.run(Duration::from_millis(5));
    let process = &mut town.processes[0];
    let taken = (0..64u8).take_while(|n| process.endpoint.group(process.key).cast(&[*n]).is_ok()).count();
    assert!((1..64).contains(&taken), "{taken} casts were taken: the limit was reached");
    let told = |town: &mut Town| town.processes[0].diary.seen.contains(&Seen::Writable);
    assert!(town.until(SECOND, told), "{:?}", town.processes[0].diary.seen);
    assert!(
        town.processes[0].diary.seen.iter().any(|seen| matches!(seen, Seen::View(id, _) if id.counter > 1))
    );
    town.cast(0, b"again");
}

#[test]
fn sends_to_a_member_that_failed_are_said_to_be_lost_and_others_are_not() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    town.processes[2].stopped = true;
    let all: wadjet::RankSet = [1, 2].map(wadjet::Rank).into_iter().collect();
    let process = &mut town.processes[0];
    process.endpoint.group(process.key).send(&all, b"both of you").unwrap();
    town.meet(&[0, 1], SECOND);
    town.run(Duration::from_millis(1));
    let count = |at: usize, what: &Seen| town.processes[at].diary.seen.iter().filter(|s| *s == what).count();
    assert_eq!((count(0, &Seen::Lost), count(1, &Seen::Lost)), (1, 0));
    assert_eq!(count(1, &Seen::Send(1, b"both of you".to_vec())), 1);
}

#[test]
fn with_block_a_member_that_leaves_is_not_asked_whether_it_has_stopped() {
    let spec = STACK.replace("MBRSHIP", "MBRSHIP(block=yes)");
    for blocked_before in [false, true] {
        let mut town = Town::of(2, &spec, &Config::default());
        town.run(Duration::from_millis(30));
        town.processes[1].stopped = true;
        if blocked_before {
            let blocked = |town: &mut Town| town.processes[0].diary.seen.contains(&Seen::Block);
            assert!(town.until(SECOND, blocked));
        }
        let process = &mut town.processes[0];
        process.endpoint.group(process.key).leave();
        let left = |town: &mut Town| matches!(town.processes[0].diary.seen.last(), Some(Seen::Exit(_)));
        assert!(town.until(SECOND, left), "{:?}", town.processes[0].diary.seen);
    }
}

#[test]
fn who_asks_to_leave_at_any_point_of_a_view_change_hears_of_each_view_before_that_one_ends() {
    for steps in 0..30 {
        let mut town = Town::of(2, STACK, &Config::default());
        town.run(Duration::from_millis(30));
        let leaver = &mut town.processes[0];
        leaver.endpoint.group(leaver.key).leave();
        (0..steps).for_each(|_| town.step());
        let follower = &mut town.processes[1];
        follower.endpoint.group(follower.key).leave();
        let exits = |town: &mut Town| matches!(town.processes[1].diary.seen.last(), Some(Seen::Exit(_)));
        assert!(town.until(SECOND, exits), "{steps}: {:?}", town.processes[1].diary.seen);
        let seen = &town.processes[1].diary.seen;
        let marks: Vec<bool> = seen
            .iter()
            .filter(|seen| matches!(seen, Seen::View(..) | Seen::Block))
            .map(|seen| matches!(seen, Seen::Block))
            .collect();
        assert!(marks.windows(2).all(|pair| pair != [true, true]), "{steps}: {seen:?}");
    }
}

#[test]
fn who_has_asked_to_leave_has_left_however_it_learns_of_the_view_without_it() {
    for lost_after in 0..40 {
        let mut town = Town::of(3, STACK, &Config::default());
        town.run(Duration::from_millis(10));
        let leaver = &mut town.processes[2];
        leaver.endpoint.group(leaver.key).leave();
        (0..lost_after).for_each(|_| town.step());
        // What it is told in the view does not reach it any more; letters do.
        town.lose = Box::new(|at, received| at == 2 && received.channel != ChannelId::OUTSIDE);
        town.meet(&[0, 1], SECOND);
        let told =
            town.until(SECOND, |town| matches!(town.processes[2].diary.seen.last(), Some(Seen::Exit(_))));
        assert!(told, "lost after {lost_after} steps: {:?}", town.processes[2].diary.seen);
        let last = town.processes[2].diary.seen.last();
        assert_eq!(last, Some(&Seen::Exit("left the group".into())), "lost after {lost_after} steps");
    }
}

#[test]
fn a_successor_whose_proposal_is_below_one_of_the_dead_coordinator_makes_a_higher_one() {
    // The coordinator has the highest incarnation: of two proposals with one counter, its own is the greater.
    let mut town = Town::new(STACK, &Config::default());
    let members: Vec<_> = (1..=4).rev().map(member).collect();
    for own in (1..=4).rev() {
        town.start(View::fixed(group(), members.clone(), STACK), own, Neighbours::default());
    }
    town.run(Duration::from_millis(30));
    town.processes[3].stopped = true;
    town.run(Duration::from_millis(8));
    // The successor does not hear of the flush, member 2 does; then the coordinator dies.
    town.processes[1].stopped = true;
    assert!(town.until(SECOND, |town| town.counted(0, "flush begun") > 0));
    (0..3).for_each(|_| town.step());
    (town.processes[0].stopped, town.processes[1].stopped) = (true, false);
    town.lose = Box::new(|at, _| at == 1);
    town.step();
    town.lose = Box::new(|_, _| false);
    let took = town.meet(&[1, 2], SECOND);
    assert!(took < Duration::from_millis(60), "nobody waits for the end of a flush: {took:?}");
    assert!(!town.processes[2].diary.seen.iter().any(|seen| matches!(seen, Seen::Exit(_))));
}

#[test]
fn who_is_let_in_after_it_has_given_up_does_not_bring_others_there_who_are_not_in_that_view() {
    let spec = STACK.replace("MBRSHIP", "MBRSHIP(block=yes,merge_ms=20)");
    let mut town = Town::new(&spec, &Config::default());
    let block_ok = |town: &mut Town, whom: &[usize]| {
        for at in whom {
            let process = &mut town.processes[*at];
            if process.diary.seen.last() == Some(&Seen::Block) {
                process.endpoint.group(process.key).block_ok();
            }
        }
    };
    // The guest asks the host, whose application does not say that it has stopped before the guest has given up; and that its view is
    // about to end the guest does not hear.
    let guest = town.join(&[2]);
    let asks_all = Neighbours { contacts: Vec::new(), discover: true };
    let host = town.start(View::alone(group(), member(2), &spec), 2, asks_all);
    let gave_up = |town: &mut Town| {
        block_ok(town, &[guest]);
        town.processes[guest].view().0.counter > 0
    };
    let asked = |town: &mut Town| {
        block_ok(town, &[guest]);
        town.processes[host].diary.seen.last() == Some(&Seen::Block)
    };
    assert!(town.until(SECOND, asked));
    town.lose = Box::new(move |at, _| at == guest);
    assert!(town.until(SECOND, gave_up));
    town.lose = Box::new(|_, _| false);
    block_ok(&mut town, &[host]);
    town.step();
    assert_eq!(town.processes[host].view().1, [2, 1], "the guest is let in");
    // It lets another one in itself; then it hears of the host's view again, which is the greater one.
    town.processes[host].stopped = true;
    let view = View::alone(group(), member(3), &spec);
    let knows_guest = Neighbours { contacts: vec![member(1).address], discover: false };
    let other = town.start(view, 3, knows_guest);
    let joined = |town: &mut Town| {
        block_ok(town, &[guest, other]);
        town.together(&[guest, other])
    };
    assert!(town.until(SECOND, joined));
    town.processes[host].stopped = false;
    assert!(town.processes[host].view().0 > town.processes[guest].view().0);
    let whole = |town: &mut Town| {
        block_ok(town, &[guest, host, other]);
        town.together(&[guest, host, other])
    };
    assert!(town.until(SECOND, whole));
    for at in [guest, host, other] {
        assert!(!town.processes[at].diary.seen.iter().any(|seen| matches!(seen, Seen::Exit(_))), "{at}");
    }
    let told = town.suspicions(host);
    assert!(told.contains(&(1, Grounds::Elsewhere)), "{told:?}");
}

/// Whoever was let in too late is told from its own words, not from its silence: that is counted in time in which this process
/// ran, and where processors are short that is little.
#[test]
fn who_was_let_in_after_it_has_given_up_is_not_waited_for() {
    let spec = STACK.replace("SUSPECT", "SUSPECT(first_ms=60000)");
    let mut town = Town::new(&spec, &Config::default());
    let guest = town.join(&[2]);
    let host = town.join(&[]);
    assert!(town.until(SECOND, |town| town.processes[host].view().1.len() == 2));
    // The host's word of that is lost, and whatever else it says until the guest has given up.
    town.lose = Box::new(move |at, _| at == guest);
    assert!(town.until(SECOND, |town| town.processes[guest].view().0.counter > 0));
    town.lose = Box::new(|_, _| false);
    assert_eq!(town.processes[host].view().1, [2, 1], "it does not know yet");
    assert!(town.until(SECOND, |town| town.together(&[host, guest])), "the guest is still waited for");
    let told = town.suspicions(host);
    assert_eq!(told, [(1, Grounds::Elsewhere)]);
    for at in [host, guest] {
        assert!(!town.processes[at].diary.seen.iter().any(|seen| matches!(seen, Seen::Exit(_))), "{at}");
    }
}

#[test]
fn sends_go_on_in_the_next_view_when_their_numbers_run_out() {
    let config = Config { send_number_limit: 64, ..Config::default() };
    let mut town = Town::of(2, STACK, &config);
    town.run(Duration::from_millis(5));
    for n in 0..200u32 {
        let sent = |town: &mut Town| {
            let process = &mut town.processes[0];
            process
                .endpoint
                .group(process.key)
                .send(&wadjet::RankSet::one(wadjet::Rank(1)), &n.to_le_bytes())
                .is_ok()
        };
        assert!(sent(&mut town) || town.until(SECOND, sent), "send {n}");
    }
    town.run(Duration::from_millis(10));
    let seen = &town.processes[1].diary.seen;
    let got: Vec<_> = seen
        .iter()
        .filter_map(|seen| if let Seen::Send(1, m) = seen { Some(m.clone()) } else { None })
        .collect();
    assert_eq!(got, (0..200u32).map(|n| n.to_le_bytes().to_vec()).collect::<Vec<_>>());
    let views = seen.iter().filter(|seen| matches!(seen, Seen::View(..))).count();
    assert!((4..=8).contains(&views), "{views} views of 64 sends");
    assert!(
        town.processes[0].diary.seen.contains(&Seen::Writable),
        "who was refused is told when there is room"
    );
}

#[test]
fn a_large_send_that_a_view_change_interrupts_is_sent_whole_in_the_next_view() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    let large: Vec<u8> = (0..1_000_000u32).map(|n| (n / 7) as u8).collect();
    let all: wadjet::RankSet = [1, 2].map(wadjet::Rank).into_iter().collect();
    let process = &mut town.processes[0];
    process.endpoint.group(process.key).send(&all, &large).unwrap();
    town.processes[2].stopped = true;
    (0..3).for_each(|_| town.step());
    town.meet(&[0, 1], SECOND);
    let process = &mut town.processes[0];
    let behind =
        |group: &mut wadjet::Group<'_>| group.send(&wadjet::RankSet::one(wadjet::Rank(1)), b"behind");
    assert!(behind(&mut process.endpoint.group(process.key)).is_err(), "it is still under way");
    let sent = |town: &mut Town| {
        let process = &mut town.processes[0];
        behind(&mut process.endpoint.group(process.key)).is_ok()
    };
    assert!(town.until(SECOND, sent));
    town.run(Duration::from_millis(5));
    let sends = |at: usize| -> Vec<&Vec<u8>> {
        let seen = town.processes[at].diary.seen.iter();
        seen.filter_map(|seen| if let Seen::Send(1, bytes) = seen { Some(bytes) } else { None }).collect()
    };
    assert!(sends(1) == [&large, &b"behind".to_vec()], "once, whole, and in order");
    let told = town.processes[0].diary.seen.iter().filter(
        |seen| matches!(seen, Seen::Problem(what) if what.contains("a large send to 0000000000000003")),
    );
    assert_eq!(told.count(), 1, "{:?}", town.processes[0].diary.seen);
}

/// Whoever wonders why something took so long finds every time-out in one place, as it is in force, in one unit.
#[test]
fn every_time_out_of_the_layers_and_of_the_configuration_is_in_the_dump_in_milliseconds() {
    let registry = wadjet::stack::registry::Registry::standard();
    let (mut layers, mut wanted) = (Vec::new(), Vec::new());
    for name in wadjet::layers::REPLICATED_STACK.split(':') {
        let mut given = Vec::new();
        for (parameter, _) in registry.get(name).unwrap().parameters {
            // A value that no other time-out has, and whose last digit is not left out.
            let n = wanted.len() * 10;
            let told = if let Some(short) = parameter.strip_suffix("_us") {
                given.push(format!("{parameter}={}", 1001 + n));
                format!("{short} 1.{:03} ms", 1 + n)
            } else if let Some(short) = parameter.strip_suffix("_ms") {
                given.push(format!("{parameter}={}", 41 + n));
                format!("{short} {} ms", 41 + n)
            } else {
                continue;
            };
            wanted.push((name, told));
        }
        let given = if given.is_empty() { String::new() } else { format!("({})", given.join(",")) };
        layers.push(format!("{name}{given}"));
    }
    assert!(wanted.len() > 20, "the layers have many: {wanted:?}");
    let config = Config { early_delay: Duration::from_nanos(12_345), ..Config::default() };
    let mut town = Town::of(2, &layers.join(":"), &config);
    town.run(Duration::from_millis(5));
    let process = &mut town.processes[0];
    let dump = process.endpoint.group(process.key).dump();
    for (layer, told) in wanted {
        let line = dump.iter().find(|line| line.starts_with(&format!("{layer}: ")));
        let is_there = line.is_some_and(|line| line.split([',', ';']).any(|part| part.trim() == told));
        assert!(is_there, "{layer} {told}: {dump:#?}");
    }
    // Those that follow from others, or are what they are.
    for (layer, told) in [
        ("SUSPECT", "frames flow for 250 ms"),
        ("MBRSHIP", "a member's next life at its address is not now 1000 ms"),
        ("FRAG", "between faults told 100 ms"),
        ("XFER", "ask again for what was not ready 0.1 ms"),
        ("stack", "ask who casts 0.5 ms"),
    ] {
        let line = dump.iter().find(|line| line.starts_with(&format!("{layer}: ")));
        let is_there = line.is_some_and(|line| line.split([':', ',', ';']).any(|part| part.trim() == told));
        assert!(is_there, "{layer} {told}: {dump:#?}");
    }
    let delays = "configuration: pack_delay 0.02 ms, early_delay 0.012345 ms, post_delay 0.02 ms, \
                  gossip_delay 0.5 ms, linger_delay 500 ms";
    assert_eq!(dump.last().map(String::as_str), Some(delays));
    let other_unit = |word: &str| word.starts_with(|c: char| c.is_ascii_digit()) && word.ends_with('s');
    let words = dump.iter().flat_map(|line| line.split([' ', ',', ';']));
    assert_eq!(words.filter(|word| other_unit(word)).collect::<Vec<_>>(), [""; 0], "{dump:#?}");
}

/// An application that acknowledges what is on its disk does so late, and perhaps in a view in which rank and number are
/// those of something else.
#[test]
fn what_is_acknowledged_after_its_view_and_what_was_sent_makes_nothing_seen() {
    let mut town = Town::of(3, STACK, &Config::default());
    let message = |n: u8| [n; 8];
    (0..10).for_each(|n| town.cast(1, &message(n)));
    town.run(Duration::from_millis(20));
    let late = *town.processes[0].diary.ids[0].last().unwrap();
    town.processes[2].stopped = true;
    town.meet(&[0, 1], SECOND);
    for n in 0..20 {
        town.cast(1, &message(n));
        let process = &mut town.processes[1];
        process.endpoint.group(process.key).send(&wadjet::RankSet::one(wadjet::Rank(0)), b"sent").unwrap();
    }
    town.run(Duration::from_millis(20));
    let sent = *town.processes[0].diary.ids[1].last().unwrap();
    let of_now = *town.processes[0].diary.ids[0].last().unwrap();
    let seen_after = |town: &mut Town, id| {
        let process = &mut town.processes[0];
        process.endpoint.group(process.key).ack(id);
        town.run(Duration::from_millis(20));
        town.processes
            .iter_mut()
            .take(2)
            .map(|process| process.endpoint.group(process.key).stability().seen[0][1])
            .collect::<Vec<_>>()
    };
    assert_eq!(seen_after(&mut town, late), [0, 0], "frame {late:?} was of another view");
    assert_eq!(seen_after(&mut town, sent), [0, 0], "casts are not seen because a send is");
    for what in ["acknowledgement after its view", "acknowledgement of a send"] {
        assert_eq!(town.counted(0, what), 1, "{what}");
    }
    assert_eq!(seen_after(&mut town, of_now), [of_now.number + 1; 2]);
}

/// Turns until `ask` is taken, and asks only when it is told that it may; how often it was told so in vain.
fn offer(town: &mut Town, mut ask: impl FnMut(&mut Group<'_>) -> bool) -> usize {
    let told =
        |town: &Town| town.processes[0].diary.seen.iter().filter(|seen| **seen == Seen::Writable).count();
    let mut asked = move |town: &mut Town| {
        let process = &mut town.processes[0];
        ask(&mut process.endpoint.group(process.key))
    };
    let mut vain = 0_usize;
    while !asked(town) {
        let before = told(town);
        assert!(town.until(SECOND, |town| told(town) > before), "refused, and never told that there is room");
        vain += 1;
        assert!(vain < 8, "told again and again that there is room, and there is none");
    }
    vain.saturating_sub(1)
}

#[test]
fn who_is_refused_for_want_of_numbers_is_told_once_when_there_are_some_again() {
    let config = Config {
        frame_number_limit: 64,
        send_number_limit: 64,
        waiting_bytes_max: 60_000,
        frame_bytes_max: 1024,
        ..Config::default()
    };
    let mut town = Town::of(2, STACK, &config);
    town.run(Duration::from_millis(5));
    let large = |n: u8| vec![n; 20_000];
    let peer = wadjet::RankSet::one(wadjet::Rank(1));
    let mut vain = 0;
    for n in 0..20 {
        vain += offer(&mut town, |group| group.cast(&large(n)).is_ok());
        vain += offer(&mut town, |group| group.send(&peer, &large(n)).is_ok());
        vain += offer(&mut town, |group| group.cast(&[n]).is_ok());
        vain += offer(&mut town, |group| group.send(&peer, &[n]).is_ok());
    }
    assert!(vain <= 8, "{vain} times told in vain");
    assert!(town.until(SECOND, |town| town.processes[1].diary.seen.contains(&Seen::Send(1, vec![19]))));
    town.run(Duration::from_millis(50));
    let of = |wanted: fn(&Seen) -> Option<&Vec<u8>>| -> Vec<Vec<u8>> {
        town.processes[1].diary.seen.iter().filter_map(wanted).cloned().collect()
    };
    let all: Vec<Vec<u8>> = (0..20).flat_map(|n| [large(n), vec![n]]).collect();
    assert!(of(|seen| if let Seen::Cast(1, message) = seen { Some(message) } else { None }) == all);
    assert!(of(|seen| if let Seen::Send(1, message) = seen { Some(message) } else { None }) == all);
    // What has no numbers in any view is not asked for again.
    let process = &mut town.processes[0];
    let mut group = process.endpoint.group(process.key);
    let most = group.message_bytes_max();
    assert!(
        most < 64 * 1024
            && matches!(group.cast(&vec![0; most + 1]), Err(CastError::TooLong { max, .. }) if max == most)
    );
}

/// Nobody is accused of what a view change, or the application itself, is the reason of.
#[test]
fn what_is_refused_is_refused_for_its_true_reason() {
    let config = Config { waiting_frames_max: 4, pack: false, ..Config::default() };
    let mut town = Town::of(3, STACK, &config);
    town.run(Duration::from_millis(30));
    let refused = |town: &mut Town| {
        let process = &mut town.processes[0];
        let mut group = process.endpoint.group(process.key);
        let casts = (0..10_000).find_map(|_| group.cast(b"x").err());
        (casts, group.send(&wadjet::RankSet::one(wadjet::Rank(1)), b"x").err())
    };
    // A window, one that stops: nothing is acknowledged any more.
    town.processes[2].stopped = true;
    let (cast, send) = refused(&mut town);
    assert!(
        matches!(cast, Some(CastError::Full { why: HeldFor::Acknowledgements, slowest: Some(_) })),
        "{cast:?}"
    );
    assert_eq!(send, None, "sends to others go on");
    // The flush that follows is nobody's fault.
    let blocked = |town: &mut Town| town.processes[0].diary.seen.contains(&Seen::Block);
    assert!(town.until(SECOND, blocked));
    let (cast, send) = refused(&mut town);
    assert_eq!(cast, Some(CastError::Full { why: HeldFor::ViewChange, slowest: None }));
    assert_eq!(send, Some(SendError::Full { to: wadjet::Rank(1), why: HeldFor::ViewChange }));
    let text = cast.unwrap().to_string();
    assert!(text.contains("because a view change is under way;"), "{text}");
    town.meet(&[0, 1], SECOND);
}

/// How many were given up because they hold a view change up.
fn held_up(town: &Town, at: usize) -> usize {
    town.suspicions(at).iter().filter(|(_, why)| matches!(why, Grounds::HeldUp { .. })).count()
}

/// With block, member 1 of three wants another one in, and each application says that it has stopped as soon as it is asked,
/// but for `never`: until all four are together, or somebody is suspected.
fn grows_with_block(town: &mut Town, never: Option<usize>) {
    let new = town.join(&[1]);
    let mut said = [0; 4];
    let over = town.until(10 * SECOND, |town| {
        for at in (0..4).filter(|at| Some(*at) != never) {
            let process = &mut town.processes[at];
            let asked = process.diary.seen.iter().filter(|seen| **seen == Seen::Block).count();
            if asked > said[at] {
                said[at] = asked;
                process.endpoint.group(process.key).block_ok();
            }
        }
        if let Some(at) = never {
            let process = &mut town.processes[at];
            let _ = process.endpoint.group(process.key).cast(b"and on");
        }
        town.together(&[0, 1, 2, new]) || (0..3).any(|at| held_up(town, at) > 0)
    });
    assert!(over, "{:?}", town.processes[0].view());
}

/// It takes three times `flush_ms` and more to get out what waits, at the speed of one receiver.
#[test]
fn with_block_who_casts_what_waits_is_waited_for_as_long_as_it_does() {
    let spec = STACK.replace("MBRSHIP", "MBRSHIP(block=yes,flush_ms=50)");
    for (casts, slow) in [(1, 2), (1, 0), (0, 1), (2, 0)] {
        let mut town = Town::of(3, &spec, &Config::default());
        town.run(Duration::from_millis(30));
        town.processes[slow].dull = 1;
        let large = vec![7; 6 << 20];
        (0..3).for_each(|_| town.cast(casts, &large));
        let begun = town.now;
        grows_with_block(&mut town, None);
        let took = town.now.since(begun);
        assert_eq!([0, 1, 2].map(|at| held_up(&town, at)), [0; 3], "{casts} casts");
        assert_eq!([0, 1, 2].map(|at| town.exit(at)), [None; 3], "{casts} casts");
        assert!(took > Duration::from_millis(150), "{took:?}");
    }
}

#[test]
fn with_block_who_never_stops_casting_is_given_up_after_twenty_times_flush_ms() {
    let spec = STACK.replace("MBRSHIP", "MBRSHIP(block=yes,flush_ms=20,merge_ms=10)");
    for never in [1, 2] {
        let mut town = Town::of(3, &spec, &Config::default());
        town.run(Duration::from_millis(30));
        grows_with_block(&mut town, Some(never));
        let told = town.suspicions(0);
        let [(given_up, Grounds::HeldUp { lasting })] = told[..] else { panic!("{told:?}") };
        assert_eq!(usize::from(given_up), never);
        assert!((Duration::from_millis(400)..Duration::from_millis(422)).contains(&lasting), "{lasting:?}");
        let other = 3 - never;
        assert!(town.until(SECOND, |town| town.processes[other].view() == town.processes[0].view()));
        assert_eq!(town.exit(other), None);
    }
}

/// What waits of a view when it ends gets out, whoever holds the senders: nobody is given up for another one's slowness.
/// Two that want to come together, and nobody is there who would leave them behind for that.
#[test]
fn with_block_who_is_alone_and_never_says_so_is_reminded_once() {
    let spec = STACK.replace("MBRSHIP", "MBRSHIP(block=yes,flush_ms=10)");
    let mut town = Town::of(1, &spec, &Config::default());
    let new = town.join(&[1]);
    town.run(SECOND);
    let problems = |seen: &&Seen| matches!(seen, Seen::Problem(what) if what.contains("block_ok"));
    let reminded = |at: usize| town.processes[at].diary.seen.iter().filter(problems).count();
    assert_eq!([0, new].map(reminded), [1, 1]);
}

#[test]
fn with_block_an_application_that_is_behind_holds_up_no_view_change() {
    let spec = STACK.replace("MBRSHIP", "MBRSHIP(block=yes)").replace("FC", "FC(window=5)");
    for (behind, casts) in [(0, 1), (1, 0), (1, 1), (2, 0)] {
        let config = Config { pack: false, waiting_frames_max: 64, ..Config::default() };
        let mut town = Town::of(4, &spec, &config);
        town.run(Duration::from_millis(30));
        let process = &mut town.processes[behind];
        process.diary.behind = true;
        process.endpoint.group(process.key).hold_senders();
        town.run(Duration::from_millis(5));
        for n in 0..40u32 {
            town.cast(casts, &n.to_le_bytes());
        }
        town.processes[3].stopped = true;
        let mut said = [false; 3];
        let together = town.until(SECOND, |town| {
            for (at, said) in said.iter_mut().enumerate() {
                let process = &mut town.processes[at];
                if !*said && process.diary.seen.contains(&Seen::Block) {
                    *said = true;
                    process.endpoint.group(process.key).block_ok();
                }
            }
            town.together(&[0, 1, 2])
        });
        assert!(together, "{behind} is behind, {casts} casts");
        for at in [0, 1, 2] {
            let casts: usize = town.processes[at].casts_by_view().iter().map(|(_, casts)| casts.len()).sum();
            assert_eq!(casts, 40, "at {at}: {behind} is behind, {casts} casts");
        }
    }
}

/// Whoever is behind with its deliveries holds everybody, itself included, and only until it says that it is not.
#[test]
fn an_application_that_is_behind_holds_the_casts_of_all_until_it_has_caught_up() {
    let config = Config { window_frames: 16, waiting_frames_max: 4, pack: false, ..Config::default() };
    let mut town = Town::of(3, STACK, &config);
    town.run(Duration::from_millis(30));
    let cast_all = |town: &mut Town| {
        let cast = |process: &mut common::live::Process| {
            u64::from(process.endpoint.group(process.key).cast(b"x").is_ok())
        };
        town.processes.iter_mut().map(cast).sum::<u64>()
    };
    town.processes[1].diary.behind = true;
    let process = &mut town.processes[1];
    process.endpoint.group(process.key).hold_senders();
    let mut taken = 0;
    for _ in 0..3_000 {
        town.step();
        taken += cast_all(&mut town);
    }
    assert!((16..=3 * 22).contains(&taken), "{taken} were taken");
    let own = &mut town.processes[1];
    let error = own.endpoint.group(own.key).cast(b"x").unwrap_err();
    assert_eq!(error, CastError::Full { why: HeldFor::Application, slowest: None });
    assert!(town.together(&[0, 1, 2]));
    town.processes[1].diary.behind = false;
    for _ in 0..3_000 {
        town.step();
        taken += cast_all(&mut town);
    }
    assert!(taken > 1000, "{taken}");
}

#[test]
fn that_a_stack_has_no_fast_path_is_said_once_however_many_views_there_are() {
    let spec = format!("TRACE(fast=no):{STACK}");
    let mut town = Town::of(2, &spec, &Config::default());
    town.run(Duration::from_millis(10));
    town.join(&[1]);
    town.meet(&[0, 1, 2], SECOND);
    town.cast(1, b"takes the layers");
    town.run(Duration::from_millis(10));
    for process in &town.processes {
        assert!(process.diary.seen.contains(&Seen::Cast(2, b"takes the layers".to_vec())));
        let problem = |seen: &Seen| if let Seen::Problem(what) = seen { Some(what.clone()) } else { None };
        let told: Vec<String> = process.diary.seen.iter().filter_map(problem).collect();
        let [told] = &told[..] else { panic!("{told:?}") };
        assert!(told.starts_with("no fast path for ") && told.contains("take the layers"), "{told}");
    }
}

#[test]
fn the_id_of_a_view_that_its_coordinator_decided_and_left_is_used() {
    let mut decided_and_left = 0;
    for step in 0..60 {
        let mut town = Town::of(2, STACK, &Config::default());
        town.run(Duration::from_millis(20));
        // A guest whose views were many, so that the next one's id is above the one that was proposed.
        let mut own_view = View::alone(group(), member(3), STACK);
        own_view.id.counter = 1000;
        let contacts = [1, 2].map(|own| member(own).address).into();
        town.start(own_view, 3, Neighbours { contacts, discover: false });
        town.run(Duration::from_micros(250) * step);
        let leaving = &mut town.processes[0];
        leaving.endpoint.group(leaving.key).leave();
        town.meet(&[1, 2], SECOND);
        town.run(Duration::from_millis(50));
        let leaver = &mut town.processes[0];
        assert!(leaver.endpoint.forget(leaver.key));
        let first = leaver.endpoint.first_view(group(), member(1), STACK, false);
        for (_, view) in &town.processes[1].views {
            let View { id, members, .. } = view.view();
            if id.coordinator == Incarnation(1) {
                assert!(first.id.counter > id.counter, "{:?} after {id:?}", first.id);
                let left = members.iter().all(|member| member.incarnation != Incarnation(1));
                decided_and_left += u32::from(left && id.counter > 1000);
            }
        }
    }
    assert!(decided_and_left > 0);
}

/// Nobody is in the view that follows, and that is said and understood like any other.
#[test]
fn all_members_may_leave_at_once() {
    for members in 1..5 {
        let mut town = Town::of(members, STACK, &Config::default());
        town.run(Duration::from_millis(20));
        for process in &mut town.processes {
            process.endpoint.group(process.key).leave();
        }
        let all = 0..town.processes.len();
        let over = |town: &mut Town| all.clone().all(|at| town.exit(at).is_some());
        assert!(town.until(Duration::from_millis(10), over), "{members} members");
        town.run(Duration::from_millis(100));
        for at in all {
            assert_eq!(town.exit(at), Some("left the group"), "{members} members");
            for what in ["membership message that does not decode", "letter that does not decode"] {
                assert_eq!(town.counted(at, what), 0, "{what}: {at} of {members}");
            }
        }
    }
}
