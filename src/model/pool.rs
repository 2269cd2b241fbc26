//! The keys and values of all sequences of a model, in pages.
//!
//! A page holds 64 positions of every layer. A sequence is a [`SlotId`]: a list of pages, and how far each layer has filled
//! them, as early-exit drafting runs lower layers ahead of the upper ones and a draft that skips the attention of a layer fills
//! nothing there. All layers have the same key and value heads, as the check of a model's config demands.
//!
//! Sequences with the same beginning may share its pages ([`KvPool::fork`]); a page is copied before a sequence writes to one
//! that it shares. Attention goes through positions in blocks of 64, so which pages they lie in changes no bit.
//!
//! Truncating only lowers a number: what lies beyond is stale and changes no result.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use paceline_kernels::{CacheFormat, LayerPages, OutOfMemory, PAGE_POSITIONS};

use super::device::Compute;
use super::skip::{SkipPlan, Sublayer};
use crate::checkpoint::ModelConfig;

/// A page that was dropped: nothing looks at it any more.
const DROPPED: u32 = u32::MAX;

/// A sequence of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(usize);

/// Why a sequence cannot have more positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// All pages are in use.
    #[error("all {pages} pages of the pool are in use")]
    Full {
        /// Pages that the pool may have.
        pages: usize,
    },
    /// The system has no memory for another page.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
}

/// Rows of a slot that go through layers together, at consecutive positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotRun {
    pub(super) slot: SlotId,
    /// The position of the first row.
    pub(super) start: usize,
    pub(super) rows: usize,
    /// True if the slot holds a long text.
    pub(super) is_long: bool,
}

/// Keys and values, where their computation needs them.
enum Store {
    /// By layer, for the CPU kernels.
    Host(Vec<LayerPages>),
    /// By slot and layer, for burn's operations: in one piece, as masks select what a row sees.
    Device { device: Device, slots: Vec<Vec<DeviceLayer>> },
}

/// Keys and values of one layer of one slot as burn tensors `[kv_heads, capacity, head_dim]`.
#[derive(Clone)]
pub(super) struct DeviceLayer {
    // `None` only while a write has taken the tensor out, so that burn sees a single owner and writes in place.
    keys: Option<Tensor<3>>,
    values: Option<Tensor<3>>,
}

impl DeviceLayer {
    fn new(kv_heads: usize, head_dim: usize, capacity: usize, device: &Device) -> Self {
        let zeros = || Some(Tensor::zeros([kv_heads, capacity, head_dim], device));
        Self { keys: zeros(), values: zeros() }
    }

    /// Sees to it that there is room for so many positions.
    fn grow(&mut self, capacity: usize, device: &Device) {
        let widen = |cache: &mut Option<Tensor<3>>| {
            let old = cache.take().expect("put back by every write");
            let [kv_heads, before, head_dim] = old.dims();
            *cache = Some(match capacity.checked_sub(before) {
                None | Some(0) => old,
                Some(more) => Tensor::cat(vec![old, Tensor::zeros([kv_heads, more, head_dim], device)], 1),
            });
        };
        widen(&mut self.keys);
        widen(&mut self.values);
    }

    /// Writes `[rows, kv_heads * head_dim]` each, from position `at` on.
    pub(super) fn write(&mut self, at: usize, keys: Tensor<2>, values: Tensor<2>) {
        let rows = keys.dims()[0];
        let write = |cache: &mut Option<Tensor<3>>, new: Tensor<2>| {
            let old = cache.take().expect("put back by every write");
            let [kv_heads, _, head_dim] = old.dims();
            let new = new.reshape([rows, kv_heads, head_dim]).swap_dims(0, 1);
            *cache = Some(old.slice_assign([0..kv_heads, at..at + rows, 0..head_dim], new));
        };
        write(&mut self.keys, keys);
        write(&mut self.values, values);
    }

    /// The first `len` keys and values, `[kv_heads, len, head_dim]` each.
    pub(super) fn first(&self, len: usize) -> (Tensor<3>, Tensor<3>) {
        let part = |cache: &Option<Tensor<3>>| cache.clone().expect("put back by every write").narrow(1, 0, len);
        (part(&self.keys), part(&self.values))
    }
}

/// A sequence's pages and how far they are filled.
struct Slot {
    pages: Vec<u32>,
    /// Positions filled, by layer.
    filled: Vec<usize>,
    /// True if it holds a text longer than [`ModelConfig::longest_short_text`], which no shorter one can be turned into.
    is_long: bool,
}

