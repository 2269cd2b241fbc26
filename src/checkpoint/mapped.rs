//! The files that a model's tensors are read from where they lie, and whether others changed them meanwhile.

use std::path::Path;
use std::sync::{Arc, Weak};

use paceline_kernels::MappedFile;

use super::{Checkpoint, CheckpointError, StoredTensor};

/// The mapped files of a checkpoint. They are not kept mapped by it: of one that nobody reads any more, as its tensors were
/// packed, nothing is asked.
#[derive(Clone, Debug, Default)]
pub struct MappedFiles(Vec<Weak<MappedFile>>);

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
