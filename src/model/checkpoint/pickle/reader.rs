//! Bytes of a pickle, taken in order.

use super::PickleError;

#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pub(super) position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: u64) -> Result<&'a [u8], PickleError> {
        let taken = usize::try_from(n)
            .ok()
            .and_then(|n| self.bytes.get(self.position..self.position.checked_add(n)?))
            .ok_or(PickleError::Truncated)?;
        self.position += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        Ok(self.take(N as u64)?.try_into().expect("as many as asked for"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, PickleError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, PickleError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, PickleError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, PickleError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, PickleError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A big-endian double, as pickles have them.
    pub(super) fn f64(&mut self) -> Result<f64, PickleError> {
        Ok(f64::from_be_bytes(self.array()?))
    }

    /// `n` bytes of UTF-8.
    pub(super) fn text(&mut self, n: u64) -> Result<&'a str, PickleError> {
        let bytes = self.take(n)?;
        std::str::from_utf8(bytes).map_err(|_| PickleError::Text { position: self.position })
    }

    /// The rest of the line, without its end.
    pub(super) fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = &self.bytes[self.position..];
        let n = rest.iter().position(|byte| *byte == b'\n').ok_or(PickleError::Truncated)?;
        let line = self.text(n as u64)?;
        self.position += 1;
        Ok(line)
    }

    /// The rest of the line as a number.
    pub(super) fn number<T: std::str::FromStr>(&mut self) -> Result<T, PickleError> {
        let line = self.line()?;
        line.trim_end_matches('L')
            .parse()
            .map_err(|_| PickleError::Text { position: self.position })
    }

    /// The rest of the line as text in quotes; text with escapes is refused.
    pub(super) fn quoted(&mut self) -> Result<&'a str, PickleError> {
        let line = self.line()?;
        let inner =
            ['\'', '"'].into_iter().find_map(|quote| line.strip_prefix(quote)?.strip_suffix(quote));
        inner
            .filter(|text| !text.contains('\\'))
            .ok_or(PickleError::Text { position: self.position })
    }
}
