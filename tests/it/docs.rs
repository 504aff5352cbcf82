use std::collections::BTreeSet;

use outgate::config::VARIABLES;
use outgate::reason::Reason;

use crate::harness::origin::Origin;
use crate::harness::{TestProxy, connect_head};

const README: &str = include_str!("../../README.md");
const ARCHITECTURE: &str = include_str!("../../ARCHITECTURE.md");

/// The rows of the table that follows a header cell.
pub(crate) fn table(header: &str) -> Vec<Vec<String>> {
    README
        .lines()
        .skip_while(|line| !line.starts_with(&format!("| {header} |")))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            line.trim_matches('|')
                .split(" | ")
                .map(|cell| cell.trim().replace('`', ""))
                .collect()
        })
        .collect()
}

#[test]
fn the_readme_has_exactly_the_variables_with_their_defaults() {
    let documented: Vec<_> = table("variable")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let real: Vec<_> = VARIABLES
        .iter()
        .map(|variable| {
            let default = if variable.default.is_empty() {
                "empty"
            } else {
                variable.default
            };
            (variable.name.to_owned(), default.to_owned())
        })
        .collect();
    assert_eq!(documented, real);
}

#[test]
fn the_readme_has_exactly_the_reasons_with_status_and_token() {
    let documented: Vec<_> = table("reason")
        .into_iter()
        .map(|row| row[..3].to_vec())
        .collect();
    let real: Vec<_> = Reason::ALL
        .into_iter()
        .map(|reason| {
            let row = reason.row();
            let sent = row.proxy_error.map(|_| row.status.as_u16().to_string());
            let token = row.proxy_error.unwrap_or_default();
            vec![
                row.label.to_owned(),
                sent.unwrap_or_default(),
                token.to_owned(),
            ]
        })
        .collect();
    assert_eq!(documented, real);
}

#[tokio::test]
async fn the_readme_has_exactly_the_metrics_with_their_types_and_labels() {
    let origin = Origin::answering("").await;
    let proxy = TestProxy::builder().allow("origin.test:*").start().await;
    // Families without a series are not shown, so each gets one.
    proxy.ask("garbage\r\n\r\n").await;
    proxy.ask(&connect_head("evil.test:443")).await;
    proxy
        .tunnel(&format!("origin.test:{}", origin.port()))
        .await;
    let documented: BTreeSet<_> = table("metric")
        .into_iter()
        .map(|row| {
            let (kind, labels) = row[1].split_once(": ").unwrap_or((&row[1], ""));
            let labels = labels.split(", ").filter(|label| !label.is_empty());
            described(&row[0], kind, labels)
        })
        .collect();
    assert_eq!(documented, families(&proxy.metrics().await));
}

/// The gateway's own families in an exposition.
fn families(metrics: &str) -> BTreeSet<String> {
    let types = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .filter(|(name, _)| name.starts_with("outgate_"))
        .flat_map(|(name, kind)| {
            let sample = match kind {
                "histogram" => format!("{name}_bucket"),
                _ => name.to_owned(),
            };
            let series = metrics.lines().filter_map(move |line| {
                let labels = line.strip_prefix(&sample)?.rsplit_once(' ')?.0;
                let braced = labels
                    .strip_prefix('{')
                    .and_then(|text| text.strip_suffix('}'));
                braced.or(Some(labels).filter(|text| text.is_empty()))
            });
            series.map(move |labels| {
                // No value here has a comma in it.
                let names = labels
                    .split(',')
                    .filter_map(|label| label.split('=').next());
                let names = names.filter(|label| !["", "le"].contains(label));
                described(name, kind, names)
            })
        })
        .collect()
}

fn described<'a>(name: &str, kind: &str, labels: impl Iterator<Item = &'a str>) -> String {
    let labels: BTreeSet<_> = labels.collect();
    format!("{name} {kind} {labels:?}")
}

#[test]
fn every_source_file_is_on_the_map() {
    let mut folders = vec![std::path::PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src"
    ))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                folders.push(path);
            } else if name != "tests.rs"
                && !path.components().any(|part| part.as_os_str() == "tests")
            {
                let parent = path
                    .parent()
                    .unwrap()
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap();
                let on_map = if parent == "src" {
                    name.to_owned()
                } else {
                    format!("{parent}/{name}")
                };
                assert!(
                    ARCHITECTURE.contains(&format!("`{on_map}`")),
                    "{on_map} is missing"
                );
            }
        }
    }
}

/// `OUTGATE_CONNECT_TIMEOUT` as the chart spells it: `connectTimeout`.
fn camel_case(variable: &str) -> String {
    let words = variable.trim_start_matches("OUTGATE_").to_lowercase();
    let mut words = words.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        name + &word[..1].to_uppercase() + &word[1..]
    })
}

#[test]
fn the_chart_has_exactly_the_variables() {
    let real: BTreeSet<_> = VARIABLES
        .iter()
        .map(|variable| camel_case(variable.name))
        .collect();
    let values = include_str!("../../helm/outgate/values.yaml");
    let values: serde_json::Value = serde_saphyr::from_str(values).unwrap();
    let keys = |value: &serde_json::Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys(&values["config"]), real);
    let schema = include_str!("../../helm/outgate/values.schema.json");
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    let described = &schema["properties"]["config"]["properties"];
    assert_eq!(keys(described), real);
    for variable in VARIABLES {
        let description = &described[camel_case(variable.name)]["description"];
        assert_eq!(description, variable.meaning, "{}", variable.name);
    }
    assert_eq!(
        schema["properties"]["config"]["additionalProperties"],
        false
    );
}
