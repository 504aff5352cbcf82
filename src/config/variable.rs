//! A variable: its name, what it takes, and which field of the configuration it sets.

mod table;

pub use table::VARIABLES;

use std::fmt::{self, Write};

use super::Config;

/// What every variable's name begins with.
pub(super) const PREFIX: &str = "OUTGATE_";

/// One row of the table from which `--help`, the error messages, the check for unknown names and the documentation's
/// tests come.
pub struct Variable {
    /// Name in the environment.
    pub name: &'static str,
    /// The built-in default, in the notation of the variable.
    pub default: &'static str,
    /// One line on what it does.
    pub meaning: &'static str,
    /// What it takes, to follow "expected".
    pub expected: &'static str,
    /// Whether it takes a list, which may be empty, and may be a sequence in the file.
    pub list: bool,
    /// Reads a text into the variable's field.
    pub(super) read: fn(&mut Config, &str) -> Result<(), String>,
    /// Writes the field in the notation that `read` takes.
    pub(super) show: fn(&Config) -> String,
}

impl Variable {
    /// Its key in the configuration file: `connect_timeout` for `OUTGATE_CONNECT_TIMEOUT`.
    pub fn key(&self) -> String {
        self.name
            .strip_prefix(PREFIX)
            .unwrap_or(self.name)
            .to_ascii_lowercase()
    }

    /// Whether the configuration file may set it; only the file's own path may not.
    pub fn in_file(&self) -> bool {
        self.name != CONFIG
    }
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variable")
            .field("name", &self.name)
            .field("default", &self.default)
            .finish_non_exhaustive()
    }
}

/// The variable that names the configuration file.
pub(super) const CONFIG: &str = "OUTGATE_CONFIG";

/// The list of variables for `--help`: each with its default, its meaning and what it takes.
pub fn help() -> String {
    let mut text = String::new();
    for variable in VARIABLES {
        let Variable {
            name,
            default,
            meaning,
            expected,
            ..
        } = variable;
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "  {name}={default}\n      {meaning}\n      takes {expected}"
        );
    }
    text
}

/// The variable that an unknown name or key most resembles, if any is close enough to be what was meant.
pub(super) fn closest(name: &str) -> Option<&'static Variable> {
    let name = name.to_ascii_uppercase();
    let word = name.strip_prefix(PREFIX).unwrap_or(&name);
    // A third of the letters wrong and one more, but never most of a short name.
    let most = (1 + word.len() / 3).min(word.len() / 2);
    VARIABLES
        .iter()
        .map(|variable| {
            let known = variable.name.strip_prefix(PREFIX).unwrap_or(variable.name);
            (strsim::osa_distance(word, known), variable)
        })
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, variable)| variable)
}
