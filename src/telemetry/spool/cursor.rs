//! How far somebody has come, such as the exporter in its spool: one number that outlives the process.
//!
//! Two slots, written in turn and in place: a write that is torn leaves the other slot, and a full disk, on which a new
//! file could not be written, does not hold the cursor up.

use std::io;
use std::sync::Arc;

use super::folder::SegmentFile;
use super::frame::{u32_at, u64_at};

/// Generation, sequence, CRC-32 of both, and room.
const SLOT: usize = 32;
const CHECKED: usize = 16;

/// The cursor's file.
pub(super) struct Cursor {
    file: Arc<dyn SegmentFile>,
    generation: u64,
}

impl Cursor {
    /// Reads the file; `None` beside the cursor: it tells nothing (new, or damaged).
    pub(super) fn open(file: Arc<dyn SegmentFile>) -> io::Result<(Self, Option<u64>)> {
        let mut bytes = [0; 2 * SLOT];
        let length = file.read_at(0, &mut bytes)?;
        let newest = newest(&bytes[..length]);
        if length < bytes.len() {
            // Takes its room now. A disk that is full from the first moment has none to give; then the first write fails.
            let _ = file.write_at(length as u64, &vec![0; bytes.len() - length]);
        }
        let cursor = Self { file, generation: newest.map_or(0, |(generation, _)| generation) };
        Ok((cursor, newest.map(|(_, settled)| settled)))
    }

    /// All records before the sequence `settled` are done with.
    pub(super) fn write(&mut self, settled: u64) -> io::Result<()> {
        let generation = self.generation + 1;
        let mut slot = [0; SLOT];
        slot[..8].copy_from_slice(&generation.to_le_bytes());
        slot[8..16].copy_from_slice(&settled.to_le_bytes());
        let crc = crc32fast::hash(&slot[..CHECKED]);
        slot[CHECKED..CHECKED + 4].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at(generation % 2 * SLOT as u64, &slot)?;
        self.generation = generation;
        Ok(())
    }

    pub(super) fn file(&self) -> Arc<dyn SegmentFile> {
        Arc::clone(&self.file)
    }
}

/// What the content of a cursor's file says.
pub(super) fn read(bytes: &[u8]) -> Option<u64> {
    newest(bytes).map(|(_, settled)| settled)
}

/// The newest whole slot.
fn newest(bytes: &[u8]) -> Option<(u64, u64)> {
    bytes.chunks(SLOT).take(2).filter_map(decode).max_by_key(|(generation, _)| *generation)
}

fn decode(slot: &[u8]) -> Option<(u64, u64)> {
    let whole = crc32fast::hash(slot.get(..CHECKED)?) == u32_at(slot, CHECKED)?;
    let generation = u64_at(slot, 0).filter(|generation| *generation > 0)?;
    whole.then_some((generation, u64_at(slot, 8)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_slot_counts() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let open = || Cursor::open(Arc::clone(&file) as Arc<dyn SegmentFile>).unwrap();
        assert_eq!(open().1, None);
        let mut cursor = open().0;
        cursor.write(5).unwrap();
        assert_eq!(open().1, Some(5));
        cursor.write(9).unwrap();
        assert_eq!(open().1, Some(9));
        // The second write went to the first slot.
        SegmentFile::write_at(&*file, 8, b"torn").unwrap();
        assert_eq!(open().1, Some(5));
        open().0.write(12).unwrap();
        assert_eq!(open().1, Some(12), "the damaged slot is the one to be written next");
        SegmentFile::write_at(&*file, 8, &[0xff; 60]).unwrap();
        assert_eq!(open().1, None);
    }
}
