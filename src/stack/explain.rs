//! Says what a stack is: properties layer by layer, fields, header sizes, plans.

use std::fmt;
use std::rc::Rc;

use super::layer::Kind;
use super::property::{Properties, Property};
use super::registry::Registry;
use super::run::{Checked, Compiled, InstallError, compile};
use crate::accel::plan::NoPlan;
use crate::config::Config;
use crate::id::{GroupId, Incarnation, MEMBERS_MAX, ViewId};
use crate::view::{Address, LocalView, Member, View};
use crate::wire::full::PREFIX_BYTES;
use crate::wire::layout::{Class, GOSSIP_BITS, Place};
use crate::wire::{Traffic, WIRE_VERSION};

/// Everything there is to say about a stack.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The stack as it was parsed.
    pub spec: String,
    /// The layers, top to bottom.
    pub layers: Vec<LayerExplanation>,
    /// The fields of all kinds of traffic.
    pub fields: Vec<FieldExplanation>,
    /// The headers of all kinds of traffic.
    pub headers: Vec<HeaderExplanation>,
    /// The plans, and why there is none.
    pub plans: Vec<PlanExplanation>,
}

/// One layer.
#[derive(Clone, Debug)]
pub struct LayerExplanation {
    /// As named in the stack, with parameters.
    pub name: String,
    /// One line about it.
    pub about: &'static str,
    /// What it requires.
    pub requires: Properties,
    /// What it provides.
    pub provides: Properties,
    /// What holds above it.
    pub above: Properties,
}

/// One field.
#[derive(Clone, Debug)]
pub struct FieldExplanation {
    /// Whose messages have it.
    pub traffic: Traffic,
    /// `LAYER.name`.
    pub name: String,
    /// Its class.
    pub class: Class,
    /// Its width.
    pub bits: u32,
    /// Whether it always equals the frame number.
    pub bound: bool,
    /// Where it is in a compressed header.
    pub place: Place,
}

/// The headers of one kind of traffic.
#[derive(Clone, Debug)]
pub struct HeaderExplanation {
    /// Which.
    pub traffic: Traffic,
    /// Bytes of a full header.
    pub full_bytes: usize,
    /// Bytes of a compressed header.
    pub compressed_bytes: usize,
}

/// One plan.
#[derive(Clone, Debug)]
pub struct PlanExplanation {
    /// Of what.
    pub kind: Kind,
    /// Steps the executor takes per message; what the cost depends on.
    pub steps: usize,
    /// A statement per line, or why there is no plan and whose doing that is.
    pub listing: Result<Vec<String>, String>,
}

/// Explains the stack `spec` over a transport, for a view of `members` members.
///
/// # Errors
/// [`InstallError`] if the stack is refused.
pub fn explain(
    registry: &Registry,
    spec: &str,
    members: usize,
    transport_has_integrity: bool,
) -> Result<Explanation, InstallError> {
    let network = match transport_has_integrity {
        true => Properties::of(&[Property::Integrity]),
        false => Properties::NONE,
    };
    let member = |n: usize| Member { incarnation: Incarnation(n as u64), address: Address(format!("{n}")) };
    let view = View {
        group: GroupId(0),
        id: ViewId { counter: 0, coordinator: Incarnation(0) },
        members: (0..members.clamp(1, MEMBERS_MAX)).map(member).collect(),
        spec: spec.to_string(),
        wire_version: WIRE_VERSION,
        salt: 0,
        frame_bytes: 0,
    };
    let view = LocalView::new(view, Incarnation(0)).expect("made of distinct members");
    // What an endpoint may be configured for is not known here.
    let config = Config { message_bytes_max: 1 << 31, ..Config::for_stack(spec) };
    let checked = Rc::new(Checked::new(registry, spec, network)?);
    let compiled = compile(&checked, &view, &config)?;
    Ok(explanation(registry, &compiled))
}

