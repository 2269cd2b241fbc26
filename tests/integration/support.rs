//! Fixtures, random checkpoints, and plain loops to compare with.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use paceline::checkpoint::Checkpoint;
use paceline::drafters::{Ask, DraftRequest, Drafter, DrafterChoice};
use paceline::model::{Compute, Decoder, DeviceName, MatrixFormat, Pools, Sequence, SkipPlan};
use paceline::sampling::{Sampler, SamplingConfig, SamplingError};
use paceline::speculation::planner::Candidate;
use paceline::speculation::request::DecodeSetup;
use paceline::speculation::{DraftLength, End, Flow, Listener, Planner, Request, Round, Target, round};
use paceline_kernels::{CacheFormat, FloatFormat, QuantizedFormat};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// A folder of `tests/fixtures`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A path of the development data beside the repository; where it is absent, says that `test` was skipped.
pub(crate) fn shared(path: &str, test: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if path.exists() {
        return Some(path);
    }
    println!("{test}: skipped, {} is not here", path.display());
    None
}

/// Loads the decoder of a directory on the CPU.
pub(crate) fn decoder(directory: &Path, threads: usize) -> Arc<Decoder> {
    decoder_on(directory, &Compute::open(DeviceName::Cpu, threads).unwrap())
}

/// Loads the decoder of a directory on the CPU with matrices of another format than stored, and a cache format.
pub(crate) fn decoder_at(
    directory: &Path,
    threads: usize,
    format: Option<MatrixFormat>,
    cache: CacheFormat,
) -> Arc<Decoder> {
    let checkpoint = Checkpoint::open(directory).unwrap();
    let compute = Compute::open(DeviceName::Cpu, threads).unwrap();
    let decoder = Decoder::load(&checkpoint, format, &compute, &mut |_, _| {}).unwrap();
    Arc::new(decoder.with_cache_format(cache).unwrap())
}

/// A random model as stored or quantized, with a cache of any format, loaded thrice: on one thread, on up to three, and
/// rounded to other precisions to draft with; and what it is.
pub(crate) fn random_model(numbers: &mut Numbers) -> (Arc<Decoder>, Arc<Decoder>, Arc<Decoder>, String) {
    let directory = tempfile::tempdir().unwrap();
    let description = random_checkpoint(directory.path(), numbers);
    let quantized = [QuantizedFormat::Int8, QuantizedFormat::Int4].map(|format| Some(MatrixFormat::Quantized(format)));
    let format = numbers.choose(&[None, quantized[0], quantized[1]]);
    let cache = numbers.choose(&[CacheFormat::F32, CacheFormat::F16]);
    let plain = decoder_at(directory.path(), 1, format, cache);
    let other = decoder_at(directory.path(), numbers.within(1..4), format, cache);
    if let Compute::Kernels(kernels) = other.compute() {
        // Both ways to share out the rows of a step.
        kernels.assume_distance(numbers.within(0..2) == 0);
    }
    let rounded = decoder_at(directory.path(), numbers.within(1..3), numbers.choose(&quantized), CacheFormat::F32);
    (plain, other, rounded, format!("{description} at {format:?}, cache in {cache}"))
}

/// A plan that leaves something out of so many layers, and something in.
pub(crate) fn random_plan(numbers: &mut Numbers, layers: usize) -> SkipPlan {
    loop {
        let one_in = numbers.within(1..5);
        let halves = (0..layers).flat_map(|layer| [format!("a{layer}"), format!("m{layer}")]);
        let skipped: Vec<String> = halves.filter(|_| numbers.within(0..one_in + 1) == 0).collect();
        if let Some(plan) = skipped.join(",").parse::<SkipPlan>().ok().filter(|plan| plan.check(layers).is_ok()) {
            return plan;
        }
    }
}

/// A copy of a fixture, to be changed.
pub(crate) fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// A copy of a fixture in which some matrices are zeros.
pub(crate) fn with_zeros(name: &str, zeros: &[String]) -> tempfile::TempDir {
    let copy = copy_of(name);
    let path = copy.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let data = 8 + usize::try_from(u64::from_le_bytes(*length)).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&rest[..data - 8]).unwrap();
    for zero in zeros {
        let at = |index: usize| data + usize::try_from(header[zero]["data_offsets"][index].as_u64().unwrap()).unwrap();
        bytes[at(0)..at(1)].fill(0);
    }
    std::fs::write(path, bytes).unwrap();
    copy
}

/// Loads the decoder of a directory on any computation.
pub(crate) fn decoder_on(directory: &Path, compute: &Compute) -> Arc<Decoder> {
    let checkpoint = Checkpoint::open(directory).unwrap();
    Arc::new(Decoder::load(&checkpoint, None, compute, &mut |_, _| {}).unwrap())
}

/// A small stream of pseudo-random numbers (SplitMix64), so that a failing case can be made again from its seed.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `range`.
    pub(crate) fn within(&mut self, range: std::ops::Range<usize>) -> usize {
        range.start + (self.next() % (range.end - range.start) as u64) as usize
    }

    pub(crate) fn choose<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.within(0..from.len())].clone()
    }

    /// Roughly normal with standard deviation 1.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..4).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5).sum::<f32>() * 1.7
    }
}

