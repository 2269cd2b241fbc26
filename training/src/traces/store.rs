//! Traces in files: parts of some prompts each, as safetensors, so that a run that is ended loses one part at most.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use half::f16;
use paceline::files::{self, write_file};
use paceline_router::Features;
use paceline_router::features::NUMBERS;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::forced::{Column, Forced};
use super::replay::Lookups;

/// Metadata of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Its name.
    pub id: String,
    /// True if it is held out for validation.
    pub held_out: bool,
    /// Its category, where that is known.
    pub category: String,
    /// Its difficulty, where that is known.
    pub level: String,
    /// The temperature that the answer was drawn at.
    pub temperature: f32,
    /// Tokens of the prompt.
    pub tokens: usize,
}

/// All that is known of a prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// The prompt.
    pub asked: Asked,
    /// The router's input features.
    pub features: Features,
    /// The sources' picks at every place of its answer; columns are in the order of [`Heading::sources`].
    pub forced: Forced,
    /// The lookups' results there.
    pub lookups: Lookups,
}

impl Trace {
    /// Tokens of the answer.
    pub fn places(&self) -> usize {
        self.forced.entropy.len()
    }
}

/// Header of a part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Heading {
    /// All that decides what the traces are, as text.
    pub fingerprint: String,
    /// The part of it that is the target, its exits and the drafts; empty in traces of earlier versions.
    #[serde(default)]
    pub models: String,
    /// The sources of the columns, as `--drafter` names them.
    pub sources: Vec<String>,
    /// The share of the target's work that each of them does as a target of its own; none for draft models.
    pub work: Vec<Option<f64>>,
    /// Width of the hidden states.
    pub width: usize,
    /// The prompts.
    pub asked: Vec<Asked>,
}

const KEY: &str = "paceline.traces";

/// Where a part lies.
pub fn part(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("part-{number:04}.safetensors"))
}

/// Writes a part.
///
/// # Errors
/// When that cannot be done.
pub fn save(path: &Path, heading: &Heading, traces: &[Trace]) -> anyhow::Result<()> {
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let floats = |values: &mut dyn Iterator<Item = f32>| values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let mut add =
        |name: &str, dtype: Dtype, shape: Vec<usize>, bytes| tensors.push((name.to_owned(), dtype, shape, bytes));
    let states = traces.iter().flat_map(|trace| trace.features.states.iter().map(|value| f16::from_f32(*value)));
    let states: Vec<u8> = states.flat_map(f16::to_le_bytes).collect();
    add("states", Dtype::F16, vec![states.len() / 2 / heading.width, heading.width], states);
    for (name, counts) in [
        ("state_rows", traces.iter().map(|trace| trace.features.rows()).collect::<Vec<_>>()),
        ("places", traces.iter().map(Trace::places).collect()),
    ] {
        add(
            name,
            Dtype::U32,
            vec![counts.len()],
            counts.iter().flat_map(|count| (*count as u32).to_le_bytes()).collect(),
        );
    }
    let numbers = floats(&mut traces.iter().flat_map(|trace| trace.features.numbers));
    add("numbers", Dtype::F32, vec![traces.len(), NUMBERS.len()], numbers);
    let places: usize = traces.iter().map(Trace::places).sum();
    add(
        "entropy",
        Dtype::F32,
        vec![places],
        floats(&mut traces.iter().flat_map(|trace| trace.forced.entropy.iter().copied())),
    );
    for (index, source) in heading.sources.iter().enumerate() {
        let column = |trace: &'_ Trace| trace.forced.columns[index].clone();
        let matches: Vec<u8> = traces.iter().flat_map(|trace| column(trace).matches).map(u8::from).collect();
        add(&format!("{source}.matches"), Dtype::U8, vec![places], matches);
        for (what, get) in PARTS {
            let values = floats(&mut traces.iter().flat_map(|trace| get(&mut column(trace)).clone()));
            add(&format!("{source}.{what}"), Dtype::F32, vec![places], values);
        }
    }
    let lookups = |get: fn(&Lookups) -> &Vec<u8>| traces.iter().flat_map(|trace| get(&trace.lookups).clone()).collect();
    add("lookup.agreed", Dtype::U8, vec![places], lookups(|lookups| &lookups.agreed));
    add("lookup.right", Dtype::U8, vec![places], lookups(|lookups| &lookups.right));
    let views =
        tensors.iter().map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)));
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let metadata = HashMap::from([(KEY.to_owned(), serde_json::to_string(heading)?)]);
    Ok(write_file(path, &safetensors::serialize(views, Some(metadata))?)?)
}

