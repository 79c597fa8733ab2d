//! Reading one TOML document so that every fault is reported, each with its line, its column and what is allowed.
//!
//! Three layers, strongest first: environment, the operator's file, the annotated defaults shipped with Belfry.
//! A section that the operator leaves out stays out (its room is off); a key that he leaves out of a section that
//! he has comes from the shipped defaults. Lists are taken whole: an operator's list replaces the shipped one.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

/// How many faults one section may report before reading stops.
const FAULTS_MAX: usize = 50;
/// The span of what did not come from the operator's file.
const ELSEWHERE: Range<usize> = usize::MAX..usize::MAX;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, or the environment variable.
    pub source: String,
    /// Line and column, both from 1, when it is in a file.
    pub position: Option<(usize, usize)>,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.source, self.message),
            None => write!(f, "{}: {}", self.source, self.message),
        }
    }
}

/// A parsed document over the shipped defaults.
#[derive(Debug)]
pub struct Document<'t> {
    name: String,
    text: &'t str,
    root: DeTable<'t>,
    shipped: DeTable<'t>,
    faults: Vec<Fault>,
}

impl<'t> Document<'t> {
    /// Parses the operator's `text` (its `name` is shown in faults) over the `shipped` defaults.
    #[must_use]
    pub fn parse(name: &str, text: &'t str, shipped: &'t str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut document = Self {
            name: name.to_owned(),
            text,
            root: root.into_inner(),
            shipped: detached(DeTable::parse_recoverable(shipped).0.into_inner()),
            faults: Vec::new(),
        };
        for error in errors.into_iter().take(FAULTS_MAX) {
            document.fault_at(error.span(), error.message().to_owned());
        }
        document
    }

    /// Sets `section.key.subkey` from the environment; `value` is read as TOML, else as a plain string.
    pub fn set(&mut self, variable: &str, path: &[&str], value: &'t str) {
        let parsed =
            DeValue::parse(value).map_or_else(|_| DeValue::String(Cow::Borrowed(value)), Spanned::into_inner);
        let Some((last, parents)) = path.split_last() else { return };
        let mut table = &mut self.root;
        for parent in parents {
            let found = entry(table, parent);
            let DeValue::Table(next) = found else {
                let message = format!("{parent:?} is not a table, so {last:?} cannot be set in it");
                self.faults.push(Fault { source: variable.to_owned(), position: None, message });
                return;
            };
            table = next;
        }
        insert(table, last, Spanned::new(ELSEWHERE, detached_value(parsed)));
    }

    /// Reports sections that nobody knows.
    pub fn only_sections(&mut self, known: &[&str]) {
        let unknown: Vec<(String, Range<usize>)> = self
            .root
            .iter()
            .filter(|(key, _)| !known.contains(&key.get_ref().as_ref()))
            .map(|(key, _)| (key.get_ref().to_string(), key.span()))
            .collect();
        for (name, span) in unknown {
            self.fault_at(
                Some(span),
                format!("unknown section `{name}`, expected one of {}", known.join(", ")),
            );
        }
    }

