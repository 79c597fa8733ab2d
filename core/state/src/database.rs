//! The database: one task that writes and commits in batches, and a pool that reads.
//!
//! A commit is an fsync (`synchronous=FULL`), so writes that come together share one.

use std::sync::Arc;
use std::time::Instant;

use belfry_signal::Region;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Connection, Row, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::error::Error;
use crate::record::{Appended, CallRecord};
use crate::signals::Signals;
use crate::subscriber::Subscriber;

const FILE: &str = "belfry.sqlite";
const INSERT_RECORD: &str = "insert into call_record (call_id, from_tag, to_tag, epoch, trace_id, \
    start_unix_nanos, answer_unix_nanos, end_unix_nanos, caller, callee, region, country, transport, status_code, \
    outcome, cause, node) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do nothing";
const PUT_SUBSCRIBER: &str = "insert into subscriber (domain, user, ha1_md5, ha1_sha256, enabled) \
    values (?, ?, ?, ?, ?) on conflict do update set ha1_md5 = excluded.ha1_md5, \
    ha1_sha256 = excluded.ha1_sha256, enabled = excluded.enabled";

/// One thing to write, and who waits for it.
pub(crate) enum Write {
    Record(Box<CallRecord>, oneshot::Sender<Result<Appended, Error>>),
    Subscriber(Box<Subscriber>, oneshot::Sender<Result<(), Error>>),
}

/// Opens the database, brings it to the present layout, and starts the writer.
pub(crate) async fn open(
    config: &Config,
    signals: Signals,
) -> Result<(SqlitePool, mpsc::Sender<Write>, tokio::task::JoinHandle<()>), Error> {
    let connection = connect(config).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(config.readers_max)
        .connect_with(options(config).read_only(true))
        .await?;
    let (sender, receiver) = mpsc::channel(config.writes_queue_max);
    let writer = Writer { connection, receiver, batch_max: config.writes_per_commit_max, signals };
    Ok((readers, sender, tokio::spawn(writer.run())))
}

/// Whether there is a database.
pub(crate) fn exists(config: &Config) -> bool {
    config.directory.join(FILE).exists()
}

/// A connection that writes, to a database of the present layout.
pub(crate) async fn connect(config: &Config) -> Result<SqliteConnection, Error> {
    let mut connection = SqliteConnection::connect_with(&options(config)).await?;
    sqlx::migrate!().run(&mut connection).await?;
    Ok(connection)
}

fn options(config: &Config) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(config.directory.join(FILE))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(std::time::Duration::from_secs(5))
}

struct Writer {
    connection: SqliteConnection,
    receiver: mpsc::Receiver<Write>,
    batch_max: usize,
    signals: Signals,
}

enum Done {
    Record(Appended),
    Subscriber,
}

impl Writer {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(self.batch_max);
        while self.receiver.recv_many(&mut batch, self.batch_max).await > 0 {
            let start = Instant::now();
            let result = commit(&mut self.connection, &batch).await;
            self.signals.commit_ended(start.elapsed(), result.as_ref().err());
            match result {
                Ok(done) => batch.drain(..).zip(done).for_each(|(write, done)| self.answer(write, Ok(done))),
                Err(error) => batch.drain(..).for_each(|write| self.answer(write, Err(error.clone()))),
            }
        }
        // Everything is committed; a close that fails leaves the write-ahead log for the next start.
        drop(self.connection.close().await);
    }

    /// Whoever no longer waits does not want to know.
    fn answer(&self, write: Write, result: Result<Done, Error>) {
        match write {
            Write::Record(_, waiting) => {
                let result = result.map(|done| match done {
                    Done::Record(appended) => appended,
                    Done::Subscriber => Appended::New,
                });
                self.signals.call_record_appended(result.as_ref().copied());
                drop(waiting.send(result));
            }
            Write::Subscriber(_, waiting) => drop(waiting.send(result.map(|_| ()))),
        }
    }
}

async fn commit(connection: &mut SqliteConnection, batch: &[Write]) -> Result<Vec<Done>, Error> {
    let mut transaction = connection.begin().await?;
    let mut done = Vec::with_capacity(batch.len());
    for write in batch {
        done.push(match write {
            Write::Record(record, _) => Done::Record(insert_record(&mut transaction, record).await?),
            Write::Subscriber(subscriber, _) => {
                put_subscriber(&mut transaction, subscriber).await?;
                Done::Subscriber
            }
        });
    }
    transaction.commit().await?;
    Ok(done)
}

