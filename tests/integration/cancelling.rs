//! Cancelling: an answer that is no longer wanted ends within one step, its prefill within one part.

use paceline::drafters::{DraftRequest, Drafter, DrafterChoice};
use paceline::model::Sequence;
use paceline::sampling::{Sampler, SamplingConfig, SamplingError};
use paceline::speculation::decode::{Decode, Flow, Listener};
use paceline::speculation::planner::Candidate;
use paceline::speculation::{DraftLength, Planner, Round};

use crate::support::{decoder, fixture};

/// Wants so many rounds and counts those it gets.
struct Patience {
    wanted: usize,
    rounds: usize,
    tokens: usize,
}

impl Listener for Patience {
    fn token(&mut self, _: u32) -> Flow {
        self.tokens += 1;
        Flow::Continue
    }

    fn round(&mut self, _: &Round) {
        self.rounds += 1;
    }

    fn drafter_failed(&mut self, _: usize, error: &SamplingError) {
        panic!("{error}");
    }

    fn is_cancelled(&self) -> bool {
        self.rounds >= self.wanted
    }
}

/// Drafts one token and notes whether it was told to stop.
struct Asking;

impl Drafter for Asking {
    fn draft(&mut self, request: &mut DraftRequest<'_>) -> Result<(), SamplingError> {
        assert!(!(request.cancelled)(), "an answer that is no longer wanted gets no draft");
        request.push(1, 0.0);
        Ok(())
    }
}

#[test]
fn decoding_ends_with_the_step_in_which_it_is_cancelled() {
    let decoder = decoder(&fixture("llama-tied"), 1);
    for wanted in [0, 1, 5] {
        let mut target = Sequence::new(decoder.clone(), 128);
        let mut listener = Patience { wanted, rounds: 0, tokens: 0 };
        let mut tokens = vec![3];
        let decode = Decode {
            target: &mut target,
            drafters: &mut [Some(Box::new(Asking))],
            planner: &mut Planner::new(vec![Candidate::new(DrafterChoice::Lookup, 0.0)]),
            length: DraftLength::Fixed(1),
            sampler: &mut Sampler::new(&SamplingConfig::default()).unwrap(),
            tokens: &mut tokens,
            prompt: 1,
            limit: 100,
            stop_tokens: &[],
        };
        decode.run(&mut listener).unwrap();
        assert_eq!(listener.rounds, wanted);
        assert!((wanted..=2 * wanted).contains(&listener.tokens));
    }
}

#[test]
fn a_prefill_ends_with_the_part_in_which_it_is_cancelled() {
    let decoder = decoder(&fixture("llama-tied"), 1);
    let layers = decoder.layer_count() as u64;
    let mut sequence = Sequence::new(decoder, 128);
    let mut heard = Vec::new();
    let done = sequence.prefill(&[5; 100], 32, |done| {
        heard.push(done);
        done < 64
    });
    assert_eq!((done, heard), (64, vec![0, 32, 64]));
    assert_eq!((sequence.len(), sequence.layer_evaluations()), (64, 64 * layers));
}
