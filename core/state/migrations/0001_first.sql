-- Subscribers: who may register and call. HA1 only, never a password.
create table subscriber (
    domain text not null,
    user text not null,
    ha1_md5 text not null,
    ha1_sha256 text not null,
    enabled integer not null,
    primary key (domain, user)
) strict, without rowid;

-- One row per call. The key makes writing again harmless: a call is told once however often it is told.
create table call_record (
    id integer primary key,
    call_id text not null,
    from_tag text not null,
    to_tag text not null,
    epoch integer not null,
    trace_id text not null,
    start_unix_nanos integer not null,
    answer_unix_nanos integer,
    end_unix_nanos integer not null,
    caller text not null,
    callee text not null,
    region text not null,
    country text,
    transport text not null,
    status_code integer not null,
    outcome text not null,
    cause text not null,
    node text not null,
    unique (call_id, from_tag, to_tag, epoch)
) strict;

create index call_record_by_end on call_record (end_unix_nanos);
