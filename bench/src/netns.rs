//! Two network namespaces with a wire between them that loses datagrams: `ip` and `nft`, as root.
//! Knows those two programs. Does not know what runs in the namespaces.

use std::process::{Command, Output};

const NAMES: [&str; 2] = ["ferrocore-a", "ferrocore-b"];

/// The address in each.
pub(crate) const ADDRESSES: [&str; 2] = ["10.231.77.1", "10.231.77.2"];

/// Removed when dropped, with what runs in them already gone.
#[derive(Debug)]
pub(crate) struct Namespaces(());

impl Namespaces {
    /// Makes them, or says why not.
    pub(crate) fn make() -> Result<Self, String> {
        NAMES.iter().for_each(|name| remove(name)); // left by a run that was killed
        run("nft", &["--version"])?;
        let made = Self(());
        for name in NAMES {
            ip(&["netns", "add", name])?;
        }
        let [a, b] = NAMES;
        ip(&[
            "link", "add", "wire", "netns", a, "type", "veth", "peer", "name", "wire", "netns", b,
        ])?;
        for (name, address) in NAMES.into_iter().zip(ADDRESSES) {
            ip(&[
                "-n",
                name,
                "addr",
                "add",
                &format!("{address}/24"),
                "dev",
                "wire",
            ])?;
            // Datagrams cross one by one: otherwise a bunch of the sender's would be lost as one.
            ip(&["-n", name, "link", "set", "wire", "gso_max_segs", "1"])?;
            ip(&["-n", name, "link", "set", "wire", "up"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(made)
    }

    /// From now on each end loses so many of a thousand datagrams that come in.
    pub(crate) fn lose(&self, permille: u32) -> Result<(), String> {
        let drop = format!(
            "add rule ip lossy in meta l4proto udp numgen random mod 1000 < {permille} drop"
        );
        for name in NAMES {
            let script = [
                "add table ip lossy",
                "flush table ip lossy",
                "add chain ip lossy in { type filter hook input priority 0 ; }",
                &drop,
            ];
            let script = script.join("\n");
            run("ip", &["netns", "exec", name, "nft", &script])?;
        }
        Ok(())
    }

    /// A command that runs `command` in namespace `index`, 0 or 1.
    pub(crate) fn inside(&self, index: usize, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", NAMES[index]]);
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        NAMES.iter().for_each(|name| remove(name));
    }
}

fn remove(name: &str) {
    let _ = ip(&["netns", "del", name]); // it may not exist
}

fn ip(arguments: &[&str]) -> Result<Output, String> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<Output, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{program} {}: {}",
        arguments.join(" "),
        said.trim()
    ))
}
