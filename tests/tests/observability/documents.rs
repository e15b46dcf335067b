//! The page and the dashboard name exactly what the library measures.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use lock_tests::{eventually, ms};
use metrics::Unit;
use serde_json::Value;

use crate::{
    measurements::everything_happens,
    recorder::{all, described, label_values},
};

fn read(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(&docs).unwrap_or_else(|error| panic!("{}: {error}", docs.display()))
}

/// All words of a text that are names of measurements; a histogram has three in Prometheus.
fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let words = words.filter(|word| word.starts_with("lock_"));
    let base = |word: &str| {
        let of_histogram =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        of_histogram.unwrap_or(word).to_owned()
    };
    words.map(base).collect()
}

/// The rows of the page's table of measurements: name, kind, unit and labels.
fn rows(page: &str) -> BTreeMap<String, [String; 3]> {
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, unit, labels, _] = cells[..] else { return None };
        let name = name.strip_prefix('`')?.strip_suffix('`')?.to_owned();
        Some((name, [kind, unit, labels].map(str::to_owned)))
    });
    rows.collect()
}

#[tokio::test]
async fn the_page_and_the_dashboard_name_what_is_measured() {
    everything_happens().await;
    let page = read("observability.md");
    let rows = rows(&page);
    // The counter of events that were left out is tested in `hostile`.
    let documented: BTreeSet<_> = rows.keys().cloned().collect();
    let seen = eventually(ms(30_000), async || {
        let seen: BTreeSet<_> = all().into_keys().collect();
        let missing: Vec<_> = documented.difference(&seen).cloned().collect();
        if missing.is_empty() { Ok(seen) } else { Err(missing) }
    })
    .await;
    assert_eq!(seen, documented, "what is measured, and the table in docs/observability.md");
    let units = described();
    for (name, (kind, labels)) in all() {
        let [written_kind, unit, written_labels] = &rows[&name];
        let in_words = match units[&name] {
            (_, Some(Unit::Seconds)) => "s",
            _ => "",
        };
        assert_eq!((kind, in_words), (&**written_kind, &**unit), "{name}");
        assert_eq!(units[&name].0, kind, "{name} is described as what it is");
        let written = written_labels.split(", ").map(|label| label.trim_matches('`').to_owned());
        let written: BTreeSet<_> = written.filter(|label| !label.is_empty()).collect();
        assert_eq!(labels, written, "the labels of {name}");
    }
    let ids = ["m", "d", "refused"];
    assert!(label_values().iter().all(|value| !ids.contains(&&**value)), "no id is a label");

    assert_eq!(&names_in(&page) - &seen, BTreeSet::new(), "the page names what is not measured");
    let dashboard: Value = serde_json::from_str(&read("grafana-dashboard.json")).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() >= 10, "{queries:?}");
    let shown = names_in(&queries.join(" "));
    assert_eq!(&shown - &seen, BTreeSet::new(), "the dashboard names what is not measured");
    assert_eq!(&seen - &shown, BTreeSet::new(), "the dashboard lacks what is measured");
}

/// The queries of all panels.
fn collect(value: &Value, queries: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(query)) = fields.get("expr") {
                queries.push(query.clone());
            }
            fields.values().for_each(|value| collect(value, queries));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
        _ => {}
    }
}
