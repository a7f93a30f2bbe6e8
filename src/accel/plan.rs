//! Plans: what a whole stack does with an ordinary message, as plain data (design D1 to D4).

use super::case::{CommonCase, Effect, Limit, Sets, Statement, Target};
use super::effects::{Effects, LookedAt};
use super::execute::Shape;
use crate::stack::build::{Blueprint, Field, GossipSource, GuardKind};
use crate::stack::layer::{Fast, Kind, Layer};
use crate::stack::script::Script;
use crate::stack::service::Services;
use crate::stack::slots::{MatrixSlot, fixed};
use crate::stack::turns::Turns;
use crate::wire::Traffic;
use crate::wire::bits::low_bits;
use crate::wire::layout::{Class, GOSSIPS_MAX, Layout, Place, TEMPLATE_WORDS_MAX};

/// One template word: compared (or sent) and advanced whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TemplateStep {
    /// Which word of the header, after the cookie.
    pub(crate) word: u8,
    /// Offset of the slot in its section.
    pub(crate) slot: u32,
    /// The bits compared.
    pub(crate) mask: u64,
    /// What is added.
    pub(crate) add: u64,
}

/// Where a number lies in the header words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) word: u8,
    pub(crate) shift: u8,
    pub(crate) mask: u64,
}

impl Spot {
    #[inline]
    pub(crate) fn read(self, words: &[u64]) -> u64 {
        (words[usize::from(self.word)] >> self.shift) & self.mask
    }

    /// As [`Spot::read`], without a look at the word's index where the number of words is a power of two.
    #[inline]
    pub(crate) fn read_in<const WORDS: usize>(self, words: &[u64; WORDS]) -> u64 {
        (words[usize::from(self.word) & (WORDS.next_power_of_two() - 1)] >> self.shift) & self.mask
    }

    /// Adds a number to a word in which its place is empty.
    #[inline]
    pub(crate) fn write_in<const WORDS: usize>(self, words: &mut [u64; WORDS], value: u64) {
        let (at, bits) =
            (usize::from(self.word) & (WORDS.next_power_of_two() - 1), (value & self.mask) << self.shift);
        if WORDS > 2 {
            words[at] |= bits;
            return;
        }
        // By comparison, so that the words stay in registers. Written to memory one by one and read from there together, they
        // would wait for all stores before them, also those to lines that another core has.
        for (word, here) in words.iter_mut().zip(0..) {
            *word |= if here == at { bits } else { 0 };
        }
    }

    /// The gossip that rides here.
    fn gossip(self, layout: &Layout) -> String {
        let place = Place::Word { word: self.word, shift: self.shift };
        let gossip = layout.gossips().iter().find(|(_, at)| *at == place);
        gossip.map_or_else(|| "nothing".to_string(), |(name, _)| name.to_string())
    }
}

/// A gossip riding along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GossipStep {
    pub(crate) spot: Spot,
    /// Offset in the subject's section of the word with the own value, where in it, and for which section.
    pub(crate) source: u32,
    pub(crate) source_shift: u8,
    pub(crate) source_mask: u64,
    /// Where a report is merged.
    pub(crate) matrix: MatrixSlot,
}

/// A message field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FilterStep {
    pub(crate) field: u8,
    pub(crate) spot: Spot,
    pub(crate) layer: usize,
}

/// Bits, of the guard or of a mark, that are set when a field reaches a limit. Slots are offsets in the section of the
/// plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitStep {
    /// Whether the field is the frame number.
    pub(crate) on_number: bool,
    pub(crate) field_slot: u32,
    pub(crate) field: Spot,
    pub(crate) limit: u32,
    /// What happens: these bits of this word are set.
    pub(crate) word: u32,
    pub(crate) bits: u64,
}

