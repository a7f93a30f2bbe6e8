//! Packs.

use wadjet::wire::pack::{Messages, PackError, RUN_HEADER_BYTES, check, note, run_header};

use crate::Target;

/// [`check`] and [`Messages`].
pub(super) const PACK: Target = Target {
    name: "pack",
    what: "a pack that passes its check gives exactly the messages it counts, from its own bytes; others end early",
    weight: 1,
    seeds: || {
        let runs = |runs: &[(u16, u16)]| {
            let run = |&(count, size): &(u16, u16)| {
                let body = (0..u32::from(count) * u32::from(size)).map(|byte| byte as u8);
                run_header(count, size).into_iter().chain(body).collect::<Vec<u8>>()
            };
            runs.iter().flat_map(run).collect::<Vec<u8>>()
        };
        vec![
            runs(&[(1, 5)]),
            runs(&[(3, 8), (1, 0), (2, 1)]),
            runs(&[(20, 64)]),
            runs(&[(9, 0)]),
            run_header(0, 0).to_vec(),
        ]
    },
    run: |input| {
        let checked = check(input);
        // One more than were counted, so that a list that goes on is noticed and one that is forged costs no time.
        let most = checked.map_or(RUN_MESSAGES_LOOKED_AT, |counted| counted + 1);
        let (mut messages, mut bytes) = (0, 0);
        for message in Messages::pack(input).take(most) {
            assert!(input.as_ptr_range().contains(&message.as_ptr()) || message.is_empty());
            messages += 1;
            bytes += message.len();
        }
        match checked {
            Ok(counted) => {
                assert_eq!(messages, counted);
                assert!(bytes + RUN_HEADER_BYTES <= input.len());
                assert_eq!(counted == 0, note(input).is_some());
            }
            Err(PackError::Empty) => assert!(input.is_empty()),
            Err(_) => assert!(bytes < input.len()),
        }
    },
};

const RUN_MESSAGES_LOOKED_AT: usize = 1 << 16;
