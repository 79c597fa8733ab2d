//! Billing in SQL.

use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Connection, Row, SqliteConnection};

use super::records::read_record;
use super::{integer, natural};
use crate::billing::{BillingChange, Changed, Charge, ProfileDocument, Rating, RatingOutcome, Unrated};
use crate::error::Error;

/// A call is rated once, unless its rating was taken back.
const RATE: &str = "update call_record set rating = ?1, profile = ?2, profile_version = ?3, price = ?4, \
    currency = ?5, destination = ?6, charged_seconds = ?7, free_seconds = ?8, free_period = ?9 \
    where id = ?10 and rating is null";
const USE_FREE_SECONDS: &str = "insert into free_seconds_used (caller, profile, period, seconds) \
    values (?1, ?2, ?3, ?4) on conflict do update set seconds = seconds + excluded.seconds";
const GIVE_FREE_SECONDS_BACK: &str = "update free_seconds_used set seconds = seconds - (select \
    coalesce(sum(c.free_seconds), 0) from call_record c where c.caller = free_seconds_used.caller \
    and c.profile = free_seconds_used.profile and c.free_period = free_seconds_used.period \
    and c.end_unix_nanos >= ?1 and c.end_unix_nanos < ?2)";
const FORGET: &str = "update call_record set rating = null, profile = null, profile_version = null, price = null, \
    currency = null, destination = null, charged_seconds = null, free_seconds = null, free_period = null \
    where end_unix_nanos >= ?1 and end_unix_nanos < ?2 and rating is not null \
    and (account is null or rating = 'refused')";
const SET_ASIDE: &str = "update call_record set rating = ?1 where id = ?2 and rating is null";

/// Makes a change within a transaction.
pub(super) async fn change(
    connection: &mut SqliteConnection,
    change: &BillingChange,
) -> Result<Changed, Error> {
    match change {
        BillingChange::Rate(ratings) => {
            let mut changed = Changed::default();
            for rating in ratings {
                rate_alone(connection, rating, &mut changed).await?;
            }
            Ok(changed)
        }
        other => Ok(Changed::rows(change_rows(connection, other).await?)),
    }
}

