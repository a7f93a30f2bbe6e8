//! `wadjet lab`, `wadjet chaos`, `wadjet judge` and `wadjet reliability`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use wadjet_bench::machine::Machine;
use wadjet_bench::report::command_line;

use crate::chaos::{self, ChaosReport, Faults, Plan};
use crate::hosts::{Hosts, label_of_this_process};
use crate::judge;
use crate::reliability;
use crate::seat::{Carrier, Extras};

/// Test hosts.
#[derive(Args, Clone, Debug)]
pub struct LabOptions {
    #[command(subcommand)]
    action: LabAction,
}

#[derive(Subcommand, Clone, Debug)]
enum LabAction {
    /// Make N hosts on a bridge, in place of any that are there
    Up {
        /// How many
        hosts: usize,
        /// Tells laboratories apart
        #[arg(long, default_value = LABEL)]
        label: String,
    },
    /// Remove them; doing it twice does no harm
    Down {
        /// Tells laboratories apart
        #[arg(long, default_value = LABEL)]
        label: String,
        /// Those of all laboratories, whoever made them and uses them
        #[arg(long, conflicts_with = "label")]
        all: bool,
    },
    /// Make hosts, run a command on each, and remove them; `{}` in the command is the host's address
    Run {
        /// How many
        hosts: usize,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

const LABEL: &str = "lab";

/// Does as told. Whether all commands of `run` ended well.
///
/// # Errors
/// If it is not permitted, or a command of the system is missing or fails; the text says what to do.
pub fn lab(options: &LabOptions) -> Result<bool, Box<dyn Error>> {
    match &options.action {
        LabAction::Up { hosts, label } => {
            let hosts = Hosts::up(label, *hosts)?;
            for host in 1..=hosts.count() {
                println!("{}  {}", hosts.name(host), hosts.address(host));
            }
            println!("a shell on the first: ip netns exec {} bash", hosts.name(1));
            hosts.keep();
            Ok(true)
        }
        LabAction::Down { label, all } => {
            let removed = if *all { Hosts::all_down()? } else { Hosts::down(label)? };
            println!("{removed} namespaces removed");
            Ok(true)
        }
        LabAction::Run { hosts, command } => on_each(*hosts, command),
    }
}

fn on_each(hosts: usize, command: &[String]) -> Result<bool, Box<dyn Error>> {
    let hosts = Hosts::up(&label_of_this_process("run"), hosts)?;
    let (program, arguments) = command.split_first().ok_or("say which command")?;
    let mut children = Vec::new();
    for host in 1..=hosts.count() {
        let address = hosts.address(host).to_string();
        let arguments = arguments.iter().map(|argument| argument.replace("{}", &address));
        children.push(hosts.command(host, program.as_ref()).args(arguments).spawn()?);
    }
    let mut good = true;
    for child in &mut children {
        good &= child.wait()?.success();
    }
    Ok(good)
}

/// Chaos with real processes.
#[derive(Args, Clone, Debug)]
pub struct ChaosOptions {
    /// Over what; without it, over udp and shm
    #[arg(long, value_enum)]
    transport: Option<Carrier>,
    /// The stack, top to bottom [default: the stack for live groups over the transport]
    #[arg(long, value_name = "SPEC")]
    stack: Option<String>,
    /// Members, a process each
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(2..=16))]
    members: u16,
    /// Members killed and started anew
    #[arg(long, value_name = "N", default_value = "10")]
    kills: u32,
    /// Members stopped and continued
    #[arg(long, value_name = "N", default_value = "10")]
    stops: u32,
    /// Ports taken down and up again, over a network [default: 5 if this user may make namespaces, else 0]
    #[arg(long, value_name = "N")]
    partitions: Option<u32>,
    /// Times in which the bridge loses packets, over a network [default: 5 if this user may make namespaces, else 0]
    #[arg(long, value_name = "N")]
    losses: Option<u32>,
    /// Casts of each member per second
    #[arg(long, value_name = "MSGS_PER_S", default_value = "2000")]
    rate: u32,
    /// Bytes of a cast
    #[arg(long, value_name = "BYTES", default_value = "64")]
    size: usize,
    /// Bytes of a cast now and then, where the stack carries messages larger than a frame; 0: never
    #[arg(long, value_name = "BYTES", default_value = "20000")]
    large: usize,
    /// Members send to single members and to all others, too
    #[arg(long, value_name = "yes|no", default_value = "yes", value_parser = ["yes", "no"])]
    sends: String,
    /// Bytes of the state that is given to who comes in, where the stack has XFER
    #[arg(long, value_name = "BYTES", default_value = "100000")]
    state: usize,
    /// Faults before a new group begins and the histories are judged
    #[arg(long, value_name = "N", default_value = "30")]
    chapter: u32,
    /// Draws the faults; what becomes of them is up to the processes
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Where histories are written [default: a temporary directory]; those with violations stay there
    #[arg(long, value_name = "DIRECTORY")]
    histories: Option<PathBuf>,
    /// Also write the figures as JSON; `-` for standard output, nothing else then printed there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs it and prints what came of it. Whether nothing was violated.
///
/// # Errors
/// If hosts or histories cannot be made.
pub fn chaos(options: &ChaosOptions) -> Result<bool, Box<dyn Error>> {
    let carriers = options.transport.map_or(vec![Carrier::Udp, Carrier::Shm], |carrier| vec![carrier]);
    let directory = options
        .histories
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("wadjet-chaos-{}", std::process::id())));
    let plans: Result<Vec<Plan>, _> =
        carriers.into_iter().map(|one| plan(options, one, &directory)).collect();
    let mut runs = Vec::new();
    for plan in plans? {
        eprintln!("chaos over {}: {} faults", plan.carrier.name(), plan.faults.count());
        let run = chaos::run(&plan)?;
        eprintln!("  {:.0} s", run.seconds);
        runs.push(run);
    }
    let good = runs.iter().all(|run| run.violations.is_empty() && run.error.is_none());
    if good && options.histories.is_none() {
        drop(std::fs::remove_dir_all(&directory));
    }
    let report = ChaosReport { machine: Machine::read(), command: command_line(), chaos: runs };
    let text = serde_json::to_string_pretty(&report)?;
    match options.json.as_deref() {
        Some(path) if path == Path::new("-") => println!("{text}"),
        Some(path) => {
            print!("{}{}", chaos::table(&report.chaos), chaos::stories(&report.chaos));
            write(path, &(text + "\n"))?;
        }
        None => print!("{}{}", chaos::table(&report.chaos), chaos::stories(&report.chaos)),
    }
    Ok(good)
}

