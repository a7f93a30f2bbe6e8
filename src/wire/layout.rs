//! Fields, not bytes (design D2): which fields the messages of a stack have, and where they lie.
//!
//! Layers register fields; nobody but this module places them. Per kind of traffic there are two forms:
//!
//! - *full*: connection identification, exceptions, protocol and message fields one after the other, bit-packed;
//! - *compressed*: a cookie and a few words. Protocol fields share the first words (the *template*), ignoring layer
//!   boundaries; message fields and short gossip fill what is left of them and further words. Bound fields (equal to
//!   the frame number), connection identification and exceptions take no bits.
//!
//! `expand(compress(header)) == header`, gossip apart: that is carried along in its short form and never leaves the
//! frame it came in.

use std::fmt;
use std::rc::Rc;

use super::bits::{BitReader, BitWriter, low_bits};
use super::full::NO_CONTROL;
use super::{COOKIE_MASK, PACK_FLAG, Traffic};
use crate::id::Hasher64;

/// The most fields of one kind of traffic.
pub const FIELDS_MAX: usize = 20;
/// The most words of a compressed header after the cookie.
pub const WORDS_MAX: usize = 6;
/// The most of them that hold protocol fields.
pub const TEMPLATE_WORDS_MAX: usize = 3;
/// The most gossips riding on one kind of traffic.
pub const GOSSIPS_MAX: usize = 4;
/// Bits of a gossip's short form.
pub const GOSSIP_BITS: u32 = 16;

/// What a field depends on: the Protocol Accelerator's four classes, and those parts of its connection identification
/// (the message type of every layer) that only unusual messages have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Constant in a view and stack.
    ConnectionId,
    /// Predictable from protocol state.
    Protocol,
    /// Depends on the message itself.
    Message,
    /// Not needed for this message to be correct.
    Gossip,
    /// Zero in ordinary messages, and then without bits; a message with another value has a full header. Covered by
    /// filters all the same.
    Exception,
    /// Said by the sender from protocol state, and not predicted: it stands among the protocol fields, is written with
    /// them and never compared.
    Mark,
}

impl Class {
    /// Whether its fields stand in template words.
    pub(crate) fn is_in_template(self) -> bool {
        matches!(self, Class::Protocol | Class::Mark)
    }
}

/// How a message field's value comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// CRC32C over cookie, words (but for this field and those of the same class that layers beneath registered),
    /// control code and payload.
    Crc32c,
    /// Bytes of payload.
    Length,
}

/// What a field or a gossip is called: `LAYER.name`. It is put together only where it is read or hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldName {
    /// The layer that registered it.
    pub layer: &'static str,
    /// What that layer calls it.
    pub name: &'static str,
}

impl fmt::Display for FieldName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.layer, self.name)
    }
}

impl FieldName {
    /// Takes the name in as it reads; `text` is room for that.
    fn digest(self, hasher: &mut Hasher64, text: &mut String) {
        text.clear();
        [self.layer, ".", self.name].into_iter().for_each(|part| text.push_str(part));
        hasher.bytes(text.as_bytes());
    }
}

/// A field as its layer registered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldDefinition {
    /// `LAYER.name`.
    pub name: FieldName,
    /// Its width.
    pub bits: u32,
    /// Its class.
    pub class: Class,
    /// Always equal to the frame number.
    pub bound: bool,
    /// For a connection identification: its value.
    pub constant: u64,
    /// For a message field: its filter.
    pub filter: Option<Filter>,
}

/// Where a field lies in the compressed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: bound or constant.
    Elided,
    /// In a word after the cookie, from a bit on.
    Word {
        /// Which word, from 0.
        word: u8,
        /// The lowest bit.
        shift: u8,
    },
}

/// The values of one message's fields, and the short gossip it came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// By field.
    pub values: [u64; FIELDS_MAX],
    /// By gossip; zero in a full header.
    pub gossip: [u16; GOSSIPS_MAX],
}

impl Header {
    /// All zero.
    pub const ZERO: Header = Header { values: [0; FIELDS_MAX], gossip: [0; GOSSIPS_MAX] };
}

