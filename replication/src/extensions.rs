//! Messages of applications on one channel, both ways.
//!
//! Knows how names are shortened on the wire and when to send. Does not know who registered what:
//! that is the core's ([`ferrocore_log::extension`]).

use std::sync::Arc;

use ferrocore_log::Core;
use ferrocore_log::limits::EXTENSION_NAME_MAX;
use ferrocore_log::supply::SupplierId;

use crate::messages::{Extension, Message};
use crate::seldom::Seldom;
use crate::wire::Wire;

/// One channel's extensions.
#[derive(Debug, Default)]
pub(crate) struct Extensions {
    last: Seldom<LastNames>,
    /// Whether the core had messages for the peer when it was last looked at.
    is_waiting: bool,
}

/// What the messages before were named.
#[derive(Debug, Default)]
struct LastNames {
    /// That of the last message that was sent: the next one of the same name goes without.
    sent: Option<Arc<str>>,
    /// That of the last message that came; `None` if it was longer than anybody's.
    received: Option<String>,
}

impl Extensions {
    /// Takes in a message.
    pub(crate) fn handle(&mut self, core: &Core, from: Option<SupplierId>, extension: Extension) {
        let last = self.last.need();
        if !extension.name.is_empty() {
            last.received = Some(extension.name).filter(|name| name.len() <= EXTENSION_NAME_MAX);
        }
        if let (Some(from), Some(name)) = (from, &last.received) {
            core.supply()
                .extension_arrived(from, name, &extension.message);
        }
    }

    /// Looks whether the core has messages for the peer.
    pub(crate) fn look(&mut self, core: &Core, to: Option<SupplierId>) {
        self.is_waiting = to.is_some_and(|to| core.supply().has_extension(to));
    }

    /// Whether there are messages to send.
    pub(crate) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Sends one message; false when there is none.
    pub(crate) fn send_next(
        &mut self,
        core: &Core,
        to: Option<SupplierId>,
        wire: &mut Wire<'_>,
    ) -> bool {
        let next = to.and_then(|to| core.supply().next_extension(to));
        let Some(next) = next else {
            self.is_waiting = false;
            return false;
        };
        let last = self.last.need();
        let is_same = last.sent.as_ref() == Some(&next.name);
        let name = if is_same { "" } else { &*next.name };
        wire.send(&Message::Extension(Extension {
            name: name.to_owned(),
            message: next.message,
        }));
        last.sent = Some(next.name);
        true
    }
}
