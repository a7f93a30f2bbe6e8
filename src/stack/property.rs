//! What a stack promises at each height (P1 to P27 of the Horus tradition) and the arithmetic on it.

use std::fmt;

/// One thing a layer can promise to the layer above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Property {
    /// P1: messages arrive, or not.
    BestEffort = 1,
    /// P2: prioritised best effort.
    Prioritised,
    /// P3: reliable FIFO unicast.
    FifoUnicast,
    /// P4: reliable FIFO multicast.
    FifoMulticast,
    /// P5: causal order.
    Causal,
    /// P6: total order.
    Total,
    /// P7: safe delivery.
    Safe,
    /// P8: virtually semi-synchronous.
    SemiSynchronous,
    /// P9: virtually synchronous.
    VirtuallySynchronous,
    /// P10: detects bytes in the wrong order.
    ByteReorderDetection,
    /// P11: every message names its origin.
    SourceAddress,
    /// P12: messages larger than a frame.
    LargeMessages,
    /// P13: causal time stamps.
    CausalTimestamps,
    /// P14: knows what is stable.
    Stability,
    /// P15: consistent views.
    ConsistentViews,
    /// P16: partitions merge by themselves.
    AutomaticMerging,
    /// P17: damaged messages are dropped.
    Integrity,
    /// P18: authentic.
    Authentic,
    /// P19: confidential.
    Confidential,
    /// P20: bounded memory.
    BoundedMemory,
    /// P21: suspicion of failed members.
    Suspicion,
    /// P22: at most one primary view.
    Primary,
    /// P23: state transfer.
    StateTransfer,
    /// P24: a group key.
    GroupKey,
    /// P25: members deliver their own casts.
    SelfDelivery,
    /// P26: probabilistic reliability.
    Probabilistic,
    /// P27: durable.
    Durable,
}

use Property::*;

const NAMES: [(Property, &str); 27] = [
    (BestEffort, "best effort"),
    (Prioritised, "prioritised"),
    (FifoUnicast, "reliable FIFO unicast"),
    (FifoMulticast, "reliable FIFO multicast"),
    (Causal, "causal order"),
    (Total, "total order"),
    (Safe, "safe delivery"),
    (SemiSynchronous, "virtual semi-synchrony"),
    (VirtuallySynchronous, "virtual synchrony"),
    (ByteReorderDetection, "byte-reorder detection"),
    (SourceAddress, "source address"),
    (LargeMessages, "large messages"),
    (CausalTimestamps, "causal time stamps"),
    (Stability, "stability"),
    (ConsistentViews, "consistent views"),
    (AutomaticMerging, "automatic merging"),
    (Integrity, "integrity"),
    (Authentic, "authenticity"),
    (Confidential, "confidentiality"),
    (BoundedMemory, "bounded memory"),
    (Suspicion, "suspicion"),
    (Primary, "primary view"),
    (StateTransfer, "state transfer"),
    (GroupKey, "group key"),
    (SelfDelivery, "self-delivery"),
    (Probabilistic, "probabilistic reliability"),
    (Durable, "durability"),
];

impl fmt::Display for Property {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = *self as u8;
        write!(formatter, "P{number} ({})", NAMES[number as usize - 1].1)
    }
}

/// A set of properties.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Properties(u32);

impl Properties {
    /// None.
    pub const NONE: Properties = Properties(0);

    /// The set of the given properties.
    pub const fn of(list: &[Property]) -> Properties {
        let mut bits = 0;
        let mut at = 0;
        while at < list.len() {
            bits |= 1 << list[at] as u32;
            at += 1;
        }
        Properties(bits)
    }

    /// Whether the property is in the set.
    pub const fn contains(self, property: Property) -> bool {
        self.0 & (1 << property as u32) != 0
    }

    /// What is in this set or the other.
    #[must_use]
    pub const fn with(self, other: Properties) -> Properties {
        Properties(self.0 | other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub const fn without(self, other: Properties) -> Properties {
        Properties(self.0 & !other.0)
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The properties in order of their number.
    pub fn iter(self) -> impl Iterator<Item = Property> {
        NAMES.iter().map(|(property, _)| *property).filter(move |property| self.contains(*property))
    }
}

impl fmt::Display for Properties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return formatter.write_str("nothing");
        }
        for (at, property) in self.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(formatter, "{separator}{property}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_prints_its_own_number() {
        for (at, (property, _)) in NAMES.iter().enumerate() {
            assert_eq!(*property as usize, at + 1);
        }
        assert_eq!(
            Properties::of(&[Integrity, FifoMulticast]).to_string(),
            "P4 (reliable FIFO multicast), P17 (integrity)"
        );
    }
}