/// The layout of one kind of traffic. Copies share what it says of fields.
#[derive(Clone, Debug)]
pub struct Layout {
    fields: Rc<[(FieldDefinition, Place)]>,
    /// Places of the gossips' short forms.
    gossips: Rc<[(FieldName, Place)]>,
    /// By field: what every header needs of it, close together.
    cuts: Rc<[Cut]>,
    /// By field: the bits of the words that its filter covers.
    covered: Rc<[[u64; WORDS_MAX]]>,
    frame_number: Option<usize>,
    has_bound: bool,
    has_exceptions: bool,
    template_words: usize,
    words: usize,
    full_bytes: usize,
}

/// How a field is cut out of a header.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Its lowest bits.
    mask: u64,
    /// The only value that there is of a connection identification.
    constant: u64,
    bits: u32,
    /// The word in which it lies, if it is less than there can be.
    word: u8,
    shift: u8,
    class: Class,
}

impl Cut {
    fn of((field, place): (&FieldDefinition, &Place)) -> Cut {
        let (word, shift) = match *place {
            Place::Elided => (u8::MAX, 0),
            Place::Word { word, shift } => (word, shift),
        };
        let FieldDefinition { bits, class, constant, .. } = *field;
        Cut { mask: low_bits(bits), constant, bits, word, shift, class }
    }
}

/// The fields do not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Too many fields or gossips.
    #[error(
        "{0} traffic has more than {FIELDS_MAX} fields or {GOSSIPS_MAX} gossips; use fewer layers that add some"
    )]
    TooMany(&'static str),
    /// Too many bits.
    #[error("{traffic} traffic has {bits} bits of {class} fields; {room} fit")]
    TooWide {
        /// Which traffic.
        traffic: &'static str,
        /// Which class.
        class: &'static str,
        /// How many bits.
        bits: usize,
        /// How many fit.
        room: usize,
    },
}

impl Layout {
    /// Places `fields` and `gossips`.
    ///
    /// # Errors
    /// [`LayoutError`] if they do not fit.
    pub fn place(
        traffic: Traffic,
        fields: Vec<FieldDefinition>,
        gossips: Vec<FieldName>,
        frame_number: Option<usize>,
    ) -> Result<Layout, LayoutError> {
        if fields.len() > FIELDS_MAX || gossips.len() > GOSSIPS_MAX {
            return Err(LayoutError::TooMany(traffic.name()));
        }
        let mut room = Room { used: [0; WORDS_MAX] };
        let mut places = [Place::Elided; FIELDS_MAX];
        let travels = |field: &FieldDefinition| field.class.is_in_template() && !field.bound;
        for (at, field) in fields.iter().enumerate().filter(|(_, field)| travels(field)) {
            places[at] = room.take(field.bits, TEMPLATE_WORDS_MAX).ok_or_else(|| LayoutError::TooWide {
                traffic: traffic.name(),
                class: "protocol",
                bits: fields.iter().filter(|f| travels(f)).map(|f| f.bits as usize).sum(),
                room: TEMPLATE_WORDS_MAX * 64,
            })?;
        }
        let template_words = room.words();
        let loose: usize = fields.iter().filter(|f| f.class == Class::Message).map(|f| f.bits as usize).sum();
        let riding = gossips.len();
        let too_wide = || LayoutError::TooWide {
            traffic: traffic.name(),
            class: "message and gossip",
            bits: loose + riding * GOSSIP_BITS as usize,
            room: (WORDS_MAX - template_words) * 64,
        };
        for (at, field) in fields.iter().enumerate().filter(|(_, field)| field.class == Class::Message) {
            places[at] = room.take(field.bits, WORDS_MAX).ok_or_else(too_wide)?;
        }
        let mut placed_gossips = Vec::with_capacity(gossips.len());
        for name in gossips {
            let place = room.take(GOSSIP_BITS, WORDS_MAX).ok_or_else(too_wide)?;
            placed_gossips.push((name, place));
        }
        let exceptions = fields.iter().filter(|field| field.class == Class::Exception);
        let exception_bits: usize = exceptions.map(|field| field.bits as usize).sum();
        if exception_bits > 64 {
            let (traffic, bits) = (traffic.name(), exception_bits);
            return Err(LayoutError::TooWide { traffic, class: "exception", bits, room: 64 });
        }
        let bits: usize = fields.iter().map(|field| field.bits as usize).sum();
        // A filter is computed when those of the layers above have been, and those beneath have not.
        let mut uncovered = [0; WORDS_MAX];
        let mut covered = [[0; WORDS_MAX]; FIELDS_MAX];
        for ((field, place), covered) in fields.iter().zip(&places).zip(&mut covered) {
            if let (Class::Message, Place::Word { word, shift }) = (field.class, place) {
                uncovered[usize::from(*word)] |= low_bits(field.bits) << shift;
            }
            *covered = uncovered.map(|bits: u64| !bits);
        }
        Ok(Layout {
            covered: covered[..fields.len()].into(),
            cuts: fields.iter().zip(&places).map(Cut::of).collect(),
            has_bound: fields.iter().any(|field| field.bound),
            fields: fields.into_iter().zip(places).collect(),
            gossips: placed_gossips.into(),
            frame_number,
            has_exceptions: exception_bits > 0,
            template_words,
            words: room.words(),
            full_bytes: bits.div_ceil(64) * 8,
        })
    }

