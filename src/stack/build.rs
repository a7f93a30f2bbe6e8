//! Building a stack for a view: what layers register, and the handles they get.

use std::fmt;
use std::rc::Rc;

use super::service::Services;
use super::slots::{MatrixSlot, MemberSlot, Slot, SlotFile, Tally, fixed};
use crate::config::Config;
use crate::id::Rank;
use crate::stack::property::{Properties, Property};
use crate::stack::registry::ParameterError;
use crate::view::LocalView;
use crate::wire::Traffic;
use crate::wire::bits::low_bits;
use crate::wire::layout::{
    Class, FIELDS_MAX, FieldDefinition, FieldName, Filter, Layout, LayoutError, Place,
};

/// A header field, as its layer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub(crate) traffic: Traffic,
    pub(crate) index: u8,
}

/// The four guard words. A plan runs only if its guard is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum GuardKind {
    /// One for all casts of this member.
    CastSend,
    /// One per peer.
    SendSend,
    /// One per origin, for casts.
    CastDeliver,
    /// One per origin, for sends.
    SendDeliver,
}

impl GuardKind {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            GuardKind::CastSend => "cast-send",
            GuardKind::SendSend => "send-send",
            GuardKind::CastDeliver => "cast-deliver",
            GuardKind::SendDeliver => "send-deliver",
        }
    }

    /// Offset of the guard word in its section.
    pub(crate) const fn offset(self) -> u32 {
        match self {
            GuardKind::CastSend => fixed::CAST_SEND_GUARD,
            GuardKind::SendSend => fixed::SEND_SEND_GUARD,
            GuardKind::CastDeliver => fixed::CAST_DELIVER_GUARD,
            GuardKind::SendDeliver => fixed::SEND_DELIVER_GUARD,
        }
    }

    /// Index of the guard word of `rank` in the slot file.
    #[inline]
    pub(crate) fn word(self, slots: &SlotFile, rank: Rank) -> u32 {
        match self {
            GuardKind::CastSend => self.offset(),
            _ => slots.member(rank) + self.offset(),
        }
    }
}

/// When a layer is prompted at least. Layers are prompted together: one that has asked for it
/// ([`Context::prompt_soon`](super::layer::Context::prompt_soon)) may find the others prompted, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompts {
    /// Whenever anything has happened.
    Always,
    /// Whenever anything has happened and casts wait here for their order.
    IfHeld,
    /// Not otherwise.
    IfAsked,
}

/// What a closed guard means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closes {
    /// The application's messages wait above the stack, for this; only for the send guards.
    Entry(HeldFor),
    /// Messages take the layers instead of the plan.
    FastPath,
}

/// What the application's messages wait for above the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeldFor {
    /// A view change is under way; casts go out in the next view, sends are taken again in it.
    ViewChange,
    /// A member that has come in does not have the state yet, and can hold no more until then.
    State,
    /// This member's application is behind with its deliveries, and holds the senders
    /// ([`Group::hold_senders`](crate::group::Group::hold_senders)).
    Application,
    /// Others have not acknowledged enough, or grant no more.
    Acknowledgements,
    /// The numbers of this view; the next one has more.
    Numbers,
    /// This member's turn in the order of casts.
    Turn,
    /// Room for messages larger than a frame (`Config::waiting_bytes_max`).
    Memory,
    /// The end of a larger message that is under way.
    Larger,
    /// The next iteration: nobody else holds it.
    Iteration,
}

impl HeldFor {
    /// Of several, the one that says most.
    pub(crate) const BY_WEIGHT: [HeldFor; 6] = [
        HeldFor::ViewChange,
        HeldFor::State,
        HeldFor::Application,
        HeldFor::Acknowledgements,
        HeldFor::Numbers,
        HeldFor::Turn,
    ];

    /// Whether what layers cast themselves, turns passed on and orders, waits for it, too.
    pub(crate) fn holds_blanks(self) -> bool {
        !matches!(self, HeldFor::Turn | HeldFor::Application)
    }
}

