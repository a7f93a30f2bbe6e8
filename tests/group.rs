//! Keys, acknowledgements and the polled interface of a group.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::World;
use wadjet::group::{Application, Delivery, Event, Group, Happened, Polled};
use wadjet::layers::FIXED_STACK;
use wadjet::transport::Transport;
use wadjet::{Config, Rank, Shadow};

/// Casts `count` messages that share a frame.
fn cast_pack(world: &mut World, count: u8) {
    let node = &mut world.nodes[0];
    node.endpoint.set_busy(node.channel, true);
    for n in 0..count {
        world.cast(0, &[n]);
    }
    let node = &mut world.nodes[0];
    node.endpoint.set_busy(node.channel, false);
}

#[test]
fn a_frame_is_seen_when_its_last_message_is_acknowledged() {
    let mut world = World::new(2, FIXED_STACK, &Config::default());
    world.nodes[1].log.ack_first = true;
    let seen = |world: &mut World| {
        let node = &mut world.nodes[1];
        node.endpoint.group(node.key).stability().seen[1][0]
    };
    for pack in 0..3 {
        cast_pack(&mut world, 4);
        world.steps(400);
        assert_eq!(world.nodes[1].log.lists as u64, pack + 1, "one frame each");
        assert_eq!(seen(&mut world), pack, "the frames before the newest are seen");
    }
    let node = &mut world.nodes[1];
    let last = wadjet::stack::event::MessageId { view: 1, origin: Rank(0), number: 2, index: 3, last: true };
    node.endpoint.group(node.key).ack(last);
    world.steps(400);
    assert_eq!(seen(&mut world), 3);
}

#[test]
fn the_key_of_another_endpoint_is_refused() {
    let world = World::new(2, FIXED_STACK, &Config::default());
    let [a, mut b] = <[common::Node; 2]>::try_from(world.nodes).ok().unwrap();
    assert!(a.endpoint.has_group(a.key) && b.endpoint.has_group(b.key));
    assert!(!a.endpoint.has_group(b.key) && !b.endpoint.has_group(a.key));
    let refused = catch_unwind(AssertUnwindSafe(|| b.endpoint.group(a.key).writable())).unwrap_err();
    assert!(refused.downcast_ref::<String>().unwrap().contains("another endpoint's"));
    assert!(catch_unwind(AssertUnwindSafe(|| a.endpoint.stats(b.key))).is_err());
}

#[test]
fn an_application_that_polls_rarely_keeps_one_word_of_stability() {
    let mut world = World::new(2, FIXED_STACK, &Config::default());
    let mut polled = Polled::default();
    let node = &mut world.nodes[0];
    let mut group = node.endpoint.group(node.key);
    for _ in 0..3 {
        polled.event(&Event::Stable, &mut group);
    }
    polled.event(&Event::Writable, &mut group);
    assert!(matches!(polled.take(), Some(Happened::Event(Event::Stable))));
    // Once it was taken the next one is kept again, behind what came before it.
    polled.event(&Event::Stable, &mut group);
    assert!(matches!(polled.take(), Some(Happened::Event(Event::Writable))));
    assert!(matches!(polled.take(), Some(Happened::Event(Event::Stable))));
    assert!(polled.take().is_none());
}

#[test]
fn the_key_of_a_forgotten_group_says_that_it_is_forgotten() {
    let mut world = World::new(2, FIXED_STACK, &Config::default());
    let key = world.nodes[0].key;
    world.nodes[0].endpoint.group(key).leave();
    world.steps(100);
    assert!(world.nodes[0].endpoint.forget(key));
    let endpoint = &mut world.nodes[0].endpoint;
    let refused = catch_unwind(AssertUnwindSafe(|| endpoint.group(key).writable())).unwrap_err();
    assert!(refused.downcast_ref::<String>().unwrap().contains("was forgotten"));
}

/// Is behind for ever, and counts how often it is asked.
struct Behind {
    asked: u64,
}

impl Application for Behind {
    fn cast(&mut self, _delivery: &Delivery<'_>, group: &mut Group<'_>) {
        group.hold_senders();
    }

    fn is_behind(&mut self) -> bool {
        self.asked += 1;
        true
    }
}

#[test]
fn who_is_behind_is_asked_in_every_iteration_also_when_nothing_else_happens() {
    for members in [1, 2] {
        let config = Config { shadow: Shadow::Off, ..Config::default() };
        let mut world = World::new(members, FIXED_STACK, &config);
        world.cast(0, b"one");
        let mut behind = Behind { asked: 0 };
        for iteration in 0..200 {
            world.now = world.now + Duration::from_millis(1);
            let before = behind.asked;
            let node = &mut world.nodes[0];
            node.endpoint.poll(world.now, &mut behind);
            while node.endpoint.transmit().is_some() {}
            assert!(iteration < 2 || behind.asked > before, "{members} members, iteration {iteration}");
        }
    }
}

/// Takes one message after another, and leaves with the third.
#[derive(Default)]
struct OneByOne(Vec<(u16, Vec<u8>)>);

impl Application for OneByOne {
    fn message(&mut self, origin: Rank, message: &[u8], group: &mut Group<'_>) {
        self.0.push((origin.0, message.to_vec()));
        if self.0.len() == 3 {
            group.leave();
        }
    }
}

#[test]
fn an_application_that_wants_single_messages_gets_them_one_by_one_until_it_leaves() {
    let mut world = World::new(2, FIXED_STACK, &Config::default());
    cast_pack(&mut world, 5);
    world.nodes[1].stopped = true;
    world.steps(10);
    let (mut one_by_one, now) = (OneByOne::default(), world.now);
    let node = &mut world.nodes[1];
    let mut arrived = Vec::new();
    node.transport.receive(64, &mut |received| arrived.push(received));
    node.endpoint.receive_all(&mut arrived, now, &mut one_by_one);
    assert_eq!(one_by_one.0, [(0, vec![0]), (0, vec![1]), (0, vec![2])], "of a frame of five");
}
