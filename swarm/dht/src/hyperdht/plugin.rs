//! Requests to extensions of a node.
//! Knows the envelope. Does not know any plugin.
//!
//! Name string, version uint, command uint, flags uint, value buffer with flag 1.

use ferrocore_primitives::encoding::{
    Decode, DecodeError, Encode, Reader, buffer_len, put_buffer, put_string, put_uint, uint_len,
};

use crate::flags::{field, flags};

const FLAG_VALUE: u64 = 1;

/// A request to a plugin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PluginRequest {
    /// The plugin's name.
    pub plugin: String,
    /// Its version.
    pub version: u64,
    /// Which of its commands.
    pub command: u64,
    /// The command's argument. Empty is not the same as none.
    pub value: Option<Vec<u8>>,
}

impl Encode for PluginRequest {
    fn encoded_len(&self) -> usize {
        buffer_len(self.plugin.len())
            + uint_len(self.version)
            + uint_len(self.command)
            + 1
            + self.value.as_ref().map_or(0, |v| buffer_len(v.len()))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_string(out, &self.plugin);
        put_uint(out, self.version);
        put_uint(out, self.command);
        put_uint(out, flags(&[(FLAG_VALUE, self.value.is_some())]));
        self.value.iter().for_each(|value| put_buffer(out, value));
    }
}

impl Decode for PluginRequest {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let plugin = reader.string()?.to_owned();
        let version = reader.uint()?;
        let command = reader.uint()?;
        let flags = reader.uint()?;
        let value = field(reader, flags, FLAG_VALUE, |r| r.buffer().map(Vec::from))?;
        Ok(Self {
            plugin,
            version,
            command,
            value,
        })
    }
}
