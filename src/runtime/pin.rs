//! Pinning threads to cores.

use core_affinity::CoreId;

/// A thread cannot be pinned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The process may not use that core.
    #[error("core {wanted} is not among those this process may use ({available:?}); choose one of them")]
    NoSuchCore {
        /// The core asked for.
        wanted: usize,
        /// Those there are.
        available: Vec<usize>,
    },
    /// The system refused.
    #[error(
        "the system refused to pin this thread to core {0}; run without pinning or ask for the permission"
    )]
    Refused(usize),
}

/// The cores this process may use.
pub fn cores() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect()
}

/// Pins the calling thread to `core`.
///
/// # Errors
/// If this process may not use the core, or the system refuses.
pub fn pin(core: usize) -> Result<(), PinError> {
    let available = cores();
    if !available.contains(&core) {
        return Err(PinError::NoSuchCore { wanted: core, available });
    }
    if core_affinity::set_for_current(CoreId { id: core }) { Ok(()) } else { Err(PinError::Refused(core)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_is_not_there_is_refused_by_name() {
        let error = pin(100_000).unwrap_err();
        assert!(error.to_string().starts_with("core 100000 is not among"), "{error}");
    }

    #[test]
    fn a_pinned_thread_may_use_one_core() {
        let core = cores()[0];
        let seen = std::thread::spawn(move || pin(core).map(|()| cores())).join().unwrap();
        assert_eq!(seen, Ok(vec![core]));
    }
}