    /// The fields with their places.
    pub fn fields(&self) -> &[(FieldDefinition, Place)] {
        &self.fields
    }

    /// The gossips with the places of their short forms.
    pub fn gossips(&self) -> &[(FieldName, Place)] {
        &self.gossips
    }

    /// The field that is the frame number, if the traffic is numbered by frame.
    pub fn frame_number(&self) -> Option<usize> {
        self.frame_number
    }

    /// Words with protocol fields.
    pub fn template_words(&self) -> usize {
        self.template_words
    }

    /// Words after the cookie.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Bytes of a compressed header, cookie included.
    pub fn compressed_bytes(&self) -> usize {
        8 + self.words * 8
    }

    /// Bytes of the field area of a full header; whole words.
    pub fn full_bytes(&self) -> usize {
        self.full_bytes
    }

    /// Puts the constants of connection identifications into a header.
    pub(crate) fn put_constants(&self, header: &mut Header) {
        for (cut, value) in self.cuts.iter().zip(&mut header.values) {
            if cut.class == Class::ConnectionId {
                *value = cut.constant;
            }
        }
    }

    /// The message fields from `first` on, the last one first.
    pub(crate) fn message_fields(&self, first: usize) -> impl Iterator<Item = usize> {
        let of_class = |at: &usize| self.cuts[*at].class == Class::Message;
        (first..self.cuts.len()).rev().filter(of_class)
    }

    /// The bits of a template word that are protocol fields or marks.
    pub fn template_mask(&self, word: usize) -> u64 {
        self.fields
            .iter()
            .filter(|(field, _)| field.class.is_in_template())
            .filter_map(|(field, place)| match place {
                Place::Word { word: at, shift } if usize::from(*at) == word => {
                    Some(low_bits(field.bits) << shift)
                }
                _ => None,
            })
            .fold(0, |mask, bits| mask | bits)
    }

    /// The words of the compressed form.
    pub fn compress(&self, header: &Header) -> [u64; WORDS_MAX] {
        let mut words = [0; WORDS_MAX];
        for (cut, value) in self.cuts.iter().zip(&header.values) {
            if let Some(word) = words.get_mut(usize::from(cut.word)) {
                *word |= (value & cut.mask) << (cut.shift & 63);
            }
        }
        for ((_, place), value) in self.gossips.iter().zip(header.gossip) {
            if let Place::Word { word, shift } = place {
                words[usize::from(*word)] |= u64::from(value) << shift;
            }
        }
        words
    }

    /// The fields that the words of a compressed form say; depends on the words alone.
    pub fn expand(&self, words: &[u64; WORDS_MAX]) -> Header {
        let mut header = Header::ZERO;
        let read = |place: Place, bits: u32| match place {
            Place::Elided => 0,
            Place::Word { word, shift } => (words[usize::from(word)] >> shift) & low_bits(bits),
        };
        let number = self.frame_number.map_or(0, |at| read(self.fields[at].1, self.fields[at].0.bits));
        for ((field, place), value) in self.fields.iter().zip(&mut header.values) {
            *value = match field.class {
                Class::ConnectionId => field.constant,
                _ if field.bound => number & low_bits(field.bits),
                _ => read(*place, field.bits),
            };
        }
        for ((_, place), value) in self.gossips.iter().zip(&mut header.gossip) {
            *value = read(*place, GOSSIP_BITS) as u16;
        }
        header
    }