/// Writes a random checkpoint of a random family and shape and returns a line that describes it.
pub(crate) fn random_checkpoint(directory: &Path, numbers: &mut Numbers) -> String {
    let family = numbers.choose(&["llama", "mistral", "qwen2", "qwen3"]);
    let head_dim = numbers.choose(&[2, 6, 8, 16, 20]);
    let kv_heads = numbers.within(1..4);
    let heads = kv_heads * numbers.within(1..4);
    // Now and then wide enough for threads to share a matrix, and for every path of a product.
    let wide = numbers.within(0..4) == 0;
    let (hidden, inner) =
        if wide { (numbers.within(150..300), 500) } else { (numbers.within(3..50), numbers.within(3..90)) };
    let vocabulary = if wide { 1500 } else { numbers.within(5..70) };
    let layers = numbers.within(2..5);
    let tied = numbers.choose(&[true, false]);
    let format = numbers.choose(&[FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16]);
    let bias = family == "llama" && numbers.choose(&[true, false]);
    let window = if family == "mistral" { Some(numbers.within(2..20)) } else { None };
    // A rotation that changes within a text, now and then.
    let factors = |from: usize| -> Vec<f64> { (0..head_dim / 2).map(|pair| (from + pair) as f64).collect() };
    let scaling = (numbers.within(0..3) == 0).then(|| {
        serde_json::json!({
            "rope_type": "longrope", "original_max_position_embeddings": numbers.within(2..60),
            "short_factor": factors(1), "long_factor": factors(2),
            // What would follow from so short an original context multiplies scores, and every rounding in them, by up to nine.
            "attention_factor": 1.2,
        })
    });

    let mut tensors: Vec<(String, Vec<usize>)> = vec![
        ("model.embed_tokens.weight".into(), vec![vocabulary, hidden]),
        ("model.norm.weight".into(), vec![hidden]),
    ];
    if !tied {
        tensors.push(("lm_head.weight".into(), vec![vocabulary, hidden]));
    }
    let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
    for layer in 0..layers {
        let mut add = |name: &str, shape: Vec<usize>| tensors.push((format!("model.layers.{layer}.{name}"), shape));
        add("input_layernorm.weight", vec![hidden]);
        add("post_attention_layernorm.weight", vec![hidden]);
        for (name, out, width, has_bias) in [
            ("self_attn.q_proj", queries, hidden, bias || family == "qwen2"),
            ("self_attn.k_proj", keys, hidden, bias || family == "qwen2"),
            ("self_attn.v_proj", keys, hidden, bias || family == "qwen2"),
            ("self_attn.o_proj", hidden, queries, bias),
            ("mlp.gate_proj", inner, hidden, bias),
            ("mlp.up_proj", inner, hidden, bias),
            ("mlp.down_proj", hidden, inner, bias),
        ] {
            add(&format!("{name}.weight"), vec![out, width]);
            if has_bias {
                add(&format!("{name}.bias"), vec![out]);
            }
        }
        if family == "qwen3" {
            add("self_attn.q_norm.weight", vec![head_dim]);
            add("self_attn.k_norm.weight", vec![head_dim]);
        }
    }
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, shape)| {
            let count: usize = shape.iter().product();
            let is_norm = name.contains("norm");
            let scale = if shape.len() == 2 { 2.0 / (shape[1] as f32).sqrt() } else { 0.3 };
            let values = (0..count).map(|_| f32::from(u8::from(is_norm)) + scale * numbers.normal());
            let bytes = match format {
                FloatFormat::F32 => values.flat_map(f32::to_le_bytes).collect(),
                FloatFormat::F16 => values.flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect(),
                FloatFormat::Bf16 => values.flat_map(|v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            };
            (name, shape, bytes)
        })
        .collect();
    let dtype = match format {
        FloatFormat::F32 => Dtype::F32,
        FloatFormat::F16 => Dtype::F16,
        FloatFormat::Bf16 => Dtype::BF16,
    };
    let views: HashMap<&str, TensorView<'_>> = data
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap()))
        .collect();
    std::fs::write(directory.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let config = serde_json::json!({
        "model_type": family, "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": head_dim, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 512,
        "tie_word_embeddings": tied, "sliding_window": window, "attention_bias": bias, "mlp_bias": bias,
        "hidden_act": "silu", "eos_token_id": null, "rope_scaling": scaling,
    });
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    format!("{config} stored as {format}")
}

/// How to generate in a test: everything that may not change the tokens stays out of it.
pub(crate) struct Task<'a> {
    pub(crate) prompt: &'a [u32],
    pub(crate) new_tokens: usize,
    pub(crate) sampling: SamplingConfig,
}

