//! The golden vectors of the JavaScript packages: every encoding and hash must give the same bytes.

use ferrocore_primitives::encoding::{self, Decode, Reader};
use ferrocore_primitives::hash::{self, Hash};
use ferrocore_primitives::index_encoding::{self, Number};
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::{KeyPair, PublicKey, Signature};
use ferrocore_primitives::{id, namespace};
use serde_json::Value;

/// The vectors of `section` whose id starts with `prefix`; there must be some.
fn vectors(section: &str, prefix: &str) -> Vec<Value> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../interop-tests/vectors/core.json"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    let Value::Array(all) = file["vectors"].take() else {
        panic!("{path} has no vectors");
    };
    let wanted =
        |v: &Value| v["section"] == section && v["id"].as_str().unwrap().starts_with(prefix);
    let found: Vec<Value> = all.into_iter().filter(wanted).collect();
    assert!(!found.is_empty(), "no vector {section}/{prefix}");
    found
}

fn vector(section: &str, id: &str) -> Value {
    let found = vectors(section, id);
    found.into_iter().find(|v| v["id"] == id).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn parse<T: Decode>(value: &Value) -> T {
    T::from_slice(&bytes(value)).unwrap()
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

#[test]
fn integers() {
    for vector in vectors("encoding", "uint-") {
        let value = vector["input"]["value"].as_u64().unwrap();
        let expected = bytes(&vector["output"]["bytes"]);
        assert_eq!(written(|out| encoding::put_uint(out, value)), expected);
        assert_eq!(encoding::uint_len(value), expected.len());
        assert_eq!(Reader::new(&expected).uint(), Ok(value));
    }
    for vector in vectors("encoding", "int-") {
        let value = vector["input"]["value"].as_i64().unwrap();
        let expected = bytes(&vector["output"]["bytes"]);
        assert_eq!(written(|out| encoding::put_int(out, value)), expected);
        assert_eq!(Reader::new(&expected).int(), Ok(value));
    }
    let vector = vector("encoding", "uint64");
    let value = vector["input"]["value"].as_u64().unwrap();
    let expected = bytes(&vector["output"]["bytes"]);
    assert_eq!(written(|out| encoding::put_u64(out, value)), expected);
    assert_eq!(Reader::new(&expected).u64(), Ok(value));
}

#[test]
fn buffers_and_strings() {
    for id in ["buffer", "buffer-empty"] {
        let vector = vector("encoding", id);
        let value = bytes(&vector["input"]["value"]);
        let expected = bytes(&vector["output"]["bytes"]);
        assert_eq!(written(|out| encoding::put_buffer(out, &value)), expected);
        assert_eq!(encoding::buffer_len(value.len()), expected.len());
        assert_eq!(Reader::new(&expected).buffer(), Ok(value.as_slice()));
    }
    let long = vector("encoding", "buffer-253");
    let written_long = written(|out| encoding::put_buffer(out, &[7; 253]));
    assert!(written_long.starts_with(&bytes(&long["output"]["prefix"])));

    let none = bytes(&vector("encoding", "optionalBuffer-null")["output"]["bytes"]);
    assert_eq!(
        written(|out| encoding::put_optional_buffer(out, None)),
        none
    );
    assert_eq!(Reader::new(&none).optional_buffer(), Ok(None));

    let string = vector("encoding", "string");
    let text = string["input"]["value"].as_str().unwrap();
    let expected = bytes(&string["output"]["bytes"]);
    assert_eq!(written(|out| encoding::put_string(out, text)), expected);
    assert_eq!(Reader::new(&expected).string(), Ok(text));
}

#[test]
fn bool_arrays_and_frames() {
    let expected = bytes(&vector("encoding", "bool")["output"]["bytes"]);
    assert_eq!(written(|out| encoding::put_bool(out, true)), expected);
    assert_eq!(Reader::new(&expected).bool(), Ok(true));

    let expected = bytes(&vector("encoding", "uint32array")["output"]["bytes"]);
    let words = [1, 0x8000_0000];
    assert_eq!(
        written(|out| encoding::put_uint32_array(out, &words)),
        expected
    );
    assert_eq!(Reader::new(&expected).uint32_array().unwrap(), words);

    let expected = bytes(&vector("encoding", "array-uint")["output"]["bytes"]);
    let items = [1, 300];
    let put = |out: &mut Vec<u8>, item: &u64| encoding::put_uint(out, *item);
    assert_eq!(
        written(|out| encoding::put_array(out, &items, put)),
        expected
    );
    let read = Reader::new(&expected).array(1, |item| item.uint());
    assert_eq!(read.unwrap(), items);

    let expected = bytes(&vector("encoding", "frame-uint")["output"]["bytes"]);
    let mut frame = Reader::new(&expected).frame().unwrap();
    assert_eq!(frame.uint(), Ok(300));
    assert!(frame.is_empty());
}

#[test]
fn sorted_numbers_and_strings() {
    for vector in vectors("encoding", "index-uint-") {
        let value = &vector["input"]["value"];
        let number = value.as_u64().map_or(Number::Infinite, Number::Finite);
        assert_eq!(number == Number::Infinite, value == "Infinity");
        let expected = bytes(&vector["output"]["bytes"]);
        let sorted = written(|out| index_encoding::put_number(out, number));
        assert_eq!(sorted, expected);
        let read = index_encoding::number(&mut Reader::new(&expected));
        assert_eq!(read, Ok(number));
    }
    for vector in vectors("encoding", "index-string-") {
        let text = vector["input"]["value"].as_str().unwrap();
        let expected = bytes(&vector["output"]["bytes"]);
        let sorted = written(|out| index_encoding::put_string(out, text));
        assert_eq!(sorted, expected);
        let read = index_encoding::string(&mut Reader::new(&expected));
        assert_eq!(read.as_deref(), Ok(text));
    }
}

#[test]
fn signatures() {
    let pair = vector("crypto", "keypair");
    let seed: [u8; 32] = bytes(&pair["input"]["seed"]).try_into().unwrap();
    let key_pair = KeyPair::from_seed(&seed);
    assert_eq!(key_pair.public_key(), parse(&pair["output"]["publicKey"]));
    assert_eq!(
        key_pair.to_secret().as_slice(),
        bytes(&pair["output"]["secretKey"])
    );

    let signed = vector("crypto", "sign");
    let message = bytes(&signed["input"]["message"]);
    let signature: Signature = parse(&signed["output"]["signature"]);
    let secret: [u8; 64] = bytes(&signed["input"]["secretKey"]).try_into().unwrap();
    let key_pair = KeyPair::from_secret(&secret).unwrap();
    assert_eq!(key_pair.sign(&message), signature);
    let public: PublicKey = parse(&pair["output"]["publicKey"]);
    assert!(public.verify(&message, &signature));
}

#[test]
fn keys_and_namespaces() {
    let vector_ = vector("crypto", "discovery-key");
    let key: Key = parse(&vector_["input"]["key"]);
    assert_eq!(
        key.discovery_key(),
        parse(&vector_["output"]["discoveryKey"])
    );
    for vector in vectors("crypto", "namespace-") {
        let name = vector["input"]["name"].as_str().unwrap();
        let i = vector["input"]["i"].as_u64().unwrap().try_into().unwrap();
        let expected: Hash = parse(&vector["output"]["namespace"]);
        assert_eq!(namespace::nth(name, i), expected);
        assert_eq!(
            namespace::namespace(name, i + 1).last().copied(),
            Some(expected)
        );
    }
    let named = [
        namespace::tree(),
        namespace::replicate_initiator(),
        namespace::replicate_responder(),
        namespace::manifest(),
        namespace::default_namespace(),
        namespace::default_encryption(),
    ];
    assert_eq!(named.as_slice(), namespace::namespace("hypercore", 6));
}

#[test]
fn tree_hashes() {
    for vector in vectors("crypto", "leaf-") {
        let data = bytes(&vector["input"]["data"]);
        let expected: Hash = parse(&vector["output"]["hash"]);
        assert_eq!(hash::leaf(&data), expected);
        assert_eq!(hash::leaves(&[&data]), [expected]);
    }
    let parent = vector("crypto", "parent");
    let size = |node: &Value| node["size"].as_u64().unwrap();
    let (a, b) = (&parent["input"]["a"], &parent["input"]["b"]);
    assert_eq!(
        hash::parent(size(a), &parse(&a["hash"]), size(b), &parse(&b["hash"])),
        parse(&parent["output"]["hash"])
    );
    for id in ["tree", "tree-empty"] {
        let vector = vector("crypto", id);
        let roots = vector["input"]["roots"].as_array().unwrap();
        let roots = roots.iter().map(|root| {
            let index = root["index"].as_u64().unwrap();
            (index, size(root), parse(&root["hash"]))
        });
        assert_eq!(hash::tree(roots), parse(&vector["output"]["hash"]));
    }
}

#[test]
fn ids() {
    let vector_ = vector("crypto", "id");
    let key: Key = parse(&vector_["input"]["key"]);
    let z32 = vector_["output"]["z32"].as_str().unwrap();
    assert_eq!(key.to_string(), z32);
    assert_eq!(key.to_hex(), vector_["output"]["hex"].as_str().unwrap());
    assert_eq!(z32.parse(), Ok(key));
    assert_eq!(key.to_hex().parse(), Ok(key));
    assert_eq!(
        format!("pear://{z32}/path").parse(),
        Ok::<Key, _>(parse(&vector_["output"]["fromPear"]))
    );
    let normalized: Key = key.to_hex().parse().unwrap();
    assert_eq!(
        normalized.to_string(),
        vector_["output"]["normalizeHex"].as_str().unwrap()
    );

    let short = vector("crypto", "z32-short");
    let inputs = short["input"]["bytes"].as_array().unwrap();
    let outputs = short["output"]["z32"].as_array().unwrap();
    assert_eq!(inputs.len(), outputs.len());
    for (input, output) in inputs.iter().zip(outputs) {
        let text = output.as_str().unwrap();
        assert_eq!(id::encode_z32(&bytes(input)), text);
        assert_eq!(id::decode_z32(text).unwrap(), bytes(input));
    }
}

#[test]
fn capabilities() {
    for vector in vectors("crypto", "capability-") {
        let input = &vector["input"];
        let role = match input["isInitiator"].as_bool().unwrap() {
            true => namespace::replicate_initiator(),
            false => namespace::replicate_responder(),
        };
        let key = bytes(&input["key"]);
        let capability = hash::keyed(&bytes(&input["handshakeHash"]), &[role.as_ref(), &key]);
        assert_eq!(capability, parse(&vector["output"]["capability"]));
    }
}
