//! Test hosts: network namespaces on a bridge in a namespace of its own.
//!
//! ```text
//!  wadjet-LABEL-1        wadjet-LABEL-hub          wadjet-LABEL-2
//!  lan0 10.78.0.1 ------ port1 [ bridge ] port2 ------ lan0 10.78.0.2
//! ```
//!
//! Or two hosts wired to each other, by as many wires as are asked for ([`Hosts::pair`]).
//!
//! Nothing is made outside these namespaces, so several laboratories do not disturb each other, and removing the
//! namespaces removes everything, whatever state a crash has left it in.

use std::fs::File;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A laboratory cannot be set up, or a fault cannot be made.
#[derive(Debug)]
pub enum LabError {
    /// The system does not let this user.
    NotPermitted {
        /// What was tried.
        what: String,
    },
    /// A command is missing.
    NoCommand {
        /// Which.
        command: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A command failed.
    Failed {
        /// Which, with its arguments.
        command: String,
        /// What it said.
        said: String,
    },
    /// An argument makes no sense.
    Senseless(String),
}

impl std::fmt::Display for LabError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LabError::NotPermitted { what } => {
                write!(
                    formatter,
                    "not permitted: {what}; network namespaces need root (CAP_NET_ADMIN and CAP_SYS_ADMIN)"
                )
            }
            LabError::NoCommand { command, package } => {
                write!(formatter, "there is no command `{command}`; on Debian: apt-get install {package}")
            }
            LabError::Failed { command, said } => write!(formatter, "`{command}` failed: {}", said.trim()),
            LabError::Senseless(why) => formatter.write_str(why),
        }
    }
}

impl std::error::Error for LabError {}

/// Test hosts that exist. They are removed when this is dropped, unless [`Hosts::keep`] was called.
#[derive(Debug)]
pub struct Hosts {
    label: String,
    count: usize,
    /// Loss is set up at the bridge.
    lossy: bool,
    kept: bool,
}

/// All namespaces of all laboratories begin so.
const PREFIX: &str = "wadjet-";
/// The most hosts of one laboratory.
pub const HOSTS_MAX: usize = 64;
/// The longest label: with prefix and number it is a file's name that people type.
const LABEL_BYTES_MAX: usize = 32;

impl Hosts {
    /// Makes `count` hosts, in place of any of the same label.
    ///
    /// # Errors
    /// [`LabError`]; what was made by then is removed.
    pub fn up(label: &str, count: usize) -> Result<Hosts, LabError> {
        Hosts::on_bridges(label, count, 1)
    }

    /// As [`Hosts::up`], with so many interfaces each (`lan0`, `lan1` and so on), each on a bridge and in a network of its
    /// own. Faults are made on the first.
    ///
    /// # Errors
    /// [`LabError`]; what was made by then is removed.
    pub fn on_bridges(label: &str, count: usize, wires: usize) -> Result<Hosts, LabError> {
        if !(1..=HOSTS_MAX).contains(&wires) {
            return Err(LabError::Senseless(format!("give between 1 and {HOSTS_MAX} wires, not {wires}")));
        }
        if !(1..=HOSTS_MAX).contains(&count) {
            return Err(LabError::Senseless(format!("give between 1 and {HOSTS_MAX} hosts, not {count}")));
        }
        Hosts::clear()?;
        Hosts::down(label)?;
        // From here on dropping it removes what there is.
        let hosts = Hosts { label: label.to_owned(), count, lossy: false, kept: false };
        let hub = hosts.hub();
        ip(&["netns", "add", &hub])?;
        let mut in_hub = String::from("link set lo up\n");
        for wire in 0..wires {
            in_hub += &format!("link add bridge{wire} type bridge stp_state 0 forward_delay 0\n");
        }
        for host in 1..=count {
            let name = hosts.name(host);
            ip(&["netns", "add", &name])?;
            for wire in 0..wires {
                let port = if wire == 0 { format!("port{host}") } else { format!("port{host}-{wire}") };
                in_hub += &format!(
                    "link add {port} type veth peer name lan{wire} address {} netns {name}\n\
                     link set {port} master bridge{wire}\nlink set {port} up\n",
                    link_address(host, wire)
                );
            }
        }
        for wire in 0..wires {
            in_hub += &format!("link set bridge{wire} up\n");
        }
        batch(&hub, &in_hub)?;
        for host in 1..=count {
            let mut on = String::from("link set lo up\n");
            for wire in 0..wires {
                let address = hosts.wire_address(host, wire);
                on += &format!("addr add {address}/24 brd + dev lan{wire}\nlink set lan{wire} up\n");
            }
            on += "route add 224.0.0.0/4 dev lan0\n";
            batch(&hosts.name(host), &on)?;
        }
        Ok(hosts)
    }