    /// Reads a section if the operator has it; its faults are kept in [`Document::into_faults`].
    pub fn section<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let own = find(&self.root, name)?.clone();
        let shipped = find(&self.shipped, name).map(|value| value.get_ref().clone());
        self.read(own, shipped)
    }

    /// Reads a section that is always on: from the shipped defaults when the operator leaves it out.
    pub fn required_section<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        if find(&self.root, name).is_none() {
            insert(&mut self.root, name, Spanned::new(ELSEWHERE, DeValue::Table(DeTable::new())));
        }
        self.section(name)
    }

    /// Reads the whole document as one value, for files that have no sections of rooms.
    pub fn whole<T: DeserializeOwned>(&mut self) -> Option<T> {
        let own = Spanned::new(0..self.text.len(), DeValue::Table(self.root.clone()));
        self.read(own, None)
    }

    /// Adds a fault of a key of the whole document that has the right type and a wrong value.
    pub fn fault_of_path(&mut self, path: &str, message: &str) {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let (section, index) = split_index(first);
        let section = section.to_owned();
        let inside = match index {
            Some(index) => format!("[{index}]{}{rest}", if rest.is_empty() { "" } else { "." }),
            None => rest.to_owned(),
        };
        self.fault_of_key(&section, &inside, message);
    }

    /// Adds a fault of a key that has the right type and a wrong value.
    pub fn fault_of_key(&mut self, section: &str, path: &str, message: &str) {
        let mut span = find(&self.root, section).map(Spanned::span);
        let mut value = find(&self.root, section).map(Spanned::get_ref);
        for step in path.split('.').filter(|step| !step.is_empty()) {
            let (key, index) = split_index(step);
            // A step of an index only looks into the array that is there.
            value = value.filter(|_| key.is_empty()).or_else(|| {
                let found = value.and_then(DeValue::as_table).and_then(|table| find(table, key))?;
                span = usable(found.span()).or(span.clone());
                Some(found.get_ref())
            });
            if let Some(index) = index {
                value = value.and_then(|value| value.as_array()).and_then(|array| array.get(index)).map(
                    |found| {
                        span = usable(found.span()).or(span.clone());
                        found.get_ref()
                    },
                );
            }
        }
        let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
        let full_path = format!("{section}{dot}{path}");
        self.fault_at(span, format!("`{full_path}` {message}"));
    }

    /// Everything that is wrong, in the order of the file.
    #[must_use]
    pub fn into_faults(mut self) -> Vec<Fault> {
        self.faults.sort_by_key(|fault| fault.position);
        self.faults.dedup();
        self.faults
    }

    /// Deserialises; at each error the offending entry is replaced by its default, or dropped, and reading goes on,
    /// so that one run names all faults.
    fn read<T: DeserializeOwned>(
        &mut self,
        own: Spanned<DeValue<'t>>,
        shipped: Option<DeValue<'t>>,
    ) -> Option<T> {
        let span = own.span();
        let mut value = match shipped.clone() {
            Some(shipped) => overlay(own.into_inner(), shipped),
            None => own.into_inner(),
        };
        let faults_before = self.faults.len();
        while self.faults.len() < faults_before + FAULTS_MAX {
            let attempt = Spanned::new(span.clone(), value.clone());
            let error = match T::deserialize(toml::de::ValueDeserializer::from(attempt)) {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            let error_span = error.span().and_then(usable);
            self.fault_at(error_span.clone().or_else(|| usable(span.clone())), one_line(error.message()));
            let is_mended = error_span.is_some_and(|span| mend(&mut value, shipped.as_ref(), &span));
            if !is_mended {
                break;
            }
        }
        None
    }

    fn fault_at(&mut self, span: Option<Range<usize>>, message: String) {
        let position = span.and_then(usable).map(|span| line_and_column(self.text, span.start));
        self.faults.push(Fault { source: self.name.clone(), position, message });
    }
}

fn usable(span: Range<usize>) -> Option<Range<usize>> {
    (span != ELSEWHERE).then_some(span)
}

fn one_line(message: &str) -> String {
    message.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

fn split_index(step: &str) -> (&str, Option<usize>) {
    match step.split_once('[') {
        Some((key, rest)) => (key, rest.trim_end_matches(']').parse().ok()),
        None => (step, None),
    }
}

fn find<'a, 't>(table: &'a DeTable<'t>, name: &str) -> Option<&'a Spanned<DeValue<'t>>> {
    table.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
}

fn insert<'t>(table: &mut DeTable<'t>, name: &str, value: Spanned<DeValue<'t>>) {
    table.insert(Spanned::new(ELSEWHERE, Cow::Owned(name.to_owned())), value);
}

fn entry<'a, 't>(table: &'a mut DeTable<'t>, name: &str) -> &'a mut DeValue<'t> {
    let key = Spanned::new(ELSEWHERE, Cow::Owned(name.to_owned()));
    table.entry(key).or_insert_with(|| Spanned::new(ELSEWHERE, DeValue::Table(DeTable::new()))).get_mut()
}

/// The operator's value over the shipped one, table by table.
fn overlay<'t>(own: DeValue<'t>, shipped: DeValue<'t>) -> DeValue<'t> {
    match (own, shipped) {
        (DeValue::Table(own), DeValue::Table(mut merged)) => {
            for (key, value) in own {
                let span = value.span();
                let below = merged.remove(&key).map(Spanned::into_inner);
                let value = match below {
                    Some(below) => overlay(value.into_inner(), below),
                    None => value.into_inner(),
                };
                merged.insert(key, Spanned::new(span, value));
            }
            DeValue::Table(merged)
        }
        (own, _) => own,
    }
}

/// Takes the entry at `span` (a key or a value) out of the way: by its default when there is one, else altogether.
fn mend<'t>(value: &mut DeValue<'t>, shipped: Option<&DeValue<'t>>, span: &Range<usize>) -> bool {
    match value {
        DeValue::Table(table) => {
            let hit = table
                .iter()
                .find(|(key, value)| key.span() == *span || value.span() == *span)
                .map(|(key, _)| key.clone());
            if let Some(key) = hit {
                let default =
                    shipped.and_then(DeValue::as_table).and_then(|table| find(table, key.get_ref()));
                table.remove(&key);
                if let Some(default) = default {
                    table.insert(Spanned::new(ELSEWHERE, key.into_inner()), default.clone());
                }
                return true;
            }
            let keys: Vec<_> = table.keys().cloned().collect();
            keys.iter().any(|key| {
                let below =
                    shipped.and_then(DeValue::as_table).and_then(|table| find(table, key.get_ref())).cloned();
                table
                    .get_mut(key)
                    .is_some_and(|value| mend(value.get_mut(), below.as_ref().map(Spanned::get_ref), span))
            })
        }
        DeValue::Array(array) => array.iter_mut().any(|value| mend(value.get_mut(), None, span)),
        _ => false,
    }
}

