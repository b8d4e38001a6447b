//! How a command fails: one error type, and the exit code of each kind.
//! Knows the table of exit codes. Does not know how errors are shown.

use std::fmt;
use std::io;

use ferrocore::NodeError;
use ferrocore::bee::BeeError;
use ferrocore::drive::DriveError;
use ferrocore::log::backup::BackupError;
use ferrocore::log::root_secret::RestoreError;
use ferrocore::log::{CoreError, StorageError, StoreError};

use crate::target::TargetError;

/// The result of a command or of a part of it.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command did not do all it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What kind of failure; decides the exit code.
    pub(crate) kind: Kind,
    /// What failed, and where: one line.
    pub(crate) message: String,
    /// What the user can do.
    pub(crate) hint: Option<String>,
}

/// The kinds of failure that scripts can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// None of the others.
    Other,
    /// A malformed link, a bad flag.
    Usage,
    /// No such path, version or name.
    NotFound,
    /// Nobody is there to ask.
    NoPeer,
    /// Somebody may be there, but nothing came within `--timeout`.
    Timeout,
    /// What came from the network did not verify.
    Verification,
    /// Not writable, no decryption key.
    NotPermitted,
    /// Full, locked, corrupt or not accessible.
    Storage,
    /// Done, but for what was skipped or kept.
    Partial,
    /// Ended by Ctrl-C or SIGTERM before it was done.
    Interrupted,
    /// Whoever read our output closed it: not an error, but a reason to stop.
    ReaderGone,
}

impl Kind {
    /// The process's exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::NoPeer | Self::Timeout => 4,
            Self::Verification => 5,
            Self::NotPermitted => 6,
            Self::Storage => 7,
            Self::Partial => 8,
            Self::Interrupted => 130,
            Self::ReaderGone => 0,
        }
    }

    /// The name in JSON errors.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::NoPeer => "no_peer",
            Self::Timeout => "timeout",
            Self::Verification => "verification",
            Self::NotPermitted => "not_permitted",
            Self::Storage => "storage",
            Self::Partial => "partial",
            Self::Interrupted => "interrupted",
            Self::ReaderGone => "reader_gone",
        }
    }
}

impl Failure {
    /// A failure of `kind`; `message` says what failed and where.
    pub(crate) fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: message.to_string(),
            hint: None,
        }
    }

    /// The same, with what the user can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The command line does not make sense.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Something named does not exist.
    pub(crate) fn not_found(message: impl fmt::Display) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// The operating system refused access to `what`.
    pub(crate) fn storage(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::new(Kind::Storage, format!("{what}: {error}"))
    }

    /// Ctrl-C or SIGTERM came first.
    pub(crate) fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted").hint("run the same command again to go on")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// What whoever restored a log can do.
const UNCONFIRMED_HINT: &str =
    "name a peer that has the log with --peer, or, only if nobody has more of it, add --offline";

/// What whoever lacks the secret can do.
const NOT_WRITABLE_HINT: &str = "do it where it was created, or bring its secret here with `fcore key export` and `import`; `fcore key ls` tells if one is damaged";

/// What whoever cuts too much off can do.
const PROLOGUE_HINT: &str =
    "its first blocks are pinned by its key; `fcore core info` tells how many";

/// What whoever appends too much at once can do.
pub(crate) const BLOCK_HINT: &str =
    "cut the input into shorter blocks: --lines, --frames, or split(1)";

/// What whoever meets damage can do.
const AUDIT_HINT: &str = "`fcore core audit` names all that is damaged; `fcore core audit --repair` mends what can be proven, and lets the rest be fetched again";

/// What whoever lacks nodes that block `index` brings can do.
fn missing_hint(index: u64) -> String {
    format!(
        "`fcore core get LOG {index}` fetches that from a peer; if it is here already, `fcore core audit --repair` mends what can be proven"
    )
}

/// What whoever has a log that cannot be opened can do.
const UNREADABLE_HINT: &str = "put the log's files back from a copy of the store; or, if somebody else writes it and a peer has it, \
    `fcore purge` it and fetch it again";

/// What whoever has a secret key that is damaged can do.
const SECRET_HINT: &str = "import it again with `fcore key import`, or put that file back from a copy of the store; the log can be read without";

/// What whoever has a key that does not fit can do.
const WRONG_KEY_HINT: &str = "give the whole link it was shared with, as in hyper://KEY#ENCRYPTION-KEY, or no # if it is not encrypted";

/// What whoever sees noise can do.
const ENCRYPTION_HINT: &str =
    "if it is encrypted, give the whole link, as in hyper://KEY#ENCRYPTION-KEY";

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        Self::usage(error)
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Store(error) => error.into(),
            NodeError::Drive(error) => error.into(),
            NodeError::Listen { .. } => Self::usage(error).hint("choose another address or port"),
            other => Self::new(Kind::Other, other),
        }
    }
}

