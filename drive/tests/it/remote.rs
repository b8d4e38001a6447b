//! Goal: drives are read, fetched and exported from where they are not, by wants alone. Method:
//! two stores, and a thread for each core that answers what the reader wants with proofs.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use ferrocore_drive::mirror::{ExportCache, ExportOptions, MirrorSummary, export};
use ferrocore_drive::{Drive, Selection};
use ferrocore_log::proof::{NodeRequest, ProofRequest, UpgradeRequest};
use ferrocore_log::supply::All;
use ferrocore_log::{Core, Corestore};
use pollster::block_on;

/// Supplies `reader` with all of `source` while it lives.
struct Supplier {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Supplier {
    fn new(source: Core, reader: Core) -> Self {
        upgrade(&source, &reader);
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (attached, wait) = mpsc::channel();
        let thread = thread::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || serve(&source, &reader, &stop, &sent, &attached)
        });
        wait.recv().unwrap();
        Self {
            stop,
            sent,
            thread: Some(thread),
        }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }
}

impl Drop for Supplier {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    }
}

fn upgrade(source: &Core, reader: &Core) {
    let start = reader.length();
    let upgrade = UpgradeRequest {
        start,
        length: source.length() - start,
    };
    let request = ProofRequest {
        upgrade: Some(upgrade),
        manifest: true,
        ..ProofRequest::default()
    };
    reader
        .accept(source.prove(&request).unwrap().unwrap())
        .unwrap();
}

fn serve(
    source: &Core,
    reader: &Core,
    stop: &AtomicBool,
    sent: &AtomicU64,
    attached: &mpsc::Sender<()>,
) {
    let this = thread::current();
    let id = reader.supply().attach(Arc::new(move || this.unpark()));
    reader.supply().settle(id, source.length());
    attached.send(()).unwrap();
    while !stop.load(Ordering::Acquire) {
        let claims = reader.supply().claim(id, &All, 8);
        for claim in &claims {
            let block = NodeRequest {
                index: claim.index,
                nodes: reader.missing_nodes(2 * claim.index).unwrap(),
            };
            let request = ProofRequest {
                block: Some(block),
                ..ProofRequest::default()
            };
            // Counted first: whoever waits for the block may look at once.
            sent.fetch_add(1, Ordering::AcqRel);
            reader
                .accept(source.prove(&request).unwrap().unwrap())
                .unwrap();
        }
        if claims.is_empty() {
            thread::park();
        }
    }
    reader.supply().detach(id);
}

/// A drive of others, and the two that supply it.
struct Remote {
    drive: Drive,
    index: Supplier,
    blobs: Supplier,
}

impl Remote {
    fn of(source: &Drive) -> Self {
        let store = Corestore::memory();
        let blobs = block_on(source.blobs()).unwrap().core().clone();
        let supply = |core: &Core| Supplier::new(core.clone(), store.get(&core.key()).unwrap());
        let (index, blobs) = (supply(source.index()), supply(&blobs));
        Self {
            drive: block_on(Drive::open(&store, &source.key())).unwrap(),
            index,
            blobs,
        }
    }
}

const FILES: usize = 200;

fn source() -> Drive {
    let drive = block_on(Drive::create(&Corestore::memory())).unwrap();
    block_on(async {
        let mut batch = drive.batch().await.unwrap();
        for i in 0..FILES {
            let path = format!("/{}/{i}", i % 10);
            batch.put(&path, vec![i as u8; i * 100]).await.unwrap();
        }
        batch.put("/large", vec![1; 3 << 20]).await.unwrap();
        batch.symlink("/link", "large").await.unwrap();
        batch.flush().await.unwrap();
    });
    drive
}

fn export_to(drive: &Drive, options: &ExportOptions) -> (tempfile::TempDir, MirrorSummary) {
    let dest = tempfile::tempdir().unwrap();
    let cache = &mut ExportCache::default();
    let summary = export(drive, dest.path(), cache, options, &mut |_| ()).unwrap();
    (dest, summary)
}

#[test]
fn an_export_fetches_what_it_writes() {
    let source = source();
    let remote = Remote::of(&source);
    let (dest, summary) = export_to(&remote.drive, &ExportOptions::default());
    assert_eq!((summary.added, summary.blocks_have), (FILES as u64 + 2, 0));
    assert_eq!(summary.blocks_fetched, remote.blobs.sent());
    assert_eq!(remote.index.sent(), source.index().length());
    for i in [0, 1, FILES - 1] {
        let file = dest.path().join(format!("{}/{i}", i % 10));
        assert_eq!(fs::read(file).unwrap(), vec![i as u8; i * 100]);
    }
    assert!(fs::read(dest.path().join("large")).unwrap() == vec![1; 3 << 20]);

    let (_dest, again) = export_to(&remote.drive, &ExportOptions::default());
    assert_eq!(
        (again.blocks_fetched, again.blocks_have),
        (0, summary.blocks_fetched)
    );
}

#[test]
fn a_selection_fetches_no_other_bytes() {
    let source = source();
    let remote = Remote::of(&source);
    let mut options = ExportOptions::default();
    options.selection = Selection::globs(["/3"]).unwrap();
    let (_dest, summary) = export_to(&remote.drive, &options);
    assert_eq!(summary.added, FILES as u64 / 10);
    assert_eq!(remote.blobs.sent(), summary.blocks_fetched);
    assert!(remote.blobs.sent() < FILES as u64 / 5);
}

#[test]
fn a_range_fetches_few_blocks() {
    let remote = Remote::of(&source());
    let bytes = block_on(remote.drive.read("/large", 2_000_000..2_000_010)).unwrap();
    assert_eq!(bytes, vec![1; 10]);
    // The blocks that lead there, and those ahead of the reader until it was satisfied.
    assert!(remote.blobs.sent() < 40, "{} blocks", remote.blobs.sent());
    assert!(!block_on(remote.drive.has("/large")).unwrap());
}

#[test]
fn a_download_fetches_everything_once() {
    let source = source();
    let remote = Remote::of(&source);
    block_on(remote.drive.download(&Selection::all())).unwrap();
    let blobs = block_on(source.blobs()).unwrap().core();
    assert_eq!(remote.blobs.sent(), blobs.length());
    assert!(block_on(remote.drive.has("/")).unwrap());
}
