//! What a query cost, part by part, as JSON. Ours: Prometheus has nothing like it.

use belfry_promql::Plan;
use serde_json::{Value as Json, json};

/// The tree below `explain`, with what the whole query read and computed.
pub(super) fn json(plan: &Plan, samples: usize) -> Json {
    json!({ "samples": samples, "plan": node(plan) })
}

fn node(plan: &Plan) -> Json {
    json!({
        "kind": plan.kind,
        "text": plan.text,
        "seconds": plan.seconds,
        "evaluations": plan.evaluations,
        "series": plan.series,
        "seriesRead": plan.series_read,
        "samplesRead": plan.samples_read,
        "values": plan.values,
        "below": plan.below.iter().map(node).collect::<Vec<_>>(),
    })
}
