//! `paceline stats`: what was adapted and saved in answers so far, from the journal.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use clap::Args;
use paceline::command::Failure;
use paceline::command::output::{note, print_json, print_line};
use paceline::journal::{AdaptationStats, EnergyUsed, Group, Period, adaptation_stats};
use paceline::visible;

const EXAMPLES: &str = "\
Examples:
  paceline stats                           answers of the last 24 hours
  paceline stats --period 7d               of a week; also 90s, 15m, 24h, all
  paceline stats --period all --json       everything, for another program
  paceline stats --journal FILE            what `paceline generate --journal FILE` noted

The journal has a line for each answer of `paceline generate`, numbers and names without prompts and texts;
`generate --no-journal` leaves one out. It keeps the last ten thousand or so.
  adapted     something was drafted, skipped, left early or computed in lower precision; drafts change no token
  time        of decoding, beside as many plain steps as there are tokens, each as long as one was measured to take here
  energy      by the source that told it; what plain decoding would have taken is derived, as is said there
  quality     1 for the tokens of plain decoding; else the router's probability that the answer is the target's
Exit codes: 0 done, 1 something failed (a sentence on standard error says what), 2 wrong usage.";

/// Flags of `paceline stats`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatsFlags {
    /// How far to look back: a number of seconds, minutes, hours or days, as in 90s, 15m, 24h or 7d, or all
    #[arg(long, value_name = "PERIOD", default_value = "24h", allow_hyphen_values = true)]
    period: Period,
    /// The journal [default: paceline/journal.jsonl in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Print one object; times in milliseconds, energy in watt-hours, shares from 0 to 1
    #[arg(long)]
    json: bool,
}

/// Where programs keep what they noted, and this one its journal; `None` where the user has no home.
pub(super) fn default_journal() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    let all = named.or_else(|| Some(home()?.join(".local").join("state")))?;
    Some(all.join("paceline").join("journal.jsonl"))
}

/// Runs the command.
pub(super) fn stats(flags: &StatsFlags) -> Result<ExitCode, Failure> {
    let no_place = || anyhow!("You have no home folder, where the journal would be; name one with `--journal FILE`.");
    let journal = flags.journal.clone().or_else(default_journal).ok_or_else(no_place)?;
    let stats = adaptation_stats(&journal, flags.period)?;
    if flags.json {
        print_json(&serde_json::to_string(&stats)?)?;
    } else {
        print_line(&describe(&stats))?;
        stats.warnings.iter().for_each(|warning| note(warning));
    }
    Ok(ExitCode::SUCCESS)
}

/// The table for people.
fn describe(stats: &AdaptationStats) -> String {
    let all = &stats.all;
    let when = if stats.period == "all" { "so far".to_owned() } else { format!("in the last {}", stats.period) };
    let place = format!("Answers {when}, from {}", visible::line(&stats.journal));
    let (Some(first), Some(last)) = (stats.first_at, stats.last_at) else { return format!("{place}: none.") };
    let Group { answers, tokens, .. } = all;
    let adapted = &stats.adaptations;
    let mut lines = vec![
        place,
        format!(
            "  answers     {answers} with {tokens} tokens to prompts of {} tokens, in {}; the first {}, the last {}",
            stats.prompt_tokens,
            duration(stats.latency_ms),
            ago(first),
            ago(last)
        ),
        format!(
            "  adapted     {} ({}): drafted {}, left early {}, layers skipped {}, lower precision {}",
            all.adapted,
            percent(all.adapted_share),
            adapted.drafted,
            adapted.early_exit,
            adapted.layers_skipped,
            adapted.lower_precision
        ),
        format!("  time        {}", time(all)),
    ];
    lines.extend(stats.energy.iter().map(|used| format!("  energy      {}", energy(used))));
    if stats.without_energy > 0 {
        lines.push(format!("  energy      unavailable for {} answers", stats.without_energy));
    }
    lines.push(format!("  quality     {}", quality(all)));
    lines.push(String::new());
    lines.extend(table("drafter", stats.by_drafter.iter()));
    lines.push(String::new());
    lines.extend(table("difficulty", stats.by_difficulty.iter()));
    lines.join("\n")
}

