-- What a call costs, once it is rated. Amounts are exact decimals as text. A record without a rating waits for one.
alter table call_record add column rating text;
alter table call_record add column profile text;
alter table call_record add column profile_version integer;
alter table call_record add column price text;
alter table call_record add column currency text;
alter table call_record add column destination text;
alter table call_record add column charged_seconds integer;
alter table call_record add column free_seconds integer;
alter table call_record add column free_period text;

create index call_record_unrated on call_record (id) where rating is null;

-- Billing profiles as they were written (TOML). A version never changes, so that a call can be rated by it again.
create table billing_profile (
    name text not null,
    version integer not null,
    document text not null,
    primary key (name, version)
) strict;

-- Who is billed by which profile: `user@domain`, or a whole `domain`.
create table billing_assignment (
    address text not null primary key,
    profile text not null
) strict, without rowid;

-- Free seconds that callers have used, by the first day of their period.
create table free_seconds_used (
    caller text not null,
    profile text not null,
    period text not null,
    seconds integer not null,
    primary key (caller, profile, period)
) strict, without rowid;
