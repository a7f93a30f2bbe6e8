//! Who is suspected, when, and what is said of it; with the shadow on.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use common::live::{Seen, Town};
use wadjet::group::{Grounds, GroundsKind};
use wadjet::view::Neighbours;
use wadjet::wire::full::Prefix;
use wadjet::{Config, Incarnation, Member, Rank, RankSet, View};

const STACK: &str = wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY;
const SECOND: Duration = Duration::from_secs(1);

fn told_by_application_of(by: u16) -> Grounds {
    Grounds::ToldBy { by: Rank(by), kind: Some(GroundsKind::Application) }
}

#[test]
fn a_member_that_stops_is_out_of_the_next_view_whoever_it_is() {
    for victim in 0..3 {
        let mut town = Town::of(3, STACK, &Config::default());
        town.run(Duration::from_millis(30));
        town.processes[victim].stopped = true;
        let others: Vec<usize> = (0..3).filter(|at| *at != victim).collect();
        let took = town.meet(&others, SECOND);
        assert!(took < Duration::from_millis(40), "member {victim}: {took:?}");
    }
}

/// Four of this SUSPECT, one of whom is deaf from some time on. Whether the others go on in one view, and in no other.
fn others_stay_together(suspect: &str, deaf: usize) -> bool {
    let mut town = Town::of(4, &STACK.replace("SUSPECT", suspect), &Config::default());
    town.run(Duration::from_millis(20));
    let others: Vec<usize> = (0..4).filter(|at| *at != deaf).collect();
    // It has come to be more patient with some than with others: it does not suspect all of them at once.
    for (more, of) in others.iter().enumerate() {
        lose_link(&mut town, *of, deaf);
        town.run(Duration::from_millis(4 + more as u64));
        town.lose = Box::new(|_, _| false);
        town.run(Duration::from_millis(10));
    }
    town.lose = Box::new(move |at, _| at == deaf);
    stay_together(&mut town, &others)
}

/// The same, but that the last is deaf to one of them first, and then to the others.
fn others_stay_together_without_who_grows_deaf(suspect: &str) -> bool {
    let mut town = Town::of(4, &STACK.replace("SUSPECT", suspect), &Config::default());
    town.run(Duration::from_millis(30));
    lose_link(&mut town, 1, 3);
    // So long that it accuses that one, and not so long that others believe it.
    town.run(Duration::from_millis(20));
    town.lose = Box::new(|at, _| at == 3);
    stay_together(&mut town, &[0, 1, 2])
}

/// The same, but that the deaf one has heard one of them only before it grows deaf, at the beginning of the view.
fn others_stay_together_without_who_is_deaf_early(suspect: &str, deaf: usize, heard: usize) -> bool {
    let mut town = Town::of(4, &STACK.replace("SUSPECT", suspect), &Config::default());
    let heard = Incarnation(heard as u64 + 1);
    let is_heard = move |prefix: Prefix| prefix.identification.origin == heard;
    town.lose = Box::new(move |at, received| {
        at == deaf && !Prefix::decode(received.bytes()).is_ok_and(|(prefix, ..)| is_heard(prefix))
    });
    town.run(Duration::from_millis(2));
    town.lose = Box::new(move |at, _| at == deaf);
    let others: Vec<usize> = (0..4).filter(|at| *at != deaf).collect();
    stay_together(&mut town, &others)
}

/// The same, but that the deaf one, who leads, has had to wait long for one of them before, and is more patient with it.
fn others_stay_together_without_a_leader_that_is_deaf_and_patient_with(one: usize, suspect: &str) -> bool {
    let mut town = Town::of(4, &STACK.replace("SUSPECT", suspect), &Config::default());
    town.run(Duration::from_millis(30));
    lose_link(&mut town, one, 0);
    town.run(Duration::from_millis(11));
    town.lose = Box::new(|_, _| false);
    town.run(Duration::from_millis(5));
    assert!(town.together(&[0, 1, 2, 3]), "it was not silent for too long");
    town.lose = Box::new(|at, _| at == 0);
    stay_together(&mut town, &[1, 2, 3])
}

