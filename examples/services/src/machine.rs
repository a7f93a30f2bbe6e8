//! What is replicated.

/// A deterministic machine: the same commands in the same order make the same machine and the same replies.
pub trait Machine: Default + 'static {
    /// Executes a command and returns the reply. What it does not understand it says so, and stays as it is.
    fn execute(&mut self, command: &str) -> String;

    /// Everything that later replies depend on.
    fn save(&self) -> Vec<u8>;

    /// The machine that [`Machine::save`] gave these bytes.
    ///
    /// # Errors
    /// If it gave no such bytes.
    fn load(bytes: &[u8]) -> Result<Self, String>;
}

/// A digest of bytes: two states with the same one are taken to be equal (64 bits, FNV-1a).
pub fn digest(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The lines of a saved state.
///
/// # Errors
/// If it is no text.
pub(crate) fn lines(bytes: &[u8]) -> Result<std::str::Lines<'_>, String> {
    std::str::from_utf8(bytes).map(str::lines).map_err(|error| format!("the state is no text: {error}"))
}