/// The keys and values of a model's sequences.
pub struct KvPool {
    store: Store,
    config: ModelConfig,
    /// [`ModelConfig::longest_short_text`].
    longest_short_text: Option<usize>,
    format: CacheFormat,
    slots: Vec<Option<Slot>>,
    /// Slots that refer to each page.
    references: Vec<u32>,
    free: Vec<u32>,
    /// Pages that it may have, by what was asked for and by what the system has memory for.
    most_pages: usize,
    asked_pages: usize,
}

impl KvPool {
    /// An empty pool of a model of `config`'s shape that may have so many pages. `format` is how the processor holds keys and
    /// values; burn's tensors are f32. Memory is taken page by page.
    pub fn new(config: &ModelConfig, format: CacheFormat, compute: &Compute, most_pages: usize) -> Self {
        let layer = |_| LayerPages::new(config.kv_heads, config.head_dim, format);
        let store = match compute {
            Compute::Kernels(_) => Store::Host((0..config.layers).map(layer).collect()),
            Compute::Burn(device) => Store::Device { device: device.clone(), slots: Vec::new() },
        };
        let (config, longest_short_text) = (config.clone(), config.longest_short_text());
        // The last number means that a page was dropped.
        let most_pages = most_pages.min(DROPPED as usize);
        let (slots, references, free) = (Vec::new(), Vec::new(), Vec::new());
        Self { store, config, longest_short_text, format, slots, references, free, most_pages, asked_pages: most_pages }
    }

    /// Bytes that a position takes.
    pub fn bytes_per_token(config: &ModelConfig, format: CacheFormat) -> u64 {
        let sizes = [config.layers, config.kv_heads, config.head_dim, format.bytes()];
        sizes.iter().fold(2, |product: u64, &size| product.saturating_mul(size as u64))
    }

    /// Pages that hold so many positions.
    pub fn pages_for(positions: usize) -> usize {
        positions.div_ceil(PAGE_POSITIONS)
    }

    /// Pages that it may have.
    pub fn most_pages(&self) -> usize {
        self.most_pages
    }

    /// Pages that slots refer to.
    pub fn used_pages(&self) -> usize {
        self.references.len() - self.free.len()
    }

    /// Pages that a sequence refers to.
    ///
    /// # Panics
    /// If the slot is not open.
    pub fn pages(&self, slot: SlotId) -> usize {
        self.slot(slot).pages.iter().filter(|&&page| page != DROPPED).count()
    }

    /// Opens an empty sequence for a text that grows to `len` tokens at least. Where long texts turn by frequencies of their own it
    /// is a long one from its first position on, if `len` says so.
    pub fn open(&mut self, len: usize) -> SlotId {
        let empty = Slot { pages: Vec::new(), filled: vec![0; self.config.layers], is_long: self.is_long(len) };
        self.place(empty, Vec::new())
    }

    fn is_long(&self, len: usize) -> bool {
        self.longest_short_text.is_some_and(|longest| len > longest)
    }

    /// Tokens that the text of a slot can have without being read again ([`KvPool::open`]).
    ///
    /// # Panics
    /// If the slot is not open.
    pub fn longest_text(&self, slot: SlotId) -> usize {
        let longest = self.longest_short_text.filter(|_| !self.slot(slot).is_long);
        longest.unwrap_or(usize::MAX)
    }

    /// Puts a slot where none is.
    fn place(&mut self, slot: Slot, tensors: Vec<DeviceLayer>) -> SlotId {
        let index = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if index == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[index] = Some(slot);
        if let Store::Device { slots, .. } = &mut self.store {
            slots.resize(self.slots.len(), Vec::new());
            slots[index] = tensors;
        }
        SlotId(index)
    }

    /// Ends a sequence; pages that no other shares are free again.
    ///
    /// # Panics
    /// If it is not open.
    pub fn close(&mut self, slot: SlotId) {
        let Slot { pages, .. } = self.slots[slot.0].take().expect("an open slot");
        pages.into_iter().for_each(|page| self.release(page));
        if let Store::Device { slots, .. } = &mut self.store {
            slots[slot.0] = Vec::new();
        }
    }