impl fmt::Display for HeldFor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            HeldFor::ViewChange => "a view change is under way",
            HeldFor::State => "a member that has come in does not have the state yet and can hold no more",
            HeldFor::Application => "this member's application is behind with its deliveries",
            HeldFor::Acknowledgements => "too little of what was sent is acknowledged",
            HeldFor::Numbers => "the numbers of this view are used",
            HeldFor::Turn => "it is another member's turn to cast",
            HeldFor::Memory => "larger messages take all the room there is for them",
            HeldFor::Larger => "a larger message to the same member is under way",
            HeldFor::Iteration => "more was cast than goes out in one iteration",
        })
    }
}

/// A layer's bit in a guard word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    pub(crate) kind: GuardKind,
    pub(crate) mask: u64,
}

/// A guard bit's owner.
#[derive(Clone, Debug)]
pub(crate) struct GuardOwner {
    pub(crate) kind: GuardKind,
    pub(crate) mask: u64,
    pub(crate) layer: usize,
    pub(crate) name: &'static str,
    pub(crate) closes: Closes,
}

/// A layer's timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(pub(crate) usize);

/// Where a gossip's own values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GossipSource {
    /// How many frames were accepted from each member (for this member: sent), by the field that numbers them.
    Accepted(Field),
    /// A word per member.
    Slot(MemberSlot),
}

/// A monotone value per pair of members: what each reports of each.
#[derive(Clone, Copy, Debug)]
pub struct GossipDefinition {
    /// `LAYER.name`.
    pub(crate) name: FieldName,
    /// Own values.
    pub(crate) source: GossipSource,
    /// Where everybody's are kept.
    pub(crate) matrix: MatrixSlot,
    /// Whose messages it rides on, if any; rows carry it in any case.
    pub(crate) rides_on: Option<Traffic>,
    /// A change of this much is reported at once; a smaller one with the next row or message. With none no row goes out for
    /// it: those that go out all the same carry it.
    pub(crate) quantum: Option<u64>,
}

/// A gossip, as its layer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gossip(pub(crate) u8);

/// Names of the slots that layers share.
pub mod shared {
    /// Matrix: frames of each origin that each member holds.
    pub const HELD: &str = "held";
    /// Matrix: frames of each origin that each member's application has seen.
    pub const SEEN: &str = "seen";
    /// Matrix: frames of each origin that all members hold, as each member knows.
    pub const STABLE: &str = "stable";
    /// Matrix: sends of each origin that each member has.
    pub const ACKED: &str = "acked";
    /// Per origin: frames that all members hold and this one has let go of.
    pub const RELEASED: &str = "released";
    /// Per member: messages of its that have come out of turn, behind one that is missing or again. Nobody above has seen them.
    pub const OUT_OF_TURN: &str = "out of turn";
}

#[derive(Clone, Copy, Debug)]
enum SharedSlot {
    Member(MemberSlot),
    Matrix(MatrixSlot),
}

#[derive(Clone, Debug)]
pub(crate) struct TallyDefinition {
    pub(crate) kind: GuardKind,
    /// Own word for cast-send, member word otherwise.
    pub(crate) base: u32,
    pub(crate) layer: usize,
    pub(crate) name: &'static str,
}

/// Everything the layers of a stack have registered.
#[derive(Clone, Debug)]
pub(crate) struct Blueprint {
    pub(crate) own_words: u32,
    pub(crate) member_words: u32,
    pub(crate) fields: [Vec<FieldDefinition>; 3],
    pub(crate) field_layers: [Vec<usize>; 3],
    pub(crate) frame_number: Option<u8>,
    pub(crate) send_number: Option<u8>,
    pub(crate) gossips: Vec<GossipDefinition>,
    pub(crate) guards: Vec<GuardOwner>,
    pub(crate) tallies: Vec<TallyDefinition>,
    pub(crate) timers: Vec<(usize, &'static str)>,
    /// Per peer: number from which sends are refused, control messages so many later.
    pub(crate) reliable: Option<(MemberSlot, u64)>,
    /// Layers that are prompted, and when, from the bottom up.
    pub(crate) prompted: Vec<(usize, Prompts)>,
    /// The longest message that a layer carries in fragments; `None` if no layer does.
    pub(crate) fragmented_bytes_max: Option<u64>,
    /// By what casts that are in order are served.
    pub(crate) services: Option<Services>,
    /// A layer's parameter does not fit the endpoint's configuration.
    pub(crate) refused: Option<ParameterError>,
    shared: Vec<(&'static str, SharedSlot)>,
}

/// Where a protocol field's two words are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FieldHome {
    /// Template word of the plan; `None` if the field is not in the template.
    pub(crate) word: Option<u8>,
    pub(crate) shift: u8,
    pub(crate) mask: u64,
}

/// What a layer registers its needs with.
pub struct Build<'b> {
    pub(crate) blueprint: &'b mut Blueprint,
    pub(crate) view: &'b LocalView,
    pub(crate) layer: usize,
    pub(crate) name: &'static str,
    pub(crate) properties: Properties,
    pub(crate) config: &'b Config,
}

