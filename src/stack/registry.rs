//! The layers that can be named in a stack.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use super::layer::Layer;
use super::property::Properties;
use crate::time::Millis;

/// Everything about a layer that is known before it is made.
#[derive(Clone)]
pub struct LayerEntry {
    /// Its name in a stack.
    pub name: &'static str,
    /// One line about what it does.
    pub about: &'static str,
    /// What must hold beneath it.
    pub requires: Properties,
    /// What holds above it by its doing.
    pub provides: Properties,
    /// What no longer holds above it.
    pub destroys: Properties,
    /// What it costs, in the arbitrary unit of the synthesis.
    pub cost: u32,
    /// Its parameters: name, and what it means with unit and default.
    pub parameters: &'static [(&'static str, &'static str)],
    /// Makes one.
    pub make: fn(&Parameters) -> Result<Box<dyn Layer>, ParameterError>,
}

/// The parameters a layer was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    pairs: Vec<(String, String)>,
}

/// A parameter makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parameter {name}={value}: {problem}")]
pub struct ParameterError {
    /// Which.
    pub name: String,
    /// What was given.
    pub value: String,
    /// What would do.
    pub problem: String,
}

impl Parameters {
    /// The given pairs of name and value.
    pub fn new(pairs: Vec<(String, String)>) -> Parameters {
        Parameters { pairs }
    }

    /// The pairs in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// The number called `name`, or `default`; it must lie in `range`.
    ///
    /// # Errors
    /// If the value is not a number or lies outside.
    pub fn number(
        &self,
        name: &str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, ParameterError> {
        let Some(value) = self.value(name) else { return Ok(default) };
        match u64::from_str(value) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => {
                Err(self
                    .error(name, format!("give a whole number from {} to {}", range.start(), range.end())))
            }
        }
    }

    /// The longest of two times, `longest`, which the parameter `name` may have given and which must not be below the
    /// `shortest`, that of the parameter `below`. One that was not given is as long as the shortest.
    pub(crate) fn longest(
        &self,
        (name, longest): (&str, Duration),
        (below, shortest): (&str, Duration),
    ) -> Result<Duration, ParameterError> {
        if longest >= shortest || self.value(name).is_none() {
            return Ok(longest.max(shortest));
        }
        let why = format!("it may not be less than {below}, which is {} here", Millis(shortest));
        Err(self.error(name, why))
    }

    /// The word called `name`, or the first of `choices`; it must be one of them.
    ///
    /// # Errors
    /// If it is none of them.
    pub fn choice(&self, name: &str, choices: &[&'static str]) -> Result<&'static str, ParameterError> {
        let Some(value) = self.value(name) else { return Ok(choices[0]) };
        choices
            .iter()
            .find(|choice| **choice == value)
            .copied()
            .ok_or_else(|| self.error(name, format!("give one of {}", choices.join(", "))))
    }

    /// In which way the layer is wrong on purpose: the parameter `broken` names one of these, of which the first is none.
    #[cfg(feature = "laboratory")]
    pub(crate) fn broken<B: Copy>(&self, ways: &[(&'static str, B)]) -> Result<B, ParameterError> {
        if self.value("broken").is_none() {
            return Ok(ways[0].1);
        }
        let names: Vec<&'static str> = ways.iter().map(|(name, _)| *name).collect();
        let name = self.choice("broken", &names)?;
        Ok(ways.iter().find(|(known, _)| *known == name).expect("it is one of the names").1)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn error(&self, name: &str, problem: String) -> ParameterError {
        let value = self.value(name).unwrap_or_default().to_string();
        ParameterError { name: name.to_string(), value, problem }
    }
}

/// The layers known by name. Applications may add their own.
#[derive(Clone)]
pub struct Registry {
    entries: BTreeMap<&'static str, LayerEntry>,
}

impl Registry {
    /// No layers.
    pub fn empty() -> Registry {
        Registry { entries: BTreeMap::new() }
    }

    /// The layers of this library.
    pub fn standard() -> Registry {
        crate::layers::entries().into_iter().fold(Registry::empty(), Registry::with)
    }

    /// The registry with one more layer; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, entry: LayerEntry) -> Registry {
        self.entries.insert(entry.name, entry);
        self
    }

    /// The layer called `name`.
    pub fn get(&self, name: &str) -> Option<&LayerEntry> {
        self.entries.get(name)
    }

    /// All layers in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &LayerEntry> {
        self.entries.values()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.entries.keys()).finish()
    }
}
