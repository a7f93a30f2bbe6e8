//! Whether what clients saw of registers could have happened one operation at a time (linearisability).
//!
//! Each value is written once, so a read tells which write it saw. A write and the reads that saw it are a *cluster*; each of
//! its operations takes effect at some moment between its start and its end. From the first end to the last start of a
//! cluster (if they are in this sequence) the register must have held its value all the time; where the sequence is the
//! other one, some moment between them is enough. So there is an order if and only if no read ended before its write
//! began, no two spans of the first kind meet, and none of the second kind lies within one of the first (Gibbons and
//! Korach, "Testing shared memories", 1997).

use std::collections::BTreeMap;

/// What a client did to a register, and saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) key: String,
    /// Written or read; `None`: the read found nothing.
    pub(super) value: Option<String>,
    pub(super) is_write: bool,
    pub(super) start: u64,
    /// When the client heard of it; `u64::MAX`: it never did, and the write may have happened or not.
    pub(super) end: u64,
}

/// All that has to do with one value of a register.
#[derive(Debug)]
struct Cluster<'h> {
    value: Option<&'h str>,
    write: u64,
    first_end: u64,
    last_start: u64,
}

/// # Errors
/// In words: what cannot have happened one operation at a time.
pub(super) fn check(history: &[Operation]) -> Result<(), String> {
    let mut registers: BTreeMap<&str, BTreeMap<Option<&str>, Cluster<'_>>> = BTreeMap::new();
    for Operation { key, value, start, end, .. } in history.iter().filter(|operation| operation.is_write) {
        let register = registers.entry(key).or_default();
        let cluster = Cluster { value: value.as_deref(), write: *start, first_end: *end, last_start: *start };
        if register.insert(value.as_deref(), cluster).is_some() {
            return Err(format!("{value:?} is written to {key} twice"));
        }
    }
    for read in history.iter().filter(|operation| !operation.is_write) {
        let register = registers.entry(&read.key).or_default();
        if read.value.is_none() {
            // That is what there was before.
            register.entry(None).or_insert(Cluster { value: None, write: 0, first_end: 0, last_start: 0 });
        }
        let Some(cluster) = register.get_mut(&read.value.as_deref()) else {
            return Err(format!("{read:?}: that was never written"));
        };
        if read.end < cluster.write {
            return Err(format!("{read:?}: that was written later, at {}", cluster.write));
        }
        cluster.first_end = cluster.first_end.min(read.end);
        cluster.last_start = cluster.last_start.max(read.start);
    }
    for (key, register) in &registers {
        let lasting = |cluster: &&Cluster<'_>| cluster.first_end < cluster.last_start;
        for one in register.values().filter(lasting) {
            for other in register.values().filter(|other| other.value != one.value) {
                let both =
                    lasting(&other) && other.first_end < one.last_start && one.first_end < other.last_start;
                let within =
                    !lasting(&other) && one.first_end < other.last_start && other.first_end < one.last_start;
                if both || within {
                    return Err(format!("{key} cannot have had both values: {one:?}, {other:?}"));
                }
            }
        }
    }
    Ok(())
}

fn operation(is_write: bool, value: &str, start: u64, end: u64) -> Operation {
    Operation { key: "k".to_owned(), value: Some(value.to_owned()), is_write, start, end }
}

#[test]
fn what_happened_at_overlapping_times_may_have_happened_in_either_order() {
    let write = |value, start, end| operation(true, value, start, end);
    let read = |value, start, end| operation(false, value, start, end);
    let fine = [
        vec![write("a", 1, 2), write("b", 3, 6), read("a", 4, 5)],
        vec![write("a", 1, 2), write("b", 3, 6), read("b", 4, 5)],
        vec![write("a", 1, 9), write("b", 2, 8), read("b", 3, 4), read("a", 5, 6)],
        // A write of which nobody heard: it happened, or it did not, or much later.
        vec![write("a", 1, u64::MAX), write("b", 2, 3), read("b", 4, 5), read("a", 6, 7)],
        vec![write("a", 1, u64::MAX), write("b", 2, 3), read("b", 4, 5), read("b", 6, 7)],
    ];
    for history in fine {
        assert_eq!(check(&history), Ok(()), "{history:?}");
    }
}

#[test]
fn what_local_reads_show_is_found_out() {
    let write = |value, start, end| operation(true, value, start, end);
    let read = |value, start, end| operation(false, value, start, end);
    let nothing = Operation { value: None, ..read("", 3, 4) };
    let wrong = [
        // Stale: another value was acknowledged before the read began.
        vec![write("a", 1, 2), write("b", 3, 4), read("a", 5, 6)],
        vec![write("a", 1, 2), nothing],
        // Back: a reader has seen the new value, and a later one sees the old one, while the write goes on.
        vec![write("a", 1, 2), write("b", 3, 10), read("b", 4, 5), read("a", 6, 7)],
        // Lost, after one whom nobody answered was seen.
        vec![write("a", 1, 2), write("b", 3, u64::MAX), read("b", 4, 5), read("a", 6, 7)],
        // From the future, and from nowhere.
        vec![read("a", 1, 2), write("a", 3, 4)],
        vec![read("a", 1, 2)],
        // Two readers that see two writes in two orders.
        vec![write("a", 1, 20), write("b", 2, 21), read("a", 3, 4), read("b", 5, 6), read("a", 7, 8)],
    ];
    for history in wrong {
        assert!(check(&history).is_err(), "{history:?}");
    }
}
