//! Named tensors that are trained.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};

use super::device::Compute;
use super::ops::{from_values, into_values};

/// Tensors with gradients, by name. Matrices are `[rows, width]`, vectors `[1, length]`.
pub struct Parameters {
    /// Where gradients are recorded.
    device: Device,
    tensors: BTreeMap<String, Tensor<2>>,
}

impl Parameters {
    /// Tensors of these names and shapes, of one or two sizes, whose values `initial` gives, row-major.
    ///
    /// # Panics
    /// If `initial` gives another number of values than the shape has.
    pub fn new(
        shapes: impl IntoIterator<Item = (String, Vec<usize>)>,
        compute: &Compute,
        mut initial: impl FnMut(&str, &[usize]) -> Vec<f32>,
    ) -> Self {
        let device = compute.device().autodiff();
        let leaf = |(name, shape): (String, Vec<usize>)| {
            let values = initial(&name, &shape);
            let width = *shape.last().expect("shapes have one or two sizes");
            let rows = shape.iter().product::<usize>() / width;
            (name, from_values(values, rows, width, &device).require_grad())
        };
        let tensors = shapes.into_iter().map(leaf).collect();
        Self { device, tensors }
    }

    /// Where they are, with gradients.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The tensor of a name.
    pub fn get(&self, name: &str) -> Option<&Tensor<2>> {
        self.tensors.get(name)
    }

    /// The tensors with their names, in order of these.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<2>)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The same values without gradients: what is computed with them leaves no record.
    #[must_use]
    pub fn frozen(&self) -> Self {
        let tensors = self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone().inner().autodiff()));
        Self { device: self.device.clone(), tensors: tensors.collect() }
    }

    /// The values of all tensors, row-major.
    pub fn values(&self) -> BTreeMap<String, Vec<f32>> {
        self.iter().map(|(name, tensor)| (name.to_owned(), into_values(tensor.clone().inner()))).collect()
    }

    /// Replaces every tensor by what `f` makes of it, without gradients: of the same shape as before.
    pub fn update(&mut self, mut f: impl FnMut(&str, Tensor<2>) -> Tensor<2>) {
        for (name, tensor) in &mut self.tensors {
            let before = std::mem::replace(tensor, Tensor::empty([1, 1], &self.device));
            *tensor = f(name, before.inner()).autodiff().require_grad();
        }
    }

    /// The gradients that `loss` `[1, 1]` has with respect to them, row-major, of those that it depends on.
    pub fn gradients(&self, loss: &Tensor<2>) -> BTreeMap<String, Vec<f32>> {
        let mut gradients = loss.backward();
        let of = |(name, tensor): (&str, &Tensor<2>)| {
            tensor.grad_remove(&mut gradients).map(|gradient| (name.to_owned(), into_values(gradient)))
        };
        self.iter().filter_map(of).collect()
    }
}
