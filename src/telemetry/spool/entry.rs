//! What waits in a spool: lines, each of a kind.

use std::ops::Range;

/// What a line tells of. Exporters translate each kind in their own way; to the spool they are all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum EntryKind {
    /// A call: the line of the record file.
    Record,
    /// A step of an operation of the management API: the line of an activity event.
    Event,
}

impl EntryKind {
    /// As it stands in a frame; never to be used for another kind, since spools outlive the version that wrote them.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Record => 0,
            Self::Event => 1,
        }
    }

    /// `None`: a kind that this version does not know.
    pub(super) const fn of_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Record),
            1 => Some(Self::Event),
            _ => None,
        }
    }
}

/// One line without its line end. Privacy is applied to it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) struct Entry<'a> {
    pub kind: EntryKind,
    pub line: &'a [u8],
}

/// The entries of one batch.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Entries {
    bytes: Vec<u8>,
    each: Vec<(EntryKind, Range<usize>)>,
}

impl Entries {
    /// Those that stand at these places.
    pub(super) fn new(bytes: Vec<u8>, each: Vec<(EntryKind, Range<usize>)>) -> Self {
        Self { bytes, each }
    }

    pub(in crate::telemetry) fn len(&self) -> usize {
        self.each.len()
    }

    pub(in crate::telemetry) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.each.iter().map(|(kind, place)| Entry { kind: *kind, line: &self.bytes[place.clone()] })
    }
}