    /// Tells every host the link addresses of all others on the first wire, for good. Otherwise a host whose port was down has
    /// forgotten them, and asks anew; what asks or answers may be lost, and the kernel asks again only after a second.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn introduce(&self) -> Result<(), LabError> {
        for host in 1..=self.count {
            let others = (1..=self.count).filter(|other| *other != host);
            let told: String = others
                .map(|other| {
                    let (address, link) = (self.address(other), link_address(other, 0));
                    format!("neigh replace {address} lladdr {link} dev lan0 nud permanent\n")
                })
                .collect();
            batch(&self.name(host), &told)?;
        }
        Ok(())
    }

    /// Makes two hosts that are wired to each other without a bridge between them, in place of any of the same label:
    /// the interfaces are `lan0`, `lan1` and so on, one for each wire, each in a network of its own.
    ///
    /// # Errors
    /// [`LabError`]; what was made by then is removed.
    pub fn pair(label: &str, wires: usize) -> Result<Hosts, LabError> {
        if !(1..=HOSTS_MAX).contains(&wires) {
            return Err(LabError::Senseless(format!("give between 1 and {HOSTS_MAX} wires, not {wires}")));
        }
        Hosts::clear()?;
        Hosts::down(label)?;
        let hosts = Hosts { label: label.to_owned(), count: 2, lossy: false, kept: false };
        let names = [hosts.name(1), hosts.name(2)];
        for name in &names {
            ip(&["netns", "add", name])?;
        }
        let mut on = [String::from("link set lo up\n"), String::from("link set lo up\n")];
        for wire in 0..wires {
            on[0] += &format!(
                "link add lan{wire} address 02:00:00:{wire:02x}:4e:01 type veth peer name lan{wire} \
                 address 02:00:00:{wire:02x}:4e:02 netns {}\n",
                names[1]
            );
            for (at, on) in on.iter_mut().enumerate() {
                let address = hosts.wire_address(at + 1, wire);
                *on += &format!("addr add {address}/24 brd + dev lan{wire}\nlink set lan{wire} up\n");
            }
        }
        for (name, commands) in names.iter().zip(&on) {
            batch(name, commands)?;
        }
        Ok(hosts)
    }

    /// Hosts that [`Hosts::up`] made and that were kept; dropping this removes nothing.
    ///
    /// # Errors
    /// [`LabError`], if there are not so many.
    pub fn standing(label: &str, count: usize) -> Result<Hosts, LabError> {
        let hosts = Hosts { label: label.to_owned(), count, lossy: false, kept: true };
        let there = namespaces()?;
        match (1..=count).find(|host| !there.contains(&hosts.name(*host))) {
            None => Ok(hosts),
            Some(host) => Err(LabError::Senseless(format!(
                "there is no test host {}; make them with `wadjet lab up {count} --label {label}`",
                hosts.name(host)
            ))),
        }
    }

    /// The address of a host on one of its wires.
    pub fn wire_address(&self, host: usize, wire: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, wire as u8, host as u8)
    }

    /// Moves the calling thread to a host, until what is returned is dropped: sockets made meanwhile are that host's.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn enter(&self, host: usize) -> Result<Stay, LabError> {
        Stay::at(&self.name(host))
    }

    /// Removes the hosts of processes that are gone: those whose label is [`label_of_this_process`] of a process that has
    /// ended, however that was.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn clear() -> Result<usize, LabError> {
        remove(|name| label_of(name).and_then(owner_of).is_some_and(|owner| !owner.is_there()))
    }

    /// Removes the hosts that this process has made under [labels of its own](label_of_this_process), for one that is about to
    /// end without unwinding.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn clear_own() -> Result<usize, LabError> {
        let own = std::process::id();
        remove(|name| label_of(name).and_then(owner_of).is_some_and(|owner| owner.pid == own))
    }

    /// Removes the hosts of all laboratories, whoever made them, and says how many namespaces that were.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn all_down() -> Result<usize, LabError> {
        remove(|name| label_of(name).is_some())
    }

    /// Removes all hosts of that label, and says how many namespaces that were. Doing it again does nothing.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn down(label: &str) -> Result<usize, LabError> {
        let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if label.is_empty() || label.len() > LABEL_BYTES_MAX || !label.chars().all(known) {
            return Err(LabError::Senseless(format!(
                "`{label}` is no label: use up to {LABEL_BYTES_MAX} letters, digits, - and _"
            )));
        }
        remove(|name| label_of(name) == Some(label))
    }

    /// Leaves the hosts there when this is dropped; [`Hosts::down`] removes them.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Another handle for the same hosts, which removes nothing when it is dropped.
    pub fn alias(&self) -> Hosts {
        Hosts { label: self.label.clone(), kept: true, ..*self }
    }

    /// How many hosts there are. They are counted from 1.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The namespace of a host.
    pub fn name(&self, host: usize) -> String {
        format!("{PREFIX}{}-{host}", self.label)
    }

    fn hub(&self) -> String {
        format!("{PREFIX}{}-hub", self.label)
    }

    /// The address of a host.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        self.wire_address(host, 0)
    }

    /// A command that will run `program` on a host, in the very process that is spawned.
    pub fn command(&self, host: usize, program: &std::ffi::OsStr) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(host)]).arg(program);
        command
    }

    /// Takes the bridge's port of a host down, or up again.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn set_port(&self, host: usize, up: bool) -> Result<(), LabError> {
        let state = if up { "up" } else { "down" };
        ip(&["-n", &self.hub(), "link", "set", &format!("port{host}"), state]).map(drop)
    }

    /// Whether [`Hosts::set_loss`] finds the command it needs.
    ///
    /// # Errors
    /// [`LabError::NoCommand`].
    pub fn can_lose() -> Result<(), LabError> {
        match exists("nft") {
            true => Ok(()),
            false => Err(LabError::NoCommand { command: "nft", package: "nftables" }),
        }
    }

    /// Loses so many of a thousand packets, at random, of what comes to the bridge from any host.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn set_loss(&mut self, permille: u32) -> Result<(), LabError> {
        let mut rules = String::new();
        if self.lossy {
            rules += "delete table netdev loss\n";
        }
        if permille > 0 {
            rules += "add table netdev loss\n";
            for host in 1..=self.count {
                rules += &format!(
                    "add chain netdev loss port{host} {{ type filter hook ingress device \"port{host}\" priority 0; }}\n\
                     add rule netdev loss port{host} numgen random mod 1000 < {permille} counter drop\n"
                );
            }
        }
        if rules.is_empty() {
            return Ok(());
        }
        let command = ["netns", "exec", &self.hub(), "nft", "-f", "-"];
        Hosts::can_lose()?;
        run("ip", &command, Some(&rules))?;
        self.lossy = permille > 0;
        Ok(())
    }
}

