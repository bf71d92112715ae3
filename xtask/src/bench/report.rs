//! How the numbers are shown. It measures nothing.

use serde_json::{Value, json};

use super::case::{Sample, Stats};
use super::tool::Tool;
use super::{Outcome, Series};

/// For people: medians, and ratios to nothing: of the medians, and within the rounds.
pub(super) fn text(outcomes: &[Outcome], rounds: u32) {
    for outcome in outcomes {
        println!("\n{}: median of {rounds}, in {}", outcome.case, outcome.case.unit());
        println!(
            "  {:<27}{:>10}{:>9}{:>9}{:>19}{:>8}{:>9}",
            "watching with", "median", "ratio", "paired", "min to max", "cpu s", "whole s"
        );
        for series in &outcome.series {
            if let Some(reason) = &series.failed {
                println!("  {:<27}failed: {}", series.tool, reason.lines().next().unwrap_or_default());
                continue;
            }
            let values = column(series, |sample| Some(sample.value));
            let decimals = if values.iter().any(|value| *value < 100.0) { 3 } else { 0 };
            let number = |value: Option<f64>, decimals| {
                value.map_or("-".into(), |value| format!("{value:.decimals$}"))
            };
            let middle = median(&values);
            println!(
                "  {:<27}{:>10}{:>9}{:>9}{:>19}{:>8}{:>9}",
                series.tool,
                number(middle, decimals),
                number(ratio(series, outcome), 3),
                number(paired(series, outcome), 3),
                format!(
                    "{} to {}",
                    number(values.first().copied(), decimals),
                    number(values.last().copied(), decimals)
                ),
                number(median(&column(series, |sample| sample.cpu_s)), 2),
                number(median(&column(series, |sample| sample.whole_s)), 3),
            );
        }
        if let Some(stats) = stats_of(outcome) {
            println!(
                "  observer: {} events, {} lost, tracing after {:.0} ms, {:.1} MB resident at most",
                stats.events.map_or("?".into(), |n| n.to_string()),
                stats.lost.map_or("?".into(), |n| n.to_string()),
                stats.tracing_after_ns.map_or(f64::NAN, |ns| ns as f64 / 1e6),
                stats.peak_rss_bytes.map_or(f64::NAN, |bytes| bytes as f64 / 1e6),
            );
        }
        let programs = outcome
            .probes
            .iter()
            .filter_map(|sample| sample.stats.as_ref())
            .flat_map(|stats| &stats.programs);
        for program in programs.filter(|program| program.run_count > 0) {
            let each = program.run_time_ns as f64 / program.run_count as f64;
            println!("  {:<32}{:>10} runs{:>8.0} ns each", program.name, program.run_count, each);
        }
    }
}

/// For programs: every sample, with the medians beside them.
pub(super) fn json(outcomes: &[Outcome], rounds: u32) -> Value {
    let cases: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            let tools: Vec<Value> = outcome
                .series
                .iter()
                .map(|series| {
                    let middle = median(&column(series, |sample| Some(sample.value)));
                    json!({
                        "tool": series.tool.to_string(),
                        "median": middle,
                        "ratio": ratio(series, outcome),
                        "paired": paired(series, outcome),
                        "cpu_s": median(&column(series, |sample| sample.cpu_s)),
                        "whole_s": median(&column(series, |sample| sample.whole_s)),
                        "samples": series.samples,
                        "failed": series.failed,
                    })
                })
                .collect();
            json!({
                "case": outcome.case.to_string(),
                "unit": outcome.case.unit(),
                "tools": tools,
                "with_program_stats": outcome.probes,
            })
        })
        .collect();
    json!({"schema": "observer.bench/1", "rounds": rounds, "cases": cases})
}

/// The last run's word: it is about one run, and a median of counts would be of none.
fn stats_of(outcome: &Outcome) -> Option<&Stats> {
    let ours = outcome.series.iter().find(|series| series.tool == Tool::Observer)?;
    ours.samples.last()?.stats.as_ref()
}

fn nothing(outcome: &Outcome) -> Option<&Series> {
    outcome.series.iter().find(|series| series.tool == Tool::Nothing)
}

/// The median beside that with nothing.
fn ratio(series: &Series, outcome: &Outcome) -> Option<f64> {
    let middle = |series| median(&column(series, |sample: &Sample| Some(sample.value)));
    Some(middle(series)? / middle(nothing(outcome)?)?)
}

/// The median of each round's ratio to the same round with nothing: what the machine does for long happens to both.
fn paired(series: &Series, outcome: &Outcome) -> Option<f64> {
    let rounds = series.samples.iter().zip(&nothing(outcome)?.samples);
    let mut ratios: Vec<f64> = rounds.map(|(sample, nothing)| sample.value / nothing.value).collect();
    ratios.sort_by(f64::total_cmp);
    median(&ratios)
}

fn column(series: &Series, field: impl Fn(&Sample) -> Option<f64>) -> Vec<f64> {
    let mut values: Vec<f64> = series.samples.iter().filter_map(field).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Of sorted values.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    sorted.get(middle.checked_sub(1)?).map(|lower| f64::midpoint(*lower, *upper))
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), Some(3.0));
        assert_eq!(median(&[1.0, 2.0, 9.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }
}
