//! Certificates for lossy plans (Learn then Test): the command `certify`.
//!
//! It has the target answer calibration prompts in full and by every plan ([`measure`]), keeps what each plan loses in a file
//! ([`losses`]), tests plans in a fixed order for each level of difficulty that the router predicts ([`sequence`], [`bounds`]),
//! and writes a certificate for each quality floor, of those that are published together ([`claims`]). [`check`] holds certificates to other prompts, [`draws`] the procedure to random
//! halves of the calibration prompts. The runtime's side is `paceline::certificate`.

pub mod bounds;
pub mod bundles;
pub mod check;
pub mod claims;
pub mod draws;
pub mod losses;
pub mod measure;
mod page;
pub mod sequence;
pub mod tasks;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use paceline::certificate::{Calibration, Certificate, Conditions, FOLDER, needed_precisions};
use paceline::checkpoint::side_file;
use paceline::command::obtaining::obtain;
use paceline::command::progress::{self, Progress};
use paceline::command::wording::in_words;
use paceline::command::{Failure, output};
use paceline::files::{LockError, LockKind, lock, lock_file_of, where_it_leads, write_file};
use paceline::info::RouterState;
use paceline::local::stored_format;
use paceline::{CachePrecision, Engine, EngineConfig, GenerationConfig, Precision, SelfDraft};
use paceline_router::Lossy;
use serde::de::DeserializeOwned;

use self::bundles::Bundle;
use self::losses::{LOSSES, LossesError, LossesFile, made_of};
use self::measure::Measured;
use self::sequence::Claim;

const EXAMPLES: &str = "\
Examples, from the repository's root:
  Certificates for the family that ships, beside it, where `--quality bounded` finds them:
    paceline-eval certify
  For a model of yours with a router, on prompts of yours; plans from conservative to aggressive:
    paceline-eval certify prompts.jsonl --model DIR --floor 0.98 --bundle int8 --bundle int4
  What they lose on other prompts, and how often random halves would have broken their word:
    paceline-eval certify --check DIR/certificates/floor-0.98.json --model DIR --draws 200

Prompts are lines of JSON with `prompt` or `messages`, and `id`, `category` and `answer` where there are some. A prompt is lost where
the target is right and the plan wrong; without a right answer, by the share of tokens that differ. Prompts must be ones that
neither the model nor its router learned from, and like those that are to come: a certificate holds for prompts like them.
A run that was ended goes on where it was. Certificates of the same prompts that are in the folder already are made anew with the
new ones, as claims that are published together share one correction: publish none that were made apart.";

/// The flags of `certify`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CertifyFlags {
    /// The calibration prompts
    #[arg(value_name = "TASKS.jsonl", default_value = "datasets/tasks/calibration.jsonl", conflicts_with = "check")]
    pub calibration: PathBuf,
    /// The model: a directory, a GGUF file, or a name, with a router and best with exits
    #[arg(long, value_name = "MODEL", default_value = "models/target")]
    pub model: PathBuf,
    /// A draft model, which changes nothing but the time; may be given several times
    #[arg(long, value_name = "MODEL")]
    pub draft: Vec<PathBuf>,
    /// A lower precision to load and test, int8 or int4; may be given several times [default: those below --precision]
    #[arg(long, value_name = "P", value_parser = setting::<SelfDraft>)]
    pub self_draft: Vec<SelfDraft>,
    /// The target's precision, which the certificate is for: auto, f32, bf16, f16, int8 or int4
    #[arg(long, value_name = "P", default_value = "auto", value_parser = setting::<Precision>)]
    pub precision: Precision,
    /// The precision of cached keys and values, which the certificate is for: f32 or f16
    #[arg(long, value_name = "P", default_value = "f32", value_parser = setting::<CachePrecision>)]
    pub kv_cache: CachePrecision,
    /// Processor threads; 0 for all that the process may use
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// Tokens that an answer has at most [default: 256; with --check, as many as were calibrated]
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// Render plain prompts with the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// A quality floor to certify, above 0 and below 1; may be given several times [default: 0.99, 0.95 and 0.9]
    #[arg(long, value_name = "Q", value_parser = share)]
    pub floor: Vec<f64>,
    /// The probability at most that anything certified is wrong
    #[arg(long, value_name = "D", default_value = "0.05", value_parser = share)]
    pub delta: f64,
    /// A plan to test, int8, int4, exit:E@C or skip:PLAN; given several times, in this order, from conservative to aggressive
    /// [default: the lower precisions that are loaded, or else the two deepest exits]
    #[arg(long, value_name = "PLAN")]
    pub bundle: Vec<Bundle>,
    /// A folder for the certificates and losses.csv [default: certificates, beside the model]
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    pub out: Option<PathBuf>,
    /// Hold this certificate to other prompts instead; may be given several times
    #[arg(long, value_name = "CERT.json", conflicts_with_all = ["floor", "delta", "bundle", "self_draft"])]
    pub check: Vec<PathBuf>,
    /// The other prompts
    #[arg(long, value_name = "TASKS.jsonl", default_value = "datasets/tasks/test.jsonl", requires = "check")]
    pub tasks: PathBuf,
    /// So many times, certify on a random half of the calibration prompts and judge by the other
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub draws: usize,
}

