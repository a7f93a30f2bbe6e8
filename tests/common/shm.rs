//! Members over shared memory, driven by hand.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wadjet::buf::{Exhausted, Frame};
use wadjet::id::{GroupId, Incarnation, ViewId};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::{
    Channel, ChannelOptions, Destination, Received, Transmit, Transport, TransportError,
};
use wadjet::view::{Address, LocalView, Member, View};

pub const HEADER_BYTES: usize = 24;
/// Everything here ends long before, unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn view(group: &str, members: u64, own: u64) -> LocalView {
    let member = |n| Member { incarnation: Incarnation(n), address: Address(format!("m{n}")) };
    let view = View {
        group: GroupId::named(group),
        id: ViewId { counter: 1, coordinator: Incarnation(1) },
        members: (1..=members).map(member).collect(),
        spec: String::new(),
        wire_version: 1,
        salt: 0,
        frame_bytes: 0,
    };
    LocalView::new(view, Incarnation(own)).unwrap()
}

pub fn small() -> ChannelOptions {
    ChannelOptions {
        cast_frames: 16,
        control_frames: 4,
        receive_frames: 16,
        frame_bytes: 512,
        huge_pages: false,
    }
}

pub struct End {
    pub shm: Shm,
    pub channel: Channel,
}

impl End {
    pub fn open(group: &str, members: u64, own: u64) -> End {
        End::open_with(group, members, own, &small(), &ShmOptions::default()).unwrap()
    }

    pub fn open_with(
        group: &str,
        members: u64,
        own: u64,
        options: &ChannelOptions,
        shm: &ShmOptions,
    ) -> Result<End, TransportError> {
        let mut shm = Shm::new(shm.clone());
        let channel = shm.open(&view(group, members, own), options)?;
        Ok(End { shm, channel })
    }

    /// Members that have found each other.
    pub fn group(members: u64) -> Vec<End> {
        let group = unique("group");
        let mut ends: Vec<End> = (1..=members).map(|own| End::open(&group, members, own)).collect();
        ends.iter_mut().for_each(|end| end.find(members as usize - 1));
        ends
    }

    pub fn pair() -> (End, End) {
        let mut ends = End::group(2).into_iter();
        (ends.next().unwrap(), ends.next().unwrap())
    }

    pub fn find(&mut self, peers: usize) {
        let id = self.channel.id;
        self.until(|end| end.shm.peers(id) == peers);
    }

    /// Reaps until something holds.
    pub fn until(&mut self, mut holds: impl FnMut(&mut End) -> bool) {
        let start = Instant::now();
        loop {
            self.shm.reap();
            if holds(self) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "nothing happens any more");
            thread::yield_now();
        }
    }

    pub fn take(&self, payload: &[u8]) -> Result<Frame, Exhausted> {
        let mut frame = self.channel.casts.take(HEADER_BYTES)?;
        frame.extend(payload).unwrap();
        let frame = frame.freeze();
        frame.prepend(&[0xaa; HEADER_BYTES]).unwrap();
        Ok(frame)
    }

    pub fn transmit(&self, to: Destination, head: Frame) -> Transmit {
        Transmit { channel: self.channel.id, to, head, body: None }
    }

    pub fn submit(&mut self, to: Destination, head: Frame) -> bool {
        let transmit = self.transmit(to, head);
        let taken = self.shm.submit(transmit).is_ok();
        self.shm.flush();
        taken
    }

    pub fn cast(&mut self, payload: &[u8]) -> Result<(), Exhausted> {
        let frame = self.take(payload)?;
        assert!(self.submit(Destination::All, frame), "casts in place are always taken");
        Ok(())
    }

    pub fn cast_patiently(&mut self, payload: &[u8]) {
        self.until(|end| end.cast(payload).is_ok());
    }

    pub fn control(&mut self, to: Destination, payload: &[u8]) -> bool {
        let mut frame = self.channel.control.take_reserved(HEADER_BYTES).unwrap();
        frame.extend(payload).unwrap();
        let frame = frame.freeze();
        frame.prepend(&[0xcc; HEADER_BYTES]).unwrap();
        self.submit(to, frame)
    }

    /// What is there, up to `budget`.
    pub fn receive(&mut self, budget: usize) -> Vec<Received> {
        let mut got = Vec::new();
        self.shm.reap();
        let count = self.shm.receive(budget, &mut |received| got.push(received));
        assert_eq!(count, got.len());
        assert!(count <= budget);
        got
    }

    pub fn receive_payloads(&mut self) -> Vec<Vec<u8>> {
        self.receive(usize::MAX >> 1).iter().map(|received| payload(received).to_vec()).collect()
    }

    pub fn segment(&self, group: &str, own: u64) -> PathBuf {
        segment_of(Path::new("/dev/shm"), &view(group, 2, own), own)
    }
}

pub fn payload(received: &Received) -> &[u8] {
    &received.bytes()[HEADER_BYTES..]
}

/// As documented: group, incarnation, view.
pub fn segment_of(directory: &Path, view: &LocalView, own: u64) -> PathBuf {
    let (group, id) = (view.view().group, view.view().id);
    directory.join(format!("wadjet-{group}-{}-{:x}-{}", Incarnation(own), id.counter, id.coordinator))
}

/// A payload that says its number and has a length and content following from it.
pub fn numbered(number: u64) -> Vec<u8> {
    let length = 8 + (number * 37 % 397) as usize;
    let mut bytes: Vec<u8> = (0..length).map(|at| (number as usize * 31 + at) as u8).collect();
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

pub fn number(payload: &[u8]) -> u64 {
    let number = u64::from_le_bytes(payload[..8].try_into().unwrap());
    assert_eq!(payload, numbered(number), "a frame arrives unchanged");
    number
}

/// The socket of an address, as documented.
pub fn socket_of(directory: &Path, group: &str, address: &str) -> PathBuf {
    directory.join(format!("wadjet-{}-at-{address}", GroupId::named(group)))
}

/// Somebody who is reached at that address.
pub fn bound(group: &str, address: &str, shm: &ShmOptions) -> Result<Shm, TransportError> {
    let mut shm = Shm::new(shm.clone());
    shm.bind(GroupId::named(group), &Address(address.into()))?;
    Ok(shm)
}

/// Numbers that depend on the seed alone.
pub struct Draw(pub u64);

impl Draw {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Runs this test binary's test `another_process` where the file system of a new directory has so much room, as `mount` takes
/// it. The variable `name` tells it the role that is made of the directory.
pub fn in_room_of(size: &str, name: &str, role: impl Fn(&Path) -> String) {
    let directory = std::env::temp_dir().join(unique("wadjet-room"));
    std::fs::create_dir(&directory).unwrap();
    // A small tmpfs needs a mount namespace of its own.
    let script = "mount -t tmpfs -o size=$1 tmpfs \"$2\" && exec \"$3\" --exact another_process --nocapture";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", size])
        .args([&directory, &std::env::current_exe().unwrap()])
        .env(name, role(&directory))
        .output();
    std::fs::remove_dir(&directory).unwrap();
    let output = output.expect("unshare is part of util-linux");
    let text = String::from_utf8_lossy(&output.stderr);
    let refused = ["unshare failed", "Operation not permitted", "permission denied"];
    if !output.status.success() && refused.iter().any(|words| text.contains(words)) {
        assert!(std::env::var_os("CI").is_none(), "in CI this must run: {text}");
        #[allow(clippy::print_stderr, reason = "whoever runs the test is to know that it did not run")]
        {
            eprintln!("skipped: {}", text.trim());
        }
        return;
    }
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stdout));
}