fn stay_together(town: &mut Town, others: &[usize]) -> bool {
    let met = town.until(SECOND, |town| town.together(others));
    town.run(Duration::from_millis(100));
    met && others.iter().all(|at| town.processes[*at].casts_by_view().len() == 2)
}

/// Nobody believes what is said by one that hears nobody.
#[test]
fn a_member_that_hears_nothing_goes_and_the_others_stay_together() {
    for deaf in 0..4 {
        assert!(others_stay_together("SUSPECT", deaf), "{deaf} is deaf");
    }
    assert!(others_stay_together_without_who_grows_deaf("SUSPECT"));
    for one in 1..4 {
        assert!(others_stay_together_without_a_leader_that_is_deaf_and_patient_with(one, "SUSPECT"), "{one}");
    }
    for (deaf, heard) in (0..4).flat_map(|deaf| (0..4).map(move |heard| (deaf, heard))) {
        let fine = deaf == heard || others_stay_together_without_who_is_deaf_early("SUSPECT", deaf, heard);
        assert!(fine, "{deaf} is deaf, and has heard {heard}");
    }
}

#[cfg(feature = "laboratory")]
#[test]
fn who_accuses_one_after_the_other_or_believes_it_at_once_tears_the_others_apart() {
    assert!((0..4).any(|deaf| !others_stay_together("SUSPECT(broken=deaf-accuses)", deaf)));
    assert!(!others_stay_together_without_who_grows_deaf("SUSPECT(broken=believes-everybody)"));
    // Whether it leads the others or not.
    for (deaf, heard) in [(3, 1), (0, 1), (1, 0)] {
        let broken = "SUSPECT(broken=forgets-the-unheard)";
        assert!(!others_stay_together_without_who_is_deaf_early(broken, deaf, heard), "{deaf}");
    }
}

/// It has given up all others before they give it up, and they hear of that from itself, who is the one that has failed.
#[test]
fn a_member_that_hears_nothing_for_a_while_sends_nobody_away_and_comes_back() {
    for (members, deaf) in [(3, 0), (3, 2), (5, 0), (5, 1), (5, 4)] {
        for lasting in [15, 18, 24, 28] {
            let mut town = Town::of(members, STACK, &Config::default());
            town.run(Duration::from_millis(30));
            town.lose = Box::new(move |at, _| at == deaf);
            town.run(Duration::from_millis(lasting));
            town.lose = Box::new(|_, _| false);
            let all: Vec<usize> = (0..members as usize).collect();
            assert_eq!(town.processes[deaf].view().1.len(), 1, "it has gone alone");
            town.meet(&all, SECOND);
            for at in all.iter().filter(|at| **at != deaf) {
                let seen = &town.processes[*at].diary.seen;
                let views = seen.iter().filter_map(|seen| match seen {
                    Seen::View(_, members) => Some(members.len() as u64),
                    _ => None,
                });
                let case = format!("{deaf} of {members} is deaf for {lasting} ms: {at} saw {seen:?}");
                assert_eq!(views.collect::<Vec<_>>(), [members, members - 1, members], "{case}");
            }
        }
    }
}

/// Nobody can say which of two halves has failed: the first to go on sends the other away, and never both each other.
#[test]
fn of_two_halves_one_stays_whole() {
    for deaf in [[0, 1], [0, 2], [1, 3], [2, 3]] {
        for lasting in [15, 18, 24, 28] {
            let mut town = Town::of(4, STACK, &Config::default());
            town.run(Duration::from_millis(30));
            let others = [0, 1, 2, 3].into_iter().filter(|at| !deaf.contains(at));
            let lost: Vec<Incarnation> = others.map(|at| Incarnation(at as u64 + 1)).collect();
            town.lose = Box::new(move |at, received| {
                let is_lost = |prefix: Prefix| lost.contains(&prefix.identification.origin);
                deaf.contains(&at)
                    && Prefix::decode(received.bytes()).is_ok_and(|(prefix, ..)| is_lost(prefix))
            });
            town.run(Duration::from_millis(lasting));
            town.lose = Box::new(|_, _| false);
            town.run(Duration::from_millis(500));
            let is_out =
                |at: &usize| town.processes[*at].diary.seen.iter().any(|seen| matches!(seen, Seen::Exit(_)));
            let out: Vec<usize> = (0..4).filter(is_out).collect();
            let halves: Vec<usize> = (0..4).filter(|at| !deaf.contains(at)).collect();
            let case = format!("{deaf:?} are deaf for {lasting} ms: {out:?} are out");
            assert!(out.is_empty() || out == deaf || out == halves, "{case}");
            let stay: Vec<usize> = (0..4).filter(|at| !out.contains(at)).collect();
            assert!(town.together(&stay), "{case}");
        }
    }
}

