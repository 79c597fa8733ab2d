//! Templates in labels, annotations and receivers: the part of Go's `text/template` that such files use, with the
//! functions of Prometheus and Alertmanager that need no query.

mod functions;
mod lexer;
mod number;
mod tree;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use tree::{Base, Command, Node, Operand, Pipeline};

pub use value::Value;

/// A template that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    body: Arc<Vec<Node>>,
    defined: Arc<BTreeMap<String, Vec<Node>>>,
}

/// Values that a template is filled with.
#[derive(Clone, Debug)]
pub struct Context {
    /// What `.` is.
    pub dot: Value,
    /// Variables that are there from the beginning, with their dollar sign.
    pub variables: Vec<(&'static str, Value)>,
    /// Where this Belfry is reached.
    pub external_url: String,
}

/// How long an expanded text may be.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// How many nodes may be walked through.
const STEPS_MAX: usize = 100_000;
/// How deep templates may call one another.
const CALLS_MAX: usize = 20;

impl Template {
    /// Reads a template; `variables` are the names that are there from the beginning.
    ///
    /// # Errors
    /// What is wrong, as an unknown function or an action that is not closed.
    pub fn parse(text: &str, variables: &[&str]) -> Result<Template, String> {
        Template::parse_with(text, variables, &[])
    }

    /// Reads a template that may use others by name. `$` is there in each.
    ///
    /// # Errors
    /// As [`Template::parse`], also for the others.
    pub fn parse_with(text: &str, variables: &[&str], libraries: &[&str]) -> Result<Template, String> {
        let names: Vec<&str> = variables.iter().copied().chain(["$"]).collect();
        let mut defined = BTreeMap::new();
        for library in libraries {
            defined.extend(tree::parse(library, &["$"])?.defined);
        }
        let parsed = tree::parse(text, &names)?;
        defined.extend(parsed.defined);
        let template = Template { body: Arc::new(parsed.body), defined: Arc::new(defined) };
        for body in std::iter::once(&*template.body).chain(template.defined.values()) {
            template.check(body)?;
        }
        Ok(template)
    }

    /// Every template that is called by name must be there.
    fn check(&self, nodes: &[Node]) -> Result<(), String> {
        for node in nodes {
            match node {
                Node::Template { name, .. } if !self.defined.contains_key(name) => {
                    return Err(format!("template {name:?} not defined"));
                }
                Node::If { branches, otherwise } => {
                    branches.iter().try_for_each(|(_, body)| self.check(body))?;
                    self.check(otherwise)?;
                }
                Node::With { body, otherwise, .. } | Node::Range { body, otherwise, .. } => {
                    self.check(body)?;
                    self.check(otherwise)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether there is nothing to fill in.
    pub fn is_plain(&self) -> bool {
        self.body.iter().all(|node| matches!(node, Node::Text(_)))
    }

    /// The text with everything filled in.
    ///
    /// # Errors
    /// When a function cannot work on what it got, or the text becomes too long.
    pub fn expand(&self, context: &Context) -> Result<String, String> {
        let mut variables: Vec<(String, Value)> =
            context.variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        variables.push(("$".to_owned(), context.dot.clone()));
        let mut walk = Walk {
            template: self,
            external_url: &context.external_url,
            variables,
            out: String::new(),
            steps: 0,
            calls: 0,
        };
        walk.nodes(&self.body, &context.dot)?;
        Ok(walk.out)
    }
}

struct Walk<'a> {
    template: &'a Template,
    external_url: &'a str,
    /// Innermost last.
    variables: Vec<(String, Value)>,
    out: String,
    steps: usize,
    calls: usize,
}

impl Walk<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        let held = self.variables.len();
        for node in nodes {
            self.node(node, dot)?;
        }
        self.variables.truncate(held);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), String> {
        self.steps += 1;
        if self.steps > STEPS_MAX || self.out.len() > OUTPUT_BYTES_MAX {
            return Err(format!("the text is longer than {OUTPUT_BYTES_MAX} bytes or takes too long"));
        }
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipeline) => {
                let text = self.pipeline(pipeline, dot)?.print();
                self.out.push_str(&text);
            }
            Node::Set { name, is_new, pipeline } => {
                let value = self.pipeline(pipeline, dot)?;
                let held = self.variables.iter_mut().rev().find(|(held, _)| held == name);
                match held.filter(|_| !is_new) {
                    Some((_, held)) => *held = value,
                    None => self.variables.push((name.clone(), value)),
                }
            }
            Node::If { branches, otherwise } => {
                for (condition, body) in branches {
                    if self.pipeline(condition, dot)?.is_true() {
                        return self.nodes(body, dot);
                    }
                }
                self.nodes(otherwise, dot)?;
            }
            Node::With { pipeline, body, otherwise } => {
                let value = self.pipeline(pipeline, dot)?;
                if value.is_true() { self.nodes(body, &value)? } else { self.nodes(otherwise, dot)? }
            }
            Node::Range { key, value, pipeline, body, otherwise } => {
                let items: Vec<(Value, Value)> = match self.pipeline(pipeline, dot)? {
                    Value::Map(map) => map.into_iter().map(|(name, value)| (name.into(), value)).collect(),
                    Value::List(list) => (0..).map(Value::Int).zip(list).collect(),
                    Value::Nil => Vec::new(),
                    other => return Err(format!("range can't iterate over {}", other.print())),
                };
                if items.is_empty() {
                    return self.nodes(otherwise, dot);
                }
                for (name, item) in items {
                    let held = self.variables.len();
                    self.variables.extend(key.clone().map(|key| (key, name)));
                    self.variables.extend(value.clone().map(|value| (value, item.clone())));
                    self.nodes(body, &item)?;
                    self.variables.truncate(held);
                }
            }
            Node::Template { name, pipeline } => {
                let value =
                    pipeline.as_ref().map_or(Ok(Value::Nil), |pipeline| self.pipeline(pipeline, dot))?;
                return self.template(name, &value);
            }
        }
        Ok(())
    }

