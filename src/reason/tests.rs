use std::collections::HashSet;

use super::*;

#[test]
fn every_reason_stands_once_in_all_and_has_a_label_of_its_own() {
    let labels: HashSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
    assert_eq!(labels.len(), Reason::ALL.len());
}

#[test]
fn every_error_that_is_sent_has_a_proxy_status_and_advice() {
    for reason in Reason::ALL {
        if matches!(reason, Reason::Ok | Reason::ClientClosed) {
            continue;
        }
        let row = reason.row();
        assert!(row.status.is_client_error() || row.status.is_server_error());
        assert!(row.proxy_error.is_some(), "{}", row.label);
        assert!(
            row.advice.ends_with('.') || row.advice.ends_with('?'),
            "{}",
            row.label
        );
    }
}

#[test]
fn only_a_full_or_closing_gateway_asks_to_retry() {
    let retried: Vec<_> = Reason::ALL
        .into_iter()
        .filter(|reason| matches!(reason.row().retry, Retry::After(_)))
        .map(Reason::label)
        .collect();
    assert_eq!(retried, ["client_limit", "connection_limit", "draining"]);
}
