//! Tables from other systems: prefixes and costs, aliases, blocks, as CSV with a header line.

use csv::StringRecord;

use crate::cost::Cost;
use crate::plan::{Alias, Block, Plan, PrefixRow, Side};

/// Faults that one file names; more of them help nobody.
const FAULTS_MAX: usize = 20;

/// What a file held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// `trunk,prefix,cost[,priority][,weight]`
    Prefixes,
    /// `number,address[,tenant]`
    Aliases,
    /// `side,prefix[,tenant][,action]`
    Blocks,
}

impl Imported {
    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prefixes => "prefixes",
            Self::Aliases => "aliases",
            Self::Blocks => "blocks",
        }
    }
}

/// A row that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct RowFault {
    /// From 1.
    pub line: u64,
    /// The field, from 1.
    pub column: usize,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// Reads a CSV text; its header says what it holds. The rows come as a plan with nothing else in it.
///
/// # Errors
/// Every row that cannot be read, up to a bound.
pub fn read_rows(text: &str) -> Result<(Imported, Plan), Vec<RowFault>> {
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(text.as_bytes());
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => return Err(vec![of_csv(&error)]),
    };
    let kind = kind_of(&header)?;
    let (mut plan, mut faults) = (Plan::default(), Vec::new());
    for record in reader.records() {
        let read = match &record {
            Ok(record) => read_row(kind, &Row { header: &header, record }, &mut plan),
            Err(error) => Err(of_csv(error)),
        };
        if let Err(fault) = read {
            faults.push(fault);
            if faults.len() >= FAULTS_MAX {
                break;
            }
        }
    }
    if faults.is_empty() { Ok((kind, plan)) } else { Err(faults) }
}

fn kind_of(header: &StringRecord) -> Result<Imported, Vec<RowFault>> {
    let kinds: [(Imported, &[&str], &[&str]); 3] = [
        (Imported::Prefixes, &["trunk", "prefix", "cost"], &["priority", "weight"]),
        (Imported::Aliases, &["number", "address"], &["tenant"]),
        (Imported::Blocks, &["side", "prefix"], &["tenant", "action"]),
    ];
    let has = |name: &str| header.iter().any(|field| field == name);
    let found = kinds.iter().find(|(_, needed, _)| needed.iter().all(|name| has(name)));
    let Some((kind, needed, optional)) = found else {
        let forms = kinds.iter().map(|(kind, needed, _)| format!("{} ({})", needed.join(","), kind.as_str()));
        let message = format!("the header must hold {}", forms.collect::<Vec<_>>().join(", or "));
        return Err(vec![RowFault { line: 1, column: 1, message }]);
    };
    for (place, field) in header.iter().enumerate() {
        if !needed.contains(&field) && !optional.contains(&field) {
            let known = [*needed, *optional].concat().join(", ");
            let message = format!("unknown field {field:?}; there are {known}");
            return Err(vec![RowFault { line: 1, column: place + 1, message }]);
        }
    }
    Ok(*kind)
}

/// A row with its header.
struct Row<'r> {
    header: &'r StringRecord,
    record: &'r StringRecord,
}

impl Row<'_> {
    /// The text of a field; empty when it is not there.
    fn text(&self, name: &str) -> &str {
        let place = self.header.iter().position(|field| field == name);
        place.and_then(|place| self.record.get(place)).unwrap_or_default()
    }

    /// The text of a field, unless it is empty.
    fn given(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    fn number(&self, name: &str) -> Result<Option<u16>, RowFault> {
        let Some(text) = self.given(name) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| self.fault(name, format!("{text:?} is not a number from 0 to 65535")))
    }

    fn fault(&self, name: &str, message: String) -> RowFault {
        let line = self.record.position().map_or(0, csv::Position::line);
        let column = self.header.iter().position(|field| field == name).map_or(1, |place| place + 1);
        RowFault { line, column, message: format!("{name}: {message}") }
    }

    fn digits(&self, name: &str) -> Result<String, RowFault> {
        let text = self.text(name);
        let digits = text.strip_prefix('+').unwrap_or(text);
        if digits.len() > crate::number::DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(
                self.fault(name, format!("{text:?} is not the first digits of international numbers"))
            );
        }
        Ok(digits.to_owned())
    }
}