fn time(all: &Group) -> String {
    let time = &all.time;
    if time.answers == 0 {
        return "not known: no plain step was measured to compare with".to_owned();
    }
    let rest = all.answers - time.answers;
    let rest = if rest == 0 { String::new() } else { format!("; {rest} more had none measured") };
    let (share, decode, plain) = (less(time.saved_share), duration(time.decode_ms), duration(time.plain_ms));
    format!("{share} than plain decoding: {decode} of decoding instead of {plain}, by measured plain steps{rest}")
}

fn energy(used: &EnergyUsed) -> String {
    let EnergyUsed { source, answers, wh, plain_wh, compared_wh, compared, assumption, .. } = used;
    let doubts: String = used.doubts.iter().map(|doubt| format!("; {}", visible::line(doubt))).collect();
    let compared = match used.saved_share {
        None => "plain decoding's is not known".to_owned(),
        share => format!(
            "{} than plain decoding, {compared_wh:.3} Wh instead of {plain_wh:.3} Wh in {compared} answers, by assumption: {assumption}",
            less(share)
        ),
    };
    format!("{wh:.3} Wh in {answers} answers by {}: {compared}{doubts}", visible::line(source))
}

fn quality(all: &Group) -> String {
    let quality = &all.quality;
    let mean = quality.mean.map_or("not known".to_owned(), |mean| format!("{mean:.3} on average"));
    let mut parts = vec![format!("{} with the tokens of plain decoding", quality.exact)];
    if quality.judged > 0 {
        parts.push(format!("{} by the router's judgement", quality.judged));
    }
    if quality.unknown > 0 {
        parts.push(format!("{} not known and not in the mean", quality.unknown));
    }
    format!("{mean}: {}", parts.join(", "))
}

/// A line for each group, with a heading.
fn table<'a>(kind: &str, groups: impl Iterator<Item = (&'a String, &'a Group)>) -> Vec<String> {
    let rows: Vec<(String, &Group)> = groups.map(|(name, group)| (visible::line(name).into_owned(), group)).collect();
    let wide = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(kind.len());
    let heading = format!("  {kind:<wide$}  answers   tokens  a step  accepted  adapted  time saved  quality");
    let row = |(name, group): &(String, &Group)| {
        format!(
            "  {name:<wide$}  {:>7}  {:>7}  {:>6}  {:>8}  {:>7}  {:>10}  {:>7}",
            group.answers,
            group.tokens,
            group.tokens_per_step.map_or("-".to_owned(), |tokens| format!("{tokens:.2}")),
            percent(group.acceptance),
            percent(group.adapted_share),
            percent(group.time.saved_share),
            group.quality.mean.map_or("-".to_owned(), |mean| format!("{mean:.3}"))
        )
    };
    std::iter::once(heading).chain(rows.iter().map(row)).collect()
}

fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.0}%", 100.0 * share))
}

/// Share saved, in words that fit a loss too.
fn less(share: Option<f64>) -> String {
    let share = share.unwrap_or(0.0);
    let word = if share < 0.0 { "more" } else { "less" };
    format!("{:.0}% {word}", 100.0 * share.abs())
}

fn duration(ms: f64) -> String {
    match ms / 1e3 {
        seconds if seconds < 120.0 => format!("{seconds:.1} s"),
        seconds if seconds < 7200.0 => format!("{:.1} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

/// Age of a time, given in milliseconds since 1970. A clock that was set back makes it now.
fn ago(at: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as f64;
    let days = (now - at as f64) / 86_400e3;
    if days < 2.0 { format!("{} ago", duration((now - at as f64).max(0.0))) } else { format!("{days:.0} days ago") }
}
