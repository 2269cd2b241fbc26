//! A hash by which a model is told from another.

use super::Checkpoint;
use crate::checksum::Checksum;

impl Checkpoint {
    /// A hash of everything that decides what the model computes: its sizes and settings, and names, formats and values of
    /// all tensors, however they are spread over files. The first call reads
    /// all weights. It resists accidents, not attacks.
    pub fn fingerprint(&self) -> u64 {
        *self.fingerprint.get_or_init(|| self.hash())
    }

    fn hash(&self) -> u64 {
        let mut hash = Checksum::default();
        let config = self.config();
        let sizes = [config.layers, config.heads, config.kv_heads, config.head_dim, config.vocab_size];
        hash.text(&format!("{} {sizes:?} {} {:?} {:?}", config.family, config.norm_eps, config.rope, config.windows));
        let mut tensors: Vec<_> = self.tensors().collect();
        tensors.sort_unstable_by_key(|(name, _)| *name);
        for (name, tensor) in tensors {
            hash.text(name);
            hash.text(&format!("{} {:?}", tensor.format, tensor.shape));
            // Within the file, as was checked when it was opened.
            hash.update(tensor.file.get(tensor.bytes.clone()).unwrap_or_default());
            tensor.file.release(tensor.bytes.clone());
        }
        hash.finish()
    }
}