    fn template(&mut self, name: &str, dot: &Value) -> Result<(), String> {
        let body = self.template.defined.get(name).ok_or_else(|| format!("template {name:?} not defined"))?;
        self.calls += 1;
        if self.calls > CALLS_MAX {
            return Err(format!("templates call one another more than {CALLS_MAX} deep"));
        }
        let outer = std::mem::replace(&mut self.variables, vec![("$".to_owned(), dot.clone())]);
        self.nodes(body, dot)?;
        self.variables = outer;
        self.calls -= 1;
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        self.steps += 1;
        let mut carried: Option<Value> = None;
        for command in &pipeline.0 {
            carried = Some(match command {
                Command::Operand(operand) => self.operand(operand, dot)?,
                Command::Call { function, arguments } => {
                    let mut values: Vec<Value> = arguments
                        .iter()
                        .map(|operand| self.operand(operand, dot))
                        .collect::<Result<_, _>>()?;
                    values.extend(carried.take());
                    functions::call(function, &values, self.external_url)
                        .map_err(|error| format!("error calling {function}: {error}"))?
                }
            });
        }
        carried.ok_or_else(|| "missing value for command".to_owned())
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        let base = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Variable(name) => {
                let held = self.variables.iter().rev().find(|(held, _)| held == name);
                held.map(|(_, value)| value.clone()).ok_or_else(|| format!("undefined variable {name:?}"))?
            }
            Base::Text(text) => Value::Text(text.clone()),
            Base::Int(value) => Value::Int(*value),
            Base::Float(value) => Value::Float(*value),
            Base::Bool(value) => Value::Bool(*value),
            Base::Nil => Value::Nil,
            Base::Group(pipeline) => self.pipeline(pipeline, dot)?,
            Base::Call(function) => functions::call(function, &[], self.external_url)?,
        };
        operand.fields.iter().try_fold(base, |value, field| field_of(&value, field))
    }
}

