-- Tokens of the HTTP API: who may come in, and as whom decisions are recorded.
--
-- Only a token's SHA-256 is stored, and no role may read it. A slow hash with a salt would protect words that people think of;
-- a token is 256 random bits, which nobody finds by trying, so a fast hash gives nothing away and can be looked up.

-- Makes a token known by its hash. Returns its id. Scopes: producer, worker, reader, payloads (a reader of payloads and results), operator.
-- Errors: DV004 (a token that was not revoked has that name), DV010.
create or replace function divvy.create_token(name text, hash text, scopes text[], expires_at timestamptz default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_what text := format('token %s', left(name, 120));
    v_scope text;
    v_id bigint;
begin
    perform divvy.check_name(create_token.name, v_what);
    if create_token.hash is null or create_token.hash !~ '^[0-9a-f]{64}$' then
        perform divvy.bad_option(v_what, 'the hash is not a SHA-256 in hexadecimal');
    end if;
    if coalesce(cardinality(create_token.scopes), 0) = 0 then
        perform divvy.bad_option(v_what, 'it has no scope: give one or more of producer, worker, reader, payloads, operator');
    end if;
    foreach v_scope in array create_token.scopes loop
        if v_scope is null or v_scope not in ('producer', 'worker', 'reader', 'payloads', 'operator') then
            perform divvy.bad_option(v_what, format('scope %L is not known; known are producer, worker, reader, payloads, operator', left(v_scope, 100)));
        end if;
    end loop;
    perform divvy.check_moment(create_token.expires_at, 'expires_at', v_what);
    if create_token.expires_at <= divvy.clock() then
        perform divvy.bad_option(v_what, format('expires_at is %s, which has passed', create_token.expires_at));
    end if;
    insert into divvy.api_token (name, hash, scopes, expires_at)
    values (create_token.name, create_token.hash, create_token.scopes, create_token.expires_at)
    returning id into v_id;
    perform divvy.record('create_token', 'token', create_token.name, null, null,
        jsonb_build_object('scopes', create_token.scopes, 'expires_at', create_token.expires_at));
    return v_id;
exception when unique_violation then
    raise exception using errcode = 'DV004', message = format('%s: there is one of that name, or with that hash; revoke it first', v_what);
end $$;

-- Ends a token at once. Returns how long it was to be good (null: without end). Errors: DV011.
create or replace function divvy.revoke_token(name text, reason text default null) returns timestamptz
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_until timestamptz;
begin
    update divvy.api_token t set revoked_at = divvy.clock() where t.name = revoke_token.name and t.revoked_at is null
    returning t.expires_at into v_until;
    if not found then
        perform divvy.unknown('token', revoke_token.name);
    end if;
    perform divvy.record('revoke_token', 'token', revoke_token.name, revoke_token.reason, jsonb_build_object('expires_at', v_until), null);
    return v_until;
end $$;

-- Whose token it is, and what it may do: a row while it is good, none otherwise. Notes its use, once a minute.
create or replace function divvy.token_of(hash text) returns table (name text, scopes text[])
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    update divvy.api_token t set used_at = divvy.clock()
    where t.id = (select x.id from divvy.api_token x where x.hash = token_of.hash and coalesce(x.used_at < divvy.clock() - interval '1 min', true)
        and divvy.is_good(x) for update skip locked);
    return query select t.name::text, t.scopes from divvy.api_token t where t.hash = token_of.hash and divvy.is_good(t);
end $$;

create or replace function divvy.is_good(t divvy.api_token) returns boolean
language sql stable as $$
    select t.revoked_at is null and coalesce(t.expires_at > divvy.clock(), true)
$$;

-- Decisions of this transaction are the token's from here on. Returns its name; null when it is not good any more.
create or replace function divvy.act_as(hash text) returns text
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select t.name from divvy.api_token t, set_config('divvy.bearer', act_as.hash, true) where t.hash = act_as.hash and divvy.is_good(t)
$$;

-- Who decides: the token in whose name the transaction acts, else the role that logged in. Anybody may set the setting; it is believed
-- only where it is the hash of a good token, and hashes can be read by nobody.
create or replace function divvy.actor() returns text
language sql stable as $$
    select coalesce((select 'token ' || t.name from divvy.api_token t where t.hash = current_setting('divvy.bearer', true) and divvy.is_good(t)),
        session_user)
$$;

-- The tokens, without what they are known by.
create or replace view divvy.token_overview as
select t.name, t.scopes, t.created_by, t.created_at, t.expires_at, t.revoked_at, t.used_at, divvy.is_good(t) as good
from divvy.api_token t;
