//! Export as Parquet, column by column, a row group at a time.
//!
//! The `parquet` crate's own column writer, without Arrow: our columns are few and flat, and Arrow would be a third of
//! the build. Prices are DECIMAL(38, 12) in sixteen bytes, times TIMESTAMP(NANOS, UTC), texts UTF8.

use std::io::Write;
use std::sync::Arc;

use ::parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use ::parquet::data_type::{ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use ::parquet::schema::types::Type;
use anyhow::Context;
use belfry_state::CallRecord;
use rust_decimal::Decimal;

use super::Sink;
use super::columns::{COLUMNS, Column, Get};

/// Records of a row group: what is in memory at a time.
const GROUP_RECORDS: usize = 20_000;
const PRICE_SCALE: u32 = 12;
const PRICE_PRECISION: i32 = 38;
const PRICE_BYTES: i32 = 16;

/// The writer.
pub(super) struct ParquetSink<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    group: Vec<CallRecord>,
}

impl<W: Write + Send> ParquetSink<W> {
    pub(super) fn new(output: W) -> anyhow::Result<Self> {
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(output, Arc::new(schema()?), Arc::new(properties))?;
        Ok(Self { writer, group: Vec::new() })
    }

    fn write_group(&mut self) -> anyhow::Result<()> {
        if self.group.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for column in COLUMNS {
            let mut writer = group.next_column()?.context("the schema has a column for each value")?;
            write_column(&mut writer, column, &self.group)?;
            writer.close()?;
        }
        group.close()?;
        self.group.clear();
        Ok(())
    }
}

impl<W: Write + Send> Sink for ParquetSink<W> {
    fn write(&mut self, records: &[CallRecord]) -> anyhow::Result<()> {
        for record in records {
            self.group.push(record.clone());
            if self.group.len() >= GROUP_RECORDS {
                self.write_group()?;
            }
        }
        Ok(())
    }

    fn end(mut self: Box<Self>) -> anyhow::Result<()> {
        self.write_group()?;
        let mut writer = self.writer;
        writer.finish()?;
        writer.inner_mut().flush()?;
        Ok(())
    }
}

/// Every column is optional: a type of a column does not change when a value can be missing one day.
fn schema() -> anyhow::Result<Type> {
    let mut fields = Vec::new();
    for (name, get) in COLUMNS {
        let (physical, logical) = match get {
            Get::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Get::Number(_) => (Physical::INT64, None),
            Get::Time(_) => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::NANOS))),
            Get::Decimal(_) => {
                #[expect(clippy::cast_possible_wrap, reason = "twelve")]
                let logical = LogicalType::decimal(PRICE_SCALE as i32, PRICE_PRECISION);
                (Physical::FIXED_LEN_BYTE_ARRAY, Some(logical))
            }
        };
        let mut field = Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical);
        if physical == Physical::FIXED_LEN_BYTE_ARRAY {
            #[expect(clippy::cast_possible_wrap, reason = "twelve")]
            let scale = PRICE_SCALE as i32;
            field = field.with_length(PRICE_BYTES).with_precision(PRICE_PRECISION).with_scale(scale);
        }
        fields.push(Arc::new(field.build()?));
    }
    Ok(Type::group_type_builder("call_record").with_fields(fields).build()?)
}

fn write_column(
    writer: &mut SerializedColumnWriter<'_>,
    (name, get): Column,
    records: &[CallRecord],
) -> anyhow::Result<()> {
    match get {
        Get::Text(get) => {
            let (texts, levels) = present(records, |record| Ok(get(record).map(ByteArray::from)))?;
            writer.typed::<ByteArrayType>().write_batch(&texts, Some(&levels), None)?;
        }
        Get::Number(get) | Get::Time(get) => {
            let number = |record: &CallRecord| Ok(get(record).map(|n| i64::try_from(n).unwrap_or(i64::MAX)));
            let (numbers, levels) = present(records, number)?;
            writer.typed::<Int64Type>().write_batch(&numbers, Some(&levels), None)?;
        }
        Get::Decimal(get) => {
            let decimal = |record: &CallRecord| get(record).map(price).transpose();
            let (decimals, levels) = present(records, decimal).with_context(|| format!("column {name}"))?;
            writer.typed::<FixedLenByteArrayType>().write_batch(&decimals, Some(&levels), None)?;
        }
    }
    Ok(())
}

/// The values that are there, and for each record whether its is.
fn present<T>(
    records: &[CallRecord],
    get: impl Fn(&CallRecord) -> anyhow::Result<Option<T>>,
) -> anyhow::Result<(Vec<T>, Vec<i16>)> {
    let mut values = Vec::with_capacity(records.len());
    let mut levels = Vec::with_capacity(records.len());
    for record in records {
        let value = get(record)?;
        levels.push(i16::from(value.is_some()));
        values.extend(value);
    }
    Ok((values, levels))
}

/// An exact decimal at the column's scale, big endian.
fn price(text: &str) -> anyhow::Result<FixedLenByteArray> {
    let mut price = Decimal::from_str_exact(text)?;
    price.rescale(PRICE_SCALE);
    anyhow::ensure!(
        price == Decimal::from_str_exact(text)? && price.scale() == PRICE_SCALE,
        "it has no exact value with {PRICE_SCALE} digits after the point"
    );
    Ok(FixedLenByteArray::from(price.mantissa().to_be_bytes().to_vec()))
}
