//! Models that begin shallow and are deepened while they train (progressive stacking, Gong et al. 2019).

use std::collections::BTreeMap;

use paceline::model::Trainable;

use crate::optimizer::{LAYERS, Moments};
use crate::settings::{Added, Growth};

/// The layers of a model when a share `done` of its training is done, and `last` in the end.
pub fn layers_at(growth: &[Growth], last: usize, done: f64) -> usize {
    growth.iter().find(|stage| done < stage.until).map_or(last, |stage| stage.layers)
}

/// The values and running means of a model of `layers` layers: those that it has, and copies of them where `added` says. What
/// the copies add to the residual stream is zero at first, so the model computes what it did.
pub fn deepened(
    model: &Trainable,
    moments: &BTreeMap<String, Moments>,
    layers: usize,
    added: Added,
) -> (BTreeMap<String, Vec<f32>>, BTreeMap<String, Moments>) {
    let origins = origins(model.config().layers, layers, added);
    let mut values = copied(&model.parameters().values(), &origins);
    for (layer, origin) in origins.iter().enumerate() {
        if origins[..layer].contains(origin) {
            for output in ["self_attn.o_proj.weight", "mlp.down_proj.weight"] {
                if let Some(values) = values.get_mut(&format!("{LAYERS}{layer}.{output}")) {
                    values.fill(0.0);
                }
            }
        }
    }
    (values, copied(moments, &origins))
}

/// For each of `after` layers the one of `before` that it is, or a copy of where that came before.
fn origins(before: usize, after: usize, added: Added) -> Vec<usize> {
    let origin = |layer| match added {
        Added::OnTop => layer % before,
        Added::Between => layer * before / after,
    };
    (0..after).map(origin).collect()
}

/// Entries by name, those of a layer for every layer that it is the origin of.
fn copied<T: Clone>(entries: &BTreeMap<String, T>, origins: &[usize]) -> BTreeMap<String, T> {
    let mut copies = BTreeMap::new();
    for (name, entry) in entries {
        let of_layer = name.strip_prefix(LAYERS).and_then(|rest| rest.split_once('.'));
        match of_layer.and_then(|(index, rest)| Some((index.parse::<usize>().ok()?, rest))) {
            None => drop(copies.insert(name.clone(), entry.clone())),
            Some((index, rest)) => {
                for (copy, _) in origins.iter().enumerate().filter(|(_, origin)| **origin == index) {
                    copies.insert(format!("{LAYERS}{copy}.{rest}"), entry.clone());
                }
            }
        }
    }
    copies
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use std::sync::Arc;

    use paceline::model::{Batch, Compute};
    use paceline_kernels::Kernels;

    use super::*;
    use crate::initial::initial;
    use crate::optimizer::into_values;
    use crate::settings::ModelRecipe;

    #[test]
    fn layers_are_copied_to_where_they_are_wanted() {
        assert_eq!(origins(3, 7, Added::OnTop), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(origins(3, 6, Added::Between), [0, 0, 1, 1, 2, 2]);
        let entries =
            [("model.norm.weight", 9), ("model.layers.0.a", 0), ("model.layers.1.a", 1), ("model.layers.2.a", 2)];
        let entries = entries.map(|(name, value)| (name.to_owned(), value)).into();
        let copies = copied(&entries, &[0, 2, 1, 0]);
        let layer = |index: usize| copies[&format!("model.layers.{index}.a")];
        assert_eq!((0..4).map(layer).collect::<Vec<_>>(), [0, 2, 1, 0]);
        assert_eq!(copies["model.norm.weight"], 9);
        assert_eq!(copies.len(), 5);
    }

    #[test]
    fn a_deepened_model_computes_what_it_did() {
        let compute = Compute::Kernels(Arc::new(Kernels::new(1).unwrap()));
        let config = |layers| ModelRecipe::smallest(layers).shape(20, 8);
        let shallow = Trainable::new(config(2), &compute, initial(&config(2), 1));
        let deep = |added| {
            let (values, moments) = deepened(&shallow, &BTreeMap::new(), 5, added);
            assert!(moments.is_empty());
            Trainable::new(config(5), &compute, |name, _| values[name].clone())
        };
        let logits = |model: &Trainable| {
            let (now, batch) = (model.model(true), Batch::whole((0..16).collect(), 8));
            let hidden = now.forward_layers(0..model.config().layers, &batch, now.embed(&batch), None);
            into_values(now.logits(hidden).inner())
        };
        assert_eq!(logits(&shallow), logits(&deep(Added::OnTop)));
        assert_eq!(logits(&shallow), logits(&deep(Added::Between)));
    }

    #[test]
    fn stages_end_where_they_say() {
        let growth = [(2, 0.25), (4, 0.5)].map(|(layers, until)| Growth { layers, until, added: Added::OnTop });
        let at = |done| layers_at(&growth, 8, done);
        assert_eq!([at(0.0), at(0.24), at(0.25), at(0.49), at(0.5), at(1.0)], [2, 2, 4, 4, 8, 8]);
    }
}
