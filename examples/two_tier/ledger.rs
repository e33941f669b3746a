//! The source that the cache is in front of, and by which its answers are judged: a file that all workers share.
//!
//! It is deliberately not kept in the remote tier: what judges a store must not depend on it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

/// Two words of 8 bytes.
const ROW_LEN: usize = 16;

/// What the source knows of one record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Row {
    /// How often the record has changed.
    pub(crate) version: u64,
    /// The version that its writer was told is in both tiers; 0 if there is none, or it was changed or invalidated since, or
    /// so shortly before that it may be gone. The remote tier must have it, or a later one, at the end.
    pub(crate) acknowledged: u64,
}

/// A handle to the file. Every thread has its own, because it has a position.
///
/// Rows change under the turn of their group (see `Worker`), so there is one writer of a row at a time. Readers take no turn:
/// a word is copied by one call, and a reader wants but one of them.
pub(crate) struct Ledger {
    file: File,
}

impl Ledger {
    /// Makes the file for so many records.
    pub(crate) fn create(path: &Path, records: usize) -> io::Result<()> {
        File::create_new(path)?.set_len((records * ROW_LEN) as u64)
    }

    pub(crate) fn open(path: &Path) -> io::Result<Ledger> {
        Ok(Ledger { file: OpenOptions::new().read(true).write(true).open(path)? })
    }

    /// Returns the present version of a record.
    pub(crate) fn version(&self, record: u32) -> io::Result<u64> {
        Ok(self.rows(record..record + 1)?[0].version)
    }

    pub(crate) fn rows(&self, records: Range<u32>) -> io::Result<Vec<Row>> {
        let mut bytes = vec![0; records.len() * ROW_LEN];
        self.seek(records.start)?.read_exact(&mut bytes)?;
        let words: Vec<u64> = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        Ok(words.as_chunks().0.iter().map(|&[version, acknowledged]| Row { version, acknowledged }).collect())
    }

    /// Changes records: each has a new version, and nobody has been told yet where it is. Returns the versions.
    pub(crate) fn change(&self, records: Range<u32>) -> io::Result<Vec<u64>> {
        let versions: Vec<u64> = self.rows(records.clone())?.iter().map(|row| row.version + 1).collect();
        self.write(records.start, versions.iter().map(|&version| Row { version, acknowledged: 0 }))?;
        Ok(versions)
    }

    /// Notes that the cache acknowledged a version of a record.
    pub(crate) fn acknowledge(&self, record: u32, version: u64) -> io::Result<()> {
        self.write(record, [Row { version, acknowledged: version }])
    }

    fn write(&self, first: u32, rows: impl IntoIterator<Item = Row>) -> io::Result<()> {
        let words = rows.into_iter().flat_map(|row| [row.version, row.acknowledged]);
        self.seek(first)?.write_all(&words.flat_map(u64::to_le_bytes).collect::<Vec<u8>>())
    }

    fn seek(&self, record: u32) -> io::Result<&File> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(u64::from(record) * ROW_LEN as u64))?;
        Ok(file)
    }
}
