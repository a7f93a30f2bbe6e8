//! Messages outside any view: a Unix datagram socket per bound address, in the segments' directory.
//!
//! A socket's file is named by group and address, so that whoever knows both finds it, and who reads the directory finds
//! all of a group. The file of a process that has died stays; nobody answers there, which is how it is recognised and
//! removed. Making, probing and removing are done under a lock of this user's processes: between finding a socket dead and
//! removing its name, nobody else puts a live one there. Who cannot have the lock makes its socket all the same, and leaves
//! the removing to others: nobody's being stopped, or unwilling, keeps a group from starting.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::buf::{Region, RegionOptions};
use crate::id::{GroupId, Hasher64};
use crate::transport::{ChannelId, OUTSIDE_BYTES_MAX, Outside, Received, TransportCounters, TransportError};
use crate::view::Address;

use super::owner::Owner;
use super::segment;

/// What passes outside any view.
pub(super) struct Post {
    directory: PathBuf,
    boxes: Vec<Letterbox>,
    /// Sends for groups without a letterbox.
    sender: Option<UnixDatagram>,
    /// Where letters are read; made with the first letterbox.
    letters: Option<Region>,
    /// Of addresses at which this process looked for one group and there is only another.
    pub(super) notes: Vec<String>,
}

/// An address at which this process is reached.
struct Letterbox {
    group: GroupId,
    address: Address,
    path: PathBuf,
    socket: UnixDatagram,
}

/// Letters that may be held at once; further ones wait in the socket, and then are lost.
const LETTERS_MAX: usize = 64;
/// Letters taken at one look.
pub(super) const LOOK_LETTERS: usize = 8;
/// How long and how often another process is waited for that makes or removes a socket.
const LOCK_PAUSE: Duration = Duration::from_millis(1);
const LOCK_TRIES: usize = 200;
/// The file that is locked, one of each user's: nobody else can open it.
const LOCK: &str = ".wadjet-lock-";
/// Names that are looked at when the directory is searched.
const NAMES_MAX: usize = 4096;
/// So many are told that only another group is where they look.
const NOTES_MAX: usize = 16;
/// A longer or stranger address is named by its hash.
const LABEL_BYTES_MAX: usize = 40;
/// What the system allows for a socket's path, without the zero at its end.
const PATH_BYTES_MAX: usize = 107;

impl Post {
    pub(super) fn new(directory: PathBuf) -> Post {
        Post { directory, boxes: Vec::new(), sender: None, letters: None, notes: Vec::new() }
    }

    /// Makes this process reachable at `address`, instead of where it was before, and removes what dead processes of
    /// the group have left.
    pub(super) fn bind(
        &mut self,
        group: GroupId,
        address: &Address,
        here: &Owner,
    ) -> Result<(), TransportError> {
        if self.boxes.iter().any(|bound| bound.group == group && bound.address == *address) {
            return Ok(());
        }
        if self.letters.is_none() {
            self.letters = Some(Region::pool(RegionOptions {
                frames: LETTERS_MAX,
                link_headroom_bytes: 0,
                frame_bytes: OUTSIDE_BYTES_MAX,
                reserve_frames: 0,
                huge_pages: false,
            })?);
        }
        let path = self.path(group, address);
        if path.as_os_str().len() > PATH_BYTES_MAX {
            let why =
                "the path of its socket is longer than 107 bytes; choose a directory with a shorter name";
            return Err(TransportError::BadAddress(address.clone(), why));
        }
        let lock = lock(&self.directory, LOCK_TRIES);
        segment::remove_dead(names(&self.directory, &segment::prefix(group), NAMES_MAX), here);
        // Without the lock only two processes that want one address at one time can get in each other's way.
        let socket = bind(&path, address)?;
        drop(lock);
        self.boxes.retain(|bound| bound.group != group);
        self.boxes.push(Letterbox { group, address: address.clone(), path, socket });
        Ok(())
    }

    /// The segments in the directory, of whatever group.
    pub(super) fn segments(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let socket = |path: &PathBuf| path.file_name().is_some_and(|name| is_name_of_socket(name.as_bytes()));
        names(&self.directory, segment::PREFIX, NAMES_MAX).filter(move |path| !socket(path))
    }

