//! Stack specifications: `"STABLE:FC(window=512):UNICAST:LOCAL:NAK:CHKSUM:COM"`, top to bottom.
//!
//! A specification is parsed, then checked from the bottom up: each layer's requirements must hold beneath it, by what
//! the transport and the layers below provide. Whatever is wrong is said with the place in the text and what would
//! mend it.

use std::fmt;

use super::property::{Properties, Property};
use super::registry::{LayerEntry, ParameterError, Parameters, Registry};

/// The most layers in a stack.
pub const LAYERS_MAX: usize = 64;
/// The longest specification, in bytes.
pub const SPEC_BYTES_MAX: usize = 2048;

/// Properties that one layer of a stack provides: two that number the same messages, retain them, give them back or
/// mark their fragments would do so twice.
const ONCE: [Property; 5] = [
    Property::FifoUnicast,
    Property::FifoMulticast,
    Property::Stability,
    Property::SelfDelivery,
    Property::LargeMessages,
];

/// A parsed specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The layers, top to bottom.
    pub layers: Vec<NamedLayer>,
}

/// One layer of a specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedLayer {
    /// Its name.
    pub name: String,
    /// Its parameters.
    pub parameters: Parameters,
    /// Where it stands in the text, in bytes.
    pub at: usize,
}

/// A specification is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The text.
    pub text: String,
    /// Where the trouble is, in bytes.
    pub at: usize,
    /// What it is.
    pub problem: SpecProblem,
}

/// What is wrong with a specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecProblem {
    /// Something else was expected here.
    #[error("expected {0}")]
    Expected(&'static str),
    /// Too long or too many layers.
    #[error("a stack has at most {LAYERS_MAX} layers and its text at most {SPEC_BYTES_MAX} bytes")]
    TooLong,
    /// No layer of that name.
    #[error("there is no layer {name}; there are {known}")]
    UnknownLayer {
        /// The name.
        name: String,
        /// Those there are.
        known: String,
    },
    /// The layer has no such parameter.
    #[error("{layer} has no parameter {name}; it has {known}")]
    UnknownParameter {
        /// The layer.
        layer: String,
        /// The name.
        name: String,
        /// Those there are.
        known: String,
    },
    /// A parameter stands twice.
    #[error("parameter {0} stands twice")]
    DuplicateParameter(String),
    /// A parameter's value makes no sense.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// The bottom is not COM.
    #[error("the lowest layer must be COM, which binds the stack to a transport")]
    NoBottom,
    /// COM above the bottom.
    #[error("COM can only be the lowest layer")]
    BottomAbove,
    /// A second layer for what can be provided only once.
    #[error("{layer} provides {property}, which a layer beneath it provides already; leave one of them out")]
    Twice {
        /// The layer.
        layer: String,
        /// The property.
        property: Property,
    },
    /// A requirement does not hold.
    #[error("{layer} requires {missing} beneath it{remedy}")]
    Missing {
        /// The layer.
        layer: String,
        /// The property.
        missing: Property,
        /// Who would provide it.
        remedy: String,
    },
}

/// Orders of delivery: a layer that provides one must add something to what there is.
const ORDERS: &[Property] = &[Property::Causal, Property::Total, Property::Safe];

impl fmt::Display for SpecError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self.text.get(..self.at).map_or(self.at, |before| before.chars().count());
        writeln!(formatter, "{}", self.problem)?;
        writeln!(formatter, "  {}", self.text)?;
        write!(formatter, "  {:column$}^", "")
    }
}

impl std::error::Error for SpecError {}

impl Spec {
    /// Parses `text`. Names are not looked up yet.
    ///
    /// # Errors
    /// [`SpecError`] with the place.
    pub fn parse(text: &str) -> Result<Spec, SpecError> {
        let mut parser = Parser { text, at: 0 };
        if text.len() > SPEC_BYTES_MAX {
            return Err(parser.error(SpecProblem::TooLong));
        }
        let mut layers = Vec::new();
        loop {
            layers.push(parser.layer()?);
            if layers.len() > LAYERS_MAX {
                return Err(parser.error(SpecProblem::TooLong));
            }
            if parser.at == text.len() {
                return Ok(Spec { layers });
            }
            parser.expect(':', "`:` or the end")?;
        }
    }

