//! The export requests: items of one resource and one scope put together. The messages of the three signals are alike
//! (`Export..ServiceRequest` > `Resource..` > `Scope..`), and Protocol Buffers put together by putting bytes together.

use super::super::machine_name;
use super::protobuf::{Fields, Value};
use super::settings::OtlpSettings;

/// The semantic conventions that names of attributes are taken from.
pub(super) const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

/// Puts items together for one resource.
#[derive(Clone)]
pub(super) struct Requests {
    /// The fields of the `Resource` message.
    resource: Vec<u8>,
}

impl Requests {
    pub(super) fn new(settings: &OtlpSettings) -> Self {
        let mut resource = Vec::new();
        let mut fields = Fields::new(&mut resource);
        for (name, value) in &settings.resource {
            fields.attribute(1, name, Value::Text(value));
        }
        let machine = machine_name();
        let ours = [
            ("service.version", env!("CARGO_PKG_VERSION")),
            // Which gateway of several: in containers each has a name of its own.
            ("service.instance.id", &*machine),
            ("host.name", &*machine),
        ];
        for (name, value) in ours {
            if settings.resource.iter().all(|(set, _)| set != name) {
                fields.attribute(1, name, Value::Text(value));
            }
        }
        Self { resource }
    }

    /// The message that exports the items, each of which is a part of a `ScopeSpans`, `ScopeLogs` or `ScopeMetrics`.
    pub(super) fn message<'a>(&self, items: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        Fields::new(&mut out).message(1, |group| {
            group.bytes(1, &self.resource);
            group.message(2, |scope| {
                scope.message(1, |name| {
                    name.text(1, "scoregate");
                    name.text(2, env!("CARGO_PKG_VERSION"));
                });
                items.for_each(|item| scope.written(item));
                scope.text(3, SCHEMA);
            });
            group.text(3, SCHEMA);
        });
        out
    }
}