    /// The words of a compressed header as they stand in a frame after the cookie; `None` if it is cut off.
    #[inline]
    pub fn words_of(&self, bytes: &[u8]) -> Option<[u64; WORDS_MAX]> {
        let mut words = [0; WORDS_MAX];
        for (at, word) in words.iter_mut().enumerate().take(self.words) {
            *word = super::word(bytes, 8 + at * 8)?;
        }
        Some(words)
    }

    /// Writes the field area of a full header.
    ///
    /// # Panics
    /// If `bytes` is not [`Layout::full_bytes`] long.
    pub fn write_full(&self, header: &Header, bytes: &mut [u8]) {
        assert_eq!(bytes.len(), self.full_bytes);
        let mut writer = BitWriter::new(bytes);
        for (cut, value) in self.cuts.iter().zip(&header.values) {
            writer.write(value & cut.mask, cut.bits);
        }
    }

    /// Reads the field area of a full header. `None` if its length or a connection identification is not ours.
    #[inline]
    pub fn read_full(&self, bytes: &[u8]) -> Option<Header> {
        if bytes.len() != self.full_bytes {
            return None;
        }
        let mut header = Header::ZERO;
        let mut reader = BitReader::new(bytes);
        for (cut, value) in self.cuts.iter().zip(&mut header.values) {
            *value = reader.read(cut.bits)?;
            if cut.class == Class::ConnectionId && *value != cut.constant {
                return None;
            }
        }
        if !self.has_bound {
            return Some(header);
        }
        // Elided from the words that a checksum covers, bound fields are covered by what they are bound to.
        let number = self.frame_number.map_or(0, |at| header.values[at]);
        let contradicts =
            |(field, value): (&FieldDefinition, u64)| field.bound && value != number & low_bits(field.bits);
        if self.fields.iter().map(|(field, _)| field).zip(header.values).any(contradicts) {
            return None;
        }
        Some(header)
    }

    /// What makes the message unusual: its exceptions, one after the other; zero for an ordinary message.
    pub fn exception(&self, header: &Header) -> u64 {
        if !self.has_exceptions {
            return 0;
        }
        let exceptions = self.cuts.iter().zip(&header.values);
        exceptions
            .filter(|(cut, _)| cut.class == Class::Exception)
            .fold(0, |all, (cut, value)| all << (cut.bits & 63) | value & cut.mask)
    }

    /// The value of a message field for a message with these words, exceptions and payload. Those of higher layers
    /// (registered later) must be in the words.
    #[expect(clippy::too_many_arguments, reason = "everything that a header can say besides")]
    #[inline]
    pub fn filter(
        &self,
        field: usize,
        cookie: u64,
        pack: bool,
        control: u8,
        exception: u64,
        words: &[u64],
        payload: &[u8],
    ) -> u64 {
        let (definition, _) = &self.fields[field];
        match definition.filter {
            None => 0,
            Some(Filter::Length) => payload.len() as u64 & low_bits(definition.bits),
            Some(Filter::Crc32c) => {
                let mut covered = [0; 1 + WORDS_MAX];
                covered[0] = cookie | if pack { PACK_FLAG } else { 0 };
                let covered = &mut covered[..=self.words];
                for ((word, said), bits) in covered[1..].iter_mut().zip(words).zip(&self.covered[field]) {
                    *word = said & bits;
                }
                u64::from(crc32c(covered, control, exception, payload))
            }
        }
    }

    /// As [`Layout::filter`] of a message behind a compressed header, of which `first` is the first word: with the number of
    /// words known beforehand, if it is this layout's.
    #[inline]
    pub(crate) fn filter_in<const WORDS: usize>(
        &self,
        field: usize,
        first: u64,
        words: &[u64; WORDS],
        payload: &[u8],
    ) -> u64 {
        if let (Some(Filter::Crc32c), true) = (self.fields[field].0.filter, WORDS == self.words) {
            let covered = &self.covered[field];
            let words = std::array::from_fn::<u64, WORDS, _>(|at| words[at] & covered[at]);
            return u64::from(crate::buf::crc32c::crc32c_of(first, &words, payload));
        }
        self.filter_of(field, first, words, payload)
    }

    /// The filters that cost little, and headers whose number of words is not known beforehand.
    #[inline(never)]
    fn filter_of(&self, field: usize, first: u64, words: &[u64], payload: &[u8]) -> u64 {
        let (cookie, pack) = (first & COOKIE_MASK, first & PACK_FLAG != 0);
        self.filter(field, cookie, pack, NO_CONTROL, 0, words, payload)
    }

