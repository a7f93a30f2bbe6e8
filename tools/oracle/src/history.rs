//! Histories: what happened at the interface between applications and their endpoints.

use std::fmt;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

/// One life of one process; members of views are incarnations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "m{}", self.0)
    }
}

/// A view id: ordered by counter, then by the incarnation of the coordinator that proposed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ViewId {
    /// Grows with every view.
    pub counter: u64,
    /// Who proposed it.
    pub coordinator: Incarnation,
}

impl fmt::Display for ViewId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "view {}@{}", self.counter, self.coordinator)
    }
}

/// What is remembered of a payload: enough to notice that it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Content {
    /// Length of the payload.
    pub bytes: u32,
    /// [`Content::hash_of`] the payload.
    pub hash: u64,
}

impl Content {
    /// What is remembered of `payload`.
    pub fn of(payload: &[u8]) -> Content {
        Content { bytes: payload.len() as u32, hash: Content::hash_of(payload) }
    }

    /// A 64-bit hash that is the same in every process. Two independent chains, so that long payloads are not bound
    /// by the latency of one multiplication.
    pub fn hash_of(payload: &[u8]) -> u64 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let (mut even, mut odd) = (payload.len() as u64 ^ ODD, !ODD);
        let mut pairs = payload.chunks_exact(16);
        for pair in &mut pairs {
            let word =
                |from: usize| u64::from_le_bytes(pair[from..from + 8].try_into().expect("eight bytes"));
            even = (even ^ word(0)).wrapping_mul(ODD).rotate_left(29);
            odd = (odd ^ word(8)).wrapping_mul(ODD).rotate_left(31);
        }
        let mut rest = [0; 16];
        rest[..pairs.remainder().len()].copy_from_slice(pairs.remainder());
        let (low, high) = rest.split_at(8);
        even ^= u64::from_le_bytes(low.try_into().expect("eight bytes"));
        odd ^= u64::from_le_bytes(high.try_into().expect("eight bytes"));
        let mut hash = even.wrapping_mul(ODD) ^ odd.rotate_left(17).wrapping_mul(ODD);
        hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        hash ^ (hash >> 32)
    }
}

/// Which of the two matrices of design section 6 a stability report speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Endpoints have it.
    Held,
    /// Applications acknowledged it.
    Seen,
}

/// The two kinds of application traffic; they are numbered apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// To the whole view.
    Cast,
    /// To some members.
    Send,
}

/// Names a message: the `sequence`-th cast, or send, that `origin` issued, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageName {
    /// Cast or send.
    pub traffic: Traffic,
    /// Who issued it.
    pub origin: Incarnation,
    /// Which of those it issued.
    pub sequence: u64,
}

