//! Who may import whom, as the design says it: `storage ← raft ← cluster ← src`, with `protocol`
//! and `client` beside them, and one owner for each outside engine.
//!
//! Both the manifests and the sources are read: a manifest shows what a crate could use, a source
//! which file really does. The last tests show that a breach of each kind is noticed.

mod sources;

use std::fs;

use sources::{code_only, root, rust_files};

/// A package of the workspace, and the packages of the workspace that it may name.
struct Package {
    /// Its name in manifests.
    name: &'static str,
    /// Its folder, with a `/` at the end; empty for the root.
    folder: &'static str,
    /// What it may import of the workspace.
    may_import: &'static [&'static str],
    /// What it must not depend on, whatever the reason.
    must_not_use: &'static [&'static str],
}

const PACKAGES: [Package; 10] = [
    Package {
        name: "roost-storage",
        folder: "storage/",
        may_import: &[],
        // Synchronous, without a clock and without chance: equal logs give equal states.
        must_not_use: &["tokio", "rand", "async-trait", "futures-util", "chrono"],
    },
    Package {
        name: "roost-raft",
        folder: "raft/",
        may_import: &["roost-storage"],
        must_not_use: &[],
    },
    Package {
        name: "roost-cluster",
        folder: "cluster/",
        may_import: &["roost-storage", "roost-raft"],
        must_not_use: &[],
    },
    Package {
        name: "roost-protocol",
        folder: "protocol/",
        may_import: &[],
        // Types and codecs, no I/O.
        must_not_use: &["tokio", "quinn", "tokio-tungstenite"],
    },
    Package {
        name: "roost-client",
        folder: "client/",
        may_import: &["roost-protocol"],
        must_not_use: &[],
    },
    Package {
        name: "roost-checker",
        folder: "tests/checker/",
        // It judges what clients saw, so it knows what clients know.
        may_import: &["roost-protocol"],
        must_not_use: &["tokio", "quinn"],
    },
    Package {
        name: "roost-fuzz",
        folder: "tests/fuzz/",
        // Every decoder's owner.
        may_import: &["roost-protocol", "roost-storage", "roost-raft", "roost-cluster"],
        must_not_use: &["tokio"],
    },
    Package {
        name: "roost-jepsen",
        folder: "tests/jepsen/",
        // It starts the server as a program, and knows it as clients do; and engines and stores alone.
        may_import: &["roost-client", "roost-checker", "roost-storage"],
        must_not_use: &[],
    },
    Package {
        name: "roost-sim",
        folder: "tests/sim/",
        // Whole nodes, on a network, disks and clocks of its own.
        may_import: &["roost", "roost-storage", "roost-cluster", "roost-protocol", "roost-checker"],
        must_not_use: &["quinn"],
    },
    Package {
        name: "roost",
        folder: "",
        may_import: &[
            "roost-storage",
            "roost-raft",
            "roost-cluster",
            "roost-protocol",
            "roost-client",
        ],
        must_not_use: &[],
    },
];

/// An outside engine, and where alone it may be named.
struct Owned {
    name: &'static str,
    manifests: &'static [&'static str],
    /// Prefixes of paths.
    files: &'static [&'static str],
}

const OWNED: [Owned; 5] = [
    Owned { name: "openraft", manifests: &["roost-raft"], files: &["raft/"] },
    Owned { name: "openraft-rt-tokio", manifests: &["roost-raft"], files: &["raft/"] },
    Owned { name: "sled", manifests: &["roost-storage"], files: &["storage/src/engine/sled.rs"] },
    Owned { name: "fjall", manifests: &["roost-storage"], files: &["storage/src/engine/fjall.rs"] },
    Owned {
        name: "quinn",
        manifests: &["roost-cluster", "roost-client", "roost"],
        // The peer transport, the client, the QUIC listener, and the tests that speak to it raw.
        files: &["cluster/src/transport", "client/", "src/edge/quic", "tests/"],
    },
];

