//! What one node says of itself on the local network, and how others recognise topics in it.
//! Knows bytes and hashes. Does not know multicast, or who is asking.
//!
//! # The announcement
//!
//! A DNS-SD service of type `_ferrocore._tcp.local.`, one for each node however many topics it serves. It is ours: no
//! JavaScript peer looks for it by itself.
//!
//! | record | content |
//! |---|---|
//! | instance | 32 hexadecimal digits, drawn anew each time a node starts |
//! | SRV | the TCP port where the node speaks the secret stream's XX handshake |
//! | A, AAAA | its addresses on this network |
//! | TXT `v` | `1`; others are ignored |
//! | TXT `t0` … `t7` | one tag each, 16 bytes as hexadecimal, if there are at most eight topics |
//! | TXT `f0` … `f3` | a Bloom filter of the tags, if there are more: 200 bytes each, in as few parts as keep it at most half full |
//!
//! A **tag** is the first 16 bytes of BLAKE2b-256, keyed by `ferrocore/lan/v1`, over topic (32 bytes), day (u64le, since
//! 1970 in UTC) and instance (its 32 digits). Who knows a topic recognises it; to others each tag is noise that neither
//! lasts nor is the same for two members of a topic. A tag's four u32le, modulo the filter's length in bits, are its
//! positions in the filter; bit `n` is bit `n % 8`, from the lowest, of byte `n / 8`.

use ferrocore_primitives::hash::keyed;

use crate::Topic;
use crate::limits::{LAN_TAGS_MAX, LAN_TOPICS_MAX};

/// The service type.
pub const SERVICE_TYPE: &str = "_ferrocore._tcp.local.";

/// Keys the hash, so that tags are of no use anywhere else.
const TAG_KEY: &[u8] = b"ferrocore/lan/v1";

const VERSION: &str = "1";

/// Bytes of a part of the filter: a TXT string has at most 255.
const PART_BYTES: usize = 200;

const PARTS_MAX: usize = 4;

/// Bits that a tag sets in a filter.
const PROBES: usize = 4;

/// A topic, as one node shows it on one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag([u8; 16]);

/// The topics that a node shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Each by its tag.
    Tags(Vec<Tag>),
    /// All in one filter, which also has topics in it that the node does not serve.
    Filter(Vec<u8>),
}

impl Tag {
    /// How the node with this instance name shows `topic` on `day`.
    pub fn new(topic: &Topic, day: u64, instance: &str) -> Self {
        let parts: [&[u8]; 3] = [topic.as_bytes(), &day.to_le_bytes(), instance.as_bytes()];
        let hash = keyed(TAG_KEY, &parts);
        let mut tag = [0; 16];
        for (to, from) in tag.iter_mut().zip(hash.as_bytes()) {
            *to = *from;
        }
        Self(tag)
    }

    fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn from_hex(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text)
            .ok()
            .filter(|text| text.len() == 32)?;
        let number = u128::from_str_radix(text, 16).ok()?;
        Some(Self(number.to_be_bytes()))
    }

    /// Its positions in a filter of so many bits.
    fn positions(&self, bits: usize) -> impl Iterator<Item = usize> {
        let words = self.0.chunks_exact(4).take(PROBES);
        words.map(move |word| {
            let word = word
                .iter()
                .rev()
                .fold(0, |sum: u32, byte| sum << 8 | u32::from(*byte));
            usize::try_from(word).unwrap_or(0) % bits.max(1)
        })
    }
}

impl Shown {
    /// Shows the first [`LAN_TOPICS_MAX`] of these topics.
    pub fn new<'a>(topics: impl Iterator<Item = &'a Topic>, day: u64, instance: &str) -> Self {
        let topics = topics.take(LAN_TOPICS_MAX);
        let tags: Vec<Tag> = topics.map(|topic| Tag::new(topic, day, instance)).collect();
        match tags.len() {
            0..=LAN_TAGS_MAX => Self::Tags(tags),
            _ => Self::filter(&tags),
        }
    }

    fn filter(tags: &[Tag]) -> Self {
        let mut filter = Vec::new();
        for parts in 1..=PARTS_MAX {
            filter = vec![0; parts * PART_BYTES];
            for tag in tags {
                set_bits(&mut filter, tag);
            }
            if is_at_most_half_full(&filter) {
                break;
            }
        }
        Self::Filter(filter)
    }

    /// Whether the node that shows this may serve `topic`. Its clock and ours may be a day apart.
    pub fn has(&self, topic: &Topic, today: u64, instance: &str) -> bool {
        let days = today.saturating_sub(1)..=today.saturating_add(1);
        days.into_iter().any(|day| {
            let tag = Tag::new(topic, day, instance);
            match self {
                Self::Tags(tags) => tags.contains(&tag),
                Self::Filter(filter) => has_bits(filter, &tag),
            }
        })
    }

    /// The TXT record, as keys and values.
    pub fn to_txt(&self) -> Vec<(String, Vec<u8>)> {
        let mut txt = vec![("v".to_owned(), VERSION.into())];
        match self {
            Self::Tags(tags) => txt.extend(
                tags.iter()
                    .enumerate()
                    .map(|(index, tag)| (format!("t{index}"), tag.to_hex().into_bytes())),
            ),
            Self::Filter(filter) => txt.extend(
                filter
                    .chunks(PART_BYTES)
                    .enumerate()
                    .map(|(index, part)| (format!("f{index}"), part.to_vec())),
            ),
        }
        txt
    }

    /// Reads a TXT record. `None` if it is of another version, or shows so much that it would attract anybody.
    pub fn from_txt<'a>(value: impl Fn(&str) -> Option<&'a [u8]>) -> Option<Self> {
        value("v").filter(|version| *version == VERSION.as_bytes())?;
        let mut filter = Vec::new();
        for index in 0..PARTS_MAX {
            match value(&format!("f{index}")) {
                Some(part) if part.len() == PART_BYTES => filter.extend_from_slice(part),
                Some(_) => return None,
                None => break,
            }
        }
        if !filter.is_empty() {
            return is_at_most_half_full(&filter).then_some(Self::Filter(filter));
        }
        let tags = (0..LAN_TAGS_MAX).map_while(|index| value(&format!("t{index}")));
        let tags: Option<Vec<Tag>> = tags.map(Tag::from_hex).collect();
        tags.map(Self::Tags)
    }
}

