//! Where records go: standard output, which the judge reads.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process;

use crate::record::Record;

#[derive(Debug)]
pub(super) struct Log(File);

impl Log {
    pub(super) fn open() -> io::Result<Log> {
        // Past the buffer of the standard library: whoever is killed has written all that it noted.
        Ok(Log(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }

    pub(super) fn note(&self, record: Record) {
        if record.write(&mut &self.0).is_err() {
            // Nobody listens any more.
            process::exit(1);
        }
    }
}