/// The most guard bits that layers can have of one plan.
const GUARD_BITS_MAX: usize = 63;
/// The guard bit that is the stack's own: somebody asked for full headers.
pub(crate) const STACK_GUARD: u64 = 1 << GUARD_BITS_MAX;

impl Blueprint {
    pub(crate) fn new() -> Blueprint {
        Blueprint {
            own_words: fixed::OWN_FREE,
            member_words: fixed::MEMBER_FREE,
            fields: [(); 3].map(|()| Vec::with_capacity(FIELDS_MAX)),
            field_layers: [(); 3].map(|()| Vec::with_capacity(FIELDS_MAX)),
            frame_number: None,
            send_number: None,
            gossips: Vec::with_capacity(4),
            guards: Vec::with_capacity(32),
            tallies: Vec::with_capacity(8),
            timers: Vec::with_capacity(16),
            reliable: None,
            prompted: Vec::with_capacity(8),
            fragmented_bytes_max: None,
            services: None,
            refused: None,
            shared: Vec::with_capacity(8),
        }
    }

    /// What layers share by this name, if one has asked for it.
    fn shared(&self, name: &str) -> Option<SharedSlot> {
        self.shared.iter().find(|(known, _)| *known == name).map(|(_, shared)| *shared)
    }

    /// The shared matrices by name.
    pub(crate) fn shared_matrices(&self) -> Vec<(&'static str, MatrixSlot)> {
        let matrix = |(name, shared): &(&'static str, SharedSlot)| match shared {
            SharedSlot::Matrix(slot) => Some((*name, *slot)),
            SharedSlot::Member(_) => None,
        };
        self.shared.iter().filter_map(matrix).collect()
    }

    /// The shared words per member.
    pub(crate) fn shared_member_slots(&self) -> impl Iterator<Item = MemberSlot> {
        self.shared.iter().filter_map(|(_, shared)| match shared {
            SharedSlot::Member(slot) => Some(*slot),
            SharedSlot::Matrix(_) => None,
        })
    }

    /// Places the fields of all kinds of traffic.
    pub(crate) fn layouts(&self) -> Result<[Layout; 3], LayoutError> {
        let layout = |traffic: Traffic| {
            let fields = self.fields[traffic as usize].clone();
            let gossips = self.riding(traffic).map(|(_, gossip)| gossip.name).collect();
            let number = match traffic {
                Traffic::Cast => self.frame_number,
                Traffic::Send => self.send_number,
                Traffic::Raw => None,
            };
            Layout::place(traffic, fields, gossips, number.map(usize::from))
        };
        let layouts = [layout(Traffic::Cast)?, layout(Traffic::Send)?, layout(Traffic::Raw)?];
        if layouts[1].template_words() > fixed::SEND_TEMPLATE_WORDS_MAX {
            return Err(LayoutError::TooWide {
                traffic: Traffic::Send.name(),
                class: "protocol",
                bits: layouts[1].template_words() * 64,
                room: fixed::SEND_TEMPLATE_WORDS_MAX * 64,
            });
        }
        Ok(layouts)
    }

    /// The gossips that ride on messages of `traffic`, with their index among all gossips.
    pub(crate) fn riding(&self, traffic: Traffic) -> impl Iterator<Item = (usize, &GossipDefinition)> {
        self.gossips.iter().enumerate().filter(move |(_, gossip)| gossip.rides_on == Some(traffic))
    }