    /// Opens a sequence that begins as the first `positions` of another, whose pages it shares.
    ///
    /// # Panics
    /// If a layer of the other has filled fewer, or some of them were dropped.
    pub fn fork(&mut self, slot: SlotId, positions: usize) -> SlotId {
        let of = self.slot(slot);
        assert!(of.filled.iter().all(|&filled| filled >= positions), "every layer has what is to be shared");
        let pages = of.pages[..Self::pages_for(positions)].to_vec();
        assert!(!pages.contains(&DROPPED), "what was dropped cannot be shared");
        pages.iter().for_each(|&page| self.references[page as usize] += 1);
        let tensors = match &self.store {
            Store::Device { slots, .. } => slots[slot.0].clone(),
            Store::Host(_) => Vec::new(),
        };
        let is_long = self.slot(slot).is_long;
        self.place(Slot { pages, filled: vec![positions; self.config.layers], is_long }, tensors)
    }

    /// Sees to it that a sequence has pages of its own for what it writes next, up to so many positions. Pages that it shares and
    /// may write to are copied.
    ///
    /// # Errors
    /// If there are not enough; those that it got by then stay its own.
    pub fn reserve(&mut self, slot: SlotId, positions: usize) -> Result<(), PoolError> {
        let (first, last) = (self.least(slot) / PAGE_POSITIONS, Self::pages_for(positions));
        for index in first..self.slot(slot).pages.len().min(last) {
            let page = self.slot(slot).pages[index];
            // What was dropped is written no more; a layer that is left out has filled nothing.
            if page != DROPPED && self.references[page as usize] > 1 {
                let own = self.take()?;
                if let Store::Host(layers) = &mut self.store {
                    layers.iter_mut().for_each(|layer| layer.copy(page, own));
                }
                self.references[page as usize] -= 1;
                self.slot_mut(slot).pages[index] = own;
            }
        }
        while self.slot(slot).pages.len() < last {
            let page = self.take()?;
            self.slot_mut(slot).pages.push(page);
        }
        self.grow_tensors(slot, last * PAGE_POSITIONS);
        Ok(())
    }

    /// Sees to it that a slot's tensors have room for so many positions.
    fn grow_tensors(&mut self, slot: SlotId, capacity: usize) {
        let Store::Device { device, slots } = &mut self.store else { return };
        let (layers, ModelConfig { kv_heads, head_dim, .. }) = (&mut slots[slot.0], &self.config);
        if layers.is_empty() {
            let layer = |_| DeviceLayer::new(*kv_heads, *head_dim, capacity, device);
            *layers = (0..self.config.layers).map(layer).collect();
        }
        layers.iter_mut().for_each(|layer| layer.grow(capacity, device));
    }

    /// A free page.
    fn take(&mut self) -> Result<u32, PoolError> {
        let page = match self.free.pop() {
            Some(page) => page,
            None => {
                let pages = self.references.len();
                if pages >= self.most_pages {
                    return Err(PoolError::Full { pages: self.most_pages });
                }
                if let Store::Host(layers) = &mut self.store
                    && let Err(none) = layers.iter_mut().try_for_each(|layer| layer.grow(pages + 1))
                {
                    // There are as many as there can be, until memory is given back.
                    self.most_pages = pages;
                    return Err(none.into());
                }
                self.references.push(0);
                pages as u32
            }
        };
        self.references[page as usize] = 1;
        Ok(page)
    }

    fn release(&mut self, page: u32) {
        if page == DROPPED {
            return;
        }
        let references = &mut self.references[page as usize];
        *references -= 1;
        if *references == 0 {
            self.free.push(page);
        }
    }

    /// Forgets every position from `len` on, in every layer that has it.
    ///
    /// # Panics
    /// If the slot is not open.
    pub fn truncate(&mut self, slot: SlotId, len: usize) {
        self.slot_mut(slot).filled.iter_mut().for_each(|filled| *filled = len.min(*filled));
    }

    /// Gives back the pages of which every position is before `position`: no row will look at them any more, as all layers look
    /// back through a window.
    ///
    /// # Panics
    /// If the slot is not open.
    pub fn drop_before(&mut self, slot: SlotId, position: usize) {
        let whole = position / PAGE_POSITIONS;
        let pages = &mut self.slot_mut(slot).pages;
        let last = whole.min(pages.len());
        // Those before were dropped earlier.
        let kept = pages[..last].iter().rposition(|&page| page == DROPPED).map_or(0, |index| index + 1);
        let dropped: Vec<u32> = pages[kept..last].iter_mut().map(|page| std::mem::replace(page, DROPPED)).collect();
        dropped.into_iter().for_each(|page| self.release(page));
    }

