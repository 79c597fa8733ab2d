//! Routes as rows: what was imported, and how often. What they mean is the routing crate's to say.

use belfry_signal::Registry;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Connection, Row, SqliteConnection};

use crate::config::Config;
use crate::database;
use crate::error::Error;
use crate::signals::Signals;

/// Everything that was imported about routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteRows {
    /// Counts imports.
    pub version: u64,
    /// Texts of the shape of `[core.routing]`, by name.
    pub documents: Vec<RouteDocument>,
    /// What trunks serve.
    pub prefixes: Vec<RoutePrefix>,
    /// Numbers that mean an address.
    pub aliases: Vec<RouteAlias>,
    /// Numbers that may not call or be called.
    pub blocks: Vec<RouteBlock>,
}

/// A text of the shape of `[core.routing]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteDocument {
    /// By which it is replaced.
    pub name: String,
    /// TOML.
    pub text: String,
    /// When it was imported, in nanoseconds since the Unix epoch.
    pub imported_unix_nanos: u64,
}

/// What a trunk serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePrefix {
    /// The trunk's name.
    pub trunk: String,
    /// The first digits of international numbers.
    pub prefix: String,
    /// What a minute costs, in millionths; without, the trunk does not serve the prefix.
    pub cost_millionths: Option<u64>,
    /// Instead of the trunk's.
    pub priority: Option<u16>,
    /// Instead of the trunk's.
    pub weight: Option<u16>,
}

/// A number that means an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteAlias {
    /// Whose phones dial it; everybody's when empty.
    pub tenant: String,
    /// The number.
    pub number: String,
    /// The address.
    pub address: String,
}

/// Numbers that may not call or be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteBlock {
    /// For whom; everybody when empty.
    pub tenant: String,
    /// `caller` or `called`.
    pub side: String,
    /// The first digits of international numbers.
    pub prefix: String,
    /// Whether they are let through although a shorter prefix is blocked.
    pub is_allowed: bool,
}

/// What an import brings. Rows with the key of one that is there replace it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteImport {
    /// A document; one of its name is replaced.
    Document(RouteDocument),
    /// Prefixes; when they replace, all others of their trunks go.
    Prefixes {
        /// The rows.
        rows: Vec<RoutePrefix>,
        /// Whether others go.
        replaces: bool,
    },
    /// Aliases; when they replace, all others go.
    Aliases {
        /// The rows.
        rows: Vec<RouteAlias>,
        /// Whether others go.
        replaces: bool,
    },
    /// Blocks; when they replace, all others go.
    Blocks {
        /// The rows.
        rows: Vec<RouteBlock>,
        /// Whether others go.
        replaces: bool,
    },
}

/// Writes an import into a store that a running core may be using; gives the new version. All of it or nothing.
///
/// # Errors
/// When the folder or the database cannot be used.
pub(crate) async fn import(config: &Config, registry: &Registry, import: &RouteImport) -> Result<u64, Error> {
    let mut connection = database::connect(config).await?;
    let began = std::time::Instant::now();
    let signals = Signals::register(registry);
    let result = write(&mut connection, import).await;
    signals.commit_ended(began.elapsed(), result.as_ref().err());
    drop(connection.close().await);
    result
}

async fn write(connection: &mut SqliteConnection, import: &RouteImport) -> Result<u64, Error> {
    let mut transaction = connection.begin().await?;
    match import {
        RouteImport::Document(document) => put_document(&mut transaction, document).await?,
        RouteImport::Prefixes { rows, replaces } => put_prefixes(&mut transaction, rows, *replaces).await?,
        RouteImport::Aliases { rows, replaces } => put_aliases(&mut transaction, rows, *replaces).await?,
        RouteImport::Blocks { rows, replaces } => put_blocks(&mut transaction, rows, *replaces).await?,
    }
    let version: i64 = sqlx::query_scalar("update route_version set version = version + 1 returning version")
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(natural(version))
}

async fn put_document(connection: &mut SqliteConnection, document: &RouteDocument) -> Result<(), Error> {
    let sql = "insert or replace into route_document (name, text, imported_unix_nanos) values (?, ?, ?)";
    sqlx::query(sql)
        .bind(&document.name)
        .bind(&document.text)
        .bind(i64::try_from(document.imported_unix_nanos).unwrap_or(i64::MAX))
        .execute(connection)
        .await?;
    Ok(())
}

