//! Call records in SQL.

use std::collections::HashSet;
use std::sync::LazyLock;

use belfry_signal::Region;
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{Connection, Row, Sqlite, SqliteConnection};

use super::{Statements, integer, natural};
use crate::error::Error;
use crate::record::{CallRecord, Prepaid, RecordPage, RecordWhose};

/// A call is told once. Its start and its caller's tag name it among those of its Call-ID, whatever is known of the
/// callee's tag: a record made from a note after a crash must not stand beside one that came another way.
static INSERT: LazyLock<String> = LazyLock::new(|| {
    let row = (1..=COLUMNS).map(|column| format!("?{column}")).collect::<Vec<_>>().join(", ");
    format!(
        "insert into call_record ({NAMES}) select {row} where not exists \
         (select 1 from call_record where call_id = ?1 and from_tag = ?2 and epoch = ?4)"
    )
});

/// So many records are inserted by one statement.
const CHUNK: usize = 25;

static INSERT_CHUNK: LazyLock<String> = LazyLock::new(|| {
    let row = format!("({})", ["?"; COLUMNS].join(", "));
    let rows = vec![row; CHUNK].join(", ");
    format!(
        "insert into call_record ({NAMES}) select * from (values {rows}) as told where not exists (select 1 from \
         call_record where call_id = told.column1 and from_tag = told.column2 and epoch = told.column4)"
    )
});
const COLUMNS: usize = 25;
const NAMES: &str = "call_id, from_tag, to_tag, epoch, trace_id, start_unix_nanos, answer_unix_nanos, end_unix_nanos, \
    caller, callee, region, country, transport, status_code, outcome, cause, node, tenant, calling_trunk, \
    called_trunk, called_number, is_emergency, account, account_profile, account_profile_version";

type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// What the database said to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The call was not known; its record is in the database now.
    New,
    /// The call was told before; the first record stands.
    Known,
    /// Whatever the state of the database, it will not have this record; the number is SQLite's own.
    Refused(i64),
}

/// Inserts records within a transaction.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    records: &[CallRecord],
    statements: Statements,
) -> Result<Vec<Verdict>, Error> {
    let mut verdicts = Vec::with_capacity(records.len());
    if statements == Statements::Together {
        for chunk in records.chunks(CHUNK) {
            if chunk.len() == CHUNK && insert_chunk(connection, chunk).await? {
                verdicts.extend([Verdict::New; CHUNK]);
                continue;
            }
            for record in chunk {
                verdicts.push(insert_one(connection, record).await?);
            }
        }
        return Ok(verdicts);
    }
    for record in records {
        let mut point = connection.begin().await?;
        match insert_one(&mut point, record).await {
            Ok(verdict) => {
                point.commit().await?;
                verdicts.push(verdict);
            }
            Err(error) => {
                point.rollback().await?;
                verdicts.push(Verdict::Refused(error.statement_code().ok_or(error)?));
            }
        }
    }
    Ok(verdicts)
}

/// Inserts records that are nearly always all new, by one statement: each costs two ways between threads. When they are
/// not, nothing is inserted, and false comes back: then it has to be found out one by one which are.
async fn insert_chunk(connection: &mut SqliteConnection, records: &[CallRecord]) -> Result<bool, Error> {
    let mut known = HashSet::with_capacity(records.len());
    let key = |record: &CallRecord| (record.call_id.reveal().clone(), record.from_tag.clone(), record.epoch);
    // The statement looks at the table as it was before it.
    if !records.iter().all(|record| known.insert(key(record))) {
        return Ok(false);
    }
    let mut point = connection.begin().await?;
    let mut query = sqlx::query(INSERT_CHUNK.as_str());
    for record in records {
        query = bind(query, record);
    }
    let inserted = query.execute(&mut *point).await?.rows_affected();
    if inserted == records.len() as u64 {
        point.commit().await?;
        return Ok(true);
    }
    point.rollback().await?;
    Ok(false)
}

