//! What name servers answered, for as long as it holds.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use moka::Expiry;
use moka::sync::Cache as Entries;

/// Answers kept; an allowlist rarely names more hosts. With the longest name and the most addresses
/// one takes 1.5 KB, so all of them 12 MB at worst, and a third of that as a rule.
const MOST_ANSWERS: u64 = 8192;

/// Addresses used of one answer. A message has room for thousands, and a name server that means harm
/// would have each of them kept; nobody who wants to be reached needs more.
pub(super) const MOST_ADDRESSES: usize = 32;

/// Negative answers are kept this long at most, so that a name that was just created is soon found.
const NEGATIVE_MAX_TTL: Duration = Duration::from_secs(30);

/// Silence about one family is remembered this long at most. A name server that was only slow has the answer at hand by then.
const SILENCE_MAX_TTL: Duration = Duration::from_secs(10);

/// A name and the family that is asked for.
pub(super) type Question = (Name, RecordType);

/// The answer to a question.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// At least one address and [`MOST_ADDRESSES`] at most, or in what words there is none.
    pub(super) addresses: Result<Arc<[IpAddr]>, ResponseCode>,
    pub(super) valid_until: Instant,
}

/// Answers by question.
#[derive(Debug)]
pub(super) struct Cache(Entries<Question, Answer>);

impl Cache {
    pub(super) fn new() -> Self {
        let entries = Entries::builder()
            .max_capacity(MOST_ANSWERS)
            .expire_after(WhenInvalid);
        Self(entries.build())
    }

    /// An answer that still holds.
    pub(super) fn get(&self, question: &Question) -> Option<Answer> {
        self.0.get(question)
    }

    /// Keeps an answer for as long as it holds: one with a lifetime of zero not at all.
    pub(super) fn insert(&self, question: Question, answer: Answer) {
        if answer.valid_until > Instant::now() {
            self.0.insert(question, answer);
        }
    }

    /// The same, unless there is one that holds: somebody else may have got it a moment before.
    pub(super) fn insert_if_none(&self, question: Question, answer: Answer) {
        if answer.valid_until > Instant::now() {
            self.0.entry(question).or_insert(answer);
        }
    }
}

impl Answer {
    /// What a lookup came to.
    ///
    /// # Errors
    /// Those of the name servers; that there is no address is an answer.
    pub(super) fn of(looked_up: Result<Lookup, NetError>) -> Result<Self, NetError> {
        let lookup = match looked_up {
            Ok(lookup) => lookup,
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if [ResponseCode::NXDomain, ResponseCode::NoError]
                    .contains(&none.response_code) =>
            {
                // Without a lifetime (RFC 2308 §5) it is not kept.
                let ttl = Duration::from_secs(none.negative_ttl.unwrap_or(0).into());
                return Ok(Self::negative(none.response_code, Instant::now() + ttl));
            }
            Err(error) => return Err(error),
        };
        let addresses: Arc<[_]> = lookup
            .answers()
            .iter()
            .filter_map(|record| record.data.ip_addr())
            .take(MOST_ADDRESSES)
            .collect();
        let valid_until = lookup.valid_until();
        if addresses.is_empty() {
            return Ok(Self::negative(ResponseCode::NoError, valid_until));
        }
        Ok(Self {
            addresses: Ok(addresses),
            valid_until,
        })
    }

    /// That there is no address, instead of an answer that has not come: for a while, and no longer than the other
    /// family's holds.
    pub(super) fn none_for_now(other_until: Instant) -> Self {
        Self::negative(
            ResponseCode::NoError,
            other_until.min(Instant::now() + SILENCE_MAX_TTL),
        )
    }

    fn negative(code: ResponseCode, valid_until: Instant) -> Self {
        Self {
            addresses: Err(code),
            valid_until: valid_until.min(Instant::now() + NEGATIVE_MAX_TTL),
        }
    }
}

/// Each answer has a lifetime of its own.
struct WhenInvalid;

impl Expiry<Question, Answer> for WhenInvalid {
    fn expire_after_create(
        &self,
        _question: &Question,
        answer: &Answer,
        now: Instant,
    ) -> Option<Duration> {
        Some(answer.valid_until.saturating_duration_since(now))
    }

    fn expire_after_update(
        &self,
        question: &Question,
        answer: &Answer,
        now: Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(question, answer, now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn silence_takes_the_place_of_no_answer_that_holds() {
        let cache = Cache::new();
        let question = (Name::root(), RecordType::A);
        let until = |lifetime| Answer {
            addresses: Ok([Ipv4Addr::LOCALHOST.into()].into()),
            valid_until: Instant::now() + lifetime,
        };
        let minute = Duration::from_secs(60);
        let none = || Answer::none_for_now(Instant::now() + minute);
        let kept = || cache.get(&question).unwrap().addresses.is_ok();
        cache.insert_if_none(question.clone(), none());
        assert!(!kept());
        cache.insert(question.clone(), until(minute));
        cache.insert_if_none(question.clone(), none());
        assert!(kept());
    }
}
