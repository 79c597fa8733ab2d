use std::sync::{Arc, Mutex};

use ::parquet::file::reader::{FileReader, SerializedFileReader};
use belfry_state::Charge;

use super::*;

/// What was written, for whoever reads it later.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn records() -> Vec<CallRecord> {
    let charge = Charge {
        price: "0.1234".to_owned(),
        currency: "EUR".to_owned(),
        profile: "standard".to_owned(),
        profile_version: 3,
        destination: "Austria, \"mobile\"".to_owned(),
        charged_seconds: 60,
        free_seconds: 0,
        free_period: None,
    };
    vec![
        CallRecord {
            charge: Some(charge),
            tenant: Some("acme".to_owned()),
            calling_trunk: Some("in".to_owned()),
            called_trunk: Some("out".to_owned()),
            called_number: Some("+4366012345".to_owned().into()),
            ..CallRecord::for_test("call-1")
        },
        CallRecord { answer_unix_nanos: None, country: None, ..CallRecord::for_test("call-2") },
    ]
}

fn exported(format: RecordFormat, records: &[CallRecord]) -> Vec<u8> {
    let output = Shared::default();
    let mut sink = sink(format, output.clone()).expect("begun");
    for records in records.chunks(7) {
        sink.write(records).expect("written");
    }
    sink.end().expect("ended");
    std::mem::take(&mut *output.0.lock().expect("no panic"))
}

#[tokio::test]
async fn a_failed_export_leaves_no_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("calls.csv");
    let files = || std::fs::read_dir(directory.path()).expect("listed").count();
    let failed = write_file(&path, async |mut file| {
        file.write_all(b"half")?;
        anyhow::bail!("the store went away")
    });
    assert_eq!(failed.await.expect_err("told").to_string(), "the store went away");
    assert_eq!(files(), 0);
    let written = write_file(&path, async |mut file| {
        file.write_all(b"whole")?;
        Ok(1)
    });
    assert_eq!((written.await.expect("written"), files()), (1, 1));
    assert_eq!(std::fs::read(&path).expect("read"), b"whole");
}

#[test]
fn csv_is_as_rfc_4180_has_it() {
    let text = String::from_utf8(exported(RecordFormat::Csv, &records())).expect("text");
    let lines: Vec<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0].split(',').count(), 30);
    assert_eq!(
        lines[1],
        "call-1,a,b,0,00000000000000000000000000000000,1970-01-01T00:00:01Z,1970-01-01T00:00:02Z,\
         1970-01-01T00:00:03Z,sip:a@x,sip:b@x,test,GB,udp,acme,in,out,+4366012345,,,200,answered,normal,node-1,0.1234,EUR,standard,3,\
         \"Austria, \"\"mobile\"\"\",60,0"
    );
    assert!(lines[2].ends_with(",node-1,,,,,,,"), "{}", lines[2]);
}

#[test]
fn parquet_reads_as_it_was_written_over_several_row_groups() {
    let two = records();
    let many: Vec<CallRecord> =
        (0..45_000).map(|n| CallRecord { end_unix_nanos: n as u64, ..two[n % 2].clone() }).collect();
    let bytes = exported(RecordFormat::Parquet, &many);
    let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).expect("a file");
    assert_eq!(reader.metadata().num_row_groups(), 3);
    let mut count = 0;
    for (n, row) in reader.get_row_iter(None).expect("rows").enumerate() {
        let row = row.expect("a row");
        let shown = row.to_string();
        assert!(shown.contains(if n % 2 == 0 { "price: 0.123400000000" } else { "price: null" }), "{shown}");
        assert!(shown.contains(if n % 2 == 0 { "country: \"GB\"" } else { "country: null" }), "{shown}");
        count += 1;
    }
    assert_eq!(count, 45_000);
}

#[test]
fn a_price_that_would_lose_digits_is_refused() {
    let mut record = records().remove(0);
    if let Some(charge) = &mut record.charge {
        charge.price = "0.1234567890123".to_owned();
    }
    let mut sink = sink(RecordFormat::Parquet, Shared::default()).expect("begun");
    sink.write(&[record]).expect("kept");
    let error = sink.end().expect_err("thirteen digits");
    assert!(format!("{error:#}").contains("price"), "{error:#}");
}

#[test]
fn times_are_read_as_people_write_them() {
    let now = 1_795_176_000_000_000_000;
    for (text, expected) in [
        ("now", Some(now)),
        ("-15m", Some(now - 900_000_000_000)),
        ("1795176000", Some(now)),
        ("2026-11-20", Some(1_795_132_800_000_000_000)),
        ("2026-11-20T12:00:00+01:00", Some(1_795_172_400_000_000_000)),
        ("yesterday", None),
        ("-1x", None),
        ("99999999999999999999", None),
    ] {
        let read = moment(text, now);
        assert_eq!(read.as_ref().ok().copied(), expected, "{text}: {read:?}");
    }
}