    /// Gives memory back to the system, but so many bytes, if no page is in use.
    pub fn trim(&mut self, bytes: u64) {
        let of_page = Self::bytes_per_token(&self.config, self.format).saturating_mul(PAGE_POSITIONS as u64);
        let pages = usize::try_from(bytes / of_page.max(1)).unwrap_or(usize::MAX);
        if self.used_pages() > 0 {
            return;
        }
        self.most_pages = self.asked_pages;
        if self.references.len() <= pages {
            return;
        }
        self.references.truncate(pages);
        self.free = (0..pages as u32).rev().collect();
        if let Store::Host(layers) = &mut self.store {
            layers.iter_mut().for_each(|layer| layer.truncate(pages));
        }
    }

    /// Bytes of the keys and values that a sequence holds: what was dropped is not counted.
    ///
    /// # Panics
    /// If the slot is not open.
    pub fn bytes(&self, slot: SlotId) -> u64 {
        let Slot { pages, filled, .. } = self.slot(slot);
        let dropped = PAGE_POSITIONS * pages.iter().filter(|&&page| page == DROPPED).count();
        let positions: usize = filled.iter().map(|filled| filled.saturating_sub(dropped)).sum();
        Self::bytes_per_token(&self.config, self.format) / self.config.layers.max(1) as u64 * positions as u64
    }

    /// The least that a layer has filled.
    fn least(&self, slot: SlotId) -> usize {
        self.slot(slot).filled.iter().copied().min().unwrap_or(0)
    }

    /// Checks that these rows may go through these layers, but for attention that `skip` names: they are what comes next there,
    /// and there are pages for them that nobody else reads.
    pub(super) fn check(&self, runs: &[SlotRun], layers: Range<usize>, skip: Option<&SkipPlan>) {
        for &SlotRun { slot, start, rows, .. } in runs {
            let Slot { pages, filled, .. } = self.slot(slot);
            for layer in layers.clone().filter(|layer| Sublayer::Attention(*layer).runs(skip)) {
                assert_eq!(filled[layer], start, "layer {layer} has cached what comes before");
            }
            for page in &pages[start / PAGE_POSITIONS..Self::pages_for(start + rows)] {
                assert_eq!(self.references[*page as usize], 1, "a sequence writes to its own pages");
            }
        }
    }

    /// Notes that these rows went through these layers.
    pub(super) fn advance(&mut self, runs: &[SlotRun], layers: Range<usize>, skip: Option<&SkipPlan>) {
        for &SlotRun { slot, rows, .. } in runs {
            let filled = &mut self.slot_mut(slot).filled;
            for layer in layers.clone().filter(|layer| Sublayer::Attention(*layer).runs(skip)) {
                filled[layer] += rows;
            }
        }
    }

    /// Rows of a slot that go through layers together, the first at `start`.
    pub(super) fn run_of(&self, slot: SlotId, start: usize, rows: usize) -> SlotRun {
        SlotRun { slot, start, rows, is_long: self.slot(slot).is_long }
    }

    /// The pages of some layers on the processor, and of each run's slot.
    pub(super) fn host_mut(&mut self, layers: Range<usize>, runs: &[SlotRun]) -> (&mut [LayerPages], Vec<&[u32]>) {
        let Self { store, slots, .. } = self;
        let Store::Host(all) = store else { unreachable!("a pool is made for its decoder's computation") };
        let pages = |run: &SlotRun| slots[run.slot.0].as_ref().expect("an open slot").pages.as_slice();
        (&mut all[layers], runs.iter().map(pages).collect())
    }

    /// A layer's keys and values of a slot in tensors.
    pub(super) fn device_mut(&mut self, slot: SlotId, layer: usize) -> &mut DeviceLayer {
        match &mut self.store {
            Store::Device { slots, .. } => &mut slots[slot.0][layer],
            Store::Host(_) => unreachable!("a pool is made for its decoder's computation"),
        }
    }

    fn slot(&self, slot: SlotId) -> &Slot {
        self.slots[slot.0].as_ref().expect("an open slot")
    }

    fn slot_mut(&mut self, slot: SlotId) -> &mut Slot {
        self.slots[slot.0].as_mut().expect("an open slot")
    }
}