fn read_row(kind: Imported, row: &Row<'_>, plan: &mut Plan) -> Result<(), RowFault> {
    match kind {
        Imported::Prefixes => {
            let trunk = row.given("trunk").ok_or_else(|| row.fault("trunk", "name the trunk".to_owned()))?;
            // A cost of `-` or none means that the trunk does not serve the prefix.
            let cost = row.given("cost").filter(|cost| *cost != "-").map(Cost::parse).transpose();
            let cost = cost.map_err(|error| row.fault("cost", error.to_string()))?;
            plan.prefixes.push(PrefixRow {
                trunk: trunk.to_owned(),
                prefix: row.digits("prefix")?,
                cost,
                priority: row.number("priority")?,
                weight: row.number("weight")?,
            });
        }
        Imported::Aliases => {
            let needed = |name: &str| {
                row.given(name)
                    .map(str::to_owned)
                    .ok_or_else(|| row.fault(name, "must not be empty".to_owned()))
            };
            let tenant = row.given("tenant").map(str::to_owned);
            plan.aliases.push(Alias { number: needed("number")?, tenant, address: needed("address")? });
        }
        Imported::Blocks => {
            let side = match row.text("side") {
                "caller" => Side::Caller,
                "called" => Side::Called,
                other => return Err(row.fault("side", format!("{other:?} is neither caller nor called"))),
            };
            let is_allowed = match row.given("action") {
                None | Some("block") => false,
                Some("allow") => true,
                Some(other) => {
                    return Err(row.fault("action", format!("{other:?} is neither block nor allow")));
                }
            };
            let tenant = row.given("tenant").map(str::to_owned);
            plan.blocks.push(Block { tenant, side, prefix: row.digits("prefix")?, is_allowed });
        }
    }
    Ok(())
}

fn of_csv(error: &csv::Error) -> RowFault {
    let line = error.position().map_or(1, csv::Position::line);
    let message = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields where the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
        _ => error.to_string(),
    };
    RowFault { line, column: 1, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_known_by_their_header() {
        let (kind, plan) = read_rows(
            "trunk,prefix,cost,weight\n# the islands\ncarrier-a,+44,0.0125,10\ncarrier-a, 881 ,-,\ncarrier-b,49,\"0.02\",\n",
        )
        .expect("good rows");
        assert_eq!(kind, Imported::Prefixes);
        let shown: Vec<_> =
            plan.prefixes.iter().map(|row| (row.prefix.as_str(), row.cost, row.weight)).collect();
        let expected =
            [("44", Some(Cost(12_500)), Some(10)), ("881", None, None), ("49", Some(Cost(20_000)), None)];
        assert_eq!(shown, expected);
        let (kind, plan) = read_rows("address,number\nalice@x,+4420\n").expect("good rows");
        assert_eq!((kind, plan.aliases[0].number.as_str()), (Imported::Aliases, "+4420"));
        let (kind, plan) =
            read_rows("side,prefix,action\ncalled,88,\ncalled,8810,allow\n").expect("good rows");
        assert_eq!((kind, plan.blocks[1].is_allowed), (Imported::Blocks, true));
    }

    #[test]
    fn faults_name_line_and_field() {
        for (text, line, column, word) in [
            ("a,b\n", 1, 1, "the header must hold"),
            ("trunk,prefix,cost,colour\n", 1, 4, "unknown field"),
            ("trunk,prefix,cost\nx,44,0.01\nx,4a,0.01\n", 3, 2, "first digits"),
            ("trunk,prefix,cost\nx,44,1e3\n", 2, 3, "six decimals"),
            ("trunk,prefix,cost\n,44,1\n", 2, 1, "name the trunk"),
            ("trunk,prefix,cost\nx,44\n", 2, 1, "2 fields"),
            ("side,prefix\nboth,44\n", 2, 1, "neither caller nor called"),
            ("number,address\n,alice@x\n", 2, 1, "must not be empty"),
        ] {
            let faults = read_rows(text).expect_err(text);
            let fault = &faults[0];
            assert!(
                (fault.line, fault.column) == (line, column) && fault.message.contains(word),
                "{text}: {fault}"
            );
        }
    }
}