async fn put_prefixes(
    connection: &mut SqliteConnection,
    rows: &[RoutePrefix],
    replaces: bool,
) -> Result<(), Error> {
    if replaces {
        let mut trunks: Vec<&str> = rows.iter().map(|row| row.trunk.as_str()).collect();
        trunks.sort_unstable();
        trunks.dedup();
        for trunk in trunks {
            sqlx::query("delete from route_prefix where trunk = ?")
                .bind(trunk)
                .execute(&mut *connection)
                .await?;
        }
    }
    let sql = "insert or replace into route_prefix (trunk, prefix, cost_millionths, priority, weight) \
        values (?, ?, ?, ?, ?)";
    for row in rows {
        sqlx::query(sql)
            .bind(&row.trunk)
            .bind(&row.prefix)
            .bind(row.cost_millionths.map(|cost| i64::try_from(cost).unwrap_or(i64::MAX)))
            .bind(row.priority)
            .bind(row.weight)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn put_aliases(
    connection: &mut SqliteConnection,
    rows: &[RouteAlias],
    replaces: bool,
) -> Result<(), Error> {
    if replaces {
        sqlx::query("delete from route_alias").execute(&mut *connection).await?;
    }
    let sql = "insert or replace into route_alias (tenant, number, address) values (?, ?, ?)";
    for row in rows {
        let query = sqlx::query(sql).bind(&row.tenant).bind(&row.number).bind(&row.address);
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

async fn put_blocks(
    connection: &mut SqliteConnection,
    rows: &[RouteBlock],
    replaces: bool,
) -> Result<(), Error> {
    if replaces {
        sqlx::query("delete from route_block").execute(&mut *connection).await?;
    }
    let sql = "insert or replace into route_block (tenant, side, prefix, is_allowed) values (?, ?, ?, ?)";
    for row in rows {
        let query = sqlx::query(sql).bind(&row.tenant).bind(&row.side).bind(&row.prefix).bind(row.is_allowed);
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// How often something was imported.
pub(crate) async fn version(pool: &SqlitePool) -> Result<u64, Error> {
    let version: i64 = sqlx::query_scalar("select version from route_version").fetch_one(pool).await?;
    Ok(natural(version))
}

/// Everything, as of one moment.
pub(crate) async fn rows(pool: &SqlitePool) -> Result<RouteRows, Error> {
    let mut transaction = pool.begin().await?;
    let version: i64 =
        sqlx::query_scalar("select version from route_version").fetch_one(&mut *transaction).await?;
    let documents = sqlx::query("select name, text, imported_unix_nanos from route_document order by name")
        .fetch_all(&mut *transaction)
        .await?;
    let prefixes = sqlx::query("select trunk, prefix, cost_millionths, priority, weight from route_prefix")
        .fetch_all(&mut *transaction)
        .await?;
    let aliases =
        sqlx::query("select tenant, number, address from route_alias").fetch_all(&mut *transaction).await?;
    let blocks = sqlx::query("select tenant, side, prefix, is_allowed from route_block")
        .fetch_all(&mut *transaction)
        .await?;
    transaction.rollback().await?;
    Ok(RouteRows {
        version: natural(version),
        documents: documents.iter().map(read_document).collect::<Result<_, _>>()?,
        prefixes: prefixes.iter().map(read_prefix).collect::<Result<_, _>>()?,
        aliases: aliases.iter().map(read_alias).collect::<Result<_, _>>()?,
        blocks: blocks.iter().map(read_block).collect::<Result<_, _>>()?,
    })
}

fn read_document(row: &SqliteRow) -> Result<RouteDocument, sqlx::Error> {
    let imported_unix_nanos = natural(row.try_get("imported_unix_nanos")?);
    Ok(RouteDocument { name: row.try_get("name")?, text: row.try_get("text")?, imported_unix_nanos })
}

fn read_prefix(row: &SqliteRow) -> Result<RoutePrefix, sqlx::Error> {
    Ok(RoutePrefix {
        trunk: row.try_get("trunk")?,
        prefix: row.try_get("prefix")?,
        cost_millionths: row.try_get::<Option<i64>, _>("cost_millionths")?.map(natural),
        priority: row.try_get("priority")?,
        weight: row.try_get("weight")?,
    })
}

fn read_alias(row: &SqliteRow) -> Result<RouteAlias, sqlx::Error> {
    Ok(RouteAlias {
        tenant: row.try_get("tenant")?,
        number: row.try_get("number")?,
        address: row.try_get("address")?,
    })
}

fn read_block(row: &SqliteRow) -> Result<RouteBlock, sqlx::Error> {
    Ok(RouteBlock {
        tenant: row.try_get("tenant")?,
        side: row.try_get("side")?,
        prefix: row.try_get("prefix")?,
        is_allowed: row.try_get("is_allowed")?,
    })
}

fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::State;

    fn prefix(trunk: &str, prefix: &str, cost: Option<u64>) -> RoutePrefix {
        RoutePrefix {
            trunk: trunk.into(),
            prefix: prefix.into(),
            cost_millionths: cost,
            priority: None,
            weight: Some(3),
        }
    }

    #[tokio::test]
    async fn what_is_imported_is_there_at_once_and_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = Config::for_test(folder.path());
        let state = State::open(config.clone(), &Registry::for_test()).await.expect("opens");
        assert_eq!(state.routes().await.expect("reads"), RouteRows::default());
        let import = async |import: RouteImport| {
            State::import_routes(&config, &Registry::for_test(), &import).await.expect("imports")
        };
        let document =
            RouteDocument { name: "base".into(), text: "# nothing".into(), imported_unix_nanos: 5 };
        assert_eq!(import(RouteImport::Document(document.clone())).await, 1);
        let rows = vec![prefix("a", "44", Some(12_500)), prefix("b", "44", None), prefix("a", "49", Some(1))];
        assert_eq!(import(RouteImport::Prefixes { rows, replaces: false }).await, 2);
        let rows = vec![prefix("a", "1", Some(7))];
        import(RouteImport::Prefixes { rows, replaces: true }).await;
        let alias = RouteAlias { tenant: String::new(), number: "+4420".into(), address: "alice@x".into() };
        import(RouteImport::Aliases { rows: vec![alias.clone()], replaces: true }).await;
        let block =
            RouteBlock { tenant: "t".into(), side: "called".into(), prefix: "88".into(), is_allowed: false };
        import(RouteImport::Blocks { rows: vec![block.clone()], replaces: false }).await;
        assert_eq!(state.routes_version().await.expect("reads"), 5);
        let read = state.routes().await.expect("reads");
        let expected = RouteRows {
            version: 5,
            documents: vec![document],
            prefixes: vec![prefix("a", "1", Some(7)), prefix("b", "44", None)],
            aliases: vec![alias],
            blocks: vec![block],
        };
        assert_eq!(read, expected);
    }
}
