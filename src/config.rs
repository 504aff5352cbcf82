//! The configuration: built-in defaults < the file named by `OUTGATE_CONFIG` < `OUTGATE_*` variables.
//!
//! The only place that merges layers or reads the environment. The layers merge as text (`RawConfig`), then each
//! text is parsed once, by its row of [`VARIABLES`], into [`Config`]; everything wrong is told at once.
//! A value is never guessed: an unknown name, an unknown key and an empty scalar (a template that rendered nothing)
//! are errors, because a typo must not open or close the gate silently. An empty list is a list.
//! Tracing alone is stated by `OTEL_*` variables, which the OpenTelemetry specification defines.

mod error;
mod file;
mod otel;
mod service_link;
mod settings;
mod value;
mod variable;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

pub use error::{ConfigError, Problem};
pub use otel::{Protocol, Sampler, Tracing};
pub use settings::{Config, LogFormat};
pub use value::ipv4_fallback;
pub use variable::{VARIABLES, Variable, help};

/// The layer a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The file that `OUTGATE_CONFIG` names.
    File,
    /// The environment.
    Variable,
}

impl Origin {
    const ALL: [Self; 3] = [Self::Default, Self::File, Self::Variable];

    fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Variable => "variable",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Config {
    /// Reads the process's environment, and the file it names.
    ///
    /// # Errors
    /// As [`Config::load`].
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::load(std::env::vars_os())
    }

    /// Reads the given variables, and the file they name. Variables of other programs are passed over.
    ///
    /// # Errors
    /// Every bad value, unknown name and unknown key, together.
    pub fn load<K, V>(variables: impl IntoIterator<Item = (K, V)>) -> Result<Self, ConfigError>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let mut problems = Vec::new();
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        let variables: Vec<(OsString, OsString)> = variables.collect();
        let tracing = Tracing::read(&variables, &mut problems);
        let raw = RawConfig::gather(variables, &mut problems);
        let mut config = raw.parse(&mut problems);
        config.tracing = tracing;
        if problems.is_empty() {
            // Only then: a listener that did not parse still has its default, which may clash for no fault.
            config.check_listeners(&mut problems);
        }
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::new(problems))
        }
    }

    /// The effective values in the order of the table, each in the notation it is read in, with the layer it is from.
    pub fn values(&self) -> impl Iterator<Item = (&'static Variable, String, Origin)> {
        VARIABLES.iter().map(|variable| {
            let origin = self.origins.get(variable.name).copied();
            let value = (variable.show)(self);
            (variable, value, origin.unwrap_or(Origin::Default))
        })
    }
}

/// One line a variable, `OUTGATE_X=value  # layer`, for `outgate config`; then tracing, where there is any.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.values().try_for_each(|(variable, value, origin)| {
            writeln!(f, "{}={value}  # {origin}", variable.name)
        })?;
        let mut tracing = self.tracing.iter().flat_map(Tracing::values);
        tracing.try_for_each(|(name, value)| writeln!(f, "{name}={value}"))
    }
}

/// The merged layers, still text: one value for each variable, in the order of the table.
#[derive(Debug)]
struct RawConfig {
    values: Vec<(&'static Variable, String, Origin)>,
    file: Option<PathBuf>,
}

impl RawConfig {
    /// Merges defaults, file and variables.
    fn gather<K, V>(
        variables: impl IntoIterator<Item = (K, V)>,
        problems: &mut Vec<Problem>,
    ) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let variables = Layer::of_variables(variables, problems);
        let file = variables.file();
        let figment = Figment::from(Layer::of_defaults());
        let figment = match &file {
            Some(path) => figment.merge(Layer::of_file(path, problems)),
            None => figment,
        };
        let figment = figment.merge(variables);

