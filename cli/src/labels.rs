//! What the cores of a store say of their names, should the file of names be lost.
//! Knows one small value in a core's header, which no peer sees. Does not know files.

use std::path::PathBuf;

use ferrocore::{Core, Node};
use serde::{Deserialize, Serialize};

use crate::exit::Result;
use crate::names::{CoreKind, Named};
use crate::target::Name;

/// Under which key the value lies among a core's user data.
const USER_DATA: &str = "fcore/name";

/// The value, as JSON.
#[derive(Serialize, Deserialize)]
struct Label {
    /// Of the core: user data may be copied to another.
    key: String,
    name: Name,
    kind: CoreKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    folder: Option<PathBuf>,
}

/// Lets `core` remember what it is called. Of several names it remembers the last.
pub(crate) fn put(core: &Core, name: &Name, named: &Named) -> Result<()> {
    let label = Label {
        key: named.key.to_string(),
        name: name.clone(),
        kind: named.kind,
        folder: named.folder.clone(),
    };
    // That the path is text, the file of names has seen to.
    let value = serde_json::to_vec(&label).unwrap_or_default();
    if core.user_data(USER_DATA).as_ref() != Some(&value) {
        core.set_user_data(USER_DATA, Some(&value))?;
    }
    Ok(())
}

/// What the cores of the store say, as far as they can be read.
pub(crate) fn find(node: &Node) -> Result<Vec<(Name, Named)>> {
    let listed = node.store().list()?.into_iter();
    let readable = listed.filter_map(|listed| node.core(&listed.info.ok()?.key).ok());
    Ok(readable.filter_map(|core| get(&core)).collect())
}

fn get(core: &Core) -> Option<(Name, Named)> {
    let label: Label = serde_json::from_slice(&core.user_data(USER_DATA)?).ok()?;
    if label.key != core.key().to_string() {
        return None;
    }
    let named = Named {
        kind: label.kind,
        key: core.key(),
        folder: label.folder,
    };
    Some((label.name, named))
}