    /// Removes what dead processes have left, of whatever group.
    #[cold]
    pub(super) fn sweep(&self, here: &Owner) {
        segment::remove_dead(names(&self.directory, segment::PREFIX, NAMES_MAX), here);
        for path in names(&self.directory, segment::PREFIX, NAMES_MAX) {
            if is_socket_of_this_user(&path) {
                remove_if_dead(&self.directory, &path);
            }
        }
    }

    /// Sends, best effort.
    pub(super) fn send(
        &mut self,
        group: GroupId,
        to: &Outside,
        bytes: &[u8],
        counters: &mut TransportCounters,
    ) {
        if bytes.len() > OUTSIDE_BYTES_MAX {
            counters.dropped += 1;
            return;
        }
        match to {
            Outside::To(address) => {
                let path = self.path(group, address);
                self.send_to(group, &path, bytes, counters);
            }
            Outside::Discover => {
                let own: Vec<PathBuf> = self.boxes.iter().map(|bound| bound.path.clone()).collect();
                counters.system_calls += 1;
                for path in names(&self.directory, &prefix(group), NAMES_MAX) {
                    if !own.contains(&path) {
                        self.send_to(group, &path, bytes, counters);
                    }
                }
            }
        }
    }

    fn send_to(&mut self, group: GroupId, path: &Path, bytes: &[u8], counters: &mut TransportCounters) {
        counters.system_calls += 2;
        if !is_socket_of_this_user(path) {
            return;
        }
        let bound = self.boxes.iter().position(|bound| bound.group == group);
        if bound.is_none() && self.sender.is_none() {
            self.sender = private_socket().ok();
        }
        let bound = bound.map(|index| &self.boxes[index].socket);
        let Some(socket) = bound.or(self.sender.as_ref()) else { return };
        let sent = socket.send_to(bytes, path);
        // Whatever else went wrong (a full socket, no such file), the message is lost, as messages are.
        if sent.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            remove_if_dead(&self.directory, path);
        }
    }

    /// If nobody of this group is at `address`, but somebody of another one is, that is worth a note.
    #[cold]
    pub(super) fn note_another_group(
        &mut self,
        group: GroupId,
        address: &Address,
        counters: &mut TransportCounters,
    ) {
        counters.system_calls += 1;
        if self.notes.len() == NOTES_MAX || is_socket_of_this_user(&self.path(group, address)) {
            return;
        }
        let end = format!("-at-{}", label(address));
        let of_another = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?;
            let other = name.strip_prefix(segment::PREFIX)?.strip_suffix(&end)?.to_owned();
            (is_socket_of_this_user(path) && !is_dead(path)).then_some(other)
        };
        counters.system_calls += 1;
        let here = names(&self.directory, segment::PREFIX, NAMES_MAX).find_map(|path| of_another(&path));
        let note = here.map(|other| {
            format!(
                "nobody of group {group} is at {address}, but somebody of group {other} is: are the names of the groups, \
                 and the address, right?"
            )
        });
        self.notes.extend(note.filter(|note| !self.notes.contains(note)));
    }

    /// Whether this process is reachable anywhere.
    pub(super) fn is_bound(&self) -> bool {
        !self.boxes.is_empty()
    }

    /// Whether a letter is there.
    pub(super) fn waiting(&self, counters: &mut TransportCounters) -> bool {
        if self.letters.as_ref().is_none_or(|region| region.free_frames() == 0) {
            return false;
        }
        self.boxes.iter().any(|bound| {
            counters.system_calls += 1;
            // SAFETY: no bytes are written: the buffer is empty, and a datagram that is peeked at stays.
            let peeked = unsafe {
                libc::recv(
                    bound.socket.as_raw_fd(),
                    std::ptr::null_mut(),
                    0,
                    libc::MSG_PEEK | libc::MSG_DONTWAIT,
                )
            };
            peeked >= 0
        })
    }

    /// Hands at most `budget` letters to `sink`.
    #[cold]
    pub(super) fn receive(
        &mut self,
        budget: usize,
        counters: &mut TransportCounters,
        sink: &mut impl FnMut(Received),
    ) -> usize {
        let Some(region) = &self.letters else { return 0 };
        let mut bytes = [0; OUTSIDE_BYTES_MAX + 1];
        let (budget, mut count) = (budget.min(LOOK_LETTERS), 0);
        for bound in &self.boxes {
            // Also those that are dropped take turns: a flood of them must not keep the reader.
            for _ in 0..budget - count {
                let Ok(mut frame) = region.take(0) else { return count };
                counters.system_calls += 1;
                let Ok(length) = bound.socket.recv(&mut bytes) else { break };
                if length > OUTSIDE_BYTES_MAX {
                    counters.dropped += 1;
                    continue;
                }
                frame.extend(&bytes[..length]).expect("a frame holds the longest message");
                let frame = frame.freeze();
                frame.submit();
                let (from, to) = (frame.start(), frame.end());
                sink(Received { channel: ChannelId::OUTSIDE, frame, from, to });
                count += 1;
            }
        }
        count
    }

    /// Letters that somebody holds.
    pub(super) fn held(&self) -> usize {
        self.letters.as_ref().map_or(0, |region| region.usage().lent)
    }

    fn path(&self, group: GroupId, address: &Address) -> PathBuf {
        self.directory.join(format!("{}{}", prefix(group), label(address)))
    }
}

