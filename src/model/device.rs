//! Devices, named and never guessed.
//!
//! A device is what the user wrote: `cpu`, or `cuda:I` in a build with that feature. burn's own default
//! device is not used: with CUDA compiled in it would pick a GPU even where there is none.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use burn::tensor::Device;
use paceline_kernels::Kernels;
use serde::{Deserialize, Serialize};

/// The name of a device, as written on the command line or in a config file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// The processor, through the row-invariant kernels.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this index.
    Cuda(usize),
}

/// The most threads that can be asked for.
const MOST_THREADS: usize = 1024;

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The name is not one of a device.
    #[error("`{0}` is not a device: write `cpu` or `cuda:0` (the index of the GPU after the colon).")]
    Unknown(String),
    /// This build cannot drive the device.
    #[error(
        "{0} cannot be used: this program was built without CUDA; build it with `--features cuda`, or choose `cpu`."
    )]
    NotBuiltIn(DeviceName),
    /// The machine does not have it.
    #[error("{0} is not there: this machine shows {1} CUDA device(s); choose one that exists, or `cpu`.")]
    Missing(DeviceName, usize),
    /// More threads than any machine has use for; starting them would exhaust the address space.
    #[error(
        "{0} threads cannot be used: ask for 1 to {MOST_THREADS} with `--threads`, or 0 for as many as the process may use."
    )]
    TooManyThreads(usize),
    /// There is not enough memory for a measurement.
    #[error("There is not enough memory to measure how fast it is read ({0}): choose a smaller precision or model.")]
    Memory(std::io::Error),
    /// The worker threads could not be started.
    #[error(
        "The worker threads could not be started ({0}): ask for fewer with `--threads`, and do without `--pin-threads`."
    )]
    Threads(std::io::Error),
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            Some(("cuda", index)) => index.parse().map(Self::Cuda).map_err(|_| DeviceError::Unknown(text.to_owned())),
            _ => Err(DeviceError::Unknown(text.to_owned())),
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// Compute backend of a decoder's operations.
#[derive(Clone)]
pub enum Compute {
    /// On the processor, through the row-invariant kernels; tensors live on burn's flex device.
    Kernels(Arc<Kernels>),
    /// On any burn device, as compositions of burn's operations. Not row-invariant: see [`Compute::is_row_invariant`].
    Burn(Device),
}

impl Compute {
    /// Opens a device. `threads` counts the processor's threads, the caller's included; other devices ignore it.
    ///
    /// # Errors
    /// If this build or this machine does not have the device, or the threads cannot be started.
    pub fn open(name: DeviceName, threads: usize) -> Result<Self, DeviceError> {
        Self::open_with(name, threads, Kernels::new)
    }

    /// As [`Compute::open`], with the threads that are started bound to a processor each.
    ///
    /// # Errors
    /// As for [`Compute::open`], and if this system binds no threads.
    pub fn open_pinned(name: DeviceName, threads: usize) -> Result<Self, DeviceError> {
        Self::open_with(name, threads, Kernels::pinned)
    }

    fn open_with(
        name: DeviceName,
        threads: usize,
        start: fn(usize) -> std::io::Result<Kernels>,
    ) -> Result<Self, DeviceError> {
        match name {
            DeviceName::Cpu if threads > MOST_THREADS => Err(DeviceError::TooManyThreads(threads)),
            DeviceName::Cpu => Ok(Self::Kernels(Arc::new(start(threads.max(1)).map_err(DeviceError::Threads)?))),
            DeviceName::Cuda(index) => open_cuda(name, index),
        }
    }

    /// The burn device that tensors of this computation live on.
    pub fn device(&self) -> Device {
        match self {
            Self::Kernels(_) => Device::flex(),
            Self::Burn(device) => device.clone(),
        }
    }

    /// The instruction set of the kernels' floats, or `burn` on devices without them.
    pub fn instruction_set(&self) -> String {
        match self {
            Self::Kernels(kernels) => kernels.instruction_set().of_floats().to_string(),
            Self::Burn(_) => "burn".to_owned(),
        }
    }

    /// True if a token's result is the same bits however many rows share a call. The promise that speculative
    /// output equals plain output bit for bit rests on it.
    pub fn is_row_invariant(&self) -> bool {
        matches!(self, Self::Kernels(_))
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(name: DeviceName, index: usize) -> Result<Compute, DeviceError> {
    use burn::tensor::DeviceType;

    // Looking for devices loads libcuda, which panics inside its loader where there is none.
    let found = std::panic::catch_unwind(|| Device::enumerate(DeviceType::Cuda).into_vec()).unwrap_or_default();
    let count = found.len();
    match found.into_iter().nth(index) {
        Some(device) => Ok(Compute::Burn(device)),
        None => Err(DeviceError::Missing(name, count)),
    }
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(name: DeviceName, _index: usize) -> Result<Compute, DeviceError> {
    Err(DeviceError::NotBuiltIn(name))
}
