//! How entries stand in a segment: a header, then one frame per entry, each with its length, kind, checksum and sequence.
//!
//! All numbers are little endian. The header has [`HEADER`] bytes: magic with the format's version, the sequence of the
//! first entry, the sequence at which the segment before it ended, the form of the payloads, CRC-32 of all that. If the form
//! is encrypted, [`SEALED`] more bytes follow: the [`Seal`] and its CRC-32; payloads are ciphertexts then. A frame has
//! [`FRAME_HEAD`] bytes before its payload: payload length (24 bits) and the entry's kind (8 bits), CRC-32 of these, the
//! sequence and the payload, and the sequence. The entries of a segment have sequences without a gap, so that what an
//! earlier, failed attempt left behind the end of what was written is never taken for an entry.
//!
//! Versions without kinds wrote a length of 32 bits, whose upper 8 were zero: their segments read as records. Such a
//! version takes an entry of another kind for damage that ends the segment, and an encrypted segment for none.

use super::entry::{Entry, EntryKind};
use super::seal::{Cipher, SEAL, Seal, TAG};

/// Bytes of a segment's header.
pub(super) const HEADER: usize = 32;
/// Bytes that the header of an encrypted segment has behind that.
const SEALED: usize = SEAL + 4;
/// Bytes of the longest header.
pub(super) const MOST_HEADER: usize = HEADER + SEALED;
/// Bytes of a frame before its payload.
pub(super) const FRAME_HEAD: usize = 16;
/// Longest payload: a length beyond it is a damaged one. Lines are much shorter, every text in them has a cap.
pub(super) const MAX_PAYLOAD: usize = 256 * 1024;

/// The last byte is the version.
const MAGIC: [u8; 8] = *b"SGSPOOL\x01";
/// Payloads are the lines as they are.
const PLAIN: u32 = 0;
/// Payloads are encrypted; what by, the seal says.
const ENCRYPTED: u32 = 1;

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Sequence of the first record.
    pub first: u64,
    /// Where the segment written to the disk before it ended: had that one more than can be read, the rest is lost.
    pub follows: u64,
    /// Of an encrypted one.
    pub seal: Option<Seal>,
}

impl Header {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        let form = if self.seal.is_some() { ENCRYPTED } else { PLAIN };
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.first.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.follows.to_le_bytes());
        bytes[24..28].copy_from_slice(&form.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        if let Some(seal) = self.seal.map(Seal::encode) {
            bytes.extend_from_slice(&seal);
            bytes.extend_from_slice(&crc32fast::hash(&seal).to_le_bytes());
        }
        bytes
    }

    /// `None`: damaged, or of a format that this version does not read.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let whole = crc32fast::hash(bytes.get(..28)?) == u32_at(bytes, 28)?;
        if bytes.get(..8)? != MAGIC || !whole {
            return None;
        }
        let seal = match u32_at(bytes, 24)? {
            PLAIN => None,
            ENCRYPTED => {
                let seal = bytes.get(HEADER..HEADER + SEAL)?;
                (crc32fast::hash(seal) == u32_at(bytes, HEADER + SEAL)?).then_some(())?;
                Some(Seal::decode(seal)?)
            }
            _ => return None,
        };
        Some(Self { first: u64_at(bytes, 8)?, follows: u64_at(bytes, 16)?, seal })
    }

    /// Where the first frame begins.
    pub(super) const fn length(&self) -> usize {
        if self.seal.is_some() { MOST_HEADER } else { HEADER }
    }
}

