//! The description and the routes say the same.

use std::collections::BTreeSet;

use serde_json::Value;

use super::health::OPENAPI;
use super::{Access, routes};

fn description() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// `GET /path` of every operation that is described.
fn described(description: &Value) -> BTreeSet<String> {
    let paths = description["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, operations)| {
        let methods = operations.as_object().unwrap().keys();
        methods.map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    operations.collect()
}

/// Every `$ref` in a value.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("$ref", Value::String(target)) => drop(found.insert(target.clone())),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_route_is_described_and_nothing_else_is() {
    let routed: BTreeSet<String> =
        routes().iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(described(&description()), routed);
}

#[test]
fn the_description_says_who_may_call_what() {
    let description = description();
    for route in routes() {
        let method = route.method.as_str().to_lowercase();
        let operation = &description["paths"][route.path][method.as_str()];
        let guarded = !operation["security"].as_array().unwrap().is_empty();
        assert_eq!(guarded, route.access == Access::Admin, "{method} {}", route.path);
        let refusals = ["401", "403"].map(|status| operation["responses"].get(status).is_some());
        assert!(!guarded || refusals == [true, true], "{method} {}", route.path);
    }
}

#[test]
fn all_path_parameters_are_described() {
    let description = description();
    for route in routes() {
        let method = route.method.as_str().to_lowercase();
        let operation = &description["paths"][route.path][method.as_str()];
        let described: BTreeSet<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let in_path: BTreeSet<&str> = route
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        assert_eq!(described, in_path, "{method} {}", route.path);
    }
}

#[test]
fn everything_that_is_referred_to_is_there() {
    let description = description();
    let mut found = BTreeSet::new();
    references(&description, &mut found);
    for target in found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(description.pointer(pointer).is_some(), "{target}");
    }
}

#[test]
fn everything_under_v1_but_the_websocket_is_for_administrators() {
    for route in routes() {
        let guarded = route.path.starts_with("/v1/") && route.path != "/v1/ws";
        assert_eq!(route.access == Access::Admin, guarded, "{}", route.path);
    }
}
