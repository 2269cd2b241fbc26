//! Models that begin shallow and are deepened while they train (progressive stacking, Gong et al. 2019).

use std::collections::BTreeMap;

use paceline::model::Trainable;

use crate::optimizer::Moments;
use crate::settings::Growth;

/// The layers of a model when a share `done` of its training is done, and `last` in the end.
pub fn layers_at(growth: &[Growth], last: usize, done: f64) -> usize {
    growth.iter().find(|stage| done < stage.until).map_or(last, |stage| stage.layers)
}

/// The values and running means of a model of `layers` layers, each a copy of the one at the same relative depth.
pub fn deepened(
    model: &Trainable,
    moments: &BTreeMap<String, Moments>,
    layers: usize,
) -> (BTreeMap<String, Vec<f32>>, BTreeMap<String, Moments>) {
    let before = model.config().layers;
    (copied(&model.parameters().values(), before, layers), copied(moments, before, layers))
}

/// Entries by name, those of a layer for every layer that is a copy of it.
fn copied<T: Clone>(entries: &BTreeMap<String, T>, before: usize, layers: usize) -> BTreeMap<String, T> {
    let mut copies = BTreeMap::new();
    for (name, entry) in entries {
        let of_layer = name.strip_prefix(LAYERS).and_then(|rest| rest.split_once('.'));
        match of_layer.and_then(|(index, rest)| Some((index.parse::<usize>().ok()?, rest))) {
            None => drop(copies.insert(name.clone(), entry.clone())),
            Some((index, rest)) => {
                for copy in (0..layers).filter(|copy| copy * before / layers == index) {
                    copies.insert(format!("{LAYERS}{copy}.{rest}"), entry.clone());
                }
            }
        }
    }
    copies
}

const LAYERS: &str = "model.layers.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_copied_to_the_same_relative_depth() {
        let entries =
            [("model.norm.weight", 9), ("model.layers.0.a", 0), ("model.layers.1.a", 1), ("model.layers.2.a", 2)];
        let entries = entries.map(|(name, value)| (name.to_owned(), value)).into();
        let copies = copied(&entries, 3, 6);
        let layer = |index: usize| copies[&format!("model.layers.{index}.a")];
        assert_eq!((0..6).map(layer).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2]);
        assert_eq!(copies["model.norm.weight"], 9);
        assert_eq!(copies.len(), 7);
    }

    #[test]
    fn stages_end_where_they_say() {
        let growth = [Growth { layers: 2, until: 0.25 }, Growth { layers: 4, until: 0.5 }];
        let at = |done| layers_at(&growth, 8, done);
        assert_eq!([at(0.0), at(0.24), at(0.25), at(0.49), at(0.5), at(1.0)], [2, 2, 4, 4, 8, 8]);
    }
}