/// Who stood still itself is told by whoever has gone on, however few these are: nothing was done but by them.
#[test]
fn most_of_a_view_that_stood_still_learn_that_the_others_have_gone_on() {
    let mut town = Town::of(5, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    (0..3).for_each(|at| town.processes[at].stopped = true);
    town.run(Duration::from_millis(60));
    assert!(town.together(&[3, 4]));
    (0..3).for_each(|at| town.processes[at].stopped = false);
    town.run(Duration::from_millis(100));
    let exits = |at: usize| {
        let seen = town.processes[at].diary.seen.iter();
        seen.filter(|seen| matches!(seen, Seen::Exit(why) if why.starts_with("excluded: "))).count()
    };
    assert_eq!([0, 1, 2, 3, 4].map(exits), [1, 1, 1, 0, 0]);
    assert!(town.together(&[3, 4]));
}

/// While nobody casts: then every frame is under a full header.
fn lose_link(town: &mut Town, from: usize, to: usize) {
    let lost = Incarnation(from as u64 + 1);
    let is_lost = move |prefix: Prefix| prefix.identification.origin == lost;
    town.lose = Box::new(move |at, received| {
        at == to && Prefix::decode(received.bytes()).is_ok_and(|(prefix, ..)| is_lost(prefix))
    });
}

/// What says that its sender lives need not be a heartbeat: reports to all are heard as well.
#[test]
fn who_has_told_all_others_something_in_a_beat_sends_no_heartbeat() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    let heartbeats = Rc::new(Cell::new([0_u32; 3]));
    let seen = heartbeats.clone();
    let suspect = STACK.split(':').position(|layer| layer.starts_with("SUSPECT")).unwrap();
    town.lose = Box::new(move |_, received| {
        if let Ok((prefix, ..)) = Prefix::decode(received.bytes())
            && usize::from(prefix.control) == suspect
        {
            let mut counts = seen.get();
            counts[prefix.identification.origin.0 as usize - 1] += 1;
            seen.set(counts);
        }
        false
    });
    town.run(Duration::from_millis(20));
    assert!(heartbeats.get().iter().all(|count| (36..=42).contains(count)), "quiet: {heartbeats:?}");
    // The first casts, and the others report what they have.
    heartbeats.set([0; 3]);
    for _ in 0..40 {
        town.cast(0, b"the others have something to tell");
        town.run(Duration::from_micros(500));
    }
    // A beat may end between a cast and what is said of it.
    assert!(heartbeats.get().iter().all(|count| *count <= 4), "casts are reported: {heartbeats:?}");
    town.run(Duration::from_millis(20));
    assert!(heartbeats.get().iter().all(|count| *count >= 32), "quiet again: {heartbeats:?}");
}

/// One cast is lost, and again and again what would repair it: the casts behind it wait, and say that their sender lives.
#[test]
fn who_is_heard_behind_a_gap_is_not_suspected_however_long_that_lasts() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    let (mut first, came) = (true, Rc::new(Cell::new(0)));
    let counted = came.clone();
    town.lose = Box::new(move |at, received| {
        let full = Prefix::decode(received.bytes());
        let of_first =
            full.as_ref().map_or(true, |(prefix, ..)| prefix.identification.origin == Incarnation(1));
        let lost = at == 1 && of_first && (full.is_ok() || std::mem::take(&mut first));
        counted.set(counted.get() + u32::from(at == 1 && of_first && !lost));
        lost
    });
    for _ in 0..200 {
        town.cast(0, b"heard, and not taken in");
        town.run(Duration::from_micros(500));
    }
    assert_eq!(town.suspicions(1), [], "they say that it lives");
    assert!(came.get() >= 150, "they came: {}", came.get());
    town.lose = Box::new(|_, _| false);
    town.run(Duration::from_millis(100));
    let casts = town.processes[1].casts_by_view();
    assert_eq!(casts.last().map(|(_, casts)| casts.len()), Some(200), "all in the one view");
    assert!((0..3).all(|at| town.suspicions(at).is_empty()));
}

