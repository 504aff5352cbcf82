//! The ports a rule speaks of.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::rule::RuleError;
use crate::target::{self, TargetError};

/// The ports a rule speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// None were written: 443 for `CONNECT` and 80 for plain HTTP; every port in a deny rule.
    #[default]
    Default,
    /// Every port, `*`.
    Any,
    /// The ports in these ranges, for either kind of request.
    Ranges(Vec<RangeInclusive<u16>>),
}

impl Ports {
    /// These ports, one by one; none at all is as if none were written, lest a deny rule with an
    /// empty list deny nothing.
    #[must_use]
    pub fn of(ports: impl IntoIterator<Item = u16>) -> Self {
        let ports = ports
            .into_iter()
            .map(|port| Self::Ranges(vec![port..=port]));
        ports.fold(Self::Default, Self::and)
    }

    /// Adds the ports of another entry of the same rule.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => Self::Any,
            (Self::Default, ports) | (ports, Self::Default) => ports,
            (Self::Ranges(mut ranges), Self::Ranges(more)) => {
                ranges.extend(more);
                Self::Ranges(ranges)
            }
        }
    }

    /// Whether every port of `other` is certainly among these.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (Self::Default, Self::Default) => true,
            (Self::Ranges(wide), Self::Ranges(narrow)) => narrow.iter().all(|narrow| {
                wide.iter()
                    .any(|wide| wide.contains(narrow.start()) && wide.contains(narrow.end()))
            }),
            (Self::Ranges(_) | Self::Default, _) => false,
        }
    }

    /// Whether `port` is among them, where `default` is what unwritten ports mean.
    pub(super) fn contains(&self, port: u16, default: u16) -> bool {
        match self {
            Self::Default => port == default,
            Self::Any => true,
            Self::Ranges(ranges) => ranges.iter().any(|range| range.contains(&port)),
        }
    }
}

impl FromStr for Ports {
    type Err = RuleError;

    /// Reads `8443`, `8000-8100` or `*`.
    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(RuleError::ReversedPorts { first, last });
        }
        Ok(Self::Ranges(vec![first..=last]))
    }
}

impl fmt::Display for Ports {
    /// As in a rule; several ranges are parted by commas, and default ports are empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = match self {
            Self::Default => return Ok(()),
            Self::Any => return f.write_str("*"),
            Self::Ranges(ranges) => ranges,
        };
        for (index, range) in ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", range.start())?;
            if range.start() != range.end() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

fn port(text: &str) -> Result<u16, RuleError> {
    target::parse_port(text).map_err(|error| {
        if error == TargetError::PortZero {
            RuleError::PortZero
        } else {
            RuleError::Port(text.into())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_a_number_a_range_or_a_star() {
        for text in ["8443", "8000-8100", "*", "1-65535"] {
            assert_eq!(
                text.parse::<Ports>()
                    .map(|ports| ports.to_string())
                    .as_deref(),
                Ok(text)
            );
        }
        let range: Ports = "8000-8100".parse().unwrap();
        assert!(range.contains(8000, 443) && range.contains(8100, 443));
        assert!(!range.contains(8101, 443) && !range.contains(443, 443));
    }

    #[test]
    fn what_is_no_port_is_refused() {
        assert_eq!("0".parse::<Ports>(), Err(RuleError::PortZero));
        assert_eq!("0-80".parse::<Ports>(), Err(RuleError::PortZero));
        assert_eq!(
            "90-80".parse::<Ports>(),
            Err(RuleError::ReversedPorts {
                first: 90,
                last: 80
            })
        );
        for text in [
            "",
            "-",
            "80-",
            "-80",
            "65536",
            "http",
            "+80",
            "80-90-100",
            "8*",
        ] {
            assert!(
                matches!(text.parse::<Ports>(), Err(RuleError::Port(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn entries_of_one_rule_add_up() {
        assert_eq!(Ports::of([]), Ports::Default);
        let ports = Ports::Default
            .and(Ports::of([80]))
            .and("90-99".parse().unwrap());
        assert_eq!(ports.to_string(), "80,90-99");
        assert_eq!(ports.and(Ports::Any), Ports::Any);
    }
}