/// One compiled fast path.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    /// Which copy of the executor runs it.
    pub(crate) shape: Shape,
    /// This member's cookie, for sends.
    pub(crate) cookie: u64,
    pub(crate) header_bytes: usize,
    /// Words of the header after the cookie.
    pub(crate) words: usize,
    /// Offset of the guard word.
    pub(crate) guard: u32,
    pub(crate) template: [TemplateStep; TEMPLATE_WORDS_MAX],
    pub(crate) template_words: usize,
    /// Where the frame number is: among the template words, or nowhere (a mask of zero).
    pub(crate) number: Spot,
    pub(crate) filters: Vec<FilterStep>,
    gossips: [GossipStep; GOSSIPS_MAX],
    pub(crate) gossip_count: usize,
    pub(crate) limits: Vec<LimitStep>,
    pub(crate) effects: Effects,
    /// Whether the steps of acceptance and delivery have effects.
    pub(crate) affects: bool,
    pub(crate) retain: bool,
    /// The layer that loops own casts back.
    pub(crate) loop_layer: Option<usize>,
    /// Offset of the word that counts hits.
    pub(crate) hits: u32,
    /// Nothing but the guard is checked, nothing but hits counted, and there may be effects: so it is for own copies below
    /// which all fields lie.
    pub(crate) bare: bool,
    /// It is run alone: no shadow repeats it, and what is in order is delivered at once.
    pub(crate) straight: bool,
    /// The second step, if there is an ordering layer.
    pub(crate) deliver: Option<DeliverStep>,
    /// Bits of a template word that end the turn of a cast's origin, and which word that is.
    pub(crate) marks: (u8, u64),
    /// The bit of a template word that says that a cast is agreed and not safe.
    pub(crate) agreed: (u8, u64),
    /// The third, if a layer holds what is in order: those whose turn has come leave in that order.
    pub(crate) last: Option<DeliverStep>,
    /// It is written before it is checked: an exhibit of the bounded check.
    #[cfg(test)]
    pub(crate) hasty: bool,
}

/// The step in which a statement takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Accept,
    Deliver,
    Last,
}

/// The deliver step: what happens when the release words have reached the frame.
#[derive(Clone, Debug)]
pub(crate) struct DeliverStep {
    /// Offsets in the origin's section of words that must exceed the frame number.
    pub(crate) releases: Vec<u32>,
    /// Whose turn it is, if casts are delivered in turns.
    pub(crate) turns: Option<Turns>,
    /// What runs there are, if casts are delivered by a script.
    pub(crate) script: Option<Script>,
    /// Which of those in order go when, if a layer serves them.
    pub(crate) services: Option<Services>,
    pub(crate) effects: Effects,
    pub(crate) retain: bool,
    pub(crate) hits: u32,
    /// The lowest layer that belongs to it.
    pub(crate) layer: usize,
    /// The word that releases, if it is one and nothing follows but what keeps the order; else no word of a section.
    pub(crate) release: u32,
}

/// Why a kind of traffic has no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoPlan {
    /// The layer.
    pub(crate) layer: &'static str,
    /// The reason.
    pub(crate) reason: &'static str,
}

impl NoPlan {
    /// Whether this is no layer's doing: the stack carries no such messages, or was told not to accelerate them.
    pub(crate) fn is_of_the_stack(&self) -> bool {
        matches!(self.layer, "stack" | "configuration")
    }
}

/// The plans of a stack, or why there is none; by [`Kind`].
pub(crate) type Plans = [Result<Plan, NoPlan>; 5];

/// What all layers declare of one kind of traffic.
struct Declared {
    statements: Vec<(usize, Statement)>,
    /// Layers that messages must not pass by, and why.
    opaque: Vec<(usize, &'static str)>,
}

impl Declared {
    /// The layer that loops own casts back, if any.
    fn loop_layer(&self) -> Option<usize> {
        let loops = self.statements.iter().find(|(_, statement)| *statement == Statement::LoopBack);
        loops.map(|(layer, _)| *layer)
    }
}

/// What the compiler works from.
pub(crate) struct Compiler<'c> {
    pub(crate) blueprint: &'c Blueprint,
    pub(crate) layouts: &'c [Layout; 3],
    pub(crate) layers: &'c [Box<dyn Layer>],
}

