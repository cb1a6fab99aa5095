-- Secrets of http handlers: keys that sign, and values of headers. A type names them, so whoever reads the type reads no secret;
-- the table is its owner's alone, and workers ask for what they need by name. No event has a value.
--
-- One of them is divvy's own: `callback`, which signs the tokens of callbacks. It can be rotated like the others, and not dropped.

-- Makes a secret. Without a value it is a new signing key of 256 bits, as Standard Webhooks writes them. Returns the value.
-- Errors: DV004 (there is one of that name), DV010.
create or replace function divvy.create_secret(name text, value text default null) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_what text := format('secret %s', left(name, 120));
    v_value text := coalesce(create_secret.value, divvy.new_signing_key());
begin
    perform divvy.check_name(create_secret.name, v_what);
    perform divvy.check_secret_value(v_value, v_what);
    insert into divvy.secret (name, value) values (create_secret.name, v_value) on conflict do nothing;
    if not found then
        raise exception using errcode = 'DV004', message = format('%s is there already; rotate it, or drop it first', v_what);
    end if;
    perform divvy.record('create_secret', 'secret', create_secret.name, null, null, null);
    return v_value;
end $$;

-- Gives a secret another value. What was signed with the one before is signed with both for so long (default: 24 hours; 0: at once
-- with the new one alone). Returns the value. Errors: DV010, DV011. Locks: the secret.
create or replace function divvy.rotate_secret(name text, value text default null, keep interval default '24 hours') returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_what text := format('secret %s', left(name, 120));
    v_value text := coalesce(rotate_secret.value, divvy.new_signing_key());
    v_before text;
begin
    perform divvy.check_interval(keep, 'keep', v_what, true);
    perform divvy.check_secret_value(v_value, v_what);
    select s.value into v_before from divvy.secret s where s.name = rotate_secret.name for update;
    if not found then
        perform divvy.unknown('secret', rotate_secret.name);
    end if;
    if v_before like 'whsec\_%' and v_value not like 'whsec\_%' then
        perform divvy.bad_option(v_what, 'it signs, so its value must begin with whsec_');
    end if;
    update divvy.secret s set value = v_value, previous = v_before, previous_until = divvy.clock() + coalesce(rotate_secret.keep, '24 hours'),
        rotated_at = divvy.clock()
    where s.name = rotate_secret.name;
    perform divvy.record('rotate_secret', 'secret', rotate_secret.name, null, null, jsonb_build_object('keep', coalesce(rotate_secret.keep, '24 hours')));
    return v_value;
end $$;

-- Forgets a secret. Errors: DV004 (a type uses it; divvy itself does), DV011. Locks: the secret.
create or replace function divvy.drop_secret(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_type text;
begin
    perform from divvy.secret s where s.name = drop_secret.name for update;
    if not found then
        perform divvy.unknown('secret', drop_secret.name);
    end if;
    if drop_secret.name = 'callback' then
        raise exception using errcode = 'DV004', message = 'secret callback signs the tokens of callbacks: it can be rotated, not dropped';
    end if;
    select t.name into v_type from divvy.task_type t where drop_secret.name = any (divvy.secrets_of(t.handler)) order by t.name limit 1;
    if found then
        raise exception using errcode = 'DV004', message = format('secret %s: type %s uses it', drop_secret.name, v_type);
    end if;
    delete from divvy.secret s where s.name = drop_secret.name;
    perform divvy.record('drop_secret', 'secret', drop_secret.name, null, null, null);
end $$;

-- The names of the secrets that a handler uses.
create or replace function divvy.secrets_of(p_handler jsonb) returns text[]
language sql immutable parallel safe as $$
    select array(select p_handler #>> '{http,secret}' where p_handler #> '{http,secret}' is not null
        union select v ->> 'secret' from jsonb_each(coalesce(p_handler #> '{http,headers}', '{}')) h (k, v) where jsonb_typeof(v) = 'object')
$$;

-- The values of secrets, with the one before while it still signs. For workers that push; secrets that are not there are left out.
create or replace function divvy.secret_values(names text[]) returns table (name text, value text, previous text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select s.name::text, s.value, case when s.previous_until > divvy.clock() then s.previous end
    from divvy.secret s where s.name = any (secret_values.names) order by s.name
$$;

-- A key of 256 bits, of two random uuids, which have 244 random bits.
create or replace function divvy.new_signing_key() returns text
language sql volatile as $$
    select 'whsec_' || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64')
$$;

-- Raises DV010 on a value that can neither sign nor stand in a header. The message never has the value.
create or replace function divvy.check_secret_value(p_value text, p_what text) returns void
language plpgsql immutable as $$
declare
    v_bytes int;
begin
    if length(p_value) > 1000 or p_value !~ '^[!-~]([ -~]*[!-~])?$' then
        perform divvy.bad_option(p_what, 'its value is not 1 to 1000 printable ASCII characters without spaces at the ends');
    end if;
    if p_value like 'whsec\_%' then
        begin
            v_bytes := octet_length(decode(substr(p_value, 7), 'base64'));
        exception when data_exception then
            v_bytes := 0;
        end;
        if v_bytes not between 24 and 64 then
            perform divvy.bad_option(p_what, 'its value begins with whsec_ and goes on with no base64 of 24 to 64 bytes');
        end if;
    end if;
end $$;

-- The secrets without their values, and the types that use them.
create or replace view divvy.secret_overview as
select s.name, s.value like 'whsec\_%' as signs, s.created_by, s.created_at, s.rotated_at,
    case when s.previous_until > divvy.clock() then s.previous_until end as previous_until,
    array(select t.name::text from divvy.task_type t where s.name = any (divvy.secrets_of(t.handler)) order by t.name) as used_by
from divvy.secret s;
