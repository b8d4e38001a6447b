//! Making two NATs let each other's packets through.
//! Knows how NATs show ([`samples`]), which packets open them ([`puncher`]), and the rounds in which two peers agree on
//! it ([`client`], [`server`]). Does not know sockets, clocks or the DHT: they are actions and inputs.
//!
//! ```text
//! client                              relay                              server
//!   low-TTL packet to the server  ->  x
//!   round 0: my NAT, my addresses ->        ->  pings back if its NAT is consistent ("fast open")
//!                                 <-        <-  its NAT, its addresses, its token
//!   round 1: punching             ->        ->  punches
//!                                 <-        <-  punching
//!   punches
//! ```
//!
//! What is sent depends on both NATs:
//!
//! | client, server | packets |
//! |---|---|
//! | consistent, consistent | one a second to each address of the other, 10 times |
//! | consistent, random | the consistent side guesses ports, 1,750 of them, 20 ms apart; the random side opens 256 sockets |
//! | random, random | none: nobody can guess both ports |

pub mod client;
pub mod puncher;
pub mod samples;
pub mod server;

/// The packet that opens a NAT: one byte, which no protocol on the socket begins and ends with.
pub const PUNCH: [u8; 1] = [0];

/// Hops of a packet that is to open our own NAT without reaching the other.
pub const LOW_TTL: u32 = 5;
