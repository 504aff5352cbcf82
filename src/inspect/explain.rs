//! `GET /explain`: what would become of a request, without sending it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::{Inspector, json};
use crate::admin::with_type;
use crate::check::{self, AddressVerdict, Asker, Checked, Judged, Question};
use crate::policy::{Action, Considered, Outcome};

/// What a query has to look like.
const EXPECTED: &str =
    "expected ?target=HOST:PORT or ?target=http://HOST/PATH, and maybe &client=NAME or IP";

/// Answers `?target=&client=` by the policy in force.
pub(super) async fn explain(inspector: Arc<Inspector>, query: String) -> Response<Full<Bytes>> {
    let (question, asker) = match read(&query) {
        Ok(read) => read,
        Err(problem) => return bad_request(&problem),
    };
    let proxy = &inspector.proxy;
    let policy = Arc::clone(proxy.enforced().load().policy());
    let checked = check::check(&policy, proxy.resolver(), proxy.dialer(), &asker, &question).await;
    match checked {
        Ok(checked) => json(&View::of(&checked)),
        Err(unknown) => bad_request(&unknown.to_string()),
    }
}

fn read(query: &str) -> Result<(Question, Asker), String> {
    let (mut question, mut asker) = (None, Asker::default());
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "target" => {
                let read: Result<Question, _> = value.parse();
                question = Some(read.map_err(|error| format!("target {value:?}: {error}"))?);
            }
            "client" => asker = Asker::from(&*value),
            other => return Err(format!("{other:?} is unknown; {EXPECTED}")),
        }
    }
    let question = question.ok_or_else(|| EXPECTED.to_owned())?;
    Ok((question, asker))
}

fn bad_request(problem: &str) -> Response<Full<Bytes>> {
    with_type(
        "text/plain; charset=utf-8",
        StatusCode::BAD_REQUEST,
        format!("{problem}\n"),
    )
}

#[derive(Serialize)]
struct View<'a> {
    target: String,
    client: ClientView<'a>,
    result: &'static str,
    reason: &'static str,
    /// Why, in words: of what decides, the rules or what came after them.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    rule: Option<&'a str>,
    runner_up: Option<&'a str>,
    /// Every rule that names the host, the most specific first.
    considered: Vec<RuleView<'a>>,
    addresses: Vec<AddressView>,
}

#[derive(Serialize)]
struct ClientView<'a> {
    /// None of a client that was asked about by name.
    address: Option<String>,
    name: Option<&'a str>,
}

#[derive(Serialize)]
struct RuleView<'a> {
    rule: &'a str,
    action: &'static str,
    outcome: &'static str,
    /// Where it stops to match.
    #[serde(skip_serializing_if = "Option::is_none")]
    misses: Option<&'static str>,
}

#[derive(Serialize)]
struct AddressView {
    address: String,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl<'a> View<'a> {
    fn of(checked: &'a Checked) -> Self {
        let explanation = &checked.explanation;
        let (rule, denial) = match explanation.verdict() {
            Ok(permit) => (Some(&**permit.rule()), permit.would_deny()),
            Err(denial) => (denial.rule().map(|rule| &**rule), Some(denial)),
        };
        let runner_up = explanation.runner_up();
        Self {
            target: explanation.target().to_string(),
            client: ClientView {
                address: Some(checked.client.address)
                    .filter(|address| !address.is_unspecified())
                    .map(|address| address.to_string()),
                name: checked.client.name.as_deref(),
            },
            result: checked.outcome.label(),
            reason: checked.reason.label(),
            detail: match denial {
                Some(denial) if checked.detail.is_empty() => denial.to_string(),
                _ => checked.detail.clone(),
            },
            rule,
            runner_up: runner_up.map(|considered| &*considered.rule),
            considered: explanation.considered().iter().map(RuleView::of).collect(),
            addresses: checked.addresses.iter().map(AddressView::of).collect(),
        }
    }
}

impl<'a> RuleView<'a> {
    fn of(considered: &'a Considered) -> Self {
        let (outcome, misses) = match considered.outcome {
            Outcome::Decides => ("decides", None),
            Outcome::Overruled => ("overruled", None),
            Outcome::Misses(reason) => ("misses", Some(reason.label())),
        };
        Self {
            rule: &considered.rule,
            action: match considered.action {
                Action::Allow => "allow",
                Action::Deny => "deny",
            },
            outcome,
            misses,
        }
    }
}

impl AddressView {
    fn of(judged: &Judged) -> Self {
        let (verdict, detail) = match &judged.verdict {
            AddressVerdict::Admitted => ("admitted", None),
            AddressVerdict::Prohibited(by) => ("prohibited", Some(by.to_string())),
            AddressVerdict::Loop => ("loop", None),
        };
        Self {
            address: judged.address.to_string(),
            verdict,
            detail,
        }
    }
}