    /// Looks the layers up and checks the stack over a network with `network` properties. Returns the entries and the
    /// properties *above* each layer, top to bottom.
    ///
    /// # Errors
    /// [`SpecError`] with the first trouble from the bottom.
    pub fn check<'r>(
        &self,
        registry: &'r Registry,
        network: Properties,
    ) -> Result<Vec<(&'r LayerEntry, Properties)>, SpecError> {
        let mut checked = Vec::with_capacity(self.layers.len());
        let mut properties = network;
        if let Some(layer) = self.layers.iter().find(|layer| registry.get(&layer.name).is_none()) {
            let known = registry.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
            let problem = SpecProblem::UnknownLayer { name: layer.name.clone(), known };
            return Err(SpecError { text: self.to_string(), at: layer.at, problem });
        }
        for (height, layer) in self.layers.iter().rev().enumerate() {
            let error = |problem| SpecError { text: self.to_string(), at: layer.at, problem };
            let Some(entry) = registry.get(&layer.name) else { continue };
            check_parameters(layer, entry).map_err(error)?;
            if (height == 0) != (entry.name == "COM") {
                let problem = if height == 0 { SpecProblem::NoBottom } else { SpecProblem::BottomAbove };
                return Err(error(problem));
            }
            if let Some(missing) = entry.requires.without(properties).iter().next() {
                let remedy = remedy(registry, missing, entry.name);
                return Err(error(SpecProblem::Missing { layer: layer.name.clone(), missing, remedy }));
            }
            if let Some(twice) =
                ONCE.iter().find(|p| properties.contains(**p) && entry.provides.contains(**p))
            {
                return Err(error(SpecProblem::Twice { layer: layer.name.clone(), property: *twice }));
            }
            // What it is there for is the strongest of what it provides.
            let order = ORDERS.iter().rev().find(|order| entry.provides.contains(**order));
            if let Some(order) = order.filter(|_| entry.provides.without(properties).is_empty()) {
                return Err(error(SpecProblem::Twice { layer: layer.name.clone(), property: *order }));
            }
            properties = properties.without(entry.destroys).with(entry.provides);
            checked.push((entry, properties));
        }
        checked.reverse();
        Ok(checked)
    }
}

fn check_parameters(layer: &NamedLayer, entry: &LayerEntry) -> Result<(), SpecProblem> {
    for (at, (name, _)) in layer.parameters.pairs().iter().enumerate() {
        if !entry.parameters.iter().any(|(known, _)| known == name) {
            let known = entry.parameters.iter().map(|(known, _)| *known).filter(|known| *known != "broken");
            let known = known.collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".to_string() } else { known };
            return Err(SpecProblem::UnknownParameter {
                layer: layer.name.clone(),
                name: name.clone(),
                known,
            });
        }
        if layer.parameters.pairs()[..at].iter().any(|(other, _)| other == name) {
            return Err(SpecProblem::DuplicateParameter(name.clone()));
        }
    }
    Ok(())
}

fn remedy(registry: &Registry, missing: Property, but: &str) -> String {
    let providers: Vec<_> = registry
        .iter()
        .filter(|entry| entry.provides.contains(missing) && entry.name != but)
        .map(|entry| entry.name)
        .collect();
    if providers.is_empty() {
        "; no layer here provides it".to_string()
    } else {
        format!("; put {} below it", providers.join(" or "))
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, layer) in self.layers.iter().enumerate() {
            let separator = if at == 0 { "" } else { ":" };
            write!(formatter, "{separator}{layer}")?;
        }
        Ok(())
    }
}