impl Task<'_> {
    /// Plain decoding, written down once more without the decode loop: a row at a time, no cache rolled back, no draft.
    pub(crate) fn plain(&self, decoder: &Arc<Decoder>) -> Vec<u32> {
        self.plain_without(None, decoder)
    }

    /// The same with a target that does without some sublayers.
    pub(crate) fn plain_without(&self, skip: Option<&SkipPlan>, decoder: &Arc<Decoder>) -> Vec<u32> {
        let whole = self.prompt.len() + self.new_tokens;
        let longest_short = decoder.config().longest_short_text().unwrap_or(whole).min(whole);
        let open = |room: usize| Sequence::new(Arc::clone(decoder), room).without(skip.cloned());
        let mut sequence = open(longest_short);
        let mut sampler = Sampler::new(&self.sampling).unwrap();
        let mut tokens = self.prompt.to_vec();
        for index in 0..self.new_tokens {
            if tokens.len() > sequence.capacity() {
                sequence = open(whole);
            }
            let new = tokens[sequence.len()..].to_vec();
            let logits = new.iter().map(|token| sequence.verify(&[*token]).into_logits()).last().unwrap();
            tokens.push(sampler.pick(&logits, &tokens, index as u64).unwrap());
        }
        tokens.split_off(self.prompt.len())
    }

    /// Rounds with drafters and a draft length.
    pub(crate) fn speculative(
        &self,
        target: &Arc<Decoder>,
        drafters: Vec<Box<dyn Drafter>>,
        length: DraftLength,
    ) -> Outcome {
        self.speculative_without(None, &[], target, drafters, length)
    }

    /// The same of a target that does without some sublayers, with tokens behind which drafts end (but not the answer).
    pub(crate) fn speculative_without(
        &self,
        skip: Option<&SkipPlan>,
        stop_tokens: &[u32],
        target: &Arc<Decoder>,
        drafters: Vec<Box<dyn Drafter>>,
        length: DraftLength,
    ) -> Outcome {
        let candidates = (0..drafters.len()).map(|_| Candidate::new(DrafterChoice::Lookup, 0.0)).collect();
        let (mut planner, mut pools) = (Planner::new(candidates), Pools::new(usize::MAX));
        let mut drafters = Some(drafters.into_iter().map(Some).collect());
        let limit = self.prompt.len() + self.new_tokens;
        let sampler = Sampler::new(&self.sampling).unwrap();
        let mut request = Request::new(self.prompt.to_vec(), limit, sampler, None, Rounds(Vec::new()))
            .stopping_at(stop_tokens.to_vec());
        while request.end().is_none() {
            if request.is_read() {
                let state = planner.begin(self.new_tokens, 0.0);
                request.decode(DecodeSetup { drafters: drafters.take().unwrap(), length, early: None, state });
            }
            let mut target = Target { decoder: target, skip, planner: &mut planner, pools: &mut pools };
            round(&mut target, &mut [&mut request]);
        }
        request.release(target, &mut pools);
        assert!(matches!(request.end(), Some(End::Complete)), "{:?}", request.end());
        let tokens = request.tokens()[self.prompt.len()..].to_vec();
        let layer_evaluations = request.layer_evaluations();
        Outcome { tokens, layer_evaluations, rounds: request.into_listener().0 }
    }
}

/// What came of a task.
pub(crate) struct Outcome {
    pub(crate) tokens: Vec<u32>,
    pub(crate) rounds: Vec<Round>,
    pub(crate) layer_evaluations: u64,
}

/// Writes the rounds down and never stops.
struct Rounds(Vec<Round>);

impl Listener for Rounds {
    fn token(&mut self, _: u32) -> Flow {
        Flow::Continue
    }

    fn round(&mut self, round: &Round, _: usize) {
        self.0.push(*round);
    }

    fn drafter_failed(&mut self, _: usize, error: &SamplingError) {
        panic!("a drafter failed: {error}");
    }
}

/// Drafts anything: right tokens, wrong ones, too few, none; with the target's lower layers run for other
/// tokens than it drafts, or for none.
pub(crate) struct Chaos {
    pub(crate) numbers: Numbers,
    /// The answer of plain decoding, prompt included, to be right sometimes.
    pub(crate) right: Vec<u32>,
    pub(crate) vocabulary: usize,
    pub(crate) layers: usize,
    /// What it had computed in this draft.
    pub(crate) asked: usize,
}

impl Drafter for Chaos {
    fn go_on(&mut self, request: &mut DraftRequest<'_>, _: Option<&[f32]>) -> Result<Option<Ask>, SamplingError> {
        let honesty = self.numbers.within(0..11);
        let excess = self.numbers.within(0..10) == 0;
        while (excess || request.wants_another()) && self.numbers.within(0..8) > 0 {
            if self.numbers.within(0..3) == 0 && self.asked < 20 {
                self.asked += 1;
                let token = if self.numbers.within(0..2) == 0 { request.last() } else { 0 };
                return Ok(Some(Ask::Exit { depth: self.numbers.within(1..self.layers), token }));
            }
            let at = request.history().len();
            let guess = self.numbers.within(0..self.vocabulary) as u32;
            let honest = self.numbers.within(0..10) < honesty;
            let log_odds = self.numbers.within(0..8) as f32 - 2.0;
            request.push(if honest { self.right.get(at).copied().unwrap_or(guess) } else { guess }, log_odds);
        }
        self.asked = 0;
        Ok(None)
    }
}
