//! The pools of several models: a target's, and those of draft models beside it.

use std::sync::Arc;

use super::decoder::Decoder;
use super::pool::KvPool;

/// A pool for each decoder that asks for one.
pub struct Pools {
    pools: Vec<(Arc<Decoder>, KvPool)>,
    most_pages: usize,
}

impl Pools {
    /// No pools yet; each may have so many pages.
    pub fn new(most_pages: usize) -> Self {
        Self { pools: Vec::new(), most_pages }
    }

    /// The pool of a decoder's sequences.
    pub fn of(&mut self, decoder: &Arc<Decoder>) -> &mut KvPool {
        let known = self.pools.iter().position(|(known, _)| Arc::ptr_eq(known, decoder));
        let index = known.unwrap_or_else(|| {
            self.pools.push((Arc::clone(decoder), decoder.new_pool(self.most_pages)));
            self.pools.len() - 1
        });
        &mut self.pools[index].1
    }

    /// Gives memory back of pools of which no page is in use, but for so many bytes of each.
    pub fn trim(&mut self, bytes: u64) {
        self.pools.iter_mut().for_each(|(_, kv)| kv.trim(bytes));
    }
}
