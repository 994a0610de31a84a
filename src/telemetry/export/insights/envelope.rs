//! The envelope around one item of telemetry (Application Insights data model, schema version 2) and what it says of the
//! gateway.
//!
//! Fields that only repeat their defaults (`ver` 1, `sampleRate` 100) are left out, as Azure's own exporters do.

use serde::Serialize;

use super::super::exporter::Untranslatable;
use super::super::machine_name;
use super::connection::InstrumentationKey;

/// Longest values, in characters (Application Insights data model).
pub(super) const PROPERTY_NAME_CAP: usize = 150;
pub(super) const PROPERTY_CAP: usize = 8192;
/// Largest item, in bytes.
pub(super) const ITEM_CAP: usize = 64 * 1024;

/// Makes the envelopes of one resource.
pub(super) struct Envelopes {
    key: InstrumentationKey,
    /// Which gateway of several: the machine's name.
    instance: String,
}

/// One kind of data.
pub(super) trait Data: Serialize {
    /// The envelope's name.
    const NAME: &'static str;
    /// The data's own name.
    const TYPE: &'static str;
}

/// What an item is part of, and who caused it.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Context<'a> {
    #[serde(rename = "ai.operation.id", skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<&'a str>,
    #[serde(rename = "ai.operation.parentId", skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<&'a str>,
    #[serde(rename = "ai.operation.name", skip_serializing_if = "Option::is_none")]
    pub operation_name: Option<&'a str>,
    #[serde(rename = "ai.location.ip", skip_serializing_if = "Option::is_none")]
    pub address: Option<&'a str>,
    #[serde(rename = "ai.user.userAgent", skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<&'a str>,
    #[serde(rename = "ai.user.authUserId", skip_serializing_if = "Option::is_none")]
    pub user_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Envelope<'a, D> {
    name: &'static str,
    time: &'a str,
    #[serde(rename = "iKey")]
    key: &'a str,
    tags: Tags<'a>,
    data: Typed<'a, D>,
}

#[derive(Serialize)]
struct Tags<'a> {
    #[serde(rename = "ai.cloud.role")]
    role: &'static str,
    #[serde(rename = "ai.cloud.roleInstance")]
    instance: &'a str,
    #[serde(rename = "ai.internal.sdkVersion")]
    version: &'static str,
    #[serde(flatten)]
    context: Context<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Typed<'a, D> {
    base_type: &'static str,
    base_data: &'a D,
}

impl Envelopes {
    pub(super) fn new(key: InstrumentationKey) -> Self {
        Self { key, instance: machine_name() }
    }

    /// Those of a test: with a key, on the machine `host-1`.
    #[cfg(test)]
    pub(super) fn sample() -> Self {
        let text = "InstrumentationKey=99999999-8888-4777-8666-555555555555";
        let connection = super::ConnectionString::of(Some(text), |_| None).unwrap();
        Self { key: connection.key().clone(), instance: "host-1".to_owned() }
    }

    /// The item with this data; `time` is RFC 3339 in UTC with a `Z`.
    ///
    /// # Errors
    /// It is larger than an item may be.
    pub(super) fn item<D: Data>(
        &self,
        time: &str,
        context: Context<'_>,
        data: &D,
    ) -> Result<Vec<u8>, Untranslatable> {
        let envelope = Envelope {
            name: D::NAME,
            time,
            key: self.key.expose(),
            tags: Tags {
                role: "scoregate",
                instance: &self.instance,
                version: concat!("scoregate:", env!("CARGO_PKG_VERSION")),
                context,
            },
            data: Typed { base_type: D::TYPE, base_data: data },
        };
        let item = serde_json::to_vec(&envelope).map_err(|error| Untranslatable(error.to_string()))?;
        match item.len() {
            0..=ITEM_CAP => Ok(item),
            length => Err(Untranslatable(format!("the item has {length} bytes; the limit is {ITEM_CAP}"))),
        }
    }
}

/// At most so many characters.
pub(super) fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_a_character() {
        assert_eq!((cut("abc", 3), cut("abcd", 3), cut("éèàù", 3)), ("abc", "abc", "éèà"));
    }
}