impl Drop for Letterbox {
    fn drop(&mut self) {
        // Somebody may have removed it by hand; there is nobody to tell.
        let _ = fs::remove_file(&self.path);
    }
}

fn prefix(group: GroupId) -> String {
    format!("wadjet-{group}-at-")
}

/// Whether a file that is named as [`prefix`] says is a socket's: after the group's number, which has no dash.
fn is_name_of_socket(name: &[u8]) -> bool {
    name.split(|byte| *byte == b'-').nth(2).is_some_and(|word| word == b"at")
}

/// The address as part of a file's name: itself if it can be, else what is left of it and its hash.
fn label(address: &Address) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:".contains(c);
    let Address(text) = address;
    if !text.is_empty() && text.len() <= LABEL_BYTES_MAX && text.chars().all(plain) {
        return text.clone();
    }
    let mut hasher = Hasher64::new(0x6164_6472_6573_7301);
    hasher.bytes(text.as_bytes());
    let left: String = text.chars().filter(|c| plain(*c)).take(LABEL_BYTES_MAX / 2).collect();
    // No plain address has a dash.
    format!("{left}-{:016x}", hasher.finish())
}

/// A socket bound to `path`, which only this user may write to. The directory is locked, if that was possible.
fn bind(path: &Path, address: &Address) -> Result<UnixDatagram, TransportError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => TransportError::AddressInUse(address.clone()),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => TransportError::Permission {
            what: format!("making {}", path.display()),
            remedy: "choose a directory on a tmpfs that this user may write".into(),
        },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => segment::no_space(path, 0, source),
        _ => TransportError::Io { what: format!("making {}", path.display()), source },
    };
    let socket = private_socket().map_err(failed)?;
    match bind_to(&socket, path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_dead(path) => {
            fs::remove_file(path).map_err(failed)?;
            bind_to(&socket, path).map_err(failed)?;
        }
        bound => bound.map_err(failed)?,
    }
    Ok(socket)
}

/// A datagram socket whose file, once it is bound, nobody else may write to.
fn private_socket() -> io::Result<UnixDatagram> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers are passed.
    let descriptor = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else owns it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // The file that is made takes its mode from the socket: so it is never open to others, not even for a moment.
    // SAFETY: the descriptor is open for the call.
    if unsafe { libc::fchmod(descriptor.as_raw_fd(), 0o600) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(UnixDatagram::from(descriptor))
}

fn bind_to(socket: &UnixDatagram, path: &Path) -> io::Result<()> {
    // SAFETY: all fields are plain integers, for which zero is a value.
    let mut name: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    name.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    assert!(bytes.len() <= PATH_BYTES_MAX && bytes.len() < name.sun_path.len(), "the length was checked");
    for (to, from) in name.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let length = std::mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + 1;
    // SAFETY: `name` is a whole address of at least `length` bytes, only read during the call.
    let bound =
        unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), length as libc::socklen_t) };
    if bound == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether `path` is a socket of this user that nobody holds any more.
