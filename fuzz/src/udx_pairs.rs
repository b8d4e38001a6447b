//! UDX: two streams that talk to each other over a network that the script rules.
//!
//! Holds on a network that loses, delays, reorders, doubles, repeats what it once carried and puts noise in place of
//! packets: what is read is what was written, from the first byte on; once the network is well again both ends
//! come to an end, and the bytes are all there unless somebody gave up. Where the script also forges packets, which
//! only somebody who knows the stream's id can: nothing panics, neither end waits for ever, and neither sends
//! without end.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use ferrocore_primitives::time::Time;
use ferrocore_udx::packet::{Header, Packet};
use ferrocore_udx::stream::{CloseReason, Config, Stream};

const IDS: [u32; 2] = [7, 9];

/// Datagrams that the network carries or remembers; older ones are lost.
const CARRIED_MAX: usize = 512;

/// Turns until both ends are over, once the network is well.
const TURNS_MAX: usize = 20_000;

/// Most that one end writes, in bytes.
const WRITTEN_MAX: usize = 300_000;

/// Two bytes choose the ends' windows and first sequence numbers; then each step is a byte that says what happens to
/// whom, and an operand.
pub fn run(data: &[u8]) {
    let [first, second, script @ ..] = data else {
        return;
    };
    let mut world = World::new([*first, *second]);
    let (steps, _) = script.as_chunks::<2>();
    for &[what, operand] in steps {
        world.step(what, usize::from(what >> 7), operand);
        world.exchange();
    }
    world.heal();
}

/// One end: a stream, what it was given and what it gave.
struct End {
    stream: Stream,
    written: usize,
    heard: usize,
    /// The script ended the stream before its time.
    was_cut: bool,
}

struct World {
    now: Time,
    ends: [End; 2],
    /// What is on its way to each end, in the order of sending.
    carried: [VecDeque<Vec<u8>>; 2],
    /// What was once on its way.
    remembered: [VecDeque<Vec<u8>>; 2],
    is_forged: bool,
}

impl World {
    fn new(choices: [u8; 2]) -> Self {
        let now = Time::from_nanos(1);
        let firsts =
            choices.map(|choice| [0, u32::MAX - 3, 0x7fff_fffe, 12][usize::from(choice & 3)]);
        let ends = [0, 1].map(|side: usize| {
            let mut config = Config::default();
            let window = choices.get(side).map_or(0, |choice| choice >> 2 & 3);
            config.receive_window = [2_000, 20_000, 100_000, 4 << 20][usize::from(window)];
            config.idle_timeout = Some(Duration::from_secs(60));
            config.keepalive = Some(Duration::from_secs(5));
            [config.first_seq, config.first_ack] = match side {
                0 => firsts,
                _ => [firsts[1], firsts[0]],
            };
            let mut stream = Stream::new(now, IDS[side], config);
            let connected = stream.connect(now, IDS[1 - side], address(1 - side));
            connected.expect("a new stream connects");
            End {
                stream,
                written: 0,
                heard: 0,
                was_cut: false,
            }
        });
        Self {
            now,
            ends,
            carried: Default::default(),
            remembered: Default::default(),
            is_forged: false,
        }
    }

    fn step(&mut self, what: u8, side: usize, operand: u8) {
        let place = usize::from(operand);
        match what & 0x0f {
            0 => self.write(side, place * 100),
            1 => self.read(side, place * 100),
            2 => self.wait(Duration::from_millis(u64::from(operand) * 10)),
            3 => self.deliver_all(side),
            4 => self.deliver(side, place),
            5 => drop(self.take(side, place)),
            6 => self.deliver_twice(side, place),
            7 => self.repeat(side, place),
            8 => self.garble(side, place),
            9 => self.wait(Duration::from_micros(u64::from(operand) * 20)),
            10 => self.write(side, 20_000),
            11 => self.read(side, usize::MAX),
            12 => self.forge(side, place),
            13 => self.deliver_all(1 - side),
            14 => self.carried[side].clear(),
            _ => self.act(side, operand),
        }
    }

    fn act(&mut self, side: usize, operand: u8) {
        let end = &mut self.ends[side];
        match operand % 8 {
            0 => drop(end.stream.finish()),
            1 => drop(end.stream.send_message(Bytes::from_static(b"message"))),
            2 => drop(end.stream.read_message()),
            3 => drop(
                end.stream
                    .change_remote(IDS[1 - side], address(2 + usize::from(operand))),
            ),
            4 => end.stream.set_receive_window(u32::from(operand) * 200),
            5 if operand > 250 => {
                end.stream.destroy();
                self.cut();
            }
            6 if operand > 250 => {
                let is_whole = end.stream.finish().is_ok();
                end.stream.release(self.now);
                if is_whole {
                    end.was_cut = true; // it reads no more; what it wrote arrives
                } else {
                    self.cut();
                }
            }
            _ => {}
        }
    }