/// A field of a value. A label that is not there is the empty text, as it is everywhere else; a list of label sets
/// gives lists of names and values, as Alertmanager's do.
fn field_of(value: &Value, field: &str) -> Result<Value, String> {
    match value {
        Value::Map(map) => {
            if let Some(found) = map.get(field) {
                return Ok(found.clone());
            }
            Ok(match field {
                "SortedPairs" => Value::List(
                    map.iter()
                        .map(|(name, value)| {
                            let pair = [("Name", Value::from(name.as_str())), ("Value", value.clone())];
                            Value::Map(pair.map(|(name, value)| (name.to_owned(), value)).into())
                        })
                        .collect(),
                ),
                "Names" => Value::List(map.keys().map(|name| Value::from(name.as_str())).collect()),
                "Values" => Value::List(map.values().cloned().collect()),
                _ => Value::Text(String::new()),
            })
        }
        Value::List(list) if matches!(field, "Firing" | "Resolved") => {
            let wanted = Value::from(if field == "Firing" { "firing" } else { "resolved" });
            let of_status =
                |item: &&Value| matches!(item, Value::Map(map) if map.get("Status") == Some(&wanted));
            Ok(Value::List(list.iter().filter(of_status).cloned().collect()))
        }
        Value::Nil => Err(format!("nil data; no entry for key {field:?}")),
        other => Err(format!("can't evaluate field {field} in type {}", other.kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, String> {
        let labels = Value::texts([("job", "api"), ("instance", "host.example:9100")]);
        let context = Context {
            dot: Value::Map(
                [("Labels".to_owned(), labels.clone()), ("Value".to_owned(), Value::Float(0.25))].into(),
            ),
            variables: vec![("$labels", labels), ("$value", Value::Float(0.25))],
            external_url: "https://belfry.example/ops".into(),
        };
        Template::parse(text, &["$labels", "$value"])?.expand(&context)
    }

    #[test]
    fn what_rule_files_write_is_filled_in() {
        for (text, expected) in [
            ("plain", "plain"),
            ("{{ $labels.job }} at {{ $value }}", "api at 0.25"),
            ("{{$labels.nope}}|", "|"),
            ("{{ .Labels.job }}/{{ .Value }}", "api/0.25"),
            ("{{ $value | humanizePercentage }}", "25%"),
            ("{{ printf \"%.2f%%\" $value }}", "0.25%"),
            ("{{ $value | printf \"%5.1f|\" }}", "  0.2|"),
            ("{{ printf \"%d\" $value }}", "%!d(float64=0.25)"),
            ("{{ reReplaceAll \"(.*):.*\" \"$1\" $labels.instance }}", "host.example"),
            ("{{ stripDomain $labels.instance }} {{ stripPort $labels.instance }}", "host:9100 host.example"),
            ("{{ if eq $labels.job \"api\" }}yes{{ else }}no{{ end }}", "yes"),
            ("{{ if gt $value 0.5 }}a{{ else if gt $value 0.2 }}b{{ else }}c{{ end }}", "b"),
            ("{{ with $labels.nope }}x{{ else }}none{{ end }}", "none"),
            (
                "{{ range $name, $text := $labels }}{{ $name }}={{ $text }};{{ end }}",
                "instance=host.example:9100;job=api;",
            ),
            ("a {{- /* nothing */ -}} b", "ab"),
            ("a\n{{- $labels.job -}}\n b", "aapib"),
            ("{{ $x := 3 }}{{ $x = 4 }}{{ $x }}", "4"),
            ("{{ ($labels.job | toUpper) }} {{ title \"a quick fox\" }}", "API A Quick Fox"),
            ("{{ define \"t\" }}<{{ . }}>{{ end }}{{ template \"t\" $labels.job }}", "<api>"),
            ("{{ externalURL }}{{ pathPrefix }}", "https://belfry.example/ops/ops"),
            ("{{ index $labels \"job\" | len }}", "3"),
            ("{{ print 1 2 \"x\" 3 }}", "1 2x3"),
            (
                "{{ match \"^a\" $labels.job }} {{ not true }} {{ and 1 0 }} {{ or 0 \"z\" }}",
                "true false 0 z",
            ),
            ("{{ `raw\\n` }}{{ 'a' }}", "raw\\n97"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_when_it_is_read() {
        for (text, words) in [
            ("{{ nope 1 }}", "function \"nope\" not defined"),
            ("{{ query \"up\" }}", "do not query"),
            ("{{ $nope }}", "undefined variable"),
            ("{{ if true }}", "without end"),
            ("{{ end }}", "unexpected {{end}}"),
            ("{{ \"a }}", "unterminated"),
            ("{{ (1 }}", "unclosed left paren"),
            ("{{ 1 | 2 }}", "non executable"),
            ("{{ }}", "missing value"),
            ("{{ $labels.job", "unclosed action"),
            ("{{ template \"nope\" }}", "not defined"),
            ("{{ break }}", "not supported"),
        ] {
            let error = Template::parse(text, &["$labels", "$value"]).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn what_does_not_work_out_is_a_fault_of_the_expansion() {
        for text in [
            "{{ humanize $labels.job }}",
            "{{ $value.field }}",
            "{{ lt 1 \"a\" }}",
            "{{ define \"a\" }}{{ template \"a\" }}{{ end }}{{ template \"a\" }}",
            "{{ printf \"%4096d\" 1 | printf \"%4096s%4096s%4096s\" }}{{ range $a, $b := $labels }}{{ . }}{{ end }}{{ index $labels 1 }}",
        ] {
            assert!(expand(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[{}$.a-z|()\"0-9 :=%-]{0,60}") {
            let _outcome = expand(&text);
            let _outcome = expand(&format!("{{{{ {text} }}}}"));
        }
    }
}
