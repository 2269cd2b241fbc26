//! Packed bytes that somebody kept, and whether they still are what the layout makes of the same values.

mod common;

use common::{FORMATS, all_kernels, packed_as, reference, values};
use paceline_kernels::{BlockFormat, MatrixFormat, PACKED_LAYOUT, QuantizedFormat, WeightArena, Weights};

const OUTPUTS: usize = 37;
const INPUTS: usize = 512;

/// A matrix in each format, from sources whose bits every machine makes alike.
fn sources() -> Vec<(MatrixFormat, Weights)> {
    let floats = || Weights::from_f32(values(3, OUTPUTS * INPUTS, 1.0), OUTPUTS, INPUTS).expect("the length is right");
    let quantized = [QuantizedFormat::Int8, QuantizedFormat::Int4].map(MatrixFormat::Quantized);
    let of_floats = FORMATS.map(MatrixFormat::Float).into_iter().chain(quantized).map(|format| (format, floats()));
    let of_blocks = BlockFormat::ALL.into_iter().map(|format| {
        let len = OUTPUTS * format.row_bytes(INPUTS).expect("whole blocks");
        // Halves of these bytes are finite: no byte is above 0x3f.
        let bytes = values(4, len, 1.0).into_iter().map(|value| ((value + 1.0) * 31.0) as u8).collect();
        let weights = Weights::from_bytes(bytes, format, OUTPUTS, INPUTS).expect("the length is right");
        (MatrixFormat::Blocks(format), weights)
    });
    of_floats.chain(of_blocks).collect()
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Whoever changes a layout adds one to [`PACKED_LAYOUT`], so that no program reads what it does not mean, and writes the new
/// number here.
#[test]
fn the_layout_is_that_of_its_version() {
    let mut all = Vec::new();
    for (format, source) in sources() {
        all.extend_from_slice(&hash(packed_as(&source, format).as_bytes()).to_le_bytes());
    }
    assert_eq!((PACKED_LAYOUT, format!("{:016x}", hash(&all)).as_str()), (1, "dcaad8c44146e44c"));
}

#[test]
fn a_matrix_comes_back_from_its_bytes() {
    for (format, source) in sources() {
        let first = packed_as(&source, format);
        for kernels in all_kernels() {
            let again = kernels
                .packed_before(first.as_bytes(), format, (OUTPUTS, INPUTS), &mut WeightArena::default())
                .expect("there is memory");
            assert!(again.as_bytes() == first.as_bytes(), "{format} {kernels:?}");
            assert_eq!((again.format(), again.out_features(), again.in_features()), (format, OUTPUTS, INPUTS));
        }
    }
}

#[test]
#[should_panic(expected = "the bytes are those of such a matrix")]
fn too_few_bytes_are_no_matrix() {
    let (format, source) = sources().remove(0);
    let packed = packed_as(&source, format);
    let bytes = &packed.as_bytes()[1..];
    let _ = reference().packed_before(bytes, format, (OUTPUTS, INPUTS), &mut WeightArena::default());
}