    /// From now on neither end need hear everything.
    fn cut(&mut self) {
        self.ends.iter_mut().for_each(|end| end.was_cut = true);
    }

    fn write(&mut self, side: usize, len: usize) {
        let end = &mut self.ends[side];
        let len = len.min(WRITTEN_MAX - end.written);
        let data: Vec<u8> = (end.written..end.written + len)
            .map(|at| byte(side, at))
            .collect();
        end.written += end.stream.write(&data).unwrap_or(0);
    }

    fn read(&mut self, side: usize, max: usize) {
        let end = &mut self.ends[side];
        let bytes = end.stream.read(max);
        if !self.is_forged {
            let mut expected = (end.heard..).map(|at| byte(1 - side, at));
            let is_same = bytes.iter().all(|&heard| expected.next() == Some(heard));
            assert!(is_same, "other bytes at {}", end.heard);
        }
        self.ends[side].heard += bytes.len();
        let is_possible = self.ends[side].heard <= self.ends[1 - side].written;
        assert!(is_possible || self.is_forged, "bytes that nobody wrote");
    }

    fn wait(&mut self, duration: Duration) {
        self.now += duration;
        for end in &mut self.ends {
            end.stream.handle_timeout(self.now);
        }
    }

    fn take(&mut self, side: usize, place: usize) -> Option<Vec<u8>> {
        let len = self.carried[side].len();
        self.carried[side].remove(place % len.max(1))
    }

    fn deliver(&mut self, side: usize, place: usize) {
        if let Some(datagram) = self.take(side, place) {
            self.hand_over(side, &datagram);
        }
    }

    fn deliver_all(&mut self, side: usize) {
        for datagram in std::mem::take(&mut self.carried[side]) {
            self.hand_over(side, &datagram);
        }
    }

    fn deliver_twice(&mut self, side: usize, place: usize) {
        if let Some(datagram) = self.take(side, place) {
            self.hand_over(side, &datagram);
            self.hand_over(side, &datagram);
        }
    }

    /// Something from long ago comes again.
    fn repeat(&mut self, side: usize, place: usize) {
        let len = self.remembered[side].len();
        let old = self.remembered[side].get(place * 2 % len.max(1)).cloned();
        if let Some(datagram) = old {
            self.hand_over(side, &datagram);
        }
    }

    /// Noise arrives in place of a packet, whose checksum did not hold.
    fn garble(&mut self, side: usize, place: usize) {
        if let Some(mut datagram) = self.take(side, place) {
            datagram.iter_mut().for_each(|byte| *byte ^= 0x5a);
            self.hand_over(side, &datagram);
        }
    }

    /// A packet is changed by somebody who knows how.
    fn forge(&mut self, side: usize, place: usize) {
        let Some(mut datagram) = self.take(side, place) else {
            return;
        };
        self.is_forged = true;
        // Kinds, data offset, window, sequence number, ack or payload: anything but magic, version and id.
        let at = [2, 3, 8, 10, 12, 13, 15, 16, 17, 19, 20, 24, 28][place % 13];
        if let Some(byte) = datagram.get_mut(at) {
            *byte = byte.wrapping_add(u8::try_from(1 + place / 13 * 7).unwrap_or(0xff));
        }
        self.hand_over(side, &datagram);
    }

    fn hand_over(&mut self, side: usize, datagram: &[u8]) {
        let is_for_us = Header::parse(datagram).is_some_and(|header| header.stream_id == IDS[side]);
        if let Some(packet) = Packet::parse(datagram).filter(|_| is_for_us) {
            self.ends[side].stream.handle_packet(self.now, &packet);
        }
    }

    /// Puts what the ends have to send on its way.
    fn exchange(&mut self) {
        for side in [0, 1] {
            let mut out = Vec::new();
            let mut sent = 0;
            while let Some(transmit) = self.ends[side].stream.poll_transmit(self.now, 8, &mut out) {
                let segment = transmit.segment_size.unwrap_or(out.len());
                for datagram in out.chunks(segment) {
                    assert!(datagram.len() <= 1472, "{} bytes", datagram.len());
                    push(&mut self.carried[1 - side], datagram.to_vec());
                    push(&mut self.remembered[1 - side], datagram.to_vec());
                    sent += 1;
                }
                out.clear();
            }
            assert!(sent < 4_000, "{sent} datagrams at one moment");
        }
    }

