use outgate::config::VARIABLES;
use outgate::policy::file::PolicyFile;
use serde_json::Value;

const VALUES: &str = include_str!("../../helm/outgate/values.yaml");
const SCHEMA: &str = include_str!("../../helm/outgate/values.schema.json");
const CHART: &str = include_str!("../../helm/outgate/Chart.yaml");
const DOCKERFILE: &str = include_str!("../../Dockerfile");

#[test]
fn each_variable_is_documented_in_the_chart_as_in_the_program() {
    let documented: Vec<_> = VALUES
        .lines()
        .skip_while(|line| *line != "config:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.trim().strip_prefix("# -- "))
        .collect();
    let real: Vec<_> = VARIABLES
        .iter()
        .map(|variable| match variable.default {
            "" => format!("{} (`{}`)", variable.meaning, variable.name),
            default => format!(
                "{} (`{}`; by default `{default}`)",
                variable.meaning, variable.name
            ),
        })
        .collect();
    assert_eq!(documented, real);
}

#[test]
fn the_chart_accepts_the_policies_that_the_gateway_accepts() {
    let (chart, real): (Value, _) = (serde_json::from_str(SCHEMA).unwrap(), PolicyFile::schema());
    assert_eq!(chart["$defs"], real["$defs"]);
    let policy = &chart["properties"]["policy"];
    assert_eq!(policy["properties"], real["properties"]);
    assert_eq!(policy["additionalProperties"], real["additionalProperties"]);
}

#[test]
fn chart_and_image_carry_the_version_of_the_program() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(CHART.contains(&format!("\nappVersion: \"{version}\"\n")));
    assert!(DOCKERFILE.contains(&format!("image.version=\"{version}\"")));
}
