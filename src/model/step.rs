//! A forward pass as data: rows of any sequences go in, logits and states come out.
//!
//! A row's result depends on the tokens of its own sequence alone (row-invariant kernels), so a step may hold any mixture of
//! rows: a prompt's chunk, the newest token of an answer with a draft behind it, rows of other answers. [`Decoder::run`] cuts a
//! step where rows enter or states are handed out; a [`Backend`] computes what lies between.

use std::ops::Range;

use super::decoder::Decoder;
use super::hidden::Hidden;
use super::pool::{KvPool, SlotId, SlotRun};
use super::skip::SkipPlan;

/// Rows of one sequence, at consecutive positions.
pub struct Rows {
    /// The sequence. It has pages for the rows ([`KvPool::reserve`]).
    pub slot: SlotId,
    /// The position of the first row: as many positions are filled before it.
    pub position: usize,
    /// The rows' tokens.
    pub tokens: Vec<u32>,
    /// Work of lower layers that was done for the first of the tokens.
    pub early: Option<Early>,
    /// The rows whose logits are wanted.
    pub want: Want,
}

/// States of rows that went through the lowest layers before.
pub struct Early {
    /// Layers that they went through.
    pub depth: usize,
    /// The states, `[rows, hidden]`.
    pub states: Hidden,
}

impl Early {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.states.rows()
    }
}

/// Rows whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// None.
    Nothing,
    /// Of the last row.
    Last,
    /// Of all rows.
    All,
}

impl Want {
    fn rows(self, rows: usize) -> Range<usize> {
        match self {
            Self::Nothing => 0..0,
            Self::Last => rows.saturating_sub(1)..rows,
            Self::All => 0..rows,
        }
    }
}

/// Tokens that logits are wanted of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// All.
    Whole,
    /// Those that drafts choose from: the others get minus infinity.
    Drafted,
}

/// One pass.
pub struct Step<'a> {
    /// The rows, by sequence, each at most once.
    pub rows: Vec<Rows>,
    /// Layers that run, the lowest ones. If not all, logits are the exit's there.
    pub depth: usize,
    /// Sublayers to leave out.
    pub skip: Option<&'a SkipPlan>,
    /// Numbers of lowest layers after which states are handed out.
    pub taps: &'a [usize],
    /// Tokens that logits are wanted of.
    pub vocabulary: Vocabulary,
}

/// Results of a step.
pub struct Output {
    /// Logits of the wanted rows, one after the other.
    logits: Vec<f32>,
    vocabulary: usize,
    /// First row of each part, and first of its rows whose logits are there.
    firsts: Vec<usize>,
    wanted: Vec<usize>,
    states: Hidden,
    tapped: Vec<Tapped>,
}

/// States at a tap, and where each part's lie among them.
#[derive(Default)]
struct Tapped {
    states: Option<Hidden>,
    parts: Vec<Range<usize>>,
}

impl Output {
    /// The logits of a wanted row of a part (an index into [`Step::rows`]), `[vocabulary]`; rows that are not wanted are not
    /// counted.
    ///
    /// # Panics
    /// If it was not wanted.
    pub fn logits(&self, part: usize, row: usize) -> &[f32] {
        let row = self.wanted[part] + row;
        assert!(row < self.wanted[part + 1], "the logits were wanted");
        &self.logits[row * self.vocabulary..(row + 1) * self.vocabulary]
    }

    /// The logits of all wanted rows, row-major.
    pub fn into_logits(self) -> Vec<f32> {
        self.logits
    }

    /// The states of a part after the last layer that ran, before the final norm: `[rows, hidden]`.
    pub fn states(&self, part: usize) -> Hidden {
        self.states.slice(self.firsts[part]..self.firsts[part + 1])
    }

    /// The states of a part at a tap (an index into [`Step::taps`]), `[rows, hidden]`; `None` if one of its rows entered above
    /// it, or there is no such tap.
    pub fn tapped(&self, part: usize, tap: usize) -> Option<Hidden> {
        let Tapped { states, parts } = self.tapped.get(tap)?;
        let rows = self.firsts[part + 1] - self.firsts[part];
        let range = parts.get(part).filter(|range| range.len() == rows)?;
        states.as_ref().map(|states| states.slice(range.clone()))
    }
}

/// A way to compute what lies between the cuts of a step.
pub(super) trait Backend {
    /// The tokens' embeddings, `[tokens, hidden]`: the input of layer 0.
    fn embed(&self, tokens: &[u32]) -> Hidden;