/// One rating, which costs the others nothing when it is refused: its call is set aside then.
async fn rate_alone(
    connection: &mut SqliteConnection,
    rating: &Rating,
    changed: &mut Changed,
) -> Result<(), Error> {
    let mut point = connection.begin().await?;
    match rate(&mut point, rating).await {
        Ok(rated) => {
            changed.rows += rated;
            point.commit().await?;
        }
        Err(error) if error.is_of_one() => {
            point.rollback().await?;
            let outcome = RatingOutcome::Refused.as_str();
            let put = sqlx::query(SET_ASIDE).bind(outcome).bind(rating.id);
            changed.rows += put.execute(connection).await?.rows_affected();
            changed.refused.push((rating.id, error));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// How many rows a change is about.
async fn change_rows(connection: &mut SqliteConnection, change: &BillingChange) -> Result<u64, Error> {
    match change {
        BillingChange::Rate(_) => Ok(0),
        BillingChange::Forget { from_unix_nanos, to_unix_nanos } => {
            let (from, to) = (integer(*from_unix_nanos), integer(*to_unix_nanos));
            sqlx::query(GIVE_FREE_SECONDS_BACK).bind(from).bind(to).execute(&mut *connection).await?;
            Ok(sqlx::query(FORGET).bind(from).bind(to).execute(connection).await?.rows_affected())
        }
        BillingChange::Account(change) => super::accounts::change(connection, change).await,
        BillingChange::Profile(profile) => put_profile(connection, profile).await,
        BillingChange::Assign { address, profile: Some(profile) } => {
            let sql = "insert into billing_assignment (address, profile) values (?1, ?2) \
                on conflict do update set profile = excluded.profile";
            Ok(sqlx::query(sql).bind(address).bind(profile).execute(connection).await?.rows_affected())
        }
        BillingChange::Assign { address, profile: None } => {
            let sql = "delete from billing_assignment where address = ?1";
            Ok(sqlx::query(sql).bind(address).execute(connection).await?.rows_affected())
        }
    }
}

async fn rate(connection: &mut SqliteConnection, rating: &Rating) -> Result<u64, Error> {
    let charge = rating.charge.as_ref();
    let rated = sqlx::query(RATE)
        .bind(rating.outcome.as_str())
        .bind(charge.map(|charge| charge.profile.as_str()))
        .bind(charge.map(|charge| charge.profile_version))
        .bind(charge.map(|charge| charge.price.as_str()))
        .bind(charge.map(|charge| charge.currency.as_str()))
        .bind(charge.map(|charge| charge.destination.as_str()))
        .bind(charge.map(|charge| integer(charge.charged_seconds)))
        .bind(charge.map(|charge| integer(charge.free_seconds)))
        .bind(charge.and_then(|charge| charge.free_period.as_deref()))
        .bind(rating.id)
        .execute(&mut *connection)
        .await?
        .rows_affected();
    if let Some(debit) = rating.debit.as_ref().filter(|_| rated == 1) {
        super::accounts::charge(&mut *connection, debit).await?;
    }
    let used = charge.filter(|charge| rated == 1 && charge.free_seconds > 0);
    if let Some((charge, period)) = used.and_then(|charge| Some((charge, charge.free_period.as_deref()?))) {
        sqlx::query(USE_FREE_SECONDS)
            .bind(&rating.caller)
            .bind(&charge.profile)
            .bind(period)
            .bind(integer(charge.free_seconds))
            .execute(connection)
            .await?;
    }
    Ok(rated)
}

/// Keeps a version as it is: the same text again changes nothing, another text is refused.
async fn put_profile(connection: &mut SqliteConnection, profile: &ProfileDocument) -> Result<u64, Error> {
    let sql = "select document from billing_profile where name = ?1 and version = ?2";
    let known: Option<String> = sqlx::query_scalar(sql)
        .bind(&profile.name)
        .bind(profile.version)
        .fetch_optional(&mut *connection)
        .await?;
    match known {
        Some(document) if document == profile.document => Ok(0),
        Some(_) => Err(Error::ProfileChanged { name: profile.name.clone(), version: profile.version }),
        None => {
            let sql = "insert into billing_profile (name, version, document) values (?1, ?2, ?3)";
            let put = sqlx::query(sql).bind(&profile.name).bind(profile.version).bind(&profile.document);
            Ok(put.execute(connection).await?.rows_affected())
        }
    }
}

pub(crate) async fn unrated(pool: &SqlitePool, limit: u32) -> Result<Vec<Unrated>, Error> {
    let sql = "select * from call_record where rating is null order by id limit ?1";
    let rows = sqlx::query(sql).bind(limit).fetch_all(pool).await?;
    rows.iter().map(|row| Ok(Unrated { id: row.try_get("id")?, record: read_record(row)? })).collect()
}

pub(crate) async fn free_seconds_used(
    pool: &SqlitePool,
    caller: &str,
    profile: &str,
    period: &str,
) -> Result<u64, Error> {
    let sql = "select seconds from free_seconds_used where caller = ?1 and profile = ?2 and period = ?3";
    let used: Option<i64> =
        sqlx::query_scalar(sql).bind(caller).bind(profile).bind(period).fetch_optional(pool).await?;
    Ok(used.map_or(0, natural))
}

pub(crate) async fn profiles(pool: &SqlitePool) -> Result<Vec<ProfileDocument>, Error> {
    let sql = "select name, version, document from billing_profile order by name, version";
    let rows = sqlx::query(sql).fetch_all(pool).await?;
    let read = |row: &SqliteRow| {
        let (name, version) = (row.try_get("name")?, row.try_get("version")?);
        Ok(ProfileDocument { name, version, document: row.try_get("document")? })
    };
    rows.iter().map(read).collect()
}

pub(crate) async fn newest_profiles(pool: &SqlitePool) -> Result<Vec<(String, u32)>, Error> {
    let sql = "select name, max(version) as version from billing_profile group by name order by name";
    let rows = sqlx::query(sql).fetch_all(pool).await?;
    rows.iter().map(|row| Ok((row.try_get("name")?, row.try_get("version")?))).collect()
}

pub(crate) async fn profile(pool: &SqlitePool, name: &str, version: u32) -> Result<Option<String>, Error> {
    let sql = "select document from billing_profile where name = ?1 and version = ?2";
    Ok(sqlx::query_scalar(sql).bind(name).bind(version).fetch_optional(pool).await?)
}

pub(crate) async fn assignments(pool: &SqlitePool) -> Result<Vec<(String, String)>, Error> {
    let rows = sqlx::query("select address, profile from billing_assignment order by address")
        .fetch_all(pool)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("address")?, row.try_get("profile")?))).collect()
}

/// The price of a record, when it has one.
pub(super) fn read_charge(row: &SqliteRow) -> Result<Option<Charge>, Error> {
    let Some(price) = row.try_get::<Option<String>, _>("price")? else { return Ok(None) };
    Ok(Some(Charge {
        price,
        currency: row.try_get("currency")?,
        profile: row.try_get("profile")?,
        profile_version: row.try_get("profile_version")?,
        destination: row.try_get("destination")?,
        charged_seconds: natural(row.try_get("charged_seconds")?),
        free_seconds: natural(row.try_get("free_seconds")?),
        free_period: row.try_get("free_period")?,
    }))
}
