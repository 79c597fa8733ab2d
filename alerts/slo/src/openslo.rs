//! OpenSLO v1 files: SLOs in YAML as other tools write them, read strictly and with the place of every mistake.
//!
//! All kinds are known, by name or written in place: `SLO`, `SLI`, `DataSource`, `Service`, `AlertPolicy`,
//! `AlertCondition`, `AlertNotificationTarget` (specification: github.com/OpenSLO/OpenSLO, version v1). What v1 cannot
//! say stands in annotations that begin with `belfry/`: several burn windows, groups, the journey, the budget policy.

mod annotations;
mod indicator;
mod objective;
mod policy;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use serde_saphyr::Location;

use crate::rules::{Fault, RulesError, SLOS_MAX, Slo, is_plain_name};
use annotations::Annotations;
use indicator::{DataSource, Sli};
use policy::{Condition, Policy};
use tree::{Fields, Node, Notes};

/// What an OpenSLO file says.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenSlo {
    /// Its objectives, in the order of the file.
    pub slos: Vec<Slo>,
    /// What is read and does nothing here, with its place.
    pub remarks: Vec<Fault>,
}

/// Documents that a file may hold.
pub const DOCUMENTS_MAX: usize = 1_000;

/// Says whether a text is a query, and if not why.
pub type CheckQuery<'a> = &'a dyn Fn(&str) -> Result<(), String>;

const KINDS: [&str; 7] =
    ["DataSource", "Service", "SLI", "AlertCondition", "AlertNotificationTarget", "AlertPolicy", "SLO"];
const DESCRIPTION_CHARS_MAX: usize = 1_050;

/// A document or a part of one that has a name.
struct Object {
    kind: &'static str,
    name: String,
    at: Location,
    annotations: Annotations,
    spec: Fields,
}

/// Everything that was read so far; names are those of the file.
#[derive(Default)]
struct Library {
    sources: BTreeMap<String, DataSource>,
    services: BTreeSet<String>,
    slis: BTreeMap<String, Sli>,
    conditions: BTreeMap<String, Condition>,
    targets: BTreeSet<String>,
    policies: BTreeMap<String, Policy>,
}

/// Reads files; what was noted on the way is in `notes`.
struct Reader<'a> {
    notes: Notes,
    library: Library,
    check_query: CheckQuery<'a>,
    slos: Vec<Slo>,
}

/// Reads an OpenSLO file; `check_query` knows what a query is.
///
/// # Errors
/// With every mistake that can be told apart, each with its line and column.
pub fn parse_openslo(text: &str, check_query: CheckQuery<'_>) -> Result<OpenSlo, RulesError> {
    let documents = tree::documents(text).map_err(|fault| RulesError { faults: vec![fault] })?;
    let mut reader =
        Reader { notes: Notes::default(), library: Library::default(), check_query, slos: Vec::new() };
    if documents.len() > DOCUMENTS_MAX {
        let message = format!("{} documents: a file holds {DOCUMENTS_MAX} at most", documents.len());
        return Err(RulesError { faults: vec![Fault { line: 1, column: 1, message }] });
    }
    reader.read(documents);
    let Notes { mut faults, mut remarks } = reader.notes;
    let place = |fault: &Fault| (fault.line, fault.column);
    faults.sort_by_key(place);
    remarks.sort_by_key(place);
    if faults.is_empty() { Ok(OpenSlo { slos: reader.slos, remarks }) } else { Err(RulesError { faults }) }
}

