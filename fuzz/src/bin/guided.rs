//! The coverage-guided runner: libFuzzer calls the target that `WADJET_FUZZ_TARGET` names. `fuzz/guided.sh` builds it
//! with the coverage instrumentation it needs.
#![no_main]

use std::env;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wadjet_fuzz::Target;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = env::var("WADJET_FUZZ_TARGET").expect("WADJET_FUZZ_TARGET names a target");
    wadjet_fuzz::target(&name).unwrap_or_else(|| panic!("there is no target `{name}`"))
});

fuzz_target!(|input: &[u8]| (TARGET.run)(input));
