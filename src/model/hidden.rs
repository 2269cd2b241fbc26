//! Hidden states of rows, where their computation left them: on the processor or on a device.

use std::ops::Range;

use burn::tensor::Tensor;

use super::ops::into_values;

/// Hidden states `[rows, hidden]`. Nobody but the backend that made them looks inside; [`Hidden::into_values`] fetches them.
#[derive(Clone, Debug)]
pub struct Hidden(States);

#[derive(Clone, Debug)]
enum States {
    Host { values: Vec<f32>, width: usize },
    Device(Box<Tensor<2>>),
}

impl Hidden {
    /// States on the processor, row-major.
    pub(crate) fn of_values(values: Vec<f32>, width: usize) -> Self {
        Self(States::Host { values, width })
    }

    /// States in a tensor `[rows, hidden]`.
    pub(super) fn of_tensor(tensor: Tensor<2>) -> Self {
        Self(States::Device(Box::new(tensor)))
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        match &self.0 {
            States::Host { values, width } => values.len() / width,
            States::Device(tensor) => tensor.dims()[0],
        }
    }

    /// Some of the rows.
    ///
    /// # Panics
    /// If there are not as many.
    #[must_use]
    pub fn slice(&self, rows: Range<usize>) -> Self {
        Self(match &self.0 {
            States::Host { values, width } => {
                States::Host { values: values[rows.start * width..rows.end * width].to_vec(), width: *width }
            }
            States::Device(tensor) => {
                return Self::of_tensor(Tensor::clone(tensor).narrow(0, rows.start, rows.len()));
            }
        })
    }

    /// The rows of all parts, one after the other; of the same backend, and at least one part.
    pub(super) fn cat(mut parts: Vec<Self>) -> Self {
        if parts.len() == 1 {
            return parts.remove(0);
        }
        match &parts[0].0 {
            &States::Host { width, .. } => {
                Self::of_values(parts.into_iter().flat_map(|part| part.into_values()).collect(), width)
            }
            States::Device(_) => Self::of_tensor(Tensor::cat(parts.into_iter().map(Self::into_tensor).collect(), 0)),
        }
    }

    /// The values, row-major; waits for the device.
    pub fn into_values(self) -> Vec<f32> {
        match self.0 {
            States::Host { values, .. } => values,
            States::Device(tensor) => into_values(*tensor),
        }
    }

    /// The values of states on the processor.
    pub(super) fn values(&self) -> &[f32] {
        match &self.0 {
            States::Host { values, .. } => values,
            States::Device(_) => unreachable!("states stay with the backend that made them"),
        }
    }

    /// The tensor of states on a device.
    pub(super) fn into_tensor(self) -> Tensor<2> {
        match self.0 {
            States::Device(tensor) => *tensor,
            States::Host { .. } => unreachable!("states stay with the backend that made them"),
        }
    }
}
