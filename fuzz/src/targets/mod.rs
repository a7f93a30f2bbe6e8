//! The targets, one file per place that reads foreign bytes.

mod control;
mod endpoint;
mod fragments;
mod group;
mod header;
mod letters;
mod node;
mod pack;
mod segment;
mod spec;

use crate::Target;

/// Every target.
pub const ALL: &[Target] = &[
    header::FULL,
    header::COMPRESSED,
    pack::PACK,
    control::GOSSIP,
    control::IDENTIFY,
    control::MISSING,
    spec::SPEC,
    endpoint::ENDPOINT,
    group::GROUP,
    fragments::FRAGMENTS,
    segment::SEGMENT,
    letters::LETTERS,
];
