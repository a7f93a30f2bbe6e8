//! What says who is in the group and is false: forged, stale or out of range, from members and from others. It is dropped
//! and counted, and the group goes on. No checksum here: what is forged well enough reaches the layers.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use common::live::{Replica, Seen, Town, group, member};
use wadjet::group::Grounds;
use wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY as STACK;
use wadjet::wire::full::{Identification, NO_CONTROL, PREFIX_BYTES, Prefix};
use wadjet::wire::{Traffic, WIRE_VERSION, outside};
use wadjet::{Config, Incarnation, Rank, RankSet, ViewId};

/// The place of a layer in the stack.
const MBRSHIP: u8 = 1;
/// And in that with the state on top.
const XFER: u8 = 0;

/// A town in which member 1 (of incarnation 2) lies to member 0, unless it is said to whom.
struct Lie {
    town: Town,
    victim: usize,
    /// The header of its next send, and of what it says past all layers that number.
    send: Vec<u8>,
    raw: Vec<u8>,
}

impl Lie {
    fn new() -> Lie {
        Lie::among(3)
    }

    fn among(members: u64) -> Lie {
        Lie::with(members, &Config::default())
    }

    fn with(members: u64, config: &Config) -> Lie {
        Lie::of_stack(STACK, members, config)
    }

    fn of_stack(stack: &str, members: u64, config: &Config) -> Lie {
        Lie::in_town(Town::of(members, stack, &Config { pack: false, ..config.clone() }), 0)
    }

    /// The process at 1 lies to that at `victim` in the view that both are in.
    fn in_town(mut town: Town, victim: usize) -> Lie {
        let suspect = town.spec.split(':').position(|layer| layer == "SUSPECT").unwrap() as u8;
        let [own, theirs] = [1, victim].map(|at| town.processes[at].endpoint.incarnation());
        let to = town.processes[1].view().1.iter().position(|member| *member == theirs.0).unwrap();
        let full = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&full);
        // A send that was lost is repeated with its full header, which shows where its number is.
        town.lose = Box::new(move |at, received| match Prefix::decode(received.bytes()) {
            _ if at != victim => false,
            Ok((prefix, ..)) => {
                if prefix.identification.origin == own {
                    seen.borrow_mut().push((prefix, received.bytes().to_vec()));
                }
                false
            }
            Err(_) => received.bytes().ends_with(b"-lost"),
        });
        for message in [&b"a-lost"[..], b"b-lost"] {
            let process = &mut town.processes[1];
            process.endpoint.group(process.key).send(&RankSet::one(Rank::at(to)), message).unwrap();
            town.run(Duration::from_millis(10));
        }
        town.lose = Box::new(|_, _| false);
        let full = full.take();
        let header = |wanted: &dyn Fn(&Prefix) -> bool, skip: usize| {
            let (prefix, bytes) =
                full.iter().filter(|(prefix, _)| wanted(prefix)).nth(skip).expect("one was sent");
            bytes[..PREFIX_BYTES + 8 * usize::from(prefix.words)].to_vec()
        };
        let is_send = |prefix: &Prefix| prefix.traffic == Traffic::Send && prefix.control == NO_CONTROL;
        let [first, second] = [0, 1].map(|skip| header(&is_send, skip));
        let word =
            |bytes: &[u8]| u64::from_le_bytes(bytes[PREFIX_BYTES..PREFIX_BYTES + 8].try_into().unwrap());
        let next = word(&second) + (word(&second) - word(&first));
        let mut send = second;
        send[PREFIX_BYTES..PREFIX_BYTES + 8].copy_from_slice(&next.to_le_bytes());
        let raw = header(&|prefix| prefix.traffic == Traffic::Raw && prefix.control == suspect, 0);
        Lie { town, victim, send, raw }
    }

    fn inject(&mut self, bytes: &[u8]) {
        let now = self.town.now;
        let process = &mut self.town.processes[self.victim];
        process.endpoint.receive(common::received(bytes), now, &mut process.diary);
        self.town.step();
    }

    /// Member 1 says this to MBRSHIP of member 0.
    fn says(&mut self, body: &[u8]) {
        // Nothing more of this message follows.
        self.says_to(MBRSHIP, &[&[0], body].concat());
    }

    /// Member 1 says this to a layer of member 0.
    fn says_to(&mut self, layer: u8, body: &[u8]) {
        let mut bytes = self.send.clone();
        bytes[4] = layer;
        bytes.extend(body);
        self.inject(&bytes);
    }

    /// A heartbeat of `origin` in the view `view`.
    fn beats(&mut self, origin: u64, view: u64, body: &[u8]) {
        let mut bytes = self.raw.clone();
        let (mut prefix, ..) = Prefix::decode(&bytes).unwrap();
        prefix.identification.origin = Incarnation(origin);
        prefix.identification.view.counter = view;
        prefix.encode(&mut bytes);
        bytes.extend(body);
        self.inject(&bytes);
    }

    /// A letter of `origin`, who says that it is in the view `view`.
    fn writes(&mut self, origin: u64, view: ViewId, body: &[u8]) {
        let origin = Incarnation(origin);
        let identification = Identification { group: group(), view, origin, stack: 0 };
        for datagram in outside::split(identification, Traffic::Raw, 7, body) {
            let mut received = common::received(&datagram);
            received.channel = wadjet::transport::ChannelId::OUTSIDE;
            let now = self.town.now;
            let process = &mut self.town.processes[0];
            process.endpoint.receive(received, now, &mut process.diary);
        }
        self.town.step();
    }

    fn counted(&self, what: &str) -> u64 {
        let process = &self.town.processes[self.victim];
        let counts = process.endpoint.stats(process.key).counts;
        counts.iter().filter(|count| count.what == what).map(|count| count.count).sum()
    }

    /// The lie was counted once and the group is what it was.
    fn comes_to_nothing(mut self, what: &str, lie: &str) {
        assert_eq!(self.counted(what), 1, "{lie}: {:?}", self.counts());
        self.town.run(Duration::from_millis(50));
        for at in 0..3 {
            self.town.cast(at, b"still here");
        }
        self.town.run(Duration::from_millis(10));
        for process in &self.town.processes {
            let views = process.casts_by_view();
            assert_eq!(views.len(), 1, "{lie}: {:?}", process.diary.seen);
            assert_eq!(views[0].1.len(), 3, "{lie}");
            assert!(
                !process.diary.seen.iter().any(|seen| matches!(seen, Seen::Suspect(_) | Seen::Block)),
                "{lie}"
            );
        }
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        let process = &self.town.processes[self.victim];
        process.endpoint.stats(process.key).counts.iter().map(|count| (count.what, count.count)).collect()
    }
}