impl Compiler<'_> {
    /// Compiles all plans; also tells for each tally which word of hits it follows.
    pub(crate) fn compile(&self) -> (Plans, Vec<Option<u32>>) {
        let mut counted = vec![None; self.blueprint.tallies.len()];
        let declared = Kind::ALL.map(|kind| self.declare(kind));
        let mut plans = Kind::ALL.map(|kind| self.plan(kind, &declared, &mut counted));
        let (mut looked_at, mut waiting) = (self.looked_at(&declared), 0);
        looked_at.add_contended(
            plans
                .iter()
                .flatten()
                .flat_map(|plan| plan.effects_of_steps().map(|effects| (plan.kind, effects))),
        );
        plans.iter_mut().flatten().for_each(|plan| plan.compile_effects(&looked_at, &mut waiting));
        (plans, counted)
    }

    /// What is looked at of the slots while no layer runs.
    fn looked_at(&self, declared: &[Declared; 5]) -> LookedAt {
        let mut looked_at = LookedAt::default();
        for (layer, statement) in declared.iter().flat_map(|declared| &declared.statements) {
            match statement {
                Statement::Limit(limit) => looked_at.words.push(limit.limit),
                Statement::Release(slot) => looked_at.words.push(Target::Member(*slot)),
                Statement::Turns(_) | Statement::Script(_) | Statement::Serve(_) => {
                    looked_at.layers.push(*layer);
                }
                _ => {}
            }
        }
        if let Some((slot, _)) = self.blueprint.reliable {
            looked_at.words.push(Target::Member(slot));
        }
        looked_at.words.extend(self.blueprint.shared_member_slots().map(Target::Member));
        for gossip in &self.blueprint.gossips {
            if let GossipSource::Slot(slot) = gossip.source {
                looked_at.words.push(Target::Member(slot));
            }
        }
        looked_at
    }

    /// The declarations of all layers, in the order in which a message passes them.
    fn declare(&self, kind: Kind) -> Declared {
        let count = self.layers.len();
        let mut declared = Declared { statements: Vec::with_capacity(4 * count), opaque: Vec::new() };
        for at in 0..count {
            let layer = if kind.delivers() { count - 1 - at } else { at };
            let mut case = CommonCase { kind, layer, statements: &mut declared.statements };
            if let Fast::Opaque(reason) = self.layers[layer].common_case(kind, &mut case) {
                declared.opaque.push((layer, reason));
            }
        }
        declared
    }

    fn plan(
        &self,
        kind: Kind,
        declared: &[Declared; 5],
        counted: &mut [Option<u32>],
    ) -> Result<Plan, NoPlan> {
        // Own casts come back from the layer that loops them: those from there on down see nothing of that.
        let end = match (kind, declared[Kind::CastSend as usize].loop_layer()) {
            (Kind::SelfDeliver, Some(layer)) => layer,
            (Kind::SelfDeliver, None) => {
                return Err(NoPlan { layer: "stack", reason: "no layer loops own casts back" });
            }
            _ => self.layers.len(),
        };
        let Declared { statements, opaque } = &declared[kind as usize];
        let statements = || statements.iter().copied().filter(|(layer, _)| *layer < end);
        if let Some((layer, reason)) = opaque.iter().find(|(layer, _)| *layer < end) {
            return Err(NoPlan { layer: self.layers[*layer].name(), reason });
        }
        let layout = &self.layouts[kind.traffic() as usize];
        if kind.traffic() == Traffic::Send && layout.frame_number().is_none() {
            return Err(NoPlan { layer: "stack", reason: "no layer numbers sends" });
        }
        let mut plan = self.empty(kind, layout);
        let orders = |s: &Statement| matches!(s, Statement::Turns(_) | Statement::Script(_));
        let release = statements().find(|(_, s)| orders(s) || matches!(s, Statement::Release(_)));
        let release = release.map(|(layer, _)| layer);
        let ordered = statements().any(|(_, s)| orders(&s));
        let last = statements().find(|(_, s)| ordered && matches!(s, Statement::Serve(_)));
        let last = last.map(|(layer, _)| layer);
        let step = |layer: usize, hits: u32| DeliverStep {
            releases: Vec::new(),
            turns: None,
            script: None,
            services: None,
            effects: Effects::default(),
            retain: false,
            hits,
            layer,
            release: u32::MAX,
        };
        plan.deliver = release.map(|layer| step(layer, fixed::CAST_DELIVER_HITS));
        plan.last = last.map(|layer| step(layer, fixed::CAST_LAST_HITS));
        for (layer, statement) in statements() {
            let stage = match (release, last) {
                (_, Some(lowest)) if layer <= lowest => Stage::Last,
                (Some(lowest), _) if layer <= lowest => Stage::Deliver,
                _ => Stage::Accept,
            };
            self.add(&mut plan, layer, statement, stage, counted)?;
        }
        plan.shape = Shape::of(&plan);
        plan.bare = plan.template.iter().all(|step| step.mask == 0)
            && plan.filters.is_empty()
            && plan.gossip_count == 0
            && !plan.retain;
        Ok(plan)
    }

    fn empty(&self, kind: Kind, layout: &Layout) -> Plan {
        let mut template = [TemplateStep::default(); TEMPLATE_WORDS_MAX];
        let first = match kind {
            Kind::CastSend => fixed::CAST_SEND_WORDS,
            Kind::SendSend => fixed::SEND_SEND_WORDS,
            Kind::CastDeliver | Kind::SelfDeliver => fixed::CAST_DELIVER_WORDS,
            Kind::SendDeliver => fixed::SEND_DELIVER_WORDS,
        };
        for (at, step) in template.iter_mut().enumerate().take(layout.template_words()) {
            // A send puts every protocol field into the header; a receiver compares those that layers declare.
            let mask = if kind.delivers() { 0 } else { layout.template_mask(at) };
            *step = TemplateStep { word: at as u8, slot: first + at as u32, mask, add: 0 };
        }
        Plan {
            kind,
            shape: Shape::Send,
            cookie: 0,
            header_bytes: layout.compressed_bytes(),
            words: layout.words(),
            guard: kind.guard().offset(),
            template,
            template_words: layout.template_words(),
            number: layout.frame_number().and_then(|at| spot(layout, at)).unwrap_or_default(),
            filters: Vec::new(),
            gossips: [GossipStep::default(); GOSSIPS_MAX],
            gossip_count: 0,
            limits: Vec::new(),
            effects: Effects::default(),
            affects: false,
            retain: false,
            loop_layer: None,
            hits: hits_word(kind.guard()),
            bare: false,
            straight: false,
            deliver: None,
            marks: (0, 0),
            agreed: (0, 0),
            last: None,
            #[cfg(test)]
            hasty: false,
        }
    }

    fn add(
        &self,
        plan: &mut Plan,
        layer: usize,
        statement: Statement,
        stage: Stage,
        counted: &mut [Option<u32>],
    ) -> Result<(), NoPlan> {
        let refuse = |reason| Err(NoPlan { layer: self.layers[layer].name(), reason });
        let layout = &self.layouts[plan.kind.traffic() as usize];
        let here = |field: Field| field.traffic == plan.kind.traffic();
        let late = stage != Stage::Accept;
        match statement {
            Statement::Advance(field) => {
                if late {
                    return refuse("a protocol field above an ordering layer is not compiled yet");
                }
                if !here(field) {
                    return refuse("it advances a field of another kind of traffic");
                }
                let Some(spot) = spot(layout, usize::from(field.index)) else {
                    return refuse("it advances a field that is not in the header");
                };
                let step = &mut plan.template[usize::from(spot.word)];
                step.mask |= spot.mask << spot.shift;
                step.add += 1 << spot.shift;
            }
            Statement::Bound(field) => {
                if !here(field) || !layout.fields()[usize::from(field.index)].0.bound {
                    return refuse("it declares a field bound that is not");
                }
            }
            Statement::Filter(field) => {
                let Some(spot) = spot(layout, usize::from(field.index)).filter(|_| here(field)) else {
                    return refuse("it computes a field that is not in the header");
                };
                plan.filters.push(FilterStep { field: field.index, spot, layer });
            }
            Statement::Gossip(gossip) => {
                let riding = self.blueprint.riding(plan.kind.traffic());
                let Some((place, definition)) = riding
                    .enumerate()
                    .find(|(_, (index, _))| *index == usize::from(gossip.0))
                    .map(|(at, (_, g))| (at, g))
                else {
                    return refuse("its gossip does not ride on this kind of traffic");
                };
                assert!(place < GOSSIPS_MAX);
                let Place::Word { word, shift } = layout.gossips()[place].1 else {
                    return refuse("its gossip has no place");
                };
                let (source, source_shift, source_mask) = self.gossip_source(definition.source);
                let spot = Spot { word, shift, mask: 0xffff };
                let matrix = definition.matrix;
                plan.gossips[plan.gossip_count] =
                    GossipStep { spot, source, source_shift, source_mask, matrix };
                plan.gossip_count += 1;
            }
            Statement::Count(tally) => {
                let definition = &self.blueprint.tallies[tally.0 as usize];
                if definition.kind != plan.kind.guard() {
                    return refuse("it counts under another guard's plan");
                }
                let accept = plan.hits;
                let hits = plan.step(stage).map_or(accept, |step| step.hits);
                // Self-delivery and delivery share the words of the origin's section.
                counted[tally.0 as usize] = Some(hits);
            }
            Statement::Retain => {
                if !matches!(plan.kind, Kind::CastSend | Kind::CastDeliver | Kind::SendSend) {
                    return refuse("it retains what is retained already, or what no store is for");
                }
                match plan.step(stage) {
                    Some(step) => step.retain = true,
                    None => plan.retain = true,
                }
            }
            Statement::LoopBack => {
                if plan.kind != Kind::CastSend {
                    return refuse("only own casts are looped back");
                }
                plan.loop_layer = Some(layer);
            }
            Statement::Limit(Limit { field, limit, sets }) => {
                let Some(spot) = spot(layout, usize::from(field.index)).filter(|_| here(field)) else {
                    return refuse("it limits a field that is not in the header");
                };
                if plan.kind.delivers() {
                    return refuse("limits on deliveries are not compiled yet");
                }
                let set = match sets {
                    Sets::Guard(guard) if guard.kind == plan.kind.guard() => Some((plan.guard, guard.mask)),
                    Sets::Guard(_) => None,
                    Sets::Mark(mark) => mark_spot(layout, mark)
                        .filter(|_| here(mark))
                        .map(|spot| (plan.template[usize::from(spot.word)].slot, spot.mask << spot.shift)),
                };
                let Some((word, bits)) = set else {
                    return refuse("it closes another plan's guard");
                };
                let limit = match (limit, plan.kind) {
                    (Target::Own(slot), Kind::CastSend) => slot.0,
                    (Target::Member(slot), Kind::SendSend) => slot.0,
                    _ => return refuse("its limit is not in the section of the plan"),
                };
                let (on_number, field_slot) =
                    (spot == plan.number, plan.template[usize::from(spot.word)].slot);
                plan.limits.push(LimitStep { on_number, field_slot, field: spot, limit, word, bits });
            }
            Statement::Effect(Effect { target: Target::Member(_), .. }) if plan.kind == Kind::CastSend => {
                return refuse("casting has no one member whose word it could change");
            }
            Statement::Effect(effect) => match plan.step(stage) {
                Some(step) => step.effects.push(layer, effect),
                None => plan.effects.push(layer, effect),
            },
            Statement::Serve(services) => {
                let Some(mark) = mark_spot(layout, services.agreed).filter(|_| here(services.agreed)) else {
                    return refuse("its mark is not in the header");
                };
                match plan.step(stage) {
                    Some(step) if stage == Stage::Last && step.services.is_none() => {
                        step.services = Some(services);
                        plan.agreed = (mark.word, mark.mask << mark.shift);
                    }
                    _ => {
                        return refuse(
                            "only what a layer beneath it puts in order is served, and by one layer",
                        );
                    }
                }
            }
            Statement::Release(slot) => match plan.step(stage) {
                Some(step) if stage == Stage::Deliver => step.releases.push(slot.0),
                _ => {
                    return refuse("only deliveries are released, and before a layer that keeps their order");
                }
            },
            Statement::Turns(turns) => {
                let Some(mark) = mark_spot(layout, turns.mark).filter(|_| here(turns.mark)) else {
                    return refuse("its mark is not in the header");
                };
                match plan.step(stage) {
                    Some(step) if stage == Stage::Deliver && step.turns.is_none() => {
                        step.releases.push(turns.free.0);
                        step.turns = Some(turns);
                        plan.marks = (mark.word, mark.mask << mark.shift);
                    }
                    _ => return refuse("only deliveries have turns, and of one layer"),
                }
            }
            Statement::Script(script) => match plan.step(stage) {
                Some(step) if stage == Stage::Deliver && step.script.is_none() => {
                    step.releases.push(script.free.0);
                    step.script = Some(script);
                }
                _ => return refuse("only deliveries follow a script, and that of one layer"),
            },
        }
        Ok(())
    }

    /// Offset in the subject's section, shift and mask of a gossip's own value (never asked of this member itself).
    fn gossip_source(&self, source: GossipSource) -> (u32, u8, u64) {
        match source {
            GossipSource::Slot(slot) => (slot.0, 0, u64::MAX),
            GossipSource::Accepted(field) => {
                let layout = &self.layouts[field.traffic as usize];
                let spot = spot(layout, usize::from(field.index)).unwrap_or_default();
                let first = match field.traffic {
                    Traffic::Cast => fixed::CAST_DELIVER_WORDS,
                    _ => fixed::SEND_DELIVER_WORDS,
                };
                (first + u32::from(spot.word), spot.shift, spot.mask)
            }
        }
    }
}

