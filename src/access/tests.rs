use std::future::pending;

use super::*;
use crate::metrics::Exposition;

fn open(metrics: &Arc<Metrics>) -> AccessRecord {
    let client = SocketAddr::from(([127, 0, 0, 1], 40_000));
    AccessRecord::open(Arc::clone(metrics), false, None, client, &Request::new(()))
}

/// Every request that was counted, as the metrics show it.
fn counted(metrics: &Metrics) -> Vec<String> {
    let text = metrics.render(Exposition::accepted(&HeaderMap::new()), 0);
    let lines = text.lines().filter(|line| !line.ends_with(" 0"));
    let lines = lines.filter(|line| line.starts_with("outgate_requests_total{"));
    lines.map(str::to_owned).collect()
}

fn line(reason: &str) -> String {
    format!(
        "outgate_requests_total{{kind=\"forward\",reason=\"{reason}\",result=\"failed\",rule=\"\"}} 1"
    )
}

#[tokio::test]
async fn a_request_whose_task_is_aborted_is_accounted_once() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let record = open(&metrics);
    let task = tokio::spawn(async move {
        let _record = record;
        pending::<()>().await;
    });
    tokio::task::yield_now().await;
    assert_eq!(counted(&metrics), Vec::<String>::new());
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(counted(&metrics), [line("client_closed")]);
}

#[tokio::test]
async fn a_request_whose_task_panics_is_accounted_once_as_internal() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let record = open(&metrics);
    let task = tokio::spawn(async move {
        let _record = record;
        panic!("a defect, which this test makes");
    });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(counted(&metrics), [line("internal")]);
}
