//! How the system asks a process to end: the first SIGINT, SIGTERM or SIGHUP is for the process to obey, a second one ends it
//! at once. And what is said meanwhile, when those who read it may have got the same signal.

use std::fmt::Arguments;
use std::fs::read_to_string;
use std::io::{Error, ErrorKind, Write, stdout};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// What asks a process to end.
const SIGNALS: [(i32, &str); 3] = [(SIGINT, "SIGINT"), (SIGTERM, "SIGTERM"), (SIGHUP, "SIGHUP")];
/// What a shell says of a program that a signal ended: this and the signal.
const ENDED_BY: i32 = 128;
/// `EIO`: the terminal is gone.
const NO_TERMINAL: i32 = 5;

/// Somebody has asked this process to end, and by which signal.
static ASKED: AtomicBool = AtomicBool::new(false);
static BY: AtomicUsize = AtomicUsize::new(0);

/// From now on a signal is for [`asked`] to tell. One that this process was started to ignore it goes on to ignore: so
/// `nohup` works, and Ctrl-C does not reach what a script runs beside itself.
///
/// # Errors
/// If the system does not let signals be handled.
pub(crate) fn listen() -> Result<(), Error> {
    let ignored = read_to_string("/proc/self/status").map_or(0, |status| ignored(&status));
    for (signal, _) in SIGNALS.iter().filter(|(signal, _)| ignored >> (signal - 1) & 1 == 0) {
        // In this order: who was asked before ends here.
        flag::register_conditional_shutdown(*signal, ENDED_BY + signal, &ASKED)?;
        flag::register_usize(*signal, &BY, *signal as usize)?;
        flag::register(*signal, &ASKED)?;
    }
    Ok(())
}

/// From now on a signal ends this process after `undo` was called, as that signal does: so whoever waits for it is told.
///
/// # Errors
/// If the system does not let signals be handled, or starts no thread.
pub(crate) fn undo_at_the_end(undo: fn()) -> Result<(), Error> {
    let ignored = read_to_string("/proc/self/status").map_or(0, |status| ignored(&status));
    let signals = SIGNALS.iter().map(|(signal, _)| *signal);
    let mut signals = Signals::new(signals.filter(|signal| ignored >> (signal - 1) & 1 == 0))?;
    thread::Builder::new().name("undo".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            undo();
            // It ends here; what else could be done about it?
            drop(emulate_default_handler(signal));
        }
    })?;
    Ok(())
}

/// By which signal this process was asked to end, if it was.
pub(crate) fn asked() -> Option<&'static str> {
    let by = || BY.load(Ordering::SeqCst) as i32;
    let name = || SIGNALS.iter().find(|(signal, _)| *signal == by()).map_or("a signal", |(_, name)| *name);
    ASKED.load(Ordering::SeqCst).then(name)
}

/// The signals that are ignored, from the lowest bit on, by what the system says of a process.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// What is behind [`say!`].
pub(crate) fn print(line: Arguments<'_>) {
    let Err(error) = writeln!(stdout().lock(), "{line}") else { return };
    let heard_the_same = asked().is_some() && error.kind() == ErrorKind::BrokenPipe;
    // As `println!`, which says so to whoever looks after this program's end.
    assert!(
        heard_the_same || error.raw_os_error() == Some(NO_TERMINAL),
        "failed printing to stdout: {error}"
    );
}

/// As `println!`; but that nobody reads any more keeps nobody from leaving who was asked to: Ctrl-C ends the other programs of
/// a pipeline, too, and a terminal that is closed takes no words.
macro_rules! say {
    ($($word:tt)*) => { crate::ending::print(format_args!($($word)*)) };
}
pub(crate) use say;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_ignores_is_read_from_its_status() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000004002\n";
        assert_eq!(ignored(status), 1 << (SIGHUP - 1) | 1 << 12);
        assert_eq!(ignored("Name:\twadjet\n"), 0);
    }
}