    /// A hash of everything that both sides must agree on.
    pub fn digest(&self, hasher: &mut Hasher64) {
        let mut text = String::with_capacity(64);
        for (field, place) in self.fields.iter() {
            field.name.digest(hasher, &mut text);
            hasher.word(u64::from(field.bits) | (field.class as u64) << 8 | u64::from(field.bound) << 16);
            hasher.word(field.constant);
            hasher.word(match place {
                Place::Elided => u64::MAX,
                Place::Word { word, shift } => u64::from(*word) << 8 | u64::from(*shift),
            });
        }
        for (name, _) in self.gossips.iter() {
            name.digest(hasher, &mut text);
        }
    }
}

/// CRC32C of what every header of a message has in common: cookie with pack flag and words, control code if it is a
/// control message, exceptions if there are any, payload.
#[inline]
pub fn crc32c(words: &[u64], control: u8, exception: u64, payload: &[u8]) -> u32 {
    if control == super::full::NO_CONTROL && exception == 0 {
        return crate::buf::crc32c::crc32c(words, payload);
    }
    let mut rare = [control, 0, 0, 0, 0, 0, 0, 0, 0];
    let from = usize::from(control == super::full::NO_CONTROL);
    rare[1..].copy_from_slice(&exception.to_le_bytes());
    let to = if exception == 0 { 1 } else { rare.len() };
    let head = crate::buf::crc32c::crc32c(words, &rare[from..to]);
    crate::buf::crc32c::crc32c_append(head, payload)
}

/// Bits used of each word.
struct Room {
    used: [u32; WORDS_MAX],
}

impl Room {
    /// The first place for `bits` bits in the first `words` words.
    fn take(&mut self, bits: u32, words: usize) -> Option<Place> {
        for (word, used) in self.used.iter_mut().enumerate().take(words) {
            if *used + bits <= 64 {
                let shift = *used as u8;
                *used += bits;
                return Some(Place::Word { word: word as u8, shift });
            }
        }
        None
    }

