//! The rows: what a peer does, and what is to come of it. They stand by their nouns in `channels`, `requests`,
//! `proofs`, `pushes` and `holdings`.

use crate::act::Act;
use crate::stage::{From, Role};
use crate::{channels, holdings, proofs, pushes, requests};

/// One misbehaviour.
pub(crate) struct Row {
    /// As the documentation calls it.
    pub(crate) name: &'static str,
    pub(crate) from: From,
    pub(crate) acts: Vec<Act>,
    /// What it does instead while we write the log, where that is not asked for the same.
    pub(crate) to_writer: Option<(From, Vec<Act>)>,
    /// What comes of it while we read from the peer.
    pub(crate) reads: Expected,
    /// What comes of it while we write the log.
    pub(crate) writes: Expected,
}

impl Row {
    /// How it is played.
    pub(crate) fn played(&self, role: Role) -> (From, &[Act]) {
        match (&self.to_writer, role) {
            (Some((from, acts)), Role::Writes) => (*from, acts),
            _ => (self.from, &self.acts),
        }
    }

    /// This is what it does while we write the log.
    pub(crate) fn while_we_write(self, from: From, acts: Vec<Act>) -> Self {
        Self {
            to_writer: Some((from, acts)),
            ..self
        }
    }
}

/// What is done about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Ignore,
    /// It is told that it gets no answer.
    Refuse,
    /// Nothing more is read from it until it reads.
    NotRead,
    /// It is asked for nothing more on this channel.
    StopAsking,
    /// Its channel is closed.
    CloseChannel,
    /// Its connection is closed.
    CloseConnection,
    /// Its connection is closed, and its key kept away for a time.
    Ban,
}

/// What must come of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) verdict: Verdict,
    /// The error's variant.
    pub(crate) error: &'static str,
    /// Messages that it may cost us.
    pub(crate) answers_max: usize,
    /// Memory that it may leave behind, in KiB.
    pub(crate) held_kib_max: usize,
    /// Memory that it may take on the way beside three times what the peer sent, in KiB. Two of those are the
    /// scripted peer's own.
    pub(crate) peak_kib_max: usize,
    /// Whether the log grows, by what is true in it.
    pub(crate) changes: bool,
    /// Why it is refused, if it is told.
    pub(crate) reasons: &'static str,
    /// Proofs that may be looked at and do not hold. Each is a signature at most.
    pub(crate) proofs_max: u64,
    /// How often it may have our storage read.
    pub(crate) reads_max: usize,
}

impl Expected {
    pub(crate) const fn of(verdict: Verdict, error: &'static str) -> Self {
        Self {
            verdict,
            error,
            answers_max: 4,
            held_kib_max: 16,
            peak_kib_max: 64,
            changes: false,
            reasons: "",
            proofs_max: 1,
            reads_max: 128,
        }
    }

    /// Up to so many messages are answered.
    pub(crate) const fn answers(self, answers_max: usize) -> Self {
        Self {
            answers_max,
            ..self
        }
    }

    /// Up to so many KiB are kept.
    pub(crate) const fn kib(self, held_kib_max: usize) -> Self {
        Self {
            held_kib_max,
            ..self
        }
    }

    /// Up to so many KiB are taken on the way.
    pub(crate) const fn peak(self, peak_kib_max: usize) -> Self {
        Self {
            peak_kib_max,
            ..self
        }
    }

    /// It is told why.
    pub(crate) const fn because(self, reasons: &'static str) -> Self {
        Self { reasons, ..self }
    }

    /// Up to so many proofs are looked at that do not hold.
    pub(crate) const fn proofs(self, proofs_max: u64) -> Self {
        Self { proofs_max, ..self }
    }

    /// Our storage may be read so often.
    pub(crate) const fn reads(self, reads_max: usize) -> Self {
        Self { reads_max, ..self }
    }

    /// What was true in it is kept.
    pub(crate) const fn changes(self) -> Self {
        Self {
            changes: true,
            ..self
        }
    }

    /// As the documentation says it.
    pub(crate) fn say(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ignore => "ignore",
            Verdict::Refuse => "refuse",
            Verdict::NotRead => "not read",
            Verdict::StopAsking => "stop asking",
            Verdict::CloseChannel => "close channel",
            Verdict::CloseConnection => "close connection",
            Verdict::Ban => "ban",
        };
        match self.error {
            "" => verdict.to_owned(),
            error => format!("{verdict}: `{error}`"),
        }
    }
}

pub(crate) const IGNORE: Expected = Expected::of(Verdict::Ignore, "");
pub(crate) const REFUSE: Expected = Expected::of(Verdict::Refuse, "");
pub(crate) const NOT_READ: Expected = Expected::of(Verdict::NotRead, "");
pub(crate) const BAD_CAPABILITY: Expected = Expected::of(Verdict::Ban, "BadCapability");

/// The connection is closed.
pub(crate) const fn closes(error: &'static str) -> Expected {
    Expected::of(Verdict::CloseConnection, error)
}

/// The channel is closed.
pub(crate) const fn drops(error: &'static str) -> Expected {
    Expected::of(Verdict::CloseChannel, error)
}

/// The largest number on the wire.
pub(crate) const MAX: u64 = (1 << 53) - 1;

pub(crate) fn row(
    name: &'static str,
    from: From,
    acts: Vec<Act>,
    reads: Expected,
    writes: Expected,
) -> Row {
    Row {
        name,
        from,
        acts,
        to_writer: None,
        reads,
        writes,
    }
}

/// A row with the same consequence in both roles.
pub(crate) fn both(name: &'static str, from: From, acts: Vec<Act>, expected: Expected) -> Row {
    row(name, from, acts, expected, expected)
}

/// All of them.
pub(crate) fn rows() -> Vec<Row> {
    let all = [
        channels::openings(),
        channels::frames(),
        channels::malformed(),
        requests::states(),
        requests::requests(),
        proofs::answers(),
        proofs::block_lies(),
        proofs::length_lies(),
        proofs::fork_lies(),
        pushes::pushes(),
        holdings::holdings(),
        holdings::extensions(),
    ];
    all.into_iter().flatten().collect()
}
