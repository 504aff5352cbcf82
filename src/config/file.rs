//! The optional configuration file: YAML or TOML, by extension, down to the text of each key.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::error::Problem;
use super::variable::{self, VARIABLES};

/// What a file may hold under a key. Deserialised without regard to the key, so that every bad key can be told.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Entry {
    Scalar(Scalar),
    List(Vec<Scalar>),
    Other(serde::de::IgnoredAny),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Flag(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    /// `key:` with nothing after it: the empty value.
    Nothing(()),
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Flag(flag) => flag.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Text(text) => text,
            Self::Nothing(()) => String::new(),
        }
    }
}

/// Reads the file and returns the text of each known key; what is wrong goes to `problems`.
pub(super) fn read(path: &Path, problems: &mut Vec<Problem>) -> BTreeMap<String, String> {
    let entries = parse(path).unwrap_or_else(|reason| {
        problems.push(Problem::File {
            path: path.to_owned(),
            reason,
        });
        BTreeMap::new()
    });

    let mut texts = BTreeMap::new();
    for (key, entry) in entries {
        match text_of(path, &key, entry) {
            Ok(text) => {
                texts.insert(key, text);
            }
            Err(problem) => problems.push(problem),
        }
    }
    texts
}

fn parse(path: &Path) -> Result<BTreeMap<String, Entry>, String> {
    let format = match path.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => parse_yaml,
        Some("toml") => parse_toml,
        Some(_) | None => {
            return Err("the extension is none of .yaml, .yml and .toml".to_owned());
        }
    };
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    format(&text)
}

fn parse_yaml(text: &str) -> Result<BTreeMap<String, Entry>, String> {
    // YAML 1.1 reads `off` as false; here it is a word like any other.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

fn parse_toml(text: &str) -> Result<BTreeMap<String, Entry>, String> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{} at line {line}, column {column}", error.message())
    })
}

/// Text of an entry, in the notation of the variables.
fn text_of(path: &Path, key: &str, entry: Entry) -> Result<String, Problem> {
    let place = format!("{}: {key}", path.display());
    let known = VARIABLES.iter().find(|variable| variable.key() == key);
    let Some(variable) = known.filter(|variable| variable.in_file()) else {
        let suggestion = variable::closest(key).map(|variable| variable.key());
        return Err(Problem::Unknown { place, suggestion });
    };
    let refused = |value: &str, reason: &str| Problem::Invalid {
        place,
        value: value.to_owned(),
        expected: variable.expected,
        reason: reason.to_owned(),
    };
    match entry {
        Entry::Scalar(scalar) => Ok(scalar.into_text()),
        Entry::List(items) => {
            let texts: Vec<String> = items.into_iter().map(Scalar::into_text).collect();
            let text = texts.join(",");
            if variable.list {
                Ok(text)
            } else {
                Err(refused(&text, "a list stands where one value is expected"))
            }
        }
        Entry::Other(_) => Err(refused("…", "it is neither a value nor a list of values")),
    }
}
