//! `belfry catalog`: every metric of every room, so that a rename shows up in review and a rule or panel that names
//! a metric can be checked against what exists.

use std::fmt::Write;

use belfry_signal::Descriptor;

/// One line per family: name, kind, unit, labels with their bounds, help.
#[must_use]
pub fn render(descriptors: &[Descriptor]) -> String {
    let mut text = String::new();
    for descriptor in descriptors {
        let labels: Vec<String> =
            descriptor.labels.iter().map(|(name, bound)| format!("{name}({bound})")).collect();
        let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(" ") };
        let (name, kind, unit, help) =
            (&descriptor.name, descriptor.kind, descriptor.unit(), descriptor.help);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}  {kind}  {unit}  {labels}\n    {help}");
    }
    text
}
