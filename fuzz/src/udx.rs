//! UDX: datagrams of anyone, and a peer of a stream that says whatever it wants.
//!
//! Holds: a packet that was read is written with the same bytes; a stream keeps no more than its window and a few
//! packets, sends no more than it was given and may, answers each packet with at most one, and is over in
//! bounded time once nobody speaks any more.

use std::time::Duration;

use bytes::Bytes;
use ferrocore_primitives::time::Time;
use ferrocore_udx::limits::ACKS_MAX;
use ferrocore_udx::packet::{Header, Kinds, Packet, put_sack};
use ferrocore_udx::stream::{Config, Stream};

/// One datagram.
pub fn packets(data: &[u8]) {
    let Some(packet) = Packet::parse(data) else {
        return;
    };
    let mut written = packet.header.to_bytes().to_vec();
    let sacks: Vec<_> = packet.sacks().collect();
    let skipped = data.len() - written.len() - packet.payload.len();
    assert!(
        sacks.len() * 8 <= skipped,
        "blocks and payload do not overlap"
    );
    for &(start, end) in &sacks {
        put_sack(&mut written, start, end);
    }
    assert!(data.starts_with(&written) || !packet.header.kinds.has(Kinds::SACK));
    assert!(data.starts_with(&packet.header.to_bytes()));
    assert!(data.ends_with(packet.payload));
}

/// The receive window of the stream, in bytes; what it keeps is a small multiple.
const WINDOW: u32 = 20_000;

/// Datagrams of the stream in one go.
const BATCH_MAX: usize = 8;

/// A script: a byte that says what is next, then its operands. The peer's packets take their fields from the
/// script, near to those that would be right.
pub fn streams(data: &[u8]) {
    let mut config = Config::default();
    config.receive_window = WINDOW;
    config.give_up_after = Duration::from_secs(30);
    config.idle_timeout = Some(Duration::from_secs(60));
    let now = Time::from_nanos(1);
    let stream = Stream::new(now, 7, config);
    let mut script = Script {
        stream,
        now,
        written: 0,
        read: 0,
        heard: 0,
        sent: 0,
        unanswered: 0,
    };
    let mut rest = data;
    while let [what, behind @ ..] = rest {
        rest = script.step(*what, behind);
        script.send();
    }
    script.fall_silent();
}

struct Script {
    stream: Stream,
    now: Time,
    written: usize,
    read: usize,
    heard: usize,
    sent: usize,
    /// Packets of the peer since we last said something that is no data.
    unanswered: usize,
}