impl From<DriveError> for Failure {
    fn from(error: DriveError) -> Self {
        let kind = match error {
            DriveError::Core(error) => return error.into(),
            DriveError::Store(error) => return error.into(),
            DriveError::Bee(error) => return error.into(),
            DriveError::Path { .. } => Kind::Usage,
            DriveError::Entry { .. } | DriveError::Blob(_) => Kind::Verification,
            DriveError::NotFound { .. }
            | DriveError::NotAFile { .. }
            | DriveError::LinkLoop { .. } => Kind::NotFound,
            DriveError::ReadOnlyVersion => Kind::NotPermitted,
            _ => Kind::Other,
        };
        Self::new(kind, error)
    }
}

impl From<BeeError> for Failure {
    fn from(error: BeeError) -> Self {
        let kind = match error {
            BeeError::Core(error) => return error.into(),
            BeeError::NotABee => {
                return Self::new(Kind::NotPermitted, error).hint(ENCRYPTION_HINT);
            }
            BeeError::Corrupt { .. } => Kind::Verification,
            BeeError::WithinBatch { .. } => Kind::NotFound,
            BeeError::ReadOnly => Kind::NotPermitted,
            _ => Kind::Other,
        };
        Self::new(kind, error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Storage(error) => error.into(),
            StoreError::Core(error) => error.into(),
            StoreError::InUse { .. } => Self::new(Kind::Storage, error),
            StoreError::KeyPairMismatch { .. } => Self::usage(error),
            other => Self::new(Kind::Other, other),
        }
    }
}

