//! `/metrics`, in Prometheus' text format.

use super::Api;
use crate::daemon::service::view::StatusView;
use crate::units::count_f64;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use std::fmt::Write;

pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let view = api.view.borrow().clone();
    let text = render(&view.status);
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// One metric with its values.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    values: Vec<(String, f64)>,
}

fn render(status: &StatusView) -> String {
    let mut text = String::new();
    for Metric { name, kind, help, values } in metrics_of(status) {
        if values.is_empty() {
            continue;
        }
        // Writing to a String cannot fail.
        write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").ok();
        for (labels, value) in values {
            writeln!(text, "{name}{labels} {value}").ok();
        }
    }
    text
}

fn metrics_of(status: &StatusView) -> Vec<Metric> {
    let mut metrics = of_queue(status);
    metrics.extend(of_counts(status));
    metrics.extend(of_current(status));
    metrics
}

fn gauge(name: &'static str, help: &'static str, value: Option<f64>) -> Metric {
    let values = value.map(|value| (String::new(), value)).into_iter().collect();
    Metric { name, kind: "gauge", help, values }
}

fn counter<const N: usize>(
    name: &'static str,
    help: &'static str,
    values: [(&str, u64); N],
) -> Metric {
    let values = values.map(|(labels, count)| (labels.to_owned(), count_f64(count)));
    Metric { name, kind: "counter", help, values: values.into() }
}

fn of_queue(status: &StatusView) -> Vec<Metric> {
    let flag = |on: bool| Some(if on { 1.0 } else { 0.0 });
    let count = |count: usize| Some(count_f64(count as u64));
    let info = (format!("{{version=\"{}\"}}", status.sweepd), 1.0);
    vec![
        Metric { values: vec![info], ..gauge("sweepd_info", "Version of the daemon.", None) },
        gauge("sweepd_paused", "The queue is paused.", flag(status.paused)),
        gauge("sweepd_draining", "No new runs are taken.", flag(status.draining)),
        gauge(
            "sweepd_no_space",
            "Nothing starts for lack of space.",
            flag(status.problem.is_some()),
        ),
        gauge("sweepd_runs_open", "Runs that have not ended.", count(status.runs_open)),
        gauge("sweepd_trials_waiting", "Trials that wait.", count(status.trials_waiting)),
        gauge("sweepd_free_bytes", "Space where runs are kept.", status.free_bytes.map(count_f64)),
    ]
}

/// All since the daemon's start.
fn of_counts(status: &StatusView) -> Vec<Metric> {
    let counts = &status.counts;
    vec![
        counter(
            "sweepd_trials_total",
            "Trials that ended.",
            [
                ("{ending=\"completed\"}", counts.trials_completed),
                ("{ending=\"failed\"}", counts.trials_failed),
                ("{ending=\"interrupted\"}", counts.trials_interrupted),
            ],
        ),
        counter("sweepd_runs_total", "Runs that ended.", [("", counts.runs_ended)]),
        counter(
            "sweepd_requests_total",
            "Requests to engines that ended.",
            [
                ("{outcome=\"ok\"}", counts.requests_ok),
                ("{outcome=\"failed\"}", counts.requests_failed),
            ],
        ),
        counter("sweepd_last_event", "Number of the latest event.", [("", status.last_event)]),
    ]
}

fn of_current(status: &StatusView) -> Vec<Metric> {
    let requests = status.under_way.iter().filter_map(|current| current.requests);
    let labels = status.under_way.iter().map(|current| {
        let (run, trial, state) = (&current.run, &current.trial, &current.state);
        (format!("{{run=\"{run}\",trial=\"{trial}\",state=\"{state}\"}}"), 1.0)
    });
    let in_flight = requests.map(|requests| f64::from(requests.in_flight)).reduce(|a, b| a + b);
    vec![
        gauge("sweepd_requests_in_flight", "Requests under way in the current phases.", in_flight),
        Metric {
            values: labels.collect(),
            ..gauge("sweepd_current_trial", "The trials under way.", None)
        },
    ]
}
