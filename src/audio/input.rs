//! Byte sources with the limits enforced at every read.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use symphonia::core::io::MediaSource;

use crate::audio::{AudioError, Limits};

const NONE: u8 = 0;
const BYTES: u8 = 1;
const TIME: u8 = 2;

/// Keeps an eye on the limits. It says which of them ended a read, because the
/// demultiplexers in between may swallow the error that the read returned.
#[derive(Clone)]
pub(super) struct Watch {
    limits: Limits,
    state: Arc<State>,
}

struct State {
    tripped: AtomicU8,
    epoch: Instant,
    /// When the time is up, in nanoseconds from `epoch`.
    deadline_ns: AtomicU64,
}

impl Watch {
    pub(super) fn new(limits: &Limits) -> Self {
        let state = State {
            tripped: AtomicU8::new(NONE),
            epoch: Instant::now(),
            deadline_ns: AtomicU64::new(u64::MAX),
        };
        Self { limits: limits.clone(), state: Arc::new(state) }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Lets time run, `spent` of it being used up already.
    pub(super) fn start(&self, spent: Duration) {
        if let Some(limit) = self.limits.max_decode_time {
            let deadline = self.state.epoch.elapsed() + limit.saturating_sub(spent);
            let deadline_ns = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
            self.state.deadline_ns.store(deadline_ns, Ordering::Relaxed);
        }
    }

    /// Fails if a read was refused, or if the time is up.
    pub(super) fn check(&self, name: &str) -> Result<(), AudioError> {
        self.check_time();
        let tripped = self.state.tripped.load(Ordering::Relaxed);
        match (tripped, self.limits.max_decode_time) {
            (BYTES, _) => Err(AudioError::TooManyBytes {
                name: name.to_owned(),
                limit_bytes: self.limits.max_bytes,
            }),
            (TIME, Some(limit)) => Err(AudioError::TooSlow { name: name.to_owned(), limit }),
            _ => Ok(()),
        }
    }

    /// Notes whether `n_bytes` are too many; false if so.
    fn check_bytes(&self, n_bytes: u64) -> bool {
        let within = n_bytes <= self.limits.max_bytes;
        if !within {
            self.state.tripped.store(BYTES, Ordering::Relaxed);
        }
        within
    }

    /// Notes whether the time is up; false if so.
    fn check_time(&self) -> bool {
        let deadline_ns = self.state.deadline_ns.load(Ordering::Relaxed);
        let within =
            deadline_ns == u64::MAX || self.state.epoch.elapsed().as_nanos() < deadline_ns.into();
        if !within {
            self.state.tripped.store(TIME, Ordering::Relaxed);
        }
        within
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
        Ok(Self { seekable: inner.is_seekable(), byte_len, inner, watch: watch.clone(), n_read: 0 })
    }
}

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.watch.check_time() {
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
