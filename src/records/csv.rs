//! Export as CSV (RFC 4180): a header line, commas, CRLF, quotes where they are needed.

use std::io::Write;

use ::csv::{Terminator, Writer, WriterBuilder};
use belfry_state::CallRecord;

use super::Sink;
use super::columns::{COLUMNS, Get, time};

/// The writer.
pub(super) struct CsvSink<W: Write> {
    writer: Writer<W>,
}

impl<W: Write> CsvSink<W> {
    pub(super) fn new(output: W) -> anyhow::Result<Self> {
        let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(output);
        writer.write_record(COLUMNS.map(|(name, _)| name))?;
        Ok(Self { writer })
    }
}

impl<W: Write> Sink for CsvSink<W> {
    fn write(&mut self, records: &[CallRecord]) -> anyhow::Result<()> {
        for record in records {
            for (_, get) in COLUMNS {
                match get {
                    Get::Text(get) | Get::Decimal(get) => {
                        self.writer.write_field(get(record).unwrap_or_default())?;
                    }
                    Get::Time(get) => self.writer.write_field(get(record).map(time).unwrap_or_default())?,
                    Get::Number(get) => {
                        self.writer.write_field(get(record).map(|n| n.to_string()).unwrap_or_default())?;
                    }
                }
            }
            self.writer.write_record(None::<&[u8]>)?;
        }
        Ok(())
    }

    fn end(mut self: Box<Self>) -> anyhow::Result<()> {
        Ok(self.writer.flush()?)
    }
}
