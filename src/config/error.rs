//! What is wrong with a configuration, all of it at once.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Longest value repeated in a message, in characters: a list may hold thousands of rules, and the reason names the
/// bad ones.
const LONGEST_VALUE: usize = 200;

/// Every problem of a configuration that cannot be used; displayed one to a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// The problems, never empty: names first, then the file, then values in the order of the table.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A value that does not parse.
    #[error("{place}={}: {reason}; expected {expected}", quoted(.value))]
    Invalid {
        /// The variable, or the file and its key.
        place: String,
        /// The value as it was given.
        value: String,
        /// What the variable takes.
        expected: &'static str,
        /// Why this value is not that.
        reason: String,
    },

    /// A name that no variable, or no key of the file, has.
    #[error("{place}: unknown; {}", hint(.suggestion.as_deref()))]
    Unknown {
        /// The variable, or the file and its key.
        place: String,
        /// The known name it resembles.
        suggestion: Option<String>,
    },

    /// The file could not be read or is not what its extension says.
    #[error("OUTGATE_CONFIG={}: {}", quoted(&.path.to_string_lossy()), one_line(.reason))]
    File {
        /// The file.
        path: PathBuf,
        /// Why, with line and column where there are any.
        reason: String,
    },

    /// Two listeners want the same address.
    #[error("{first} and {second} both listen on {address}; expected an address for each")]
    Clash {
        /// The variable that comes first in the table.
        first: &'static str,
        /// The other one.
        second: &'static str,
        /// The address.
        address: SocketAddr,
    },

    /// The layers did not merge.
    #[error("the configuration's layers do not merge: {}", one_line(.0))]
    Layers(String),
}

/// The value in quotes and escaped, so that a newline in it cannot end the line.
fn quoted(value: &str) -> String {
    match value.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{:?}…", &value[..end]),
        None => format!("{value:?}"),
    }
}

fn hint(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(
        || "`outgate --help` lists every name".to_owned(),
        |name| format!("did you mean {name}?"),
    )
}

/// Joins the lines that parsers of files spread their messages over.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join(" ")
}
