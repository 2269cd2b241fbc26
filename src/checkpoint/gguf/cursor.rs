//! A position in the bytes of a GGUF file: every read is bounded by the file, and by what is left of it.

/// Why bytes cannot be read: the rest of a sentence on the file.
pub(super) type Reason = String;

/// The longest key, and the longest name of a tensor: no real file comes near.
const LONGEST_NAME: usize = 1 << 16;

/// Bytes that are read one after the other.
pub(super) struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the file's beginning.
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// The byte that is next.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.data.len() - self.at
    }

    /// The next `count` bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Reason> {
        let (start, left) = (self.at, self.left());
        let bytes = start.checked_add(count).and_then(|end| self.data.get(start..end));
        let bytes = bytes
            .ok_or_else(|| format!("it ends at byte {start}, where {count} more are needed and {left} are left"))?;
        self.at += count;
        Ok(bytes)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let bytes = self.bytes(N)?;
        // As many as were asked for.
        Ok(std::array::from_fn(|i| bytes.get(i).copied().unwrap_or_default()))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Reason> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Reason> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of things of at least `least` bytes each: no more than the file has room for.
    pub(super) fn count(&mut self, what: &str, least: usize) -> Result<usize, Reason> {
        let (at, claimed) = (self.at, self.u64()?);
        let most = self.left() / least;
        let count = usize::try_from(claimed).ok().filter(|count| *count <= most);
        count.ok_or_else(|| format!("it claims {claimed} {what} at byte {at}, but has room for {most} at most"))
    }

    /// A key or a name.
    pub(super) fn name(&mut self) -> Result<String, Reason> {
        let at = self.at;
        let bytes = self.text()?;
        if bytes.len() > LONGEST_NAME {
            return Err(format!("a name at byte {at} has {} bytes", bytes.len()));
        }
        // A copy: another program may change a mapped file between the check and the use.
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("a name at byte {at} is not UTF-8"))
    }

    /// The bytes of a text, whatever they are.
    pub(super) fn text(&mut self) -> Result<&'a [u8], Reason> {
        let length = self.count("bytes of text", 1)?;
        self.bytes(length)
    }
}
