//! How tools are told to use AF_XDP.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use wadjet_xdp::{Mode, XdpOptions};

/// Of `--transport xdp` only.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpArguments {
    /// xdp: the network interface [default: the one that has the member's address]
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// xdp: the interface's queue; what comes by another takes the slower way of an ordinary socket [default: 0]
    #[arg(long, value_name = "N")]
    pub queue: Option<u32>,
    /// xdp: where the program runs that steers frames to the socket [default: auto]
    #[arg(long, value_enum)]
    pub mode: Option<ModeArgument>,
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum ModeArgument {
    /// In the driver where that is faster: not on virtual interfaces (veth)
    Auto,
    /// In the driver
    Native,
    /// Above the driver: every interface can, more slowly
    Skb,
}

impl XdpArguments {
    /// Why they make no sense over a transport, if any was given and it is not xdp.
    ///
    /// # Errors
    /// In words that say what to do.
    pub fn check(&self, is_xdp: bool) -> Result<(), String> {
        let given = [
            ("--interface", self.interface.is_some()),
            ("--queue", self.queue.is_some()),
            ("--mode", self.mode.is_some()),
        ];
        match given.iter().find(|(_, given)| *given && !is_xdp) {
            Some((name, _)) => {
                Err(format!("{name} is about AF_XDP sockets; give --transport xdp with it, or leave it out"))
            }
            None => Ok(()),
        }
    }

    /// As a transport takes them.
    pub fn options(&self) -> XdpOptions {
        let default = XdpOptions::default();
        XdpOptions {
            interface: self.interface.clone(),
            queue: self.queue.unwrap_or(default.queue),
            mode: self.mode.map_or(default.mode, |mode| match mode {
                ModeArgument::Auto => Mode::Auto,
                ModeArgument::Native => Mode::Native,
                ModeArgument::Skb => Mode::Skb,
            }),
            ..default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_reaches_the_transport_and_what_is_not_is_its_default() {
        assert_eq!(XdpArguments::default().options(), XdpOptions::default());
        let given =
            XdpArguments { interface: Some("lan0".into()), queue: Some(3), mode: Some(ModeArgument::Skb) };
        let expected =
            XdpOptions { interface: Some("lan0".into()), queue: 3, mode: Mode::Skb, ..XdpOptions::default() };
        assert_eq!(given.options(), expected);
    }

    #[test]
    fn over_another_transport_each_is_refused_by_its_name() {
        let none = XdpArguments::default();
        let each = [
            ("--interface", XdpArguments { interface: Some("lo".into()), ..none.clone() }),
            ("--queue", XdpArguments { queue: Some(0), ..none.clone() }),
            ("--mode", XdpArguments { mode: Some(ModeArgument::Auto), ..none.clone() }),
        ];
        for (name, given) in each {
            assert!(given.check(true).is_ok());
            let why = given.check(false).unwrap_err();
            assert!(why.contains(name) && why.contains("--transport xdp"), "{why}");
        }
        assert!(none.check(false).is_ok());
    }
}
