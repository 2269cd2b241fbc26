//! The files that a model's tensors are read from where they lie, and whether others changed them meanwhile.

use std::path::Path;
use std::sync::{Arc, Weak};

use paceline_kernels::MappedFile;

use super::{Checkpoint, CheckpointError, StoredTensor};

/// The mapped files of a checkpoint. They are not kept mapped by it: of one that nobody reads any more, as its tensors were
/// packed, nothing is asked.
#[derive(Clone, Debug, Default)]
pub struct MappedFiles(Vec<Weak<MappedFile>>);

impl Checkpoint {
    /// The files that its tensors lie in, by their paths.
    pub(crate) fn mapped_files(&self) -> Vec<&MappedFile> {
        let mut files: Vec<&MappedFile> = self.tensors().map(|(_, tensor)| &*tensor.file).collect();
        files.sort_unstable_by_key(|file| file.path());
        files.dedup_by_key(|file| file.path());
        files
    }
}

impl MappedFiles {
    /// The files of some tensors.
    pub(super) fn of<'a>(tensors: impl Iterator<Item = &'a StoredTensor>) -> Self {
        let mut files: Vec<Weak<MappedFile>> = Vec::new();
        for tensor in tensors {
            let file = Arc::downgrade(&tensor.file);
            if !files.iter().any(|known| known.ptr_eq(&file)) {
                files.push(file);
            }
        }
        Self(files)
    }

    /// Adds the files of another one.
    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Refuses to vouch for what was read of them where one was written to or cut since it was opened, as far as
    /// [`MappedFile::has_changed`] tells.
    ///
    /// # Errors
    /// The first file that has changed.
    pub fn check(&self) -> Result<(), CheckpointError> {
        let changed = |file: &Arc<MappedFile>| file.has_changed();
        match self.0.iter().filter_map(Weak::upgrade).find(changed) {
            Some(file) => Err(CheckpointError::Changed { path: Path::to_owned(file.path()) }),
            None => Ok(()),
        }
    }
}

impl Checkpoint {
    /// The weights files as they are mapped.
    pub fn mapped(&self) -> MappedFiles {
        MappedFiles::of(self.tensors.values())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::header::read_header;
    use super::*;
    use crate::files;

    #[test]
    fn a_file_that_somebody_still_reads_is_asked_whether_it_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        std::fs::write(&path, [0; 8]).unwrap();
        let file = Arc::new(files::map(&path).unwrap());
        let tensor = |bytes| StoredTensor {
            file: Arc::clone(&file),
            bytes,
            format: paceline_kernels::FloatFormat::F32.into(),
            shape: vec![1],
            order: paceline_kernels::RowOrder::Plain,
        };
        let tensors = [tensor(0..4), tensor(4..8)];
        let mapped = MappedFiles::of(tensors.iter());
        assert_eq!(mapped.0.len(), 1);
        mapped.check().unwrap();
        let writer = std::fs::File::options().write(true).open(&path).unwrap();
        writer.set_modified(SystemTime::now() + Duration::from_secs(9)).unwrap();
        let message = mapped.check().unwrap_err().to_string();
        assert!(message.contains("weights changed while it was in use") && message.contains("load the model again"));
        drop((tensors, file));
        mapped.check().unwrap();
    }

    /// Another program changes the header of a mapped file while it is read: whatever comes of it, names are UTF-8.
    #[cfg(unix)]
    #[test]
    fn text_of_a_file_that_changes_is_text() {
        use std::os::unix::fs::FileExt;
        use std::sync::atomic::{AtomicBool, Ordering};

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let name = "ä".repeat(2000);
        let header = format!("{{\"{name}\":{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}}}");
        let length = (header.len() as u64).to_le_bytes();
        std::fs::write(&path, [&length, header.as_bytes(), &[0; 4]].concat()).unwrap();
        let map = files::map(&path).unwrap();
        let writer = std::fs::File::options().write(true).open(&path).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The second byte of a letter in the middle is one of a letter, or none.
                while !done.load(Ordering::Relaxed) {
                    for byte in [0xff, 0xa4] {
                        writer.write_at(&[byte], 8 + 2 + 2001).unwrap();
                    }
                }
            });
            let is_text = |name: &String| std::str::from_utf8(name.as_bytes()).is_ok();
            let all = (0..20_000).filter_map(|_| read_header(&path, &map).ok());
            let bad = all.filter(|tensors| !tensors.keys().all(is_text)).count();
            done.store(true, Ordering::Relaxed);
            assert_eq!(bad, 0, "names were made that are not UTF-8");
        });
    }
}