fn setting<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error| in_words(&error.to_string()))
}

fn share(text: &str) -> Result<f64, String> {
    let known = text.parse().ok().filter(|share: &f64| *share > 0.0 && *share < 1.0);
    known.ok_or_else(|| "write a number above 0 and below 1, like 0.95".to_owned())
}

/// Tokens that an answer has at most where nothing is said.
const MAX_NEW_TOKENS: usize = 256;

/// The floors that are certified where none is named.
const FLOORS: [f64; 3] = [0.99, 0.95, 0.9];

/// The seed of random halves.
const SEED: u64 = 0;

/// Makes certificates, or checks some.
///
/// # Errors
/// A sentence that says what is wrong, where, and what to do.
pub fn certify(flags: &CertifyFlags) -> Result<ExitCode, Failure> {
    if flags.check.is_empty() { make(flags) } else { check_all(flags) }
}

/// The precisions below the target's.
fn lower_precisions(flags: &CertifyFlags) -> Vec<SelfDraft> {
    let target = flags.precision.format().or_else(|| stored_format(&flags.model));
    let is_lower = |draft: &SelfDraft| target.is_none_or(|target| draft.format().is_below(target));
    flags.precision.lower().iter().copied().filter(is_lower).collect()
}

/// The path of the target, once it and its drafts are on this machine.
fn obtain_all(flags: &CertifyFlags) -> Result<PathBuf, Failure> {
    for draft in &flags.draft {
        obtain(draft)?;
    }
    Ok(obtain(&flags.model)?)
}