impl Reader<'_> {
    fn read(&mut self, documents: Vec<Node>) {
        let mut objects: Vec<Object> = Vec::new();
        for document in documents {
            let Some(object) = self.document(document) else { continue };
            if objects.iter().any(|other| other.kind == object.kind && other.name == object.name) {
                self.notes.fault(object.at, format!("a second {} is named {:?}", object.kind, object.name));
                continue;
            }
            objects.push(object);
        }
        // What others refer to comes first, wherever it stands in the file.
        for kind in KINDS {
            let (of_kind, others) = objects.into_iter().partition(|object| object.kind == kind);
            objects = others;
            let of_kind: Vec<Object> = of_kind;
            for object in of_kind {
                self.object(object);
            }
        }
        if self.slos.is_empty() && self.notes.faults.is_empty() {
            self.notes.faults.push(Fault {
                line: 1,
                column: 1,
                message: "there is no SLO: a file holds a document with kind: SLO at least".to_owned(),
            });
        }
    }

    fn document(&mut self, document: Node) -> Option<Object> {
        let mut fields = self.notes.fields("a document", document)?;
        if let Some(node) = fields.need(&mut self.notes, "apiVersion")
            && self.notes.text("apiVersion", &node).is_some_and(|version| version != "openslo/v1")
        {
            self.notes.fault(node.at, "apiVersion is openslo/v1");
        }
        let kind = fields.need(&mut self.notes, "kind")?;
        let kind = self.kind(&kind)?;
        self.named(kind, fields)
    }

    fn kind(&mut self, node: &Node) -> Option<&'static str> {
        let text = self.notes.text("kind", node)?;
        let kind = KINDS.into_iter().find(|kind| *kind == text);
        if kind.is_none() {
            self.notes.fault(node.at, format!("kind is one of {}, not {text:?}", KINDS.join(", ")));
        }
        kind
    }

    /// The name, annotations and specification of an object; `apiVersion` and `kind` were taken.
    fn named(&mut self, kind: &'static str, mut fields: Fields) -> Option<Object> {
        let at = fields.at;
        let metadata = fields.need(&mut self.notes, "metadata");
        let spec = fields.need(&mut self.notes, "spec");
        fields.done(&mut self.notes);
        let mut metadata = self.notes.fields("metadata", metadata?)?;
        let name = metadata.need(&mut self.notes, "name");
        metadata.text(&mut self.notes, "displayName");
        metadata.take("labels");
        let annotations = Annotations::read(metadata.take("annotations"), &mut self.notes);
        metadata.done(&mut self.notes);
        let name = name?;
        let text = self.notes.text("name", &name)?;
        if !is_plain_name(&text) {
            let message = "a name has 1 to 63 of a-z, 0-9, '-' and '_', starting with a letter";
            self.notes.fault(name.at, message);
            return None;
        }
        let mut spec = self.notes.fields("spec", spec?)?;
        let description = spec.take("description");
        if let Some(node) = &description
            && let Some(text) = self.notes.text("description", node)
            && text.chars().count() > DESCRIPTION_CHARS_MAX
        {
            self.notes
                .fault(node.at, format!("a description has {DESCRIPTION_CHARS_MAX} characters at most"));
        }
        let annotations = annotations.described(description.and_then(|node| match node.value {
            tree::Value::Text(text) => Some(text),
            _ => None,
        }));
        Some(Object { kind, name: text, at, annotations, spec })
    }

    /// An object that is written where another is expected, with or without `apiVersion` and `kind`.
    fn inline(&mut self, kind: &'static str, fields: Fields) -> Option<Object> {
        let mut fields = fields;
        fields.take("apiVersion");
        if let Some(node) = fields.take("kind")
            && let Some(found) = self.kind(&node)
            && found != kind
        {
            self.notes.fault(node.at, format!("kind is {kind} here"));
        }
        self.named(kind, fields)
    }

    fn object(&mut self, object: Object) {
        let name = object.name.clone();
        if !matches!(object.kind, "SLO" | "AlertPolicy") {
            object.annotations.none(&mut self.notes);
        }
        match object.kind {
            "DataSource" => {
                if let Some(source) = self.data_source(object) {
                    self.library.sources.insert(name, source);
                }
            }
            "Service" => {
                object.spec.done(&mut self.notes);
                self.library.services.insert(name);
            }
            "SLI" => {
                if let Some(sli) = self.sli(object) {
                    self.library.slis.insert(name, sli);
                }
            }
            "AlertCondition" => {
                if let Some(condition) = self.condition(object) {
                    self.library.conditions.insert(name, condition);
                }
            }
            "AlertNotificationTarget" => {
                self.target(object);
                self.library.targets.insert(name);
            }
            "AlertPolicy" => {
                if let Some(policy) = self.policy(object) {
                    self.library.policies.insert(name, policy);
                }
            }
            _ => self.slo(object),
        }
    }

    /// Finds what a name refers to, or says that it is not there and what is.
    fn refer<T: Clone>(notes: &mut Notes, kind: &str, node: &Node, known: &BTreeMap<String, T>) -> Option<T> {
        let name = notes.text("a reference", node)?;
        let found = known.get(&name).cloned();
        if found.is_none() {
            let names = known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let there =
                if names.is_empty() { "there is none".to_owned() } else { format!("there are {names}") };
            notes.fault(node.at, format!("no {kind} of this file is named {name:?}: {there}"));
        }
        found
    }

    fn push(&mut self, at: Location, slo: Slo) {
        if self.slos.len() >= SLOS_MAX {
            self.notes.fault(at, format!("a file holds {SLOS_MAX} objectives at most"));
        } else if self.slos.iter().any(|other| other.name == slo.name) {
            self.notes.fault(at, format!("a second objective is named {:?}", slo.name));
        } else {
            self.slos.push(slo);
        }
    }
}
