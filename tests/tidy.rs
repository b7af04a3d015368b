//! The house rules, as a test, so that nobody argues about them in review.
//!
//! A rule that the code does not meet yet is a ratchet: the list of exceptions may shrink, and an
//! exception that is no longer needed fails the test.

mod sources;

use sources::{code_only, rust_files};

/// Most lines of a file. Past it there is a second idea inside.
const MAX_LINES: usize = 500;
/// Files that are longer, with the most lines that each may have.
const LONGER: [(&str, usize); 0] = [];
/// Most lints that a file may waive.
const MAX_ALLOWS: usize = 1;

/// What a file breaks.
fn breaches(path: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push("opens without //!, which says what it is for".to_owned());
    }
    let lines = text.lines().count();
    let longest =
        LONGER.iter().find(|(name, _)| *name == path).map_or(MAX_LINES, |(_, most)| *most);
    if lines > longest {
        found.push(format!("has {lines} lines of {longest}: is there a second idea inside?"));
    }
    let of_tests = path.ends_with("tests.rs")
        || path.split('/').any(|part| matches!(part, "tests" | "benches"));
    let production = code.split("#[cfg(test)]").next().unwrap_or_default();
    if !of_tests && production.contains(".unwrap()") {
        found.push("unwraps outside tests; an expect states why it cannot fail".to_owned());
    }
    if code.matches("allow(").count() > MAX_ALLOWS {
        found.push("waives more than one lint".to_owned());
    }
    if without_space(&code).contains("#[ignore]") {
        found.push("ignores a test without a reason".to_owned());
    }
    // Spelt so that this file does not trip over itself.
    for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
        if text.contains(word) {
            found.push(format!("says {word}"));
        }
    }
    for name in ["todo!", "unimplemented!", "dbg!"] {
        if code.contains(name) {
            found.push(format!("calls {name}"));
        }
    }
    found.iter().map(|what| format!("{path} {what}")).collect()
}

fn without_space(code: &str) -> String {
    code.chars().filter(|c| !c.is_whitespace()).collect()
}

#[test]
fn the_house_rules_hold() {
    let found: Vec<String> =
        rust_files().iter().flat_map(|file| breaches(&file.path, &file.text)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn no_exception_outlives_its_need() {
    let files = rust_files();
    for (path, most) in LONGER {
        let file = files.iter().find(|file| file.path == path);
        let lines = file.map_or(0, |file| file.text.lines().count());
        assert!(lines > MAX_LINES, "{path} has {lines} lines: take it off the list");
        assert!(lines == most, "{path} shrank to {lines} lines: lower its entry from {most}");
    }
}

#[test]
fn each_rule_is_noticed_when_broken() {
    let count = |text: &str| breaches("src/made_up.rs", text).len();
    assert_eq!(count("//! Fine.\nfn f() {}\n"), 0);
    assert_eq!(count("fn f() {}\n"), 1);
    assert_eq!(count(&format!("//! Long.\n{}", "\n".repeat(MAX_LINES))), 1);
    assert_eq!(count("//! x\nfn f() { g().unwrap(); }"), 1);
    assert_eq!(count("//! x\n#[cfg(test)]\nmod tests { fn f() { g().unwrap(); } }"), 0);
    assert_eq!(count("//! x\n#[allow(a)]\nfn f() {}\n#[allow(b)]\nfn g() {}"), 1);
    assert_eq!(count("//! x\n#[test]\n#[ignore]\nfn f() {}"), 1);
    assert_eq!(count("//! x\n#[test]\n#[ignore = \"needs data\"]\nfn f() {}"), 0);
    assert_eq!(count(concat!("//! x\n// TO", "DO later")), 1);
    assert_eq!(count("//! x\nfn f() { todo!() }"), 1);
}