/// Two that do not hear each other cannot both stay, also if all others hear both.
#[test]
fn a_link_that_has_failed_one_way_leaves_a_view_of_all_others() {
    for (from, to) in [(0, 3), (3, 0), (1, 2), (2, 1)] {
        let mut town = Town::of(4, STACK, &Config::default());
        town.run(Duration::from_millis(30));
        lose_link(&mut town, from, to);
        let together = |town: &mut Town| {
            [from, to].iter().any(|out| {
                let others: Vec<usize> = (0..4).filter(|at| at != out).collect();
                town.together(&others)
            })
        };
        assert!(town.until(Duration::from_millis(200), together), "{from} is not heard by {to}");
    }
}

#[test]
fn a_member_that_came_late_into_the_view_is_found_to_have_failed_as_fast_as_others() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.processes[2].stopped = true;
    town.run(Duration::from_millis(25));
    town.processes[2].stopped = false;
    town.run(Duration::from_millis(30));
    assert!(town.together(&[0, 1, 2]), "it may take first_ms to be heard");
    town.processes[2].stopped = true;
    let took = town.meet(&[0, 1], SECOND);
    assert!(took < Duration::from_millis(20), "{took:?}");
}

#[test]
fn who_had_to_wait_for_its_own_turn_lately_is_patient_with_others() {
    for crowded in [true, false] {
        let mut town = Town::of(2, STACK, &Config::default());
        town.run(Duration::from_millis(30));
        for _ in 0..3 {
            town.processes[0].stopped = crowded;
            town.run(Duration::from_millis(8));
            town.processes[0].stopped = false;
            town.run(Duration::from_millis(3));
        }
        town.processes[1].stopped = true;
        town.run(Duration::from_millis(17));
        town.processes[1].stopped = false;
        town.run(Duration::from_millis(50));
        let suspected = town.processes[0].diary.seen.iter().any(|seen| matches!(seen, Seen::Suspect(_)));
        assert_eq!(suspected, !crowded);
    }
}

