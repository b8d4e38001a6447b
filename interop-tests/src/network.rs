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

    /// As [`new`](Self::new); where it is not permitted, says so and returns none: the test is to be skipped.
    pub fn if_permitted(hosts: u8) -> Option<Self> {
        let network = Self::new(hosts);
        let skip = |reason: &String| {
            eprintln!("skipped: network namespaces are not permitted here: {reason}");
        };
        network.inspect_err(skip).ok()
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

    /// Moves a host to another address of the network, `10.7.0.last`: the old one is gone at once.
    ///
    /// # Panics
    /// If `ip` fails.
    pub fn move_host(&self, host: u8, last: u8) {
        let name = self.host(host).name;
        let new = format!("{}/24", Ipv4Addr::new(10, 7, 0, last));
        let moved = ip(["-n", &name, "addr", "flush", "dev", "eth0"])
            .and_then(|()| ip(["-n", &name, "addr", "add", &new, "dev", "eth0"]));
        moved.expect("a host's address can be changed");
    }

    /// Takes all addresses of the network from a host.
    ///
    /// # Panics
    /// If `ip` fails.
    pub fn take_addresses(&self, host: u8) {
        let name = self.host(host).name;
        let taken = ip(["-n", &name, "addr", "flush", "dev", "eth0"]);
        taken.expect("a host's addresses can be taken");
    }

    /// Cuts a host's cable, and leaves two ends of devices of the switch's namespace, which is named first: what the host sends
    /// arrives at the first of them, and the network is behind the second. Packets cross one by one.
    pub(crate) fn open_cable(&self, host: u8) -> Result<(String, [String; 2]), String> {
        let (switch, port) = (self.switch(), format!("port{host}"));
        let (end, plug) = (format!("end{host}"), format!("plug{host}"));
        ip(["-n", &switch, "link", "set", &port, "nomaster"])?;
        ip([
            "-n", &switch, "link", "add", &end, "type", "veth", "peer", "name", &plug,
        ])?;
        ip([
            "-n",
            &switch,
            "link",
            "set",
            &plug,
            "master",
            "switch",
            "gso_max_segs",
            "1",
            "up",
        ])?;
        ip(["-n", &switch, "link", "set", &end, "up"])?;
        let name = self.host(host).name;
        ip(["-n", &name, "link", "set", "eth0", "gso_max_segs", "1"])?;
        Ok((switch, [port, end]))
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

impl Host {
    /// Gives this host a way out that leads nowhere, and counts what it sends there, or to neighbours by UDP, but for
    /// multicast DNS.
    ///
    /// # Errors
    /// What `nft` or `ip` said: then the test is to be skipped, with that message.
    pub fn watch_strays(&self) -> Result<(), String> {
        let route = ["-n", &self.name, "route", "add", "default", "via"];
        let [a, b, c, d, e, f] = route;
        ip([a, b, c, d, e, f, "10.7.0.250"])?;
        self.nft("add table inet strays")?;
        self.nft("add chain inet strays out { type filter hook output priority 0; }")?;
        for stray in STRAYS {
            self.nft(&format!("add rule inet strays out {stray} counter"))?;
        }
        Ok(())
    }

    /// Lets no mDNS in, as a firewall might that passes other multicast.
    ///
    /// # Errors
    /// What `nft` said: then the test is to be skipped, with that message.
    pub fn refuse_multicast(&self) -> Result<(), String> {
        self.nft("add table inet quiet")?;
        self.nft("add chain inet quiet in { type filter hook input priority 0; }")?;
        self.nft("add rule inet quiet in ip daddr 224.0.0.0/4 udp dport 5353 drop")?;
        self.nft("add rule inet quiet in ip6 daddr ff00::/8 udp dport 5353 drop")?;
        Ok(())
    }

    /// How many there were since [`watch_strays`](Self::watch_strays).
    ///
    /// # Panics
    /// If nobody watches.
    pub fn strays(&self) -> u64 {
        self.counted("inet strays")
    }

    /// From now on this host loses so many of a thousand datagrams that come in, by chance.
    ///
    /// # Errors
    /// What `nft` or `ip` said: then the test is to be skipped, with that message.
    pub fn lose(&self, permille: u32) -> Result<(), String> {
        // Those it sends cross one by one: otherwise a bunch of them would be lost as one.
        let name = self.name.as_str();
        ip(["-n", name, "link", "set", "eth0", "gso_max_segs", "1"])?;
        let rule = format!("meta l4proto udp numgen random mod 1000 < {permille} counter drop");
        self.nft("add table ip lossy")?;
        self.nft("flush table ip lossy")?;
        self.nft("add chain ip lossy in { type filter hook input priority 0; }")?;
        self.nft(&format!("add rule ip lossy in {rule}"))?;
        Ok(())
    }

    /// How many it has lost since [`lose`](Self::lose).
    ///
    /// # Panics
    /// If it loses none.
    pub fn lost(&self) -> u64 {
        self.counted("ip lossy")
    }

    /// Packets counted by the rules of a table.
    fn counted(&self, table: &str) -> u64 {
        let rules = self.nft(&format!("list table {table}"));
        let rules = rules.expect("the table has been made");
        let mut words = rules.split_whitespace();
        let mut count = 0;
        while let Some(word) = words.next() {
            if word == "packets" {
                let packets = words.next().and_then(|packets| packets.parse::<u64>().ok());
                count += packets.expect("a counter has a number");
            }
        }
        count
    }

    fn nft(&self, rule: &str) -> Result<String, String> {
        let run = Command::new("ip")
            .args(["netns", "exec", &self.name, "nft", rule])
            .output();
        let output = run.map_err(|error| format!("`ip` cannot be run: {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(format!("`nft {rule}`: {}", said.trim()))
            }
        }
    }
}

/// What nobody sends who keeps to the local network: packets to other networks, and datagrams of anything but multicast DNS.
const STRAYS: [&str; 3] = [
    "ip daddr != { 10.7.0.0/24, 127.0.0.0/8, 224.0.0.0/24 }",
    "ip daddr { 10.7.0.0/24, 224.0.0.0/24 } udp dport != 5353",
    "ip6 daddr != { ::1, fe80::/10, ff02::/16 }",
];

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