    /// Runs layers, but for what `skip` names, over the rows of all runs, one run after the other, and writes their keys and
    /// values.
    fn run(
        &self,
        layers: Range<usize>,
        hidden: Hidden,
        runs: &[SlotRun],
        skip: Option<&SkipPlan>,
        kv: &mut KvPool,
    ) -> Hidden;

    /// False while a whole step of so many rows is still run in different ways to find the fastest.
    fn is_settled(&self, _rows: usize) -> bool {
        true
    }

    /// Writes the keys and values of layers, but for attention that `skip` names, that their norms and projections make of
    /// `hidden`, as if it were the input of each of them.
    fn propagate(
        &self,
        layers: Range<usize>,
        hidden: &Hidden,
        runs: &[SlotRun],
        skip: Option<&SkipPlan>,
        kv: &mut KvPool,
    );

    /// Logits `[rows, vocabulary]`, row-major, of states that left the last layer or, where an exit's depth is given, that many
    /// layers.
    fn logits(&self, hidden: &Hidden, exit: Option<usize>, vocabulary: Vocabulary) -> Vec<f32>;
}

/// Rows of a part that are on their way through the layers together.
struct Segment {
    part: usize,
    first: usize,
    rows: usize,
    /// The first layer that they run.
    enters: usize,
}

/// The segments of a step, in the order of its rows.
fn segments(rows: &[Rows]) -> Vec<Segment> {
    let mut segments = Vec::with_capacity(rows.len());
    for (part, Rows { tokens, early, .. }) in rows.iter().enumerate() {
        let ahead = early.as_ref().map_or(0, Early::rows);
        assert!(ahead <= tokens.len(), "states are of the first of the tokens");
        if let Some(early) = early {
            segments.push(Segment { part, first: 0, rows: ahead, enters: early.depth });
        }
        if ahead < tokens.len() {
            segments.push(Segment { part, first: ahead, rows: tokens.len() - ahead, enters: 0 });
        }
    }
    segments
}

/// A step on its way through the layers.
struct Pass<'a> {
    rows: &'a [Rows],
    segments: Vec<Segment>,
    /// States of the segments that have entered, in their order; `None` where none has.
    hidden: Option<Hidden>,
}

impl Pass<'_> {
    /// Adds the rows that begin with layer `from` to those that run.
    fn enter(&mut self, from: usize, backend: &dyn Backend) {
        let here = || self.segments.iter().filter(|segment| segment.enters == from);
        if here().next().is_none() {
            return;
        }
        if from == 0 {
            let tokens =
                here().flat_map(|segment| &self.rows[segment.part].tokens[segment.first..segment.first + segment.rows]);
            self.hidden = Some(backend.embed(&tokens.copied().collect::<Vec<u32>>()));
            return;
        }
        let (before, mut at) = (self.hidden.take(), 0);
        let mut parts = Vec::with_capacity(self.segments.len());
        for segment in self.segments.iter().filter(|segment| segment.enters <= from) {
            if segment.enters == from {
                parts.extend(self.rows[segment.part].early.as_ref().map(|early| early.states.clone()));
            } else {
                parts.extend(before.as_ref().map(|before| before.slice(at..at + segment.rows)));
                at += segment.rows;
            }
        }
        self.hidden = Some(Hidden::cat(parts));
    }

    /// The rows that run from layer `from` on.
    fn runs(&self, from: usize, kv: &KvPool) -> Vec<SlotRun> {
        let mut runs: Vec<SlotRun> = Vec::with_capacity(self.rows.len());
        let mut last = None;
        for segment in self.segments.iter().filter(|segment| segment.enters <= from) {
            let Rows { slot, position, .. } = self.rows[segment.part];
            match runs.last_mut().filter(|_| last == Some(segment.part)) {
                Some(run) => run.rows += segment.rows,
                None => runs.push(kv.run_of(slot, position + segment.first, segment.rows)),
            }
            last = Some(segment.part);
        }
        runs
    }

    /// Where each part's rows lie among the states after `depth` layers.
    fn parts_at(&self, depth: usize) -> Vec<Range<usize>> {
        let (mut at, mut parts) = (0, vec![0..0; self.rows.len()]);
        for segment in self.segments.iter().filter(|segment| segment.enters < depth.max(1)) {
            let part = &mut parts[segment.part];
            *part = if part.start == part.end { at..at + segment.rows } else { part.start..at + segment.rows };
            at += segment.rows;
        }
        parts
    }
}

