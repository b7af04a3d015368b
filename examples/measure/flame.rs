//! A flame graph without a script: where a processor's time went, by stacks of calls.
//!
//! It takes lines as stack collapsers write them: frames from the outermost on, separated by `;`,
//! then a blank and a weight. What is below half a per cent of all is left out, and so are the
//! frames of threads' and the runtime's own machinery, which all stacks share.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

const WIDTH: f64 = 1_300.0;
const ROW: f64 = 16.0;
/// Room for the legend.
const ABOVE: f64 = 28.0;
/// What a letter takes, about.
const LETTER: f64 = 6.1;
/// The least part of all that is drawn.
const LEAST: f64 = 0.005;

/// Frames that say nothing: beginnings of their names.
const MACHINERY: [&str; 12] = [
    "[unknown]",
    "clone3",
    "start_thread",
    "std::",
    "<std::",
    "core::",
    "<core::",
    "tokio::runtime::",
    "<tokio::runtime::",
    "tokio::task::",
    "<tokio::task::",
    "<tracing::",
];

/// Whose code a frame is, by a part of its name, and the colour for it; the first that fits.
const OWNERS: [(&str, &str, &str); 6] = [
    ("roost", "Roost", "#f4a259"),
    ("openraft", "openraft", "#8cb369"),
    ("quinn", "QUIC", "#7aa6d6"),
    ("lsm_tree", "fjall", "#c39bd3"),
    ("fjall", "fjall", "#c39bd3"),
    ("::", "other libraries", "#dddddd"),
];
/// Names without a path are functions of the C library and the kernel, but for the threads below.
const SYSTEM: (&str, &str) = ("system", "#e8d8a0");

/// A call, with those that it made.
#[derive(Default)]
struct Frame {
    weight: f64,
    calls: BTreeMap<String, Frame>,
}

/// Draws what the file has.
pub(crate) fn draw(file: &Path, out: &Path) -> anyhow::Result<()> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut all = Frame::default();
    for line in text.lines() {
        let (stack, weight) = line.rsplit_once(' ').context("a line has no weight")?;
        let weight: f64 = weight.parse().context("a weight is no number")?;
        all.add(stack.split(';').filter(|name| !is_machinery(name)), weight);
    }
    if all.weight == 0.0 {
        bail!("{} has no stacks", file.display());
    }
    let depth = all.depth(all.weight * LEAST);
    let height = ABOVE + ROW * depth as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"monospace\" font-size=\"10\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    legend(&mut svg);
    all.draw_calls(&mut svg, 0.0, ABOVE, all.weight);
    svg.push_str("</svg>\n");
    fs::write(out, svg).with_context(|| format!("cannot write {}", out.display()))
}

fn is_machinery(name: &str) -> bool {
    MACHINERY.iter().any(|start| name.starts_with(start))
}

fn colour(name: &str) -> &'static str {
    let owner = OWNERS.iter().find(|(part, _, _)| name.contains(part));
    owner.map_or(SYSTEM.1, |(_, _, colour)| *colour)
}

fn legend(svg: &mut String) {
    let mut x = 4.0;
    let mut words: Vec<_> = OWNERS.iter().map(|(_, word, colour)| (*word, *colour)).collect();
    words.dedup();
    words.push(SYSTEM);
    for (word, colour) in words {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"6\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"16\">{word}</text>",
            x + 16.0
        );
        x += 36.0 + LETTER * word.len() as f64;
    }
}

impl Frame {
    fn add<'a>(&mut self, mut stack: impl Iterator<Item = &'a str>, weight: f64) {
        self.weight += weight;
        if let Some(name) = stack.next() {
            self.calls.entry(name.to_owned()).or_default().add(stack, weight);
        }
    }

    /// Rows that its calls take, without those below `least`.
    fn depth(&self, least: f64) -> usize {
        let drawn = self.calls.values().filter(|frame| frame.weight >= least);
        drawn.map(|frame| 1 + frame.depth(least)).max().unwrap_or(0)
    }

    fn draw_calls(&self, svg: &mut String, mut x: f64, y: f64, all: f64) {
        for (name, frame) in &self.calls {
            let part = frame.weight / all;
            if part < LEAST {
                continue;
            }
            let width = part * WIDTH;
            let letters = ((width - 4.0) / LETTER).max(0.0) as usize;
            let shown: String = name.chars().take(letters).collect();
            let _ = writeln!(
                svg,
                "<g><title>{} {:.1} %</title><rect x=\"{x:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" \
                 fill=\"{}\"/><text x=\"{:.1}\" y=\"{}\">{}</text></g>",
                escaped(name),
                100.0 * part,
                (width - 0.5).max(0.3),
                ROW - 1.0,
                colour(name),
                x + 2.0,
                y + 11.0,
                escaped(&shown),
            );
            frame.draw_calls(svg, x, y + ROW, all);
            x += width;
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
