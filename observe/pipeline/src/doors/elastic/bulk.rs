//! The body of `_bulk`: a line that says what to do, and a line with a document, again and again. Pure.

use belfry_signal::Record;
use serde::Deserialize;

use crate::doors::refusal::{Reason, Refusal};
use crate::doors::shape::{Shaper, flatten, head, log_of_fields, text};

/// Items of one request; more are refused with it.
const ITEMS_MAX: usize = 100_000;
/// Bytes of names that are given back.
const NAME_BYTES_MAX: usize = 256;
/// Bytes of a refused item that are kept as a sample.
const SAMPLE_BYTES: usize = 1024;

/// One item of a bulk request, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) action: &'static str,
    pub(crate) index: String,
    pub(crate) id: String,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) sample: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Index(Target),
    Create(Target),
    Update(Target),
    Delete(Target),
}

#[derive(Default, Deserialize)]
struct Target {
    #[serde(default)]
    _index: Option<String>,
    #[serde(default)]
    _id: Option<String>,
}

/// The records of a bulk request, and its items in order.
pub(crate) fn decode(
    bytes: &[u8],
    index: Option<&str>,
    shaper: &mut Shaper<'_>,
) -> Result<(Vec<Record>, Vec<Item>), Refusal> {
    let (mut records, mut items) = (Vec::new(), Vec::new());
    let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    while let Some(line) = lines.next() {
        if items.len() >= ITEMS_MAX {
            return Err(Refusal::new(Reason::TooLong, format!("more than {ITEMS_MAX} items")));
        }
        let action: Action = serde_json::from_slice(line)
            .map_err(|error| Refusal::malformed(format!("item {}: no action: {error}", items.len() + 1)))?;
        let (name, target, has_document, is_kept) = match action {
            Action::Index(target) => ("index", target, true, true),
            Action::Create(target) => ("create", target, true, true),
            Action::Update(target) => ("update", target, true, false),
            Action::Delete(target) => ("delete", target, false, false),
        };
        let index = target._index.or_else(|| index.map(str::to_owned)).unwrap_or_default();
        let document = has_document.then(|| lines.next());
        let made = match document {
            Some(None) => return Err(Refusal::malformed("the last action has no document")),
            Some(Some(line)) if is_kept => self::document(line, &index, shaper),
            _ => Err(Refusal::new(
                Reason::Unsupported,
                "what was written stays: nothing is updated or deleted",
            )),
        };
        let sample = document.flatten().unwrap_or(line);
        let mut item = Item {
            action: name,
            index: head(&index, NAME_BYTES_MAX).to_owned(),
            id: head(&target._id.unwrap_or_default(), NAME_BYTES_MAX).to_owned(),
            refusal: None,
            sample: String::new(),
        };
        match made {
            Ok(record) => records.push(record),
            Err(refusal) => {
                item.sample = String::from_utf8_lossy(&sample[..sample.len().min(SAMPLE_BYTES)]).into_owned();
                item.refusal = Some(refusal);
            }
        }
        items.push(item);
    }
    Ok((records, items))
}

/// A document as a log line of its fields.
pub(super) fn document(bytes: &[u8], index: &str, shaper: &mut Shaper<'_>) -> Result<Record, Refusal> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes)
        .map_err(|error| Refusal::malformed(format!("the document is not a JSON object: {error}")))?;
    let mut flat = Vec::with_capacity(fields.len() + 1);
    flatten("", serde_json::Value::Object(fields), 0, &mut flat);
    let whole = || String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
    let mut log = log_of_fields(flat, whole);
    if !index.is_empty() {
        log.attributes.push(("index".to_owned(), text(index)));
    }
    Ok(shaper.log(log))
}

#[cfg(test)]
mod tests {
    use belfry_signal::record::Body;

    use super::*;
    use crate::doors::config::DoorsConfig;
    use crate::doors::shape::Rules;
    use crate::doors::signals::{Change, Entrance};

    fn read(body: &str) -> Result<(Vec<String>, Vec<Item>), String> {
        let rules = Rules::of(&DoorsConfig::default());
        let mut shaper = Shaper::new(&rules, Entrance::Elastic, 1_795_183_200_000_000_000);
        let (records, items) = decode(body.as_bytes(), None, &mut shaper).map_err(|refusal| refusal.text)?;
        let message = |record: Record| match record.body {
            Body::Log(log) => log.message.into_owned(),
            _ => panic!("a line"),
        };
        Ok((records.into_iter().map(message).collect(), items))
    }

    #[test]
    fn each_item_has_its_own_fate() {
        let body = "{\"create\":{\"_index\":\"logs\"}}\n{\"message\":\"one\"}\n{\"delete\":{\"_id\":\"7\"}}\n\
            {\"update\":{\"_id\":\"7\"}}\n{\"doc\":{}}\n{\"index\":{}}\nnot json\n\n{\"index\":{\"_id\":\"8\"}}\n{\"a\":1}\n";
        let (messages, items) = read(body).expect("well framed");
        assert_eq!(messages, ["one", "{\"a\":1}"]);
        let fates: Vec<_> = items
            .iter()
            .map(|item| (item.action, item.refusal.as_ref().map(|refusal| refusal.reason)))
            .collect();
        let expected = [
            ("create", None),
            ("delete", Some(Reason::Unsupported)),
            ("update", Some(Reason::Unsupported)),
            ("index", Some(Reason::Malformed)),
            ("index", None),
        ];
        assert_eq!(fates, expected);
        assert_eq!((items[0].index.as_str(), items[4].id.as_str()), ("logs", "8"));
    }

    #[test]
    fn what_is_no_bulk_request_is_refused_whole() {
        for (body, part) in [
            ("{\"message\":\"x\"}\n", "item 1: no action"),
            ("{\"index\":{}}\n", "has no document"),
            ("[1]\n", "no action"),
        ] {
            let error = read(body).expect_err(body);
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(read("\n \n"), Ok((vec![], vec![])));
    }

    #[test]
    fn a_million_fields_are_one_record_of_bounded_size() {
        let fields: Vec<String> = (0..1_000_000).map(|number| format!("\"f{number}\":{number}")).collect();
        let rules = Rules::of(&DoorsConfig::default());
        let mut shaper = Shaper::new(&rules, Entrance::Elastic, 1_795_183_200_000_000_000);
        let body = format!("{{{}}}", fields.join(","));
        let record = document(body.as_bytes(), "x", &mut shaper).expect("an object");
        let Body::Log(log) = record.body else { panic!("a line") };
        assert_eq!(log.attributes.len(), 128);
        assert!(log.message.len() <= 64 << 10);
        let changes: Vec<Change> = shaper.changes().map(|(change, _)| change).collect();
        assert!(changes.contains(&Change::Folded), "{changes:?}");
    }
}