impl fmt::Display for MessageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traffic = match self.traffic {
            Traffic::Cast => "cast",
            Traffic::Send => "send",
        };
        write!(formatter, "{traffic} {}#{}", self.origin, self.sequence)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// This incarnation began to live, as a process that keeps its number over restarts.
    Start {
        /// The process.
        process: u32,
    },
    /// A view was installed. A transitional view precedes a regular one and belongs to the regular view before it.
    View {
        /// Its id.
        view: ViewId,
        /// Its members in rank order.
        members: Vec<Incarnation>,
        /// Whether it is a transitional one.
        #[serde(default)]
        transitional: bool,
    },
    /// A cast was accepted. Accepted casts are numbered from 1; refused ones have no number.
    CastIssued {
        /// Its number.
        sequence: u64,
        /// Its payload.
        content: Content,
        /// The view it was issued in; none if it was queued during a view change: then `CastPlaced` follows.
        view: Option<ViewId>,
        /// Whether it is agreed and not safe, in a stack that promises safe delivery.
        #[serde(default)]
        agreed: bool,
    },
    /// A queued cast has gone out.
    CastPlaced {
        /// Its number.
        sequence: u64,
        /// The view it went out in.
        view: ViewId,
    },
    /// A cast was refused; nothing of it may arrive.
    CastRefused {
        /// The error, in a word or two.
        reason: String,
    },
    /// The endpoint said that sends of this view to a member may be lost.
    SendsLost {
        /// To whom they were.
        to: Incarnation,
    },
    /// A send was accepted. Sends are numbered from 1, apart from casts.
    SendIssued {
        /// Its number.
        sequence: u64,
        /// Its payload.
        content: Content,
        /// Who is to get it.
        to: Vec<Incarnation>,
        /// The view it was issued in.
        view: ViewId,
    },
    /// A send was refused; nothing of it may arrive.
    SendRefused {
        /// The error, in a word or two.
        reason: String,
    },
    /// A cast was delivered.
    CastDelivered {
        /// Who issued it, as the endpoint says.
        origin: Incarnation,
        /// Its number; 0 if it is none that the origin ever issued.
        sequence: u64,
        /// The payload as it came out.
        content: Content,
        /// The regular view it was delivered in.
        view: ViewId,
    },
    /// A send was delivered.
    SendDelivered {
        /// Who issued it, as the endpoint says.
        origin: Incarnation,
        /// Its number; 0 if it is none that the origin ever issued.
        sequence: u64,
        /// The payload as it came out.
        content: Content,
        /// The regular view it was delivered in.
        view: ViewId,
    },
    /// The application acknowledged every cast of one origin that it had got in this view, up to one of them.
    Seen {
        /// Whose casts.
        origin: Incarnation,
        /// Up to which number.
        through: u64,
    },
    /// The endpoint reported stability: at `members` members of this view at least, every cast that `origin` issued
    /// in it, up to number `through`.
    Stable {
        /// Held or seen.
        measure: Measure,
        /// Whose casts.
        origin: Incarnation,
        /// Up to which number.
        through: u64,
        /// At how many members, `origin` included.
        members: u32,
    },
    /// The application's state, as it is when a view is installed: before anything is delivered in it.
    State {
        /// The view.
        view: ViewId,
        /// Whose it is: another one than the group's before where somebody went on without that; 0 if nobody did.
        line: u64,
        /// A digest of the state.
        digest: u64,
    },
    /// The endpoint was in a view of which the application was never told: the group's state had not come when the next
    /// one followed.
    Passed {
        /// Its id.
        view: ViewId,
        /// Its members in rank order.
        members: Vec<Incarnation>,
    },
    /// The process died.
    Crash,
    /// The member left or was excluded, and knows it.
    Exit {
        /// Why.
        reason: String,
    },
}

/// Something that happened, when, and to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds on a clock that all members of the history share.
    pub at: u64,
    /// To whom.
    pub member: Incarnation,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:>12.6} ms  {:<4} ", self.at as f64 / 1e6, self.member.to_string())?;
        match &self.what {
            What::Start { process } => write!(formatter, "starts as process {process}"),
            What::View { view, members, transitional } => {
                let kind = if *transitional { "transitional " } else { "" };
                write!(formatter, "installs {kind}{view} of")?;
                members.iter().try_for_each(|member| write!(formatter, " {member}"))
            }
            What::CastIssued { sequence, content, view, agreed } => {
                let agreed = if *agreed { "agreed " } else { "" };
                write!(formatter, "casts {agreed}#{sequence} ({} B)", content.bytes)?;
                match view {
                    Some(view) => write!(formatter, " in {view}"),
                    None => formatter.write_str(", queued"),
                }
            }
            What::CastPlaced { sequence, view } => write!(formatter, "places cast #{sequence} in {view}"),
            What::CastRefused { reason } => write!(formatter, "is refused a cast: {reason}"),
            What::SendIssued { sequence, content, to, view } => {
                write!(formatter, "sends #{sequence} ({} B) in {view} to", content.bytes)?;
                to.iter().try_for_each(|member| write!(formatter, " {member}"))
            }
            What::SendsLost { to } => write!(formatter, "hears that sends to {to} may be lost"),
            What::SendRefused { reason } => write!(formatter, "is refused a send: {reason}"),
            What::CastDelivered { origin, sequence, content, view } => {
                write!(formatter, "delivers cast {origin}#{sequence} ({} B) in {view}", content.bytes)
            }
            What::SendDelivered { origin, sequence, content, view } => {
                write!(formatter, "delivers send {origin}#{sequence} ({} B) in {view}", content.bytes)
            }
            What::Seen { origin, through } => write!(formatter, "acknowledges casts to {origin}#{through}"),
            What::Stable { measure, origin, through, members } => {
                let measure = match measure {
                    Measure::Held => "held",
                    Measure::Seen => "seen",
                };
                write!(formatter, "hears that {origin}#{through} is {measure} at {members} members")
            }
            What::State { view, digest, .. } => write!(formatter, "has the state {digest:016x} in {view}"),
            What::Passed { view, members } => {
                write!(formatter, "passes {view} without the state, of")?;
                members.iter().try_for_each(|member| write!(formatter, " {member}"))
            }
            What::Crash => formatter.write_str("crashes"),
            What::Exit { reason } => write!(formatter, "exits: {reason}"),
        }
    }
}

