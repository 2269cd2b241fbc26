//! Which files of a model are downloaded.

use super::{DownloadError, is_below};
use crate::checkpoint::{DRAFT_VOCABULARY, EXITS};

/// Files beside `config.json` and the weights that are read here.
const BESIDE: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
    EXITS,
    "router.safetensors",
    DRAFT_VOCABULARY,
];

/// The files of the model `name` to download, of all that the hub has: the named GGUF file, or a Hugging Face model, or the one
/// GGUF model that there is.
pub(super) fn files_of(name: &str, all: &[String], file: Option<&str>) -> Result<Vec<String>, DownloadError> {
    let is_gguf = |file: &&String| file.to_ascii_lowercase().ends_with(".gguf") && is_below(file);
    let gguf: Vec<String> = all.iter().filter(is_gguf).cloned().collect();
    let with_parts =
        |file: &str| -> Vec<String> { gguf.iter().filter(|other| whole(other) == whole(file)).cloned().collect() };
    if let Some(file) = file {
        return match with_parts(file) {
            files if files.iter().any(|other| other == file) => Ok(files),
            _ => Err(DownloadError::NoFile { name: name.to_owned(), file: file.to_owned(), files: gguf }),
        };
    }
    let is_weights = |file: &str| file == "model.safetensors" || is_shard(file);
    let of_directory: Vec<String> =
        all.iter().filter(|file| BESIDE.contains(&file.as_str()) || is_weights(file)).cloned().collect();
    let has = |name: &str| of_directory.iter().any(|file| file == name);
    if has("config.json") && of_directory.iter().any(|file| is_weights(file)) {
        return Ok(alone(of_directory));
    }
    // Parts for pictures are no models.
    let mut models: Vec<&String> = gguf.iter().filter(|file| !file.contains("mmproj")).collect();
    models.dedup_by_key(|file| whole(file));
    match models[..] {
        [] => Err(DownloadError::NoModel { name: name.to_owned() }),
        [one] => Ok(with_parts(one)),
        _ => {
            let files = models.into_iter().cloned().collect();
            Err(DownloadError::Several { name: name.to_owned(), files })
        }
    }
}

/// The files without the shards, where there is a file that has all weights.
fn alone(files: Vec<String>) -> Vec<String> {
    let is_alone = files.iter().any(|file| file == "model.safetensors");
    let is_of_shards = |file: &str| is_shard(file) || file == "model.safetensors.index.json";
    files.into_iter().filter(|file| !(is_alone && is_of_shards(file))).collect()
}

/// True for `model-00001-of-00002.safetensors`.
fn is_shard(file: &str) -> bool {
    file.ends_with(".safetensors") && whole(file) == "model" && file != "model.safetensors"
}

/// The name of the model that a GGUF file is a part of: without `-00001-of-00003`.
fn whole(file: &str) -> &str {
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let cut = stem.rsplit_once("-of-").and_then(|(start, count)| {
        let (start, number) = start.rsplit_once('-')?;
        (is_number(count) && is_number(number)).then_some(start)
    });
    cut.unwrap_or(stem)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    fn chosen(all: &[&str], file: Option<&str>) -> Result<Vec<String>, String> {
        let all: Vec<String> = all.iter().map(|file| (*file).to_owned()).collect();
        files_of("org/name", &all, file).map_err(|error| error.to_string())
    }

    #[test]
    fn a_model_is_its_files_alone() {
        let all = [
            "README.md",
            "config.json",
            "model.safetensors",
            "model-00001-of-00002.safetensors",
            "tokenizer.json",
            "onnx/model.onnx",
            "model.fp16.safetensors",
            "model\\..\\x.safetensors",
            "pytorch_model.bin",
            "original/consolidated.safetensors",
            "x/model.safetensors",
        ];
        assert_eq!(chosen(&all, None).unwrap(), ["config.json", "model.safetensors", "tokenizer.json"]);
        let shards = [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "m.gguf",
        ];
        assert_eq!(chosen(&shards, None).unwrap(), shards[..4]);
        assert_eq!(chosen(&shards, Some("m.gguf")).unwrap(), ["m.gguf"]);
    }

    #[test]
    fn one_gguf_model_is_taken_and_several_are_listed() {
        let split = ["q8-00001-of-00002.gguf", "q8-00002-of-00002.gguf", "mmproj-f16.gguf", "README.md"];
        assert_eq!(chosen(&split, None).unwrap(), split[..2]);
        assert_eq!(chosen(&split, Some(split[1])).unwrap(), split[..2]);
        let several = chosen(&["a.q4.gguf", "a.q8.gguf"], None).unwrap_err();
        assert!(several.contains("has 2 GGUF files (a.q4.gguf, a.q8.gguf); name one, as org/name:FILE"), "{several}");
        assert!(chosen(&["a.gguf"], Some("b.gguf")).unwrap_err().contains("no file \"b.gguf\"; it has a.gguf"));
        assert!(chosen(&["model.bin"], None).unwrap_err().contains("no file that is read"));
        // A hub cannot have files written elsewhere.
        for evil in ["../evil.gguf", "/etc/evil.gguf", "a/../../evil.gguf", "c:\\evil.gguf"] {
            assert!(chosen(&[evil], None).is_err(), "{evil}");
        }
    }
}
