//! What holds for all messages and all bytes: writing and reading cancel out, and nothing panics.

use crate::common::{any_address, any_addresses, any_buffer, any_id, any_token, any_uint};

use ferrocore_dht::message::{Command, ErrorCode, Message, Reply, Request};
use proptest::option;
use proptest::prelude::*;

prop_compose! {
    fn any_request()(
        tid: u16,
        to in any_address(),
        id in option::of(any_id()),
        token in option::of(any_token()),
        internal: bool,
        number in any_uint(),
        target in option::of(any_id()),
        value in option::of(any_buffer()),
    ) -> Request {
        Request { tid, to, id, token, command: Command { internal, number }, target, value }
    }
}

prop_compose! {
    fn any_reply()(
        tid: u16,
        to in any_address(),
        id in option::of(any_id()),
        token in option::of(any_token()),
        closer_nodes in any_addresses(),
        error in any_uint().prop_map(ErrorCode),
        value in option::of(any_buffer()),
    ) -> Reply {
        Reply { tid, to, id, token, closer_nodes, error, value }
    }
}

/// Reads `datagram`; what was understood must survive being written and read again.
fn reads_stably(datagram: &[u8]) {
    if let Ok(message) = Message::parse(datagram) {
        let written = match &message {
            Message::Request(request) => request.to_vec(),
            Message::Reply(reply) => reply.to_vec(),
        };
        assert_eq!(Message::parse(&written), Ok(message));
    }
}

proptest! {
    #[test]
    fn requests_survive_the_wire(request in any_request()) {
        let datagram = request.to_vec();
        prop_assert_eq!(Message::parse(&datagram), Ok(Message::Request(request)));
    }

    #[test]
    fn replies_survive_the_wire(reply in any_reply()) {
        let datagram = reply.to_vec();
        prop_assert_eq!(Message::parse(&datagram), Ok(Message::Reply(reply)));
    }

    #[test]
    fn any_bytes_are_read_without_panic(mut datagram in prop::collection::vec(any::<u8>(), 2..300), reply: bool) {
        reads_stably(&datagram);
        datagram[0] = if reply { 0x13 } else { 0x03 };
        reads_stably(&datagram);
    }

    #[test]
    fn a_truncated_or_damaged_message_is_read_without_panic(
        reply in any_reply(),
        request in any_request(),
        at: prop::sample::Index,
        byte: u8,
    ) {
        for mut datagram in [reply.to_vec(), request.to_vec()] {
            let at = at.index(datagram.len());
            prop_assert!(Message::parse(&datagram[..at]).is_err(), "no proper prefix is a message");
            datagram[at] = byte;
            reads_stably(&datagram);
        }
    }
}
