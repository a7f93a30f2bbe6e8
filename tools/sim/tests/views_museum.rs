//! Layers of live groups that are wrong on purpose, in worlds of the simulator: each variant must be caught.

mod rooms;

use rooms::{EXPULSION, MEMBERSHIP, OF_SOME, SEEDS, UNSEEN, layer, layer_among_slow, membership, survivors};

#[test]
fn every_broken_membership_is_caught_where_the_sound_one_is_not() {
    let room: Vec<_> = MEMBERSHIP.iter().map(|(variant, seed)| ("MBRSHIP", *variant, *seed)).collect();
    let survivors = survivors(&room, |_, variant, seed| membership(variant, seed));
    assert!(survivors.is_empty(), "not caught in {SEEDS} seeds: {survivors:?}");
}

#[test]
fn broken_transfers_and_fragments_are_caught_where_sound_ones_are_not() {
    let survivors = survivors(OF_SOME, layer);
    assert!(survivors.is_empty(), "not caught in {SEEDS} seeds: {survivors:?}");
}

#[test]
fn expulsions_of_the_wrong_and_without_a_word_are_caught_where_sound_ones_are_not() {
    let survivors = survivors(EXPULSION, layer_among_slow);
    assert!(survivors.is_empty(), "not caught in {SEEDS} seeds: {survivors:?}");
}

#[test]
fn so_are_those_that_were_written_without_a_look_at_these_tests() {
    let survivors = survivors(UNSEEN, layer);
    assert!(survivors.is_empty(), "not caught in {SEEDS} seeds: {survivors:?}");
}
