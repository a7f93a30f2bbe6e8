//! What a network, a stranger or a liar can put on the wire is dropped, counted by reason, and does no harm.

mod common;

use common::{Dice, World, view};
use wadjet::accel::cookie::cookie;
use wadjet::endpoint::Dropped;
use wadjet::id::Life;
use wadjet::layers::{FIXED_STACK, FIXED_STACK_WITH_INTEGRITY};
use wadjet::transport::Transport;
use wadjet::transport::memory::{Hub, HubOptions};
use wadjet::wire::control::{GossipRow, Missing};
use wadjet::wire::full::{Identification, NO_CONTROL, PREFIX_BYTES, Prefix, STACK_CONTROL};
use wadjet::wire::{COOKIE_MASK, FULL_FLAG, PACK_FLAG, Traffic, WIRE_VERSION};
use wadjet::{Config, Event, GroupId, Incarnation, LocalView, Rank, RankSet, Shadow, ViewId};

/// Frames as they really are: fast and full casts, packs, sends, gossip, repair requests.
fn samples(spec: &str) -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    for accelerate in [true, false] {
        let mut world = World::new(3, spec, &Config { accelerate, ..Config::default() });
        world.record = true;
        let mut dice = Dice(3);
        world.lose = Box::new(move |_, _| dice.below(4) == 0);
        for n in 0..8u8 {
            world.cast(1, &[n; 40]);
            world.cast(1, &[n; 7]);
            world.cast(1, &[n; 7]);
            let node = &mut world.nodes[1];
            node.endpoint.group(node.key).send(&RankSet::one(Rank(0)), &[n; 9]).unwrap();
            world.steps(100);
        }
        samples.extend(std::mem::take(&mut world.nodes[1].sent));
        samples.extend(std::mem::take(&mut world.nodes[2].sent));
    }
    samples
}

/// A running group of three that has delivered something.
fn running(spec: &str, shadow: Shadow) -> World {
    let mut world = World::new(3, spec, &Config { shadow, ..Config::default() });
    for n in 0..3u8 {
        world.cast(1, &[n]);
        world.step();
    }
    world.steps(500);
    world
}

/// The group still works: casts and sends of all members arrive.
fn works(world: &mut World, what: &str) {
    let before: Vec<usize> = (0..3).map(|n| world.nodes[n].log.casts.len()).collect();
    for node in 0..3 {
        world.cast(node, b"still here");
        let node = &mut world.nodes[node];
        node.endpoint.group(node.key).send(&RankSet::all(3), b"and here").unwrap();
    }
    let sends: Vec<usize> = (0..3).map(|n| world.nodes[n].log.sends.len()).collect();
    world.steps(5000);
    for n in 0..3 {
        let new = &world.nodes[n].log.casts[before[n]..];
        assert_eq!(new.len(), 3, "{what} {n}");
        assert!(new.iter().all(|(_, message)| message == b"still here"), "{what}");
        assert_eq!(world.nodes[n].log.sends.len() - sends[n], 3, "{what} {n}");
        assert!(world.nodes[n].stats().retained < 10, "{what}");
    }
}

fn total(dropped: Dropped) -> u64 {
    let Dropped {
        short,
        foreign,
        version,
        unknown_cookie,
        collided_cookie,
        other_view,
        not_a_member,
        other_stack,
        malformed,
        own,
        exited,
    } = dropped;
    short
        + foreign
        + version
        + unknown_cookie
        + collided_cookie
        + other_view
        + not_a_member
        + other_stack
        + malformed
        + own
        + exited
}

