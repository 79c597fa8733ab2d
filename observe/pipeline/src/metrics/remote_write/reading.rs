//! From the bytes of a request to points. What is built is bounded while it is built.

use std::sync::Arc;

use belfry_signal::{Exemplar, MetricMetadata, PointValue, SeriesLabels, SeriesPoints};
use belfry_wire::messages::Histogram;
use belfry_wire::native;
use prost::Message;

use super::fields::{Broken, Fields, Numbers, Value, leading};
use super::{Decoded, Fault, KnownLabels, Limits, Protocol};
use crate::metrics::labels::{Interner, LabelFault, MetadataSet, family, kind, metric_name, series_labels};

/// About what things take in memory: a series, a label, a text of one, a point, an exemplar, a histogram and each byte of
/// one; and the place in a list of what is read later. They are charged before they are taken.
const SERIES_BYTES: usize = 128;
const LABEL_BYTES: usize = 48;
const TEXT_BYTES: usize = 64;
const POINT_BYTES: usize = 32;
const EXEMPLAR_BYTES: usize = 64;
const HISTOGRAM_BYTES: usize = 512;
const HISTOGRAM_BYTE_BYTES: usize = 24;
const METADATA_BYTES: usize = 160;
const PLACE_BYTES: usize = 32;
/// Labels of an exemplar: beside a trace and a span hardly any are of use.
const EXEMPLAR_LABELS_MAX: usize = 64;

/// Reads a request.
pub(super) fn read(
    protocol: Protocol,
    bytes: &[u8],
    limits: &Limits,
    known: &KnownLabels,
) -> Result<Decoded, Fault> {
    let mut reading = Reading {
        limits,
        known,
        texts: Interner::default(),
        metadata: MetadataSet::default(),
        decoded: Decoded::default(),
        memory: 0,
    };
    match protocol {
        Protocol::V1 => reading.request_v1(bytes)?,
        Protocol::V2 => reading.request_v2(bytes)?,
    }
    reading.decoded.batch.metadata = reading.metadata.into_vec();
    Ok(reading.decoded)
}

/// Why the rest is not read: the request is broken, or too large.
impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        Self::Message(broken.to_string())
    }
}

struct Reading<'a> {
    limits: &'a Limits,
    known: &'a KnownLabels,
    texts: Interner,
    metadata: MetadataSet,
    decoded: Decoded,
    /// Bytes in memory, about, of what was built.
    memory: usize,
}

/// A symbol; none when it is no text, which is wrong only for those who use it.
type Symbols = Vec<Option<Arc<str>>>;

