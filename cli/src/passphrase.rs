//! The passphrase of a command: from a file, from the environment, or typed without being shown.
//! Knows where secrets come from. Never puts one where it could be seen.

use std::fmt;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::args::{Command, KeyCommand};
use crate::exit::{Failure, Result};

/// The variable that may hold the passphrase.
const VARIABLE: &str = "FCORE_PASSPHRASE";

/// Most bytes of a passphrase: it travels in one frame of the control socket.
const BYTES_MAX: usize = 4096;

/// A passphrase: at least one byte, none of them zero. Gone from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    pub(crate) fn new(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        let is_one = !bytes.is_empty() && bytes.len() <= BYTES_MAX && !bytes.contains(&0);
        is_one.then_some(Self(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// The passphrase that `command` needs, if it needs one. `directory` is where it was typed.
///
/// To be called before anything else: whoever is asked may think better of it.
pub(crate) fn ask(command: &Command, directory: &Path) -> Result<Option<Passphrase>> {
    let Some((from, is_new)) = need(command) else {
        return Ok(None);
    };
    let read = match (from, std::env::var_os(VARIABLE)) {
        (Some(path), _) => from_file(&directory.join(path))?,
        (None, Some(value)) => Zeroizing::new(value.into_encoded_bytes()),
        (None, None) => typed(is_new)?,
    };
    let passphrase = Passphrase::new(read);
    let wrong = || Failure::usage("a passphrase has at least one byte, and none that is zero");
    passphrase.ok_or_else(wrong).map(Some)
}

/// Where the passphrase of `command` is, if it needs one, and whether it is a new one.
fn need(command: &Command) -> Option<(Option<&PathBuf>, bool)> {
    let Command::Key(command) = command else {
        return None;
    };
    match command {
        KeyCommand::Backup(backup) if backup.file.is_some() => {
            Some((backup.passphrase_file.as_ref(), true))
        }
        KeyCommand::Export(export) => Some((export.passphrase_file.as_ref(), true)),
        KeyCommand::Import(import) => Some((import.passphrase_file.as_ref(), false)),
        KeyCommand::Recover(recover) if recover.file.is_some() => {
            Some((recover.passphrase_file.as_ref(), false))
        }
        _ => None,
    }
}

/// The first line of a file.
fn from_file(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |error| {
        Failure::storage(
            format!("cannot read the passphrase in {}", path.display()),
            &error,
        )
    };
    let bytes = Zeroizing::new(std::fs::read(path).map_err(failed)?);
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok(Zeroizing::new(line.to_vec()))
}

/// From the terminal, twice if nothing would tell that it was mistyped.
fn typed(is_new: bool) -> Result<Zeroizing<Vec<u8>>> {
    let first = prompt("Passphrase: ")?;
    if is_new && prompt("The same again: ")? != first {
        return Err(Failure::usage(
            "the two passphrases differ; nothing was changed",
        ));
    }
    Ok(first)
}

fn prompt(text: &str) -> Result<Zeroizing<Vec<u8>>> {
    let typed = rpassword::prompt_password(text).map_err(|error| {
        Failure::usage(format!("cannot ask for the passphrase: {error}")).hint(format!(
            "name a file that has it with --passphrase-file, or set {VARIABLE}"
        ))
    })?;
    Ok(Zeroizing::new(typed.into_bytes()))
}

/// The words of a root secret: typed without being shown, or from stdin.
pub(crate) fn phrase() -> Result<Zeroizing<String>> {
    let stdin = std::io::stdin();
    let failed = |error| Failure::storage("cannot read the phrase", &error);
    let mut phrase = Zeroizing::new(String::with_capacity(1024));
    if stdin.is_terminal() {
        let typed = rpassword::prompt_password("The 24 words: ").map_err(failed)?;
        *phrase = typed;
        return Ok(phrase);
    }
    for line in stdin.lock().lines() {
        let line = Zeroizing::new(line.map_err(failed)?);
        if phrase.len() + line.len() > BYTES_MAX {
            return Err(Failure::usage("that is too long to be a phrase"));
        }
        phrase.push_str(&line);
        phrase.push(' ');
    }
    Ok(phrase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_the_first_line_of_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (content, expected) in [
            ("secret\nnot this\n", "secret"),
            (" se cret \r\n", " se cret "),
            ("secret", "secret"),
            ("", ""),
        ] {
            std::fs::write(file.path(), content).unwrap();
            assert_eq!(*from_file(file.path()).unwrap(), expected.as_bytes());
        }
    }

    #[test]
    fn a_passphrase_is_something_and_not_shown() {
        let new = |bytes: &[u8]| Passphrase::new(Zeroizing::new(bytes.to_vec()));
        assert_eq!(new(b""), None);
        assert_eq!(new(b"a\0b"), None);
        assert_eq!(new(&[1; BYTES_MAX + 1]), None);
        let shown = format!("{:?}", new(b"secret").unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