        let mut texts: BTreeMap<String, String> = figment.extract().unwrap_or_else(|error| {
            problems.push(Problem::Layers(error.to_string()));
            BTreeMap::new()
        });
        let values = VARIABLES.iter().filter_map(|variable| {
            let key = variable.key();
            let layer = &figment.find_metadata(&key)?.name;
            let origin = Origin::ALL
                .into_iter()
                .find(|origin| origin.name() == *layer)?;
            Some((variable, texts.remove(&key)?, origin))
        });
        Self {
            values: values.collect(),
            file,
        }
    }

    /// Parses every value into its field. A field whose value is bad keeps its default, and the problem is told.
    fn parse(self, problems: &mut Vec<Problem>) -> Config {
        let mut config = Config::default();
        for (variable, text, origin) in self.values {
            if origin != Origin::Default {
                config.origins.insert(variable.name, origin);
            }
            let read = match refusal(variable, &text) {
                Some(reason) => Err(reason.to_owned()),
                None => (variable.read)(&mut config, text.trim()),
            };
            if let Err(reason) = read {
                let place = match &self.file {
                    Some(file) if origin == Origin::File => {
                        format!("{}: {}", file.display(), variable.key())
                    }
                    Some(_) | None => variable.name.to_owned(),
                };
                problems.push(Problem::Invalid {
                    place,
                    value: text,
                    expected: variable.expected,
                    reason,
                });
            }
        }
        config
    }
}

/// Why a text cannot be the value of a variable, whatever the variable's notation.
fn refusal(variable: &Variable, text: &str) -> Option<&'static str> {
    let text = text.trim();
    if variable.list {
        None
    } else if text.is_empty() {
        Some("the value is empty; leave it out for the default")
    } else if text.contains(char::is_control) {
        Some("it contains a control character")
    } else {
        None
    }
}

/// Texts of one layer, by key.
#[derive(Debug)]
struct Layer {
    origin: Origin,
    texts: BTreeMap<String, String>,
}

impl Layer {
    fn of_defaults() -> Self {
        let texts = VARIABLES
            .iter()
            .map(|variable| (variable.key(), variable.default.to_owned()))
            .collect();
        Self {
            origin: Origin::Default,
            texts,
        }
    }

    fn of_file(path: &Path, problems: &mut Vec<Problem>) -> Self {
        Self {
            origin: Origin::File,
            texts: file::read(path, problems),
        }
    }

    /// The variables whose names are the gateway's; near misses are told.
    fn of_variables<K, V>(
        variables: impl IntoIterator<Item = (K, V)>,
        problems: &mut Vec<Problem>,
    ) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let mut texts = BTreeMap::new();
        for (name, value) in variables {
            let name = name.into();
            let name = name.to_string_lossy();
            // Lower case is meant for the gateway too: `http_proxy` has taught people that habit.
            if !name.to_ascii_uppercase().starts_with(variable::PREFIX) {
                continue;
            }
            let value = value.into().into_string();
            match VARIABLES.iter().find(|variable| variable.name == name) {
                Some(variable) => match value {
                    Ok(text) => {
                        texts.insert(variable.key(), text);
                    }
                    Err(bytes) => problems.push(Problem::Invalid {
                        place: variable.name.to_owned(),
                        value: bytes.to_string_lossy().into_owned(),
                        expected: variable.expected,
                        reason: "the value is not UTF-8".to_owned(),
                    }),
                },
                None if service_link::is_service_link(&name, &value.unwrap_or_default()) => {}
                None => problems.push(Problem::Unknown {
                    suggestion: variable::closest(&name).map(|variable| variable.name.to_owned()),
                    place: name.into_owned(),
                }),
            }
        }
        Self {
            origin: Origin::Variable,
            texts,
        }
    }

    /// The file that this layer names. An empty path is [`RawConfig::parse`]'s to refuse.
    fn file(&self) -> Option<PathBuf> {
        let path = self.texts.get("config")?.trim();
        value::path(path).filter(|_| !path.is_empty())
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.name())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let values = self.texts.iter();
        let values = values.map(|(key, text)| (key.clone(), Value::from(text.as_str())));
        Ok(Profile::Default.collect(values.collect()))
    }
}

#[cfg(test)]
mod tests;
