//! The device that trainings compute on.

use std::sync::Arc;

use anyhow::Context;
use paceline::command::Failure;
use paceline::model::{Compute, DeviceName};
use paceline_kernels::Kernels;

/// The device of a model in training, and the kernels of its optimizer.
pub struct Place {
    /// The model's device.
    pub compute: Compute,
    /// The processor's kernels, which the optimizer computes with.
    pub kernels: Arc<Kernels>,
}

impl Place {
    /// Opens the device with so many threads of the processor; 0 for all that the process may use.
    ///
    /// # Errors
    /// If it is not there.
    pub fn open(device: DeviceName, threads: usize) -> Result<Self, Failure> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let compute = Compute::open(device, threads)?;
        let kernels = match &compute {
            Compute::Kernels(kernels) => Arc::clone(kernels),
            Compute::Burn(_) => Arc::new(
                Kernels::new(threads)
                    .context("The worker threads could not be started; ask for fewer with `--threads`")?,
            ),
        };
        Ok(Self { compute, kernels })
    }
}
