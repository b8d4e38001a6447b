//! A root secret as 24 words that can be written on paper.
//!
//! The words are those of BIP-39 in English: 256 bits of the secret and 8 of its SHA-256 hash, eleven bits
//! a word. Not the seed that wallets derive from such words: the words *are* the secret.

use bip39::{Language, Mnemonic};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::root_secret::RootSecret;

/// Words in a phrase.
pub const PHRASE_WORDS: usize = 24;

/// Why words are no root secret. Nothing in them was changed or guessed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PhraseError {
    /// Too few or too many words.
    #[error("a phrase has {PHRASE_WORDS} words, not {found}")]
    WordCount {
        /// How many there are.
        found: usize,
    },
    /// A word is not in the list; look at how it is spelt.
    #[error("word {place} of the phrase is none of the list")]
    UnknownWord {
        /// Which one, from 1. The word itself is secret.
        place: usize,
    },
    /// All words are in the list, but one of them, or their order, is wrong.
    #[error("the words do not belong together: one of them is wrong, or in the wrong place")]
    Checksum,
}

impl RootSecret {
    /// The secret in words. Whoever reads them has it.
    pub fn to_phrase(&self) -> Zeroizing<String> {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, self.bytes());
        let mnemonic = mnemonic.expect("256 bits are one of the lengths");
        let mut phrase = Zeroizing::new(String::with_capacity(PHRASE_BYTES_MAX));
        for word in mnemonic.words() {
            if !phrase.is_empty() {
                phrase.push(' ');
            }
            phrase.push_str(word);
        }
        phrase
    }

    /// The secret that these words are, in any case and with any white space between them.
    ///
    /// # Errors
    /// [`PhraseError`].
    pub fn from_phrase(phrase: &str) -> Result<Self, PhraseError> {
        let found = phrase.split_whitespace().count();
        if found != PHRASE_WORDS {
            return Err(PhraseError::WordCount { found });
        }
        let mut normalized = Zeroizing::new(String::with_capacity(phrase.len()));
        for word in phrase.split_whitespace() {
            if !normalized.is_empty() {
                normalized.push(' ');
            }
            normalized.extend(word.chars().map(|c| c.to_ascii_lowercase()));
        }
        let mnemonic = Mnemonic::parse_in_normalized(Language::English, &normalized);
        let mnemonic = mnemonic.map_err(|error| match error {
            bip39::Error::UnknownWord(index) => PhraseError::UnknownWord { place: index + 1 },
            _ => PhraseError::Checksum,
        })?;
        let (entropy, _) = mnemonic.to_entropy_array();
        let entropy = Zeroizing::new(entropy);
        let secret = entropy.first_chunk::<32>().expect("33 bytes have 32");
        Ok(Self::from(*secret))
    }
}

/// The longest words have eight letters, so that a phrase never grows while it is made: nothing of it is
/// left behind in memory.
const PHRASE_BYTES_MAX: usize = 9 * PHRASE_WORDS;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From the test vectors of BIP-39 (trezor/python-mnemonic `vectors.json`, 256 bits).
    #[test]
    fn phrases_are_those_of_bip_39() {
        let zero = "abandon ".repeat(23) + "art";
        assert_eq!(*RootSecret::from([0; 32]).to_phrase(), zero);
        let ones = "zoo ".repeat(23) + "vote";
        assert_eq!(*RootSecret::from([0xff; 32]).to_phrase(), ones);
        let legal = "legal winner thank year wave sausage worth useful ".repeat(2)
            + "legal winner thank year wave sausage worth title";
        assert_eq!(*RootSecret::from([0x7f; 32]).to_phrase(), legal);
    }

    proptest! {
        #[test]
        fn a_phrase_is_the_secret_however_it_is_typed(secret: [u8; 32]) {
            let root = RootSecret::from(secret);
            let phrase = root.to_phrase();
            prop_assert!(phrase.len() <= PHRASE_BYTES_MAX);
            prop_assert_eq!(&RootSecret::from_phrase(&phrase).unwrap(), &root);
            let typed = format!("\n {}\t\n", phrase.to_uppercase().replace(' ', " \n "));
            prop_assert_eq!(&RootSecret::from_phrase(&typed).unwrap(), &root);
        }
    }

    #[test]
    fn wrong_words_are_named() {
        let phrase = RootSecret::from([3; 32]).to_phrase();
        let words: Vec<&str> = phrase.split(' ').collect();
        let error = |words: &[&str]| RootSecret::from_phrase(&words.join(" ")).unwrap_err();
        assert_eq!(error(&words[1..]), PhraseError::WordCount { found: 23 });
        assert_eq!(error(&[]), PhraseError::WordCount { found: 0 });
        let mut unknown = words.clone();
        unknown[4] = "hypercore";
        assert_eq!(error(&unknown), PhraseError::UnknownWord { place: 5 });
        let mut swapped = words.clone();
        let other = words.iter().position(|word| *word != words[0]).unwrap();
        swapped.swap(0, other);
        assert_eq!(error(&swapped), PhraseError::Checksum);
    }
}