/// Bodies as MBRSHIP writes them.
struct Body(Vec<u8>);

impl Body {
    fn of(code: u8) -> Body {
        Body(vec![code])
    }

    fn half(mut self, value: u16) -> Body {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Who has found a member failed, and how.
    fn charge(self, by: u16, kind: u8) -> Body {
        let mut body = self.half(by);
        body.0.push(kind);
        body
    }

    fn words(mut self, words: &[u64]) -> Body {
        words.iter().for_each(|word| self.0.extend(word.to_le_bytes()));
        self
    }

    fn id(self, id: ViewId) -> Body {
        self.words(&[id.counter, id.coordinator.0])
    }

    fn text(self, text: &str) -> Body {
        let mut body = self.half(text.len() as u16);
        body.0.extend(text.as_bytes());
        body
    }

    fn members(self, members: &[u64]) -> Body {
        members.iter().fold(self.half(members.len() as u16), |body, own| {
            body.words(&[*own]).text(&member(*own).address.0)
        })
    }

    fn view(self, group: u64, id: ViewId, members: &[u64]) -> Body {
        self.view_of_frames(group, id, FRAME_BYTES, members)
    }

    fn view_of_frames(self, group: u64, id: ViewId, frame_bytes: u64, members: &[u64]) -> Body {
        let mut body = self.words(&[group]).id(id).words(&[99]);
        body.0.push(WIRE_VERSION);
        body.words(&[frame_bytes]).text(STACK).members(members)
    }
}

fn id(counter: u64, coordinator: u64) -> ViewId {
    ViewId { counter, coordinator: Incarnation(coordinator) }
}

/// What members say they can take.
const FRAME_BYTES: u64 = 1472;

const FLUSH: u8 = 0;
const FLUSH_OK: u8 = 1;
const BEHIND: u8 = 2;
const CUT: u8 = 3;
const CUT_OK: u8 = 4;
const VIEW: u8 = 5;
const HELD_UP: u8 = 9;

/// Of letters.
const CONFIRM: u8 = 7;
/// Of a letter's part, before what it says.
const CHUNK_BYTES: usize = 10;

#[test]
fn flush_vectors_and_views_that_are_forged_stale_or_out_of_range_are_dropped_and_counted() {
    let nobody = [0, 0];
    let undecodable = "membership message that does not decode";
    let ours = group().0;
    let lies = [
        // Forged: nobody has asked for them.
        (
            "report for another proposal",
            Body::of(FLUSH_OK).id(id(2, 1)).words(&nobody).words(&[FRAME_BYTES]).half(3).words(&[1, 2, 3]),
        ),
        ("report for another proposal", Body::of(HELD_UP).id(id(2, 1)).words(&[0b100, 0])),
        ("cut of no flush", Body::of(CUT).id(id(2, 2)).half(3).words(&[9, 9, 9]).half(0).half(1).half(2)),
        ("confirmation of another proposal", Body::of(CUT_OK).id(id(2, 1))),
        (
            "view of a proposal that was not confirmed",
            Body::of(VIEW).id(id(2, 2)).view(ours, id(2, 2), &[1, 2]),
        ),
        // Who leads a flush has given up all below it.
        ("flush that cannot be", Body::of(FLUSH).id(id(2, 2)).words(&nobody)),
        // Stale: of this view's beginning, or of one before.
        ("view that cannot follow", Body::of(VIEW).id(id(1, 1)).view(ours, id(1, 1), &[1, 2])),
        ("view that cannot follow", Body::of(VIEW).id(id(2, 2)).view(ours, id(0, 2), &[1, 2])),
        // Of another group.
        ("view that cannot follow", Body::of(VIEW).id(id(2, 2)).view(ours ^ 1, id(2, 2), &[1, 2])),
        // Frames that nothing fits, and of more bytes than there are.
        ("view that cannot follow", Body::of(VIEW).id(id(2, 2)).view_of_frames(ours, id(2, 2), 8, &[1, 2])),
        (undecodable, Body::of(VIEW).id(id(2, 2)).view_of_frames(ours, id(2, 2), 1 << 32, &[1, 2])),
        // Out of range.
        (
            undecodable,
            Body::of(FLUSH_OK).id(id(2, 1)).words(&nobody).words(&[FRAME_BYTES]).half(2).words(&[1, 2]),
        ),
        (
            undecodable,
            Body::of(FLUSH_OK).id(id(2, 1)).words(&nobody).words(&[FRAME_BYTES]).half(4).words(&[1, 2, 3, 4]),
        ),
        (undecodable, Body::of(FLUSH).id(id(2, 2)).words(&[0b1000, 0])),
        (undecodable, Body::of(FLUSH).id(id(2, 2)).words(&[1, 1 << 63])),
        (undecodable, Body::of(FLUSH).id(id(2, 2)).words(&[1, 0])),
        (undecodable, Body::of(FLUSH).id(id(2, 2)).words(&[1, 0]).charge(3, 0)),
        (undecodable, Body::of(FLUSH).id(id(2, 2)).words(&[1, 0]).charge(1, 99)),
        (undecodable, Body::of(CUT).id(id(2, 2)).half(3).words(&[9, 9, 9]).half(0).half(1).half(3)),
        (undecodable, Body::of(VIEW).id(id(2, 2)).view(ours, id(2, 2), &[1, 1])),
        // So all would have left.
        ("view of a proposal that was not confirmed", Body::of(VIEW).id(id(2, 2)).view(ours, id(2, 2), &[])),
        (undecodable, Body::of(BEHIND).id(id(u64::MAX, 2))),
        (undecodable, Body::of(FLUSH).id(id(u64::MAX, 2)).words(&[1, 0])),
        (undecodable, Body::of(HELD_UP).id(id(2, 1)).words(&[0b1000, 0])),
        (undecodable, Body::of(10)),
        // What follows on the last of all ids would be none.
        (undecodable, Body::of(FLUSH).id(id(1 << 62, 2)).words(&[1, 0])),
        (undecodable, Body::of(BEHIND).id(id(1 << 62, 2))),
        (undecodable, Body::of(VIEW).id(id(2, 2)).view(ours, id(1 << 62, 2), &[1, 2])),
        (
            "report out of range",
            Body::of(FLUSH_OK).id(id(2, 1)).words(&nobody).words(&[FRAME_BYTES]).half(3).words(&[
                1,
                2,
                1 << 63,
            ]),
        ),
        (
            "cut out of range",
            Body::of(CUT).id(id(2, 2)).half(3).words(&[1, 2, 1 << 63]).half(0).half(1).half(2),
        ),
    ];
    for (at, (what, body)) in lies.into_iter().enumerate() {
        let mut lie = Lie::new();
        lie.says(&body.0);
        lie.comes_to_nothing(what, &format!("lie {at}"));
    }
}

/// What members must have in common.
fn terms() -> String {
    let Config { window_frames, message_bytes_max, .. } = Config::default();
    format!("{STACK}, windows of {window_frames} frames, messages of {message_bytes_max} bytes")
}

/// That `past` is over, that member 1 has found the reader silent, and that most have gone on without it.
fn excluded(past: ViewId) -> Vec<u8> {
    [Body::of(5).id(past).words(&[2]).0, vec![0, 1]].concat()
}

#[test]
fn letters_that_are_forged_stale_or_from_strangers_are_dropped_and_counted() {
    const DENY_NOTHING: u8 = 9;
    let ours = group().0;
    let stranger = 99;
    let view = |coordinator| Body::of(3).id(id(1, coordinator)).view(ours, id(2, coordinator), &[1, 2]);
    let merge_of = |frame_bytes: u64, counter, first: u64| {
        Body::of(1)
            .id(id(counter, stranger))
            .words(&[0])
            .text(&terms())
            .0
            .into_iter()
            .chain(std::iter::once(WIRE_VERSION))
            .chain(frame_bytes.to_le_bytes())
            .chain(128_u16.to_le_bytes())
            .chain(Body(Vec::new()).members(&[first]).0)
            .collect::<Vec<u8>>()
    };
    let merge = |counter, first| merge_of(FRAME_BYTES, counter, first);
    let excluded = |counter| excluded(id(counter, 1));
    let lies = [
        // Frames that nothing fits, and of more bytes than there are.
        ("merge request denied", stranger, id(0, 99), merge_of(8, 1, 99)),
        ("letter that does not decode", stranger, id(0, 99), merge_of(1 << 32, 1, 99)),
        ("view of a stranger", stranger, id(1, 99), view(stranger).0),
        ("view of a proposal that was not confirmed", 2, id(1, 1), view(2).0),
        ("exclusion by a stranger or from another view", stranger, id(2, 99), excluded(1)),
        ("exclusion by a stranger or from another view", 2, id(2, 2), excluded(0)),
        (
            "exclusion by a stranger or from another view",
            stranger,
            id(2, 99),
            Body::of(6).id(id(1, 1)).words(&[9]).0,
        ),
        ("exclusion by a stranger or from another view", 2, id(2, 2), Body::of(6).id(id(0, 1)).words(&[9]).0),
        ("merge request of another", stranger, id(0, 99), merge(1, 98)),
        ("letter that does not decode", stranger, id(0, 99), merge(u64::MAX, 99)),
        ("letter that does not decode", stranger, id(u64::MAX, 99), merge(1, 99)),
        ("letter that does not decode", stranger, id(0, 99), merge(1 << 62, 99)),
        ("letter that does not decode", stranger, id(1 << 62, 99), merge(1, 99)),
        ("letter that does not decode", 2, id(1 << 62, 2), view(2).0),
        ("letter that does not decode", stranger, id(0, 99), vec![DENY_NOTHING; 40]),
        ("letter that does not decode", stranger, id(2, 99), [excluded(1), vec![0]].concat()),
        ("confirmation asked for by a stranger", stranger, id(0, 99), Body::of(7).id(id(1, 1)).words(&[9]).0),
    ];
    for (at, (what, origin, view, body)) in lies.into_iter().enumerate() {
        let mut lie = Lie::new();
        lie.writes(origin, view, &body);
        lie.comes_to_nothing(what, &format!("letter {at}"));
    }
}

#[test]
fn suspicions_that_are_forged_stale_or_from_non_members_are_dropped_and_counted() {
    let beat = |suspected: u64| [&[0][..], &suspected.to_le_bytes(), &[0; 8]].concat();
    // Of ranks that nobody has, and what is no heartbeat at all.
    for body in [beat(0b1000), beat(u64::MAX), vec![2; 17], vec![0; 16], Vec::new()] {
        let mut lie = Lie::new();
        lie.beats(2, 1, &body);
        lie.comes_to_nothing("heartbeat that does not decode", &format!("heartbeat {body:?}"));
    }
    // Of a former view, and from a process that is in none of ours.
    let mut lie = Lie::new();
    lie.beats(2, 0, &beat(0b100));
    lie.beats(99, 1, &beat(0b100));
    let dropped = lie.town.processes[0].endpoint.dropped();
    assert_eq!((dropped.other_view, dropped.not_a_member), (1, 1));
    // A member may say this. As all others hear that one it is believed if it goes on saying so: so the others were good tests.
    lie.beats(2, 1, &beat(0b100));
    assert_eq!(lie.counted("suspicion taken over"), 0);
    lie.town.lose = Box::new(|at, received| {
        let of = |(prefix, ..): (Prefix, _, _)| prefix.identification.origin == Incarnation(2);
        at == 0 && Prefix::decode(received.bytes()).is_ok_and(of)
    });
    for _ in 0..40 {
        lie.beats(2, 1, &beat(0b100));
        lie.town.run(Duration::from_millis(1));
    }
    assert_eq!(lie.counted("suspicion taken over"), 1);
    // Not if it says the same of the one it tells.
    let mut lie = Lie::new();
    for _ in 0..9 {
        lie.beats(2, 1, &beat(0b101));
        lie.town.run(Duration::from_millis(1));
    }
    assert_eq!([lie.counted("suspicion taken over"), lie.counted("suspected by another")], [0, 9]);
    // It is heard still; but for how long was nothing of this member taken in, if that is true?
    lie.town.run(Duration::from_millis(30));
    let told = lie.town.processes[0].diary.seen.iter().find_map(|seen| match seen {
        Seen::Suspect(suspicion) => Some((suspicion.member, suspicion.why)),
        _ => None,
    });
    assert_eq!(told, Some((Rank(1), Grounds::Accuser)));
}

/// Who says that it holds what it cannot forward goes, and not those that wait for it.
#[test]
fn one_bad_number_in_a_report_costs_the_group_its_author_at_most() {
    let mut lie = Lie::among(4);
    lie.town.processes[3].stopped = true;
    let begun = |town: &mut Town| town.processes[0].diary.seen.contains(&Seen::Block);
    assert!(lie.town.until(Duration::from_millis(100), begun));
    let report = Body::of(FLUSH_OK).id(id(2, 1)).words(&[0b1000, 0]).charge(0, 0).words(&[FRAME_BYTES]);
    lie.says(&report.half(4).words(&[0, 0, 0, 1000]).0);
    assert_eq!(lie.counted("membership message that does not decode"), 0);
    lie.town.run(Duration::from_millis(800));
    assert!(lie.town.processes[0].casts_by_view().len() > 1, "the flush ended");
    for at in [0, 2] {
        for seen in &lie.town.processes[at].diary.seen {
            let Seen::View(_, members) = seen else { continue };
            assert!(members.contains(&1) && members.contains(&3), "{at}: {seen:?}");
        }
    }
}

/// What a guest is to say, if this letter asks for it.
fn token(letter: &[u8]) -> Option<u64> {
    let body = letter.get(PREFIX_BYTES + CHUNK_BYTES..)?;
    let word = || body.get(17..25)?.try_into().ok().map(u64::from_le_bytes);
    (body.first() == Some(&CONFIRM)).then(word)?
}

/// Guests that are there only in letters: no more of them are kept than fit a view.
#[test]
fn many_that_want_in_at_once_are_no_more_than_a_view_holds() {
    let mut lie = Lie::new();
    let terms = terms();
    let merge = |own: u64, token: u64| {
        [
            Body::of(1).id(id(1, own)).words(&[token]).text(&terms).0,
            vec![WIRE_VERSION],
            Body(Vec::new()).words(&[FRAME_BYTES]).0,
            128_u16.to_le_bytes().to_vec(),
            Body(Vec::new()).members(&[own, own + 500]).0,
        ]
        .concat()
    };
    // Each with a friend. None of them is kept, or waited for, before it has answered.
    let guests = || 1000..1090;
    lie.town.processes[0].diary.letters.clear();
    guests().for_each(|own| lie.writes(own, id(0, own), &merge(own, 0)));
    lie.town.run(Duration::from_millis(50));
    assert_eq!([lie.counted("flush begun"), lie.counted("merge request denied")], [0, 0]);
    let tokens: Vec<u64> =
        lie.town.processes[0].diary.letters.iter().filter_map(|bytes| token(bytes)).collect();
    assert_eq!(tokens.len(), guests().count());
    // All before the host has waited long enough for more of them.
    guests().zip(tokens).for_each(|(own, token)| lie.writes(own, id(0, own), &merge(own, token)));
    assert_eq!(lie.counted("flush begun"), 0);
    let taken = (wadjet::id::MEMBERS_MAX - 3) / 2;
    assert_eq!(lie.counted("merge request denied"), 90 - taken as u64);
}

/// Denials of what was not asked, stale or of this very view, and views of the group that are lesser or this one.
#[test]
fn denials_and_presences_that_are_forged_change_no_view() {
    let deny = |proposal, refusal: u8| [Body::of(2).id(proposal).0, vec![refusal], Body(vec![]).text("no").0];
    let presence = |view, size, coordinator: u64, address: &str| {
        let body =
            [vec![0, 1, 0], Body(vec![]).id(view).half(size).half(0).words(&[coordinator]).text(address).0];
        [body.concat(), Body(vec![]).text(&terms()).0, vec![WIRE_VERSION]]
    };
    let letters = [
        deny(id(0, 1), 2),
        deny(id(9, 9), 2),
        deny(id(1, 1), 0),
        deny(id(1, 1), 1),
        deny(id(1, 1), 2),
        presence(id(1, 1), 3, 1, "p1"),
        presence(id(7, 99), 2, 99, "p99"),
        // Under the incarnation of a member, from elsewhere.
        presence(id(7, 2), 9, 2, "p99"),
    ];
    for (at, letter) in letters.into_iter().enumerate() {
        let mut lie = Lie::new();
        lie.writes(99, id(1, 99), &letter.concat());
        assert_eq!(lie.counted("letter that does not decode"), 0, "letter {at}");
        lie.town.run(Duration::from_millis(50));
        for process in &lie.town.processes {
            let seen = &process.diary.seen;
            let changes = |seen: &Seen| {
                matches!(seen, Seen::Suspect(_) | Seen::Block | Seen::Transitional(_) | Seen::Exit(_))
            };
            assert!(!seen.iter().any(changes), "letter {at}: {seen:?}");
            assert_eq!(process.casts_by_view().len(), 1, "letter {at}");
        }
    }
}

#[test]
fn what_is_said_of_the_state_and_is_too_long_too_short_or_unknown_is_dropped_and_counted() {
    let stack = format!("XFER:{STACK}");
    // That it lacks the state: the longest part it takes, whether it has a whole one of its own, and what it takes in.
    let lacks = |own: &[u8]| {
        let rest = if own.is_empty() { &[][..] } else { &[0; 32] };
        [&[1], &1000_u32.to_le_bytes()[..], own, rest].concat()
    };
    for (body, lie) in [
        (lacks(&[]), "it lacks the state and does not say whether it has one of its own"),
        (lacks(&[2]), "it has two states of its own"),
        (lacks(&[0xff]), "it has 255 states of its own"),
        (lacks(&[1, 0]), "it lacks the state, and more"),
        (vec![], "nothing"),
        (vec![200], "what nobody knows"),
    ] {
        let mut sound = Lie::of_stack(&stack, 3, &Config::default());
        sound.says_to(XFER, &body);
        sound.comes_to_nothing("transfer message that does not decode", lie);
    }
}

/// A group of two that have a state, and a third that takes it in: not all of it yet, for its application is not ready.
fn transfer_under_way() -> Town {
    let stack = format!("XFER(flight_kib=32):{STACK}");
    let mut town = Town::of(2, &stack, &Config { pack: false, ..Config::default() });
    for process in &mut town.processes {
        process.diary.replica = Some(Replica { ballast_bytes: 64 << 10, ..Replica::default() });
    }
    let new = town.join(&[1]);
    town.processes[new].diary.replica = Some(Replica { reluctant: usize::MAX, ..Replica::default() });
    town.until(Duration::from_secs(1), |town| town.processes[new].diary.replica.as_ref().unwrap().asked > 0);
    town
}

/// What XFER says, of a state cut at a view of this town.
fn of_the_state(town: &mut Town, code: u8, lacks: u64, takes: u8, at: u64) -> Vec<u8> {
    let cut = town.processes[0].view().0;
    let begin = Body::of(code).words(&[lacks, 0]).0;
    [&begin[..], &[takes], &Body(vec![]).id(cut).words(&[at]).0].concat()
}

#[test]
fn what_is_said_of_a_state_on_its_way_and_does_not_hold_keeps_nobody_from_having_it() {
    let [begin_code, part_code, have, credit, anew, reached] = [2_u8, 3, 4, 7, 8, 11];
    const LAST: u8 = 1;
    const STATELESS: u8 = 2;
    let part =
        |flags: u8, at: u64, bytes: &[u8]| [&[part_code, flags], &at.to_le_bytes()[..], bytes].concat();
    let begin = |lacks: u64, takes: u8, at: u64| {
        of_the_state(&mut transfer_under_way(), begin_code, lacks, takes, at)
    };
    let mut another_cut = begin(0, 1, 0);
    another_cut[18..26].copy_from_slice(&u64::MAX.to_le_bytes());
    let undecodable = Some("transfer message that does not decode");
    let (no_part, not_taken) =
        (Some("part that does not decode"), Some("part of a state that is not taken in"));
    let not_given = Some("credit for what is not given");
    let (donor, taker) = (0, 2);
    for (victim, body, counted, lie) in [
        (donor, begin(0, 0, 0), None, "nobody lacks the state"),
        (donor, begin(u64::MAX, 0, 0), None, "all lack the state, and more than there are"),
        (donor, begin(0, 1, u64::MAX), None, "it goes on to give the end of a state to its donor"),
        (donor, begin(4, 2, 0), undecodable, "its receiver takes the state twice"),
        (donor, part(LAST, 0, b"short"), not_taken, "the donor gets a state"),
        (donor, Body::of(credit).words(&[1 << 40]).0, not_given, "it has taken in what it was not given"),
        (donor, Body::of(credit).words(&[u64::MAX]).0, None, "it has taken in all of what it was not given"),
        (donor, vec![have], None, "it has what it has"),
        (donor, vec![anew], None, "it cannot go on with what it is not given"),
        (donor, [&[reached][..], &[0xff; 4]].concat(), None, "a probe has come that nobody has sent"),
        (taker, begin(0, 0, 0), None, "the one that lacks the state does not"),
        (taker, begin(4, 1, 0), None, "the state begins anew, from a second donor"),
        (taker, begin(4, 1, 1), None, "the state goes on, from a second donor"),
        (taker, begin(4, 1, u64::MAX), None, "the state goes on behind all of it"),
        (taker, another_cut, None, "it is cut at a view that is to come"),
        (taker, part(0, 0, b"another"), not_taken, "another state, from its beginning"),
        (taker, part(LAST, u64::MAX, b"end"), not_taken, "the end of one that is as long as can be"),
        (taker, part(LAST | STATELESS, 0, b""), not_taken, "there is no state"),
        (taker, part(STATELESS, 0, b""), no_part, "there is no state, and more of it follows"),
        (taker, part(LAST | STATELESS, 0, b"x"), no_part, "there is no state, and it is this"),
        (taker, part(LAST | STATELESS, 9, b""), no_part, "there is no state, behind a part of it"),
        (taker, part(4, 0, b"x"), no_part, "a part with a flag that nobody knows"),
    ] {
        let mut town = Lie::in_town(transfer_under_way(), victim);
        let before = counted.map_or(0, |what| town.counted(what));
        town.says_to(XFER, &body);
        if let Some(what) = counted {
            assert_eq!(town.counted(what), before + 1, "{lie}: {:?}", town.counts());
        }
        let mut town = town.town;
        town.processes[taker].diary.replica.as_mut().unwrap().reluctant = 0;
        let installed =
            |town: &mut Town| town.processes[taker].diary.replica.as_ref().unwrap().installed == 1;
        assert!(town.until(Duration::from_secs(1), installed), "{lie}");
        let replica = |at: usize| town.processes[at].diary.replica.as_ref().unwrap();
        assert_eq!((replica(taker).begun, replica(taker).ballast_bytes), (1, 64 << 10), "{lie}");
        (0..3).for_each(|at| town.cast(at, b"still here"));
        town.run(Duration::from_millis(10));
        let states: Vec<_> =
            town.processes.iter().map(|p| p.diary.replica.as_ref().unwrap().state.clone()).collect();
        assert!(states[0].len() == 3 && states.iter().all(|state| *state == states[0]), "{lie}: {states:?}");
        assert!(town.together(&[0, 1, 2]), "{lie}");
    }
}

/// It may be the one that has failed: the others go on without it.
#[test]
fn who_says_that_few_have_gone_on_without_the_reader_is_given_up_itself() {
    let mut lie = Lie::new();
    let mut letter = excluded(id(1, 1));
    *letter.last_mut().unwrap() = 0;
    lie.writes(2, id(2, 2), &letter);
    assert_eq!(lie.counted("exclusion by a lesser part"), 1);
    assert_eq!(lie.town.suspicions(0), [(1, Grounds::Elsewhere)]);
    lie.town.meet(&[0, 2], Duration::from_secs(1));
}

/// After a partition each side may be told by the other that it is out: neither obeys.
#[test]
fn who_has_given_another_one_up_is_not_excluded_by_it() {
    let mut lie = Lie::new();
    let process = &mut lie.town.processes[0];
    process.endpoint.group(process.key).suspect(&[Rank(1)].into_iter().collect());
    lie.town.step();
    lie.writes(2, id(2, 2), &excluded(id(1, 1)));
    assert_eq!(lie.counted("exclusion by a stranger or from another view"), 1);
    lie.town.run(Duration::from_millis(100));
    let seen = &lie.town.processes[0].diary.seen;
    assert!(!seen.iter().any(|seen| matches!(seen, Seen::Exit(_))), "{seen:?}");
}

/// While a view is expected, frames that nobody knows may be of that one. They are not held for longer than it may take.
#[test]
fn frames_of_a_view_that_does_not_come_are_let_go_of() {
    let unknown = [0x12, 0x34, 0x56, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    // A flush that does not end, and one that this process is excluded in.
    for is_excluded in [false, true] {
        let linger_delay = Duration::from_millis(if is_excluded { 500 } else { 5 });
        let mut lie = Lie::with(3, &Config { linger_delay, ..Config::default() });
        lie.town.processes[1].stopped = true;
        let process = &mut lie.town.processes[0];
        process.endpoint.group(process.key).suspect(&[Rank(2)].into_iter().collect());
        lie.town.step();
        let dropped = |lie: &Lie| lie.town.processes[0].endpoint.dropped().unknown_cookie;
        let before = dropped(&lie);
        lie.inject(&unknown);
        lie.town.run(Duration::from_millis(2));
        assert_eq!(dropped(&lie), before);
        if is_excluded {
            lie.writes(2, id(2, 2), &excluded(id(1, 1)));
            assert!(lie.town.processes[0].diary.seen.iter().any(|seen| matches!(seen, Seen::Exit(_))));
        } else {
            lie.town.run(Duration::from_millis(4));
            assert_eq!(lie.town.processes[0].casts_by_view().len(), 1, "the flush goes on");
        }
        assert_eq!(dropped(&lie), before + 1);
    }
}