/// What a package's manifest breaks.
fn manifest_breaches(package: &Package, manifest: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let mut breaches = Vec::new();
    for dependency in dependencies(&manifest) {
        let own = PACKAGES.iter().any(|other| other.name == dependency);
        let allowed = package.may_import.contains(&dependency.as_str());
        let owner = OWNED.iter().find(|owned| owned.name == dependency);
        if (own && !allowed)
            || package.must_not_use.contains(&dependency.as_str())
            || owner.is_some_and(|owned| !owned.manifests.contains(&package.name))
        {
            breaches.push(format!("{} depends on {dependency}", package.name));
        }
    }
    breaches
}

/// Every package that a manifest's tables name, whatever it calls them.
fn dependencies(manifest: &toml::Table) -> Vec<String> {
    let mut names = Vec::new();
    for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(entries) = manifest.get(table).and_then(toml::Value::as_table) else { continue };
        for (key, value) in entries {
            let renamed = value.get("package").and_then(toml::Value::as_str);
            names.push(renamed.unwrap_or(key).to_owned());
        }
    }
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        for target in targets.values().filter_map(toml::Value::as_table) {
            names.extend(dependencies(target));
        }
    }
    names
}

/// The package that a file belongs to.
fn package_of(path: &str) -> &'static Package {
    // The root's folder is empty and stands last: it takes what no other took.
    PACKAGES.iter().find(|package| path.starts_with(package.folder)).expect("the root takes all")
}

/// What a source file breaks.
fn source_breaches(path: &str, text: &str) -> Vec<String> {
    let package = package_of(path);
    let code = code_only(text);
    let mut breaches = Vec::new();
    for other in PACKAGES.iter().filter(|other| other.name != package.name) {
        let krate = other.name.replace('-', "_");
        if !package.may_import.contains(&other.name) && names_crate(&code, &krate) {
            breaches.push(format!("{path} names {krate}"));
        }
    }
    for owned in &OWNED {
        let owner = owned.files.iter().any(|prefix| path.starts_with(prefix));
        if !owner && names_crate(&code, &owned.name.replace('-', "_")) {
            breaches.push(format!("{path} names {}", owned.name));
        }
    }
    // What paces threads sees time, and shows it to nobody.
    let may_see_time = path.ends_with("/tests.rs") || path == "storage/src/background.rs";
    let core = path.starts_with("storage/src/") && !may_see_time;
    let outside_tests = code.split("#[cfg(test)]").next().unwrap_or_default();
    for clock in ["SystemTime", "Instant"] {
        if core && words(outside_tests).any(|(_, word)| word == clock) {
            breaches.push(format!("{path} reads a clock ({clock})"));
        }
    }
    breaches
}

/// Whether code names the crate: as the head of a path, or in a `use` of its own.
fn names_crate(code: &str, krate: &str) -> bool {
    let found: Vec<(usize, &str)> = words(code).collect();
    let is_local_module = found.windows(2).any(|pair| pair[0].1 == "mod" && pair[1].1 == krate);
    found.iter().enumerate().any(|(n, &(at, word))| {
        if word != krate || is_local_module {
            return false;
        }
        let before = code[..at].trim_end();
        let after = code[at + word.len()..].trim_start();
        let heads_path = after.starts_with("::") && !is_inner_segment(before);
        let previous = n.checked_sub(1).map_or("", |n| found[n].1);
        heads_path || matches!(previous, "use" | "crate") && after.starts_with([';', ' ', 'a'])
    })
}

/// Whether what stands before a word makes it an inner segment of a path. A leading `::`, with no
/// word before it, makes it a crate's name all the more.
fn is_inner_segment(before: &str) -> bool {
    before
        .strip_suffix("::")
        .is_some_and(|head| head.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '>'))
}

/// The words of code, with where each begins.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr() as usize - code.as_ptr() as usize, word))
}