/// The calling thread's stay at a host; it comes back when this is dropped.
#[derive(Debug)]
pub struct Stay {
    home: File,
    /// Of one thread.
    _here: PhantomData<*const ()>,
}

impl Stay {
    fn at(namespace: &str) -> Result<Stay, LabError> {
        let open = |path: String| {
            File::open(&path).map_err(|error| LabError::Failed {
                command: format!("open {path}"),
                said: error.to_string(),
            })
        };
        let home = open("/proc/thread-self/ns/net".into())?;
        move_to(&open(format!("/run/netns/{namespace}"))?)?;
        Ok(Stay { home, _here: PhantomData })
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        move_to(&self.home).expect("who could leave a namespace can come back to it");
    }
}

fn move_to(namespace: &File) -> Result<(), LabError> {
    let kind = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(namespace.as_fd(), kind).map_err(|error| match error {
        rustix::io::Errno::PERM => LabError::NotPermitted { what: "enter a network namespace".into() },
        other => LabError::Failed { command: "setns".into(), said: other.to_string() },
    })
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if !self.kept {
            // Whoever looks finds them by their names; there is nobody to tell here.
            drop(Hosts::down(&self.label));
        }
    }
}

/// The link address of a host on one of its wires.
fn link_address(host: usize, wire: usize) -> String {
    format!("02:00:00:{wire:02x}:4e:{host:02x}")
}

/// A label that says which process the hosts belong to: once it is gone, however that was, whoever makes hosts next removes
/// them. The word tells what they are for.
pub fn label_of_this_process(word: &str) -> String {
    label_of_process(word, std::process::id())
}

/// The label that [`label_of_this_process`] is in the process with this id.
#[must_use]
pub fn label_of_process(word: &str, pid: u32) -> String {
    format!("{word}{MARK}{pid}{START}{}", started(pid).unwrap_or(0))
}

/// What stands before the process's number in such a label, and before when it started.
const MARK: &str = "_p";
const START: &str = "_t";

