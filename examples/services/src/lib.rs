//! Replicated services: deterministic machines whose commands a group puts in one order.
//!
//! Each replica is a process. It reads requests from its standard input and writes replies to its standard output, a line
//! each, so that a shell, a test or a server in front of it can be its client:
//!
//! ```text
//! 1 put colour red        request number, command
//! 1 ok                    the reply, when every replica in the view holds the command and it took effect here
//! ```
//!
//! A reply promises that the command survives as long as a majority of the replicas does not fail at the same time. Replicas
//! without a majority refuse. A replica that is started again comes in as a new member and gets the state of the others; one
//! that was excluded by mistake ends with [`EXCLUDED`], and is to be started again.
//!
//! Only the public interface of `wadjet` is used, and this is how: [`machine::Machine`] is what differs between services;
//! [`replica`] is the rest.

pub mod book;
pub mod machine;
pub mod replica;
pub mod store;

/// The exit code of a replica that the others have excluded.
pub const EXCLUDED: i32 = 3;