fn hits_word(guard: GuardKind) -> u32 {
    match guard {
        GuardKind::CastSend => fixed::CAST_SEND_HITS,
        GuardKind::SendSend => fixed::SEND_SEND_HITS,
        GuardKind::CastDeliver => fixed::CAST_ACCEPT_HITS,
        GuardKind::SendDeliver => fixed::SEND_DELIVER_HITS,
    }
}

fn spot(layout: &Layout, field: usize) -> Option<Spot> {
    let (definition, place) = &layout.fields()[field];
    match place {
        Place::Elided => None,
        Place::Word { word, shift } => {
            Some(Spot { word: *word, shift: *shift, mask: low_bits(definition.bits) })
        }
    }
}

/// Where a mark is.
fn mark_spot(layout: &Layout, field: Field) -> Option<Spot> {
    let (definition, _) = layout.fields().get(usize::from(field.index))?;
    spot(layout, usize::from(field.index)).filter(|_| definition.class == Class::Mark)
}

impl Plan {
    /// The step in which statements of that stage take effect; none if it is the first.
    fn step(&mut self, stage: Stage) -> Option<&mut DeliverStep> {
        match stage {
            Stage::Accept => None,
            Stage::Deliver => self.deliver.as_mut(),
            Stage::Last => self.last.as_mut(),
        }
    }

