//! METER adds up exactly what passes it, whichever way that goes: by plans, of which its effects wait until a layer runs, one
//! by one or in runs, or by the layers.

mod common;

use common::{Dice, World};
use wadjet::{Config, Shadow};

/// How a stack carries messages.
const MODES: [(bool, Shadow); 3] = [(true, Shadow::Off), (true, Shadow::Panic), (false, Shadow::Off)];

const STACKS: [&str; 5] = [
    "METER:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
    // With fields that travel, and two that measure the same.
    "METER:CHK_FIFO(wire=yes):METER:CHK_FIFO(wire=yes):STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
    // Where own copies pass it, too, and where they do not.
    "METER:STABLE:FC:UNICAST:METER:NAK:CHKSUM:COM",
    // Above what orders: with its turn, by an order, when all hold it.
    "METER:TOTAL(burst=5):FIXED:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
    "METER:SAFE:TOTAL:FIXED:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
];

/// What the first METER from the top of a member says of whom it has heard: messages and bytes by rank.
fn heard(world: &mut World, node: usize) -> Vec<String> {
    let node = &mut world.nodes[node];
    let lines = node.endpoint.group(node.key).dump();
    let line = lines.iter().find(|line| line.starts_with("METER")).expect("it is in the stack").clone();
    let of = line.split("; of ").skip(1);
    of.map(|text| text.split(", the last").next().unwrap_or(text).to_string()).collect()
}

/// What its application has had of each.
fn had(world: &World, node: usize) -> Vec<String> {
    let log = &world.nodes[node].log;
    let of = |rank: usize| {
        let messages =
            || log.casts.iter().chain(&log.sends).filter(|(origin, _)| usize::from(*origin) == rank);
        let bytes: usize = messages().map(|(_, message)| message.len()).sum();
        format!("{rank}: {} messages, {bytes} bytes", messages().count())
    };
    (0..world.nodes.len()).map(of).collect()
}

#[test]
fn what_is_added_up_is_what_the_application_has_had() {
    for (spec, (accelerate, shadow), pack) in STACKS
        .iter()
        .flat_map(|spec| MODES.map(|mode| [false, true].map(|pack| (*spec, mode, pack))))
        .flatten()
    {
        let config = Config { accelerate, shadow, pack, ..Config::default() };
        let mut world = World::new(3, spec, &config);
        let mut dice = Dice(7);
        let mut cast = 0;
        for _ in 0..100 {
            for _ in 0..dice.below(12) {
                let (from, bytes) = (dice.below(3) as usize, 1 + dice.below(40) as usize);
                cast += usize::from(world.try_cast(from, &vec![from as u8; bytes]).is_ok());
            }
            world.steps(1 + dice.below(3) as usize);
        }
        let all = |world: &mut World| world.nodes.iter().all(|node| node.log.casts.len() == cast);
        let what = format!("{spec}, accelerated: {accelerate}, {shadow:?}, packed: {pack}");
        assert!(!spec.contains("LOCAL") || world.until(50_000, all), "{what}");
        world.steps(2000);
        for node in 0..3 {
            // The framing of packs counts as bytes, and so does what TOTAL says in casts of its own.
            let messages_alone = pack || spec.contains("TOTAL");
            let told = |lines: Vec<String>| match messages_alone {
                true => lines.iter().map(|line| line.split(',').next().unwrap_or(line).to_string()).collect(),
                false => lines,
            };
            let [measured, true_count] = [heard(&mut world, node), had(&world, node)].map(told);
            assert_eq!(measured, true_count, "{what}: member {node}");
        }
        let hits = world.nodes[1].stats().fast_path.deliver_hit;
        assert_eq!(accelerate, hits > 100, "{what}: {hits} by plan");
    }
}