/// Whatever is done to a frame, with a checksum in the stack nothing but true messages comes up.
#[test]
fn damaged_frames_are_dropped_at_every_byte_boundary() {
    let true_messages = |message: &[u8]| {
        let first = message.first().copied().unwrap_or(0);
        [40, 7, 9, 1].contains(&message.len()) && message.iter().all(|byte| *byte == first)
    };
    for shadow in [Shadow::Panic, Shadow::Off] {
        let mut world = running(FIXED_STACK, shadow);
        let samples = samples(FIXED_STACK);
        assert!(samples.len() > 40);
        let mut dice = Dice(9);
        for sample in &samples {
            for cut in 0..sample.len() {
                world.inject(0, &sample[..cut]);
            }
            for extra in 1..10 {
                let mut long = sample.clone();
                long.extend(vec![dice.below(256) as u8; extra]);
                world.inject(0, &long);
            }
            for at in 0..sample.len() {
                let mut flipped = sample.clone();
                flipped[at] ^= 1 << dice.below(8);
                world.inject(0, &flipped);
            }
            world.steps(2);
        }
        for (_, message) in &world.nodes[0].log.casts {
            assert!(true_messages(message), "{message:?}");
        }
        for (_, message) in &world.nodes[0].log.sends {
            assert!(true_messages(message), "{message:?}");
        }
        assert!(!world.nodes[0].log.events.iter().any(|event| matches!(event, Event::Exit(_))));
        let damaged = world.nodes[0].counted("CHKSUM", "damaged message");
        assert!(damaged > 1000, "{damaged}");
        assert!(total(world.nodes[0].endpoint.dropped()) > 1000, "{:?}", world.nodes[0].endpoint.dropped());
    }
}

/// Without a checksum damage comes through, but nothing panics and memory stays bounded.
#[test]
fn rubbish_never_panics_without_a_checksum_either() {
    for seed in 0..20 {
        let mut world = running(FIXED_STACK_WITH_INTEGRITY, Shadow::Off);
        let samples = samples(FIXED_STACK_WITH_INTEGRITY);
        let mut dice = Dice(seed);
        for _ in 0..4000 {
            let mut frame = samples[dice.below(samples.len() as u64) as usize].clone();
            for _ in 0..1 + dice.below(4) {
                let at = dice.below(frame.len() as u64) as usize;
                frame[at] = dice.below(256) as u8;
            }
            frame.truncate(frame.len() - dice.below(frame.len() as u64 / 2) as usize);
            world.inject(0, &frame);
            if dice.below(10) == 0 {
                world.step();
            }
        }
        world.steps(100);
        assert!(world.nodes[0].stats().retained <= 3 * 1024);
    }
}

#[test]
fn random_bytes_are_dropped() {
    let mut world = running(FIXED_STACK, Shadow::Panic);
    let mut dice = Dice(1);
    for _ in 0..5000 {
        let bytes: Vec<u8> = (0..dice.below(120)).map(|_| dice.below(256) as u8).collect();
        world.inject(0, &bytes);
    }
    assert_eq!(total(world.nodes[0].endpoint.dropped()), 5000);
    works(&mut world, "random bytes");
}

/// A forger's workshop: full frames of member 1 with one thing wrong.
struct Forger {
    identification: Identification,
    field_words: [u8; 3],
}

impl Forger {
    fn new(world: &mut World) -> Forger {
        world.record = true;
        world.nodes[1].sent.clear();
        let mut lost = 0;
        // A repaired cast and a slow send show the full headers.
        world.lose = Box::new(move |to, _| {
            lost += usize::from(to != 1);
            lost < 3 && to != 1
        });
        world.cast(1, b"x");
        let node = &mut world.nodes[1];
        node.endpoint.group(node.key).send(&[Rank(0), Rank(2)].into_iter().collect(), b"y").unwrap();
        world.steps(3000);
        world.lose = Box::new(|_, _| false);
        let mut field_words = [0; 3];
        let mut identification = None;
        for bytes in &world.nodes[1].sent {
            if let Ok((prefix, ..)) = Prefix::decode(bytes) {
                field_words[prefix.traffic as usize] = prefix.words;
                identification = Some(prefix.identification);
            }
        }
        Forger { identification: identification.expect("some full frame was sent"), field_words }
    }

    fn frame(&self, traffic: Traffic, control: u8, pack: bool, fields: u64, payload: &[u8]) -> Vec<u8> {
        self.identified(self.identification, traffic, control, pack, fields, payload)
    }

    fn identified(
        &self,
        identification: Identification,
        traffic: Traffic,
        control: u8,
        pack: bool,
        fields: u64,
        payload: &[u8],
    ) -> Vec<u8> {
        let words = self.field_words[traffic as usize];
        let mut bytes = vec![0; PREFIX_BYTES];
        Prefix { traffic, control, pack, words, identification }.encode(&mut bytes);
        for word in 0..words {
            bytes.extend((if word == 0 { fields } else { 0 }).to_le_bytes());
        }
        bytes.extend(payload);
        bytes
    }
}

