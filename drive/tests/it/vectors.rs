//! Goal: what we write is byte for byte what Hyperdrive 13 writes, and what it wrote reads the
//! same. Method: replay the operations recorded in `drive.json`, compare every block.

use std::path::Path;

use bytes::Bytes;
use ferrocore_bee::BeeError;
use ferrocore_drive::blobs::blobs_manifest;
use ferrocore_drive::{
    BlobId, Blobs, Drive, DriveError, DriveOptions, Entries, EntryValue, Json, LINK_HOPS_MAX, path,
};
use ferrocore_log::core::HashedBlocks;
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::{Core, CoreError, CoreOptions, Corestore, EncryptionKey, StoreOptions};
use ferrocore_primitives::encoding::Encode;
use pollster::block_on;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn vectors() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interop-tests/vectors/drive.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn store() -> Corestore {
    let memory = Memory::with_root_secret([0x42; 32]);
    Corestore::with_storage(memory, StoreOptions::default()).unwrap()
}

fn drive() -> Drive {
    block_on(Drive::create(&store())).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn pattern(len: u64, seed: u64) -> Vec<u8> {
    let byte = |i: u64| (i * 31 + (i >> 8) * 7 + seed) as u8;
    (0..len).map(byte).collect()
}

fn pattern_of(value: &Value) -> Vec<u8> {
    pattern(number(&value[0]), number(&value[1]))
}

#[test]
fn paths_normalise_alike() {
    for case in vectors()["normalize"].as_array().unwrap() {
        let input = text(&case["in"]);
        match (path::normalize(input), case["out"].as_str()) {
            (Ok(path), Some(expected)) => assert_eq!(path, expected, "{input:?}"),
            (Err(_), None) => assert!(case["error"].is_string()),
            (got, _) => panic!("{input:?} became {got:?}, not {case}"),
        }
    }
}

#[test]
fn links_lead_to_the_same_places() {
    for case in vectors()["linkResolve"].as_array().unwrap() {
        let path = path::resolve(text(&case["key"]), text(&case["linkname"]));
        assert_eq!(path.unwrap(), text(&case["out"]));
    }
}

#[test]
fn keys_derive_alike() {
    let vectors = vectors();
    let keys = &vectors["keys"];
    let drive = drive();
    let blobs = block_on(drive.blobs()).unwrap().core();
    let index = drive.index().manifest().unwrap();
    assert_eq!(hex::encode(drive.key().as_bytes()), keys["driveKey"]);
    assert_eq!(drive.key().to_string(), keys["driveId"]);
    assert_eq!(
        drive.index().discovery_key().to_string(),
        keys["discoveryKey"]
    );
    assert_eq!(hex::encode(index.to_vec()), keys["dbManifestEncoded"]);
    let content = blobs_manifest(&drive.key(), &index).unwrap();
    assert_eq!(
        hex::encode(content.to_vec()),
        keys["contentManifestEncoded"]
    );
    assert_eq!(hex::encode(blobs.key().as_bytes()), keys["contentKey"]);
    assert_eq!(
        blobs.discovery_key().to_string(),
        keys["contentDiscoveryKey"]
    );
    assert!(blobs.is_writable());

    let named = &vectors["namespaced"];
    let other = store().namespace(text(&named["namespace"]));
    let other = block_on(Drive::create(&other)).unwrap();
    assert_eq!(hex::encode(other.key().as_bytes()), named["driveKey"]);
    let blobs = block_on(other.blobs()).unwrap().core();
    assert_eq!(hex::encode(blobs.key().as_bytes()), named["contentKey"]);
}

async fn apply(drive: &Drive, op: &Value) -> Result<(), DriveError> {
    let path = op["path"].as_str().unwrap_or_default();
    match text(&op["op"]) {
        "put" => {
            let bytes = match op["utf8"].as_str() {
                Some(text) => Bytes::from(text.to_owned()),
                None => pattern_of(&op["pattern"]).into(),
            };
            let blob = drive.blobs().await?.put(bytes).await?;
            drive.put_entry(path, &file(blob, op)).await
        }
        "symlink" => drive.symlink(path, text(&op["target"])).await,
        "del" => drive.del(path).await.map(|_| ()),
        "createWriteStream" if op["dedup"] == true => put_deduplicated(drive, path, op).await,
        "createWriteStream" => {
            let mut writer = drive.blobs().await?.writer().await;
            let chunks = op["chunks"].as_array().unwrap().iter();
            let blocks = chunks.map(|chunk| Bytes::from(pattern_of(chunk))).collect();
            writer.append(HashedBlocks::hash(blocks))?;
            let blob = writer.finish()?;
            drive.put_entry(path, &file(blob, op)).await
        }
        "putEntry" => {
            let copied = drive.entry("/a.txt").await?.unwrap();
            drive
                .put_entry(path, &file(copied.value.blob.unwrap(), op))
                .await
        }
        "batch" => apply_batch(drive, &op["ops"]).await,
        other => panic!("unknown operation {other}"),
    }
}

fn file(blob: BlobId, op: &Value) -> EntryValue {
    let metadata = match &op["metadata"] {
        Value::Null => None,
        Value::Object(_) => Some(Json::new(&Tagged::deserialize(&op["metadata"]).unwrap())),
        other => Some(Json::new(other)),
    };
    EntryValue {
        metadata: metadata.map(Result::unwrap),
        ..EntryValue::file(blob, op["executable"] == true)
    }
}

/// The recorded metadata, its fields in the order JavaScript wrote them.
#[derive(Deserialize, Serialize)]
struct Tagged {
    mtime: u64,
    tags: Vec<String>,
    n: Option<u64>,
}

/// We do not deduplicate; this is what JavaScript appended, by hand.
async fn put_deduplicated(drive: &Drive, path: &str, op: &Value) -> Result<(), DriveError> {
    let core = drive.blobs().await?.core();
    let (first, byte_length) = (core.length(), core.byte_length());
    let chunk = |i: usize| Bytes::from(pattern_of(&op["chunks"][i]));
    core.append_batch(vec![chunk(0), chunk(1)])?;
    let first = u8::try_from(first).unwrap();
    let map = [
        0,
        3,
        first,
        0xfd,
        0xe8,
        3,
        first + 1,
        0xfd,
        0xe8,
        3,
        first,
        0xfd,
        0xe8,
        3,
    ];
    core.append(map.to_vec())?;
    let blob = BlobId {
        block_offset: u64::from(first) + 2,
        byte_offset: byte_length + 2000,
        block_length: 1,
        byte_length: map.len() as u64,
        block_map: true,
    };
    drive.put_entry(path, &EntryValue::file(blob, false)).await
}

async fn apply_batch(drive: &Drive, ops: &Value) -> Result<(), DriveError> {
    let mut batch = drive.batch().await?;
    for op in ops.as_array().unwrap() {
        let path = text(&op["path"]);
        match text(&op["op"]) {
            "put" => batch.put(path, text(&op["utf8"]).to_owned()).await?,
            _ => drop(batch.del(path).await?),
        }
    }
    batch.flush().await
}

/// A drive on which the recorded operations were made.
fn sequence(vectors: &Value) -> Drive {
    let drive = drive();
    for op in vectors["sequence"]["ops"].as_array().unwrap() {
        block_on(apply(&drive, op)).unwrap();
    }
    drive
}

fn assert_blocks(core: &Core, expected: &Value) {
    for (index, expected) in expected.as_array().unwrap().iter().enumerate() {
        let block = core.get_local(index as u64).unwrap().unwrap();
        match expected.as_str() {
            Some(expected) => assert_eq!(hex::encode(&block), expected, "block {index}"),
            None => {
                assert_eq!(block.len() as u64, expected["byteLength"], "block {index}");
                assert_eq!(sha256(&block), expected["sha256"], "block {index}");
            }
        }
    }
}

#[test]
fn a_sequence_of_operations_appends_the_same_blocks() {
    let vectors = vectors();
    let expected = &vectors["sequence"];
    let drive = sequence(&vectors);
    let blobs = block_on(drive.blobs()).unwrap().core();
    assert_blocks(drive.index(), &expected["dbBlocks"]);
    assert_eq!(drive.index().length(), expected["dbLength"]);
    assert_eq!(
        drive.index().tree_hash().to_string(),
        expected["dbTreeHash"]
    );
    assert_blocks(blobs, &expected["blobsBlocks"]);
    assert_eq!(blobs.byte_length(), expected["blobsByteLength"]);
    assert_eq!(blobs.tree_hash().to_string(), expected["blobsTreeHash"]);
    assert_eq!(drive.version(), expected["version"]);
}

async fn paths(mut entries: Entries) -> Vec<String> {
    let mut paths = Vec::new();
    while let Some(entry) = entries.next().await.unwrap() {
        paths.push(entry.path);
    }
    paths
}

#[test]
fn listings_agree() {
    let vectors = vectors();
    let expected = &vectors["sequence"];
    let drive = sequence(&vectors);
    block_on(async {
        let mut entries = drive.entries();
        for expected in expected["entries"].as_array().unwrap() {
            let entry = entries.next().await.unwrap().unwrap();
            assert_eq!(entry.seq, expected["seq"]);
            assert_eq!(entry.path, expected["key"]);
            let value: Value = serde_json::from_slice(&entry.value.to_json()).unwrap();
            assert_eq!(value, expected["value"]);
        }
        assert!(entries.next().await.unwrap().is_none());

        let list = &expected["list"];
        assert_eq!(
            paths(drive.list("/").unwrap()).await,
            as_strings(&list["root"])
        );
        assert_eq!(
            paths(drive.list("a").unwrap()).await,
            as_strings(&list["a"])
        );
        let mut shallow = (Vec::new(), Vec::new());
        let mut folder = drive.read_dir("/").unwrap();
        while let Some(item) = folder.next().await.unwrap() {
            shallow.0.push(item.name);
            shallow.1.push(item.entry.path);
        }
        assert_eq!(shallow.0, as_strings(&expected["readdir"]["root"]));
        assert_eq!(shallow.1, as_strings(&list["shallow"]));
        assert!(
            drive
                .read_dir("/zzz")
                .unwrap()
                .next()
                .await
                .unwrap()
                .is_none()
        );
    });
}

fn as_strings(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn reads_agree() {
    let vectors = vectors();
    let drive = sequence(&vectors);
    let reads = &vectors["sequence"]["reads"];
    let check = |bytes: Bytes, expected: &Value| {
        assert_eq!(bytes.len() as u64, expected["byteLength"], "{expected}");
        assert_eq!(sha256(&bytes), expected["sha256"]);
    };
    block_on(async {
        for (name, path) in [
            ("empty", "/empty"),
            ("big", "/big.bin"),
            ("dedup", "/dedup"),
        ] {
            check(drive.read(path, ..).await.unwrap(), &reads[name]);
        }
        check(drive.read("/stream", ..).await.unwrap(), &reads["stream"]);
        for range in vectors["sequence"]["ranges"].as_array().unwrap() {
            let options = &range["opts"];
            let start = options["start"].as_u64().unwrap_or(0);
            let end = match (options["length"].as_u64(), options["end"].as_u64()) {
                (Some(length), _) => start + length,
                (None, Some(last)) => last + 1,
                (None, None) => u64::MAX,
            };
            check(
                drive.read(text(&range["path"]), start..end).await.unwrap(),
                range,
            );
        }
        let linked = drive.resolve("/link").await.unwrap().unwrap();
        let blobs = drive.blobs().await.unwrap();
        let reader = blobs.read(&linked.value.blob.unwrap(), ..).await.unwrap();
        check(reader.read_to_end().await.unwrap(), &reads["linkFollow"]);
        assert!(drive.resolve("/ünï/rel").await.unwrap().is_none());
        assert!(drive.resolve("/dangling").await.unwrap().is_none());
        assert!(matches!(
            drive.read("/link", ..).await,
            Err(DriveError::NotAFile { .. })
        ));
        assert!(matches!(
            drive.read("/missing", ..).await,
            Err(DriveError::NotFound { .. })
        ));
        let dedup = drive
            .entry("/dedup")
            .await
            .unwrap()
            .unwrap()
            .value
            .blob
            .unwrap();
        assert_eq!(blobs.byte_length(&dedup).await.unwrap(), 3000);
        assert!(drive.has("/dedup").await.unwrap() && drive.has("/").await.unwrap());
    });
}

#[test]
fn blob_ids_agree() {
    let vectors = vectors();
    let core = store().get_named("blobs").unwrap();
    let blobs = Blobs::new(core);
    let expected = &vectors["blobs"];
    let ids = expected["ids"].as_array().unwrap().iter();
    for id in ids.filter(|id| id.get("blockSize").is_none()) {
        let size = number(&id["size"]);
        let blob = block_on(blobs.put(pattern(size, size & 255))).unwrap();
        assert_eq!(serde_json::to_string(&blob).unwrap(), text(&id["id"]));
    }
    let blocks = expected["blocks"].as_array().unwrap();
    let ours = usize::try_from(blobs.core().length()).unwrap();
    assert_blocks(blobs.core(), &blocks[..ours].to_vec().into());
}

#[test]
fn versions_are_kept() {
    let drive = drive();
    block_on(async {
        drive.put("/a", "one").await.unwrap();
        let version = drive.version();
        drive.put("/a", "two").await.unwrap();
        let before = drive.checkout(version);
        assert_eq!(before.read("/a", ..).await.unwrap(), "one");
        assert_eq!(drive.read("/a", ..).await.unwrap(), "two");
        let refused = before.put("/a", "three").await;
        assert!(matches!(refused, Err(DriveError::ReadOnlyVersion)));
    });
}

#[test]
fn links_without_end_are_an_error() {
    let drive = drive();
    block_on(async {
        drive.symlink("/loop", "/loop").await.unwrap();
        let looped = drive.resolve("/loop").await;
        assert!(
            matches!(looped, Err(DriveError::LinkLoop { .. })),
            "{LINK_HOPS_MAX}"
        );
    });
}

#[test]
fn a_file_and_a_folder_of_one_name_are_both_listed() {
    let drive = drive();
    block_on(async {
        for path in ["/a", "/a/b", "/a-", "/a0"] {
            drive.put(path, "x").await.unwrap();
        }
        let mut names = Vec::new();
        let mut folder = drive.read_dir("/").unwrap();
        while let Some(item) = folder.next().await.unwrap() {
            names.push((item.name, item.is_folder));
        }
        let expected = [("a", false), ("a-", false), ("a", true), ("a0", false)];
        assert_eq!(
            names,
            expected.map(|(name, is_folder)| (name.to_owned(), is_folder))
        );
    });
}

/// Goal: a drive whose key is a bare public key finds its blobs core in the header, as the
/// drives of Hyperdrive 11 do.
#[test]
fn compat_drives_name_their_blobs_core() {
    let store = store();
    let options = |name: &str| CoreOptions {
        name: Some(name.to_owned()),
        compat: true,
        ..CoreOptions::default()
    };
    let index = store.get_with(options("db")).unwrap();
    let bare = "c4e921ba84d33dcde9ee6b8cb599d248a9e3272366a22ff89f428bc1f6b733c3";
    assert_eq!(hex::encode(index.key().as_bytes()), bare);
    assert!(matches!(
        block_on(Drive::open(&store, &index.key())),
        Err(DriveError::NoBlobs { .. })
    ));

    let blobs = store
        .get_with(options(&format!("{}/blobs", index.key())))
        .unwrap();
    let content = "b0f0dc1e4b19123305d4221b5a5ff90a2e67cb0673e7c743f8f18a6a82df4c62";
    assert_eq!(hex::encode(blobs.key().as_bytes()), content);
    let header = hex::decode(format!("0a08687970657262656512220a20{content}")).unwrap();
    index.append(header).unwrap();
    let drive = block_on(Drive::open(&store, &index.key())).unwrap();
    assert_eq!(block_on(drive.blobs()).unwrap().core().key(), blobs.key());
    block_on(drive.put("/a", "b")).unwrap();
    assert_eq!(block_on(drive.read("/a", ..)).unwrap(), "b");
}

/// Goal: a drive in a directory is the same drive after it was closed, and writable whether it
/// is opened by its namespace or by its key.
#[test]
fn drives_are_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let key = block_on(async {
        let drive = Drive::create(&open().namespace("docs")).await.unwrap();
        drive.put("/a", "1").await.unwrap();
        drive.key()
    });
    block_on(async {
        let drive = Drive::open(&open(), &key).await.unwrap();
        assert_eq!(drive.read("/a", ..).await.unwrap(), "1");
        drive.put("/a", "2").await.unwrap();
    });
    block_on(async {
        let drive = Drive::create(&open().namespace("docs")).await.unwrap();
        assert_eq!(drive.key(), key);
        assert_eq!(drive.read("/a", ..).await.unwrap(), "2");
        drive.put("/a", "3").await.unwrap();
        assert_eq!(drive.version(), 4);
    });
}

#[test]
fn an_encrypted_drive_has_the_same_entries() {
    // Goal: encryption changes stored blocks and nothing else. Method: the same changes to a plain
    // drive; entries, which count plaintext bytes, and what is read must be equal.
    let options = |byte| DriveOptions {
        encryption: Some(EncryptionKey::from([byte; 32])),
    };
    let (plain, store) = (drive(), store());
    let secret = block_on(Drive::create_with(&store, options(1))).unwrap();
    let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    for drive in [&plain, &secret] {
        block_on(drive.put("/a", "hello")).unwrap();
        block_on(drive.put("/b", bytes.clone())).unwrap();
        assert_eq!(
            block_on(drive.read("/b", 70_000..150_000)).unwrap(),
            bytes[70_000..150_000]
        );
    }
    assert_eq!(plain.key(), secret.key());
    for path in ["/a", "/b"] {
        let (ours, theirs) = (block_on(secret.entry(path)), block_on(plain.entry(path)));
        assert_eq!(ours.unwrap(), theirs.unwrap());
    }
    let (ours, theirs) = (block_on(secret.blobs()), block_on(plain.blobs()));
    let (ours, theirs) = (ours.unwrap().core(), theirs.unwrap().core());
    assert_eq!(ours.byte_length(), theirs.byte_length());
    assert!(ours.get_raw(0).unwrap() != theirs.get_raw(0).unwrap());

    let opened = block_on(Drive::create_with(&store, DriveOptions::default()));
    assert!(matches!(opened, Err(DriveError::Bee(BeeError::NotABee))));
    let opened = block_on(Drive::create_with(&store, options(2)));
    let Err(DriveError::Bee(BeeError::Core(CoreError::WrongKey { index: 0, .. }))) = opened else {
        panic!("the key fits");
    };
}
