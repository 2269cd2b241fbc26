//! The layers' caches for threads that each have some of a step's rows: every layer is theirs one after the other, in the order
//! of the rows, as a row looks at those before it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use paceline_kernels::LayerPages;

/// Looks for a turn after which a thread lets others run.
const PATIENCE: u32 = 1 << 12;

/// The caches of some layers.
pub(super) struct LayerOrder<'a> {
    layers: Vec<Layer<'a>>,
    /// True if a part ended early: those that wait for it would wait forever.
    abandoned: AtomicBool,
}

/// A layer's turn and cache, aligned so that what waiting threads poll lies apart from other layers' order.
#[repr(align(128))]
struct Layer<'a> {
    /// The part whose turn it is.
    next: AtomicUsize,
    cache: Mutex<&'a mut LayerPages>,
}

impl<'a> LayerOrder<'a> {
    /// An order over these caches; they begin with part 0.
    pub(super) fn new(caches: impl Iterator<Item = &'a mut LayerPages>) -> Self {
        let layer = |cache| Layer { next: AtomicUsize::new(0), cache: Mutex::new(cache) };
        Self { layers: caches.map(layer).collect(), abandoned: AtomicBool::new(false) }
    }

    /// Waits until all parts before `part` had the cache of layer number `layer`, and calls `f` with it. `None`, and `f` is not
    /// called, if one of them never will.
    pub(super) fn take<R>(&self, layer: usize, part: usize, f: impl FnOnce(&mut LayerPages) -> R) -> Option<R> {
        let Layer { next, cache } = &self.layers[layer];
        let mut looks = 0_u32;
        while next.load(Ordering::Acquire) != part {
            if self.abandoned.load(Ordering::Relaxed) {
                return None;
            }
            looks = looks.saturating_add(1);
            if looks < PATIENCE { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        // Nobody else asks for it now. A part that panicked with it has abandoned the rest.
        let result = f(&mut cache.lock().unwrap_or_else(PoisonError::into_inner));
        next.store(part + 1, Ordering::Release);
        Some(result)
    }

    /// To be kept by a part until it has ended: if it panics, those that wait for it are told.
    pub(super) fn promise(&self) -> Promise<'_> {
        Promise { abandoned: &self.abandoned }
    }
}

/// See [`LayerOrder::promise`].
pub(super) struct Promise<'a> {
    abandoned: &'a AtomicBool,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abandoned.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    use paceline_kernels::{CacheFormat, Run};

    use super::*;

    fn caches(layers: usize) -> Vec<LayerPages> {
        let mut caches: Vec<LayerPages> = (0..layers).map(|_| LayerPages::new(1, 2, CacheFormat::F32)).collect();
        caches.iter_mut().for_each(|cache| cache.grow(1).expect("there is memory"));
        caches
    }

    #[test]
    fn every_layer_is_had_in_the_order_of_the_parts() {
        let mut caches = caches(5);
        let written: Vec<AtomicUsize> = (0..5).map(|_| AtomicUsize::new(0)).collect();
        let order = LayerOrder::new(caches.iter_mut());
        thread::scope(|scope| {
            for part in (0..3).rev() {
                let (order, written) = (&order, &written);
                scope.spawn(move || {
                    for (layer, written) in written.iter().enumerate() {
                        let before = order.take(layer, part, |cache| {
                            let runs = [Run { pages: &[0], start: 4 * part, rows: 4 }];
                            cache.append(&[0.0; 8], &[0.0; 8], &runs);
                            written.fetch_add(1, Ordering::Relaxed)
                        });
                        assert_eq!(before, Some(part));
                    }
                });
            }
        });
        drop(order);
        assert!(written.iter().all(|parts| parts.load(Ordering::Relaxed) == 3));
    }

    #[test]
    fn nobody_waits_for_a_part_that_panicked() {
        let mut caches = caches(1);
        let order = LayerOrder::new(caches.iter_mut());
        let ended = thread::scope(|scope| {
            let waiting = scope.spawn(|| order.take(0, 1, |_| ()));
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let _promise = order.promise();
                order.take(0, 0, |_| panic!("on purpose"))
            }));
            assert!(panicked.is_err());
            waiting.join()
        });
        assert_eq!(ended.ok(), Some(None));
    }
}
