//! Fuzz targets for every decoder, and a driver that runs them on a stable compiler.
//!
//! A [`Target`] is a function from bytes to nothing: it panics when a property does not hold. Three things run it:
//!
//! - `cargo test -p wadjet-fuzz`: every seed, its truncations, its bit flips, and a few thousand mutations drawn from a
//!   fixed seed ([`campaign`]); `WADJET_FUZZ_MUTATIONS` asks for more;
//! - `cargo run --release -p wadjet-fuzz --bin fuzz`: the same for as long as one likes, and the replay of one input;
//! - `fuzz/guided.sh`: libFuzzer, guided by coverage.
//!
//! Inputs that once broke something lie in `fuzz/regressions/TARGET/` and are tried first, always.

pub mod campaign;
pub mod mutate;
pub mod targets;

/// One thing to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, on the command line and in `regressions/`.
    pub name: &'static str,
    /// The property it checks.
    pub what: &'static str,
    /// How much longer than the simplest decoder it takes: bounded campaigns try it as many times less often.
    pub weight: u64,
    /// Valid inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Panics when the property does not hold for these bytes.
    pub run: fn(&[u8]),
}

/// The target called `name`.
pub fn target(name: &str) -> Option<&'static Target> {
    targets::ALL.iter().find(|target| target.name == name)
}
