//! Results as tables in Markdown.

use std::fmt::Write as _;
use std::path::Path;

use paceline::certificate::{Certificate, CertifiedLevel};
use paceline_router::Lossy;
use paceline_router::network::LEVELS;

use super::bundles::Bundle;
use super::check::Checked;
use super::draws::Draws;
use super::sequence::Claim;
use crate::statistics::{Interval, wilson_of_share};

fn name(plan: Option<&Lossy>) -> String {
    plan.map_or("in full".to_owned(), |plan| Bundle(plan.clone()).to_string())
}

fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

/// The plans tested for each level of a certificate. The plan that is deployed is in bold.
pub(super) fn certificate(path: &Path, certificate: &Certificate) -> String {
    let mut page = format!(
        "{}: at most {} lost, confidence {} over {} claims (p at most {:.5})\n\n| level | prompts |",
        path.display(),
        percent(certificate.eps),
        percent(1.0 - certificate.delta),
        certificate.claims,
        certificate.corrected_delta()
    );
    for bundle in &certificate.bundles {
        let _ = write!(page, " {} |", Bundle(bundle.clone()));
    }
    let _ = writeln!(page, " deployed |\n|---|---|{}---|", "---|".repeat(certificate.bundles.len()));
    for level in &certificate.levels {
        let _ = write!(page, "| {} | {} |", level.level, level.n);
        for place in 0..certificate.bundles.len() {
            let _ = write!(page, " {} |", cell(level, place));
        }
        let _ = writeln!(page, " {} |", name(level.plan.as_ref()));
    }
    page
}

/// One test: risk and p-value; nothing behind the first that failed.
fn cell(level: &CertifiedLevel, place: usize) -> String {
    level.tested.get(place).map_or(String::new(), |test| {
        let said = format!("{} (p {:.1e})", percent(test.risk), test.p_value);
        if level.plan.as_ref() == Some(&test.plan) { format!("**{said}**") } else { said }
    })
}

/// Losses of certified policies on other prompts.
pub(super) fn checked(all: &[Checked]) -> String {
    let mut page =
        "| certificate | level | plan | prompts | lost | 95% interval | accuracy drop | may be lost | kept |\n\
                    |---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for checked in all {
        let certificate = &checked.certificate;
        let by_level = LEVELS.iter().zip(&certificate.levels).zip(&checked.levels);
        let mut rows: Vec<_> =
            by_level.map(|((level, certified), lost)| (*level, name(certified.plan.as_ref()), *lost)).collect();
        rows.push(("all", String::new(), checked.all()));
        for (level, plan, lost) in rows {
            let Interval { low, high, .. } = wilson_of_share(lost.risk(), lost.n as u64);
            let drop = lost.accuracy_drop().map_or("unknown".to_owned(), percent);
            let kept = if lost.risk() <= certificate.eps { "yes" } else { "no" };
            let _ = writeln!(
                page,
                "| {} | {level} | {plan} | {} | {} | {} to {} | {drop} | {} | {kept} |",
                certificate.floor,
                lost.n,
                percent(lost.risk()),
                percent(low),
                percent(high),
                percent(certificate.eps),
            );
        }
    }
    page
}

/// Results of random halves, by floor, and a note where they say little.
pub(super) fn draws(all: &[(Claim, Draws)]) -> String {
    let mut page = format!(
        "| floor | splits | violated | violated for a level | levels not in full, of {} | splits all in full | lost |\n|---|---|---|---|---|---|---|\n",
        LEVELS.len()
    );
    for (claim, found) in all {
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {:.2} | {} | {} |",
            claim.floor,
            found.draws,
            found.violated,
            found.violated_for_a_level,
            found.plans,
            found.in_full,
            percent(found.risk)
        );
    }
    for (claim, found) in all {
        if let Some(warning) = found.warning() {
            let _ = writeln!(page, "\nFor a floor of {}: {warning}", claim.floor);
        }
    }
    page
}
