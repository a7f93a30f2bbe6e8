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
//! A reply promises that the command survives as long as no majority of the replicas is failed at any one time, whatever is
//! partitioned: a replica is failed from when it crashes, or ends by itself, until it has been started again and has told
//! the others that it has the state (its line `epoch N`; see [`quorum`]). Without a majority that remembers, commands are
//! refused. If a majority did fail, the service goes on when *all* are back, with the latest state that any of them has;
//! if none has any, empty. So it begins, too: when all replicas have been started.
//!
//! There are never more processes than `--replicas`. *A replacement is started only when the replaced one is dead for good*,
//! on whatever host: a replica that is merely cut off still has its vote, and with that of its replacement the two halves
//! of the group could each have a majority. In a view with more members than replicas commands wait (`waits:`) until one
//! has ended. All are started with the same `--replicas`; where they are not, commands wait, and the fewer end with
//! [`WRONG`].
//!
//! Limits: the state is saved in one piece, in the driver, whenever a replica comes in, so that it must take less than the
//! time-outs of SUSPECT (some 10 ms); a survivor hands a later state over in one message (`message_bytes_max`, 16 MiB); and
//! a request is a line of at most 1391 bytes ([`replica::REQUEST_BYTES_MAX`]).
//!
//! A reply may be `refused` (it did not happen; ask again) or `unknown` (it may have happened; so for a request without a
//! reply when the replica ends): ask what became of it before it is done again. What closes a view is answered when a
//! majority has gone on from there. What is no request (`too long`, `no text`) no replica ever takes, and it did not happen.
//!
//! A replica that is started again comes in as a new member and gets the state of the others; one that was excluded by
//! mistake ends with [`EXCLUDED`], one that could not get the state, or whose address is still in use, with 1; both are to be
//! started again. One that was started wrongly ends with [`WRONG`] and says what is wrong.
//!
//! Only the public interface of `wadjet` is used, and this is how: [`machine::Machine`] is what differs between services;
//! [`quorum`] is when a reply may be
//! given, and [`replica`] is the rest.

pub mod book;
pub mod machine;
pub mod quorum;
pub mod replica;
pub mod store;

/// The exit code of a replica that the others have excluded.
pub const EXCLUDED: i32 = 3;
/// The exit code of a replica that was started wrongly, and is not to be started again like that: with options that cannot
/// be taken, with a stack that does not promise what replies do, or with another `--replicas` than most.
pub const WRONG: i32 = 2;
/// The exit code of a replica whose client does not read its replies.
pub const NOT_READ: i32 = 4;