#[test]
fn of_a_silent_member_it_is_said_how_long_and_against_which_limit() {
    let mut town = Town::of(2, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    town.processes[1].stopped = true;
    town.meet(&[0], SECOND);
    let told = town.suspicions(0);
    let [(1, Grounds::Silent { lasting, limit })] = told[..] else { panic!("{told:?}") };
    assert!((Duration::from_millis(14)..=Duration::from_millis(30)).contains(&limit), "{told:?}");
    assert!((limit..limit + Duration::from_millis(2)).contains(&lasting), "{told:?}");
}

#[test]
fn of_a_member_whose_process_is_gone_that_is_said() {
    let mut town = Town::of(2, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    town.processes[1].stopped = true;
    // What it said before it stopped has been heard.
    town.run(Duration::from_millis(1));
    let process = &mut town.processes[0];
    process.endpoint.gone(process.key, process.channels[0], RankSet::one(Rank(1)), &mut process.diary);
    town.meet(&[0], SECOND);
    let told = town.suspicions(0);
    let [(1, Grounds::Gone { lasting })] = told[..] else { panic!("{told:?}") };
    assert!(lasting < Duration::from_millis(5), "{told:?}");
}

#[test]
fn of_whom_the_application_or_another_member_accuses_that_is_said_and_by_whom() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    let process = &mut town.processes[1];
    process.endpoint.group(process.key).suspect(&RankSet::one(Rank(2)));
    town.meet(&[0, 1], SECOND);
    assert_eq!(town.suspicions(1), [(2, Grounds::Application)]);
    assert_eq!(town.suspicions(0), [(2, told_by_application_of(1))]);
}

/// Of three one leaves, and the application of member 1 never says that it has stopped: whether member 0 goes on alone.
fn goes_on_without_who_never_stops(membership: &str) -> (bool, Town) {
    let mut town = Town::of(3, &STACK.replace("MBRSHIP", membership), &Config::default());
    town.run(Duration::from_millis(30));
    let process = &mut town.processes[2];
    process.endpoint.group(process.key).leave();
    let blocked = |town: &mut Town| (0..2).all(|at| town.processes[at].diary.seen.contains(&Seen::Block));
    assert!(town.until(SECOND, blocked));
    let process = &mut town.processes[0];
    process.endpoint.group(process.key).block_ok();
    (town.until(SECOND, |town| town.together(&[0])), town)
}

#[test]
fn of_a_member_that_is_given_up_because_it_holds_a_view_change_up_that_is_said_and_for_how_long() {
    let (goes_on, town) = goes_on_without_who_never_stops("MBRSHIP(block=yes,flush_ms=40)");
    assert!(goes_on);
    let told = town.suspicions(0);
    let [(1, Grounds::HeldUp { lasting })] = told[..] else { panic!("{told:?}") };
    assert!((Duration::from_millis(40)..Duration::from_millis(42)).contains(&lasting), "{told:?}");
}

#[cfg(feature = "laboratory")]
#[test]
fn who_waits_for_the_slow_waits_for_ever() {
    let slow = "MBRSHIP(block=yes,flush_ms=40,broken=waits-for-the-slow)";
    assert!(!goes_on_without_who_never_stops(slow).0);
}

/// Whoever answers it says who has found it failed, and how that was: not what itself was told by others.
#[test]
fn who_is_excluded_by_mistake_learns_whose_and_why() {
    let exclusion = |town: &Town, at: usize| {
        let seen = town.processes[at].diary.seen.iter();
        let exits = seen.filter_map(|seen| if let Seen::Exit(why) = seen { Some(why.clone()) } else { None });
        exits.collect::<Vec<_>>().join("; ")
    };
    let mut town = Town::of(4, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    town.processes[3].stopped = true;
    let process = &mut town.processes[2];
    process.endpoint.group(process.key).suspect(&RankSet::one(Rank(3)));
    town.meet(&[0, 1, 2], SECOND);
    town.processes[3].stopped = false;
    town.run(Duration::from_millis(30));
    let why = exclusion(&town, 3);
    assert!(why.contains("because member 2 was told so by its application"), "{why}");

    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    town.processes[2].stopped = true;
    town.meet(&[0, 1], SECOND);
    town.processes[2].stopped = false;
    town.run(Duration::from_millis(30));
    let why = exclusion(&town, 2);
    assert!(why.contains("heard nothing of it for too long"), "{why}");
}

/// Frames of the newcomer reach the coordinator, and not the other member: a lost answer to who has an address, say.
#[test]
fn who_is_let_in_and_never_heard_is_let_in_again_with_less_and_less_hurry() {
    let mut town = Town::of(2, STACK, &Config::default());
    town.run(Duration::from_millis(20));
    let (first, address) = (100, common::live::member(100).address);
    let neighbours =
        || Neighbours { contacts: vec![common::live::member(1).address], ..Neighbours::default() };
    town.lose = Box::new(move |at, received| {
        let newcomer = |(prefix, ..): (Prefix, _, _)| prefix.identification.origin.0 >= first;
        at == 1 && Prefix::decode(received.bytes()).is_ok_and(newcomer)
    });
    let views = |town: &Town| {
        town.processes[0].diary.seen.iter().filter(|seen| matches!(seen, Seen::View(..))).count()
    };
    let before = views(&town);
    let mut own = first;
    let begin = |town: &mut Town, own: u64| {
        let member = Member { incarnation: Incarnation(own), address: address.clone() };
        town.start_at(View::alone(common::live::group(), member, STACK), own, &address, neighbours())
    };
    begin(&mut town, own);
    let end = town.now + SECOND * 2;
    while town.now < end {
        town.step();
        if town.processes[2].diary.seen.iter().any(|seen| matches!(seen, Seen::Exit(_))) {
            own += 1;
            town.processes.pop();
            begin(&mut town, own);
        }
    }
    // At once it would be let in some 18 times.
    let let_in = (views(&town) - before).div_ceil(2);
    assert!((3..=6).contains(&let_in), "{let_in} times");
    assert!(town.together(&[0, 1]) || town.processes[0].view().1.len() == 3);
    let told = town.processes[0].diary.seen.iter();
    let told =
        told.filter(|seen| matches!(seen, Seen::Problem(what) if what.contains("do frames pass both ways")));
    assert!(told.count() > 0, "the application is told");
    // When frames pass again it comes in for good.
    town.lose = Box::new(|_, _| false);
    town.until(SECOND, |town| {
        if town.processes[2].diary.seen.iter().any(|seen| matches!(seen, Seen::Exit(_))) {
            own += 1;
            town.processes.pop();
            begin(town, own);
        }
        false
    });
    town.meet(&[0, 1, 2], SECOND);
}

#[test]
fn a_pause_of_ones_own_is_told_and_nobody_blamed_for_it() {
    let mut town = Town::of(2, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    let pause = Duration::from_millis(25);
    town.processes.iter_mut().for_each(|process| process.stopped = true);
    town.run(pause);
    town.processes.iter_mut().for_each(|process| process.stopped = false);
    town.run(Duration::from_millis(30));
    for at in 0..2 {
        let seen = &town.processes[at].diary.seen;
        let told = seen
            .iter()
            .filter_map(|seen| if let Seen::Paused(lasting) = seen { Some(*lasting) } else { None });
        let told: Vec<Duration> = told.collect();
        assert!(matches!(told[..], [lasting] if (pause..pause * 2).contains(&lasting)), "{told:?}");
        assert_eq!(town.suspicions(at), []);
    }
}

#[test]
fn who_was_excluded_while_it_stood_still_is_told_first_that_it_did() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    let pause = Duration::from_secs(3);
    town.processes[2].stopped = true;
    town.run(pause);
    assert!(town.together(&[0, 1]));
    let before = town.processes[2].diary.seen.len();
    // What has come meanwhile, and says that it is excluded, is taken in at once.
    town.processes[2].stopped = false;
    town.until(SECOND, |town| town.exit(2).is_some());
    let seen = &town.processes[2].diary.seen[before..];
    let [Seen::Paused(lasting), .., Seen::Exit(why)] = seen else { panic!("{seen:?}") };
    assert!((pause..pause + Duration::from_millis(2)).contains(lasting), "{lasting:?}");
    assert!(why.contains("excluded"), "{why}");
    let paused = seen.iter().filter(|seen| matches!(seen, Seen::Paused(_))).count();
    assert_eq!(paused, 1, "it is told once");
    assert_eq!(town.suspicions(2), [], "nobody is blamed for it");
}

#[test]
fn who_looks_around_seldom_has_not_paused_between_two_looks() {
    // A beat that is longer than what is else a pause.
    let stack = STACK.replace("SUSPECT", "SUSPECT(beat_us=50000,least_ms=500,most_ms=500)");
    let mut town = Town::of(2, &stack, &Config::default());
    town.run(SECOND);
    for process in &town.processes {
        let paused = process.diary.seen.iter().any(|seen| matches!(seen, Seen::Paused(_)));
        assert!(!paused, "{:?}", process.diary.seen);
    }
}

#[test]
fn a_pause_in_the_middle_of_a_flush_is_nobodys_fault_either() {
    let spec = STACK.replace("MBRSHIP", "MBRSHIP(block=yes)");
    let mut town = Town::of(4, &spec, &Config::default());
    town.run(Duration::from_millis(30));
    let leaving = &mut town.processes[3];
    leaving.endpoint.group(leaving.key).leave();
    let blocked =
        |town: &mut Town| town.processes[..3].iter().all(|process| process.diary.seen.contains(&Seen::Block));
    assert!(town.until(SECOND, blocked));
    // Longer than a flush may take; then everybody goes on at once.
    town.processes.iter_mut().for_each(|process| process.stopped = true);
    town.run(Duration::from_millis(250));
    town.processes.iter_mut().for_each(|process| process.stopped = false);
    town.run(Duration::from_millis(5));
    for process in &mut town.processes[..3] {
        process.endpoint.group(process.key).block_ok();
    }
    town.meet(&[0, 1, 2], SECOND);
    for at in 0..3 {
        assert_eq!(town.suspicions(at), []);
    }
}

/// All cast, but those that stand still.
fn work(town: &mut Town, time: Duration) {
    let end = town.now + time;
    while town.now < end {
        for at in 0..town.processes.len() {
            if !town.processes[at].stopped {
                town.cast(at, b"work");
            }
        }
        town.step();
    }
}

#[test]
fn a_group_that_works_is_patient_from_the_first_moment_on() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(SECOND);
    for _ in 0..5 {
        work(&mut town, Duration::from_millis(2));
        town.processes[2].stopped = true;
        work(&mut town, Duration::from_millis(20));
        town.processes[2].stopped = false;
    }
    work(&mut town, Duration::from_millis(20));
    assert!(town.together(&[0, 1, 2]));
    assert_eq!(town.suspicions(0), []);
    // An idle one has no reason to wait.
    town.run(SECOND * 3);
    town.processes[2].stopped = true;
    let took = town.meet(&[0, 1], SECOND);
    assert!(took < Duration::from_millis(20), "{took:?}");
}

#[test]
fn what_was_learned_of_a_member_that_works_is_known_in_the_next_view() {
    let mut town = Town::of(3, STACK, &Config::default());
    let milliseconds = Duration::from_millis;
    work(&mut town, milliseconds(30));
    town.processes[1].stopped = true;
    work(&mut town, milliseconds(11));
    town.processes[1].stopped = false;
    work(&mut town, milliseconds(5));
    town.processes[2].stopped = true;
    let begun = town.now;
    while !town.together(&[0, 1]) {
        work(&mut town, milliseconds(1));
        assert!(town.now.since(begun) < SECOND);
    }
    work(&mut town, milliseconds(5));
    let before = town.suspicions(0);
    town.processes[1].stopped = true;
    work(&mut town, milliseconds(27));
    town.processes[1].stopped = false;
    work(&mut town, milliseconds(20));
    assert!(town.together(&[0, 1]));
    assert_eq!(town.suspicions(0), before);
}

/// Where links differ so does patience, and who is patient is not made to fail a member by who is not.
#[test]
fn a_suspicion_is_taken_over_when_half_of_ones_own_patience_is_over() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    lose_link(&mut town, 2, 0);
    town.run(Duration::from_millis(10));
    town.lose = Box::new(|_, _| false);
    town.run(Duration::from_millis(5));
    lose_link(&mut town, 2, 0);
    town.run(Duration::from_millis(10));
    let process = &mut town.processes[1];
    process.endpoint.group(process.key).suspect(&RankSet::one(Rank(2)));
    town.run(Duration::from_millis(2));
    assert_eq!(town.suspicions(0), []);
    let took = town.meet(&[0, 1], SECOND);
    assert!(took < Duration::from_millis(10), "{took:?}");
    assert_eq!(town.suspicions(0), [(2, told_by_application_of(1))]);
}

