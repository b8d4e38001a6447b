//! The operating system's randomness.
//! Knows how to ask for it. State machines do not: they get seeds passed in.
//!
//! On `wasm32-unknown-unknown` there is no system to ask: the application chooses a source, by `getrandom`
//! with its feature `wasm_js` (browsers, Node) or by a backend of its own.

/// Fills `out` with random bytes.
///
/// # Panics
/// If the system has no randomness to give: nothing secret can be made then.
pub fn fill(out: &mut [u8]) {
    getrandom::fill(out).expect("the operating system provides randomness");
}

/// `N` random bytes.
///
/// # Panics
/// As [`fill`].
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    fill(&mut out);
    out
}

/// A random number.
///
/// # Panics
/// As [`fill`].
pub fn u64() -> u64 {
    u64::from_le_bytes(bytes())
}