impl From<CoreError> for Failure {
    fn from(error: CoreError) -> Self {
        let kind = match error {
            CoreError::Storage(error) => return error.into(),
            CoreError::NoPeers { .. } => {
                return Self::new(Kind::NoPeer, error).hint("name a peer that has it with --peer");
            }
            CoreError::Unconfirmed { .. } => {
                return Self::new(Kind::NotPermitted, error).hint(UNCONFIRMED_HINT);
            }
            CoreError::Behind { .. } => {
                return Self::new(Kind::NotPermitted, error)
                    .hint("stay connected to that peer, and try again");
            }
            CoreError::Conflict { .. } => {
                return Self::new(Kind::Verification, error)
                    .hint("start another one, and find out who else has the secret");
            }
            CoreError::NotWritable { .. } => {
                return Self::new(Kind::NotPermitted, error).hint(NOT_WRITABLE_HINT);
            }
            CoreError::InvalidFork { .. } => {
                return Self::usage(error)
                    .hint("leave --fork out, or name a later one than `fcore core info` shows");
            }
            CoreError::ForkTooLarge { .. } => {
                return Self::usage(error).hint("leave --fork out, or name a smaller one");
            }
            CoreError::WrongKey { .. } => {
                return Self::new(Kind::NotPermitted, error).hint(WRONG_KEY_HINT);
            }
            CoreError::NotEncrypted { .. } => Kind::NotPermitted,
            CoreError::BlockTooLarge { .. } => return Self::usage(error).hint(BLOCK_HINT),
            CoreError::BatchTooLarge { .. } => Kind::Usage,
            CoreError::Prologue { .. } => {
                return Self::usage(error).hint(PROLOGUE_HINT);
            }
            CoreError::CorruptBlock { .. } => {
                return Self::new(Kind::Storage, error).hint(AUDIT_HINT);
            }
            CoreError::MissingNodes { index, .. } => {
                return Self::new(Kind::Other, error).hint(missing_hint(index));
            }
            CoreError::Manifest { .. } | CoreError::Full { .. } => Kind::Storage,
            CoreError::OutOfBounds { .. } | CoreError::BytePastEnd { .. } => {
                return Self::new(Kind::NotFound, error)
                    .hint("`fcore core info` tells how long it is");
            }
            _ => Kind::Other,
        };
        Self::new(kind, error)
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let hint = match error {
            RestoreError::Storage(error) => return error.into(),
            RestoreError::OtherRoot { cores: 0, .. } => {
                "to put that secret aside, add --yes; or name a new store with --store"
            }
            RestoreError::NotOfStore { .. } => {
                "take the words of this store; to give it these all the same, add --yes"
            }
            _ => "name a new store with --store",
        };
        Self::usage(error).hint(hint)
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        let kind = match error {
            BackupError::Passphrase => Kind::NotPermitted,
            BackupError::Damaged => Kind::Storage,
            _ => Kind::Usage,
        };
        Self::new(kind, error)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        let hint = hint_of(&error);
        let failure = Self::new(Kind::Storage, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// What whoever meets `error` can do, unless it says that itself.
fn hint_of(error: &StorageError) -> Option<String> {
    let again = "run the command again; restart what holds the store, if that is another fcore";
    let hint = match error {
        StorageError::Locked { holder, .. } => {
            let holder = holder.map_or("it".to_owned(), |pid| format!("process {pid}"));
            return Some(format!(
                "wait for {holder} to end, or stop it, or name another store with --store"
            ));
        }
        StorageError::Corrupt { part, .. } => match *part {
            "tree" | "head" | "bitfield" | "data" => AUDIT_HINT,
            "secret" => SECRET_HINT,
            _ => UNREADABLE_HINT,
        },
        StorageError::Decode { .. } => UNREADABLE_HINT,
        StorageError::UnknownFormat { .. } => "a later version may have written it: use that one",
        StorageError::Changed { .. }
        | StorageError::Unsettled { .. }
        | StorageError::Poisoned { .. }
        | StorageError::Unfinished { .. } => again,
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_layers_below_have_their_kinds() {
        let core = ferrocore::Key::from([1; 32]);
        let kind = |error: CoreError| Failure::from(DriveError::from(error)).kind;
        assert_eq!(kind(CoreError::NoPeers { core, index: 0 }), Kind::NoPeer);
        assert_eq!(
            kind(CoreError::CorruptBlock { core, index: 7 }),
            Kind::Storage
        );
        assert_eq!(kind(CoreError::NotWritable { core }), Kind::NotPermitted);
        let fork = 3;
        assert_eq!(kind(CoreError::InvalidFork { core, fork }), Kind::Usage);
        assert_eq!(kind(CoreError::Unconfirmed { core }), Kind::NotPermitted);
        assert_eq!(kind(CoreError::Conflict { core }), Kind::Verification);
        let wrong_key = CoreError::WrongKey { core, index: 7 };
        assert_eq!(kind(wrong_key), Kind::NotPermitted);
        assert_eq!(
            kind(CoreError::BytePastEnd { core, byte: 9 }),
            Kind::NotFound
        );
        assert_eq!(
            kind(CoreError::BlockTooLarge { size: 2, max: 1 }),
            Kind::Usage
        );
        assert_eq!(kind(CoreError::Prologue { core }), Kind::Usage);
        let (fork, max) = (1 << 53, (1 << 53) - 1);
        let too_large = CoreError::ForkTooLarge { core, fork, max };
        assert_eq!(kind(too_large), Kind::Usage);
        let corrupt = Failure::from(CoreError::CorruptBlock { core, index: 7 });
        assert!(corrupt.message.contains("block 7") && corrupt.message.contains(&core.to_string()));
    }

    /// Goal: whoever meets damage, or somebody who has the store, is told what to do, whatever it is.
    #[test]
    fn storage_errors_say_what_to_do() {
        let core = ferrocore::Key::from([1; 32]).discovery_key();
        let hint = |error: StorageError| Failure::from(error).hint.unwrap_or_default();
        let corrupt = |part| StorageError::Corrupt {
            core,
            part,
            offset: 0,
            reason: String::new(),
        };
        for part in ["tree", "head"] {
            assert!(hint(corrupt(part)).contains("audit"), "{part}");
        }
        for part in ["oplog", "header"] {
            assert!(hint(corrupt(part)).contains("copy of the store"), "{part}");
        }
        assert!(hint(corrupt("secret")).contains("fcore key import"));
        let locked = |holder| StorageError::Locked {
            path: "oplog".into(),
            holder,
        };
        assert!(hint(locked(Some(7))).contains("process 7"));
        assert!(hint(locked(None)).contains("--store"));
        assert!(locked(None).to_string().contains("another program (Node?)"));
        assert!(hint(StorageError::Poisoned { core }).contains("again"));
    }

    /// Goal: who is told that a block has to be fetched is told how.
    #[test]
    fn missing_nodes_say_how_they_come() {
        let core = ferrocore::Key::from([1; 32]);
        let failure = Failure::from(CoreError::MissingNodes { core, index: 7 });
        let hint = failure.hint.unwrap_or_default();
        assert!(hint.contains("fcore core get LOG 7") && hint.contains("audit --repair"));
    }

    #[test]
    fn exit_codes_are_those_of_the_manual() {
        let codes = [
            (Kind::Other, 1),
            (Kind::Usage, 2),
            (Kind::NotFound, 3),
            (Kind::NoPeer, 4),
            (Kind::Timeout, 4),
            (Kind::Verification, 5),
            (Kind::NotPermitted, 6),
            (Kind::Storage, 7),
            (Kind::Partial, 8),
            (Kind::Interrupted, 130),
            (Kind::ReaderGone, 0),
        ];
        for (kind, code) in codes {
            assert_eq!(kind.code(), code, "{}", kind.name());
        }
    }
}