#[test]
fn a_member_whose_process_is_gone_before_it_is_heard_is_not_waited_for() {
    let mut town = Town::of(2, STACK, &Config::default());
    town.processes[1].stopped = true;
    let process = &mut town.processes[0];
    process.endpoint.gone(process.key, process.channels[0], RankSet::one(Rank(1)), &mut process.diary);
    let took = town.meet(&[0], SECOND);
    assert!(took < Duration::from_millis(10), "{took:?}");
}

/// As long as it is known to wait for a processor, within `starved_ms`; then it has what is left of the usual time.
#[test]
fn who_has_no_processor_is_waited_for() {
    for (parameters, patience) in [("", 250), ("(starved_ms=60)", 60), ("(starved_ms=0)", 0)] {
        let spec = STACK.replace("SUSPECT", &format!("SUSPECT{parameters}"));
        for known_for in [40, 400] {
            let mut town = Town::of(3, &spec, &Config::default());
            town.run(Duration::from_millis(30));
            let begun = town.now;
            town.processes[2].stopped = true;
            while town.suspicions(0).is_empty() {
                let starved = town.now.since(begun) < Duration::from_millis(known_for);
                let starved = if starved { RankSet::one(Rank(2)) } else { RankSet::EMPTY };
                town.processes[0].starved = starved;
                town.processes[1].starved = starved;
                town.run(Duration::from_micros(500));
                assert!(town.now.since(begun) < SECOND, "nobody is suspected");
            }
            let took = town.now.since(begun);
            let longer = Duration::from_millis(patience.min(known_for));
            let range = longer + Duration::from_millis(10)..longer + Duration::from_millis(20);
            assert!(range.contains(&took), "starved for {known_for} ms, SUSPECT{parameters}: {took:?}");
        }
    }
}

