-- What http handlers need: secrets, splits that wait for a callback, breakers. Rules are in sql/37, 38, 57 and 73.

-- Signing keys and values of headers. No role may read it but its owner; workers ask by name.
create table divvy.secret (
    name text collate "C" primary key,
    value text not null,
    previous text,                                    -- signs, too, until previous_until
    previous_until timestamptz,
    created_by text not null default session_user,
    created_at timestamptz not null default divvy.clock(),
    rotated_at timestamptz
);

-- What the tokens of callbacks are signed with: of two random uuids, which have 244 random bits.
insert into divvy.secret (name, value)
values ('callback', 'whsec_' || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64'));

-- A split that waits for its callback is held by a lease of its own, which nobody renews; the callback knows it by the token
-- of the claim before.
alter table divvy.lease add called_as bigint;

-- Types whose receivers do not answer: a row while the breaker is not closed.
create table divvy.breaker (
    task_type text collate "C" primary key,
    opened int not null,                              -- how many times in a row
    reason text not null,                             -- of the pause, by which it is known again
    paused_until timestamptz not null,
    probe_split bigint,                               -- the one split that tries, since half open
    probe_token bigint,
    probe_until timestamptz
) with (fillfactor = 50);
