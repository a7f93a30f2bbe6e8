//! Bodies of control messages.

use wadjet::id::Life;
use wadjet::wire::control::{GOSSIP_HEADER_BYTES, GossipRow, Identify, MISSING_RANGES_MAX, Missing};

use crate::Target;

/// [`GossipRow::decode`].
pub(super) const GOSSIP: Target = Target {
    name: "control-gossip",
    what: "a gossip row that decodes has exactly the values it announces, and encodes to the same bytes",
    weight: 1,
    seeds: || {
        let row = |ask, gossips: u8, first, subjects: u16| {
            let mut bytes = GossipRow::header(ask, gossips, first, subjects, Life(7), 1 << 40).to_vec();
            let values = 0..u64::from(gossips) * u64::from(subjects);
            bytes.extend(values.flat_map(|value| (value << 33).to_le_bytes()));
            bytes.extend((0..u32::from(subjects)).flat_map(|life| (life << 20).to_le_bytes()));
            bytes
        };
        vec![row(false, 1, 0, 1), row(true, 2, 3, 5), row(false, 4, 255, 16)]
    },
    run: |input| {
        let Ok(row) = GossipRow::decode(input) else { return };
        let header = GossipRow::header(row.ask, row.gossips, row.first, row.subjects, row.life, row.after);
        assert_eq!(header, input[..GOSSIP_HEADER_BYTES]);
        let (subjects, gossips) = (usize::from(row.subjects), usize::from(row.gossips));
        let values = (0..subjects).flat_map(|subject| (0..gossips).map(move |gossip| (subject, gossip)));
        let lives =
            (0..subjects).flat_map(|subject| row.life_of(subject).expect("announced").0.to_le_bytes());
        let bytes: Vec<u8> = values
            .flat_map(|(subject, gossip)| row.value(subject, gossip).expect("announced").to_le_bytes())
            .chain(lives)
            .collect();
        assert_eq!(bytes, input[GOSSIP_HEADER_BYTES..]);
        assert_eq!((row.value(subjects, 0), row.life_of(subjects)), (None, None));
    },
};

/// [`Identify::decode`].
pub(super) const IDENTIFY: Target = Target {
    name: "control-identify",
    what: "a request for full headers that decodes asks for something, is no gossip row, and encodes to the same bytes",
    weight: 1,
    seeds: || (1..=3).map(|what| vec![Identify::KIND, what]).collect(),
    run: |input| {
        let Ok(request) = Identify::decode(input) else { return };
        assert!(request.casts || request.sends);
        assert!(GossipRow::decode(input).is_err());
        assert_eq!(request.encode(), input[..]);
    },
};

/// [`Missing::decode`].
pub(super) const MISSING: Target = Target {
    name: "control-missing",
    what: "a repair request that decodes is ascending, without overlap or overflow, and encodes to the same bytes",
    weight: 1,
    seeds: || {
        let encode = |ranges: &[(u64, u16)]| {
            let mut bytes = Vec::new();
            Missing { origin: 1, ranges: ranges.to_vec() }.encode(&mut bytes);
            bytes
        };
        let many: Vec<(u64, u16)> = (0..MISSING_RANGES_MAX as u64).map(|at| (at * 100, 7)).collect();
        vec![encode(&[(0, 1)]), encode(&[(5, 3), (8, 1), (u64::MAX - 9, 9)]), encode(&many)]
    },
    run: |input| {
        let Ok(missing) = Missing::decode(input) else { return };
        assert!((1..=MISSING_RANGES_MAX).contains(&missing.ranges.len()));
        let mut end = 0;
        for &(from, count) in &missing.ranges {
            assert!(from >= end && count > 0);
            end = from.checked_add(u64::from(count)).expect("no range wraps");
        }
        let mut again = Vec::new();
        missing.encode(&mut again);
        assert_eq!(again, input);
    },
};