impl Reading<'_> {
    fn charge(&mut self, bytes: usize) -> Result<(), Fault> {
        self.memory = self.memory.saturating_add(bytes);
        let allowed = self.limits.memory_bytes_max;
        if self.memory > allowed { Err(Fault::Memory { allowed }) } else { Ok(()) }
    }

    /// Puts by what is read when the labels are known.
    fn put_by<'b>(&mut self, list: &mut Vec<&'b [u8]>, field: Value<'b>) -> Result<(), Fault> {
        self.charge(PLACE_BYTES)?;
        list.push(field.bytes()?);
        Ok(())
    }

    /// Before anything is built: so many series, and so many descriptions.
    fn few(&self, series: usize) -> Result<(), Fault> {
        let allowed = self.limits.series_max;
        if series > allowed { Err(Fault::Series { series, allowed }) } else { Ok(()) }
    }

    fn refuse(&mut self, reason: &'static str, points: usize, fault: impl ToString) {
        self.decoded.refused.refuse(reason, points.max(1) as u64);
        self.decoded.first_fault.get_or_insert_with(|| fault.to_string());
    }

    fn text(&mut self, bytes: &[u8]) -> Result<Arc<str>, LabelFault> {
        let text = std::str::from_utf8(bytes).map_err(|_| LabelFault::NotText)?;
        Ok(self.texts.get(text))
    }

    fn request_v1(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let (mut series, mut metadata) = (0, 0);
        for field in Fields(bytes) {
            match field?.0 {
                1 => series += 1,
                3 => metadata += 1,
                _ => {}
            }
        }
        self.few(series)?;
        self.few(metadata)?;
        self.decoded.batch.series.reserve(series);
        for field in Fields(bytes) {
            match field? {
                (1, series) => self.series_v1(series.bytes()?)?,
                (3, metadata) => self.metadata_v1(metadata.bytes()?)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn series_v1(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.charge(SERIES_BYTES)?;
        let (named, rest) = leading(bytes, 1)?;
        let mut held = Gathered::default();
        let mut more = Vec::new();
        for field in Fields(rest) {
            match field? {
                (1, label) => self.put_by(&mut more, label)?,
                (2, sample) => {
                    self.charge(POINT_BYTES)?;
                    held.points.push(sample_of(sample.bytes()?, &mut 0)?);
                }
                (3, exemplar) => self.put_by(&mut held.exemplars, exemplar)?,
                (4, histogram) => self.put_by(&mut held.histograms, histogram)?,
                _ => {}
            }
        }
        let labels = match self.labels_v1(named, &more)? {
            Ok(labels) => labels,
            Err(fault) => {
                self.refuse(fault.reason(), held.points.len() + held.histograms.len(), fault);
                return Ok(());
            }
        };
        let mut taken = self.points(labels, &held)?;
        for bytes in held.exemplars {
            self.exemplar_v1(bytes, &mut taken)?;
        }
        self.decoded.batch.series.push(taken);
        Ok(())
    }

    fn exemplar_v1(&mut self, bytes: &[u8], taken: &mut SeriesPoints) -> Result<(), Fault> {
        let mut exemplar = Exemplar { labels: Vec::new(), unix_millis: 0, value: 0.0 };
        let (mut names, mut count) = (Vec::new(), 0);
        for field in Fields(bytes) {
            match field? {
                (1, label) => {
                    let named = pair(label.bytes()?)?;
                    count += 1;
                    if count <= EXEMPLAR_LABELS_MAX {
                        names.push(named);
                    }
                }
                (2, value) => exemplar.value = value.double()?,
                (3, time) => exemplar.unix_millis = time.signed()?,
                _ => {}
            }
        }
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let names = names.into_iter().map(|(name, value)| Some((text(name)?, text(value)?))).collect();
        self.exemplar(exemplar, count, names, taken)
    }

    /// The labels in these fields; those that came before need not be looked at again.
    fn labels_v1(&mut self, named: &[u8], more: &[&[u8]]) -> Result<Result<SeriesLabels, LabelFault>, Fault> {
        if more.is_empty()
            && let Some(labels) = self.known.get(named)
        {
            return Ok(Ok(labels));
        }
        let mut pairs = Vec::new();
        let mut texts = self.texts.len();
        let first = Fields(named).map(|field| field?.1.bytes());
        for label in first.chain(more.iter().map(|label| Ok(*label))) {
            self.charge(LABEL_BYTES)?;
            let (name, value) = pair(label?)?;
            match (self.text(name), self.text(value)) {
                (Ok(name), Ok(value)) => pairs.push((name, value)),
                (Err(fault), _) | (_, Err(fault)) => return Ok(Err(fault)),
            }
            let before = std::mem::replace(&mut texts, self.texts.len());
            self.charge(TEXT_BYTES * (texts - before))?;
        }
        let labels = series_labels(pairs, self.limits.labels);
        if let Ok(labels) = &labels
            && more.is_empty()
        {
            self.known.put(named, labels);
        }
        Ok(labels)
    }

    fn metadata_v1(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let (mut number, mut name, mut help, mut unit) = (0, &[][..], &[][..], &[][..]);
        for field in Fields(bytes) {
            match field? {
                (1, kind) => number = kind.short()?.cast_signed(),
                (2, text) => name = text.bytes()?,
                (4, text) => help = text.bytes()?,
                (5, text) => unit = text.bytes()?,
                _ => {}
            }
        }
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        self.describe(text(name), number, &String::from_utf8_lossy(help), &String::from_utf8_lossy(unit))
    }

    fn request_v2(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let (mut series, mut symbols) = (0, Symbols::new());
        for field in Fields(bytes) {
            match field? {
                (4, symbol) => {
                    let text = std::str::from_utf8(symbol.bytes()?).ok();
                    self.charge(LABEL_BYTES + text.map_or(0, str::len))?;
                    symbols.push(text.map(Arc::from));
                }
                (5, _) => series += 1,
                _ => {}
            }
        }
        self.few(series)?;
        let is_ours = symbols.first().is_some_and(|first| first.as_deref() == Some(""));
        if series > 0 && !is_ours {
            return Err(Fault::Symbols);
        }
        self.decoded.batch.series.reserve(series);
        for field in Fields(bytes) {
            if let (5, series) = field? {
                self.series_v2(series.bytes()?, &symbols)?;
            }
        }
        Ok(())
    }

    fn series_v2(&mut self, bytes: &[u8], symbols: &Symbols) -> Result<(), Fault> {
        self.charge(SERIES_BYTES)?;
        let mut held = Gathered::default();
        let allowed = self.labels_max();
        let mut references = Numbers::new(allowed.saturating_mul(2));
        let (mut described, mut created, mut starts) = (None, 0, None);
        for field in Fields(bytes) {
            match field? {
                (1, numbers) => references.add(numbers)?,
                (2, sample) => {
                    self.charge(POINT_BYTES)?;
                    let mut start = 0;
                    held.points.push(sample_of(sample.bytes()?, &mut start)?);
                    starts.get_or_insert(start);
                }
                (3, histogram) => self.put_by(&mut held.histograms, histogram)?,
                (4, exemplar) => self.put_by(&mut held.exemplars, exemplar)?,
                (5, metadata) => described = Some(metadata.bytes()?),
                (6, time) => created = time.signed()?,
                _ => {}
            }
        }
        self.charge(LABEL_BYTES * references.kept.len() / 2)?;
        let points = held.points.len() + held.histograms.len();
        let Some(pairs) = resolved(symbols, &references.kept) else {
            self.refuse("labels", points, "a series refers to symbols that the request does not have");
            return Ok(());
        };
        if references.is_cut() {
            let metric = metric_name(&pairs).unwrap_or_default().to_owned();
            let found = references.count.div_ceil(2);
            let fault = LabelFault::Limit { what: "labels", metric, found, allowed };
            self.refuse(fault.reason(), points, fault);
            return Ok(());
        }
        let labels = match series_labels(pairs, self.limits.labels) {
            Ok(labels) => labels,
            Err(fault) => {
                self.refuse(fault.reason(), points, fault);
                return Ok(());
            }
        };
        if let Some(described) = described {
            self.metadata_v2(described, symbols, &labels)?;
        }
        if starts.is_none()
            && let Some(first) = held.histograms.first()
        {
            starts = Fields(first).find_map(|field| match field {
                Ok((17, time)) => time.signed().ok(),
                _ => None,
            });
        }
        let mut taken = self.points(labels, &held)?;
        taken.created_ms = starts.into_iter().chain([created]).find(|began| *began > 0);
        for bytes in held.exemplars {
            self.exemplar_v2(bytes, symbols, &mut taken)?;
        }
        self.decoded.batch.series.push(taken);
        Ok(())
    }

    fn exemplar_v2(
        &mut self,
        bytes: &[u8],
        symbols: &Symbols,
        taken: &mut SeriesPoints,
    ) -> Result<(), Fault> {
        let mut exemplar = Exemplar { labels: Vec::new(), unix_millis: 0, value: 0.0 };
        let mut references = Numbers::new(2 * EXEMPLAR_LABELS_MAX);
        for field in Fields(bytes) {
            match field? {
                (1, numbers) => references.add(numbers)?,
                (2, value) => exemplar.value = value.double()?,
                (3, time) => exemplar.unix_millis = time.signed()?,
                _ => {}
            }
        }
        let text = |reference: u32| symbols.get(usize::try_from(reference).ok()?)?.as_deref();
        let two = references.kept.chunks_exact(2);
        let names = if two.remainder().is_empty() {
            two.map(|two| Some((text(two[0])?, text(two[1])?))).collect()
        } else {
            None
        };
        self.exemplar(exemplar, references.count.div_ceil(2), names, taken)
    }

    /// Labels that a series may have; where no number is set, as many as fit the memory of a request.
    fn labels_max(&self) -> usize {
        match self.limits.labels.labels_max {
            0 => self.limits.memory_bytes_max / LABEL_BYTES,
            allowed => allowed,
        }
    }

    fn metadata_v2(&mut self, bytes: &[u8], symbols: &Symbols, labels: &SeriesLabels) -> Result<(), Fault> {
        let (mut number, mut help, mut unit) = (0, 0, 0);
        for field in Fields(bytes) {
            match field? {
                (1, value) => number = value.short()?.cast_signed(),
                (3, value) => help = value.short()?,
                (4, value) => unit = value.short()?,
                _ => {}
            }
        }
        let text = |reference: u32| {
            let held = usize::try_from(reference).ok().and_then(|at| symbols.get(at));
            held.and_then(Option::as_deref).unwrap_or_default()
        };
        let (help, unit) = (text(help), text(unit));
        if number == 0 && help.is_empty() && unit.is_empty() {
            return Ok(());
        }
        let name = family(metric_name(labels).unwrap_or_default(), kind(number)).to_owned();
        self.describe(name, number, help, unit)
    }

    /// What is said of a family, the last word counting.
    fn describe(&mut self, name: String, number: i32, help: &str, unit: &str) -> Result<(), Fault> {
        let name = cut(&name, self.limits.help_bytes_max);
        let (help, unit) = (cut(help, self.limits.help_bytes_max), cut(unit, self.limits.help_bytes_max));
        if self.metadata.has(&name, kind(number), &help, &unit) {
            return Ok(());
        }
        self.charge(METADATA_BYTES + 2 * name.len() + help.len() + unit.len())?;
        self.metadata.put(MetricMetadata { name, kind: kind(number).to_owned(), help, unit });
        Ok(())
    }

    /// A series with its points, those that can be had.
    fn points(&mut self, labels: SeriesLabels, held: &Gathered<'_>) -> Result<SeriesPoints, Fault> {
        let mut points: Vec<(i64, PointValue)> =
            Vec::with_capacity(held.points.len() + held.histograms.len());
        points.extend(held.points.iter().map(|(time, value)| (*time, PointValue::Float(*value))));
        for bytes in &held.histograms {
            self.charge(HISTOGRAM_BYTES + HISTOGRAM_BYTE_BYTES * bytes.len())?;
            let read = Histogram::decode(*bytes);
            let histogram = read.map_err(|error| Fault::Message(format!("a histogram: {error}")))?;
            match native::from_wire(&histogram) {
                Ok(held) => points.push((histogram.timestamp, PointValue::Histogram(Box::new(held)))),
                Err(fault) => self.refuse("invalid", 1, fault),
            }
        }
        Ok(SeriesPoints { labels, created_ms: None, points, exemplars: Vec::new() })
    }

    /// An exemplar, unless its labels are no text, too many or too long: then it is refused alone.
    fn exemplar(
        &mut self,
        mut exemplar: Exemplar,
        count: usize,
        names: Option<Vec<(&str, &str)>>,
        taken: &mut SeriesPoints,
    ) -> Result<(), Fault> {
        if count > EXEMPLAR_LABELS_MAX {
            let fault =
                format!("{count} labels of an exemplar are more than the {EXEMPLAR_LABELS_MAX} allowed");
            self.refuse("label_limit", 1, fault);
            return Ok(());
        }
        let Some(names) = names else {
            self.refuse("labels", 1, "the labels of an exemplar are no texts of the request");
            return Ok(());
        };
        let bytes: usize = names.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum();
        let allowed = self.limits.exemplar_bytes_max;
        if bytes > allowed {
            let fault = format!("{bytes} bytes of an exemplar's labels are more than the {allowed} allowed");
            self.refuse("label_limit", 1, fault);
            return Ok(());
        }
        self.charge(EXEMPLAR_BYTES + LABEL_BYTES * names.len() + bytes)?;
        exemplar.labels =
            names.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        taken.exemplars.push(exemplar);
        Ok(())
    }
}

/// What a series has beside its labels.
#[derive(Default)]
struct Gathered<'a> {
    points: Vec<(i64, f64)>,
    histograms: Vec<&'a [u8]>,
    exemplars: Vec<&'a [u8]>,
}

/// Time and value of a sample; 2.0 has its start too.
fn sample_of(bytes: &[u8], start: &mut i64) -> Result<(i64, f64), Broken> {
    let (mut value, mut time) = (0.0, 0);
    for field in Fields(bytes) {
        match field? {
            (1, number) => value = number.double()?,
            (2, number) => time = number.signed()?,
            (3, number) => *start = number.signed()?,
            _ => {}
        }
    }
    Ok((time, value))
}

/// Name and value of a label of 1.0.
fn pair(bytes: &[u8]) -> Result<(&[u8], &[u8]), Broken> {
    let (mut name, mut value) = (&[][..], &[][..]);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(text)) => name = text,
            (2, Value::Bytes(text)) => value = text,
            (1 | 2, _) => return Err(Broken::Type),
            _ => {}
        }
    }
    Ok((name, value))
}

fn resolved(symbols: &Symbols, references: &[u32]) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let text = |reference: &u32| symbols.get(usize::try_from(*reference).ok()?)?.clone();
    if !references.len().is_multiple_of(2) {
        return None;
    }
    references.chunks_exact(2).map(|two| Some((text(&two[0])?, text(&two[1])?))).collect()
}

/// A text of so many bytes at most; what is cut shows it.
fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes_max.saturating_sub("…".len()));
    format!("{}…", &text[..end])
}
