//! The database: one task that writes and commits in batches, and a pool that reads.
//!
//! A commit is an fsync (`synchronous=FULL`), so writes that come together share one.

mod accounts;
mod billing;
mod records;

use std::sync::Arc;
use std::time::Instant;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Row, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use crate::billing::{BillingChange, Changed};
use crate::config::Config;
use crate::error::Error;
use crate::record::CallRecord;
use crate::signals::Signals;
use crate::subscriber::Subscriber;

pub(crate) use accounts::{account, account_names, accounts, movements_after, movements_of, snapshot};
pub(crate) use billing::{assignments, free_seconds_used, newest_profiles, profile, profiles, unrated};
pub(crate) use records::{Verdict, call_records, record_page};

const FILE: &str = "belfry.sqlite";
const PUT_SUBSCRIBER: &str = "insert into subscriber (domain, user, ha1_md5, ha1_sha256, enabled) \
    values (?, ?, ?, ?, ?) on conflict do update set ha1_md5 = excluded.ha1_md5, \
    ha1_sha256 = excluded.ha1_sha256, enabled = excluded.enabled";

/// One thing to write, and who waits for it.
#[derive(Debug)]
pub(crate) enum Write {
    Records(Arc<Vec<CallRecord>>, oneshot::Sender<Result<Vec<Verdict>, Error>>),
    Subscriber(Box<Subscriber>, oneshot::Sender<Result<(), Error>>),
    Billing(Box<BillingChange>, oneshot::Sender<Result<Changed, Error>>),
}

/// Opens the database, brings it to the present layout, and starts the writer.
pub(crate) async fn open(
    config: &Config,
    signals: Signals,
) -> Result<(SqlitePool, mpsc::Sender<Write>, tokio::task::JoinHandle<()>), Error> {
    let options = options(config);
    let connection = connect(config).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(config.readers_max)
        .connect_with(options.clone().read_only(true))
        .await?;
    let (sender, receiver) = mpsc::channel(config.writes_queue_max);
    let writer = Writer { options, connection, receiver, batch_max: config.writes_per_commit_max, signals };
    Ok((readers, sender, tokio::spawn(writer.run())))
}

/// Whether there is a database.
pub(crate) fn exists(config: &Config) -> bool {
    config.directory.join(FILE).exists()
}

/// A connection that writes, to a database of the present layout.
pub(crate) async fn connect(config: &Config) -> Result<SqliteConnection, Error> {
    let mut connection = SqliteConnection::connect_with(&options(config).create_if_missing(true)).await?;
    sqlx::migrate!().run(&mut connection).await?;
    Ok(connection)
}

fn options(config: &Config) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(config.directory.join(FILE))
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(std::time::Duration::from_secs(5))
}

struct Writer {
    options: SqliteConnectOptions,
    connection: SqliteConnection,
    receiver: mpsc::Receiver<Write>,
    batch_max: usize,
    signals: Signals,
}

/// What became of a write whose commit went well.
#[derive(Debug)]
enum Done {
    Records(Vec<Verdict>),
    Subscriber(Result<(), Error>),
    Billing(Result<Changed, Error>),
}

/// Whether one refused statement ends the whole commit, or each stands alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statements {
    Together,
    Alone,
}

impl Writer {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(self.batch_max);
        while self.receiver.recv_many(&mut batch, self.batch_max).await > 0 {
            let start = Instant::now();
            let mut result = commit(&mut self.connection, &batch, Statements::Together).await;
            if result.as_ref().is_err_and(Error::is_of_statement) {
                // One bad statement must not cost the others: each gets a savepoint of its own.
                result = commit(&mut self.connection, &batch, Statements::Alone).await;
            }
            self.signals.commit_ended(start.elapsed(), result.as_ref().err());
            match result {
                Ok(done) => batch.drain(..).zip(done).for_each(|(write, done)| answer(write, Ok(done))),
                Err(error) => {
                    batch.drain(..).for_each(|write| answer(write, Err(error.clone())));
                    self.connect_again().await;
                }
            }
        }
        // Everything is committed; a close that fails leaves the write-ahead log for the next start.
        drop(self.connection.close().await);
    }

    /// A connection that failed may hold on to what is broken. A database that is not there is not made anew: it may
    /// come back.
    async fn connect_again(&mut self) {
        if let Ok(connection) = SqliteConnection::connect_with(&self.options).await {
            self.connection = connection;
        }
    }
}

/// Whoever no longer waits does not want to know.
fn answer(write: Write, result: Result<Done, Error>) {
    match (write, result) {
        (Write::Records(_, waiting), Ok(Done::Records(verdicts))) => drop(waiting.send(Ok(verdicts))),
        (Write::Subscriber(_, waiting), Ok(Done::Subscriber(result))) => drop(waiting.send(result)),
        (Write::Billing(_, waiting), Ok(Done::Billing(result))) => drop(waiting.send(result)),
        (Write::Billing(_, waiting), Err(error)) => drop(waiting.send(Err(error))),
        (Write::Records(_, waiting), Err(error)) => drop(waiting.send(Err(error))),
        (Write::Subscriber(_, waiting), Err(error)) => drop(waiting.send(Err(error))),
        // A commit answers in kind; without an answer, the write counts as failed.
        (_, Ok(_)) => {}
    }
}

async fn commit(
    connection: &mut SqliteConnection,
    batch: &[Write],
    statements: Statements,
) -> Result<Vec<Done>, Error> {
    // At once for writing: a balance is read before it is written, and other processes write too.
    let mut transaction = connection.begin_with("begin immediate").await?;
    let mut done = Vec::with_capacity(batch.len());
    for write in batch {
        done.push(match write {
            Write::Records(records, _) => {
                Done::Records(records::insert(&mut transaction, records, statements).await?)
            }
            Write::Subscriber(subscriber, _) if statements == Statements::Together => {
                put_subscriber(&mut transaction, subscriber).await?;
                Done::Subscriber(Ok(()))
            }
            Write::Subscriber(subscriber, _) => {
                let mut point = transaction.begin().await?;
                let put = put_subscriber(&mut point, subscriber).await;
                match put {
                    Ok(()) => point.commit().await?,
                    Err(_) => point.rollback().await?,
                }
                Done::Subscriber(put)
            }
            Write::Billing(change, _) => {
                let mut point = transaction.begin().await?;
                let changed = billing::change(&mut point, change).await;
                match changed {
                    Ok(_) => point.commit().await?,
                    Err(_) => point.rollback().await?,
                }
                Done::Billing(changed)
            }
        });
    }
    transaction.commit().await?;
    Ok(done)
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

/// SQLite counts in signed 64 bits, which hold nanoseconds until the year 2262.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A second hand on the database, past the state.
#[cfg(test)]
pub(crate) async fn connect_for_test(directory: &std::path::Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(directory.join(FILE));
    SqliteConnection::connect_with(&options).await.expect("the database is there")
}

#[cfg(test)]
pub(crate) async fn execute_for_test(directory: &std::path::Path, statement: &'static str) {
    let mut connection = connect_for_test(directory).await;
    sqlx::query(statement).execute(&mut connection).await.expect("a statement");
    connection.close().await.expect("closed");
}

#[cfg(test)]
pub(crate) async fn count_for_test(directory: &std::path::Path) -> i64 {
    let mut connection = connect_for_test(directory).await;
    sqlx::query_scalar("select count(*) from call_record").fetch_one(&mut connection).await.expect("counted")
}
