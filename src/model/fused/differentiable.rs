//! Operations with a backward pass of their own, under burn's autodiff.
//!
//! burn's extension point takes one function of a fixed number of tensors per operation. Here it is given three, for
//! one, two and three tensors, and what they compute as an argument: a [`Differentiable`].

use std::fmt;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Tensor, TensorData};

/// A tensor on the processor.
pub(super) type Values = FloatTensor<Flex>;

/// An operation whose derivative is known.
pub(super) trait Differentiable: Send + Sync {
    /// The output, and what the backward pass will need. `inputs` are contiguous.
    fn forward(&self, inputs: Vec<Values>) -> (Values, Vec<Values>);

    /// The gradients of those inputs that are `wanted`, of the output's `gradient` and what [`Self::forward`] kept.
    fn backward(&self, kept: Vec<Values>, gradient: Values, wanted: &[bool]) -> Vec<Option<Values>>;
}

/// The values of a contiguous tensor, row-major.
pub(super) fn slice(values: &Values) -> &[f32] {
    values.as_slice().expect("inputs are contiguous f32")
}

/// A tensor `[rows, width]`.
pub(super) fn tensor(values: Vec<f32>, rows: usize, width: usize) -> Values {
    Values::from_data(TensorData::new(values, [rows, width]))
}

/// Rows and width of a tensor.
pub(super) fn dims(values: &Values) -> [usize; 2] {
    values.layout().shape().dims()
}

/// The operation's output for `inputs`, tracked if one of them is.
///
/// # Panics
/// If there are not one to three inputs, or one is not on the processor.
pub(super) fn apply<const N: usize>(inputs: [Tensor<2>; N], operation: impl Differentiable + 'static) -> Tensor<2> {
    let operation: Arc<dyn Differentiable> = Arc::new(operation);
    let mut inputs = inputs.into_iter().map(Tensor::into_dispatch);
    let mut next = || inputs.next().expect("as many as N");
    Tensor::from_dispatch(match N {
        1 => Dispatch::of_one(next(), operation),
        2 => Dispatch::of_two(next(), next(), operation),
        3 => Dispatch::of_three(next(), next(), next(), operation),
        _ => unreachable!("operations have one to three inputs"),
    })
}

/// Backend extension that burn dispatches on.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait DifferentiableOps: Backend {
    /// An operation on a tensor.
    fn of_one(x: FloatTensor<Self>, operation: Arc<dyn Differentiable>) -> FloatTensor<Self>;

    /// An operation on two tensors.
    fn of_two(x: FloatTensor<Self>, y: FloatTensor<Self>, operation: Arc<dyn Differentiable>) -> FloatTensor<Self>;

    /// An operation on three tensors.
    fn of_three(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        z: FloatTensor<Self>,
        operation: Arc<dyn Differentiable>,
    ) -> FloatTensor<Self>;
}

fn run(inputs: Vec<Values>, operation: &dyn Differentiable) -> (Values, Vec<Values>) {
    operation.forward(inputs.into_iter().map(|input| input.to_contiguous()).collect())
}

impl DifferentiableOps for Flex {
    fn of_one(x: Values, operation: Arc<dyn Differentiable>) -> Values {
        run(vec![x], &*operation).0
    }

    fn of_two(x: Values, y: Values, operation: Arc<dyn Differentiable>) -> Values {
        run(vec![x, y], &*operation).0
    }

    fn of_three(x: Values, y: Values, z: Values, operation: Arc<dyn Differentiable>) -> Values {
        run(vec![x, y, z], &*operation).0
    }
}

impl<C: CheckpointStrategy> DifferentiableOps for Autodiff<Flex, C> {
    fn of_one(x: FloatTensor<Self>, operation: Arc<dyn Differentiable>) -> FloatTensor<Self> {
        tracked::<C, 1>([x], operation)
    }

    fn of_two(x: FloatTensor<Self>, y: FloatTensor<Self>, operation: Arc<dyn Differentiable>) -> FloatTensor<Self> {
        tracked::<C, 2>([x, y], operation)
    }

    fn of_three(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        z: FloatTensor<Self>,
        operation: Arc<dyn Differentiable>,
    ) -> FloatTensor<Self> {
        tracked::<C, 3>([x, y, z], operation)
    }
}

fn tracked<C: CheckpointStrategy, const N: usize>(
    inputs: [FloatTensor<Autodiff<Flex>>; N],
    operation: Arc<dyn Differentiable>,
) -> FloatTensor<Autodiff<Flex>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let inputs = inputs.into_iter().map(|input| input.into_primitive()).collect();
    let (output, values) = run(inputs, &*operation);
    match Step.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(preparation) => preparation.finish(Kept { operation, values }, output),
        OpsKind::UnTracked(preparation) => preparation.finish(output),
    }
}

/// The backward pass of any operation.
#[derive(Debug)]
struct Step;

/// State kept for the backward pass.
#[derive(Clone)]
struct Kept {
    operation: Arc<dyn Differentiable>,
    values: Vec<Values>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("values", &self.values).finish_non_exhaustive()
    }
}

impl<const N: usize> Backward<Flex, N> for Step {
    type State = Kept;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let gradient = gradient.to_contiguous();
        let Kept { operation, values } = ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let gradients = operation.backward(values, gradient, &wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
