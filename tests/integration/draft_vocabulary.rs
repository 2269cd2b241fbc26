//! Drafts that choose from some tokens alone: what their logits are, that no other token is drafted, and which files are
//! refused. That answers stay the same is in `exactness.rs`.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use paceline::checkpoint::{Checkpoint, DRAFT_VOCABULARY};
use paceline::drafters::exit::ExitDrafter;
use paceline::drafters::model::ModelDrafter;
use paceline::drafters::{Ask, DraftRequest, Drafter};
use paceline::model::{Compute, Decoder, DeviceName, MatrixFormat, Sequence};
use paceline::sampling::{SamplingConfig, SamplingError};
use paceline::speculation::DraftLength;
use paceline_kernels::QuantizedFormat;

use crate::exits::ExitsFile;
use crate::support::{Task, copy_of, fixture};

/// The tokens of a fixture's draft vocabulary: every third.
pub(crate) fn every_third(directory: &Path) -> Vec<u32> {
    let vocabulary = Checkpoint::open(directory).unwrap().config().vocab_size as u32;
    (1..vocabulary).step_by(3).collect()
}

/// Writes it beside a model.
pub(crate) fn write(directory: &Path) {
    let text = serde_json::to_string(&every_third(directory)).unwrap();
    std::fs::write(directory.join(DRAFT_VOCABULARY), text).unwrap();
}

fn load(directory: &Path, format: Option<MatrixFormat>, compute: &Compute, restricted: bool) -> Arc<Decoder> {
    let checkpoint = Checkpoint::open(directory).unwrap();
    let mut decoder = Decoder::load(&checkpoint, format, compute, &mut |_, _| {}).unwrap();
    if let Some(exits) = checkpoint.exits().unwrap() {
        decoder = decoder.with_exits(&checkpoint, &exits).unwrap();
    }
    if restricted {
        decoder = decoder.with_draft_vocabulary(&checkpoint, format, every_third(directory)).unwrap();
    }
    Arc::new(decoder)
}

/// The same bits for the tokens that may be drafted, in every format, and nothing for the others; plain logits as they were.
#[test]
fn logits_are_those_of_the_tokens_that_may_be_drafted() {
    let formats = [None, Some(QuantizedFormat::Int8), Some(QuantizedFormat::Int4)];
    for name in ["llama-tied", "qwen2-bias"] {
        let model = ExitsFile::new(name, 5).write();
        let tokens = every_third(model.path());
        let processor = Compute::open(DeviceName::Cpu, 2).unwrap();
        for (format, compute) in formats
            .map(|format| (format.map(MatrixFormat::Quantized), &processor))
            .into_iter()
            .chain([(None, &Compute::Burn(Device::flex()))])
        {
            let (whole, restricted) =
                (load(model.path(), format, compute, false), load(model.path(), format, compute, true));
            let text = [3, 7, 1, 9, 4];
            let sequences = || [&whole, &restricted].map(|decoder| Sequence::new(Arc::clone(decoder), 32));
            let [mut a, mut b] = sequences();
            assert_eq!(a.verify(&text).into_logits(), b.verify(&text).into_logits());
            let [mut a, mut b] = sequences();
            let [mut c, mut d] = sequences();
            let pairs = [
                (a.next_logits(&text), b.next_draft_logits(&text)),
                (c.draft_early(3, 1).unwrap(), d.draft_early(3, 1).unwrap()),
            ];
            for (all, some) in pairs {
                assert_eq!(all.len(), some.len());
                for (token, (all, some)) in (0_u32..).zip(all.iter().zip(&some)) {
                    let expected = if tokens.contains(&token) { *all } else { f32::NEG_INFINITY };
                    assert_eq!(some.to_bits(), expected.to_bits(), "{name}, {format:?}, token {token}");
                }
            }
            assert!(restricted.bytes_per_draft() < restricted.bytes_per_step() || matches!(compute, Compute::Burn(_)));
        }
    }
}

/// A drafter that is asked, and looked at.
struct Watched {
    drafter: Box<dyn Drafter>,
    allowed: Vec<u32>,
}

impl Drafter for Watched {
    fn go_on(&mut self, request: &mut DraftRequest<'_>, logits: Option<&[f32]>) -> Result<Option<Ask>, SamplingError> {
        let ask = self.drafter.go_on(request, logits)?;
        let drafted = &request.history()[request.accepted().len()..];
        assert!(drafted.iter().all(|token| self.allowed.contains(token)), "{drafted:?}");
        Ok(ask)
    }
}

#[test]
fn no_other_token_is_drafted_and_answers_stay_the_same() {
    let directory = fixture("llama-tied");
    let processor = Compute::open(DeviceName::Cpu, 1).unwrap();
    let (plain, restricted) = (load(&directory, None, &processor, false), load(&directory, None, &processor, true));
    for temperature in [0.0, 0.9] {
        let sampling = SamplingConfig { temperature, ..SamplingConfig::default() };
        let task = Task { prompt: &[5, 9, 2, 77, 31, 8], new_tokens: 40, sampling };
        let expected = task.plain(&plain);
        let drafters: [Box<dyn Drafter>; 2] = [
            Box::new(ExitDrafter::new(1, 1.0)),
            // The model as its own draft, which would be right always.
            Box::new(ModelDrafter::new(Arc::clone(&restricted), 64)),
        ];
        for drafter in drafters {
            let watched = Watched { drafter, allowed: every_third(&directory) };
            let outcome = task.speculative(&restricted, vec![Box::new(watched)], DraftLength::Fixed(4));
            assert_eq!(outcome.tokens, expected);
            assert!(outcome.rounds.iter().any(|round| round.drafted > 0));
        }
    }
}

#[test]
fn files_that_do_not_fit_are_refused_with_a_sentence() {
    let model = copy_of("llama-tied");
    for (text, said) in [
        ("[]", "it names no token"),
        ("[3, 3]", "3 stands before 3"),
        ("[7, 3]", "7 stands before 3"),
        ("[1, 999999]", "it names token 999999, and the model has"),
        ("[-1]", "draft_vocabulary.json"),
        ("{}", "draft_vocabulary.json"),
        ("[1, 2", "draft_vocabulary.json"),
    ] {
        std::fs::write(model.path().join(DRAFT_VOCABULARY), text).unwrap();
        let message = Checkpoint::open(model.path()).unwrap().draft_vocabulary().unwrap_err().to_string();
        assert!(message.contains(said) && !message.contains('\n') && message.ends_with('.'), "{message}");
    }
    std::fs::remove_file(model.path().join(DRAFT_VOCABULARY)).unwrap();
    assert_eq!(Checkpoint::open(model.path()).unwrap().draft_vocabulary().unwrap(), None);
}
