//! Which series satisfy a query: sets of numbers per label value, in the head and in each block.

use roaring::RoaringBitmap;

use crate::error::Error;
use crate::matcher::Matcher;

/// Where sets of series numbers come from.
pub(crate) trait Postings {
    /// Every series.
    fn all(&self) -> RoaringBitmap;

    /// The series with this value of the label.
    fn with_value(&self, name: &str, value: &str) -> Result<RoaringBitmap, Error>;

    /// The series with a wanted value of the label; those without the label are not asked about.
    fn with_values(&self, name: &str, is_wanted: &dyn Fn(&str) -> bool) -> Result<RoaringBitmap, Error>;
}

/// The numbers of the series that satisfy every matcher.
pub(crate) fn select(postings: &dyn Postings, matchers: &[Matcher]) -> Result<RoaringBitmap, Error> {
    let mut selected: Option<RoaringBitmap> = None;
    // Those that a series without the label cannot satisfy narrow down; the others then take away.
    let (mut narrowing, widening): (Vec<_>, Vec<_>) =
        matchers.iter().partition(|matcher| !matcher.is_match(""));
    // Equality is one set; when it leaves nothing, no pattern need be tried.
    narrowing.sort_by_key(|matcher| matcher.only_value().is_none());
    for matcher in narrowing {
        if selected.as_ref().is_some_and(RoaringBitmap::is_empty) {
            break;
        }
        let found = match matcher.only_value() {
            Some(value) => postings.with_value(matcher.name(), value)?,
            None => postings.with_values(matcher.name(), &|value| matcher.is_match(value))?,
        };
        selected = Some(match selected {
            Some(before) => before & found,
            None => found,
        });
    }
    let mut selected = selected.unwrap_or_else(|| postings.all());
    for matcher in widening {
        if selected.is_empty() {
            break;
        }
        selected -= postings.with_values(matcher.name(), &|value| !matcher.is_match(value))?;
    }
    Ok(selected)
}
