//! The window: a running member says what it did, also while its group takes nothing; a dead one's socket is in nobody's way.

mod common;

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use wadjet::group::Polled;
use wadjet::layers::FIXED_STACK;
use wadjet::runtime::{CommandOptions, Driver, DriverOptions, ReportError, Window};
use wadjet::transport::memory::{Hub, HubOptions, MemoryTransport};
use wadjet::{Config, Endpoint, GroupKey, Incarnation, LocalView};

fn driver(hub: &Hub, own: u64, members: usize) -> (Driver<MemoryTransport, Polled>, GroupKey) {
    let config = Config { pack: false, window_frames: 4, waiting_frames_max: 2, ..Config::default() };
    let endpoint = Endpoint::new(config, Incarnation(own)).unwrap();
    let commands = CommandOptions { commands_max: 64, message_bytes_max: 100 };
    let options = DriverOptions { commands, ..DriverOptions::default() };
    let mut driver = Driver::new(endpoint, Polled::default(), hub.transport(), options);
    let local = LocalView::new(common::view(members, FIXED_STACK), Incarnation(own)).unwrap();
    let key = driver.open(local).unwrap();
    (driver, key)
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("wadjet-{name}-{}", std::process::id()))
}

/// What is seen through the window while the driver runs.
fn look(driver: &mut Driver<MemoryTransport, Polled>, path: &std::path::Path) -> String {
    let mut socket = UnixStream::connect(path).unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text
    });
    assert!(driver.run_until(Duration::from_secs(10), |_| reader.is_finished()));
    reader.join().unwrap()
}

#[test]
fn a_member_is_seen_through_its_window_also_when_its_group_is_stuck() {
    let hub = Hub::new(HubOptions::default());
    // The second member is there and does nothing: the first one's window of frames fills up.
    let (mut first, key) = driver(&hub, 100, 2);
    let (_second, _) = driver(&hub, 101, 2);
    let path = path("window");
    let window = Window::open(&path, first.handle(), key).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = look(&mut first, &path);
    assert!(text.starts_with(&format!("wadjet report 1\nstack {FIXED_STACK}\n")), "{text}");
    assert!(text.contains("member 0 of 2") && text.contains("number 0 casts\n"), "{text}");
    let handle = first.handle();
    for _ in 0..20 {
        handle.cast(key, b"more than the group takes").unwrap();
    }
    first.run_until(Duration::from_millis(20), |_| false);
    let text = look(&mut first, &path);
    let casts = text.lines().find_map(|line| line.strip_prefix("number ")?.strip_suffix(" casts")).unwrap();
    let casts: u64 = casts.parse().unwrap();
    assert!((4..20).contains(&casts), "the rest waits in the ring: {text}");
    drop(window);
    assert!(!path.exists(), "a window that is closed leaves nothing");
}

#[test]
fn a_driver_that_does_not_run_is_silent_and_one_that_is_gone_says_so() {
    let hub = Hub::new(HubOptions::default());
    let (driver, key) = driver(&hub, 100, 1);
    let handle = driver.handle();
    let limit = Duration::from_millis(1);
    assert_eq!(handle.report(key, limit).unwrap_err(), ReportError::Silent(limit));
    drop(driver);
    assert_eq!(handle.report(key, limit).unwrap_err(), ReportError::Ended);
}

#[test]
fn a_window_takes_the_place_of_a_dead_one_and_of_nothing_else() {
    let hub = Hub::new(HubOptions::default());
    let (driver, key) = driver(&hub, 100, 1);
    let path = path("taken");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let window = Window::open(&path, driver.handle(), key).unwrap();
    assert!(Window::open(&path, driver.handle(), key).is_err(), "somebody is there");
    drop(window);
    std::fs::write(&path, "a file").unwrap();
    assert!(Window::open(&path, driver.handle(), key).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
    std::fs::remove_file(&path).unwrap();
}