/// Appends a frame to `out`, encrypted if there is a cipher. `None`: the entry is too long for a frame, or cannot be
/// encrypted; `out` is as it was.
pub(super) fn append(
    sequence: u64,
    entry: Entry<'_>,
    cipher: Option<&Cipher>,
    out: &mut Vec<u8>,
) -> Option<()> {
    let length = entry.line.len() + if cipher.is_some() { TAG } else { 0 };
    let Some([low, middle, high, 0]) =
        u32::try_from(length).ok().filter(|_| length <= MAX_PAYLOAD).map(u32::to_le_bytes)
    else {
        return None;
    };
    let begin = [low, middle, high, entry.kind.code()];
    let at = out.len();
    out.extend_from_slice(&[0; FRAME_HEAD]);
    out.extend_from_slice(entry.line);
    if let Some(cipher) = cipher {
        let Some(tag) = cipher.encrypt(sequence, entry.kind, &mut out[at + FRAME_HEAD..]) else {
            out.truncate(at);
            return None;
        };
        out.extend_from_slice(&tag);
    }
    let sequence = sequence.to_le_bytes();
    let crc = checksum(begin, sequence, &out[at + FRAME_HEAD..]);
    out[at..at + 4].copy_from_slice(&begin);
    out[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    out[at + 8..at + FRAME_HEAD].copy_from_slice(&sequence);
    Some(())
}

/// What stands at a place in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// An entry and the bytes of its frame.
    Entry { kind: EntryKind, payload: &'a [u8], length: usize },
    /// The beginning of a frame that may be whole further on.
    Cut,
    /// No frame, or not the expected one.
    Broken,
}

/// The frame at the beginning of `bytes`, which must have this sequence.
pub(super) fn next(bytes: &[u8], sequence: u64) -> Next<'_> {
    let (Some(begin), Some(crc), Some(found)) = (u32_at(bytes, 0), u32_at(bytes, 4), u64_at(bytes, 8)) else {
        return Next::Cut;
    };
    let begin = begin.to_le_bytes();
    let [low, middle, high, code] = begin;
    let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
    let Some(kind) = EntryKind::of_code(code).filter(|_| length <= MAX_PAYLOAD && found == sequence) else {
        return Next::Broken;
    };
    let end = FRAME_HEAD + length;
    let Some(payload) = bytes.get(FRAME_HEAD..end) else {
        return Next::Cut;
    };
    if checksum(begin, sequence.to_le_bytes(), payload) != crc {
        return Next::Broken;
    }
    Next::Entry { kind, payload, length: end }
}

fn checksum(begin: [u8; 4], sequence: [u8; 8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&begin);
    hasher.update(&sequence);
    hasher.update(payload);
    hasher.finalize()
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_no_damaged_one_does() {
        for seal in [None, Seal::decode(&[9; SEAL])] {
            let header = Header { first: 7, follows: 5, seal };
            let bytes = header.encode();
            assert_eq!((bytes.len(), Header::decode(&bytes)), (header.length(), Some(header)));
            for place in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[place] ^= 1;
                assert_eq!(Header::decode(&damaged), None, "byte {place}");
                assert_eq!(Header::decode(&bytes[..place]), None, "{place} bytes");
            }
        }
    }

    #[test]
    fn what_is_too_long_makes_no_frame() {
        let (mut out, line) = (vec![1], vec![b'x'; MAX_PAYLOAD + 1]);
        let entry = |line| Entry { kind: EntryKind::Record, line };
        assert_eq!(append(1, entry(&line), None, &mut out), None);
        assert_eq!((out.len(), append(1, entry(&line[1..]), None, &mut out)), (1, Some(())));
    }

    #[test]
    fn a_frame_reads_back_and_no_damaged_cut_or_foreign_one_does() {
        let mut bytes = Vec::new();
        let kind = EntryKind::Event;
        append(9, Entry { kind, line: b"{}" }, None, &mut bytes).unwrap();
        assert_eq!(next(&bytes, 9), Next::Entry { kind, payload: b"{}", length: bytes.len() });
        assert_eq!(next(&bytes, 10), Next::Broken);
        for end in 0..bytes.len() {
            assert_eq!(next(&bytes[..end], 9), Next::Cut, "{end} bytes");
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x80;
            assert!(!matches!(next(&damaged, 9), Next::Entry { .. }), "byte {place}");
        }
    }

    /// Bytes as the first version wrote them.
    #[test]
    fn a_frame_of_a_version_without_kinds_is_a_record() {
        let old = [&[2, 0, 0, 0, 0x1c, 0x3b, 0xbf, 0x2e, 9, 0, 0, 0, 0, 0, 0, 0][..], b"{}"].concat();
        assert_eq!(next(&old, 9), Next::Entry { kind: EntryKind::Record, payload: b"{}", length: 18 });
    }

    #[test]
    fn a_kind_of_a_later_version_is_not_guessed_at() {
        let mut bytes = Vec::new();
        append(9, Entry { kind: EntryKind::Record, line: b"{}" }, None, &mut bytes).unwrap();
        bytes[3] = 2;
        let begin = [bytes[0], bytes[1], bytes[2], bytes[3]];
        bytes[4..8].copy_from_slice(&checksum(begin, 9_u64.to_le_bytes(), b"{}").to_le_bytes());
        assert_eq!(next(&bytes, 9), Next::Broken);
    }
}
