//! The committed inputs: one file for each target, so that thousands of them are no burden.
//!
//! | bytes | field |
//! |---|---|
//! | 2 | length of an input, little endian |
//! | … | the input |
//!
//! again and again, sorted by length, then by bytes.

use std::io;
use std::path::{Path, PathBuf};

/// Longest input that is kept.
pub const INPUT_BYTES_MAX: usize = 4096;

/// Where the inputs of `target` are.
pub fn path(target: &str) -> PathBuf {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    corpus.join(target).with_extension("bin")
}

/// The committed inputs of `target`, none if there is no file.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if the file ends inside an input; the file system's.
pub fn read(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let bytes = match std::fs::read(path(target)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes?,
    };
    let (mut inputs, mut rest) = (Vec::new(), &bytes[..]);
    while let [low, high, behind @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high]));
        let split = behind.split_at_checked(len);
        let (input, behind) = split.ok_or(io::ErrorKind::InvalidData)?;
        inputs.push(input.to_vec());
        rest = behind;
    }
    Ok(inputs)
}

/// Makes `inputs` the committed ones of `target`; too long ones are left out.
///
/// # Errors
/// The file system's.
pub fn write(target: &str, mut inputs: Vec<Vec<u8>>) -> io::Result<()> {
    inputs.retain(|input| input.len() <= INPUT_BYTES_MAX);
    inputs.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    inputs.dedup();
    let mut bytes = Vec::new();
    for input in &inputs {
        bytes.extend((input.len() as u16).to_le_bytes());
        bytes.extend(input);
    }
    std::fs::write(path(target), bytes)
}