async fn insert_record(connection: &mut SqliteConnection, record: &CallRecord) -> Result<Appended, Error> {
    let result = sqlx::query(INSERT_RECORD)
        .bind(record.call_id.reveal())
        .bind(&record.from_tag)
        .bind(&record.to_tag)
        .bind(integer(record.epoch))
        .bind(&record.trace_id)
        .bind(integer(record.start_unix_nanos))
        .bind(record.answer_unix_nanos.map(integer))
        .bind(integer(record.end_unix_nanos))
        .bind(record.caller.reveal())
        .bind(record.callee.reveal())
        .bind(record.region.as_str())
        .bind(record.country.as_deref())
        .bind(record.transport.as_ref())
        .bind(record.status_code)
        .bind(record.outcome.as_ref())
        .bind(record.cause.as_ref())
        .bind(&record.node)
        .execute(connection)
        .await?;
    Ok(if result.rows_affected() == 1 { Appended::New } else { Appended::Known })
}

async fn put_subscriber(connection: &mut SqliteConnection, subscriber: &Subscriber) -> Result<(), Error> {
    sqlx::query(PUT_SUBSCRIBER)
        .bind(&subscriber.domain)
        .bind(&subscriber.user)
        .bind(&subscriber.ha1_md5)
        .bind(&subscriber.ha1_sha256)
        .bind(subscriber.enabled)
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn subscriber(
    pool: &SqlitePool,
    user: &str,
    domain: &str,
) -> Result<Option<Arc<Subscriber>>, Error> {
    let sql =
        "select user, domain, ha1_md5, ha1_sha256, enabled from subscriber where domain = ? and user = ?";
    let Some(row) = sqlx::query(sql).bind(domain).bind(user).fetch_optional(pool).await? else {
        return Ok(None);
    };
    Ok(Some(Arc::new(Subscriber {
        user: row.try_get("user")?,
        domain: row.try_get("domain")?,
        ha1_md5: row.try_get("ha1_md5")?,
        ha1_sha256: row.try_get("ha1_sha256")?,
        enabled: row.try_get("enabled")?,
    })))
}

pub(crate) async fn count(pool: &SqlitePool, of: Counted) -> Result<u64, Error> {
    let sql = match of {
        Counted::Subscribers => "select count(*) from subscriber",
        Counted::CallRecords => "select count(*) from call_record",
    };
    let count: i64 = sqlx::query_scalar(sql).fetch_one(pool).await?;
    Ok(natural(count))
}

/// What can be counted.
#[derive(Clone, Copy)]
pub(crate) enum Counted {
    Subscribers,
    CallRecords,
}

pub(crate) async fn call_records(pool: &SqlitePool, limit: u32) -> Result<Vec<CallRecord>, Error> {
    let sql = "select * from call_record order by end_unix_nanos desc, id desc limit ?";
    let rows = sqlx::query(sql).bind(limit).fetch_all(pool).await?;
    rows.iter().map(read_record).collect()
}

fn read_record(row: &SqliteRow) -> Result<CallRecord, Error> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let number = |column: &str| row.try_get::<i64, _>(column).map(natural);
    let region =
        Region::configured(&text("region")?).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(CallRecord {
        call_id: text("call_id")?.into(),
        from_tag: text("from_tag")?,
        to_tag: text("to_tag")?,
        epoch: number("epoch")?,
        trace_id: text("trace_id")?,
        start_unix_nanos: number("start_unix_nanos")?,
        answer_unix_nanos: row.try_get::<Option<i64>, _>("answer_unix_nanos")?.map(natural),
        end_unix_nanos: number("end_unix_nanos")?,
        caller: text("caller")?.into(),
        callee: text("callee")?.into(),
        region,
        country: row.try_get("country")?,
        transport: text("transport")?.into(),
        status_code: row.try_get("status_code")?,
        outcome: text("outcome")?.into(),
        cause: text("cause")?.into(),
        node: text("node")?,
    })
}

/// SQLite counts in signed 64 bits, which hold nanoseconds until the year 2262.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