fn make(flags: &CertifyFlags) -> Result<ExitCode, Failure> {
    let (tasks, hash) = tasks::read_tasks(&flags.calibration, flags.chat)?;
    let model = obtain_all(flags)?;
    let out = flags.out.clone().unwrap_or_else(|| side_file(&model, FOLDER));
    let _lock = take(&out)?;
    let self_draft = if flags.self_draft.is_empty() { lower_precisions(flags) } else { flags.self_draft.clone() };
    let engine = load(&EngineConfig { self_draft, ..config(flags) })?;
    let bundles = bundles_of(flags, &engine)?;
    let conditions = Conditions::of(engine.info())?;
    let max_new_tokens = flags.max_new_tokens.unwrap_or(MAX_NEW_TOKENS);
    let answer = GenerationConfig { max_new_tokens, ..GenerationConfig::default() };
    let calibration = Calibration {
        tasks: hash,
        n: tasks.len(),
        max_new_tokens,
        rendering: tasks::rendering(&tasks),
        loss: tasks::loss(&tasks),
    };
    // Before anything is measured, which may take hours.
    let (claims, added) = goals_of(flags, &out, &conditions, &calibration)?;
    let mut file = LossesFile::open(&out, &made_of(&conditions, &calibration, &bundles), &bundles)?;
    tell_of(&added, &out);
    measure::measure(&engine, &tasks, &bundles, &answer, &mut file)?;

    let measured = Measured { conditions, calibration, bundles: &bundles, rows: &file.rows };
    let mut page = publish(&out, &claims, &measured)?;
    if flags.draws > 0 {
        let bundles: Vec<Lossy> = bundles.iter().map(|bundle| bundle.0.clone()).collect();
        let found = |claim: &Claim| (*claim, draws::draw(&bundles, &file.rows, *claim, flags.draws, SEED));
        page += &page::draws(&claims.iter().map(found).collect::<Vec<_>>());
    }
    output::print(&page)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the folder for certificates and locks it against another command: claims that are published together are counted
/// together.
fn take(out: &Path) -> Result<File, anyhow::Error> {
    let shown = out.display();
    let unwritable = || format!("The folder {shown} cannot be written to; name another one with `--out`");
    fs::create_dir_all(out).with_context(unwritable)?;
    lock(&lock_file_of(&out.join(LOSSES)), LockKind::Alone, Duration::ZERO).or_else(|error| match error {
        LockError::Held => {
            Err(anyhow!("Another command certifies in {shown}; wait for it, or name another folder with `--out`."))
        }
        LockError::Impossible(error) => Err(error).with_context(unwritable),
    })
}

/// The plans to certify.
fn bundles_of(flags: &CertifyFlags, engine: &Engine) -> Result<Vec<Bundle>, anyhow::Error> {
    let bundles = if flags.bundle.is_empty() { bundles::defaults(engine.info()) } else { flags.bundle.clone() };
    if bundles.is_empty() {
        return Err(anyhow!(
            "The model {} has no trained exits and no lower precision was loaded, so there is nothing to certify: choose a higher `--precision`, train exits with `paceline-train exits`, or name plans with `--bundle`.",
            flags.model.display()
        ));
    }
    Ok(bundles)
}

/// The claims to reach: those asked for, and those of certificates in the folder that are made anew with them, whose floors
/// come second.
fn goals_of(
    flags: &CertifyFlags,
    out: &Path,
    conditions: &Conditions,
    calibration: &Calibration,
) -> Result<(Vec<Claim>, Vec<f64>), anyhow::Error> {
    let asked = if flags.floor.is_empty() { &FLOORS[..] } else { &flags.floor };
    let (claims, added) = claims::claims(asked, flags.delta, out, conditions, &calibration.tasks)?;
    claims.iter().try_for_each(|claim| must_be_free(&out.join(claims::file_name(claim.floor))))?;
    Ok((claims, added))
}

/// Says that certificates of these floors are made anew.
fn tell_of(added: &[f64], out: &Path) {
    if !added.is_empty() {
        let floors: Vec<String> = added.iter().map(f64::to_string).collect();
        output::note(&format!(
            "The folder {} has certificates of the same prompts for a floor of {}: they are made anew with those asked for, as claims that are published together share one correction.",
            out.display(),
            floors.join(" and ")
        ));
    }
}

/// Refuses to replace what is not a certificate.
fn must_be_free(path: &Path) -> Result<(), anyhow::Error> {
    let is_free = Certificate::may_replace(path)
        .with_context(|| format!("{} cannot be read; name another folder with `--out`", path.display()))?;
    if is_free {
        return Ok(());
    }
    Err(anyhow!("{} is not a certificate and was left alone: name another folder with `--out`.", path.display()))
}

/// Writes the certificates and gives the page that shows them.
///
/// All of them are made before any is written, and what is replaced is gone by then: whatever ends this leaves none that
/// knows of fewer claims than there are.
fn publish(out: &Path, claims: &[Claim], measured: &Measured<'_>) -> Result<String, Failure> {
    let certified: Vec<_> = claims
        .iter()
        .map(|claim| measured.certificate(*claim).map_err(|error| anyhow!("{error}")))
        .collect::<Result<_, _>>()?;
    for path in claims.iter().map(|claim| out.join(claims::file_name(claim.floor))) {
        // Measuring took long: something else may have come there.
        must_be_free(&path)?;
        // A link stays, and what it leads to is written anew.
        match where_it_leads(&path).and_then(fs::remove_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(anyhow!("{} cannot be replaced: {error}; check its permissions.", path.display()).into());
            }
            _ => {}
        }
    }
    let mut page = String::new();
    for (certificate, refused) in certified {
        for error in refused {
            output::note(&format!("{error} Until then such prompts are answered in full."));
        }
        let path = out.join(claims::file_name(certificate.floor));
        write_file(&path, certificate.to_json()?.as_bytes())?;
        page += &format!("{}\n", page::certificate(&path, &certificate));
    }
    Ok(page)
}