/// No checksum here: what is forged well enough reaches the layers.
const BARE: &str = FIXED_STACK_WITH_INTEGRITY;
/// STABLE:FC:UNICAST:LOCAL:NAK:COM
const NAK: u8 = 4;

#[test]
fn strangers_are_told_apart_and_counted_by_reason() {
    let mut world = running(BARE, Shadow::Panic);
    let forger = Forger::new(&mut world);
    let honest = forger.identification;
    let base = world.nodes[0].endpoint.dropped();
    let cast = |identification: Identification| {
        forger.identified(identification, Traffic::Cast, NO_CONTROL, false, 1000, b"forged")
    };
    let mut first_word = cast(honest);
    first_word[0] ^= 0xff;
    let mut version = cast(honest);
    version[2] = WIRE_VERSION + 1;
    let mut code = cast(honest);
    code[3] = 7;
    let mut fields = cast(honest);
    fields[5] += 1;
    fields.extend([0; 8]);
    let bad_pack = forger.frame(Traffic::Cast, NO_CONTROL, true, 4, &[9, 0, 9, 0, 1]);
    let frames = [
        (first_word, Dropped { foreign: 1, ..base }),
        (version, Dropped { version: 1, ..base }),
        (code, Dropped { foreign: 1, ..base }),
        (fields, Dropped { malformed: 1, ..base }),
        (bad_pack, Dropped { malformed: 1, ..base }),
        (cast(honest)[..PREFIX_BYTES - 1].to_vec(), Dropped { short: 1, ..base }),
        (cast(honest)[..7].to_vec(), Dropped { short: 1, ..base }),
        (Vec::new(), Dropped { short: 1, ..base }),
        (cast(Identification { group: GroupId(9), ..honest }), Dropped { other_view: 1, ..base }),
        (
            cast(Identification { view: ViewId { counter: 2, ..honest.view }, ..honest }),
            Dropped { other_view: 1, ..base },
        ),
        (cast(Identification { origin: Incarnation(999), ..honest }), Dropped { not_a_member: 1, ..base }),
        (cast(Identification { stack: 7, ..honest }), Dropped { other_stack: 1, ..base }),
        (cast(Identification { origin: Incarnation(100), ..honest }), Dropped { own: 1, ..base }),
        (forger.frame(Traffic::Raw, NO_CONTROL, false, 0, b"x"), Dropped { malformed: 1, ..base }),
        (forger.frame(Traffic::Raw, 200, false, 0, b"x"), Dropped { malformed: 1, ..base }),
        (forger.frame(Traffic::Cast, NAK, false, 4, b"x"), Dropped { malformed: 1, ..base }),
        (forger.frame(Traffic::Cast, STACK_CONTROL, false, 4, b"x"), Dropped { malformed: 1, ..base }),
        ((COOKIE_MASK & 0x1234_5678).to_le_bytes().to_vec(), Dropped { unknown_cookie: 1, ..base }),
    ];
    assert_eq!(base, Dropped::default());
    for (at, (frame, expected)) in frames.iter().enumerate() {
        let mut one = running(BARE, Shadow::Panic);
        one.inject(0, frame);
        assert_eq!(one.nodes[0].endpoint.dropped(), *expected, "frame {at}");
        works(&mut one, "strangers");
    }
}

#[test]
fn cookies_of_another_view_salt_version_or_member_are_unknown() {
    let mut world = running(FIXED_STACK, Shadow::Panic);
    let identification = Forger::new(&mut world).identification;
    let salt = view(3, FIXED_STACK).salt;
    let known = cookie(&identification, WIRE_VERSION, Traffic::Cast, 0, salt);
    assert!(
        world.nodes[1]
            .sent
            .iter()
            .any(|bytes| { u64::from_le_bytes(bytes[..8].try_into().unwrap()) & !PACK_FLAG == known })
    );
    let stale = Identification { view: ViewId { counter: 0, ..identification.view }, ..identification };
    let own = Identification { origin: Incarnation(100), ..identification };
    let cookies = [
        cookie(&stale, WIRE_VERSION, Traffic::Cast, 0, salt),
        cookie(&own, WIRE_VERSION, Traffic::Cast, 0, salt),
        cookie(&identification, WIRE_VERSION + 1, Traffic::Cast, 0, salt),
        cookie(&identification, WIRE_VERSION, Traffic::Cast, 1, salt),
        cookie(&identification, WIRE_VERSION, Traffic::Cast, 0, salt + 1),
        cookie(&identification, WIRE_VERSION, Traffic::Raw, 0, salt),
    ];
    let before = world.nodes[0].endpoint.dropped().unknown_cookie;
    for (at, cookie) in cookies.iter().enumerate() {
        let mut frame = cookie.to_le_bytes().to_vec();
        frame.extend([0; 40]);
        world.inject(0, &frame);
        assert_eq!(world.nodes[0].endpoint.dropped().unknown_cookie, before + at as u64 + 1);
        assert_eq!(cookie & FULL_FLAG, 0);
    }
    // The right cookie with a made-up rest does not get past the checksum.
    let mut forged = known.to_le_bytes().to_vec();
    forged.extend([0; 40]);
    let damaged = world.nodes[0].counted("CHKSUM", "damaged message");
    world.inject(0, &forged);
    assert_eq!(world.nodes[0].counted("CHKSUM", "damaged message"), damaged + 1);
    works(&mut world, "cookies");
}