fn set_bits(filter: &mut [u8], tag: &Tag) {
    for position in tag.positions(filter.len() * 8) {
        if let Some(byte) = filter.get_mut(position / 8) {
            *byte |= 1 << (position % 8);
        }
    }
}

fn has_bits(filter: &[u8], tag: &Tag) -> bool {
    let mut positions = tag.positions(filter.len() * 8);
    positions.all(|position| {
        let byte = filter.get(position / 8);
        byte.is_some_and(|byte| byte & (1 << (position % 8)) != 0)
    })
}

fn is_at_most_half_full(filter: &[u8]) -> bool {
    let bits: usize = filter.iter().map(|byte| byte.count_ones() as usize).sum();
    bits <= filter.len() * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANCE: &str = "00112233445566778899aabbccddeeff";

    fn topics(count: usize) -> Vec<Topic> {
        (0..count)
            .map(|number| Topic::from_name(&number.to_string()))
            .collect()
    }

    fn round_trip(shown: &Shown) -> Option<Shown> {
        let txt = shown.to_txt();
        for (key, value) in &txt {
            assert!(key.len() + 1 + value.len() <= 255);
        }
        let find = |key: &str| txt.iter().find(|(name, _)| name == key);
        Shown::from_txt(|key| find(key).map(|(_, value)| value.as_slice()))
    }

    /// Goal: whatever the number of topics, each is recognised, and few others are.
    #[test]
    fn what_is_served_is_recognised_and_little_else() {
        for count in [0, 1, 8, 9, 100, 275, LAN_TOPICS_MAX] {
            let topics = topics(count);
            let shown = Shown::new(topics.iter(), 20_000, INSTANCE);
            assert_eq!(round_trip(&shown).as_ref(), Some(&shown), "{count}");
            assert_eq!(matches!(shown, Shown::Tags(_)), count <= 8);
            for topic in &topics {
                assert!(shown.has(topic, 20_000, INSTANCE));
            }
            let strangers = (0..1000).map(|number| Topic::from_name(&format!("other {number}")));
            let mistaken = strangers
                .filter(|topic| shown.has(topic, 20_000, INSTANCE))
                .count();
            // Three days, each with a chance of a sixteenth at worst.
            assert!(
                mistaken <= if count <= 8 { 0 } else { 220 },
                "{count}: {mistaken}"
            );
        }
    }

    #[test]
    fn clocks_may_be_a_day_apart_and_no_more() {
        let topic = Topic::from_name("one");
        let shown = Shown::new([topic].iter(), 20_000, INSTANCE);
        for (today, is_recognised) in [
            (19_998, false),
            (19_999, true),
            (20_001, true),
            (20_002, false),
        ] {
            assert_eq!(shown.has(&topic, today, INSTANCE), is_recognised, "{today}");
        }
        assert!(
            !shown.has(&topic, 20_000, "another"),
            "tags are of one node"
        );
    }

    #[test]
    fn what_a_stranger_sends_is_refused_or_harmless() {
        let read = |pairs: &[(&str, &[u8])]| {
            Shown::from_txt(|key| {
                pairs
                    .iter()
                    .find(|(name, _)| *name == key)
                    .map(|(_, value)| *value)
            })
        };
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("v", b"2"), ("t0", &[b'0'; 32])]), None);
        assert_eq!(read(&[("v", b"1"), ("t0", b"xyz")]), None);
        assert_eq!(read(&[("v", b"1"), ("t0", &[0xff; 32])]), None);
        assert_eq!(read(&[("v", b"1"), ("f0", &[0; 199])]), None);
        let full: &[u8] = &[0xff; PART_BYTES];
        assert_eq!(
            read(&[("v", b"1"), ("f0", full)]),
            None,
            "it would attract anybody"
        );
        assert_eq!(read(&[("v", b"1")]), Some(Shown::Tags(Vec::new())));
        assert_eq!(
            read(&[("v", b"1"), ("t8", &[b'0'; 32])]),
            Some(Shown::Tags(Vec::new()))
        );
    }

    /// The Node shim in `interop-tests` computes the same.
    #[test]
    fn a_tag_is_as_documented() {
        let tag = Tag::new(&Topic::from([7; 32]), 20_000, INSTANCE);
        let mut message = vec![7; 32];
        message.extend_from_slice(&20_000_u64.to_le_bytes());
        message.extend_from_slice(INSTANCE.as_bytes());
        let hash = keyed(b"ferrocore/lan/v1", &[&message]).to_hex();
        assert_eq!(Some(tag.to_hex().as_str()), hash.get(..32));
        assert_eq!(Tag::from_hex(tag.to_hex().as_bytes()), Some(tag));
    }
}
