//! Packed weights kept on disk: the same tokens from them, and never those of another model.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use paceline::checkpoint::Checkpoint;
use paceline::model::{Compute, Decoder, DeviceName, MatrixFormat, Sequence};
use paceline_kernels::{FloatFormat, QuantizedFormat};

use crate::support::copy_of;

const INT8: Option<MatrixFormat> = Some(MatrixFormat::Quantized(QuantizedFormat::Int8));

/// Logits after a few tokens, and what was said of the file.
fn load(model: &Path, format: Option<MatrixFormat>, root: Option<&Path>) -> (Vec<u32>, Option<String>) {
    let checkpoint = Checkpoint::open(model).unwrap();
    let compute = Compute::open(DeviceName::Cpu, 2).unwrap();
    let (decoder, note) = Decoder::load_keeping(&checkpoint, format, &compute, root, &mut |_, _| {}).unwrap();
    let logits = Sequence::new(decoder.into(), 8).next_logits(&[1, 5, 9, 3]);
    (logits.into_iter().map(f32::to_bits).collect(), note)
}

/// The one file below a root.
fn file(root: &Path) -> PathBuf {
    let files: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

fn change_byte(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_was_kept_is_taken_and_says_the_same() {
    let bf16 = Some(MatrixFormat::Float(FloatFormat::Bf16));
    for (name, format) in [("llama-tied", INT8), ("llama-tied", bf16), ("gguf-llama", INT8), ("qwen2-bias", INT8)] {
        let (model, root) = (copy_of(name), tempfile::tempdir().unwrap());
        let (plain, _) = load(model.path(), format, None);
        for start in 0..3 {
            assert_eq!(load(model.path(), format, Some(root.path())), (plain.clone(), None), "{name} {start}");
        }
        let kept = file(root.path());
        let before = fs::metadata(&kept).unwrap();
        // A model that was moved about, with new times and numbers: by the hash of its bytes it is still the same.
        for entry in fs::read_dir(model.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        }
        assert_eq!(load(model.path(), format, Some(root.path())), (plain, None));
        assert_eq!(fs::metadata(file(root.path())).unwrap().ino(), before.ino(), "{name}: the file was written once");
    }
}

#[test]
fn a_damaged_matrix_is_packed_from_the_model_and_said() {
    let (model, root) = (copy_of("llama-tied"), tempfile::tempdir().unwrap());
    let (plain, _) = load(model.path(), INT8, Some(root.path()));
    let kept = file(root.path());
    let whole = fs::read(&kept).unwrap();
    let index = whole.windows(12).position(|at| at == br#"{"version":""#).unwrap();
    for at in [16, 300, index / 2, index - 1] {
        fs::write(&kept, &whole).unwrap();
        change_byte(&kept, at);
        let (found, note) = load(model.path(), INT8, Some(root.path()));
        assert_eq!(found, plain, "byte {at}");
        let note = note.expect("it was read, or it would not be missed");
        assert!(note.contains("damaged at `model.") && note.contains("the next start writes it anew"), "{note}");
        assert!(!kept.exists());
        assert_eq!(load(model.path(), INT8, Some(root.path())), (plain.clone(), None));
        assert!(fs::read(&kept).unwrap().len() == whole.len(), "it was written anew");
    }
    // Where the mark, the index or the end is damaged, or something is missing, it is written anew at once.
    for at in [index, index + 40, whole.len() - 9, whole.len() - 1] {
        fs::write(&kept, &whole).unwrap();
        change_byte(&kept, at);
        assert_eq!(load(model.path(), INT8, Some(root.path())), (plain.clone(), None), "byte {at}");
        assert_eq!(&fs::read(&kept).unwrap()[..index], &whole[..index]);
    }
    for len in [0, 7, 16, 31, 32, 1000, whole.len() - 1] {
        fs::write(&kept, &whole[..len]).unwrap();
        assert_eq!(load(model.path(), INT8, Some(root.path())), (plain.clone(), None), "{len} bytes");
        assert_eq!(&fs::read(&kept).unwrap()[..index], &whole[..index]);
    }
}

#[test]
fn another_model_at_the_same_place_is_not_served() {
    let (model, root) = (copy_of("llama-tied"), tempfile::tempdir().unwrap());
    let (plain, _) = load(model.path(), INT8, Some(root.path()));
    let weights = model.path().join("model.safetensors");
    let written = fs::metadata(&weights).unwrap().modified().unwrap();
    // The signs of the last matrix, which the final norm stands behind.
    let mut bytes = fs::read(&weights).unwrap();
    let end = bytes.len() - 4 * 32;
    bytes[end - 2048..end].chunks_exact_mut(4).for_each(|value| value[3] ^= 0x80);
    fs::write(&weights, bytes).unwrap();
    // Somebody who sets the time of the last change back hides nothing.
    fs::File::options().append(true).open(&weights).unwrap().set_modified(written).unwrap();
    let (expected, _) = load(model.path(), INT8, None);
    assert_ne!(expected, plain, "the change matters");
    for _ in 0..2 {
        assert_eq!(load(model.path(), INT8, Some(root.path())), (expected.clone(), None));
    }
    file(root.path());
}

#[test]
fn a_file_of_somebody_else_stays_as_it_is() {
    let (model, root) = (copy_of("llama-tied"), tempfile::tempdir().unwrap());
    let (plain, _) = load(model.path(), INT8, Some(root.path()));
    let kept = file(root.path());
    fs::write(&kept, "Dear diary,\n").unwrap();
    let (found, note) = load(model.path(), INT8, Some(root.path()));
    assert_eq!(found, plain);
    assert!(note.unwrap().contains("is not one of our files"));
    assert_eq!(fs::read_to_string(&kept).unwrap(), "Dear diary,\n");
    fs::remove_file(&kept).unwrap();
    fs::create_dir(&kept).unwrap();
    let (found, note) = load(model.path(), INT8, Some(root.path()));
    assert_eq!(found, plain);
    assert!(note.is_some() && kept.is_dir());
}

#[test]
fn each_precision_has_a_file_of_its_own() {
    let (model, root) = (copy_of("llama-tied"), tempfile::tempdir().unwrap());
    let int4 = Some(MatrixFormat::Quantized(QuantizedFormat::Int4));
    for _ in 0..2 {
        for format in [None, INT8, int4] {
            let (plain, _) = load(model.path(), format, None);
            assert_eq!(load(model.path(), format, Some(root.path())), (plain, None));
        }
    }
    // What is held as stored is packed as fast as it is read, and not kept.
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
}