#[test]
fn who_got_a_processor_again_in_time_has_not_failed_and_nobody_becomes_more_patient() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    town.processes[2].stopped = true;
    let starved = RankSet::one(Rank(2));
    (town.processes[0].starved, town.processes[1].starved) = (starved, starved);
    town.run(Duration::from_millis(100));
    town.processes[2].stopped = false;
    (town.processes[0].starved, town.processes[1].starved) = (RankSet::EMPTY, RankSet::EMPTY);
    town.run(Duration::from_millis(50));
    assert!(town.together(&[0, 1, 2]));
    town.processes[2].stopped = true;
    let took = town.meet(&[0, 1], SECOND);
    assert!(took < Duration::from_millis(20), "{took:?}");
}

/// Who says how long a silence may last has said it for every time.
#[test]
fn no_patience_is_longer_than_the_longest_that_was_asked_for() {
    for (parameters, wait) in
        [("most_ms=15", 15), ("least_ms=18,most_ms=18", 18), ("busy_ms=40,most_ms=50", 40)]
    {
        let spec = STACK.replace("SUSPECT", &format!("SUSPECT({parameters})"));
        let mut town = Town::of(3, &spec, &Config::default());
        work(&mut town, Duration::from_millis(30));
        town.processes[2].stopped = true;
        let begun = town.now;
        while town.suspicions(0).is_empty() {
            work(&mut town, Duration::from_micros(500));
            assert!(town.now.since(begun) < SECOND, "nobody is suspected");
        }
        let took = town.now.since(begun);
        let range = Duration::from_millis(wait)..Duration::from_millis(wait + 4);
        assert!(range.contains(&took), "{parameters}: {took:?}");
    }
}