#[test]
fn manifests_name_only_what_stands_to_their_left() {
    let mut breaches = Vec::new();
    for package in &PACKAGES {
        let path = root().join(package.folder).join("Cargo.toml");
        let manifest = fs::read_to_string(path).expect("every package has a manifest");
        breaches.extend(manifest_breaches(package, &manifest));
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn sources_name_only_what_stands_to_their_left() {
    let breaches: Vec<String> =
        rust_files().iter().flat_map(|file| source_breaches(&file.path, &file.text)).collect();
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn every_package_of_the_workspace_has_its_rule() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the root has a manifest");
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let members = manifest["workspace"]["members"].as_array().expect("members is a list");
    for member in members.iter().filter_map(toml::Value::as_str) {
        let folder = format!("{member}/");
        assert!(PACKAGES.iter().any(|p| p.folder == folder), "{member} has no rule here");
    }
}

#[test]
fn every_dependency_is_used() {
    let files = rust_files();
    let mut idle = Vec::new();
    for package in &PACKAGES {
        let path = root().join(package.folder).join("Cargo.toml");
        let manifest = fs::read_to_string(path).expect("every package has a manifest");
        let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
        for dependency in dependencies(&manifest) {
            let krate = dependency.replace('-', "_");
            let used = files
                .iter()
                .filter(|file| package_of(&file.path).name == package.name)
                // Literals count: `serde(with = "…")` names a crate in one.
                .any(|file| words(&file.text).any(|(_, word)| word == krate));
            if !used {
                idle.push(format!("{} does not use {dependency}", package.name));
            }
        }
    }
    assert!(idle.is_empty(), "{}", idle.join("\n"));
}

#[test]
fn every_dependency_has_its_line_in_the_docs() {
    let page = fs::read_to_string(root().join("docs/dependencies.md")).expect("the page is there");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the root has a manifest");
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let all = manifest["workspace"]["dependencies"].as_table().expect("dependencies is a table");
    for name in all.keys().filter(|name| !name.starts_with("roost-")) {
        assert!(
            page.contains(&format!("| `{name}` |")),
            "docs/dependencies.md does not name {name}"
        );
    }
}

#[test]
fn a_breach_in_a_manifest_is_noticed() {
    let breaches = |name: &str, manifest: &str| {
        let package = PACKAGES.iter().find(|p| p.name == name).expect("the table has it");
        manifest_breaches(package, manifest).len()
    };
    assert_eq!(breaches("roost-storage", "[dependencies]\nroost-raft.workspace = true"), 1);
    assert_eq!(breaches("roost-client", "[dev-dependencies]\nroost-storage = { path = \"x\" }"), 1);
    assert_eq!(breaches("roost-cluster", "[dependencies]\nraft = { package = \"openraft\" }"), 1);
    assert_eq!(breaches("roost", "[target.'cfg(unix)'.dependencies]\nsled = \"0.34\""), 1);
    assert_eq!(breaches("roost-storage", "[dependencies]\ntokio.workspace = true"), 1);
    assert_eq!(
        breaches("roost-raft", "[dependencies]\nroost-storage = \"1\"\nopenraft = \"1\""),
        0
    );
}

#[test]
fn a_breach_in_a_source_is_noticed() {
    let breaches = |path: &str, text: &str| source_breaches(path, text).len();
    assert_eq!(breaches("storage/src/store.rs", "use roost_raft::Node;"), 1);
    assert_eq!(breaches("client/src/lib.rs", "let id = ::roost_storage::model::UserId;"), 1);
    assert_eq!(breaches("cluster/src/lib.rs", "use openraft as raft;"), 1);
    assert_eq!(breaches("storage/src/store.rs", "use {bytes::Bytes, sled::Tree};"), 1);
    assert_eq!(breaches("storage/src/engine/mod.rs", "fn f() { fjall::open() }"), 1);
    assert_eq!(breaches("src/node.rs", "extern crate quinn;"), 1);
    assert_eq!(breaches("storage/src/store.rs", "let now = SystemTime::now();"), 1);
}

#[test]
fn what_is_allowed_or_only_prose_is_no_breach() {
    let breaches = |path: &str, text: &str| source_breaches(path, text);
    let none: Vec<String> = Vec::new();
    assert_eq!(breaches("src/node.rs", "use roost_cluster::Cluster;"), none);
    assert_eq!(breaches("storage/src/engine/sled.rs", "use sled::Tree;"), none);
    assert_eq!(breaches("storage/src/engine/mod.rs", "mod sled; fn f() { sled::open() }"), none);
    assert_eq!(breaches("storage/src/store.rs", "use crate::engine::sled::SledEngine;"), none);
    assert_eq!(breaches("storage/src/store.rs", "// like openraft::Raft\n/* quinn:: */"), none);
    assert_eq!(breaches("src/cli/mod.rs", "print(\"sled::open\", r#\"use fjall;\"#, '\"');"), none);
}
