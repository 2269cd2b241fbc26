//! Sequences that are computed together, as in training: as many tokens each, every one of one or more documents.

use burn::tensor::{Bool, Device, Tensor, TensorData};

/// Tokens of several sequences of the same length, one after the other. Documents packed into one sequence do not see
/// each other.
#[derive(Debug, Clone)]
pub struct Batch {
    tokens: Vec<u32>,
    length: usize,
    /// For every token, where in its sequence its document begins.
    starts: Vec<u32>,
}

impl Batch {
    /// A batch of sequences of `length` tokens. `starts` says for every token at which index of its own sequence the
    /// document begins that it is part of.
    ///
    /// # Panics
    /// If `tokens` are no whole sequences, or `starts` has another length or a document that begins after its token.
    pub fn new(tokens: Vec<u32>, length: usize, starts: Vec<u32>) -> Self {
        assert!(length > 0 && tokens.len().is_multiple_of(length), "tokens are whole sequences");
        assert_eq!(tokens.len(), starts.len(), "every token has a document");
        let behind = |(index, &start): (usize, &u32)| start as usize <= index % length;
        assert!(starts.iter().enumerate().all(behind), "documents begin at or before their tokens");
        Self { tokens, length, starts }
    }

    /// A batch in which every sequence is one document.
    ///
    /// # Panics
    /// If `tokens` are no whole sequences.
    pub fn whole(tokens: Vec<u32>, length: usize) -> Self {
        let starts = vec![0; tokens.len()];
        Self::new(tokens, length, starts)
    }

    /// The tokens of all sequences.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// For every token, at which index of its own sequence its document begins.
    pub fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// Tokens of a sequence.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Every token's position in its document.
    pub(super) fn positions(&self) -> impl ExactSizeIterator<Item = usize> {
        self.starts.iter().enumerate().map(|(index, &start)| index % self.length - start as usize)
    }

    /// For every token the first index of its sequence that it sees, with attention no further back than `window`.
    pub(super) fn first_seen(&self, window: Option<usize>) -> Vec<u32> {
        let first = |(index, &start): (usize, &u32)| {
            let of_window = window.map_or(0, |window| (index % self.length + 1).saturating_sub(window));
            start.max(of_window as u32)
        };
        self.starts.iter().enumerate().map(first).collect()
    }
}

/// Attention masks of a batch's rows, made once for all layers that have the same window.
#[derive(Default)]
pub(super) struct Masks(Vec<(Option<usize>, Tensor<3, Bool>)>);

impl Masks {
    /// True where a row must not look, `[sequences, length, length]`.
    pub(super) fn hidden(&mut self, batch: &Batch, window: Option<usize>, device: &Device) -> Tensor<3, Bool> {
        if let Some((_, mask)) = self.0.iter().find(|(of, _)| *of == window) {
            return mask.clone();
        }
        let length = batch.length;
        let rows = batch.first_seen(window).into_iter().enumerate();
        let hidden: Vec<bool> = rows
            .flat_map(|(index, first)| (0..length).map(move |key| key > index % length || key < first as usize))
            .collect();
        let shape = [batch.tokens.len() / length, length, length];
        let mask = Tensor::<3, Bool>::from_data(TensorData::new(hidden, shape), device);
        self.0.push((window, mask.clone()));
        mask
    }
}
