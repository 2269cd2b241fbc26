//! Tensors of weights files, held against what the configuration implies.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::CheckpointError;
use super::config::ModelConfig;
use super::layout::{EMBEDDING, FUSED, Fused, OUTPUT, is_stored_buffer, layer_name, layer_tensors, outer_tensors};
use super::shards::Shards;
use super::tensor::StoredTensor;
use crate::visible::shown;

/// True if two matrices of one shape hold the same numbers, whatever their formats.
fn are_equal(left: &StoredTensor, right: &StoredTensor) -> bool {
    if left.format == right.format {
        return left.file.get(left.bytes.clone()) == right.file.get(right.bytes.clone());
    }
    let rows = left.shape.first().copied().unwrap_or(0);
    let (Ok(left), Ok(right)) = (left.matrix(), right.matrix()) else { return false };
    // Row by row, so that a large vocabulary takes no memory.
    let (mut of_left, mut of_right) = (vec![0.0; left.in_features()], vec![0.0; right.in_features()]);
    (0..rows).all(|row| {
        left.row_to_f32(row, &mut of_left);
        right.row_to_f32(row, &mut of_right);
        of_left == of_right
    })
}

/// The tensors of the files, moved one by one to those of the model.
pub(super) struct Matching<'a> {
    /// File or directory that says what the model is.
    pub(super) source: &'a Path,
    pub(super) shards: Shards,
    pub(super) taken: HashMap<String, StoredTensor>,
    pub(super) notes: Vec<String>,
}

impl Matching<'_> {
    /// Takes every tensor that the configuration implies; what it says of tied matrices is set right.
    pub(super) fn take_all(&mut self, config: &mut ModelConfig) -> Result<(), CheckpointError> {
        let matrix = vec![config.vocab_size, config.hidden_size];
        if config.tied_embeddings {
            let output = self.take(OUTPUT, &matrix)?;
            let embedding = self.take(EMBEDDING, &matrix)?;
            if let (Some(output), Some(embedding)) = (&output, &embedding)
                && !are_equal(output, embedding)
            {
                // As transformers does: a matrix that was learned apart, as in a merged adapter, is not thrown away.
                config.tied_embeddings = false;
                self.notes.push(format!(
                    "config.json says that \"{OUTPUT}\" is the embedding (tie_word_embeddings), but the weights hold another matrix of that name, which is used."
                ));
                self.taken.insert(OUTPUT.to_owned(), output.clone());
            }
            // Some files hold the tied matrix under the output's name.
            let tied = embedding.or(output).ok_or_else(|| self.missing(EMBEDDING))?;
            self.taken.insert(EMBEDDING.to_owned(), tied);
        } else {
            self.require(EMBEDDING.to_owned(), &matrix)?;
            self.require(OUTPUT.to_owned(), &matrix)?;
        }
        for (name, shape) in outer_tensors(config) {
            self.require(name.to_owned(), &shape)?;
        }
        // Ends at the first layer that is not in the files, however many the configuration claims.
        for layer in 0..config.layers {
            let tensors = layer_tensors(config.layer(layer));
            if config.fused_matrices {
                self.take_apart(layer, &tensors)?;
            }
            for (name, shape) in tensors {
                self.require(layer_name(layer, name), &shape)?;
            }
        }
        Ok(())
    }

    /// Takes the fused matrices of a layer with these tensors apart, by rows. Where a file has the parts themselves, it is as
    /// good.
    fn take_apart(&mut self, layer: usize, tensors: &[(&str, Vec<usize>)]) -> Result<(), CheckpointError> {
        for Fused { name, parts } in FUSED {
            let name = layer_name(layer, name);
            if parts.iter().any(|part| self.shards.tensors.contains_key(&layer_name(layer, part))) {
                continue;
            }
            let shapes: Vec<&[usize]> = parts
                .iter()
                .filter_map(|part| tensors.iter().find(|(name, _)| name == part).map(|(_, shape)| shape.as_slice()))
                .collect();
            let rows: Vec<usize> = shapes.iter().filter_map(|shape| shape.first().copied()).collect();
            let columns = shapes.first().and_then(|shape| shape.last().copied()).unwrap_or(0);
            let all = rows.iter().sum::<usize>();
            let whole = self.take(&name, &[all, columns])?.ok_or_else(|| self.missing(&name))?;
            let row_bytes = whole.bytes.len() / all.max(1);
            let mut start = whole.bytes.start;
            for (part, rows) in parts.iter().zip(rows) {
                let bytes = start..start + rows * row_bytes;
                start = bytes.end;
                let tensor = StoredTensor { bytes, shape: vec![rows, columns], ..whole.clone() };
                self.taken.insert(layer_name(layer, part), tensor);
            }
        }
        Ok(())
    }

    fn missing(&self, name: &str) -> CheckpointError {
        if let Some(&number) = self.shards.stale.get(name) {
            return CheckpointError::NotInShard { path: self.path(number), tensor: name.to_owned() };
        }
        CheckpointError::Missing { tensor: self.shards.naming.shown(name), config: self.source.to_owned() }
    }

    fn require(&mut self, name: String, shape: &[usize]) -> Result<(), CheckpointError> {
        if self.taken.contains_key(&name) {
            // A part of another.
            return Ok(());
        }
        let tensor = self.take(&name, shape)?.ok_or_else(|| self.missing(&name))?;
        self.taken.insert(name, tensor);
        Ok(())
    }

    /// The tensor `name`, no longer among those of the files; `None` if no file holds it.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Option<StoredTensor>, CheckpointError> {
        let Some(found) = self.shards.tensors.remove(name) else { return Ok(None) };
        let (path, tensor) = (|| self.path(found.file), || self.shards.naming.shown(name));
        let format = found.format.map_err(|kind| {
            let read = self.shards.naming.read_formats();
            CheckpointError::Format { path: path(), tensor: tensor(), kind, read }
        })?;
        if *found.shape != *shape {
            let expected = shape.to_owned();
            return Err(CheckpointError::Shape { path: path(), tensor: tensor(), found: found.shape, expected });
        }
        let Some(file) = self.shards.maps.get(found.file).cloned() else { return Ok(None) };
        Ok(Some(StoredTensor { file, bytes: found.bytes, format, shape: found.shape, order: found.order }))
    }

    /// Checks that the tensors left in the files are buffers that follow from the configuration.
    pub(super) fn check_rest(&mut self) -> Result<(), CheckpointError> {
        if let Some(name) = self.shards.stale.keys().min() {
            let count = self.shards.stale.len();
            self.notes.push(format!(
                "The index lists {count} tensors that no file holds and the model does not need, such as \"{}\".",
                shown(name)
            ));
        }
        let surplus = self.shards.tensors.iter().filter(|(name, _)| !is_stored_buffer(name));
        match surplus.min_by_key(|(name, _)| name.as_str()) {
            None => Ok(()),
            Some((name, found)) => Err(CheckpointError::Surplus {
                path: self.path(found.file),
                tensor: self.shards.naming.shown(name),
                reason: "no part of the configured model uses",
            }),
        }
    }

    fn path(&self, number: usize) -> PathBuf {
        self.shards.files.get(number).map_or_else(|| self.source.to_owned(), |file| file.path.clone())
    }
}