fn explanation(registry: &Registry, compiled: &Compiled) -> Explanation {
    let Compiled { layers, blueprint, layouts, plans, checked, .. } = compiled;
    let Checked { properties, spec, .. } = &**checked;
    let names: Vec<&'static str> = layers.iter().map(|layer| layer.name()).collect();
    let layer = |(named, above): (&super::spec::NamedLayer, &Properties)| {
        let entry = registry.get(&named.name).expect("it was compiled");
        LayerExplanation {
            name: named.to_string(),
            about: entry.about,
            requires: entry.requires,
            provides: entry.provides,
            above: *above,
        }
    };
    let mut fields = Vec::new();
    for (traffic, layout) in Traffic::ALL.into_iter().zip(layouts) {
        for (field, place) in layout.fields() {
            let (name, class, bits, bound) = (field.name.to_string(), field.class, field.bits, field.bound);
            fields.push(FieldExplanation { traffic, name, class, bits, bound, place: *place });
        }
        for (name, place) in layout.gossips() {
            let (name, class, bits) = (name.to_string(), Class::Gossip, GOSSIP_BITS);
            fields.push(FieldExplanation { traffic, name, class, bits, bound: false, place: *place });
        }
    }
    let header = |(traffic, layout): (Traffic, &crate::wire::layout::Layout)| HeaderExplanation {
        traffic,
        full_bytes: PREFIX_BYTES + layout.full_bytes(),
        compressed_bytes: layout.compressed_bytes(),
    };
    let plan = |kind: Kind| {
        let plan = &plans[kind as usize];
        PlanExplanation {
            kind,
            steps: plan.as_ref().map_or(0, |plan| plan.steps()),
            listing: match plan {
                Ok(plan) => Ok(plan.listing(&layouts[kind.traffic() as usize], blueprint, &names)),
                Err(NoPlan { layer, reason }) => Err(format!("{layer}: {reason}")),
            },
        }
    };
    Explanation {
        spec: spec.to_string(),
        layers: spec.layers.iter().zip(properties).map(layer).collect(),
        fields,
        headers: Traffic::ALL.into_iter().zip(layouts).map(header).collect(),
        plans: Kind::ALL.map(plan).into(),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}\n\nlayers, top to bottom", self.spec)?;
        for layer in &self.layers {
            writeln!(formatter, "  {:<12} {}", layer.name, layer.about)?;
            writeln!(formatter, "  {:<12} requires {}", "", layer.requires)?;
            writeln!(formatter, "  {:<12} provides {}", "", layer.provides)?;
        }
        if let Some(top) = self.layers.first() {
            writeln!(formatter, "  above all: {}", top.above)?;
        }
        writeln!(formatter, "\nfields")?;
        writeln!(
            formatter,
            "  {:<6} {:<24} {:<14} {:>4}  in a compressed header",
            "of", "field", "class", "bits"
        )?;
        for field in &self.fields {
            let place = match field.place {
                Place::Word { word, shift } => {
                    format!("word {word}, bits {shift} to {}", u32::from(shift) + field.bits - 1)
                }
                Place::Elided if field.bound => "no bits: equals the frame number".to_string(),
                Place::Elided if field.class == Class::Exception => {
                    "no bits: zero, or the header is full".to_string()
                }
                Place::Elided => "no bits: in the cookie".to_string(),
            };
            let class = format!("{:?}", field.class);
            let traffic = field.traffic.name();
            writeln!(formatter, "  {traffic:<6} {:<24} {class:<14} {:>4}  {place}", field.name, field.bits)?;
        }
        writeln!(formatter, "\nheaders")?;
        for header in &self.headers {
            let (full, compressed) = (header.full_bytes, header.compressed_bytes);
            writeln!(
                formatter,
                "  {:<6} full {full} bytes, compressed {compressed} bytes",
                header.traffic.name()
            )?;
        }
        for plan in &self.plans {
            match &plan.listing {
                Ok(lines) => {
                    writeln!(formatter, "\nplan {} ({} steps)", plan.kind.name(), plan.steps)?;
                    for line in lines {
                        writeln!(formatter, "  {line}")?;
                    }
                }
                Err(reason) => writeln!(formatter, "\nplan {}: none ({reason})", plan.kind.name())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(spec: &str) -> Vec<usize> {
        let explanation = explain(&Registry::standard(), spec, 3, true).unwrap();
        explanation.plans.iter().map(|plan| plan.steps).collect()
    }

    #[test]
    fn layers_that_declare_only_bound_fields_and_counts_add_no_step() {
        let six = "STABLE:FC:UNICAST:LOCAL:NAK:COM";
        let twenty = format!("{}{six}", "COUNT:CHK_FIFO:".repeat(7));
        assert_eq!(twenty.split(':').count(), 20);
        assert_eq!(steps(six), steps(&twenty));
    }

    /// What is wrong, and what stands under the mark.
    fn refused(spec: &str) -> (String, String) {
        let said = explain(&Registry::standard(), spec, 3, true).unwrap_err().to_string();
        let [problem, text, mark] = &said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
        let marked = &text[mark.find('^').unwrap()..];
        (problem.to_string(), marked.split(['(', ':']).next().unwrap().to_owned())
    }

    #[test]
    fn windows_are_as_wide_as_layers_may_have_them_and_what_is_wider_is_pointed_at() {
        for fits in
            ["FC:UNICAST:LOCAL:NAK(window=16384):COM", "FC(window=4096):UNICAST(window=8192):LOCAL:NAK:COM"]
        {
            explain(&Registry::standard(), fits, 3, true).unwrap();
        }
        let (problem, layer) = refused("FC:UNICAST(window=8193):LOCAL:NAK:COM");
        assert!(layer == "UNICAST" && problem.contains("give 8192 or fewer"), "{layer}: {problem}");
        let (problem, layer) = refused("FC:UNICAST:LOCAL:NAK(window=16385):COM");
        assert!(layer == "NAK" && problem.contains("16384"), "{layer}: {problem}");
    }

    #[test]
    fn the_longest_of_two_times_is_not_given_below_the_shortest() {
        let with = |suspect: &str| format!("MBRSHIP:{suspect}:STABLE:FC:UNICAST:LOCAL:NAK:COM");
        for fits in ["SUSPECT(least_ms=200)", "SUSPECT(most_ms=14)", "SUSPECT(least_ms=50,most_ms=50)"] {
            explain(&Registry::standard(), &with(fits), 3, true).unwrap();
        }
        for (suspect, least) in [
            ("SUSPECT(least_ms=50,most_ms=20)", "least_ms, which is 50 ms"),
            ("SUSPECT(most_ms=13)", "least_ms, which is 14 ms"),
            ("SUSPECT(beat_us=10000,most_ms=30)", "least_ms, which is 40 ms"),
        ] {
            let (problem, layer) = refused(&with(suspect));
            let both = problem.contains("most_ms=") && problem.contains(least);
            assert!(layer == "SUSPECT" && both, "{layer}: {problem}");
        }
        let stack = with("SUSPECT").replace("MBRSHIP", "MBRSHIP(probe_ms=500)");
        explain(&Registry::standard(), &stack, 3, true).unwrap();
        let (problem, layer) = refused(&stack.replace("500", "500,probe_most_ms=400"));
        assert!(layer == "MBRSHIP" && problem.contains("probe_ms, which is 500 ms"), "{layer}: {problem}");
    }

    #[test]
    fn a_field_on_the_wire_shares_a_template_word_or_takes_the_next() {
        let with = explain(&Registry::standard(), "CHK_FIFO(wire=yes):NAK:COM", 2, true).unwrap();
        assert_eq!(with.headers[0].compressed_bytes, 24);
        let without = explain(&Registry::standard(), "CHK_FIFO:NAK:COM", 2, true).unwrap();
        assert_eq!(without.headers[0].compressed_bytes, 16);
    }

    #[test]
    fn the_default_header_is_24_bytes_and_an_opaque_layer_is_named() {
        let spec = format!("TRACE(fast=no):{}", crate::layers::FIXED_STACK);
        let explanation = explain(&Registry::standard(), &spec, 3, false).unwrap();
        assert_eq!(explanation.headers[0].compressed_bytes, 24);
        assert_eq!(explanation.plans[0].listing, Err("TRACE: it traces every message (fast=no)".to_string()));
        let text = explanation.to_string();
        assert!(text.contains("NAK.number") && text.contains("plan cast-send: none"), "{text}");
    }
}