fn detached<'t>(table: DeTable<'t>) -> DeTable<'t> {
    table
        .into_iter()
        .map(|(key, value)| {
            let value = detached_value(value.into_inner());
            (Spanned::new(ELSEWHERE, key.into_inner()), Spanned::new(ELSEWHERE, value))
        })
        .collect()
}

fn detached_value<'t>(value: DeValue<'t>) -> DeValue<'t> {
    match value {
        DeValue::Table(table) => DeValue::Table(detached(table)),
        DeValue::Array(array) => DeValue::Array(
            array
                .into_iter()
                .map(|value| Spanned::new(ELSEWHERE, detached_value(value.into_inner())))
                .collect(),
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Door {
        port: u16,
        host: String,
        limits: Limits,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Limits {
        connections_max: u32,
    }

    const SHIPPED: &str =
        "[door]\nport = 80\nhost = \"localhost\"\n[door.limits]\nconnections_max = 10\n[other]\nx = 1\n";

    #[test]
    fn missing_keys_come_from_the_defaults_and_missing_sections_stay_out() {
        let mut document = Document::parse("my.toml", "[door]\nport = 8080\n", SHIPPED);
        let door: Option<Door> = document.section("door");
        let expected = Door { port: 8080, host: "localhost".into(), limits: Limits { connections_max: 10 } };
        assert_eq!(door, Some(expected));
        assert_eq!(document.section::<Door>("other"), None);
        assert_eq!(document.into_faults(), vec![]);
    }

    #[test]
    fn every_fault_is_named_with_its_place() {
        let text = "[door]\nport = 70000\nhots = \"x\"\nhost = 3\n[door.limits]\nconnection_max = 3\n[dor]\n";
        let mut document = Document::parse("my.toml", text, SHIPPED);
        document.only_sections(&["door", "other"]);
        document.section::<Door>("door");
        let faults: Vec<String> = document.into_faults().iter().map(ToString::to_string).collect();
        let places: Vec<&str> =
            faults.iter().map(|fault| fault.split(": ").next().unwrap_or_default()).collect();
        assert_eq!(
            places,
            ["my.toml:2:8", "my.toml:3:1", "my.toml:4:8", "my.toml:6:1", "my.toml:7:2"],
            "{faults:#?}"
        );
        assert!(faults[1].contains("expected one of `port`, `host`, `limits`"), "{}", faults[1]);
        assert!(faults[4].contains("expected one of door, other"), "{}", faults[4]);
    }

    #[test]
    fn syntax_errors_have_a_place_too() {
        let document = Document::parse("my.toml", "[door]\nport = \n", SHIPPED);
        let faults = document.into_faults();
        assert_eq!(faults[0].position.map(|(line, _)| line), Some(2), "{faults:?}");
    }

    #[test]
    fn the_environment_is_stronger_than_the_file() {
        let mut document = Document::parse("my.toml", "[door]\nport = 8080\n", SHIPPED);
        document.set("BELFRY__DOOR__PORT", &["door", "port"], "9");
        document.set("BELFRY__DOOR__HOST", &["door", "host"], "example.org");
        let door: Door = document.section("door").expect("read");
        assert_eq!((door.port, door.host.as_str()), (9, "example.org"));
    }

    #[test]
    fn a_document_without_sections_has_places_too() {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Doors {
            doors: Vec<Limits>,
        }
        let text = "[[doors]]\nconnections_max = 1\n[[doors]]\nconnections_max = 2\n";
        let mut document = Document::parse("my.toml", text, "");
        let doors: Doors = document.whole().expect("read");
        assert_eq!(doors.doors.len(), 2);
        document.fault_of_path("doors[1].connections_max", "is too many");
        let faults = document.into_faults();
        assert_eq!(faults[0].to_string(), "my.toml:4:19: `doors[1].connections_max` is too many");
        let mut document = Document::parse("my.toml", "[[doors]]\nconnection_max = 1\n", "");
        assert!(document.whole::<Doors>().is_none_or(|doors| doors.doors.is_empty()));
        assert!(document.into_faults().iter().any(|fault| fault.position == Some((2, 1))));
    }

    #[test]
    fn wrong_values_are_found_by_their_key() {
        let mut document = Document::parse("my.toml", "[door]\nport = 0\n", SHIPPED);
        document.fault_of_key("door", "port", "must be 1 to 65535");
        document.fault_of_key("door", "host", "must be a name");
        let faults = document.into_faults();
        assert_eq!(faults[1].to_string(), "my.toml:2:8: `door.port` must be 1 to 65535");
        assert_eq!(faults[0].position, Some((1, 1)));
    }
}
