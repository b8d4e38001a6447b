//! Networks of this machine's own: hosts in namespaces, on one switch, with no way out.
//! Knows `ip`. Does not know what runs on the hosts.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Hosts on one switch. Dropped, all is removed.
#[derive(Debug)]
pub struct Network {
    name: String,
    hosts: u8,
}

/// One host of a [`Network`], for as long as that lives.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
}

impl Network {
    /// Makes a network of so many hosts, or says why that is not permitted here: then the test is to be skipped, with that
    /// message.
    ///
    /// # Errors
    /// What `ip` said. It takes root, and a kernel with bridges and veth pairs.
    pub fn new(hosts: u8) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("fc{}-{number}", std::process::id());
        // Made first, so that whatever fails, what there is so far is removed.
        let network = Self { name, hosts };
        let switch = network.switch();
        ip(["netns", "add", &switch])?;
        ip(["-n", &switch, "link", "add", "switch", "type", "bridge"])?;
        ip(["-n", &switch, "link", "set", "switch", "up"])?;
        for host in 0..hosts {
            network.add(host)?;
        }
        Ok(network)
    }

    /// The address of a host.
    pub fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 7, 0, host + 1)
    }

    /// One of the hosts.
    pub fn host(&self, host: u8) -> Host {
        Host {
            name: format!("{}-{host}", self.name),
        }
    }

    fn add(&self, host: u8) -> Result<(), String> {
        let (switch, name, port) = (self.switch(), self.host(host).name, format!("port{host}"));
        let address = format!("{}/24", self.address(host));
        ip(["netns", "add", &name])?;
        ip([
            "-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns",
            &name,
        ])?;
        ip([
            "-n", &switch, "link", "set", &port, "master", "switch", "up",
        ])?;
        ip(["-n", &name, "addr", "add", &address, "dev", "eth0"])?;
        ip(["-n", &name, "link", "set", "lo", "up"])?;
        ip(["-n", &name, "link", "set", "eth0", "up"])
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }
}

impl Host {
    /// The same command, on this host. It is one process with the same id, so that signals reach it.
    pub fn enter(&self, command: &Command) -> Command {
        let mut entered = Command::new("ip");
        entered.args(["netns", "exec", &self.name]);
        entered.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => entered.env(name, value),
                None => entered.env_remove(name),
            };
        }
        entered
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            ip(["netns", "del", &self.host(host).name]).ok();
        }
        ip(["netns", "del", &self.switch()]).ok();
    }
}

fn ip<const N: usize>(arguments: [&str; N]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.map(OsStr::new)).output();
    let output = output.map_err(|error| format!("`ip` cannot be run: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("`ip {}`: {}", arguments.join(" "), said.trim()))
        }
    }
}
