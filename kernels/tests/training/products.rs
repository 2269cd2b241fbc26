//! Products of large matrices against a naive pass in f64, in every form and direction of cutting.

use half::bf16;
use paceline_kernels::{InstructionSet, Kernels, MatrixLayout, TrainingPrecision};
use proptest::prelude::*;

use crate::assert_close;
use crate::common::{all_give_its_bits, all_kernels, bits, reference, values};

const LAYOUTS: [MatrixLayout; 2] = [MatrixLayout::Plain, MatrixLayout::Transposed];

/// `rows` by `columns` as stored.
fn stored(plain: &[f32], columns: usize, layout: MatrixLayout) -> Vec<f32> {
    match layout {
        MatrixLayout::Plain => plain.to_vec(),
        MatrixLayout::Transposed => {
            (0..columns).flat_map(|column| plain.iter().skip(column).step_by(columns).copied()).collect()
        }
    }
}

struct Case {
    m: usize,
    n: usize,
    k: usize,
    accumulate: bool,
    a: Vec<f32>,
    b: Vec<f32>,
    /// What the output holds before.
    out: Vec<f32>,
}

impl Case {
    fn new((m, n, k): (usize, usize, usize), accumulate: bool) -> Self {
        let out = if accumulate { values(3, m * n, 4.0) } else { vec![f32::NAN; m * n] };
        Self { m, n, k, accumulate, a: values(1, m * k, 1.0), b: values(2, k * n, 1.0), out }
    }

    fn product(
        &self,
        kernels: &Kernels,
        precision: TrainingPrecision,
        [a_layout, b_layout]: [MatrixLayout; 2],
    ) -> Vec<f32> {
        let Self { m, n, k, accumulate, .. } = *self;
        let (a, b) = (stored(&self.a, k, a_layout), stored(&self.b, n, b_layout));
        let mut out = self.out.clone();
        kernels.gemm(precision, &a, a_layout, &b, b_layout, m, n, k, accumulate, &mut out);
        out
    }

    /// In bf16, every layout on every instruction set is close to f64 with rounded inputs, and has the same bits for
    /// every number of threads and layout.
    fn check_rounded(&self, all: &[Kernels]) {
        let round = |values: &[f32]| values.iter().map(|value| bf16::from_f32(*value).to_f32()).collect();
        let exact = Self { a: round(&self.a), b: round(&self.b), out: self.out.clone(), ..*self }.exact();
        for set in InstructionSet::available() {
            let mut first = None;
            for kernels in all.iter().filter(|kernels| kernels.instruction_set() == set) {
                for a_layout in LAYOUTS {
                    for b_layout in LAYOUTS {
                        let found = self.product(kernels, TrainingPrecision::Bf16, [a_layout, b_layout]);
                        let what = format!("[{}, {}] x [{}, {}] {kernels:?}", self.m, self.k, self.k, self.n);
                        assert_close(&found, &exact, 1e-5, &what);
                        let first = first.get_or_insert_with(|| bits(&found));
                        assert!(*first == bits(&found), "{what} {a_layout:?} {b_layout:?}");
                    }
                }
            }
        }
    }

    fn exact(&self) -> Vec<f64> {
        let Self { m, n, k, .. } = *self;
        let mut out: Vec<f64> =
            self.out.iter().map(|out| if self.accumulate { f64::from(*out) } else { 0.0 }).collect();
        for row in 0..m {
            for i in 0..k {
                let a = f64::from(self.a[row * k + i]);
                for (out, b) in out[row * n..][..n].iter_mut().zip(&self.b[i * n..][..n]) {
                    *out += a * f64::from(*b);
                }
            }
        }
        out
    }

    /// Every layout is close to f64, and all give the same bits everywhere.
    fn check(&self, reference: &Kernels, all: &[Kernels]) {
        let what = || format!("[{}, {}] x [{}, {}]", self.m, self.k, self.k, self.n);
        for a_layout in LAYOUTS {
            for b_layout in LAYOUTS {
                let layouts = [a_layout, b_layout];
                assert_close(
                    &self.product(&all[all.len() - 1], TrainingPrecision::F32, layouts),
                    &self.exact(),
                    1e-5,
                    &what(),
                );
                // The reference takes one layout: the others must not make a difference either.
                let plain = [MatrixLayout::Plain; 2];
                let expected = self.product(reference, TrainingPrecision::F32, plain);
                all_give_its_bits(
                    reference,
                    all,
                    |kernels| {
                        let is_reference = std::ptr::eq(kernels, reference);
                        if is_reference {
                            expected.clone()
                        } else {
                            self.product(kernels, TrainingPrecision::F32, layouts)
                        }
                    },
                    || format!("{} {layouts:?}", what()),
                );
            }
        }
    }
}

#[test]
fn products_that_are_cut_in_every_direction() {
    let (reference, all) = (reference(), all_kernels());
    // Several blocks of k; several parts of rows and blocks of a part; more columns than are packed at once; more of k.
    let shapes = [
        (37, 33, 601),
        (9, 40, 1100),
        (203, 65, 70),
        (600, 40, 20),
        (2, 8300, 3),
        (5, 4100, 700),
        (1, 1, 1),
        (12, 32, 256),
    ];
    for (index, shape) in shapes.into_iter().enumerate() {
        let case = Case::new(shape, index % 2 == 0);
        case.check(&reference, &all);
        case.check_rounded(&all);
        if index == 0 {
            Case::new(shape, false).check(&reference, &all);
        }
    }
}

#[test]
fn products_of_nothing() {
    let kernels = reference();
    let [plain, transposed] = LAYOUTS;
    let mut out = [1.0; 6];
    kernels.gemm(TrainingPrecision::F32, &[], plain, &[], transposed, 2, 3, 0, true, &mut out);
    assert_eq!(out, [1.0; 6]);
    kernels.gemm(TrainingPrecision::F32, &[], plain, &[], transposed, 2, 3, 0, false, &mut out);
    assert_eq!(out, [0.0; 6]);
    kernels.gemm(TrainingPrecision::F32, &[], plain, &[1.0; 6], transposed, 0, 3, 2, false, &mut []);
    kernels.gemm(TrainingPrecision::F32, &[1.0; 4], plain, &[], transposed, 2, 0, 2, false, &mut []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn products_of_any_shape(m in 1_usize..60, n in 1_usize..90, k in 1_usize..300, accumulate: bool) {
        let (case, all) = (Case::new((m, n, k), accumulate), all_kernels());
        case.check(&reference(), &all);
        case.check_rounded(&all);
    }
}