type Part = fn(&mut Column) -> &mut Vec<f32>;

/// The parts of a column that are f32.
const PARTS: [(&str, Part); 4] = [
    ("leads", |column| &mut column.leads),
    ("confidence", |column| &mut column.confidence),
    ("distance", |column| &mut column.distance),
    ("surprise", |column| &mut column.surprise),
];

/// Bytes of a part that are read at most.
const MOST_BYTES: u64 = 16 << 30;

/// Reads a part.
///
/// # Errors
/// When it is not there or damaged.
pub fn open(path: &Path) -> anyhow::Result<(Heading, Vec<Trace>)> {
    let bytes = files::read(path, MOST_BYTES)
        .with_context(|| format!("The traces {} cannot be read; run `paceline-train traces` again", path.display()))?;
    read(&bytes).with_context(|| {
        format!(
            "The traces {} are damaged; remove the file, and `paceline-train traces` makes it again",
            path.display()
        )
    })
}

fn read(bytes: &[u8]) -> anyhow::Result<(Heading, Vec<Trace>)> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let heading =
        metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY)).context("the heading is missing")?;
    let heading: Heading = serde_json::from_str(heading)?;
    let tensors = SafeTensors::deserialize(bytes)?;
    let of = |name: &str, dtype: Dtype| -> anyhow::Result<&[u8]> {
        let tensor = tensors.tensor(name)?;
        if tensor.dtype() != dtype {
            bail!("`{name}` is {:?}", tensor.dtype());
        }
        Ok(tensor.data())
    };
    let floats = |name: &str| {
        Ok::<_, anyhow::Error>(
            of(name, Dtype::F32)?.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>(),
        )
    };
    let counts = |name: &str| {
        Ok::<_, anyhow::Error>(
            of(name, Dtype::U32)?.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b) as usize).collect::<Vec<usize>>(),
        )
    };
    let (rows, places) = (counts("state_rows")?, counts("places")?);
    let states: Vec<f32> =
        of("states", Dtype::F16)?.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect();
    let (numbers, entropy) = (floats("numbers")?, floats("entropy")?);
    let (agreed, right) = (of("lookup.agreed", Dtype::U8)?, of("lookup.right", Dtype::U8)?);
    let mut columns = Vec::new();
    for source in &heading.sources {
        let mut whole = Column {
            matches: of(&format!("{source}.matches"), Dtype::U8)?.iter().map(|byte| *byte == 1).collect(),
            ..Column::default()
        };
        for (what, get) in PARTS {
            *get(&mut whole) = floats(&format!("{source}.{what}"))?;
        }
        columns.push(whole);
    }
    let all: usize = places.iter().sum();
    let mut lengths = vec![entropy.len(), agreed.len(), right.len()];
    for column in &mut columns {
        lengths.push(column.matches.len());
        lengths.extend(PARTS.map(|(_, get)| get(column).len()));
    }
    let whole = [rows.len(), places.len(), numbers.len() / NUMBERS.len()] == [heading.asked.len(); 3]
        && states.len() == rows.iter().sum::<usize>() * heading.width
        && lengths.iter().all(|length| *length == all);
    if !whole {
        bail!("its parts do not fit together");
    }
    let (mut state, mut place) = (0, 0);
    let traces = heading.asked.iter().enumerate().map(|(index, asked)| {
        let own_states = state..state + rows[index] * heading.width;
        let own = place..place + places[index];
        (state, place) = (own_states.end, own.end);
        let mut features = Features::new(states[own_states].to_vec(), heading.width);
        features.numbers.copy_from_slice(&numbers[index * NUMBERS.len()..(index + 1) * NUMBERS.len()]);
        let column = |column: &Column| Column {
            matches: column.matches[own.clone()].to_vec(),
            leads: column.leads[own.clone()].to_vec(),
            confidence: column.confidence[own.clone()].to_vec(),
            distance: column.distance[own.clone()].to_vec(),
            surprise: column.surprise[own.clone()].to_vec(),
        };
        let forced = Forced { entropy: entropy[own.clone()].to_vec(), columns: columns.iter().map(column).collect() };
        let lookups = Lookups { agreed: agreed[own.clone()].to_vec(), right: right[own.clone()].to_vec() };
        Trace { asked: asked.clone(), features, forced, lookups }
    });
    let traces = traces.collect();
    Ok((heading, traces))
}
