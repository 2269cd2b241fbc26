//! The matrices that a plain step multiplies with, and their products alone, to time them.

use std::cmp::Reverse;

use paceline_kernels::{MatrixFormat, PackedWeights, Product};

use super::{Executor, carve};
use crate::model::weights::LayerWeights;

impl Executor {
    /// The matrices of a plain step, in the order in which it multiplies with them: those with the same rows together.
    fn matrices(&self) -> impl Iterator<Item = Vec<&PackedWeights>> {
        let layers = self.layers.iter().flat_map(|layer| {
            let LayerWeights { query, key, value, attention_output, gate, up, down, .. } = layer;
            [vec![query, key, value], vec![attention_output], vec![gate, up], vec![down]]
        });
        layers.chain([vec![&self.output]]).map(|together| together.into_iter().map(|linear| &linear.matrix).collect())
    }

    /// The formats of a plain step's matrices, with their bytes, the most first.
    pub(in crate::model) fn formats(&self) -> Vec<(MatrixFormat, u64)> {
        let mut formats: Vec<(MatrixFormat, u64)> = Vec::new();
        for matrix in self.matrices().flatten() {
            match formats.iter_mut().find(|(format, _)| *format == matrix.format()) {
                Some((_, bytes)) => *bytes += matrix.bytes() as u64,
                None => formats.push((matrix.format(), matrix.bytes() as u64)),
            }
        }
        formats.sort_by_key(|(_, bytes)| Reverse(*bytes));
        formats
    }

    /// Makes a step's products with the matrices of one format, of `rows` rows that mean nothing: to time them.
    pub(in crate::model) fn multiply_all(&self, format: MatrixFormat, rows: usize) {
        let mut groups: Vec<Vec<&PackedWeights>> = self.matrices().collect();
        groups.iter_mut().for_each(|group| group.retain(|matrix| matrix.format() == format));
        groups.retain(|group| !group.is_empty());
        let widest = groups.iter().map(|group| rows * group[0].in_features()).max().unwrap_or(0);
        let most = groups.iter().map(|group| group.iter().map(|matrix| rows * matrix.out_features()).sum()).max();
        // The memory that steps have, so that its allocation is not timed.
        self.with_memory(|memory| {
            let [x, outs] = carve(memory, [widest, most.unwrap_or(0)]);
            x.fill(1.0);
            for group in groups {
                let mut rest = &mut *outs;
                let product = |weights| {
                    let (out, others) =
                        std::mem::take(&mut rest).split_at_mut(rows * PackedWeights::out_features(weights));
                    rest = others;
                    Product { weights, bias: None, out }
                };
                let width = group[0].in_features();
                let mut products: Vec<Product<'_>> = group.into_iter().map(product).collect();
                self.kernels.matmul(&x[..rows * width], rows, &mut products);
            }
        });
    }
}
