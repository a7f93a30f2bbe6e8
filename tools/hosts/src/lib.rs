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
                    "link add {port} type veth peer name lan{wire} address 02:00:00:{wire:02x}:4e:{host:02x} netns {name}\n\
                     link set {port} master bridge{wire}\nlink set {port} up\n"
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

    /// Makes two hosts that are wired to each other without a bridge between them, in place of any of the same label:
    /// the interfaces are `lan0`, `lan1` and so on, one for each wire, each in a network of its own.
    ///
    /// # Errors
    /// [`LabError`]; what was made by then is removed.
    pub fn pair(label: &str, wires: usize) -> Result<Hosts, LabError> {
        if !(1..=HOSTS_MAX).contains(&wires) {
            return Err(LabError::Senseless(format!("give between 1 and {HOSTS_MAX} wires, not {wires}")));
        }
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
        let prefix = format!("{PREFIX}{label}-");
        let is_ours = |name: &str| {
            name.strip_prefix(&prefix)
                .is_some_and(|rest| rest == "hub" || rest.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let mut removed = 0;
        for name in namespaces()?.iter().filter(|name| is_ours(name)) {
            ip(&["netns", "delete", name])?;
            removed += 1;
        }
        Ok(removed)
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
        if !exists("nft") {
            return Err(LabError::NoCommand { command: "nft", package: "nftables" });
        }
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

fn exists(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|directory| directory.join(command).is_file())
}