/// What is done over one transport: whatever can be refused is, before anything begins.
fn plan(options: &ChaosOptions, carrier: Carrier, directory: &Path) -> Result<Plan, Box<dyn Error>> {
    let asked = options.partitions.unwrap_or(0) + options.losses.unwrap_or(0);
    if options.transport.is_some() && !carrier.has_network() && asked > 0 {
        return Err(format!(
            "--partitions and --losses happen to a network, and over --transport {} there is none: its members share the \
             memory of one host; leave them out, or give --transport udp",
            carrier.name()
        )
        .into());
    }
    let root = rustix::process::geteuid().is_root();
    let bridged = |asked: Option<u32>| match carrier.has_network() {
        true => asked.unwrap_or(if root { 5 } else { 0 }),
        false => 0,
    };
    let faults = Faults {
        kills: options.kills,
        stops: options.stops,
        partitions: bridged(options.partitions),
        losses: bridged(options.losses),
    };
    if faults.losses > 0 {
        Hosts::can_lose().map_err(|error| format!("{error}; or give --losses 0"))?;
    }
    let stack = options.stack.clone().unwrap_or_else(|| carrier.stack().to_owned());
    carrier.check_live(&stack, usize::from(options.members))?;
    Ok(Plan {
        carrier,
        stack,
        members: usize::from(options.members),
        faults,
        rate: options.rate,
        bytes: options.size,
        extras: Extras {
            sends: options.sends == "yes",
            large_bytes: options.large,
            state_bytes: options.state,
        },
        chapter: options.chapter,
        seed: options.seed,
        program: std::env::current_exe()?,
        directory: directory.join(carrier.name()),
    })
}

/// Histories to judge.
#[derive(Args, Clone, Debug)]
pub struct JudgeOptions {
    /// Files of events, one JSON object per line; of a directory, all that end in .jsonl
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The stack that was run: what it promises about the order of casts must have been kept, too
    #[arg(long, value_name = "SPEC", default_value = "")]
    stack: String,
    /// The run ended with nothing under way: everything must have arrived
    #[arg(long)]
    rested: bool,
}

/// Judges them. Whether nothing was violated.
///
/// # Errors
/// If a file cannot be read, or holds something else.
pub fn judge(options: &JudgeOptions) -> Result<bool, Box<dyn Error>> {
    let mut files = Vec::new();
    for path in &options.files {
        if path.is_dir() { files.extend(judge::files_of(path)?) } else { files.push(path.clone()) }
    }
    let verdict = judge::judge(&files, &options.stack, options.rested)?;
    if verdict.lives == 0 {
        let places: Vec<String> = options.files.iter().map(|path| path.display().to_string()).collect();
        return Err(format!(
            "there is nothing to judge in {}: no history of any life; give files of events, or a directory in which \
             they end in .jsonl, as `wadjet chaos --histories` leaves them",
            places.join(", ")
        )
        .into());
    }
    println!(
        "{} lives, {} views, {} casts, {} deliveries, {} sends delivered, {} states: {}",
        verdict.lives,
        verdict.views,
        verdict.casts,
        verdict.delivered,
        verdict.sends,
        verdict.states,
        if verdict.violations.is_empty() { "no violation" } else { "violations" }
    );
    verdict.violations.iter().for_each(|violation| println!("{violation}"));
    Ok(verdict.violations.is_empty())
}

/// The document of the figures.
#[derive(Args, Clone, Debug)]
pub struct ReliabilityOptions {
    /// Where the reports are: what `--json` of `wadjet chaos` and `wadjet bench --failure` wrote
    #[arg(value_name = "DIRECTORY", default_value = "docs/reliability")]
    reports: PathBuf,
    /// The document; `-` for standard output
    #[arg(long, value_name = "FILE", default_value = "docs/reliability.md")]
    write: PathBuf,
}

/// Makes the document.
///
/// # Errors
/// If a report cannot be read, or the document not be written.
pub fn reliability(options: &ReliabilityOptions) -> Result<bool, Box<dyn Error>> {
    let text = reliability::document(&options.reports)?;
    if options.write == Path::new("-") {
        print!("{text}")
    } else {
        write(&options.write, &text)?
    }
    Ok(true)
}

fn write(path: &Path, text: &str) -> Result<(), Box<dyn Error>> {
    std::fs::write(path, text).map_err(|error| {
        format!("cannot write {}: {error}; name a file in a directory of yours", path.display()).into()
    })
}