/// The label of a namespace that is a host or a hub.
fn label_of(name: &str) -> Option<&str> {
    let (label, place) = name.strip_prefix(PREFIX)?.rsplit_once('-')?;
    let is_place = place == "hub" || !place.is_empty() && place.bytes().all(|byte| byte.is_ascii_digit());
    is_place.then_some(label)
}

/// A process that has made hosts.
struct Owner {
    pid: u32,
    /// In clock ticks after the system's start; zero if that was not known.
    started: u64,
}

/// Which process a label says that the hosts belong to.
fn owner_of(label: &str) -> Option<Owner> {
    let (_, numbers) = label.rsplit_once(MARK)?;
    let (pid, started) = numbers.split_once(START)?;
    // Of several laboratories of one process each has a number behind it.
    let started = started.split('-').next()?;
    Some(Owner { pid: pid.parse().ok()?, started: started.parse().ok()? })
}

impl Owner {
    fn is_there(&self) -> bool {
        started(self.pid).is_some_and(|started| self.started == 0 || started == self.started)
    }
}

/// When a process was started, if it is there and has not ended.
fn started(pid: u32) -> Option<u64> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, which may hold anything, is in brackets.
    let mut fields = line.rsplit_once(") ")?.1.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Removes namespaces.
fn remove(which: impl Fn(&str) -> bool) -> Result<usize, LabError> {
    let mut removed = 0;
    for name in namespaces()?.iter().filter(|name| which(name)) {
        match ip(&["netns", "delete", name]) {
            Ok(_) => removed += 1,
            // Another process was faster.
            Err(_) if !namespaces()?.contains(name) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// The names of all namespaces.
fn namespaces() -> Result<Vec<String>, LabError> {
    let output = ip(&["netns", "list"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn ip(arguments: &[&str]) -> Result<Output, LabError> {
    run("ip", arguments, None)
}

/// Several commands in one namespace.
fn batch(namespace: &str, commands: &str) -> Result<(), LabError> {
    run("ip", &["-n", namespace, "-batch", "-"], Some(commands)).map(drop)
}

fn run(program: &'static str, arguments: &[&str], input: Option<&str>) -> Result<Output, LabError> {
    let words = || format!("{program} {}", arguments.join(" "));
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => LabError::NoCommand { command: program, package: "iproute2" },
        io::ErrorKind::PermissionDenied => LabError::NotPermitted { what: words() },
        _ => LabError::Failed { command: words(), said: error.to_string() },
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A command that ended early says why itself.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("Operation not permitted") || said.contains("Permission denied") {
        return Err(LabError::NotPermitted { what: words() });
    }
    Err(LabError::Failed { command: words(), said })
}

/// Whether the command is found where whoever runs it looks.
fn exists(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(command).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_its_process_and_those_of_users_name_none() {
        let own = label_of_this_process("bench");
        assert!(own.len() + 4 <= LABEL_BYTES_MAX, "{own}");
        assert!(owner_of(&own).unwrap().is_there());
        assert!(owner_of(&format!("{own}-3")).unwrap().is_there(), "the third laboratory of this process");
        for label in ["lab", "f5", "x17-3", "my_p7", "a_pb_tc"] {
            assert!(owner_of(label).is_none(), "{label}");
        }
        let pid = std::process::id();
        assert!(!owner_of(&format!("run_p{pid}_t1")).unwrap().is_there(), "another process had that number");
        assert_eq!(label_of("wadjet-my-lab-hub"), Some("my-lab"));
        assert_eq!(label_of("wadjet-x_p1_t2-0-12"), Some("x_p1_t2-0"));
        assert_eq!((label_of("wadjet-lab"), label_of("other-1")), (None, None));
    }

    #[test]
    fn hosts_of_a_process_that_was_killed_are_removed_by_who_makes_some_next() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let label = format!("gone{MARK}{}{START}{}", child.id(), started(child.id()).unwrap());
        let theirs = match Hosts::up(&label, 1) {
            Ok(hosts) => hosts,
            Err(error @ (LabError::NotPermitted { .. } | LabError::NoCommand { .. })) => {
                child.kill().unwrap();
                child.wait().unwrap();
                assert!(std::env::var_os("CI").is_none(), "in CI this must run: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let there = || namespaces().unwrap().iter().any(|name| label_of(name) == Some(&*label));
        theirs.keep();
        let own = label_of_this_process("next");
        drop(Hosts::up(&own, 1).unwrap());
        assert!(there(), "its process is there");
        child.kill().unwrap();
        child.wait().unwrap();
        drop(Hosts::up(&own, 1).unwrap());
        assert!(!there());
    }
}
