//! Runs a loom model and proves that it explored something.
//!
//! A loom test that explores one schedule is green and proves nothing; so each model prints how
//! many it ran, and fails below a minimum that its author states.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Explores `body` with at most `preemptions` forced switches (`None`: all schedules), and fails
/// if fewer than `minimum` executions were run.
pub(crate) fn model(
    name: &str,
    preemptions: Option<usize>,
    minimum: usize,
    body: impl Fn() + Send + Sync + 'static,
) {
    let executions = Arc::new(AtomicUsize::new(0));
    let counter = executions.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        body();
    });
    let executions = executions.load(Ordering::Relaxed);
    let bound = preemptions.map_or("full".into(), |bound| format!("bound {bound}"));
    std::println!("model {name}: {executions} executions ({bound})");
    assert!(
        executions >= minimum,
        "model {name} explored {executions} executions, expected at least {minimum}"
    );
}