    fn words(&self) -> usize {
        self.used.iter().rposition(|used| *used > 0).map_or(0, |last| last + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: FieldName = FieldName { layer: "LAYER", name: "name" };

    fn field(class: Class, bits: u32) -> FieldDefinition {
        FieldDefinition { name: NAME, bits, class, bound: false, constant: 0, filter: None }
    }

    fn arbitrary_field() -> impl Strategy<Value = FieldDefinition> {
        let class = prop_oneof![Just(Class::ConnectionId), Just(Class::Protocol), Just(Class::Message)];
        (class, 1u32..=48, any::<u64>()).prop_map(|(class, bits, constant)| FieldDefinition {
            constant: constant & low_bits(bits),
            ..field(class, bits)
        })
    }

    #[test]
    fn the_default_header_fits_24_bytes() {
        let fields = vec![field(Class::Message, 32), field(Class::Protocol, 40)];
        let layout = Layout::place(Traffic::Cast, fields, vec![NAME; 2], Some(1)).unwrap();
        assert_eq!(layout.compressed_bytes(), 24);
    }

    #[test]
    fn bound_fields_take_no_bits_and_come_back() {
        let mut bound = field(Class::Protocol, 40);
        bound.bound = true;
        let layout =
            Layout::place(Traffic::Cast, vec![field(Class::Protocol, 40), bound], vec![], Some(0)).unwrap();
        assert_eq!(layout.compressed_bytes(), 16);
        let mut header = Header::ZERO;
        header.values[0] = 77;
        header.values[1] = 77;
        assert_eq!(layout.expand(&layout.compress(&header)), header);
    }

    #[test]
    fn a_full_header_that_contradicts_itself_is_refused() {
        let mut bound = field(Class::Protocol, 40);
        bound.bound = true;
        let layout =
            Layout::place(Traffic::Cast, vec![field(Class::Protocol, 40), bound], vec![], Some(0)).unwrap();
        let mut header = Header::ZERO;
        (header.values[0], header.values[1]) = (77, 77);
        let mut bytes = vec![0; layout.full_bytes()];
        layout.write_full(&header, &mut bytes);
        assert_eq!(layout.read_full(&bytes).map(|header| header.values[1]), Some(77));
        header.values[1] = 78;
        bytes.fill(0);
        layout.write_full(&header, &mut bytes);
        assert!(layout.read_full(&bytes).is_none(), "no checksum covers a field that is elided");
    }

    #[test]
    fn too_many_bits_are_refused() {
        let fields = vec![field(Class::Protocol, 60); 4];
        assert!(matches!(
            Layout::place(Traffic::Cast, fields, vec![], None),
            Err(LayoutError::TooWide { bits: 240, .. })
        ));
        assert!(matches!(
            Layout::place(Traffic::Cast, vec![field(Class::Protocol, 1); 21], vec![], None),
            Err(LayoutError::TooMany("cast"))
        ));
    }

    #[test]
    fn a_checksum_covers_words_pack_flag_control_code_and_payload_but_not_itself() {
        let mut checksum = field(Class::Message, 32);
        checksum.filter = Some(Filter::Crc32c);
        let layout =
            Layout::place(Traffic::Cast, vec![checksum, field(Class::Protocol, 40)], vec![], Some(1))
                .unwrap();
        let mut header = Header::ZERO;
        header.values[1] = 5;
        let words = layout.compress(&header);
        let sum = |cookie, pack, control, words: &_, payload: &[u8]| {
            layout.filter(0, cookie, pack, control, 0, words, payload)
        };
        let base = sum(9, false, 0xff, &words, b"payload");
        header.values[0] = base;
        assert_eq!(sum(9, false, 0xff, &layout.compress(&header), b"payload"), base);
        header.values[1] = 6;
        assert_ne!(sum(9, false, 0xff, &layout.compress(&header), b"payload"), base);
        assert_ne!(sum(8, false, 0xff, &words, b"payload"), base);
        assert_ne!(sum(9, true, 0xff, &words, b"payload"), base);
        assert_ne!(sum(9, false, 3, &words, b"payload"), base);
        assert_ne!(sum(9, false, 0xff, &words, b"Payload"), base);
        assert_ne!(layout.filter(0, 9, false, 0xff, 1, &words, b"payload"), base);
    }

    #[test]
    fn an_exception_takes_bits_in_full_headers_only() {
        let fields = vec![
            field(Class::Protocol, 40),
            field(Class::Exception, 1),
            field(Class::ConnectionId, 7),
            field(Class::Exception, 32),
        ];
        let layout = Layout::place(Traffic::Cast, fields, vec![], Some(0)).unwrap();
        assert_eq!((layout.compressed_bytes(), layout.full_bytes()), (16, 16));
        let mut header = Header::ZERO;
        header.values[0] = 9;
        assert_eq!(layout.exception(&header), 0);
        assert_eq!(layout.expand(&layout.compress(&header)), header);
        (header.values[1], header.values[3]) = (1, 0xfedc_ba98);
        let mut bytes = vec![0; layout.full_bytes()];
        layout.write_full(&header, &mut bytes);
        assert_eq!(layout.read_full(&bytes), Some(header));
        assert_eq!(layout.exception(&header), 1 << 32 | 0xfedc_ba98);
        let many = vec![field(Class::Exception, 33); 2];
        assert!(matches!(
            Layout::place(Traffic::Cast, many, vec![], None),
            Err(LayoutError::TooWide { class: "exception", bits: 66, .. })
        ));
    }

    proptest! {
        #[test]
        fn both_forms_give_back_the_fields(
            fields in proptest::collection::vec(arbitrary_field(), 0..12),
            values: [u64; FIELDS_MAX],
            gossip: [u16; GOSSIPS_MAX],
            gossips in 0usize..=GOSSIPS_MAX,
        ) {
            let names = vec![NAME; gossips];
            if let Ok(layout) = Layout::place(Traffic::Cast, fields.clone(), names, None) {
                let mut header = Header::ZERO;
                for (at, field) in fields.iter().enumerate() {
                    header.values[at] = match field.class {
                        Class::ConnectionId => field.constant,
                        _ => values[at] & low_bits(field.bits),
                    };
                }
                let mut bytes = vec![0; layout.full_bytes()];
                layout.write_full(&header, &mut bytes);
                prop_assert_eq!(layout.read_full(&bytes), Some(header));
                header.gossip[..gossips].copy_from_slice(&gossip[..gossips]);
                prop_assert_eq!(layout.expand(&layout.compress(&header)), header);
            }
        }
    }
}
