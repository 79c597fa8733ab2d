//! Accounts in SQL.

use belfry_signal::now_unix_nanos;
use rust_decimal::Decimal;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, SqliteConnection};

use super::records::read_record;
use super::{integer, natural};
use crate::accounts::{Account, AccountChange, AccountsSnapshot, Debit, Movement};
use crate::error::Error;

/// Accounts of one store: a core holds all of them in memory.
const ACCOUNTS_MAX: i64 = 1_000_000;

/// One line of the ledger to be.
struct Booking<'a> {
    account: &'a str,
    kind: &'static str,
    amount: Decimal,
    key: &'a str,
    note: Option<&'a str>,
}

/// Makes a change within a transaction; how many movements it added.
pub(super) async fn change(connection: &mut SqliteConnection, change: &AccountChange) -> Result<u64, Error> {
    match change {
        AccountChange::Open { name, currency } => {
            let count: i64 =
                sqlx::query_scalar("select count(*) from account").fetch_one(&mut *connection).await?;
            if count >= ACCOUNTS_MAX {
                return Err(Error::BadAccount(format!(
                    "there are {count} accounts, as many as there may be"
                )));
            }
            open(connection, name, currency).await
        }
        AccountChange::Credit { name, amount, key, note } => {
            let (account, key) = (name.as_str(), format!("credit:{key}"));
            let booking =
                Booking { account, kind: "credit", amount: *amount, key: &key, note: note.as_deref() };
            book(connection, booking).await
        }
        AccountChange::Block { name, is_blocked } => {
            let sql = "update account set is_blocked = ?1 where name = ?2 and is_blocked <> ?1";
            let update = sqlx::query(sql).bind(is_blocked).bind(name);
            if update.execute(&mut *connection).await?.rows_affected() == 0 {
                // So it is already, or there is none.
                return balance(connection, name).await.map(|_| 0);
            }
            let kind = if *is_blocked { "block" } else { "unblock" };
            let key = format!("{kind}:{name}:{}", now_unix_nanos());
            let booking = Booking { account: name, kind, amount: Decimal::ZERO, key: &key, note: None };
            book(connection, booking).await
        }
    }
}

/// Charges a call; one that was charged before changes nothing.
pub(super) async fn charge(connection: &mut SqliteConnection, debit: &Debit) -> Result<u64, Error> {
    // Nobody removes accounts; one that is not there any more owes what its calls cost.
    open(connection, &debit.account, &debit.currency).await?;
    let booking = Booking {
        account: &debit.account,
        kind: "charge",
        amount: -debit.amount,
        key: &debit.key,
        note: None,
    };
    book(connection, booking).await
}

async fn open(connection: &mut SqliteConnection, name: &str, currency: &str) -> Result<u64, Error> {
    let sql = "select currency from account where name = ?1";
    let known: Option<String> = sqlx::query_scalar(sql).bind(name).fetch_optional(&mut *connection).await?;
    match known {
        Some(known) if known == currency => return Ok(0),
        Some(known) => {
            return Err(Error::BadAccount(format!("the account is there, and its currency is {known}")));
        }
        None => {}
    }
    let sql = "insert into account (name, currency, balance, opened_unix_nanos) values (?1, ?2, '0', ?3)";
    let now = integer(now_unix_nanos());
    sqlx::query(sql).bind(name).bind(currency).bind(now).execute(&mut *connection).await?;
    let key = format!("open:{name}");
    let booking = Booking { account: name, kind: "open", amount: Decimal::ZERO, key: &key, note: None };
    book(connection, booking).await
}

/// Adds a movement and the balance after it. One whose key is there changes nothing, when it is the same.
async fn book(connection: &mut SqliteConnection, booking: Booking<'_>) -> Result<u64, Error> {
    let Booking { account, kind, amount, key, note } = booking;
    let sql = "select account, kind, amount from account_movement where key = ?1";
    if let Some(known) = sqlx::query(sql).bind(key).fetch_optional(&mut *connection).await? {
        let is_same = known.try_get::<String, _>("account")? == account
            && known.try_get::<String, _>("kind")? == kind
            && decimal(&known, "amount")? == amount;
        return if is_same {
            Ok(0)
        } else {
            Err(Error::BadAccount("this key was used for something else".to_owned()))
        };
    }
    let after = balance(connection, account)
        .await?
        .checked_add(amount)
        .ok_or_else(|| Error::BadAccount("the balance cannot be counted any more".to_owned()))?;
    let sql = "insert into account_movement (account, kind, amount, balance_after, key, note, unix_nanos) \
        values (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    sqlx::query(sql)
        .bind(account)
        .bind(kind)
        .bind(amount.to_string())
        .bind(after.to_string())
        .bind(key)
        .bind(note)
        .bind(integer(now_unix_nanos()))
        .execute(&mut *connection)
        .await?;
    let sql = "update account set balance = ?1 where name = ?2";
    sqlx::query(sql).bind(after.to_string()).bind(account).execute(connection).await?;
    Ok(1)
}

