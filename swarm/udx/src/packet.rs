//! The bytes of a UDX packet: 20 bytes of header, SACK blocks, padding, payload.
//! Knows the layout. Does not know what any field means to a stream.

use std::ops::BitOr;

/// Bytes before SACK blocks, padding and payload.
pub const HEADER_LEN: usize = 20;

/// First byte of every packet.
pub const MAGIC: u8 = 0xff;

/// Second byte of every packet: the protocol's version.
pub const VERSION: u8 = 1;

/// Bytes of one SACK block: first sequence number, and the one after the last.
pub const SACK_BLOCK_LEN: usize = 8;

/// What a packet is: any combination of the flags below, none for a plain ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Kinds(u8);

impl Kinds {
    /// A plain ack.
    pub const ACK: Self = Self(0);
    /// Carries stream bytes; takes a sequence number.
    pub const DATA: Self = Self(1);
    /// The sender's last packet, possibly with data; takes a sequence number.
    pub const END: Self = Self(2);
    /// Lists what arrived out of order.
    pub const SACK: Self = Self(4);
    /// Carries an unordered, unreliable message.
    pub const MESSAGE: Self = Self(8);
    /// The sender has dropped the stream.
    pub const DESTROY: Self = Self(16);
    /// Asks for an ack.
    pub const HEARTBEAT: Self = Self(32);

    /// True if any flag of `other` is set here.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The byte on the wire.
    pub const fn to_byte(self) -> u8 {
        self.0
    }

    /// Reads the byte on the wire. Unknown bits are kept and ignored, as libudx does.
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }
}

impl BitOr for Kinds {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The first 20 bytes of a packet; the layout is in the [crate documentation](crate).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the packet is.
    pub kinds: Kinds,
    /// Bytes between header and payload: padding of an MTU probe, or SACK blocks.
    pub data_offset: u8,
    /// The id that the *receiver* gave the stream.
    pub stream_id: u32,
    /// How many bytes the sender of this packet can take, in bytes.
    pub window: u32,
    /// Sequence number, in packets.
    pub seq: u32,
    /// The next sequence number that the sender of this packet expects.
    pub ack: u32,
}

impl Header {
    /// The 20 bytes.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [a, b, c, d] = self.stream_id.to_le_bytes();
        let [e, f, g, h] = self.window.to_le_bytes();
        let [i, j, k, l] = self.seq.to_le_bytes();
        let [m, n, o, p] = self.ack.to_le_bytes();
        [
            MAGIC,
            VERSION,
            self.kinds.to_byte(),
            self.data_offset,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            l,
            m,
            n,
            o,
            p,
        ]
    }

    /// Reads a header, `None` if `datagram` cannot be a UDX packet: too short, other magic or version.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = datagram.first_chunk()?;
        let [magic, version, kinds, data_offset, rest @ ..] = bytes;
        if (*magic, *version) != (MAGIC, VERSION) {
            return None;
        }
        let (words, _) = rest.as_chunks::<4>();
        let [stream_id, window, seq, ack] = words else {
            return None;
        };
        Some(Self {
            kinds: Kinds::from_byte(*kinds),
            data_offset: *data_offset,
            stream_id: u32::from_le_bytes(*stream_id),
            window: u32::from_le_bytes(*window),
            seq: u32::from_le_bytes(*seq),
            ack: u32::from_le_bytes(*ack),
        })
    }
}

/// A packet, borrowed from its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The fixed part.
    pub header: Header,
    /// What comes after padding or SACK blocks.
    pub payload: &'a [u8],
    sacks: &'a [[u8; SACK_BLOCK_LEN]],
}

impl<'a> Packet<'a> {
    /// Reads a packet, `None` if it is none or if its data offset points past its end.
    ///
    /// SACK blocks fill `data_offset` bytes where that leaves a payload, and everything after the header
    /// otherwise (libudx `process_packet`). Then the payload is empty: an ack carries no bytes.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let header = Header::parse(datagram)?;
        let body = datagram.get(HEADER_LEN..)?;
        let (offset_bytes, mut payload) = body.split_at_checked(header.data_offset.into())?;
        let mut sacks: &[[u8; SACK_BLOCK_LEN]] = &[];
        if header.kinds.has(Kinds::SACK) {
            let whole = offset_bytes.is_empty() || payload.is_empty();
            (sacks, _) = if whole { body } else { offset_bytes }.as_chunks();
            payload = if whole { &[] } else { payload };
        }
        Some(Self {
            header,
            payload,
            sacks,
        })
    }

    /// The SACK blocks as they stand there: first sequence number and the one after the last.
    pub fn sacks(&self) -> impl Iterator<Item = (u32, u32)> + 'a {
        self.sacks.iter().map(|[a, b, c, d, e, f, g, h]| {
            (
                u32::from_le_bytes([*a, *b, *c, *d]),
                u32::from_le_bytes([*e, *f, *g, *h]),
            )
        })
    }
}

/// Writes one SACK block.
pub fn put_sack(out: &mut Vec<u8>, start: u32, end: u32) {
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&end.to_le_bytes());
}

/// Gives a packet another stream id and leaves the rest alone, as a relay does. False if it is too short.
pub fn readdress(packet: &mut [u8], stream_id: u32) -> bool {
    match packet.get_mut(4..8) {
        Some(id) => {
            id.copy_from_slice(&stream_id.to_le_bytes());
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_header() -> impl Strategy<Value = Header> {
        let words = any::<(u8, u8, u32, u32, u32, u32)>();
        words.prop_map(|(kinds, data_offset, stream_id, window, seq, ack)| Header {
            kinds: Kinds::from_byte(kinds),
            data_offset,
            stream_id,
            window,
            seq,
            ack,
        })
    }

    proptest! {
        #[test]
        fn a_header_survives_the_round_trip(header in any_header()) {
            prop_assert_eq!(Header::parse(&header.to_bytes()), Some(header));
        }

        #[test]
        fn no_datagram_upsets_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..300), udx: bool) {
            let mut bytes = bytes;
            if udx && bytes.len() > 1 {
                bytes[0] = MAGIC;
                bytes[1] = VERSION;
            }
            if let Some(packet) = Packet::parse(&bytes) {
                prop_assert!(packet.sacks().count() * SACK_BLOCK_LEN + packet.payload.len() <= bytes.len() - HEADER_LEN);
            }
        }
    }

    #[test]
    fn a_data_offset_past_the_end_is_refused() {
        let header = Header {
            kinds: Kinds::DATA,
            data_offset: 3,
            stream_id: 1,
            window: 2,
            seq: 3,
            ack: 4,
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(b"ab");
        assert_eq!(Packet::parse(&bytes), None);
        bytes.push(b'c');
        assert_eq!(Packet::parse(&bytes).unwrap().payload, b"");
    }

    #[test]
    fn data_may_follow_sack_blocks() {
        let header = Header {
            kinds: Kinds::DATA | Kinds::SACK,
            data_offset: 8,
            stream_id: 1,
            window: 2,
            seq: 3,
            ack: 4,
        };
        let mut bytes = header.to_bytes().to_vec();
        put_sack(&mut bytes, 6, 9);
        bytes.extend_from_slice(b"data");
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.sacks().collect::<Vec<_>>(), [(6, 9)]);
        assert_eq!(packet.payload, b"data");
    }
}
