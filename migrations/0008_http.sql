-- What the HTTP API keeps: tokens, and answers to requests that may come again. Rules are in sql/85 and 86.

create table divvy.api_token (
    id bigint generated always as identity primary key,
    name text collate "C" not null,
    hash text not null unique check (hash ~ '^[0-9a-f]{64}$'),   -- SHA-256 of the token, which is kept nowhere
    scopes text[] not null,
    created_by text not null default session_user,
    created_at timestamptz not null default divvy.clock(),
    expires_at timestamptz,
    revoked_at timestamptz,
    used_at timestamptz                                          -- to the minute
) with (fillfactor = 50);
create unique index api_token_name on divvy.api_token (name) where revoked_at is null;

create table divvy.kept_answer (
    holder text not null,                                        -- whose key it is
    key text not null,
    request text not null,                                       -- hash of the request
    status int,
    answer text,
    kept_until timestamptz not null,
    primary key (holder, key)
);
create index kept_answer_until_idx on divvy.kept_answer (kept_until);