impl Script {
    /// Does one thing and returns what is left of the script.
    fn step<'a>(&mut self, what: u8, behind: &'a [u8]) -> &'a [u8] {
        let (operand, rest) = match behind {
            [operand, rest @ ..] => (*operand, rest),
            [] => (0, behind),
        };
        match what % 8 {
            0 => {
                let address = ([10, 0, 0, 1], 1 + u16::from(operand)).into();
                let _ = self.stream.connect(self.now, 9, address);
            }
            1 => {
                let data = vec![operand; usize::from(operand) * 100];
                self.written += self.stream.write(&data).unwrap_or(0);
            }
            2 => self.read += self.stream.read(usize::from(operand) * 100).len(),
            3 => self.wait(Duration::from_millis(u64::from(operand) * 20)),
            4 => self.act(operand),
            _ => return self.packet(what, behind),
        }
        rest
    }

    fn act(&mut self, operand: u8) {
        match operand % 6 {
            0 => drop(self.stream.finish()),
            1 => drop(self.stream.send_message(Bytes::from_static(b"message"))),
            2 => drop(self.stream.read_message()),
            3 => drop(self.stream.change_remote(9, ([10, 0, 0, 2], 1).into())),
            4 => self.stream.set_keepalive(Some(Duration::from_millis(500))),
            _ if operand == 255 => self.stream.destroy(),
            _ => {}
        }
    }

    /// Ten bytes of the script make a packet: kinds, offset, window, sequence number, ack, a SACK block, length.
    fn packet<'a>(&mut self, what: u8, behind: &'a [u8]) -> &'a [u8] {
        let Some((fields, rest)) = behind.split_first_chunk::<8>() else {
            return &[];
        };
        let [kinds, offset, window, seq, ack, start, len, payload] = *fields;
        let near = |value: u8| i32::from(value.cast_signed()).cast_unsigned();
        let far = if what >= 0xf8 { 0x7fff_ff00 } else { 0 };
        let header = Header {
            kinds: Kinds::from_byte(kinds),
            data_offset: if offset > 200 { offset } else { 0 },
            stream_id: 7,
            window: u32::from(window) * 100,
            seq: near(seq).wrapping_add(far),
            ack: near(ack).wrapping_sub(far),
        };
        let mut datagram = header.to_bytes().to_vec();
        put_sack(
            &mut datagram,
            near(start),
            near(start).wrapping_add(near(len)),
        );
        datagram.resize(datagram.len() + usize::from(payload) * 5, payload);
        if let Some(packet) = Packet::parse(&datagram) {
            self.heard += packet.payload.len();
            self.unanswered += 1;
            self.stream.handle_packet(self.now, &packet);
        }
        rest
    }

    fn wait(&mut self, duration: Duration) {
        self.now += duration;
        self.stream.handle_timeout(self.now);
    }

    /// Takes everything the stream has to send at this moment.
    fn send(&mut self) {
        let (mut out, mut others) = (Vec::new(), 0);
        while let Some(transmit) = self.stream.poll_transmit(self.now, BATCH_MAX, &mut out) {
            let segment = transmit.segment_size.unwrap_or(out.len());
            assert!(out.len().div_ceil(segment) <= BATCH_MAX, "too many at once");
            for datagram in out.chunks(segment) {
                let packet = Packet::parse(datagram).expect("what is sent can be read");
                if packet.header.kinds.has(Kinds::DATA | Kinds::END) {
                    self.sent += 1;
                } else if !packet.header.kinds.has(Kinds::MESSAGE) {
                    others += 1;
                }
            }
            out.clear();
        }
        // Acks, and one packet that the time or the owner asked for.
        let acks_max = self.unanswered.clamp(1, ACKS_MAX as usize);
        assert!(
            others <= acks_max + 1,
            "{others} packets without data at once"
        );
        if others > 0 {
            self.unanswered = 0;
        }
        self.read += self.stream.read(0).len();
        assert!(self.read <= self.heard, "bytes that nobody sent");
        assert!(self.stream.stats().in_flight <= (self.written + 65_536) as u64);
    }

    /// From now on nobody speaks: the stream ends by itself, without a busy loop.
    fn fall_silent(&mut self) {
        let mut turns = 0;
        while let Some(at) = self.stream.poll_timeout() {
            turns += 1;
            assert!(turns < 5_000, "{:?} is no end", self.stream);
            assert!(at <= self.now + Duration::from_secs(3600));
            self.now = self.now.max(at);
            self.stream.handle_timeout(self.now);
            self.send();
        }
        assert!(
            self.stream.is_closed(),
            "{:?} waits for nothing",
            self.stream
        );
    }
}

/// Captured packets.
pub(crate) fn packet_seeds() -> Vec<Vec<u8>> {
    let header = |kinds, seq, ack| Header {
        kinds,
        data_offset: 0,
        stream_id: 0x0a0b_0c0d,
        window: 4 << 20,
        seq,
        ack,
    };
    let mut sack = header(Kinds::SACK, 0, 1).to_bytes().to_vec();
    put_sack(&mut sack, 2, 4);
    put_sack(&mut sack, 6, 7);
    let data = [&header(Kinds::DATA, 0, 0).to_bytes()[..], b"hello"].concat();
    let mut probe = header(Kinds::DATA, 2, 0);
    probe.data_offset = 32;
    let probe = [&probe.to_bytes()[..], &[0; 32], b"behind the padding"].concat();
    vec![
        sack,
        data,
        probe,
        header(Kinds::END, 1, 0).to_bytes().to_vec(),
    ]
}

/// A life: connect, write, be acked, hear data in order and not, end.
pub(crate) fn stream_seeds() -> Vec<Vec<u8>> {
    let life = [
        &[0, 1, 1, 200, 3, 1][..],
        &[5, 0, 0, 255, 0, 10, 0, 0, 0],     // an ack of ten packets
        &[5, 4, 0, 255, 0, 10, 12, 3, 0],    // with a SACK block
        &[5, 1, 0, 255, 2, 18, 0, 0, 20],    // data, ahead
        &[5, 1, 0, 255, 0, 18, 0, 0, 20],    // data, in line
        &[2, 255, 4, 1, 4, 4, 3, 100, 4, 3], // read, a message, heartbeats, move
        &[1, 255, 3, 50, 3, 255, 4, 0, 3, 10], // write, time out, end
        &[5, 2, 0, 255, 1, 19, 0, 0, 0],     // the peer's end
    ]
    .concat();
    let unconnected = [
        &[5, 1, 0, 255, 0, 0, 0, 0, 40][..],
        &[5, 16, 0, 255, 1, 0, 0, 0, 0],
    ]
    .concat();
    vec![life, unconnected]
}