fn check_all(flags: &CertifyFlags) -> Result<ExitCode, Failure> {
    let read = |path: &PathBuf| Certificate::read(path).map(|certificate| (path.clone(), certificate));
    let certificates: Vec<(PathBuf, Certificate)> = flags.check.iter().map(read).collect::<Result<_, _>>()?;
    one_a_floor(&certificates)?;
    let (tasks, _) = tasks::read_tasks(&flags.tasks, flags.chat)?;
    for (path, certificate) in &certificates {
        if certificate.calibration.loss != tasks::loss(&tasks) {
            output::note(&format!(
                "The certificate {} counts other losses than can be counted of the prompts {}, as right answers are known of some prompts and of others not: what is lost of these says little about it.",
                path.display(),
                flags.tasks.display()
            ));
        }
    }
    obtain_all(flags)?;
    let named = EngineConfig { certificate: flags.check.clone(), ..config(flags) };
    let engine = load(&EngineConfig { self_draft: needed_precisions(&named), ..named })?;
    let calibrated = certificates.iter().map(|(_, certificate)| certificate.calibration.max_new_tokens).min();
    let max_new_tokens = flags.max_new_tokens.or(calibrated).unwrap_or(MAX_NEW_TOKENS);
    let answer = GenerationConfig { max_new_tokens, ..GenerationConfig::default() };
    let halves = match flags.draws {
        0 => Vec::new(),
        draws => certificates.iter().map(|known| halves(known, draws)).collect::<Result<_, _>>()?,
    };
    let checked = check::check(&engine, &tasks, certificates, &answer)?;
    let mut page = page::checked(&checked);
    if !halves.is_empty() {
        page += &format!("\n{}", page::draws(&halves));
    }
    output::print(&page)?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses two certificates for one floor: an engine goes by the floor, and would follow one of them twice.
fn one_a_floor(certificates: &[(PathBuf, Certificate)]) -> Result<(), Failure> {
    for (place, (path, certificate)) in certificates.iter().enumerate() {
        let same = certificates[..place].iter().find(|(_, other)| other.floor == certificate.floor);
        if let Some((other, _)) = same {
            return Err(anyhow!(
                "The certificates {} and {} are both for a floor of {}, and an engine follows one of them: check one at a time.",
                other.display(),
                path.display(),
                certificate.floor
            )
            .into());
        }
    }
    Ok(())
}

/// Random halves of the prompts that a certificate was calibrated on, whose losses lie beside it.
fn halves((path, certificate): &(PathBuf, Certificate), draws: usize) -> Result<(Claim, draws::Draws), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.join(losses::LOSSES).is_file() {
        return Err(anyhow!(
            "Beside the certificate {} there is no {}, which random halves are made of: leave `--draws` out, or certify again.",
            path.display(),
            losses::LOSSES
        )
        .into());
    }
    let Certificate { floor, delta, claims, bundles, conditions, calibration, .. } = certificate;
    let named: Vec<Bundle> = bundles.iter().cloned().map(Bundle).collect();
    let rows = losses::read(folder, &made_of(conditions, calibration, &named), &named)?;
    if rows.len() != calibration.n {
        let path = folder.join(losses::LOSSES);
        return Err(LossesError::Count { path, found: rows.len(), prompts: calibration.n }.into());
    }
    let claim = Claim { floor: *floor, delta: *delta, claims: *claims };
    Ok((claim, draws::draw(bundles, &rows, claim, draws, SEED)))
}

/// Configuration of the engine. The router stays as it is: what it learns while serving is not certified.
fn config(flags: &CertifyFlags) -> EngineConfig {
    EngineConfig {
        draft: flags.draft.clone(),
        precision: flags.precision,
        kv_cache: flags.kv_cache,
        threads: flags.threads,
        frozen: true,
        ..EngineConfig::new(&flags.model)
    }
}

fn load(config: &EngineConfig) -> Result<Engine, Failure> {
    let mut progress = Progress::new();
    let engine = Engine::load_with_progress(config, &mut |stage| {
        progress.show(&format!("loading {}", stage.directory.display()), stage.done, stage.total);
    })?;
    progress::clear();
    let model = engine.info().directory.display();
    match &engine.info().router {
        RouterState::Used => Ok(engine),
        RouterState::Refused(reason) => Err(anyhow!("{reason}").into()),
        RouterState::Absent => Err(anyhow!(
            "The model {model} has no router, and certificates go by the difficulty that one predicts: train one with `paceline-train router`."
        )
        .into()),
    }
}
