//! A stream of frames by a forger who knows the format and says what it likes of fragments.

use wadjet::stack::explain::explain;
use wadjet::stack::registry::Registry;
use wadjet::wire::full::{NO_CONTROL, PREFIX_BYTES, Prefix};
use wadjet::{Rank, RankSet};

use super::node::{FRAME_BYTES, InFlight, Node};
use crate::Target;

/// What comes of fragments that no honest member would send.
pub(super) const FRAGMENTS: Target = Target {
    name: "fragments",
    what: "of any frames in order, whatever they say of fragments, exactly the messages are delivered whose fragments \
        fit together and that are not beyond the limit; memory is taken for nothing else",
    weight: 10,
    seeds: || {
        let seeds: [&[u8]; 6] = [
            &[WHOLE, 9, FIRST, 20, 100, NEXT, 100, NEXT, 200, WHOLE, 1],
            &[FIRST, 20, 100, FIRST, 3, 100, NEXT, 255, NEXT, 255],
            &[FIRST, 200, 100, NEXT, 1, WHOLE, 0],
            &[NEXT, 7, FIRST, 1, 0, FIRST, 1, 255, FIRST, 1, 8, NEXT, 8],
            &[FIRST, 9, 50, WHOLE, 9, NEXT, 50],
            &[
                FIRST | SEND,
                20,
                100,
                FIRST,
                20,
                100,
                NEXT | SEND,
                220,
                NEXT,
                220,
                JUMP,
                1,
                PACK,
                10,
                PACK | SEND,
                9,
            ],
        ];
        seeds.into_iter().map(<[u8]>::to_vec).collect()
    },
    run: |script| {
        let mut forger = Forger::new();
        let mut script = script.iter().copied();
        while let Some(operation) = script.next().filter(|_| forger.numbers[0] + forger.numbers[1] < 200) {
            forger.operate(operation, &mut script);
        }
        for (at, told) in [&forger.victim.told.casts[0], &forger.victim.told.sends[0]].into_iter().enumerate()
        {
            assert!(*told == forger.expected[at], "traffic {at}: {told:?} is not {:?}", forger.expected[at]);
        }
    },
};

/// A frame with one message.
const WHOLE: u8 = 0;
/// The first fragment: length of the message in eights, bytes of payload.
const FIRST: u8 = 1;
/// The fragment that is due: bytes of payload.
const NEXT: u8 = 2;
/// One that is not due.
const JUMP: u8 = 3;
/// A fragment that says it is a pack.
const PACK: u8 = 4;
/// The same, of a send.
const SEND: u8 = 8;

const STACK: &str = "FRAG(bytes=1000):UNICAST:NAK:COM";
const LIMIT: u64 = 1000;

struct Forger {
    victim: Node,
    /// Full headers of a cast and a send by member 0, to be filled in.
    prefixes: [Vec<u8>; 2],
    numbers: [u64; 2],
    /// The model: what is to be delivered, and what is gathered, with the bytes that are missing.
    expected: [Vec<Vec<u8>>; 2],
    gathered: [Option<(u64, Vec<u8>)>; 2],
}

impl Forger {
    fn new() -> Forger {
        // Number, `first` and `left` are bit-packed in this order; everything else about a frame an honest member tells.
        let explained = explain(&Registry::standard(), STACK, 2, true).expect("the stack is sound");
        let names = |kind: &str| -> Vec<(String, u32)> {
            let fields = explained.fields.iter().filter(|field| field.traffic.name() == kind);
            fields.take(3).map(|field| (field.name.clone(), field.bits)).collect()
        };
        let fields = |first: &str| [(first.into(), 40), ("FRAG.first".into(), 1), ("FRAG.left".into(), 32)];
        assert_eq!(
            (names("cast"), names("send")),
            (fields("NAK.number").into(), fields("UNICAST.number").into())
        );
        let mut honest = Node::new(0, 2, STACK, true);
        honest.group().cast(&[0; 900]).expect("it is carried");
        honest.group().send(&RankSet::one(Rank(1)), &[0; 900]).expect("it is carried");
        let mut wire = std::collections::VecDeque::new();
        honest.transmit(&mut wire);
        let prefix = |traffic: u8| {
            let frame = wire.iter().map(|InFlight { bytes, .. }| bytes).find(|bytes| bytes[3] == traffic);
            frame.expect("both are fragmented")[..PREFIX_BYTES + 16].to_vec()
        };
        Forger {
            prefixes: [prefix(0), prefix(1)],
            victim: Node::new(1, 2, STACK, true),
            numbers: [0; 2],
            expected: Default::default(),
            gathered: Default::default(),
        }
    }

    fn operate(&mut self, operation: u8, operands: &mut impl Iterator<Item = u8>) {
        let mut operand = || u64::from(operands.next().unwrap_or(0));
        let of = usize::from(operation & SEND != 0);
        let due = self.gathered[of].as_ref().map_or(0, |(missing, _)| *missing);
        match operation & 7 {
            FIRST => {
                let left = operand() * 8;
                self.frame(of, true, left, operand(), false);
            }
            NEXT => self.frame(of, false, due, operand(), false),
            JUMP => self.frame(of, false, due + 1 + operand(), 9, false),
            PACK => self.frame(of, false, due, operand(), true),
            _ => self.frame(of, false, 0, operand(), false),
        }
    }

    fn frame(&mut self, of: usize, first: bool, left: u64, length: u64, pack: bool) {
        let number = self.numbers[of];
        self.numbers[of] += 1;
        let mut frame = self.prefixes[of].clone();
        let fields = u128::from(number) | u128::from(first) << 40 | u128::from(left) << 41;
        frame[PREFIX_BYTES..].copy_from_slice(&fields.to_le_bytes());
        let length = (length as usize).min(FRAME_BYTES - frame.len());
        let payload = vec![number as u8; length];
        let (mut prefix, ..) = Prefix::decode(&frame).expect("an honest member wrote it");
        assert_eq!(prefix.control, NO_CONTROL);
        prefix.pack = pack;
        prefix.encode(&mut frame[..PREFIX_BYTES]);
        if pack {
            // One message, in a pack: else it is dropped before anybody looks at its fields.
            frame.extend(wadjet::wire::pack::run_header(1, length as u16));
        }
        frame.extend(&payload);
        frame.truncate(FRAME_BYTES);
        if pack && wadjet::wire::pack::check(&frame[PREFIX_BYTES + 16..]).is_err() {
            self.numbers[of] -= 1;
            return;
        }
        self.model(of, first, left, payload, pack);
        self.victim.receive(&frame);
    }

    fn model(&mut self, of: usize, first: bool, left: u64, payload: Vec<u8>, pack: bool) {
        let gathered = &mut self.gathered[of];
        if !first && left == 0 {
            *gathered = None;
            self.expected[of].push(payload);
            return;
        }
        if first {
            *gathered = (left <= LIMIT).then(|| (left, Vec::new()));
        }
        let length = payload.len() as u64;
        match gathered.take() {
            Some((missing, mut bytes)) if missing == left && (1..=left).contains(&length) && !pack => {
                bytes.extend(payload);
                if length == left {
                    self.expected[of].push(bytes);
                } else {
                    *gathered = Some((left - length, bytes));
                }
            }
            _ => {}
        }
    }
}
