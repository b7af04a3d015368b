//! Medians of repeated runs, and how many times the first configuration does what another does.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::lines::{figure, median, read};

/// Runs of one group, by configuration, in the order of their first.
type Runs = Vec<(String, Vec<Value>)>;

/// Prints a table for each group.
pub(crate) fn print(file: &Path) -> anyhow::Result<()> {
    let mut groups: BTreeMap<(usize, String), Runs> = BTreeMap::new();
    for line in read(file)? {
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let (group, configuration) = (text("group"), text("configuration"));
        let runs = groups.entry((group.parse().unwrap_or(usize::MAX), group)).or_default();
        match runs.iter_mut().find(|(name, _)| *name == configuration) {
            Some((_, lines)) => lines.push(line),
            None => runs.push((configuration, vec![line])),
        }
    }
    for ((_, group), runs) in groups {
        println!("\n### Group {group}\n");
        println!(
            "| configuration | sends/s (least, most) | references/s | p50 ms | p99 ms | servers' CPU a send, µs | driver's CPU, % | pulls/s | errors | runs | {}: times |",
            runs[0].0
        );
        println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
        let first = middle(&runs[0].1, "/sends_per_s");
        for (configuration, lines) in &runs {
            println!("{}", row(configuration, lines, first));
        }
    }
    Ok(())
}

fn row(configuration: &str, lines: &[Value], first: Option<f64>) -> String {
    let rates: Vec<f64> = lines.iter().filter_map(|line| figure(line, "/sends_per_s")).collect();
    let least = rates.iter().copied().reduce(f64::min);
    let most = rates.iter().copied().reduce(f64::max);
    let rate = middle(lines, "/sends_per_s");
    let ms = |path| middle(lines, path).map(|us| us / 1_000.0);
    // Percent of one processor, over sends a second: microseconds a send.
    let cpu = lines.iter().filter_map(|line| {
        Some(figure(line, "/cpu_servers_pct")? * 10_000.0 / figure(line, "/sends_per_s")?)
    });
    let errors: f64 = lines.iter().filter_map(|line| figure(line, "/errors")).sum();
    let times = first.zip(rate).map(|(first, rate)| first / rate);
    format!(
        "| {configuration} | {} ({}, {}) | {} | {} | {} | {} | {} | {} | {errors} | {} | {} |",
        whole(rate),
        whole(least),
        whole(most),
        whole(middle(lines, "/refs_per_s")),
        fraction(ms("/lat/p50_us")),
        fraction(ms("/lat/p99_us")),
        fraction(median(cpu.collect())),
        fraction(middle(lines, "/cpu_driver_pct")),
        whole(middle(lines, "/pull/pulls_per_s")),
        lines.len(),
        fraction(times),
    )
}

fn middle(lines: &[Value], path: &str) -> Option<f64> {
    median(lines.iter().filter_map(|line| figure(line, path)).collect())
}

fn whole(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
}

fn fraction(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}