async fn balance(connection: &mut SqliteConnection, name: &str) -> Result<Decimal, Error> {
    let row = sqlx::query("select balance from account where name = ?1")
        .bind(name)
        .fetch_optional(connection)
        .await?;
    let row = row.ok_or_else(|| Error::BadAccount("there is no such account".to_owned()))?;
    decimal(&row, "balance")
}

pub(crate) async fn account(pool: &SqlitePool, name: &str) -> Result<Option<Account>, Error> {
    let row = sqlx::query("select * from account where name = ?1").bind(name).fetch_optional(pool).await?;
    row.as_ref().map(read_account).transpose()
}

/// Accounts in the order of their names, after this one.
pub(crate) async fn accounts(pool: &SqlitePool, after: &str, limit: u32) -> Result<Vec<Account>, Error> {
    let sql = "select * from account where name > ?1 order by name limit ?2";
    let rows = sqlx::query(sql).bind(after).bind(limit).fetch_all(pool).await?;
    rows.iter().map(read_account).collect()
}

/// The names of all accounts.
pub(crate) async fn account_names(pool: &SqlitePool) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar("select name from account").fetch_all(pool).await?)
}

/// The movements of an account, the latest first.
pub(crate) async fn movements_of(pool: &SqlitePool, name: &str, limit: u32) -> Result<Vec<Movement>, Error> {
    let sql = "select m.*, a.currency from account_movement m join account a on a.name = m.account \
        where m.account = ?1 order by m.id desc limit ?2";
    let rows = sqlx::query(sql).bind(name).bind(limit).fetch_all(pool).await?;
    rows.iter().map(read_movement).collect()
}

/// The movements of all accounts after this one, in their order.
pub(crate) async fn movements_after(pool: &SqlitePool, id: i64, limit: u32) -> Result<Vec<Movement>, Error> {
    let sql = "select m.*, a.currency from account_movement m join account a on a.name = m.account \
        where m.id > ?1 order by m.id limit ?2";
    let rows = sqlx::query(sql).bind(id).bind(limit).fetch_all(pool).await?;
    rows.iter().map(read_movement).collect()
}

/// Everything as of one moment.
pub(crate) async fn snapshot(pool: &SqlitePool) -> Result<AccountsSnapshot, Error> {
    let mut reading = pool.begin().await?;
    let sql = "select coalesce(max(id), 0) from account_movement";
    let last_movement: i64 = sqlx::query_scalar(sql).fetch_one(&mut *reading).await?;
    let rows = sqlx::query("select * from account").fetch_all(&mut *reading).await?;
    let accounts = rows.iter().map(read_account).collect::<Result<_, _>>()?;
    // As many as ended since rating last went on.
    let sql = "select * from call_record where rating is null and account is not null \
        and answer_unix_nanos is not null union all select * from call_record where rating = 'refused' \
        and account is not null and answer_unix_nanos is not null";
    let rows = sqlx::query(sql).fetch_all(&mut *reading).await?;
    let unrated = rows.iter().map(read_record).collect::<Result<_, _>>()?;
    reading.rollback().await?;
    Ok(AccountsSnapshot { accounts, last_movement, unrated })
}

fn read_account(row: &SqliteRow) -> Result<Account, Error> {
    Ok(Account {
        name: row.try_get::<String, _>("name")?.into(),
        currency: row.try_get("currency")?,
        balance: decimal(row, "balance")?,
        is_blocked: row.try_get("is_blocked")?,
        opened_unix_nanos: natural(row.try_get("opened_unix_nanos")?),
    })
}

fn read_movement(row: &SqliteRow) -> Result<Movement, Error> {
    Ok(Movement {
        id: row.try_get("id")?,
        account: row.try_get::<String, _>("account")?.into(),
        currency: row.try_get("currency")?,
        kind: row.try_get("kind")?,
        amount: decimal(row, "amount")?,
        balance_after: decimal(row, "balance_after")?,
        key: row.try_get::<String, _>("key")?.into(),
        note: row.try_get("note")?,
        unix_nanos: natural(row.try_get("unix_nanos")?),
    })
}

fn decimal(row: &SqliteRow, column: &str) -> Result<Decimal, Error> {
    let text: String = row.try_get(column)?;
    let read = Decimal::from_str_exact(&text);
    Ok(read.map_err(|error| sqlx::Error::Decode(Box::new(error)))?)
}