async fn insert_one(connection: &mut SqliteConnection, record: &CallRecord) -> Result<Verdict, Error> {
    let result = bind(sqlx::query(INSERT.as_str()), record).execute(connection).await?;
    Ok(if result.rows_affected() == 1 { Verdict::New } else { Verdict::Known })
}

fn bind<'q>(query: Query<'q>, record: &'q CallRecord) -> Query<'q> {
    query
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
        .bind(&record.tenant)
        .bind(&record.calling_trunk)
        .bind(&record.called_trunk)
        .bind(record.called_number.as_ref().map(|number| number.reveal()))
        .bind(record.is_emergency)
        .bind(record.prepaid.as_ref().map(|prepaid| prepaid.account.reveal()))
        .bind(record.prepaid.as_ref().map(|prepaid| prepaid.profile.as_str()))
        .bind(record.prepaid.as_ref().map(|prepaid| prepaid.profile_version))
}

pub(crate) async fn call_records(pool: &SqlitePool, limit: u32) -> Result<Vec<CallRecord>, Error> {
    let sql = "select * from call_record order by end_unix_nanos desc, id desc limit ?";
    let rows = sqlx::query(sql).bind(limit).fetch_all(pool).await?;
    rows.iter().map(read_record).collect()
}

/// By end and row, so that the place of a page is kept whatever is written meanwhile.
pub(crate) async fn record_page(
    pool: &SqlitePool,
    page: &RecordPage,
) -> Result<(Vec<CallRecord>, Option<RecordPage>), Error> {
    let sql = "select * from call_record where (end_unix_nanos, id) > (?1, ?2) and end_unix_nanos < ?3 \
        and (?5 is null or tenant = ?5) and (?6 is null or calling_trunk = ?6 or called_trunk = ?6) \
        and (?7 is null or cause = ?7) order by end_unix_nanos, id limit ?4";
    let RecordWhose { tenant, trunk, cause } = &page.whose;
    // The first row of a page is the one after this place: before any row of the first nanosecond.
    let rows = sqlx::query(sql)
        .bind(integer(page.from_unix_nanos))
        .bind(page.after_id)
        .bind(integer(page.to_unix_nanos))
        .bind(page.limit)
        .bind(tenant)
        .bind(trunk)
        .bind(cause)
        .fetch_all(pool)
        .await?;
    let records = rows.iter().map(read_record).collect::<Result<Vec<_>, _>>()?;
    let next = match rows.last().filter(|_| rows.len() as u64 == u64::from(page.limit)) {
        Some(last) => Some(RecordPage {
            from_unix_nanos: natural(last.try_get("end_unix_nanos")?),
            after_id: last.try_get("id")?,
            ..page.clone()
        }),
        None => None,
    };
    Ok((records, next))
}

fn read_prepaid(row: &SqliteRow) -> Result<Option<Prepaid>, Error> {
    let Some(account) = row.try_get::<Option<String>, _>("account")? else { return Ok(None) };
    let (profile, profile_version) =
        (row.try_get("account_profile")?, row.try_get("account_profile_version")?);
    Ok(Some(Prepaid { account: account.into(), profile, profile_version }))
}

pub(super) fn read_record(row: &SqliteRow) -> Result<CallRecord, Error> {
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
        tenant: row.try_get("tenant")?,
        calling_trunk: row.try_get("calling_trunk")?,
        called_trunk: row.try_get("called_trunk")?,
        called_number: row.try_get::<Option<String>, _>("called_number")?.map(Into::into),
        is_emergency: row.try_get("is_emergency")?,
        prepaid: read_prepaid(row)?,
        status_code: row.try_get("status_code")?,
        outcome: text("outcome")?.into(),
        cause: text("cause")?.into(),
        node: text("node")?,
        charge: super::billing::read_charge(row)?,
    })
}
