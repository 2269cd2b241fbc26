//! Attention and its cache, in every format: the same bits however a text is cut, nothing read that is not visible,
//! close to what f64 gives.

mod common;

use common::{Cache, all_kernels, bits, reference, values};
use half::f16;
use paceline_kernels::{CacheFormat, HeadTransform, Kernels, LayerPages, PAGE_POSITIONS, Run, Scores};
use proptest::prelude::*;

/// One layer's queries, keys and values for a text.
#[derive(Debug)]
struct Text {
    len: usize,
    heads: usize,
    kv_heads: usize,
    dim: usize,
    window: Option<usize>,
    cap: Option<f32>,
    format: CacheFormat,
    q: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Text {
    fn new(seed: u64, len: usize, group: usize, kv_heads: usize, dim: usize, window: Option<usize>) -> Self {
        let heads = group * kv_heads;
        Self {
            len,
            heads,
            kv_heads,
            dim,
            window,
            cap: None,
            format: CacheFormat::F32,
            q: values(seed, len * heads * dim, 2.0),
            keys: values(seed ^ 1, len * kv_heads * dim, 2.0),
            values: values(seed ^ 2, len * kv_heads * dim, 1.0),
        }
    }

    fn scores(&self) -> Scores {
        Scores { scale: 1.0 / (self.dim as f32).sqrt(), cap: self.cap }
    }

    fn cache(&self) -> Cache {
        Cache::new(self.kv_heads, self.dim, self.len + 3, self.format)
    }

    fn append(&self, cache: &mut Cache, rows: usize) {
        let (at, width) = (cache.len, self.kv_heads * self.dim);
        let range = at * width..(at + rows) * width;
        cache.append(&self.keys[range.clone()], &self.values[range], rows);
    }

    fn attend(&self, kernels: &Kernels, cache: &Cache, start: usize, rows: usize) -> Vec<f32> {
        let width = self.heads * self.dim;
        let mut out = vec![f32::NAN; rows * width];
        let q = &self.q[start * width..(start + rows) * width];
        let runs = [cache.rows_at(start, rows)];
        kernels.attention(q, self.heads, &runs, &cache.layer, self.window, self.scores(), &mut out);
        out
    }

    /// All positions at once.
    fn whole(&self, kernels: &Kernels) -> Vec<f32> {
        let mut cache = self.cache();
        self.append(&mut cache, self.len);
        self.attend(kernels, &cache, 0, self.len)
    }

    fn in_chunks(&self, kernels: &Kernels, chunks: &[usize]) -> Vec<f32> {
        let mut cache = self.cache();
        let mut out = Vec::new();
        let mut chunks = chunks.iter().cycle();
        while cache.len < self.len {
            let start = cache.len;
            let rows = (*chunks.next().expect("a cycle has no end")).min(self.len - start);
            self.append(&mut cache, rows);
            out.extend(self.attend(kernels, &cache, start, rows));
        }
        out
    }

    /// What an f64 computes from keys and values as the cache holds them.
    fn exact(&self) -> Vec<f64> {
        let held = |value: f32| match self.format {
            CacheFormat::F32 => f64::from(value),
            // Rounded in software, which the cache need not do.
            CacheFormat::F16 => f64::from(f16::from_f32_const(value).to_f32_const()),
        };
        let (dim, group) = (self.dim, self.heads / self.kv_heads);
        let mut out = Vec::new();
        for row in 0..self.len {
            let first = self.window.map_or(0, |window| (row + 1).saturating_sub(window));
            for head in 0..self.heads {
                let q = &self.q[(row * self.heads + head) * dim..][..dim];
                let at = |position: usize| (position * self.kv_heads + head / group) * dim;
                let scores: Vec<f64> = (first..=row)
                    .map(|p| q.iter().zip(&self.keys[at(p)..]).map(|(q, k)| f64::from(*q) * held(*k)).sum::<f64>())
                    .map(|dot| dot * f64::from(self.scores().scale))
                    .map(|score| self.cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh()))
                    .collect();
                let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - greatest).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..dim {
                    let sum = weights.iter().zip(first..).map(|(w, p)| w * held(self.values[at(p) + d])).sum::<f64>();
                    out.push(sum / total);
                }
            }
        }
        out
    }
}