    /// The homes of the fields in the slot file.
    pub(crate) fn homes(layouts: &[Layout; 3]) -> [Rc<[FieldHome]>; 3] {
        [0, 1, 2].map(|traffic| {
            let home = |(definition, place): &(FieldDefinition, Place)| match place {
                Place::Word { word, shift } if definition.class.is_in_template() => {
                    FieldHome { word: Some(*word), shift: *shift, mask: low_bits(definition.bits) }
                }
                _ => FieldHome { word: None, shift: 0, mask: low_bits(definition.bits) },
            };
            layouts[traffic].fields().iter().map(home).collect()
        })
    }
}

impl Build<'_> {
    /// The view the stack is built for.
    pub fn view(&self) -> &LocalView {
        self.view
    }

    /// Whether the whole stack provides a property.
    pub fn stack_provides(&self, property: Property) -> bool {
        self.properties.contains(property)
    }

    /// Frames of the control region that what goes to one member may hold at once: half of the region is shared equally, so
    /// that a member that acknowledges nothing leaves frames for the others.
    pub fn control_share(&self) -> u64 {
        let others = self.view.size().saturating_sub(1).max(1);
        (self.config.control_frames_of(self.view.size()) / (2 * others)).max(1) as u64
    }

    /// The largest window, in frames, that the endpoint's regions were sized for: `Config::window_frames`.
    pub fn window_max(&self) -> u64 {
        self.config.window_frames
    }

    /// Casts of one member that may be held for their order: its share of `Config::order_frames_max`.
    pub fn order_share(&self) -> u64 {
        self.config.order_share(self.view.size()) as u64
    }

    /// Frames of the endpoint's control region, whatever the size of the view: `Config::control_frames`.
    pub fn control_frames(&self) -> u64 {
        self.config.control_frames as u64
    }

    /// The window of `frames` that the parameter `window` asks for; `most` if that is zero. More than `most` is refused,
    /// and the stack with it: `limit` says what `most` is made of.
    pub fn window(&mut self, frames: u64, most: u64, limit: &str) -> u64 {
        if frames > most {
            self.blueprint.refused = Some(ParameterError {
                name: "window".to_string(),
                value: frames.to_string(),
                problem: format!(
                    "this endpoint has room for {most} frames in windows of {}: {limit}; give {most} or fewer, or \
                     configure all members for more",
                    self.name
                ),
            });
        }
        if frames == 0 { most } else { frames.min(most) }
    }

    fn field(&mut self, traffic: Traffic, definition: FieldDefinition) -> Field {
        let fields = &mut self.blueprint.fields[traffic as usize];
        fields.push(definition);
        self.blueprint.field_layers[traffic as usize].push(self.layer);
        Field { traffic, index: (fields.len() - 1) as u8 }
    }

    fn definition(&self, name: &'static str, bits: u32, class: Class) -> FieldDefinition {
        let name = FieldName { layer: self.name, name };
        FieldDefinition { name, bits, class, bound: false, constant: 0, filter: None }
    }

    /// A field that is constant in this view: it costs no bits in compressed headers.
    pub fn connection_field(
        &mut self,
        traffic: Traffic,
        name: &'static str,
        bits: u32,
        constant: u64,
    ) -> Field {
        let definition = self.definition(name, bits, Class::ConnectionId);
        self.field(traffic, FieldDefinition { constant: constant & low_bits(bits), ..definition })
    }

    /// A field that is zero in ordinary messages and costs them no bits in compressed headers. A message in which the
    /// layer sets another value must take the layers; it travels behind a full header. The exceptions of one kind of
    /// traffic have 64 bits together.
    pub fn exception_field(&mut self, traffic: Traffic, name: &'static str, bits: u32) -> Field {
        self.field(traffic, self.definition(name, bits, Class::Exception))
    }

    /// The layer carries messages of the application larger than a frame, of up to the `bytes` that its parameter of this
    /// name asks for; of up to [`Config::message_bytes_max`] if that is zero. More than that is refused, and the stack with
    /// it. The stack hands such messages down in fragments ([`Part`](crate::stack::event::Part)), and puts together what
    /// comes up so marked.
    pub fn carry_fragments(&mut self, bytes: u64) {
        let most = self.config.message_bytes_max as u64;
        if bytes > most {
            self.blueprint.refused = Some(ParameterError {
                name: "bytes".to_string(),
                value: bytes.to_string(),
                problem: format!(
                    "this endpoint carries messages of at most {most} bytes: it is Config::message_bytes_max; give {most} \
                     or fewer, or configure all members for more"
                ),
            });
        }
        self.blueprint.fragmented_bytes_max = Some(if bytes == 0 { most } else { bytes });
    }

    /// What all members of a view must have in common, in words: the stack, and those limits of the configuration by
    /// which a cast that one member lets go is lost by another.
    pub(crate) fn terms(&self) -> String {
        let terms = format!("{}, windows of {} frames", self.view.view().spec, self.config.window_frames);
        // What fragments may still be to come.
        let above =
            self.stack_provides(Property::LargeMessages).then_some(self.config.message_bytes_max as u64);
        match self.blueprint.fragmented_bytes_max.or(above) {
            Some(bytes) => format!("{terms}, messages of {bytes} bytes"),
            None => terms,
        }
    }

    /// A field predicted from protocol state. Its two words (what this member sends next; what each origin is expected
    /// to send next) are slots that begin at zero and do not wrap in a view: the narrowest field of a stack says how many
    /// frames a view can have.
    pub fn protocol_field(&mut self, traffic: Traffic, name: &'static str, bits: u32) -> Field {
        self.field(traffic, self.definition(name, bits, Class::Protocol))
    }

    /// Somebody waits for what this layer concludes from ordinary messages: [`Layer::prompt`](super::layer::Layer::prompt)
    /// is called, at such times.
    pub fn prompt(&mut self, when: Prompts) {
        self.blueprint.prompted.push((self.layer, when));
    }

    /// A bit that this member's casts carry or not, as the layer or a plan has set it. Receivers do not predict it.
    pub fn mark_field(&mut self, traffic: Traffic, name: &'static str) -> Field {
        self.field(traffic, self.definition(name, 1, Class::Mark))
    }

    /// The application chooses of each cast whether it is agreed or safe: what this layer says it is served by, beside the
    /// word by origin below which its casts are held by all.
    pub fn serve(&mut self, safe: MemberSlot) -> Services {
        let services = Services {
            agreed: self.mark_field(Traffic::Cast, "agreed"),
            safe,
            awaited: self.member_slot(),
            gone: self.member_slot(),
            ahead: self.slot(),
        };
        self.blueprint.services = Some(services);
        services
    }

    /// The protocol field that numbers the frames of `traffic`; a stack has one per kind of traffic.
    ///
    /// # Panics
    /// If there is one already: the specification refuses a second layer that provides reliable FIFO traffic.
    pub fn number_field(&mut self, traffic: Traffic, name: &'static str, bits: u32) -> Field {
        let field = self.protocol_field(traffic, name, bits);
        let number = match traffic {
            Traffic::Cast => &mut self.blueprint.frame_number,
            Traffic::Send => &mut self.blueprint.send_number,
            Traffic::Raw => unreachable!("raw traffic is not numbered"),
        };
        assert!(number.replace(field.index).is_none(), "two layers number {} traffic", traffic.name());
        field
    }

    /// How many sends the layer that makes them reliable takes: those of the application below the number in `limit` (of
    /// the peer), control messages of layers `reserve` numbers further. Beyond it
    /// [`Context::send_reliable`](super::layer::Context::send_reliable) refuses.
    pub fn reliable_sends(&mut self, limit: MemberSlot, reserve: u64) {
        self.blueprint.reliable = Some((limit, reserve));
    }

    /// The field that numbers casts, if a layer below registered one.
    pub fn frame_number(&self) -> Option<Field> {
        self.blueprint.frame_number.map(|index| Field { traffic: Traffic::Cast, index })
    }

    /// A protocol field that always equals the frame number: it costs no bits in compressed headers.
    pub fn bound_field(&mut self, traffic: Traffic, name: &'static str, bits: u32) -> Field {
        let definition = self.definition(name, bits, Class::Protocol);
        self.field(traffic, FieldDefinition { bound: true, ..definition })
    }

    /// A field that depends on the message, computed by `filter` when it is sent.
    pub fn message_field(
        &mut self,
        traffic: Traffic,
        name: &'static str,
        bits: u32,
        filter: Filter,
    ) -> Field {
        let definition = self.definition(name, bits, Class::Message);
        self.field(traffic, FieldDefinition { filter: Some(filter), ..definition })
    }

    /// A word of the stack.
    pub fn slot(&mut self) -> Slot {
        self.blueprint.own_words += 1;
        Slot(self.blueprint.own_words - 1)
    }

    /// A word per member.
    pub fn member_slot(&mut self) -> MemberSlot {
        self.blueprint.member_words += 1;
        MemberSlot(self.blueprint.member_words - 1)
    }

    /// A word per pair of members.
    pub fn matrix_slot(&mut self) -> MatrixSlot {
        self.blueprint.member_words += self.view.size() as u32;
        MatrixSlot(self.blueprint.member_words - self.view.size() as u32)
    }

    /// The word per member known in the stack by `name`; the same for every layer that asks.
    ///
    /// # Panics
    /// If the name is in use for something else.
    pub fn shared_member_slot(&mut self, name: &'static str) -> MemberSlot {
        if let Some(shared) = self.blueprint.shared(name) {
            let SharedSlot::Member(slot) = shared else { panic!("`{name}` is not a word per member") };
            return slot;
        }
        let slot = self.member_slot();
        self.blueprint.shared.push((name, SharedSlot::Member(slot)));
        slot
    }

    /// The word per pair of members known in the stack by `name`; the same for every layer that asks.
    ///
    /// # Panics
    /// If the name is in use for something else.
    pub fn shared_matrix_slot(&mut self, name: &'static str) -> MatrixSlot {
        if let Some(shared) = self.blueprint.shared(name) {
            let SharedSlot::Matrix(slot) = shared else { panic!("`{name}` is not a word per pair") };
            return slot;
        }
        let slot = self.matrix_slot();
        self.blueprint.shared.push((name, SharedSlot::Matrix(slot)));
        slot
    }

    /// A count that grows with the hits of a plan (if the layer declares it with `CommonCase::count`), kept per member
    /// except for cast-send.
    pub fn tally(&mut self, kind: GuardKind, name: &'static str) -> Tally {
        let base = match kind {
            GuardKind::CastSend => self.slot().0,
            _ => self.member_slot().0,
        };
        self.blueprint.tallies.push(TallyDefinition { kind, base, layer: self.layer, name });
        Tally(self.blueprint.tallies.len() as u32 - 1)
    }

    /// A bit in a guard word.
    ///
    /// # Panics
    /// If all bits but the stack's own are taken, or a deliver guard is to close the entry.
    pub fn guard(&mut self, kind: GuardKind, name: &'static str, closes: Closes) -> Guard {
        let deliver = matches!(kind, GuardKind::CastDeliver | GuardKind::SendDeliver);
        assert!(!deliver || closes == Closes::FastPath, "deliver guards have no entry to close");
        let taken = self.blueprint.guards.iter().filter(|owner| owner.kind == kind).count();
        assert!(taken < GUARD_BITS_MAX, "a guard has {GUARD_BITS_MAX} bits for layers");
        let mask = 1 << taken;
        self.blueprint.guards.push(GuardOwner { kind, mask, layer: self.layer, name, closes });
        Guard { kind, mask }
    }

    /// A timer.
    pub fn timer(&mut self, name: &'static str) -> TimerId {
        self.blueprint.timers.push((self.layer, name));
        TimerId(self.blueprint.timers.len() - 1)
    }

    /// A monotone value per pair of members. It is reported in rows, and rides on messages of `rides_on` in a short
    /// form. A change of `quantum` or more is reported at once; without one it goes with what is reported all the same.
    pub fn gossip(
        &mut self,
        name: &'static str,
        source: GossipSource,
        matrix: MatrixSlot,
        rides_on: Option<Traffic>,
        quantum: Option<u64>,
    ) -> Gossip {
        let name = FieldName { layer: self.name, name };
        self.blueprint.gossips.push(GossipDefinition { name, source, matrix, rides_on, quantum });
        Gossip(self.blueprint.gossips.len() as u8 - 1)
    }

    /// What a layer below reports in `matrix` is reported at once after a change of `quantum`, if not after a smaller one
    /// already: this layer makes others wait for it.
    pub fn report_within(&mut self, matrix: MatrixSlot, quantum: u64) {
        for gossip in self.blueprint.gossips.iter_mut().filter(|gossip| gossip.matrix == matrix) {
            gossip.quantum = gossip.quantum.map(|of_its_own| of_its_own.min(quantum));
        }
    }
}
