//! IP addresses as the DHT writes them.
//! Knows the bytes and how many addresses a list may hold. Does not know whether anybody is there.
//!
//! The layout of `compact-encoding-net` as `compact-encoding` 3.5 carries it:
//!
//! | value | layout |
//! |---|---|
//! | IPv4 | 4 bytes in dotted order, u16 port, *little endian* |
//! | IPv6 | 16 bytes in written order, u16 port, little endian |
//! | list | uint count, then the addresses |

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use ferrocore_primitives::encoding::{DecodeError, Reader, put_array, put_u16, uint_len};

/// Bytes of an IPv4 address with its port.
pub const IPV4_LEN: usize = 6;

/// Bytes of an IPv6 address with its port.
pub const IPV6_LEN: usize = 18;

/// The most addresses a list may hold. JavaScript nodes send at most 20, plus one for each network interface;
/// longer lists are refused.
pub const ADDRESSES_MAX: usize = 128;

/// Appends an IPv4 address.
pub fn put_ipv4(out: &mut Vec<u8>, address: &SocketAddrV4) {
    out.extend_from_slice(&address.ip().octets());
    put_u16(out, address.port());
}

/// Appends an IPv6 address. Flow information and scope are not on the wire: they mean nothing elsewhere.
pub fn put_ipv6(out: &mut Vec<u8>, address: &SocketAddrV6) {
    out.extend_from_slice(&address.ip().octets());
    put_u16(out, address.port());
}

/// Appends a list of at most [`ADDRESSES_MAX`] IPv4 addresses; peers refuse more (checked in debug builds).
pub fn put_ipv4_list(out: &mut Vec<u8>, addresses: &[SocketAddrV4]) {
    debug_assert!(addresses.len() <= ADDRESSES_MAX, "the list is too long");
    put_array(out, addresses, put_ipv4);
}

/// Appends a list of at most [`ADDRESSES_MAX`] IPv6 addresses; peers refuse more (checked in debug builds).
pub fn put_ipv6_list(out: &mut Vec<u8>, addresses: &[SocketAddrV6]) {
    debug_assert!(addresses.len() <= ADDRESSES_MAX, "the list is too long");
    put_array(out, addresses, put_ipv6);
}

/// Reads an IPv4 address.
///
/// # Errors
/// [`DecodeError::OutOfBounds`] if fewer than [`IPV4_LEN`] bytes are left.
pub fn ipv4(reader: &mut Reader<'_>) -> Result<SocketAddrV4, DecodeError> {
    let ip = Ipv4Addr::from(reader.fixed::<4>()?);
    Ok(SocketAddrV4::new(ip, reader.u16()?))
}

/// Reads an IPv6 address.
///
/// # Errors
/// [`DecodeError::OutOfBounds`] if fewer than [`IPV6_LEN`] bytes are left.
pub fn ipv6(reader: &mut Reader<'_>) -> Result<SocketAddrV6, DecodeError> {
    let ip = Ipv6Addr::from(reader.fixed::<16>()?);
    Ok(SocketAddrV6::new(ip, reader.u16()?, 0, 0))
}

/// Reads a list of IPv4 addresses.
///
/// # Errors
/// [`DecodeError::Invalid`] for more than [`ADDRESSES_MAX`], [`DecodeError::OutOfBounds`] if the bytes run out.
pub fn ipv4_list(reader: &mut Reader<'_>) -> Result<Vec<SocketAddrV4>, DecodeError> {
    capped_list(reader, ADDRESSES_MAX, IPV4_LEN, ipv4)
}

/// Reads a list of IPv6 addresses.
///
/// # Errors
/// As [`ipv4_list`].
pub fn ipv6_list(reader: &mut Reader<'_>) -> Result<Vec<SocketAddrV6>, DecodeError> {
    capped_list(reader, ADDRESSES_MAX, IPV6_LEN, ipv6)
}

/// Whether `ip` belongs to networks of somebody's own, where hosts are not counted as on the internet.
pub(crate) fn is_local(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let is_carriers = a == 100 && (64..128).contains(&b);
    ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_carriers
}

/// Whether datagrams can be sent to `address`, as one host's.
pub(crate) fn is_sendable(address: &SocketAddrV4) -> bool {
    let ip = address.ip();
    let is_hosts = ip.octets()[0] != 0 && !ip.is_multicast() && !ip.is_broadcast();
    is_hosts && address.port() != 0
}

/// Bytes of a list of `count` items of `item_len` bytes each.
pub(crate) const fn list_len(count: usize, item_len: usize) -> usize {
    uint_len(count as u64) + count * item_len
}

/// Reads a list of at most `max` items, each at least `item_len` bytes long, refusing before it allocates.
pub(crate) fn capped_list<'a, T>(
    reader: &mut Reader<'a>,
    max: usize,
    item_len: usize,
    item: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    if reader.clone().uint()? > max as u64 {
        return Err(DecodeError::Invalid("a list is too long"));
    }
    reader.array(item_len, item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_little_endian_and_hosts_are_not() {
        let mut out = Vec::new();
        put_ipv4(&mut out, &"1.2.3.4:5678".parse().unwrap());
        put_ipv6(&mut out, &"[2001:db8::1]:443".parse().unwrap());
        assert_eq!(
            hex::encode(&out),
            "010203042e1620010db8000000000000000000000001bb01"
        );
        let mut reader = Reader::new(&out);
        assert_eq!(ipv4(&mut reader), Ok("1.2.3.4:5678".parse().unwrap()));
        assert_eq!(ipv6(&mut reader), Ok("[2001:db8::1]:443".parse().unwrap()));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_list_is_capped_and_must_be_there() {
        let list = |count: usize| {
            let mut bytes = vec![u8::try_from(count).unwrap()];
            bytes.resize(1 + count * IPV4_LEN, 7);
            bytes
        };
        let read = |bytes: &[u8]| ipv4_list(&mut Reader::new(bytes)).map(|list| list.len());
        assert_eq!(read(&list(ADDRESSES_MAX)), Ok(ADDRESSES_MAX));
        assert!(matches!(
            read(&list(ADDRESSES_MAX + 1)),
            Err(DecodeError::Invalid(_))
        ));
        assert_eq!(read(&[2, 1, 2, 3, 4, 5, 6]), Err(DecodeError::OutOfBounds));
    }
}
