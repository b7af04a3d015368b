//! Drawings of what a sweep found: one file a series, a panel for each figure, x logarithmic.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use super::lines::{figure, median, read};

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 200.0;
/// Room for the axes' words, left and below.
const LEFT: f64 = 58.0;
const BELOW: f64 = 34.0;
const ABOVE: f64 = 26.0;
const RIGHT: f64 = 12.0;

/// One panel: its title, where its figure stands in a line, and by what it is divided.
struct Panel(&'static str, &'static str, f64);

/// A drawing: the series, what x is, the panels.
struct Drawing(&'static str, &'static str, &'static [Panel]);

const RATE: Panel = Panel("sends/s", "/sends_per_s", 1.0);
const REFERENCES: Panel = Panel("references/s", "/refs_per_s", 1.0);
const P50: Panel = Panel("acknowledged after, p50, ms", "/lat/p50_us", 1_000.0);
const CPU: Panel = Panel("CPU of all nodes a send, µs", "/server_cpu_us_per_send", 1.0);
const MEMORY: Panel = Panel("memory of all nodes, MiB", "/rss_mb", 1.0);
const PULLS: Panel = Panel("pulls of 50 a second", "/pull/pulls_per_s", 1.0);

const DRAWINGS: [Drawing; 7] = [
    Drawing("users", "users", &[RATE, CPU, MEMORY]),
    Drawing("group", "members of each conversation", &[RATE, REFERENCES, CPU]),
    Drawing("body", "bytes of a message's body", &[RATE, P50, CPU]),
    Drawing("connections", "connections that send", &[RATE, P50, CPU]),
    Drawing(
        "idle",
        "idle connections",
        &[
            Panel("memory of the nodes for each, KiB", "/connect/rss_bytes_each", 1_024.0),
            Panel("memory of all nodes, MiB", "/connect/rss_mb", 1.0),
            Panel("push after ack beside them, p50, ms", "/push/ack_to_push/p50_us", 1_000.0),
        ],
    ),
    Drawing("queue", "items of each queue", &[RATE, PULLS, MEMORY]),
    Drawing("stored", "messages stored", &[RATE, PULLS, MEMORY]),
];

/// Draws each series that the file has.
pub(crate) fn plot(file: &Path, folder: &Path) -> anyhow::Result<()> {
    let lines = read(file)?;
    fs::create_dir_all(folder)?;
    for Drawing(series, x_name, panels) in &DRAWINGS {
        let of_series: Vec<&Value> =
            lines.iter().filter(|line| line["series"].as_str() == Some(series)).collect();
        if of_series.is_empty() {
            continue;
        }
        let path = folder.join(format!("{series}.svg"));
        fs::write(&path, draw(x_name, panels, &of_series))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn draw(x_name: &str, panels: &[Panel], lines: &[&Value]) -> String {
    let width = WIDTH * panels.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" \
         height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        let _ = writeln!(out, "<g transform=\"translate({} 0)\">", WIDTH * index as f64);
        out.push_str(&panel.draw(x_name, lines));
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

impl Panel {
    /// The median of each x's runs, in the order of x.
    fn points(&self, lines: &[&Value]) -> Vec<(f64, f64)> {
        let mut found: Vec<(f64, Vec<f64>)> = Vec::new();
        for line in lines {
            let (Some(x), Some(y)) = (figure(line, "/x"), figure(line, self.1)) else { continue };
            match found.iter_mut().find(|(known, _)| *known == x) {
                Some((_, values)) => values.push(y / self.2),
                None => found.push((x, vec![y / self.2])),
            }
        }
        found.sort_by(|one, other| one.0.total_cmp(&other.0));
        found.into_iter().filter_map(|(x, values)| Some((x, median(values)?))).collect()
    }

    fn draw(&self, x_name: &str, lines: &[&Value]) -> String {
        let points = self.points(lines);
        let mut out = String::new();
        let mut text = |x: f64, y: f64, anchor: &str, words: &str| {
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
            );
        };
        text(LEFT, 16.0, "start", self.0);
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return out };
        let top = nice(points.iter().map(|point| point.1).fold(0.0, f64::max));
        let (low, high) = (first.0.max(1.0).ln(), last.0.max(2.0).ln());
        let span = if high > low { high - low } else { 1.0 };
        let (inner, tall) = (WIDTH - LEFT - RIGHT, HEIGHT - ABOVE - BELOW);
        let at_x = |x: f64| LEFT + (x.max(1.0).ln() - low) / span * inner;
        let at_y = |y: f64| ABOVE + tall - y / top * tall;
        for part in 0..=2 {
            let y = top * f64::from(part) / 2.0;
            text(LEFT - 6.0, at_y(y) + 4.0, "end", &short(y));
        }
        text(LEFT, HEIGHT - 18.0, "middle", &short(first.0));
        text(WIDTH - RIGHT, HEIGHT - 18.0, "end", &short(last.0));
        text(LEFT + inner / 2.0, HEIGHT - 4.0, "middle", x_name);
        for part in 0..=2 {
            let y = at_y(top * f64::from(part) / 2.0);
            let _ =
                writeln!(out, "<path d=\"M{LEFT} {y:.1}h{inner}\" stroke=\"#ddd\" fill=\"none\"/>");
        }
        let path: Vec<String> =
            points.iter().map(|(x, y)| format!("{:.1} {:.1}", at_x(*x), at_y(*y))).collect();
        let _ = writeln!(
            out,
            "<path d=\"M{}\" stroke=\"#1f5fa8\" stroke-width=\"2\" fill=\"none\"/>",
            path.join(" L")
        );
        for (x, y) in &points {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"#1f5fa8\"><title>{}: {}</title></circle>",
                at_x(*x),
                at_y(*y),
                short(*x),
                short(*y)
            );
        }
        out
    }
}

/// The next number above that a person would end an axis at.
fn nice(value: f64) -> f64 {
    let step = 10_f64.powf(value.max(f64::MIN_POSITIVE).log10().floor());
    let found = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|part| part * step >= value);
    found.unwrap_or(10.0) * step
}

/// A number in a few characters.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        value if value >= 1e3 => format!("{}k", trimmed(value / 1e3)),
        value => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}
