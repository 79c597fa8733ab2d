//! Runbooks, compiled in and rendered: there when the network is not.
//!
//! A fenced block marked `query` holds searches, one per line; each becomes a link that runs it. A line that begins
//! with `calls:` searches the calls, any other line the logs. HTML in a runbook is shown as text.

use std::fmt::Write as _;

use pulldown_cmark::{CodeBlockKind, CowStr, Event, Options, Parser, Tag, TagEnd, html};

use crate::assets::RUNBOOKS;
use crate::json;

/// All runbooks, rendered once.
#[derive(Debug)]
pub(crate) struct Runbooks {
    /// Sorted by name.
    runbooks: Vec<json::Runbook>,
}

impl Runbooks {
    pub(crate) fn built_in() -> Self {
        Self::of(RUNBOOKS)
    }

    fn of(sources: &[(&str, &str)]) -> Self {
        let rendered = |(name, text): &(&str, &str)| json::Runbook {
            name: (*name).to_owned(),
            title: title(text),
            html: render(text),
        };
        let mut runbooks: Vec<_> = sources.iter().map(rendered).collect();
        runbooks.sort_by(|a, b| a.name.cmp(&b.name));
        Self { runbooks }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&json::Runbook> {
        self.runbooks.iter().find(|runbook| runbook.name == name)
    }

    pub(crate) fn titles(&self) -> json::Runbooks {
        let title = |runbook: &json::Runbook| json::RunbookTitle {
            name: runbook.name.clone(),
            title: runbook.title.clone(),
        };
        json::Runbooks { runbooks: self.runbooks.iter().map(title).collect() }
    }
}

/// The first sentence that is not a heading.
fn title(text: &str) -> String {
    let mut sentence = String::new();
    let mut is_inside = false;
    for event in Parser::new(text) {
        match event {
            Event::Start(Tag::Paragraph) => is_inside = true,
            Event::End(TagEnd::Paragraph) if !sentence.is_empty() => break,
            Event::Text(part) | Event::Code(part) if is_inside => sentence.push_str(&part),
            Event::SoftBreak if is_inside => sentence.push(' '),
            _ => {}
        }
    }
    let end = sentence.find(". ").map_or(sentence.len(), |dot| dot + 1);
    sentence.truncate(end);
    sentence
}

fn render(text: &str) -> String {
    let mut queries: Option<String> = None;
    let events = Parser::new_ext(text, Options::ENABLE_TABLES).filter_map(|event| match event {
        Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(kind))) if &*kind == "query" => {
            queries = Some(String::new());
            None
        }
        Event::Text(part) if queries.is_some() => {
            queries.get_or_insert_default().push_str(&part);
            None
        }
        Event::End(TagEnd::CodeBlock) if queries.is_some() => {
            let lines = queries.take().unwrap_or_default();
            Some(Event::Html(CowStr::from(links(&lines))))
        }
        Event::Html(part) | Event::InlineHtml(part) => Some(Event::Text(part)),
        other => Some(other),
    });
    let mut rendered = String::new();
    html::push_html(&mut rendered, events);
    // Long lines scroll, so the keyboard must be able to get there.
    rendered.replace("<pre>", "<pre tabindex=\"0\">")
}

fn links(lines: &str) -> String {
    let mut links = String::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (room, query) = match line.strip_prefix("calls:") {
            Some(query) => ("calls", query.trim()),
            None => ("logs", line.strip_prefix("logs:").unwrap_or(line).trim()),
        };
        let _ = writeln!(
            links,
            "<p class=\"live-query\"><code>{}</code> <a href=\"/{room}?q={}\">Run</a></p>",
            escape(line),
            percent_encode(query)
        );
    }
    links
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A text as one component of a URL (RFC 3986 section 2.3).
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_blocks_become_links_and_html_becomes_text() {
        let text = "# A\n\n## Meaning\n\nCalls fail. More.\n\n```query\nseverity:>=warn \"a & b\"\ncalls: call.outcome:failed\n```\n\n<script>x</script>\n\n```\nplain\n```\n";
        let runbooks = Runbooks::of(&[("B", "x"), ("A", text)]);
        let runbook = runbooks.get("A").expect("it is there");
        assert_eq!(runbook.title, "Calls fail.");
        let html = &runbook.html;
        assert!(html.contains("href=\"/logs?q=severity%3A%3E%3Dwarn%20%22a%20%26%20b%22\""), "{html}");
        assert!(html.contains("href=\"/calls?q=call.outcome%3Afailed\""), "{html}");
        assert!(html.contains("<code>severity:&gt;=warn &quot;a &amp; b&quot;</code>"), "{html}");
        assert!(html.contains("<pre tabindex=\"0\"><code>plain\n</code></pre>"), "{html}");
        assert!(!html.contains("<script>"), "{html}");
        assert_eq!(runbooks.titles().runbooks[0].name, "A");
    }
}