#[test]
fn own_frames_reflected_by_the_network_do_nothing() {
    for accelerate in [true, false] {
        let mut world = World::new(3, FIXED_STACK, &Config { accelerate, ..Config::default() });
        world.record = true;
        for n in 0..5u8 {
            world.cast(0, &[n]);
            world.steps(50);
        }
        let own = std::mem::take(&mut world.nodes[0].sent);
        assert!(own.len() >= 5);
        for frame in &own {
            world.inject(0, frame);
        }
        let dropped = world.nodes[0].endpoint.dropped();
        assert_eq!(dropped.own + dropped.unknown_cookie, own.len() as u64);
        works(&mut world, "reflected");
    }
}

#[test]
fn every_frame_twice_or_three_times_is_delivered_once() {
    for accelerate in [true, false] {
        let mut world = World::new(3, FIXED_STACK, &Config { accelerate, ..Config::default() });
        world.record = true;
        for n in 0..30u8 {
            for node in 0..3 {
                world.cast(node, &[n]);
                let node = &mut world.nodes[node];
                node.endpoint.group(node.key).send(&RankSet::all(3), &[n]).unwrap();
            }
            world.step();
            for from in 0..3 {
                for frame in std::mem::take(&mut world.nodes[from].sent) {
                    for to in (0..3).filter(|to| *to != from) {
                        world.inject(to, &frame);
                        world.inject(to, &frame);
                    }
                }
            }
        }
        world.steps(3000);
        let expected: Vec<Vec<u8>> = (0..30u8).map(|n| vec![n]).collect();
        for node in 0..3 {
            for origin in 0..3 {
                assert_eq!(world.delivered(node, origin), expected);
            }
            // Member 0 gets sends meant for others too, here; only whoever is named by the number in order takes them.
            assert!(world.nodes[node].log.sends.len() >= 90);
        }
    }
}

#[test]
fn control_bodies_that_do_not_decode_are_counted_and_harmless() {
    for shadow in [Shadow::Panic, Shadow::Off] {
        let mut world = running(BARE, shadow);
        let forger = Forger::new(&mut world);
        let mut dice = Dice(4);
        for round in 0..2000 {
            let body: Vec<u8> = (0..dice.below(60)).map(|_| dice.below(8) as u8).collect();
            let control = [NAK, STACK_CONTROL, 0, 1, 2, 3, 5][round % 7];
            world.inject(0, &forger.frame(Traffic::Raw, control, false, 0, &body));
        }
        world.steps(10);
        assert!(world.nodes[0].counted("NAK", "repair request that does not decode") > 200);
        assert!(world.nodes[0].counted("stack", "gossip that does not decode") > 200);
        assert!(world.nodes[0].counted("FC", "unexpected control message") > 200);
        let mut out_of_range = GossipRow::header(false, 4, 2, 2, Life::NONE, 0).to_vec();
        out_of_range.extend([0; 4 * 2 * 8 + 2 * 4]);
        let before = world.nodes[0].counted("stack", "gossip that does not decode");
        world.inject(0, &forger.frame(Traffic::Raw, STACK_CONTROL, false, 0, &out_of_range));
        let mut rank = GossipRow::header(false, 4, u16::MAX, 1, Life::NONE, 0).to_vec();
        rank.extend([0; 4 * 8 + 4]);
        world.inject(0, &forger.frame(Traffic::Raw, STACK_CONTROL, false, 0, &rank));
        assert_eq!(world.nodes[0].counted("stack", "gossip that does not decode"), before + 2);
        works(&mut world, "bodies");
    }
}

