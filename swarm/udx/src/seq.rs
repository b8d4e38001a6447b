//! Sequence numbers that never wrap inside: 64 bits here, their low 32 on the wire.
//! Knows arithmetic. Does not know packets.

/// The inside of the wire's first sequence number `initial`, far enough from zero to look backwards.
pub(crate) const fn first(initial: u32) -> u64 {
    (1 << 32) | initial as u64
}

/// The low 32 bits, which the wire carries.
#[allow(clippy::cast_possible_truncation)] // that is the point
pub(crate) const fn to_wire(seq: u64) -> u32 {
    seq as u32
}

/// The number nearest to `around` that has the low bits `wire`.
pub(crate) const fn near(around: u64, wire: u32) -> u64 {
    let ahead = wire.wrapping_sub(to_wire(around)).cast_signed();
    around.saturating_add_signed(ahead as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_number_is_found_across_the_wrap() {
        let around = first(u32::MAX);
        assert_eq!(near(around, u32::MAX), around);
        assert_eq!(near(around, 0), around + 1);
        assert_eq!(near(around + 1, u32::MAX), around);
        assert_eq!(near(first(0), u32::MAX), first(0) - 1);
        assert_eq!(to_wire(near(first(7), 0x8000_0006)), 0x8000_0006);
    }
}
