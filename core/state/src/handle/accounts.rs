//! Accounts that pay in advance, for the core and for `belfry billing`.

use rust_decimal::Decimal;

use super::Ledger;
use crate::accounts::{Account, AccountChange, AccountsSnapshot, Movement, check_amount, check_text};
use crate::billing::BillingChange;
use crate::database;
use crate::error::Error;

impl Ledger {
    /// Opens an account; whether it is new.
    ///
    /// # Errors
    /// [`Error::BadAccount`] when it is there in another currency, or the name is none; or when the database refuses.
    pub async fn open_account(&self, name: &str, currency: &str) -> Result<bool, Error> {
        check_text("name", name)?;
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(Error::BadAccount(format!("{currency:?}: use a code of ISO 4217, as EUR")));
        }
        let change = AccountChange::Open { name: name.to_owned(), currency: currency.to_owned() };
        Ok(self.change(BillingChange::Account(change)).await? > 0)
    }

    /// Adds an amount to an account, or takes it off when it is less than nothing. The key says which top-up it is: with
    /// one that was used before nothing changes, and it is false.
    ///
    /// # Errors
    /// [`Error::BadAccount`] when there is no such account, the amount is none, or the key is that of another top-up; or
    /// when the database refuses.
    pub async fn credit_account(
        &self,
        name: &str,
        amount: Decimal,
        key: &str,
        note: Option<&str>,
    ) -> Result<bool, Error> {
        check_amount(amount)?;
        check_text("key", key)?;
        note.map_or(Ok(()), |note| check_text("note", note))?;
        let (name, key, note) = (name.to_owned(), key.to_owned(), note.map(str::to_owned));
        let change = AccountChange::Credit { name, amount, key, note };
        Ok(self.change(BillingChange::Account(change)).await? > 0)
    }

    /// Lets an account pay for nothing, or pay again; whether that changed anything. Calls that are up end with what
    /// they hold.
    ///
    /// # Errors
    /// [`Error::BadAccount`] when there is no such account; or when the database refuses.
    pub async fn block_account(&self, name: &str, is_blocked: bool) -> Result<bool, Error> {
        let change = AccountChange::Block { name: name.to_owned(), is_blocked };
        Ok(self.change(BillingChange::Account(change)).await? > 0)
    }

    /// An account.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn account(&self, name: &str) -> Result<Option<Account>, Error> {
        database::account(&self.readers, name).await
    }

    /// Accounts in the order of their names, after this one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn accounts(&self, after: &str, limit: u32) -> Result<Vec<Account>, Error> {
        database::accounts(&self.readers, after, limit).await
    }

    /// The names of all accounts.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn account_names(&self) -> Result<Vec<String>, Error> {
        database::account_names(&self.readers).await
    }

    /// The movements of an account, the latest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn movements_of(&self, name: &str, limit: u32) -> Result<Vec<Movement>, Error> {
        database::movements_of(&self.readers, name, limit).await
    }

    /// The movements of all accounts after this one, in their order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn movements_after(&self, id: i64, limit: u32) -> Result<Vec<Movement>, Error> {
        database::movements_after(&self.readers, id, limit).await
    }

    /// What a core must know before it lets calls in.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn accounts_snapshot(&self) -> Result<AccountsSnapshot, Error> {
        database::snapshot(&self.readers).await
    }
}

#[cfg(test)]
mod tests {
    use belfry_signal::Registry;
    use tempfile::TempDir;

    use super::*;
    use crate::Config;

    async fn ledger() -> (Ledger, TempDir) {
        let folder = TempDir::new().expect("a folder");
        let config = Config::for_test(folder.path());
        (Ledger::open(&config, &Registry::for_test()).await.expect("opens"), folder)
    }

    fn money(text: &str) -> Decimal {
        text.parse().expect("an amount")
    }

    #[tokio::test]
    async fn a_top_up_counts_once_for_its_key() {
        let (ledger, _folder) = ledger().await;
        assert!(ledger.open_account("a@x", "EUR").await.expect("opened"));
        assert!(!ledger.open_account("a@x", "EUR").await.expect("there"));
        let credit = async |amount: &str, key: &str| {
            ledger.credit_account("a@x", money(amount), key, Some("by hand")).await.map_err(|e| e.to_string())
        };
        assert_eq!(credit("0.1", "v1").await, Ok(true));
        assert_eq!(credit("0.2", "v2").await, Ok(true));
        assert_eq!(credit("0.1", "v1").await, Ok(false));
        assert!(credit("0.3", "v1").await.expect_err("another amount").contains("used for something else"));
        assert_eq!(credit("-0.05", "v3").await, Ok(true));
        let account = ledger.account("a@x").await.expect("readable").expect("there");
        assert_eq!(account.balance, money("0.25"), "exactly");
        let movements = ledger.movements_of("a@x", 10).await.expect("readable");
        let kinds: Vec<_> = movements.iter().map(|movement| movement.kind.as_str()).collect();
        assert_eq!(kinds, ["credit", "credit", "credit", "open"]);
        assert_eq!(movements.iter().map(|movement| movement.amount).sum::<Decimal>(), account.balance);
        let after = ledger.movements_after(movements[1].id, 10).await.expect("readable");
        assert_eq!(after, movements[..1]);
    }

    #[tokio::test]
    async fn what_cannot_be_is_refused_and_changes_nothing() {
        let (ledger, _folder) = ledger().await;
        ledger.open_account("a@x", "EUR").await.expect("opened");
        let text = |result: Result<bool, Error>| result.expect_err("refused").to_string();
        assert!(text(ledger.open_account("a@x", "GBP").await).contains("its currency is EUR"));
        assert!(text(ledger.open_account("b@x", "euro").await).contains("ISO 4217"));
        assert!(text(ledger.open_account("", "EUR").await).contains("name"));
        let credit = async |name: &str, amount: &str| {
            text(ledger.credit_account(name, money(amount), "v1", None).await)
        };
        assert!(credit("b@x", "1").await.contains("no such account"));
        assert!(credit("a@x", "0.0000000000001").await.contains("12 digits"));
        assert!(credit("a@x", "1000000000001").await.contains("at most"));
        assert!(text(ledger.block_account("b@x", true).await).contains("no such account"));
        assert!(ledger.block_account("a@x", true).await.expect("blocked"));
        assert!(!ledger.block_account("a@x", true).await.expect("was"));
        assert!(ledger.account("a@x").await.expect("readable").expect("there").is_blocked);
        assert!(ledger.block_account("a@x", false).await.expect("pays again"));
        let snapshot = ledger.accounts_snapshot().await.expect("readable");
        assert_eq!((snapshot.accounts.len(), snapshot.last_movement, snapshot.unrated.len()), (1, 3, 0));
        assert_eq!(ledger.account_names().await.expect("readable"), ["a@x"]);
    }

    /// Two processes write one database: each reads a balance before it writes it, and neither loses what the other
    /// wrote.
    #[tokio::test]
    async fn two_writers_lose_nothing() {
        let (one, folder) = ledger().await;
        let other =
            Ledger::open(&Config::for_test(folder.path()), &Registry::for_test()).await.expect("opens");
        one.open_account("a@x", "EUR").await.expect("opened");
        let book = async |ledger: &Ledger, who: &str| {
            for number in 0..50 {
                let key = format!("{who}-{number}");
                ledger.credit_account("a@x", money("0.01"), &key, None).await.expect("booked");
            }
        };
        tokio::join!(book(&one, "one"), book(&other, "other"));
        assert_eq!(one.account("a@x").await.expect("readable").expect("there").balance, money("1"));
    }
}
