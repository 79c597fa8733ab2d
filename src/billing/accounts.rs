//! `belfry billing account`, `balance` and `credit`: accounts that pay in advance. A running Belfry sees a change after
//! one poll of its ledger.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use belfry_routing::rating::Decimal;
use belfry_state::{Account, Ledger, Movement};
use jiff::Timestamp;

use crate::cli::{AccountCommand, BillingCommand};
use crate::commands::say;
use crate::records::with_ledger;
use crate::slo_table::aligned;

/// Accounts that are read at a time.
const PAGE_ACCOUNTS: u32 = 1_000;

/// Does what is to be done with accounts.
///
/// # Errors
/// When the store cannot be used, or the account is not as the command takes it to be.
pub fn run(command: BillingCommand) -> anyhow::Result<ExitCode> {
    match command {
        BillingCommand::Account { command: AccountCommand::Open { name, currency, config } } => {
            with_ledger(&config, async |ledger| {
                let is_new = ledger.open_account(&name_of(&name), &currency).await.context(name.clone())?;
                say(if is_new { "opened" } else { "was there" });
                Ok(())
            })
        }
        BillingCommand::Account { command: AccountCommand::List(arguments) } => list(&arguments.config),
        BillingCommand::Account { command: AccountCommand::Block { name, config } } => {
            block(&name, true, &config)
        }
        BillingCommand::Account { command: AccountCommand::Unblock { name, config } } => {
            block(&name, false, &config)
        }
        BillingCommand::Balance { name, movements, config } => balance(&name, movements, &config),
        BillingCommand::Credit { name, amount, key, note, config } => {
            credit(&name, &amount, &key, note.as_deref(), &config)
        }
        BillingCommand::Import { .. }
        | BillingCommand::List(_)
        | BillingCommand::Assign { .. }
        | BillingCommand::Rate(_) => bail!("this is about profiles"),
    }
}

/// Addresses compare without case, as the core writes them.
fn name_of(name: &str) -> String {
    match name.split_once('@') {
        Some((user, domain)) => format!("{user}@{}", domain.to_ascii_lowercase()),
        None => name.to_owned(),
    }
}

fn list(config: &Path) -> anyhow::Result<ExitCode> {
    with_ledger(config, async |ledger| {
        let mut rows = vec![["ACCOUNT", "BALANCE", "STATE"].map(str::to_owned)];
        let mut after = String::new();
        loop {
            let page = ledger.accounts(&after, PAGE_ACCOUNTS).await.context("read the accounts")?;
            let Some(last) = page.last() else { break };
            after.clone_from(last.name.reveal());
            rows.extend(page.iter().map(row));
        }
        say(aligned(&rows).trim_end());
        Ok(())
    })
}

fn row(account: &Account) -> [String; 3] {
    let state = if account.is_blocked { "blocked" } else { "" };
    [account.name.reveal().clone(), money(account.balance, &account.currency), state.to_owned()]
}

fn block(name: &str, is_blocked: bool, config: &Path) -> anyhow::Result<ExitCode> {
    with_ledger(config, async |ledger| {
        let is_changed =
            ledger.block_account(&name_of(name), is_blocked).await.with_context(|| name.to_owned())?;
        say(match (is_blocked, is_changed) {
            (true, true) => "blocked",
            (true, false) => "was blocked",
            (false, true) => "pays again",
            (false, false) => "was not blocked",
        });
        Ok(())
    })
}

fn credit(
    name: &str,
    amount: &str,
    key: &str,
    note: Option<&str>,
    config: &Path,
) -> anyhow::Result<ExitCode> {
    let amount = Decimal::from_str_exact(amount)
        .map_err(|_| anyhow::anyhow!("{amount:?}: write an amount as 10.00"))?;
    let name = name_of(name);
    with_ledger(config, async |ledger| {
        let is_new = ledger.credit_account(&name, amount, key, note).await.with_context(|| name.clone())?;
        let account = known(&ledger, &name).await?;
        let balance = money(account.balance, &account.currency);
        say(&match is_new {
            true => format!("booked; the balance is {balance}"),
            false => format!("was booked before, nothing changed; the balance is {balance}"),
        });
        Ok(())
    })
}

fn balance(name: &str, movements: u32, config: &Path) -> anyhow::Result<ExitCode> {
    let name = name_of(name);
    with_ledger(config, async |ledger| {
        let account = known(&ledger, &name).await?;
        let state = if account.is_blocked { ", blocked" } else { "" };
        say(&format!("{}{state}", money(account.balance, &account.currency)));
        let movements = ledger.movements_of(&name, movements).await.context("read the movements")?;
        if !movements.is_empty() {
            let mut rows = vec![["TIME", "KIND", "AMOUNT", "BALANCE", "KEY", "NOTE"].map(str::to_owned)];
            rows.extend(movements.iter().map(movement_row));
            say(aligned(&rows).trim_end());
        }
        Ok(())
    })
}

async fn known(ledger: &Ledger, name: &str) -> anyhow::Result<Account> {
    let account = ledger.account(name).await.context("read the account")?;
    account.with_context(|| {
        format!("no account is called {name:?}; `belfry billing account list` shows them, `account open` opens one")
    })
}

fn movement_row(movement: &Movement) -> [String; 6] {
    let at = Timestamp::from_nanosecond(i128::from(movement.unix_nanos / 1_000_000_000 * 1_000_000_000));
    [
        at.map_or_else(|_| movement.unix_nanos.to_string(), |at| at.to_string()),
        movement.kind.clone(),
        movement.amount.to_string(),
        movement.balance_after.to_string(),
        movement.key.reveal().clone(),
        movement.note.clone().unwrap_or_default(),
    ]
}

fn money(amount: Decimal, currency: &str) -> String {
    format!("{amount} {currency}")
}
