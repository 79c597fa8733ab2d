-- Whose a call is, and what it was let in by.
alter table call_record add column tenant text;
alter table call_record add column calling_trunk text;
alter table call_record add column called_trunk text;
alter table call_record add column called_number text;
alter table call_record add column is_emergency integer not null default 0;
-- Who pays for it in advance, and by which version of which profile.
alter table call_record add column account text;
alter table call_record add column account_profile text;
alter table call_record add column account_profile_version integer;

create index call_record_unrated_prepaid on call_record (id) where rating is null and account is not null;

-- Accounts that pay in advance: `user@domain`, or the name of a tenant. The balance is the sum of the movements, as an
-- exact decimal, and is written in the transaction that adds one.
create table account (
    name text primary key,
    currency text not null,
    balance text not null,
    is_blocked integer not null default 0,
    opened_unix_nanos integer not null
) strict, without rowid;

-- What came and went. The key makes doing it again harmless: a call is charged once, and so is a top-up with its key.
create table account_movement (
    id integer primary key autoincrement,
    account text not null references account (name),
    kind text not null,
    amount text not null,
    balance_after text not null,
    key text not null unique,
    note text,
    unix_nanos integer not null
) strict;

create index account_movement_by_account on account_movement (account, id);
