//! Headers, full and compressed.

use wadjet::id::{GroupId, Incarnation, ViewId};
use wadjet::wire::bits::low_bits;
use wadjet::wire::full::{Identification, NO_CONTROL, PREFIX_BYTES, Prefix};
use wadjet::wire::layout::{Class, FieldDefinition, FieldName, Filter, Header, Layout};
use wadjet::wire::{Traffic, word};

use crate::Target;

/// [`Prefix::decode`].
pub(super) const FULL: Target = Target {
    name: "header-full",
    what: "a full header that decodes is, bit for bit, the one its content encodes to, and all bytes are accounted for",
    weight: 1,
    seeds: || {
        let control = [NO_CONTROL, 0, 3];
        control.iter().zip([0, 2, 3]).map(|(control, words)| full(*control, words)).collect()
    },
    run: |input| {
        if let Ok((prefix, fields, payload)) = Prefix::decode(input) {
            assert_eq!(PREFIX_BYTES + fields.len() + payload.len(), input.len());
            assert_eq!(fields.len(), usize::from(prefix.words) * 8);
            let mut again = [0; PREFIX_BYTES];
            prefix.encode(&mut again);
            assert_eq!(again, input[..PREFIX_BYTES]);
        }
    },
};

/// [`Layout::words_of`], [`Layout::expand`] and [`Layout::read_full`].
pub(super) const COMPRESSED: Target = Target {
    name: "header-compressed",
    what: "whatever the words of a compressed header are, the full form says the same, and the other way round",
    weight: 1,
    seeds: || vec![[0; 1].repeat(9), (0..=72).collect(), [vec![2], vec![0xff; 64]].concat()],
    run: |input| {
        let Some((choice, bytes)) = input.split_first() else { return };
        let layouts = layouts();
        let layout = &layouts[usize::from(*choice) % layouts.len()];
        compressed_to_full(layout, bytes);
        full_to_compressed(layout, bytes);
    },
};

fn compressed_to_full(layout: &Layout, bytes: &[u8]) {
    let words = layout.words_of(bytes);
    assert_eq!(words.is_some(), layout.words() == 0 || bytes.len() >= layout.compressed_bytes());
    let Some(words) = words else { return };
    for (at, value) in words.iter().enumerate().take(layout.words()) {
        assert_eq!(Some(*value), word(bytes, 8 + at * 8));
    }
    let header = layout.expand(&words);
    assert_eq!(layout.expand(&layout.compress(&header)), header);
    let mut full = vec![0xff; layout.full_bytes()];
    layout.write_full(&header, &mut full);
    assert_eq!(layout.read_full(&full), Some(without_gossip(header)));
}

fn full_to_compressed(layout: &Layout, bytes: &[u8]) {
    let Some(header) = layout.read_full(bytes) else { return };
    assert_eq!(bytes.len(), layout.full_bytes());
    for ((field, _), value) in layout.fields().iter().zip(header.values) {
        assert_eq!(value & !low_bits(field.bits), 0, "{} is wider than {} bits", field.name, field.bits);
    }
    let mut again = vec![0; layout.full_bytes()];
    layout.write_full(&header, &mut again);
    assert_eq!(layout.read_full(&again), Some(header));
    if !layout.fields().iter().any(|(field, _)| field.bound) {
        // Bound fields are what a sender makes of the frame number; a forged full header can say otherwise.
        assert_eq!(layout.expand(&layout.compress(&header)), header);
    }
}

fn without_gossip(header: Header) -> Header {
    Header { gossip: Header::ZERO.gossip, ..header }
}

/// Layouts as stacks make them: the default one, one with every class, one without words, one full to the brim.
fn layouts() -> [Layout; 4] {
    let field = |name: &'static str, class, bits| FieldDefinition {
        name: FieldName { layer: "FUZZ", name },
        bits,
        class,
        bound: false,
        constant: 0,
        filter: (class == Class::Message).then_some(if bits == 32 { Filter::Crc32c } else { Filter::Length }),
    };
    let number = || field("number", Class::Protocol, 40);
    let bound = || FieldDefinition { bound: true, ..field("bound", Class::Protocol, 16) };
    let constant = || FieldDefinition { constant: 5, ..field("kind", Class::ConnectionId, 7) };
    let sum = || field("sum", Class::Message, 32);
    let gossips = |count: usize| vec![FieldName { layer: "FUZZ", name: "gossip" }; count];
    let wide = ["wide 0", "wide 1", "wide 2"].into_iter().map(|name| field(name, Class::Protocol, 47));
    let place = |traffic, fields, gossips, number| {
        Layout::place(traffic, fields, gossips, number).expect("the layouts here fit")
    };
    [
        place(Traffic::Cast, vec![number(), sum()], gossips(2), Some(0)),
        place(
            Traffic::Cast,
            vec![constant(), number(), bound(), sum(), field("length", Class::Message, 16)],
            gossips(4),
            Some(1),
        ),
        place(Traffic::Raw, vec![constant()], gossips(0), None),
        place(Traffic::Send, wide.chain([number(), sum()].into_iter().skip(1)).collect(), gossips(1), None),
    ]
}

fn full(control: u8, words: u8) -> Vec<u8> {
    let prefix = Prefix {
        traffic: Traffic::Cast,
        control,
        pack: control == NO_CONTROL,
        words,
        identification: Identification {
            group: GroupId::named("orders"),
            view: ViewId { counter: 1, coordinator: Incarnation(7) },
            origin: Incarnation(8),
            stack: 0x0123_4567_89ab_cdef,
        },
    };
    let mut bytes = vec![0; PREFIX_BYTES + usize::from(words) * 8];
    prefix.encode(&mut bytes);
    bytes.extend(b"payload");
    bytes
}
