//! The key-value cache of one sequence.
//!
//! Every layer has its own length: early-exit drafting runs lower layers ahead of the upper ones, and a draft that skips
//! the attention of a layer appends nothing there.
//! Appending writes in place and truncating only lowers a length: both take the same time however long the
//! sequence is. What is past a length is stale and changes no result.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use paceline_kernels::{CacheFormat, LayerCache, OutOfMemory};

use super::device::Compute;
use crate::checkpoint::ModelConfig;

/// Keys and values of one layer, where its computation needs them.
enum LayerState {
    /// For the CPU kernels.
    Host(LayerCache),
    /// For burn's operations.
    Device(Box<DeviceLayer>),
}

/// Keys and values of one layer as burn tensors `[kv_heads, capacity, head_dim]`.
pub struct DeviceLayer {
    // `None` only while an append has taken the tensor out, so that burn sees a single owner and writes in place.
    keys: Option<Tensor<3>>,
    values: Option<Tensor<3>>,
    len: usize,
}

impl DeviceLayer {
    fn new(kv_heads: usize, head_dim: usize, capacity: usize, device: &Device) -> Self {
        let zeros = || Some(Tensor::zeros([kv_heads, capacity, head_dim], device));
        Self { keys: zeros(), values: zeros(), len: 0 }
    }

    /// Positions filled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if no position is filled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `[rows, kv_heads * head_dim]` each.
    pub fn append(&mut self, keys: Tensor<2>, values: Tensor<2>) {
        let rows = keys.dims()[0];
        let at = self.len;
        let write = |cache: &mut Option<Tensor<3>>, new: Tensor<2>| {
            let old = cache.take().expect("put back by every append");
            let [kv_heads, _, head_dim] = old.dims();
            let new = new.reshape([rows, kv_heads, head_dim]).swap_dims(0, 1);
            *cache = Some(old.slice_assign([0..kv_heads, at..at + rows, 0..head_dim], new));
        };
        write(&mut self.keys, keys);
        write(&mut self.values, values);
        self.len += rows;
    }

    /// The filled part of keys and values, `[kv_heads, len, head_dim]` each.
    pub fn visible(&self) -> (Tensor<3>, Tensor<3>) {
        let part = |cache: &Option<Tensor<3>>| cache.clone().expect("put back by every append").narrow(1, 0, self.len);
        (part(&self.keys), part(&self.values))
    }
}

/// The cache of one sequence: a state per layer.
pub struct KvCache {
    layers: Vec<LayerState>,
    capacity: usize,
}

impl KvCache {
    /// An empty cache of a model of `config`'s shape, with room for `capacity` positions. `format` is how the processor
    /// holds keys and values; burn's tensors are f32.
    ///
    /// # Errors
    /// If the processor has no memory for it.
    pub fn try_new(
        config: &ModelConfig,
        capacity: usize,
        format: CacheFormat,
        compute: &Compute,
    ) -> Result<Self, OutOfMemory> {
        let (kv_heads, head_dim) = (config.kv_heads, config.head_dim);
        let layer = |_| match compute {
            Compute::Kernels(_) => LayerCache::try_new(kv_heads, head_dim, capacity, format).map(LayerState::Host),
            Compute::Burn(device) => {
                Ok(LayerState::Device(Box::new(DeviceLayer::new(kv_heads, head_dim, capacity, device))))
            }
        };
        Ok(Self { layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?, capacity })
    }

    /// Bytes that a token takes.
    pub fn bytes_per_token(config: &ModelConfig, format: CacheFormat) -> u64 {
        let sizes = [config.layers, config.kv_heads, config.head_dim, format.bytes()];
        sizes.iter().fold(2, |product: u64, &size| product.saturating_mul(size as u64))
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Positions filled in a layer.
    pub fn len(&self, layer: usize) -> usize {
        match &self.layers[layer] {
            LayerState::Host(cache) => cache.len(),
            LayerState::Device(cache) => cache.len(),
        }
    }

    /// The keys and values of some layers on the processor.
    pub(super) fn host_mut(&mut self, layers: Range<usize>) -> impl Iterator<Item = &mut LayerCache> {
        self.layers[layers].iter_mut().map(|layer| match layer {
            LayerState::Host(cache) => cache,
            LayerState::Device(_) => unreachable!("a cache is made for its decoder's computation"),
        })
    }

    /// A layer's keys and values in tensors.
    pub(super) fn device_mut(&mut self, layer: usize) -> &mut DeviceLayer {
        match &mut self.layers[layer] {
            LayerState::Device(cache) => cache,
            LayerState::Host(_) => unreachable!("a cache is made for its decoder's computation"),
        }
    }

    /// Forgets every position from `len` on, in every layer that has it.
    pub fn truncate(&mut self, len: usize) {
        for layer in &mut self.layers {
            match layer {
                LayerState::Host(cache) => cache.truncate(len.min(cache.len())),
                LayerState::Device(cache) => cache.len = len.min(cache.len),
            }
        }
    }
}