/// A liar reports and asks for what cannot be: it may harm itself, but not the others' memory or their line.
#[test]
fn forged_counts_cause_no_flood() {
    let mut world = running(BARE, Shadow::Panic);
    let forger = Forger::new(&mut world);
    world.steps(1000);
    // It holds and grants whatever is cast, and it has cast 2^40 frames; but of member 0 it says the truth.
    let mut body = GossipRow::header(false, 4, 1, 2, Life::NONE, u64::MAX).to_vec();
    for _ in 0..2 * 4 {
        body.extend((1u64 << 40).to_le_bytes());
    }
    world.inject(0, &forger.frame(Traffic::Raw, STACK_CONTROL, false, 0, &body));
    // It asks for everything there is and is not.
    for node in 0..3 {
        world.nodes[node].sent.clear();
    }
    for _ in 0..100 {
        let mut body = Vec::new();
        let ranges = (0..16).map(|n| (n * 70_000, u16::MAX)).collect();
        Missing { origin: 0, ranges }.encode(&mut body);
        world.inject(0, &forger.frame(Traffic::Raw, NAK, false, 0, &body));
        world.step();
    }
    // Half a second.
    world.steps(50_000);
    let sent = world.nodes[0].sent.len();
    assert!(sent < 500, "{sent} frames in half a second because of a lie");
    assert!(world.nodes[0].stats().retained < 10);
    assert!(world.nodes[0].log.events.iter().all(|event| !matches!(event, Event::Exit(_))));
    world.cast(2, b"truth");
    world.steps(2000);
    assert_eq!(*world.delivered(0, 2).last().unwrap(), b"truth");
    assert_eq!(*world.delivered(1, 2).last().unwrap(), b"truth");
}

#[test]
fn frames_far_ahead_are_not_kept() {
    for spec in [BARE, FIXED_STACK_WITH_INTEGRITY] {
        let mut world = running(spec, Shadow::Panic);
        let forger = Forger::new(&mut world);
        for n in 0..5000u64 {
            world.inject(0, &forger.frame(Traffic::Cast, NO_CONTROL, false, 100_000 + n * 7, &[1; 100]));
            world.inject(0, &forger.frame(Traffic::Send, NO_CONTROL, false, 100_000 + n * 7, &[1; 100]));
        }
        assert!(world.nodes[0].counted("NAK", "beyond the window") >= 5000);
        assert!(world.nodes[0].counted("UNICAST", "beyond the window") >= 5000);
        works(&mut world, "far ahead");
    }
}

/// An endpoint for which every cookie stands for two things (the same view installed twice, once without a network): it
/// drops frames that it cannot tell apart, and gets them all the same, repaired with full identification.
#[test]
fn frames_whose_cookies_collide_are_repaired_with_full_identification() {
    let mut world = World::new(3, FIXED_STACK, &Config::default());
    let nowhere = Hub::new(HubOptions::default());
    let node = &mut world.nodes[0];
    let local = LocalView::new(view(3, FIXED_STACK), Incarnation(100)).unwrap();
    let mut elsewhere = nowhere.transport();
    let channel = elsewhere.open(&local, &node.endpoint.channel_options(3)).unwrap();
    node.endpoint.install(local, channel, &elsewhere.caps(), world.now).unwrap();
    let expected: Vec<Vec<u8>> = (0..20u8).map(|n| vec![n]).collect();
    for message in &expected {
        for node in 0..3 {
            world.cast(node, message);
        }
        world.steps(5);
    }
    world.steps(20_000);
    for node in 0..3 {
        for origin in 0..3 {
            assert_eq!(world.delivered(node, origin), expected, "{node} {origin}");
        }
    }
    assert!(world.nodes[0].endpoint.dropped().collided_cookie > 0);
    assert_eq!(world.nodes[1].endpoint.dropped(), Dropped::default());
    let stats = world.nodes[0].stats();
    assert_eq!(stats.fast_path.deliver_hit, 20, "own copies need no cookie; nothing else goes by a plan");
}
