//! A violation as a picture: a lane for each process, a bar for each call, faults behind them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use crate::history::{Event, History, Op, Stage};
use crate::report::Violation;

const WIDTH: f64 = 1100.0;
const LEFT: f64 = 130.0;
const LANE: f64 = 46.0;
const TOP: f64 = 78.0;
/// The shortest bar that can be seen.
const MIN_BAR: f64 = 3.0;
/// The longest label in characters.
const LABEL: usize = 110;

/// One call as it is drawn.
struct Bar<'h> {
    process: u64,
    node: u64,
    from_ns: u64,
    to_ns: Option<u64>,
    stage: Stage,
    op: &'h Op,
    detail: String,
}

/// Draws a violation.
pub fn draw(history: &History, violation: &Violation) -> String {
    let bars = bars(history, violation);
    let from = bars.iter().map(|bar| bar.from_ns).min().unwrap_or(0);
    let to = bars.iter().map(|bar| bar.to_ns.unwrap_or(bar.from_ns)).max().unwrap_or(from);
    let span = (to - from).max(1) as f64;
    let x =
        |ns: u64| LEFT + (ns.saturating_sub(from) as f64 / span).min(1.0) * (WIDTH - LEFT - 20.0);
    let processes = bars.iter().map(|bar| (bar.process, 0)).collect::<BTreeMap<u64, usize>>();
    let lane: HashMap<u64, usize> = processes.keys().enumerate().map(|(n, &p)| (p, n)).collect();
    let height = TOP + LANE * lane.len() as f64 + 30.0;

    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="monospace" font-size="11"><rect width="100%" height="100%" fill="#ffffff"/>"##
    );
    let _ = writeln!(
        out,
        r##"<text x="10" y="20" font-size="14" font-weight="bold">promise {}: {}</text><text x="10" y="38">{}</text>"##,
        violation.promise,
        escape(violation.anomaly),
        escape(&violation.what)
    );
    for (name, begin, end) in faults(history, from, to) {
        let (left, right) = (x(begin), x(end).max(x(begin) + MIN_BAR));
        let _ = writeln!(
            out,
            r##"<rect x="{left:.1}" y="{:.1}" width="{:.1}" height="{:.1}" fill="#f3d9d9"/><text x="{left:.1}" y="{:.1}" fill="#a04040">{}</text>"##,
            TOP - 22.0,
            right - left,
            height - TOP - 4.0,
            TOP - 26.0,
            escape(&name)
        );
    }
    for bar in &bars {
        draw_bar(&mut out, bar, TOP + LANE * lane[&bar.process] as f64, &x);
    }
    let _ = writeln!(
        out,
        r##"<text x="{LEFT}" y="{0:.1}">{1:.6} s</text><text x="{2}" y="{0:.1}" text-anchor="end">{3:.6} s</text></svg>"##,
        height - 8.0,
        from as f64 / 1e9,
        WIDTH - 20.0,
        to as f64 / 1e9
    );
    out
}

fn draw_bar(out: &mut String, bar: &Bar<'_>, top: f64, x: &impl Fn(u64) -> f64) {
    let left = x(bar.from_ns);
    // What never ended goes on to the edge.
    let right = bar.to_ns.map_or(WIDTH - 20.0, x).max(left + MIN_BAR);
    let colour = match bar.stage {
        Stage::Ok => "#6aa84f",
        Stage::Fail => "#cc4125",
        Stage::Invoke | Stage::Unknown => "#e69138",
    };
    let label = format!("node {} {} {}", bar.node, bar.op.name(), bar.detail);
    let label: String = label.chars().take(LABEL).collect();
    let anchor = if left > WIDTH * 0.6 { "end" } else { "start" };
    let _ = writeln!(
        out,
        r##"<text x="10" y="{:.1}">process {}</text><rect x="{left:.1}" y="{:.1}" width="{:.1}" height="10" fill="{colour}"/><text x="{:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"##,
        top + 9.0,
        bar.process,
        top,
        right - left,
        if anchor == "end" { right } else { left },
        top + 22.0,
        escape(&label)
    );
}

/// The calls that the violation's events belong to, each once.
fn bars<'h>(history: &'h History, violation: &Violation) -> Vec<Bar<'h>> {
    let wanted: Vec<u64> = violation
        .events
        .iter()
        .filter_map(|&place| history.events.get(place))
        .map(|event| event.call)
        .collect();
    let mut bars: BTreeMap<u64, Bar<'_>> = BTreeMap::new();
    for event in history.events.iter().filter(|event| wanted.contains(&event.call)) {
        if let Some(op) = &event.op {
            let done = event.stage != Stage::Invoke;
            let bar = Bar {
                process: event.process,
                node: event.node,
                from_ns: event.time_ns,
                to_ns: done.then_some(event.time_ns),
                stage: event.stage,
                op,
                detail: detail(event),
            };
            bars.insert(event.call, bar);
        } else if let Some(bar) = bars.get_mut(&event.call) {
            bar.to_ns = Some(event.time_ns);
            bar.stage = event.stage;
            let _ = write!(bar.detail, " → {}", detail(event));
        }
    }
    bars.into_values().collect()
}

/// What a call says, without braces and quotes.
fn detail(event: &Event) -> String {
    let value = match (&event.op, &event.answer, &event.error) {
        (Some(op), None, _) => serde_json::to_string(op),
        (_, Some(answer), _) => serde_json::to_string(answer),
        (_, _, Some(error)) => return error.clone(),
        _ => return String::new(),
    };
    value.unwrap_or_default().replace(['"', '{', '}'], "")
}

/// The faults that overlap a time, as (name, begin, end).
fn faults(history: &History, from: u64, to: u64) -> Vec<(String, u64, u64)> {
    let mut open: BTreeMap<u64, (String, u64)> = BTreeMap::new();
    let mut all = Vec::new();
    for event in &history.events {
        if let Some(Op::Fault { name, nodes }) = &event.op {
            open.insert(event.call, (format!("{name} {nodes:?}"), event.time_ns));
        } else if let Some((name, begin)) = open.remove(&event.call) {
            all.push((name, begin, event.time_ns));
        }
    }
    all.extend(open.into_values().map(|(name, begin)| (name, begin, to)));
    all.retain(|(_, begin, end)| *begin <= to && *end >= from);
    all
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