    /// The network is well from now on, both ends read everything and end: so both come to an end.
    fn heal(&mut self) {
        if self.is_forged {
            // A forged ack leaves both waiting for what the other thinks to have sent: beats would keep that up.
            let ends = self.ends.iter_mut();
            ends.for_each(|end| end.stream.set_keepalive(None));
        }
        let mut turns = 0;
        while !self.ends.iter().all(|end| end.stream.is_drained()) {
            turns += 1;
            assert!(
                turns < TURNS_MAX,
                "no end: {:?} {:?}",
                self.ends[0].stream,
                self.ends[1].stream
            );
            for side in [0, 1] {
                self.read(side, usize::MAX);
                let _ = self.ends[side].stream.finish();
            }
            self.exchange();
            self.pass_time();
            for side in [0, 1] {
                self.deliver_all(side);
            }
        }
        self.judge();
    }

    /// To the arrival of what was sent, or else to the next deadline.
    fn pass_time(&mut self) {
        let deadlines = self.ends.iter().filter_map(|end| end.stream.poll_timeout());
        let next = deadlines.min();
        let is_carried = self.carried.iter().any(|carried| !carried.is_empty());
        self.now = match next {
            Some(at) if !is_carried => self.now.max(at),
            _ => self.now + Duration::from_millis(1),
        };
        self.wait(Duration::ZERO);
    }

    fn judge(&mut self) {
        if self.is_forged {
            return;
        }
        for side in [0, 1] {
            self.read(side, usize::MAX);
            let (reader, writer) = (&self.ends[side], &self.ends[1 - side]);
            let is_whole = reader.heard == writer.written;
            match reader.stream.close_reason() {
                None => assert!(is_whole || reader.was_cut, "ended after {}", reader.heard),
                Some(CloseReason::TimedOut | CloseReason::ResetByPeer | CloseReason::Destroyed) => {
                }
                Some(other) => panic!("closed as {other}"),
            }
        }
    }
}

fn push(queue: &mut VecDeque<Vec<u8>>, datagram: Vec<u8>) {
    if queue.len() >= CARRIED_MAX {
        queue.pop_front();
    }
    queue.push_back(datagram);
}

fn address(number: usize) -> std::net::SocketAddr {
    let port = u16::try_from(number).map_or(1, |number| 1 + number);
    ([10, 0, 0, 1], port).into()
}

/// What side `side` writes at `at`: shows a swap, a gap and a repetition.
fn byte(side: usize, at: usize) -> u8 {
    let mixed = (at >> 3).wrapping_mul(0x9e37_79b1) >> 13;
    (mixed.wrapping_add(at).wrapping_add(side * 101) & 0xff) as u8
}

/// Lives of every sort.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    const OTHER: u8 = 0x80;
    let calm = [
        &[0, 0x0c][..],
        &[0, 200, 3, 0, 13, 0, 3, 0, 11, 0, 9, 50],
        &[OTHER, 100, 3, 0, 13, 0, OTHER | 11, 0, 11, 0],
        &[15, 0, OTHER | 15, 0, 3, 0, 13, 0],
    ];
    let lossy = [
        &[0x04, 0x0a][..],
        &[
            10,
            0,
            2,
            1,
            13,
            0,
            3,
            0,
            5,
            1,
            2,
            2,
            13,
            0,
            3,
            0,
            5,
            3,
            OTHER | 5,
            0,
        ],
        &[
            2,
            20,
            OTHER | 3,
            0,
            3,
            0,
            OTHER | 6,
            2,
            4,
            5,
            OTHER | 4,
            9,
            2,
            100,
            7,
            3,
            OTHER | 8,
            0,
        ],
    ];
    let moving = [
        &[0x0f, 0x0d][..],
        &[
            10, 0, 13, 0, 3, 0, 15, 3, 10, 0, 13, 0, 15, 11, 14, 0, 2, 200, 3, 0, 15, 12, 15, 1,
        ],
        &[OTHER | 15, 2, OTHER | 15, 4, 15, 0, 2, 5],
    ];
    let forged = [
        &[0x08, 0x08][..],
        &[
            10,
            0,
            OTHER | 12,
            5,
            OTHER | 12,
            20,
            2,
            3,
            OTHER | 12,
            2,
            12,
            4,
            12,
            30,
            OTHER | 12,
            41,
        ],
    ];
    let cut = [
        &[0x0c, 0x0c][..],
        &[
            10,
            0,
            13,
            0,
            15,
            254,
            OTHER | 10,
            0,
            3,
            0,
            13,
            0,
            OTHER | 15,
            253,
        ],
    ];
    [&calm[..], &lossy, &moving, &forged, &cut]
        .map(|parts| parts.concat())
        .to_vec()
}