impl Decoder {
    /// Runs a step.
    ///
    /// # Panics
    /// If a token is not in the vocabulary, rows are not what comes next in their sequence, it has no pages for them, states
    /// enter above the layers that run, or there are no rows.
    pub fn run(&self, step: &Step<'_>, kv: &mut KvPool) -> Output {
        let Step { rows, depth, skip, taps, .. } = step;
        let backend = self.backend();
        let mut pass = Pass { rows, segments: segments(rows), hidden: None };
        let mut tapped: Vec<Tapped> = (0..taps.len()).map(|_| Tapped::default()).collect();
        let mut hand_out = |after: usize, pass: &Pass<'_>| {
            for (tapped, _) in tapped.iter_mut().zip(*taps).filter(|(_, tap)| **tap == after) {
                *tapped = Tapped { states: pass.hidden.clone(), parts: pass.parts_at(after) };
            }
        };
        for cut in cuts(step).windows(2) {
            let (from, to) = (cut[0], cut[1]);
            pass.enter(from, backend);
            if from == 0 {
                hand_out(0, &pass);
            }
            if let Some(hidden) = pass.hidden.take() {
                let runs = pass.runs(from, kv);
                kv.check(&runs, from..to, *skip);
                pass.hidden = Some(backend.run(from..to, hidden, &runs, *skip, kv));
                kv.advance(&runs, from..to, *skip);
            }
            hand_out(to, &pass);
        }
        let states = pass.hidden.take().expect("a step has rows");
        let exit = (*depth < self.layer_count()).then_some(*depth);
        let (wanted, selected) = select(rows, &states);
        let logits = selected.map(|states| backend.logits(&states, exit, step.vocabulary)).unwrap_or_default();
        let firsts = firsts(rows.iter().map(|part| part.tokens.len()));
        Output { logits, vocabulary: self.config().vocab_size, firsts, wanted, states, tapped }
    }

    /// False while steps of so many rows are still run in different ways to find the fastest: what they take then is not what
    /// they will take.
    pub fn is_settled(&self, rows: usize) -> bool {
        self.backend().is_settled(rows)
    }

    /// Writes the keys and values of the layers from an exit on that they would make of `states`, `[rows, hidden]`, if those were
    /// the input of each of them: CALM's way (Schuster et al. 2022) to fill what lies above an exit. The first row is at
    /// `position`.
    ///
    /// # Panics
    /// If they are not what comes next in these layers, or there are no pages for them.
    pub fn propagate(&self, slot: SlotId, position: usize, early: &Early, skip: Option<&SkipPlan>, kv: &mut KvPool) {
        let layers = early.depth..self.layer_count();
        let runs = [kv.run_of(slot, position, early.rows())];
        kv.check(&runs, layers.clone(), skip);
        self.backend().propagate(layers.clone(), &early.states, &runs, skip, kv);
        kv.advance(&runs, layers, skip);
    }
}

/// Where a pass stops: rows enter, states are handed out, or it ends.
fn cuts(step: &Step<'_>) -> Vec<usize> {
    let early = step.rows.iter().filter_map(|rows| rows.early.as_ref()).map(|early| early.depth);
    let taps = step.taps.iter().copied().filter(|tap| *tap <= step.depth);
    let mut cuts: Vec<usize> = early.chain(taps).chain([0, step.depth]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    assert!(cuts.last() == Some(&step.depth), "states enter below the last layer that runs");
    cuts
}

/// Sums of all numbers before each, and of all.
fn firsts(numbers: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut sum = 0;
    let ends = numbers.map(|number| {
        sum += number;
        sum
    });
    std::iter::once(0).chain(ends).collect()
}

/// The states of the rows whose logits are wanted, `None` if there are none; with the first of them by part.
fn select(rows: &[Rows], states: &Hidden) -> (Vec<usize>, Option<Hidden>) {
    let wanted = firsts(rows.iter().map(|part| part.want.rows(part.tokens.len()).len()));
    let all = wanted.last().copied().unwrap_or(0);
    if all == 0 || all == states.rows() {
        return (wanted, (all > 0).then(|| states.clone()));
    }
    let mut first = 0;
    let mut parts = Vec::with_capacity(rows.len());
    for part in rows {
        let range = part.want.rows(part.tokens.len());
        if !range.is_empty() {
            parts.push(states.slice(first + range.start..first + range.end));
        }
        first += part.tokens.len();
    }
    (wanted, Some(Hidden::cat(parts)))
}