/// A run, as seen at the interface: events of all members in the order in which they happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The events. Those of one member are in the order in which they happened to it.
    pub events: Vec<Event>,
}

/// A history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Reading failed.
    #[error("the history cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A line is not an event.
    #[error("line {line} of the history is not an event: {source}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
}

impl History {
    /// Appends an event.
    pub fn push(&mut self, at: u64, member: Incarnation, what: What) {
        self.events.push(Event { at, member, what });
    }

    /// Writes one JSON object per line.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for event in &self.events {
            serde_json::to_writer(&mut *out, event)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Reads what [`History::write`] wrote; empty lines are skipped.
    ///
    /// # Errors
    /// If `input` cannot be read or holds something else.
    pub fn read(input: impl BufRead) -> Result<History, HistoryError> {
        let mut events = Vec::new();
        for (at, line) in input.lines().enumerate() {
            let line = line?;
            if !line.trim().is_empty() {
                let event = serde_json::from_str(&line)
                    .map_err(|source| HistoryError::Line { line: at + 1, source })?;
                events.push(event);
            }
        }
        Ok(History { events })
    }

    /// One history out of the logs of several processes on one clock: by time, and within one time in the order
    /// given. Each log's own order is kept.
    pub fn merged(logs: impl IntoIterator<Item = History>) -> History {
        let mut events: Vec<Event> = logs.into_iter().flat_map(|log| log.events).collect();
        events.sort_by_key(|event| event.at);
        History { events }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_survives_its_file() {
        let view = ViewId { counter: 3, coordinator: Incarnation(9) };
        let content = Content { bytes: 3, hash: u64::MAX - 1 };
        let mut history = History::default();
        let (a, b) = (Incarnation(1), Incarnation(2));
        history.push(0, a, What::Start { process: 7 });
        history.push(1, a, What::View { view, members: vec![a, b], transitional: true });
        history.push(2, a, What::CastIssued { sequence: 1, content, view: Some(view), agreed: false });
        history.push(2, a, What::CastIssued { sequence: 2, content, view: None, agreed: true });
        history.push(3, a, What::CastPlaced { sequence: 2, view });
        history.push(3, a, What::CastRefused { reason: "window full".into() });
        history.push(4, a, What::SendIssued { sequence: 1, content, to: vec![b], view });
        history.push(5, a, What::SendRefused { reason: "too long".into() });
        history.push(6, b, What::CastDelivered { origin: a, sequence: 1, content, view });
        history.push(7, b, What::SendDelivered { origin: a, sequence: 1, content, view });
        history.push(8, b, What::Seen { origin: a, through: 1 });
        history.push(9, b, What::Stable { measure: Measure::Seen, origin: a, through: 1, members: 2 });
        history.push(10, a, What::Crash);
        history.push(u64::MAX, b, What::Exit { reason: "asked to".into() });
        let mut file = Vec::new();
        history.write(&mut file).unwrap();
        assert_eq!(file.iter().filter(|byte| **byte == b'\n').count(), history.events.len());
        assert_eq!(History::read(&file[..]).unwrap(), history);
    }

    #[test]
    fn a_line_that_is_no_event_is_named() {
        let error = History::read(&b"\n{\"at\":1,\"member\":2,\"event\":\"fly\"}\n"[..]).unwrap_err();
        assert!(error.to_string().starts_with("line 2 "), "{error}");
    }

    #[test]
    fn merging_keeps_each_log_in_its_order() {
        let log = |member, times: &[u64]| {
            let mut log = History::default();
            for (process, at) in times.iter().enumerate() {
                log.push(*at, Incarnation(member), What::Start { process: process as u32 });
            }
            log
        };
        let merged = History::merged([log(1, &[5, 5, 9]), log(2, &[1, 5])]);
        let order: Vec<(u64, u64)> = merged.events.iter().map(|event| (event.at, event.member.0)).collect();
        assert_eq!(order, [(1, 2), (5, 1), (5, 1), (5, 2), (9, 1)]);
        assert_eq!(merged.events[2].what, What::Start { process: 1 });
    }

    #[test]
    fn every_byte_of_a_payload_counts() {
        let payload: Vec<u8> = (0..45).collect();
        let whole = Content::of(&payload);
        for at in 0..payload.len() {
            let mut other = payload.clone();
            other[at] ^= 1;
            assert_ne!(Content::of(&other), whole, "byte {at}");
            assert_ne!(Content::of(&payload[..at]).hash, whole.hash, "first {at} bytes");
        }
        assert_ne!(Content::of(&[0; 16]).hash, Content::of(&[0; 17]).hash);
    }
}
