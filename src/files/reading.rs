//! Reading: plain files up to a size, or a pipe where a person named one.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use paceline_kernels::MappedFile;

use super::{Kind, not_plain, open_if_plain, patient_options};

/// Time that a pipe may be without a writer. Shells open both ends at once.
const WRITER_MAY_TAKE: Duration = Duration::from_secs(1);
/// Interval between attempts to read more from a pipe.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// Why a file is not read: the end of a sentence, without its full stop.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing is there.
    #[error("there is no such file")]
    Absent,
    /// It is a folder, a device, a pipe or a socket.
    #[error("it is {0}, not a plain file")]
    NotPlain(Kind),
    /// Nobody writes to the pipe.
    #[error("it is a pipe that nobody writes to")]
    Deserted,
    /// It is larger than any file of its kind.
    #[error("it has more than the {most} bytes that are read")]
    TooLarge {
        /// Bytes that are read at most.
        most: u64,
    },
    /// It is not text.
    #[error("it is not UTF-8 at line {line}, column {column}")]
    NotText {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
    /// The system refused.
    #[error("{0}")]
    System(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Absent,
            _ => Self::System(error),
        }
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match error {
            ReadError::System(error) => return error,
            ReadError::NotPlain(kind) => return not_plain(kind),
            ReadError::Absent => io::ErrorKind::NotFound,
            ReadError::TooLarge { .. } => io::ErrorKind::FileTooLarge,
            ReadError::NotText { .. } | ReadError::Deserted => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// Opens a plain file to read it, wherever symbolic links lead. Never waits for the other end of a pipe.
///
/// # Errors
/// When there is none, it is no plain file, or the system refuses.
pub fn open_plain(path: &Path) -> Result<File, ReadError> {
    match Kind::of(&fs::metadata(path)?) {
        Kind::Plain => Ok(open_if_plain(path, patient_options().read(true))?),
        kind => Err(ReadError::NotPlain(kind)),
    }
}

/// Maps a plain file into memory.
///
/// # Errors
/// As those of [`open_plain`].
pub fn map(path: &Path) -> Result<MappedFile, ReadError> {
    Ok(MappedFile::new(open_plain(path)?, path)?)
}

/// The bytes of a plain file, which may be `most`.
///
/// # Errors
/// As those of [`open_plain`], and when it has more.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, ReadError> {
    let file = open_plain(path)?;
    let size = file.metadata()?.len();
    if size > most {
        return Err(ReadError::TooLarge { most });
    }
    let mut bytes = Vec::new();
    let room = usize::try_from(size).ok().filter(|&room| bytes.try_reserve_exact(room).is_ok());
    if room.is_none() {
        return Err(ReadError::System(io::Error::from(io::ErrorKind::OutOfMemory)));
    }
    // Files that the system makes up as they are read have a size of 0, and some have no end.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(ReadError::TooLarge { most }) } else { Ok(bytes) }
}

/// The text of a plain file, which may have `most` bytes.
///
/// # Errors
/// As those of [`read`], and when it is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String, ReadError> {
    text(read(path, most)?)
}

/// The bytes as text.
fn text(bytes: Vec<u8>) -> Result<String, ReadError> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
        let column = 1 + good.iter().rev().take_while(|&&byte| byte != b'\n').count();
        ReadError::NotText { line, column }
    })
}

/// The bytes of what a person named as the input of a command: a plain file, or a pipe such as `<(..)` of a shell or
/// `/dev/stdin`, to whose writers it listens until the last has closed it. A pipe to which nobody writes is told. Of all
/// devices, the one that is always empty (`/dev/null`) is how people say that there is nothing.
///
/// # Errors
/// As those of [`read`].
pub fn read_input(path: &Path, most: u64) -> Result<Vec<u8>, ReadError> {
    let found = fs::metadata(path)?;
    match Kind::of(&found) {
        Kind::Pipe => read_pipe(path, most),
        Kind::Device if is_null(&found) => Ok(Vec::new()),
        _ => read(path, most),
    }
}

/// The text of what a person named as the input of a command.
///
/// # Errors
/// As those of [`read_input`], and when it is not UTF-8.
pub fn read_input_text(path: &Path, most: u64) -> Result<String, ReadError> {
    text(read_input(path, most)?)
}

/// True if it is the device that is always empty, by its number.
fn is_null(found: &Metadata) -> bool {
    #[cfg(target_os = "linux")]
    {
        /// Major number 1, minor number 3, on every Linux.
        const NULL: u64 = 0x103;
        std::os::linux::fs::MetadataExt::st_rdev(found) == NULL
            && std::os::unix::fs::FileTypeExt::is_char_device(&found.file_type())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = found;
        false
    }
}

/// True if a pipe lies in no folder, so that nobody can open its other end any more: one that is empty has ended.
fn is_nameless(pipe: &File) -> bool {
    #[cfg(target_os = "linux")]
    {
        /// The kernel's own file system of pipes (`linux/magic.h`).
        const PIPEFS_MAGIC: u64 = 0x5049_5045;
        rustix::fs::fstatfs(pipe)
            .is_ok_and(|system| u64::try_from(system.f_type).is_ok_and(|kind| kind == PIPEFS_MAGIC))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pipe;
        false
    }
}

fn read_pipe(path: &Path, most: u64) -> Result<Vec<u8>, ReadError> {
    let pipe = patient_options().read(true).open(path)?;
    match Kind::of(&pipe.metadata()?) {
        Kind::Pipe => {}
        kind => return Err(ReadError::NotPlain(kind)),
    }
    let (mut bytes, mut is_written_to) = (Vec::new(), is_nameless(&pipe));
    let (started, mut part) = (Instant::now(), vec![0; 1 << 16]);
    loop {
        match (&pipe).read(&mut part) {
            // The end, or nobody has opened the other end yet.
            Ok(0) if is_written_to => return Ok(bytes),
            Ok(0) if started.elapsed() >= WRITER_MAY_TAKE => return Err(ReadError::Deserted),
            Ok(0) => sleep(ASK_EVERY),
            Ok(length) => {
                is_written_to = true;
                bytes.extend_from_slice(&part[..length]);
                if bytes.len() as u64 > most {
                    return Err(ReadError::TooLarge { most });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                is_written_to = true;
                sleep(ASK_EVERY);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
