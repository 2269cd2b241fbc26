//! What `paceline bench` prints for people.

use paceline::bench::{CLIFF, LoadBench, ProductBench, Spread, StepBench, steepest};

use super::{Measured, PerplexityBench};

pub(super) fn describe(measured: &Measured) -> String {
    let Measured { model, kv_cache, threads, repeats, .. } = measured;
    let mut lines = vec![format!(
        "{model}, cache in {kv_cache}, {threads} threads, medians of {repeats} rounds [smallest, largest]"
    )];
    if let [before, after] = measured.exchange_seconds[..] {
        lines.push(format!(
            "a cache line between two threads, there and back: {:.0} ns before, {:.0} ns after",
            before * 1e9,
            after * 1e9
        ));
    }
    for ((load, bench), products) in measured.loads.iter().zip(&measured.steps).zip(&measured.products) {
        lines.push(format!("\n{}: {}", bench.precision, describe_load(load)));
        lines.extend(describe_steps(bench));
        lines.extend(products.formats.iter().map(describe_products));
    }
    for PerplexityBench { precision, tokens, perplexity } in &measured.perplexity {
        let first = measured.perplexity[0].perplexity;
        let change = 100.0 * (perplexity / first - 1.0);
        lines.push(format!("\n{precision}: perplexity {perplexity:.4} over {tokens} tokens ({change:+.2}%)"));
    }
    if measured.drafters.is_empty() {
        lines.push("\nWith `--prompt` or `--prompts`, plain decoding is compared with every drafter.".to_owned());
        return lines.join("\n");
    }
    let mut precision = "";
    for row in &measured.drafters {
        if row.precision != precision {
            precision = &row.precision;
            lines.push(format!(
                "\n  {:<18} ms a token                    speedup   tokens a step   accepted   same tokens",
                format!("at {precision}")
            ));
        }
        let Spread { smallest, median, largest } = row.seconds_per_token;
        let times = format!("{:.3} [{:.3}, {:.3}]", median * 1e3, smallest * 1e3, largest * 1e3);
        let accepted = row.acceptance.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", 100.0 * share));
        let (speedup, same) = (row.speedup, if row.same_tokens { "yes" } else { "NO" });
        lines.push(format!(
            "  {:<18} {times:<29} {speedup:<9.2} {:<15.2} {accepted:<10} {same}",
            row.drafter, row.tokens_per_step
        ));
    }
    lines.join("\n")
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Describes the costs of loading and what it left behind.
fn describe_load(load: &LoadBench) -> String {
    let memory = match (load.resident, load.memory_over_weights()) {
        (Some(resident), Some(over_weights)) => format!(
            "{:.1} MB resident ({:.1} anonymous, {:.1} of files; {:.1} MB before loading), but for the cache {over_weights:.2} times the weights' {:.1} MB",
            megabytes(resident.total()),
            megabytes(resident.anonymous),
            megabytes(resident.file),
            megabytes(load.resident_before.map_or(0, |before| before.total())),
            megabytes(load.weight_bytes),
        ),
        _ => format!("{:.1} MB of weights; this system does not tell what is resident", megabytes(load.weight_bytes)),
    };
    let idle = load.idle_share.map_or_else(
        || "this system does not tell what it takes when idle".to_owned(),
        |share| format!("idle at {:.3}% of a core", 100.0 * share),
    );
    format!(
        "loaded in {:.3} s, first token after {:.3} s\n  {memory}\n  {idle}",
        load.seconds_to_load, load.seconds_to_first_token
    )
}

/// Describes the costs of steps, a line each.
fn describe_steps(bench: &StepBench) -> Vec<String> {
    let Spread { smallest, median, largest } = bench.share_of_read;
    let [smallest, median, largest] = [smallest, median, largest].map(|share| 100.0 * share);
    let mut lines = vec![
        format!(
            "  a plain step reads {:.1} MB of weights at {median:.0}% [{smallest:.0}, {largest:.0}] of a plain read's {:.1} GB/s",
            megabytes(bench.bytes_per_step),
            bench.read_bytes_per_second / 1e9,
        ),
        format!(
            "  {} tokens in the cache, which takes {:.1} kB a token; a prompt of {}: {:.0} tokens a second",
            bench.context,
            bench.cache_bytes_per_token as f64 / 1e3,
            bench.prefill_tokens,
            bench.prefill_tokens_per_second,
        ),
        "  rows   ms a step                     in plain steps".to_owned(),
    ];
    let mut before = None;
    for (rows, seconds) in &bench.rows {
        let [smallest, median, largest] =
            [seconds.smallest, seconds.median, seconds.largest].map(|seconds| seconds * 1e3);
        let relative = bench.relative(*rows).unwrap_or(f64::NAN);
        let times = format!("{median:.3} [{smallest:.3}, {largest:.3}]");
        let rise = before.map_or(0.0, |before| seconds.median / before - 1.0);
        let mark =
            if rise > CLIFF { format!("   {:.0}% more than the row before", 100.0 * rise) } else { String::new() };
        lines.push(format!("  {rows:>4}   {times:<29} {relative:.2}{mark}"));
        before = Some(seconds.median);
    }
    lines
}

/// Describes the costs of products with one format, on a line.
fn describe_products(bench: &ProductBench) -> String {
    let relative = |rows| bench.relative(rows).map(|cost| format!("{cost:.2} at {rows}"));
    let costs: Vec<String> = [2, 4, 8, 12, 16].into_iter().filter_map(relative).collect();
    let steepest = steepest(&bench.rows).map_or_else(String::new, |(rows, share)| {
        let mark = if share > CLIFF { ", a cliff" } else { "" };
        format!("; steepest at {rows} rows, {:.0}% more than before{mark}", 100.0 * share)
    });
    format!(
        "  products with {} alone ({:.1} MB): {} rows{steepest}",
        bench.format,
        megabytes(bench.bytes),
        costs.join(", ")
    )
}
