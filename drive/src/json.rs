//! JSON text as JavaScript writes it.
//!
//! Knows `JSON.stringify`'s form: no spaces, numbers in JavaScript's shortest notation. JSON that
//! comes from elsewhere is kept as the text it was. Does not know what the values mean.

use std::fmt;
use std::io;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::ser::Formatter;
use serde_json::value::RawValue;

/// A JSON value, kept as text: what was read is written again byte for byte.
#[derive(Clone)]
pub struct Json(Box<RawValue>);

impl Json {
    /// The JSON of any value, as `JSON.stringify` would print it.
    ///
    /// # Errors
    /// If `value` has no JSON form, such as a map whose keys are not text.
    pub fn new(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        let text = String::from_utf8(to_vec(value)?).map_err(serde::ser::Error::custom)?;
        RawValue::from_string(text).map(Self)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Reads the value as a `T`.
    ///
    /// # Errors
    /// If it is something else.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.as_str())
    }

    pub(crate) fn is_null(&self) -> bool {
        self.as_str() == "null"
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self)
    }
}

/// Serialises as `JSON.stringify` does.
pub(crate) fn to_vec(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::with_capacity(160);
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut out, JavaScript,
    ))?;
    Ok(out)
}

struct JavaScript;

impl Formatter for JavaScript {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(number(value).as_bytes())
    }

    fn write_f32<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        self.write_f64(writer, value.into())
    }
}

/// ECMA-262 `Number::toString`: positional from 1e-6 up to 1e21, scientific outside.
fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{value:e}");
    let exponent = scientific
        .split_once('e')
        .and_then(|(_, e)| e.parse::<i32>().ok());
    match exponent {
        Some(-6..=20) | None => format!("{value}"),
        Some(..-6) => scientific,
        Some(21..) => scientific.replace('e', "e+"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_javascript_notation() {
        for (value, text) in [
            (1.0, "1"),
            (-0.0, "0"),
            (0.1, "0.1"),
            (1e-6, "0.000001"),
            (1.5e-7, "1.5e-7"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
            (1e21, "1e+21"),
            (-1.25e300, "-1.25e+300"),
        ] {
            assert_eq!(Json::new(&value).unwrap().as_str(), text);
        }
    }

    #[test]
    fn foreign_text_is_kept() {
        let json: Json = serde_json::from_str(r#"{"b":1e2,"a":"A"}"#).unwrap();
        assert_eq!(to_vec(&json).unwrap(), br#"{"b":1e2,"a":"A"}"#);
    }
}