/// A stray or forged word about a live member leaves no trace.
#[test]
fn a_hint_that_was_wrong_is_forgotten_when_the_member_is_heard() {
    for hinted in [false, true] {
        let mut town = Town::of(2, STACK, &Config::default());
        town.run(Duration::from_millis(30));
        if hinted {
            let process = &mut town.processes[0];
            process.endpoint.gone(
                process.key,
                process.channels[0],
                RankSet::one(Rank(1)),
                &mut process.diary,
            );
        }
        town.run(Duration::from_millis(5));
        town.processes[1].stopped = true;
        town.run(Duration::from_millis(6));
        town.processes[1].stopped = false;
        town.run(Duration::from_millis(50));
        assert_eq!(town.suspicions(0), [], "with a hint: {hinted}");
    }
}

/// Who has excluded this member is silent because it is in another view: it is asked there, and waited for.
#[test]
fn who_has_parted_is_asked_again_and_again_and_not_taken_for_failed_before_it_could_answer() {
    let mut town = Town::of(2, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    town.processes[1].stopped = true;
    town.processes[0].parted = RankSet::one(Rank(1));
    let before = town.processes[0].diary.letters.len();
    town.run(Duration::from_millis(4));
    assert_eq!(town.processes[0].diary.letters.len(), before + 1, "it is asked at once");
    let took = Duration::from_millis(4) + town.meet(&[0], SECOND);
    let longest = Duration::from_millis(100);
    assert!((longest..longest + Duration::from_millis(10)).contains(&took), "{took:?}");
    let asked = town.processes[0].diary.letters.len() - before;
    assert!((5..=8).contains(&asked), "{asked} times in {took:?}");
}

#[test]
fn who_is_silent_for_half_of_its_time_out_is_asked_outside_the_view_too() {
    let mut town = Town::of(3, STACK, &Config::default());
    town.run(Duration::from_millis(30));
    town.processes[2].stopped = true;
    let letters = |town: &Town| town.processes[0].diary.letters.len();
    let before = letters(&town);
    town.run(Duration::from_millis(5));
    assert_eq!(letters(&town), before);
    town.run(Duration::from_millis(6));
    assert_eq!(letters(&town), before + 1);
}
