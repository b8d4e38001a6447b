//! Every single value of `encoding` and `index_encoding`.
//!
//! Holds: what decodes is encoded again in at most as many bytes, and those decode to the same.

use ferrocore_primitives::encoding::{
    DecodeError, Reader, put_array, put_buffer, put_int, put_optional_buffer, put_string, put_u16,
    put_u24, put_u32, put_u64, put_uint, put_uint32_array,
};
use ferrocore_primitives::index_encoding;

/// The first byte picks the value, the rest are its bytes.
pub fn run(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    match kind % 16 {
        0 => same(bytes, |r| r.uint(), |out, v| put_uint(out, *v)),
        1 => same(bytes, |r| r.int(), |out, v| put_int(out, *v)),
        2 => same(bytes, |r| r.u16(), |out, v| put_u16(out, *v)),
        3 => same(bytes, |r| r.u24(), |out, v| put_u24(out, *v)),
        4 => same(bytes, |r| r.u32(), |out, v| put_u32(out, *v)),
        5 => same(bytes, |r| r.u64(), |out, v| put_u64(out, *v)),
        6 => same(
            bytes,
            |r| r.buffer().map(<[u8]>::to_vec),
            |out, v| put_buffer(out, v),
        ),
        7 => same(
            bytes,
            |r| Ok(r.optional_buffer()?.map(<[u8]>::to_vec)),
            |out, v| put_optional_buffer(out, v.as_deref()),
        ),
        8 => same(
            bytes,
            |r| r.string().map(str::to_owned),
            |out, v| put_string(out, v),
        ),
        9 => same(
            bytes,
            |r| r.uint32_array(),
            |out, v| {
                put_uint32_array(out, v);
            },
        ),
        10 => same(
            bytes,
            |r| r.array(1, |r| r.uint()),
            |out, v| put_array(out, v, |out, item| put_uint(out, *item)),
        ),
        11 => same(
            bytes,
            |r| r.array(1, |r| r.buffer().map(<[u8]>::to_vec)),
            |out, v| put_array(out, v, |out, item| put_buffer(out, item)),
        ),
        12 => frame(bytes),
        13 => same(bytes, index_encoding::number, |out, v| {
            index_encoding::put_number(out, *v);
        }),
        14 => same(bytes, index_encoding::bytes, |out, v| {
            index_encoding::put_bytes(out, v);
        }),
        _ => same(bytes, index_encoding::string, |out, v| {
            index_encoding::put_string(out, v);
        }),
    }
}

/// Decodes, encodes, and decodes again.
fn same<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    read: fn(&mut Reader<'_>) -> Result<T, DecodeError>,
    put: impl Fn(&mut Vec<u8>, &T),
) {
    let reader = &mut Reader::new(bytes);
    let Ok(value) = read(reader) else {
        return;
    };
    let mut out = Vec::new();
    put(&mut out, &value);
    assert!(
        out.len() <= bytes.len() - reader.remaining(),
        "the shortest form is written"
    );
    let reader = &mut Reader::new(&out);
    assert_eq!(read(reader).as_ref(), Ok(&value));
    assert!(reader.is_empty());
}

/// A frame hides what is behind it, and ends where it says.
fn frame(bytes: &[u8]) {
    let reader = &mut Reader::new(bytes);
    let Ok(mut inside) = reader.frame() else {
        return;
    };
    let (inside_len, behind) = (inside.remaining(), reader.remaining());
    assert!(inside_len + behind < bytes.len());
    assert_eq!(inside.rest().len(), inside_len);
    assert_eq!(reader.rest().len(), behind);
}
