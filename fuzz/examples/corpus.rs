//! Moves inputs between the committed files and the folders that libFuzzer works on.
//!
//! Usage: `cargo run -p ferrocore-fuzz --example corpus -- unpack|pack DIRECTORY`
//!
//! `unpack` writes the seeds and the committed inputs, a folder for each target; `pack` makes what
//! is in those folders the committed inputs.

use std::path::{Path, PathBuf};
use std::{fs, io};

use ferrocore_fuzz::{TARGETS, corpus, seeds};

fn main() -> io::Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [verb, directory] = arguments.as_slice() else {
        panic!("usage: corpus unpack|pack DIRECTORY");
    };
    let directory = PathBuf::from(directory);
    for target in TARGETS {
        let folder = directory.join(target.name);
        match verb.to_str() {
            Some("unpack") => unpack(target.name, &folder)?,
            Some("pack") => pack(target.name, &folder)?,
            _ => panic!("usage: corpus unpack|pack DIRECTORY"),
        }
    }
    Ok(())
}

fn unpack(target: &str, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let seeds = seeds::seeds().into_iter();
    let seeds = seeds
        .filter(|(name, _)| *name == target)
        .map(|(_, input)| input);
    let inputs = seeds.chain(corpus::read(target)?);
    for (count, input) in inputs.enumerate() {
        fs::write(folder.join(format!("known-{count:05}")), input)?;
    }
    Ok(())
}

fn pack(target: &str, folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let files = fs::read_dir(folder)?;
    let inputs = files.map(|file| fs::read(file?.path()));
    corpus::write(target, inputs.collect::<io::Result<_>>()?)
}