fn texts() -> impl Strategy<Value = Text> {
    let dim = prop_oneof![Just(16_usize), Just(64), Just(80), Just(128), 1..100_usize];
    let shape = (any::<u64>(), 1..200_usize, 1..=8_usize, 1..=3_usize, dim, proptest::option::of(1..150_usize));
    let format = prop_oneof![Just(CacheFormat::F32), Just(CacheFormat::F16)];
    (shape, format, proptest::option::of(0.5..50.0_f32)).prop_map(|(shape, format, cap)| {
        let (seed, len, group, kv_heads, dim, window) = shape;
        Text { format, cap, ..Text::new(seed, len, group, kv_heads, dim, window) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn chunks_give_the_bits_of_the_whole(text in texts(), chunks in proptest::collection::vec(1..40_usize, 1..6)) {
        let kernels = Kernels::new(2).expect("threads start");
        let whole = bits(&text.whole(&kernels));
        prop_assert_eq!(&bits(&text.in_chunks(&kernels, &chunks)), &whole);
        prop_assert_eq!(&bits(&text.in_chunks(&kernels, &[1])), &whole);
    }

    #[test]
    fn all_configurations_give_the_scalar_bits(text in texts()) {
        let expected = bits(&text.whole(&reference()));
        for kernels in all_kernels() {
            prop_assert_eq!(&bits(&text.whole(&kernels)), &expected);
        }
    }

    #[test]
    fn it_is_close_to_f64(text in texts()) {
        let kernels = Kernels::new(1).expect("threads start");
        for (found, exact) in text.whole(&kernels).into_iter().zip(text.exact()) {
            prop_assert!((f64::from(found) - exact).abs() < 2e-5, "{} instead of {}", found, exact);
        }
    }

    #[test]
    fn what_is_not_visible_is_not_read(text in texts(), cut in 0.0..1.0_f64) {
        let kernels = Kernels::new(1).expect("threads start");
        let whole = text.whole(&kernels);
        let width = text.heads * text.dim;
        let row = (text.len as f64 * cut) as usize;
        let expected = bits(&whole[row * width..(row + 1) * width]);
        // The same position, with NaN behind it and, where there is a window, before it.
        let first = text.window.map_or(0, |window| (row + 1).saturating_sub(window));
        let kv_width = text.kv_heads * text.dim;
        let mut spoiled = Text { q: text.q.clone(), keys: text.keys.clone(), values: text.values.clone(), ..text };
        for spoil in [&mut spoiled.keys, &mut spoiled.values] {
            spoil[..first * kv_width].fill(f32::NAN);
            spoil[(row + 1) * kv_width..].fill(f32::NAN);
        }
        let mut cache = spoiled.cache();
        spoiled.append(&mut cache, spoiled.len);
        for kernels in all_kernels() {
            prop_assert_eq!(&bits(&spoiled.attend(&kernels, &cache, row, 1)), &expected);
            // Nor by rows that see it and are taken together with one that does not.
            let together = spoiled.attend(&kernels, &cache, row, (spoiled.len - row).min(5));
            prop_assert_eq!(&bits(&together[..width]), &expected);
        }
    }

    #[test]
    fn what_was_overwritten_equals_what_is_fresh(text in texts(), cut in 0.0..1.0_f64) {
        let kernels = Kernels::new(2).expect("threads start");
        let keep = (text.len as f64 * cut) as usize;
        let mut cache = text.cache();
        text.append(&mut cache, keep);
        // A draft that is thrown away, of garbage.
        let garbage = vec![f32::NAN; 3 * text.kv_heads * text.dim];
        cache.append(&garbage, &garbage, 3);
        cache.len = keep;
        text.append(&mut cache, text.len - keep);
        let found = text.attend(&kernels, &cache, keep, text.len - keep);
        let whole = text.whole(&kernels);
        prop_assert_eq!(bits(&found), bits(&whole[keep * text.heads * text.dim..]));
    }
}

#[test]
fn one_visible_position_gives_its_value() {
    let text = Text::new(1, 70, 3, 2, 64, Some(1));
    for kernels in all_kernels() {
        let out = text.whole(&kernels);
        for (row, out) in out.chunks_exact(text.heads * text.dim).enumerate() {
            for (head, out) in out.chunks_exact(text.dim).enumerate() {
                assert_eq!(out, &text.values[(row * text.kv_heads + head / 3) * text.dim..][..text.dim]);
            }
        }
    }
}

#[test]
fn very_different_scores_neither_overflow_nor_vanish() {
    let mut text = Text::new(2, 150, 1, 1, 16, None);
    text.q.iter_mut().for_each(|q| *q *= 1e4);
    for kernels in all_kernels() {
        for (found, exact) in text.whole(&kernels).into_iter().zip(text.exact()) {
            // Scores near 1e5 are known to about 1e-2.
            assert!(found.is_finite() && (f64::from(found) - exact).abs() < 0.2, "{found} instead of {exact}");
        }
    }
}

/// A few texts of one layer.
fn companies() -> impl Strategy<Value = Vec<Text>> {
    (texts(), proptest::collection::vec((any::<u64>(), 1..200_usize), 1..5)).prop_map(|(first, others)| {
        let Text { heads, kv_heads, dim, window, format, cap, .. } = first;
        let other = |(seed, len)| Text { format, cap, ..Text::new(seed, len, heads / kv_heads, kv_heads, dim, window) };
        std::iter::once(first).chain(others.into_iter().map(other)).collect()
    })
}

/// Takes a text's rows from `start` on into a batch.
fn gather(batch: &mut [Vec<f32>; 3], text: &Text, start: usize) {
    let (width, kv_width) = (text.heads * text.dim, text.kv_heads * text.dim);
    batch[0].extend(&text.q[start * width..]);
    batch[1].extend(&text.keys[start * kv_width..]);
    batch[2].extend(&text.values[start * kv_width..]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Several texts in one call, in pages that lie among each other's, the first rows of each read before by itself.
    #[test]
    fn company_changes_no_bit(texts in companies(), cut in 0.0..1.0_f64) {
        let Text { heads, kv_heads, dim, window, format, .. } = texts[0];
        let start_of = |text: &Text| (text.len as f64 * cut) as usize;
        let alone = |text: &Text| text.whole(&reference())[start_of(text) * heads * dim..].to_vec();
        let expected: Vec<f32> = texts.iter().flat_map(alone).collect();
        for kernels in all_kernels() {
            let mut layer = LayerPages::new(kv_heads, dim, format);
            let pages = |text: usize, len: usize| -> Vec<u32> {
                (0..len.div_ceil(PAGE_POSITIONS)).map(|page| (page * texts.len() + text) as u32).collect()
            };
            let tables: Vec<Vec<u32>> = texts.iter().enumerate().map(|(index, text)| pages(index, text.len)).collect();
            layer.grow(4 * texts.len()).expect("there is memory");
            let (mut batch, mut runs) = ([vec![], vec![], vec![]], Vec::new());
            for (text, pages) in texts.iter().zip(&tables) {
                let start = start_of(text);
                let first = Run { pages, start: 0, rows: start };
                let kv = start * kv_heads * dim;
                layer.append(&text.keys[..kv], &text.values[..kv], &[first]);
                runs.push(Run { start, rows: text.len - start, ..first });
                gather(&mut batch, text, start);
            }
            let [q, keys, values] = batch;
            layer.append(&keys, &values, &runs);
            let mut out = vec![f32::NAN; q.len()];
            kernels.attention(&q, heads, &runs, &layer, window, texts[0].scores(), &mut out);
            prop_assert_eq!(bits(&out), bits(&expected), "{:?}", kernels);
        }
    }

    /// Two texts with the same beginning, whose whole pages they share and whose last one is copied.
    #[test]
    fn a_shared_beginning_changes_no_bit(text in texts(), other in any::<u64>(), cut in 0.0..1.0_f64) {
        let kernels = Kernels::new(2).expect("threads start");
        let (width, shared) = (text.kv_heads * text.dim, (text.len as f64 * cut) as usize);
        let mut fork = Text::new(other, text.len, text.heads / text.kv_heads, text.kv_heads, text.dim, text.window);
        fork.format = text.format;
        fork.q[..shared * text.heads * text.dim].copy_from_slice(&text.q[..shared * text.heads * text.dim]);
        fork.keys[..shared * width].copy_from_slice(&text.keys[..shared * width]);
        fork.values[..shared * width].copy_from_slice(&text.values[..shared * width]);
        let mut cache = text.cache();
        text.append(&mut cache, shared);
        // What follows the shared beginning is in pages of the fork's own.
        let (whole, count) = (shared / PAGE_POSITIONS, cache.pages.len() as u32);
        let mut pages = cache.pages.clone();
        pages[whole..].iter_mut().for_each(|page| *page -= 1);
        if whole < count as usize {
            cache.layer.copy(cache.pages[whole], pages[whole]);
        }
        text.append(&mut cache, text.len - shared);
        let run = Run { pages: &pages, start: shared, rows: text.len - shared };
        cache.layer.append(&fork.keys[shared * width..], &fork.values[shared * width..], &[run]);
        for (text, pages) in [(&text, &cache.pages), (&fork, &pages)] {
            let mut out = vec![f32::NAN; text.q.len()];
            let runs = [Run { pages, start: 0, rows: text.len }];
            kernels.attention(&text.q, text.heads, &runs, &cache.layer, text.window, text.scores(), &mut out);
            prop_assert_eq!(bits(&out), bits(&text.whole(&reference())));
        }
    }
}

#[test]
fn a_layer_says_what_its_pages_are() {
    for (format, bytes) in [(CacheFormat::F32, 4), (CacheFormat::F16, 2)] {
        let layer = LayerPages::new(2, 3, format);
        assert_eq!((layer.kv_heads(), layer.head_dim(), layer.format()), (2, 3, format));
        assert_eq!(layer.page_bytes(), 2 * 2 * 3 * 64 * bytes);
    }
}

/// With one visible position the output is that position's value: what a cache gives back, filled by these kernels. `values`
/// are an even number.
fn read_back(kernels: &Kernels, format: CacheFormat, values: &[f32]) -> Vec<f32> {
    let mut cache = Cache::new(1, values.len(), 1, format);
    let (mut q, mut keys, mut out) = (vec![0.0; values.len()], vec![0.0; values.len()], vec![f32::NAN; values.len()]);
    let (cos, sin) = (vec![1.0; values.len() / 2], vec![0.0; values.len() / 2]);
    let transform = HeadTransform { norms: None, cos: &cos, sin: &sin };
    let runs = [Run { pages: &cache.pages, start: 0, rows: 1 }];
    kernels.append_rotated(&mut q, &mut keys, values, &runs, transform, &mut cache.layer);
    reference().attention(&q, 1, &runs, &cache.layer, None, Scores::scaled(1.0), &mut out);
    out
}

#[test]
fn f16_rounds_to_the_nearest_and_to_even_at_ties() {
    let tie = |units: f32| 1.0 + units / 2048.0;
    let values = [tie(1.0), tie(3.0), tie(1.0) + f32::EPSILON, -tie(3.0), 65519.0, 65520.0, -1e9, 6e-8, 2.9e-8, 0.1];
    let expected = [1.0, tie(4.0), tie(2.0), -tie(4.0), 65504.0, f32::INFINITY, f32::NEG_INFINITY, 5.9604645e-8, 0.0];
    for kernels in all_kernels() {
        assert_eq!(read_back(&kernels, CacheFormat::F16, &values)[..9], expected, "{kernels:?}");
        assert_eq!(read_back(&kernels, CacheFormat::F32, &values), values, "{kernels:?}");
    }
}

proptest! {
    #[test]
    fn f16_rounds_as_software_does(bits in proptest::collection::vec(any::<u32>(), 1..200)) {
        let mut values: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|value| !value.is_nan()).collect();
        values.truncate(values.len() / 2 * 2);
        prop_assume!(!values.is_empty());
        let expected: Vec<f32> = values.iter().map(|value| f16::from_f32_const(*value).to_f32_const()).collect();
        for kernels in all_kernels() {
            prop_assert_eq!(&read_back(&kernels, CacheFormat::F16, &values), &expected, "{:?}", kernels);
        }
    }
}

/// Rotating and appending in one call, however the rows are cut, is what attention sees of keys that were rotated
/// before.
#[test]
fn appended_keys_and_values_are_the_rotated_and_the_given_ones() {
    let (kv_heads, heads, dim, rows) = (2, 4, 6, 5);
    let quarter = |len: usize| (vec![0.0; len], vec![1.0; len]);
    for format in [CacheFormat::F32, CacheFormat::F16] {
        let text = Text { format, ..Text::new(7, rows, heads / kv_heads, kv_heads, dim, None) };
        // A quarter turn: (x1, x2) becomes (-x2, x1).
        let turned = |x: &[f32]| -> Vec<f32> {
            x.chunks_exact(dim)
                .flat_map(|head| [head[3..].iter().map(|x| -x).collect(), head[..3].to_vec()].concat())
                .collect()
        };
        let expected = Text { q: turned(&text.q), keys: turned(&text.keys), values: text.values.clone(), ..text };
        let expected = bits(&expected.whole(&reference()));
        let text = Text { format, ..Text::new(7, rows, heads / kv_heads, kv_heads, dim, None) };
        for kernels in all_kernels() {
            for cut in 0..=rows {
                let mut cache = text.cache();
                let mut q = text.q.clone();
                for part in [0..cut, cut..rows] {
                    let (cos, sin) = quarter(part.len() * dim / 2);
                    let transform = HeadTransform { norms: None, cos: &cos, sin: &sin };
                    let kv = part.start * kv_heads * dim..part.end * kv_heads * dim;
                    let q = &mut q[part.start * heads * dim..part.end * heads * dim];
                    let mut keys = text.keys[kv.clone()].to_vec();
                    let runs = [Run { pages: &cache.pages, start: part.start, rows: part.len() }];
                    kernels.append_rotated(q, &mut keys, &text.values[kv], &runs, transform, &mut cache.layer);
                }
                let mut out = vec![f32::NAN; q.len()];
                kernels.attention(&q, heads, &[cache.rows_at(0, rows)], &cache.layer, None, text.scores(), &mut out);
                assert_eq!(bits(&out), expected, "{kernels:?}, cut at {cut}, {format}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "index out of bounds")]
fn a_run_past_its_pages_is_refused() {
    let mut cache = Cache::new(1, 1, 64, CacheFormat::F32);
    cache.append(&[0.0; 63], &[0.0; 63], 63);
    cache.append(&[0.0; 2], &[0.0; 2], 2);
}