impl fmt::Display for NamedLayer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        for (at, (name, value)) in self.parameters.pairs().iter().enumerate() {
            write!(formatter, "{}{name}={value}", if at == 0 { "(" } else { "," })?;
        }
        if !self.parameters.pairs().is_empty() {
            formatter.write_str(")")?;
        }
        Ok(())
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn layer(&mut self) -> Result<NamedLayer, SpecError> {
        let at = self.at;
        let name = self.word(|c| c.is_ascii_alphanumeric() || c == '_', "the name of a layer")?;
        let mut pairs = Vec::new();
        if self.take('(') {
            loop {
                let key = self.word(|c| c.is_ascii_lowercase() || c == '_', "the name of a parameter")?;
                self.expect('=', "`=` and a value")?;
                let value =
                    self.word(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '.', "a value")?;
                pairs.push((key, value));
                if self.take(')') {
                    break;
                }
                self.expect(',', "`,` or `)`")?;
            }
        }
        Ok(NamedLayer { name, parameters: Parameters::new(pairs), at })
    }

    fn word(&mut self, allowed: impl Fn(char) -> bool, what: &'static str) -> Result<String, SpecError> {
        let rest = &self.text[self.at..];
        let length = rest.find(|c| !allowed(c)).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.error(SpecProblem::Expected(what)));
        }
        self.at += length;
        Ok(rest[..length].to_string())
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.text[self.at..].starts_with(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char, what: &'static str) -> Result<(), SpecError> {
        if self.take(wanted) { Ok(()) } else { Err(self.error(SpecProblem::Expected(what))) }
    }

    fn error(&self, problem: SpecProblem) -> SpecError {
        let mut shown: String = self.text.chars().take(200).collect();
        if shown.len() < self.text.len() {
            shown.push_str("...");
        }
        SpecError { text: shown, at: self.at, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: Properties = Properties::NONE;

    fn check(text: &str) -> Result<Vec<&'static str>, SpecError> {
        let spec = Spec::parse(text)?;
        let registry = Registry::standard();
        Ok(spec.check(&registry, NETWORK)?.into_iter().map(|(entry, _)| entry.name).collect())
    }

    #[test]
    fn what_is_parsed_prints_as_it_was_written() {
        let text = "STABLE:FC(window=64,x=1):NAK:COM";
        assert_eq!(Spec::parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn an_unknown_parameter_is_answered_with_those_that_are_for_users() {
        let below = "EVS:MBRSHIP:SUSPECT:FRAG:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";
        for (layer, known) in [("SEQUENCER", "none"), ("TOTAL", "")] {
            let refused = check(&format!("{layer}(x=1):{below}")).unwrap_err().problem.to_string();
            assert!(refused.contains(&format!("{layer} has no parameter x; it has {known}")), "{refused}");
            assert!(!refused.contains("broken"), "{refused}");
        }
    }

    #[test]
    fn a_well_formed_stack_passes() {
        assert_eq!(
            check("STABLE:UNICAST:NAK:CHKSUM:COM").unwrap(),
            ["STABLE", "UNICAST", "NAK", "CHKSUM", "COM"]
        );
    }

    #[test]
    fn a_missing_property_is_named_with_its_provider_and_place() {
        let error = check("STABLE:NAK:COM").unwrap_err();
        assert_eq!(error.at, 7);
        let text = error.to_string();
        assert!(text.contains("NAK requires P17 (integrity) beneath it; put CHKSUM below it"), "{text}");
        assert!(text.ends_with("\n         ^"), "{text:?}");
    }

    #[test]
    fn nonsense_is_refused_with_its_place() {
        let place = |text: &str| check(text).unwrap_err().at;
        assert_eq!(place(""), 0);
        assert_eq!(place("NAK:"), 4);
        assert_eq!(place("NAK(:COM"), 4);
        assert_eq!(place("NAK(window=1"), 12);
        assert_eq!(place("NAK(window=1,window=2):CHKSUM:COM"), 0);
        assert_eq!(place("NAK:NOPE:COM"), 4);
        assert_eq!(place("COM:COM"), 0);
        assert_eq!(place("NAK:UNICAST:NAK:CHKSUM:COM"), 0);
        assert_eq!(place("LOCAL:LOCAL:NAK:CHKSUM:COM"), 0);
        assert!(check("UNICAST:UNICAST:CHKSUM:COM").unwrap_err().to_string().contains("P3"));
        assert!(check("NOPE:NAK:COM").unwrap_err().to_string().contains("no layer NOPE"));
        assert!(check("CHKSUM:NAK").unwrap_err().to_string().contains("lowest layer must be COM"));
        assert!(check("CHKSUM(a=1):COM").unwrap_err().to_string().contains("it has none"));
        assert!(check(&"COUNT:".repeat(2000)).is_err());
        assert_eq!(place("TOTAL:TOTAL:FIXED:LOCAL:NAK:CHKSUM:COM"), 0);
        assert_eq!(place("SAFE:SAFE:TOTAL:FIXED:STABLE:UNICAST:LOCAL:NAK:CHKSUM:COM"), 0);
        assert_eq!(place("SEQUENCER:TOTAL:FIXED:LOCAL:NAK:CHKSUM:COM"), 0);
        assert_eq!(place("SAFE:TOTAL:SEQUENCER:FIXED:STABLE:UNICAST:LOCAL:NAK:CHKSUM:COM"), 5);
        let twice = check("SEQUENCER:TOTAL:FIXED:LOCAL:NAK:CHKSUM:COM").unwrap_err().to_string();
        assert!(twice.contains("SEQUENCER") && twice.contains("P6 (total order)"), "{twice}");
        for order in ["TOTAL", "SEQUENCER", "SAFE:TOTAL", "SAFE:SEQUENCER"] {
            assert!(check(&format!("{order}:FIXED:STABLE:UNICAST:LOCAL:NAK:CHKSUM:COM")).is_ok(), "{order}");
        }
        let without_views = check("TOTAL:LOCAL:NAK:CHKSUM:COM").unwrap_err().to_string();
        assert!(without_views.contains("P9 (virtual synchrony)"), "{without_views}");
        let without_copies = check("TOTAL:FIXED:NAK:CHKSUM:COM").unwrap_err().to_string();
        assert!(without_copies.contains("put LOCAL below it"), "{without_copies}");
        let not_ordered = check("SAFE:FIXED:STABLE:UNICAST:LOCAL:NAK:CHKSUM:COM").unwrap_err().to_string();
        assert!(not_ordered.contains("P6 (total order)"), "{not_ordered}");
        assert!(check("ÄÖ:COM").is_err());
    }
}
