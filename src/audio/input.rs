//! Byte sources with the limits enforced at every read.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use symphonia::core::io::MediaSource;

use crate::audio::{AudioError, Limits};

const NONE: u8 = 0;
const BYTES: u8 = 1;
const TIME: u8 = 2;

/// Says which limit ended a read, because the demultiplexers in between may swallow the
/// error that the read returned.
#[derive(Clone)]
pub(super) struct Watch {
    tripped: Arc<AtomicU8>,
    started: Instant,
    limits: Limits,
}

impl Watch {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            tripped: Arc::new(AtomicU8::new(NONE)),
            started: Instant::now(),
            limits: limits.clone(),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Fails if a read was refused, or if the time is up.
    pub(super) fn check(&self, name: &str) -> Result<(), AudioError> {
        if self.out_of_time() {
            self.tripped.store(TIME, Ordering::Relaxed);
        }
        match (
            self.tripped.load(Ordering::Relaxed),
            self.limits.max_decode_time,
        ) {
            (BYTES, _) => Err(AudioError::TooManyBytes {
                name: name.to_owned(),
                limit_bytes: self.limits.max_bytes,
            }),
            (TIME, Some(limit)) => Err(AudioError::TooSlow {
                name: name.to_owned(),
                limit,
            }),
            _ => Ok(()),
        }
    }

    /// Notes whether `n_bytes` are too many; false if so.
    pub(super) fn check_bytes(&self, n_bytes: u64) -> bool {
        let within = n_bytes <= self.limits.max_bytes;
        if !within {
            self.tripped.store(BYTES, Ordering::Relaxed);
        }
        within
    }

    fn out_of_time(&self) -> bool {
        self.limits
            .max_decode_time
            .is_some_and(|limit| self.started.elapsed() > limit)
    }
}

/// A source that refuses to be read past its limits.
pub(super) struct Guarded {
    inner: Box<dyn MediaSource>,
    watch: Watch,
    seekable: bool,
    byte_len: Option<u64>,
    /// Bytes read in all; counted for pipes only, the others know their length.
    n_read: u64,
}

impl Guarded {
    /// # Errors
    /// [`AudioError::TooManyBytes`] if the source already knows that it is too large.
    pub(super) fn new(
        inner: Box<dyn MediaSource>,
        watch: &Watch,
        name: &str,
    ) -> Result<Self, AudioError> {
        let byte_len = inner.byte_len();
        watch.check_bytes(byte_len.unwrap_or(0));
        watch.check(name)?;
        Ok(Self {
            seekable: inner.is_seekable(),
            byte_len,
            inner,
            watch: watch.clone(),
            n_read: 0,
        })
    }
}

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.watch.out_of_time() {
            self.watch.tripped.store(TIME, Ordering::Relaxed);
            return Err(io::ErrorKind::TimedOut.into());
        }
        let n = self.inner.read(buffer)?;
        if !self.seekable {
            self.n_read += n as u64;
            if !self.watch.check_bytes(self.n_read) {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        Ok(n)
    }
}

impl Seek for Guarded {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

impl MediaSource for Guarded {
    fn is_seekable(&self) -> bool {
        self.seekable
    }

    fn byte_len(&self) -> Option<u64> {
        self.byte_len
    }
}