    /// Finds out which effects may wait; `waiting` is the number of steps whose do.
    fn compile_effects(&mut self, looked_at: &LookedAt, waiting: &mut u32) {
        self.effects.compile(looked_at, waiting);
        if let Some(step) = &mut self.deliver {
            step.effects.compile(looked_at, waiting);
        }
        if let Some(step) = &mut self.last {
            step.effects.compile(looked_at, waiting);
        }
        for step in [&mut self.deliver, &mut self.last].into_iter().flatten() {
            if let ([release], true, false) = (&step.releases[..], step.effects.may_wait(), step.retain) {
                step.release = *release;
            }
        }
        let affects = self.effects_of_first_steps().any(|effects| !effects.is_empty());
        self.affects = affects;
    }

    /// The effects of acceptance and delivery.
    pub(crate) fn effects_of_first_steps(&self) -> impl Iterator<Item = &Effects> {
        std::iter::once(&self.effects).chain(self.deliver.as_ref().map(|step| &step.effects))
    }

    /// The effects of all steps.
    pub(crate) fn effects_of_steps(&self) -> impl Iterator<Item = &Effects> {
        self.effects_of_first_steps().chain(self.last.as_ref().map(|step| &step.effects))
    }

    /// The gossips that ride along.
    #[inline]
    pub(crate) fn gossips(&self) -> &[GossipStep] {
        &self.gossips[..self.gossip_count]
    }

