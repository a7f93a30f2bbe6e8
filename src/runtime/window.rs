//! A window into a running member: a Unix stream socket at which it says what it has done so far.
//!
//! Whoever connects gets one report, as lines of text, and the end of the stream. The driver makes the report between two
//! iterations, when it is asked and not before; the data path knows nothing of it. The socket belongs to its user (mode
//! 0600), and nothing can be asked of the member through it but this.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::commands::Handle;
use crate::endpoint::{Dropped, GroupKey};
use crate::stats::Stats;
use crate::transport::TransportCounters;

/// What a member says of one of its groups.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its stack, top to bottom.
    pub stack: String,
    /// Its view.
    pub view: String,
    /// Its rank there.
    pub rank: u16,
    /// Members of the view.
    pub members: usize,
    /// What the group has done so far.
    pub stats: Stats,
    /// Frames dropped before any group saw them.
    pub dropped: Dropped,
    /// What the transport has done so far, for all groups together.
    pub transport: TransportCounters,
}

/// The first line of a report says which form it has.
const FORM: &str = "wadjet report 1";

/// How long a driver may take to answer; one that is stopped does not.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long a reader may take to read.
const READ_MAX: Duration = Duration::from_secs(2);

impl Report {
    /// The report as lines of text: a word that says what the line is about, then numbers, then names.
    pub fn lines(&self) -> String {
        let Report { stack, view, rank, members, stats, dropped, transport } = self;
        let fast = &stats.fast_path;
        let mut text = format!("{FORM}\nstack {stack}\nview {view}\nmember {rank} of {members}\n");
        let numbers = [
            ("send_hit", fast.send_hit),
            ("send_miss", fast.send_miss),
            ("deliver_hit", fast.deliver_hit),
            ("deliver_together", fast.deliver_together),
            ("deliver_early", fast.deliver_early),
            ("deliver_miss", fast.deliver_miss),
            ("casts", stats.casts),
            ("cast_frames", stats.cast_frames),
            ("sends", stats.sends),
            ("delivered", stats.delivered),
            ("sends_delivered", stats.sends_delivered),
            ("unacknowledged", stats.unacknowledged),
            ("retained", stats.retained),
            ("waiting", stats.waiting),
            ("retained_bytes", stats.retained_bytes),
            ("copies", stats.copies),
            ("transport_frames_sent", transport.frames_sent),
            ("transport_frames_received", transport.frames_received),
            ("transport_system_calls", transport.system_calls),
            ("transport_copies", transport.copies),
            ("transport_dropped", transport.dropped),
            ("transport_foreign", transport.foreign),
            ("transport_overrun", transport.overrun),
        ];
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            text.write_fmt(arguments).expect("strings take everything");
        };
        for (name, number) in numbers {
            line(format_args!("number {number} {name}\n"));
        }
        for (reason, number) in dropped.by_reason() {
            line(format_args!("number {number} dropped_{}\n", reason.replace(' ', "_")));
        }
        for miss in &stats.misses {
            line(format_args!("miss {} {} {} {}\n", miss.count, miss.plan, miss.layer, miss.reason));
        }
        for count in &stats.counts {
            line(format_args!("count {} {} {}\n", count.count, count.layer, count.what));
        }
        text
    }
}

/// Between two attempts when visitors cannot be let in.
const PAUSE: Duration = Duration::from_millis(100);

/// Keeps the window open; dropping it closes it and removes the socket.
#[derive(Debug)]
pub struct Window {
    path: PathBuf,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Window {
    /// Opens a window at `path` into the group of the driver behind `handle`. A socket that a dead process has left there is
    /// removed.
    ///
    /// # Errors
    /// If there is something at `path` that is in use or no socket, or the socket cannot be made.
    pub fn open(path: &Path, handle: Handle, group: GroupKey) -> io::Result<Window> {
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket());
        if is_socket && UnixStream::connect(path).is_err_and(refused) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let closing = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&closing);
        let serve = move || {
            for visitor in listener.incoming() {
                if ends.load(Ordering::Acquire) {
                    return;
                }
                // A visitor who goes away, or a driver that does not answer, is no reason to close the window.
                let Ok(mut visitor) = visitor else {
                    // Nobody can come in for lack of something, which trying at once does not bring.
                    thread::park_timeout(PAUSE);
                    continue;
                };
                let text = match handle.report(group, ANSWER_MAX) {
                    Ok(report) => report.lines(),
                    Err(error) => format!("{FORM}\nerror {error}\n"),
                };
                let limited = visitor.set_write_timeout(Some(READ_MAX));
                let _ = limited.and_then(|()| visitor.write_all(text.as_bytes()));
            }
        };
        let thread = thread::Builder::new().name("wadjet-window".to_owned()).spawn(serve)?;
        Ok(Window { path: path.to_owned(), closing, thread: Some(thread) })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // Wakes the thread, which waits for visitors.
        let woken = UnixStream::connect(&self.path).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_every_reason_for_which_frames_were_dropped_and_what_the_transport_did() {
        let dropped = Dropped {
            short: 11,
            foreign: 12,
            version: 13,
            unknown_cookie: 14,
            collided_cookie: 15,
            other_view: 16,
            not_a_member: 17,
            other_stack: 18,
            malformed: 19,
            own: 20,
            exited: 21,
        };
        let transport = TransportCounters {
            frames_sent: 31,
            frames_received: 32,
            system_calls: 33,
            copies: 34,
            dropped: 35,
            foreign: 36,
            overrun: 37,
        };
        let (stack, view) = ("COM".to_owned(), "1@1".to_owned());
        let report = Report { stack, view, rank: 0, members: 1, stats: Stats::default(), dropped, transport };
        let lines = report.lines();
        let numbers = |about: &str| -> Vec<u64> {
            let told = lines.lines().filter_map(|line| line.strip_prefix("number ")?.split_once(' '));
            told.filter(|(_, name)| name.starts_with(about))
                .map(|(number, _)| number.parse().unwrap())
                .collect()
        };
        assert_eq!(numbers("dropped_"), (11..=21).collect::<Vec<_>>(), "{lines}");
        assert_eq!(numbers("dropped_foreign"), [12], "{lines}");
        assert_eq!(numbers("dropped_not_a_member"), [17], "{lines}");
        assert_eq!(numbers("transport_"), (31..=37).collect::<Vec<_>>(), "{lines}");
        assert_eq!(numbers("transport_dropped"), [35], "{lines}");
    }
}