fn is_dead(path: &Path) -> bool {
    let refused = |probe: UnixDatagram| {
        probe.connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    is_socket_of_this_user(path) && UnixDatagram::unbound().is_ok_and(refused)
}

fn is_socket_of_this_user(path: &Path) -> bool {
    // SAFETY: `geteuid` has no preconditions.
    let user = unsafe { libc::geteuid() };
    fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket() && data.uid() == user)
}

/// Removes a socket that refused a message, unless another process is at the directory: then the next one does.
#[cold]
fn remove_if_dead(directory: &Path, path: &Path) {
    if let Some(_lock) = lock(directory, 1)
        && is_dead(path)
    {
        let _ = fs::remove_file(path);
    }
}

/// Keeps this user's other processes from making and removing sockets in the directory, until it is dropped. None if that
/// cannot be: somebody else's file stands in the way, or a process has had the lock all the time.
fn lock(directory: &Path, tries: usize) -> Option<File> {
    // SAFETY: `geteuid` has no preconditions.
    let user = unsafe { libc::geteuid() };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(directory.join(format!("{LOCK}{user}"))).ok()?;
    // The directory may be everybody's, and so may be what stands there.
    if !file.metadata().is_ok_and(|data| data.is_file() && data.uid() == user) {
        return None;
    }
    for attempt in 1..=tries {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) if attempt < tries => thread::sleep(LOCK_PAUSE),
            Err(_) => break,
        }
    }
    None
}

/// The files of the directory whose names begin with `prefix`.
fn names(directory: &Path, prefix: &str, names_max: usize) -> impl Iterator<Item = PathBuf> + use<> {
    let prefix = prefix.as_bytes().to_vec();
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter(move |entry| entry.file_name().as_bytes().starts_with(&prefix));
    named.map(|entry| entry.path()).take(names_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of the test's own.
    fn directory(word: &str) -> PathBuf {
        let path = Path::new("/dev/shm").join(format!("lock-{word}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        path
    }

    fn binds(directory: &Path, at: &str) -> bool {
        let mut post = Post::new(directory.to_owned());
        post.bind(GroupId::named("lock"), &Address(at.into()), &Owner::this_process()).is_ok()
    }

    #[test]
    fn nobody_who_keeps_a_lock_keeps_others_from_starting() {
        let directory = directory("kept");
        // Whoever may read the directory can lock that.
        let anybody = File::open(&directory).unwrap();
        anybody.lock().unwrap();
        assert!(lock(&directory, 1).is_some());
        // A process of this user that was stopped at that instant.
        let stopped = lock(&directory, 1).unwrap();
        assert!(lock(&directory, 2).is_none() && binds(&directory, "a"));
        drop(stopped);
        assert!(lock(&directory, 1).is_some());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_stands_under_the_name_of_the_lock_is_not_followed_nor_waited_for() {
        let directory = directory("other");
        // SAFETY: `geteuid` has no preconditions.
        let name = directory.join(format!("{LOCK}{}", unsafe { libc::geteuid() }));
        let victim = directory.join("victim");
        std::os::unix::fs::symlink(&victim, &name).unwrap();
        assert!(lock(&directory, 1).is_none() && binds(&directory, "a"));
        assert!(!victim.exists());
        fs::remove_file(&name).unwrap();
        fs::create_dir(&name).unwrap();
        assert!(lock(&directory, 1).is_none() && binds(&directory, "b"));
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn addresses_have_names_of_their_own_that_are_no_paths() {
        let label = |text: &str| super::label(&Address(text.into()));
        assert_eq!(label("127.0.0.1:7400"), "127.0.0.1:7400");
        let strange = ["", ".", "..", "../etc", "a/b", "a b", "a-b", "ab", "\u{e9}", &"x".repeat(500)];
        for (at, text) in strange.iter().enumerate() {
            let name = label(text);
            assert!(name.len() <= 64 && !name.contains('/'), "{name}");
            assert!(strange[..at].iter().all(|other| label(other) != name), "{name}");
        }
    }
}