    /// How many steps the executor takes for one message: what `explain` prints and the cost depends on.
    pub(crate) fn steps(&self) -> usize {
        let steps = [&self.deliver, &self.last].into_iter().flatten();
        let deliver: usize = steps
            .map(|step| {
                let order = usize::from(step.turns.is_some()) + usize::from(step.script.is_some());
                let order = order + usize::from(step.services.is_some());
                1 + step.releases.len() + step.effects.declared().len() + order
            })
            .sum();
        self.template_words
            + self.filters.len()
            + self.gossip_count
            + self.limits.len()
            + self.effects.declared().len()
            + usize::from(self.retain)
            + usize::from(self.loop_layer.is_some())
            + deliver
    }

    /// A readable listing, a statement per line.
    pub(crate) fn listing(
        &self,
        layout: &Layout,
        blueprint: &Blueprint,
        names: &[&'static str],
    ) -> Vec<String> {
        let delivers = self.kind.delivers();
        let verb = |when_sent: &'static str, when_delivered: &'static str| match delivers {
            true => when_delivered,
            false => when_sent,
        };
        let fields = |word: u8| {
            // Marks are written, and never compared.
            let inside = layout.fields().iter().filter(|(field, place)| {
                (field.class == Class::Protocol || !delivers && field.class == Class::Mark)
                    && matches!(place, Place::Word { word: at, .. } if *at == word)
            });
            inside.map(|(field, _)| field.name.to_string()).collect::<Vec<_>>().join(", ")
        };
        let guards = blueprint.guards.iter().filter(|guard| guard.kind == self.kind.guard());
        let closers: Vec<_> = guards.map(|guard| format!("{}: {}", names[guard.layer], guard.name)).collect();
        let closers = if closers.is_empty() { "nobody closes it".to_string() } else { closers.join("; ") };
        let mut lines = vec![format!("check    {} guard is zero ({closers})", self.kind.guard().name())];
        let template = &self.template[..self.template_words];
        for step in template.iter().filter(|step| step.mask != 0) {
            let (word, mask) = (step.word, step.mask);
            let verb = verb("write    word", "check    word");
            lines.push(format!("{verb} {word} & {mask:#018x} = its slot ({})", fields(word)));
        }
        let gossips = self.gossips().iter().map(|gossip| (gossip, gossip.spot.gossip(layout)));
        for (gossip, name) in gossips.clone() {
            if !delivers {
                lines.push(format!("write    {name} at word {} bit {}", gossip.spot.word, gossip.spot.shift));
            }
        }
        for filter in &self.filters {
            let name = &layout.fields()[usize::from(filter.field)].0.name;
            lines.push(format!("{}  {name}", verb("compute", "verify ")));
        }
        for step in template.iter().filter(|step| step.add != 0) {
            lines.push(format!("advance  slot of word {} by {:#x}", step.word, step.add));
        }
        let counting = blueprint.tallies.iter().filter(|tally| tally.kind == self.kind.guard());
        let counting: Vec<_> =
            counting.map(|tally| format!("{}: {}", names[tally.layer], tally.name)).collect();
        let counted = if counting.is_empty() { String::new() } else { format!(" ({})", counting.join("; ")) };
        lines.push(format!("advance  hits by 1{counted}"));
        for (gossip, name) in gossips {
            if delivers {
                lines.push(format!(
                    "merge    {name} from word {} bit {}",
                    gossip.spot.word, gossip.spot.shift
                ));
            }
        }
        for effect in self.effects.declared() {
            lines.push(format!("effect   {:?} {:?} {:?}", effect.operation, effect.target, effect.source));
        }
        for limit in &self.limits {
            let of_guard = limit.word == self.guard;
            let mut owners = blueprint.guards.iter().filter(|_| of_guard);
            let owner = owners.find(|g| g.kind == self.kind.guard() && g.mask == limit.bits);
            let what = match owner {
                Some(owner) => {
                    let (slot, layer, name) = (limit.limit, names[owner.layer], owner.name);
                    format!("close the guard when its field reaches slot {slot} ({layer}: {name})")
                }
                None => {
                    format!("set {:#x} in the slots when its field reaches slot {}", limit.bits, limit.limit)
                }
            };
            lines.push(format!("limit    {what}"));
        }
        if self.retain {
            lines.push("retain   the frame under its number".to_string());
        }
        if let Some(layer) = self.loop_layer {
            lines.push(format!("loop     the cast back, above {}", names[layer]));
        }
        for step in [&self.deliver, &self.last].into_iter().flatten() {
            lines.push(format!("queue    until {} releases it", names[step.layer]));
            if step.turns.is_some() {
                let (word, bit) = (self.marks.0, self.marks.1.trailing_zeros());
                lines.push(format!("turn     goes to the next if word {word} bit {bit} is set"));
            }
            if step.services.is_some() {
                let (word, bit) = (self.agreed.0, self.agreed.1.trailing_zeros());
                lines.push(format!(
                    "agreed   goes before that if word {word} bit {bit} is set and nothing waits"
                ));
            }
            if let Some(script) = &step.script {
                let name = names[step.layer];
                lines.push(format!(
                    "run      gives way to the next of {name} when slot {} ends it",
                    script.free.0
                ));
            }
            if step.retain {
                lines.push("retain   the frame under its number".to_string());
            }
            for effect in step.effects.declared() {
                lines
                    .push(format!("effect   {:?} {:?} {:?}", effect.operation, effect.target, effect.source));
            }
        }
        lines.push(verb("transmit", "deliver").to_string());
        lines
    }
}
