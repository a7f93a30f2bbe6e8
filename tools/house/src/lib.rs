//! Keeps the house: checks that a compiler does not make.
//!
//! - [`dependencies`]: the licences, bans and sources that `deny.toml` states, from what `cargo metadata` says;
//! - [`documents`]: links between documents lead somewhere, and the README's example is `examples/hello.rs`;
//! - [`words`]: nothing in the repository leans on the machine it was written on.
//!
//! Each check returns its complaints as lines for a person; none means all is well.

pub mod dependencies;
pub mod documents;
pub mod licence;
pub mod words;

/// What is wrong, a line each.
pub type Complaints = Vec<String>;
