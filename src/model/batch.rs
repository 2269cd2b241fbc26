//! Sequences that are computed together, as in training: as many tokens each, every one of one or more documents.

use burn::tensor::{Bool, Device, Tensor, TensorData};

use super::angles::Place;

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

    /// Every token's place in its document; those with more than `longest_short` tokens are long ones.
    pub(super) fn places(&self, longest_short: Option<usize>) -> Vec<Place> {
        let mut places = Vec::with_capacity(self.starts.len());
        for starts in self.starts.chunks(self.length) {
            let mut end = 0;
            for document in starts.chunk_by(|one, next| one == next) {
                let (first, start) = (end, document[0] as usize);
                end += document.len();
                let is_long = longest_short.is_some_and(|longest| end - start > longest);
                places.extend((first - start..end - start).map(|position| Place { position, is_long }));
            }
        }
        places
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_s_place_is_that_in_its_document_whose_length_makes_it_a_long_one() {
        // Two sequences of six: documents of 2 and 4 tokens, then one of 6.
        let starts = vec![0, 0, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0];
        let batch = Batch::new(vec![7; 12], 6, starts);
        let place = |(position, is_long)| Place { position, is_long };
        let expect = |longest: usize| -> Vec<Place> {
            [2, 4, 6]
                .into_iter()
                .flat_map(|len| (0..len).map(move |position| (position, len > longest)))
                .map(place)
                .collect()
        };
        assert_eq!(batch.places(None), expect(6));
        for longest in 1..7 {
            assert_eq!(batch.places(Some(longest)), expect(longest), "{longest}");
        }
    }
}
