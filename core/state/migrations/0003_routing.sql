-- Routes: documents of the shape of [core.routing], and tables too long for documents. Every import counts the version
-- up, so that running cores see it.
create table route_version (
    id integer primary key check (id = 1),
    version integer not null
) strict;

insert into route_version (id, version) values (1, 0);

create table route_document (
    name text primary key,
    text text not null,
    imported_unix_nanos integer not null
) strict, without rowid;

-- What trunks serve. Without a cost, the trunk does not serve the prefix. Costs are in millionths.
create table route_prefix (
    trunk text not null,
    prefix text not null,
    cost_millionths integer,
    priority integer,
    weight integer,
    primary key (trunk, prefix)
) strict, without rowid;

-- Numbers that mean an address; an empty tenant means everybody.
create table route_alias (
    tenant text not null,
    number text not null,
    address text not null,
    primary key (tenant, number)
) strict, without rowid;

-- Numbers that may not call or be called; an empty tenant means everybody.
create table route_block (
    tenant text not null,
    side text not null,
    prefix text not null,
    is_allowed integer not null,
    primary key (tenant, side, prefix)
) strict, without rowid;
