-- Types whose handler is a URL: {"http": {"url": "https://…", "secret": "shop"}}, or the URL alone. divvy serve pushes their
-- splits there (docs/http-handlers.md). What the URL's name leads to is checked when it is dialled.

-- The handler as it is kept: lengths of time in seconds. What is none is left for the check to refuse.
create or replace function divvy.http_handler(p_http jsonb) returns jsonb
language plpgsql immutable as $$
declare
    v_http jsonb := p_http;
    v_path text[];
begin
    if jsonb_typeof(p_http) = 'string' then
        return jsonb_build_object('url', p_http);
    end if;
    if jsonb_typeof(p_http) is distinct from 'object' then
        return p_http;
    end if;
    foreach v_path slice 1 in array array[array['request_timeout', null], array['callback_timeout', null], array['breaker', 'open'], array['breaker', 'most']] loop
        v_path := array_remove(v_path, null);
        if jsonb_typeof(v_http #> v_path) = 'string' then
            v_http := jsonb_set(v_http, v_path, to_jsonb(divvy.seconds(v_http #> v_path)));
        end if;
    end loop;
    return jsonb_strip_nulls(v_http);
exception when data_exception then
    return p_http;
end $$;

-- Refuses what can't be pushed to, and who may not declare it. DV010.
create or replace function divvy.check_http_handler(p_handler jsonb, p_what text) returns void
language plpgsql as $$
declare
    v_http jsonb := p_handler -> 'http';
    v_name text;
begin
    if p_handler ?| array['sql', 'exec', 'worker'] then
        perform divvy.bad_option(p_what, 'handler.http and another handler: a type has one');
    end if;
    if jsonb_typeof(v_http) <> 'object' then
        perform divvy.bad_option(p_what, format('handler.http is %s; it is a URL, or {"url", …}', left(v_http::text, 100)));
    end if;
    perform divvy.check_keys(v_http, array['url', 'secret', 'headers', 'request_timeout', 'callback_timeout', 'breaker'], p_what || ': handler.http');
    perform divvy.check_url(v_http -> 'url', p_what);
    if v_http ? 'secret' then
        perform divvy.check_secret_of(v_http -> 'secret', 'handler.http.secret', p_what, true);
    end if;
    perform divvy.check_http_headers(v_http -> 'headers', p_what);
    foreach v_name in array array['request_timeout', 'callback_timeout'] loop
        perform divvy.check_span(v_http -> v_name, 'handler.http.' || v_name, p_what);
    end loop;
    perform divvy.check_http_breaker(v_http -> 'breaker', p_what);
    -- A worker's role may declare types too, when it registers: where this machine's requests go is no matter of its.
    if not pg_has_role(session_user, 'divvy_operator', 'member') and not pg_has_role(session_user, 'divvy_owner', 'member') then
        perform divvy.bad_option(p_what, format('%I is not a member of divvy_operator, which alone declares URLs', session_user));
    end if;
end $$;

-- Raises DV010 unless it is an http or https URL with a host, without user, password and fragment.
create or replace function divvy.check_url(p_url jsonb, p_what text) returns void
language plpgsql immutable as $$
declare
    v_url text := p_url #>> '{}';
begin
    if jsonb_typeof(p_url) is distinct from 'string' or v_url !~* '^https?://[^/?#]' then
        perform divvy.bad_option(p_what, format('handler.http.url is %s; it begins with http:// or https://',
            coalesce(left(p_url::text, 100), 'missing')));
    end if;
    if length(v_url) > 2000 then
        perform divvy.bad_option(p_what, format('handler.http.url has %s characters; 2000 are the most', length(v_url)));
    end if;
    -- The URL stands in the type for all who may look.
    if v_url ~* '^https?://[^/?#]*@' then
        perform divvy.bad_option(p_what, 'handler.http.url has a user or a password; put what is secret into handler.http.headers as {"secret": NAME}');
    end if;
    if v_url ~ '[#[:space:][:cntrl:]\\]' then
        perform divvy.bad_option(p_what, 'handler.http.url has a space, a backslash or a #');
    end if;
end $$;

-- Raises DV010 unless it names a secret that is there; p_signs: one that can sign.
create or replace function divvy.check_secret_of(p_name jsonb, p_option text, p_what text, p_signs boolean) returns void
language plpgsql as $$
declare
    v_value text;
begin
    select s.value into v_value from divvy.secret s where to_jsonb(s.name::text) = p_name and s.name <> 'callback' for share;
    if not found then
        perform divvy.bad_option(p_what, format('%s is %s; there is no such secret: `divvy secret create NAME` makes one', p_option, left(p_name::text, 120)));
    end if;
    if p_signs and v_value not like 'whsec\_%' then
        perform divvy.bad_option(p_what, format('%s: the secret %s can''t sign: its value does not begin with whsec_', p_option, p_name));
    end if;
end $$;

-- Raises DV010 on headers that are none, or that divvy or HTTP itself sets. A value is a text or {"secret": NAME}.
create or replace function divvy.check_http_headers(p_headers jsonb, p_what text) returns void
language plpgsql as $$
declare
    h record;
begin
    if p_headers is null then
        return;
    end if;
    if jsonb_typeof(p_headers) <> 'object' or (select count(*) from jsonb_object_keys(p_headers)) > 20 then
        perform divvy.bad_option(p_what, 'handler.http.headers is an object of at most 20 names and values');
    end if;
    for h in select * from jsonb_each(p_headers) e (name, value) order by 1 loop
        if h.name !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]{1,100}$' then
            perform divvy.bad_option(p_what, format('handler.http.headers: %L is no name of a header', left(h.name, 120)));
        end if;
        if lower(h.name) ~ '^(host|connection|content-.*|transfer-encoding|te|trailer|upgrade|keep-alive|expect|proxy-.*|webhook-.*|divvy-.*|traceparent|tracestate)$' then
            perform divvy.bad_option(p_what, format('handler.http.headers: %s is set by divvy itself, or by HTTP', h.name));
        end if;
        if jsonb_typeof(h.value) = 'object' then
            perform divvy.check_keys(h.value, array['secret'], format('%s: handler.http.headers.%s', p_what, h.name));
            perform divvy.check_secret_of(h.value -> 'secret', format('handler.http.headers.%s', h.name), p_what, false);
        elsif jsonb_typeof(h.value) <> 'string' or length(h.value #>> '{}') > 1000 or h.value #>> '{}' !~ '^[ -~]*$' then
            perform divvy.bad_option(p_what, format('handler.http.headers.%s is no text of at most 1000 printable ASCII characters, nor {"secret": NAME}', h.name));
        end if;
    end loop;
end $$;

-- Raises DV010 unless a length of time, in seconds or as an interval, is missing or 0.1 s to 31 days.
create or replace function divvy.check_span(p_value jsonb, p_option text, p_what text) returns void
language plpgsql immutable as $$
declare
    v_seconds double precision;
begin
    if p_value is null then
        return;
    end if;
    begin
        v_seconds := divvy.seconds(p_value);
    exception when data_exception then
        v_seconds := null;
    end;
    if coalesce(v_seconds, -1) not between 0.1 and extract(epoch from interval '31 days') then
        perform divvy.bad_option(p_what, format('%s is %s; it must be seconds or an interval, 0.1 s to 31 days', p_option, left(p_value::text, 100)));
    end if;
end $$;

-- {"failures": 5, "open": 30, "most": 600}, or false for none.
create or replace function divvy.check_http_breaker(p_breaker jsonb, p_what text) returns void
language plpgsql immutable as $$
declare
    v_failures jsonb := coalesce(p_breaker -> 'failures', '5');
    v_open double precision;
    v_most double precision;
begin
    if p_breaker is null or p_breaker = 'false' then
        return;
    end if;
    if jsonb_typeof(p_breaker) <> 'object' then
        perform divvy.bad_option(p_what, format('handler.http.breaker is %s; it is {"failures", "open", "most"}, or false', left(p_breaker::text, 100)));
    end if;
    perform divvy.check_keys(p_breaker, array['failures', 'open', 'most'], p_what || ': handler.http.breaker');
    if jsonb_typeof(v_failures) <> 'number' or v_failures::numeric not between 1 and 1000 or v_failures::numeric % 1 <> 0 then
        perform divvy.bad_option(p_what, format('handler.http.breaker.failures is %s; it must be 1 to 1000', left(v_failures::text, 100)));
    end if;
    perform divvy.check_span(p_breaker -> 'open', 'handler.http.breaker.open', p_what);
    perform divvy.check_span(p_breaker -> 'most', 'handler.http.breaker.most', p_what);
    v_open := coalesce(divvy.seconds(p_breaker -> 'open'), 30);
    v_most := coalesce(divvy.seconds(p_breaker -> 'most'), greatest(600, v_open));
    -- Every worker has heard of it by then.
    if v_open < 2 or v_most < v_open then
        perform divvy.bad_option(p_what, format('handler.http.breaker.open is %s s and most %s s; open must be at least 2 s, and most not less than open', v_open, v_most));
    end if;
end $$;

-- Where types with a URL are pushed to. Lengths of time are in seconds.
create or replace view divvy.http_type as
select t.name, t.handler #>> '{http,url}' as url, t.handler #>> '{http,secret}' as secret, coalesce(t.handler #> '{http,headers}', '{}') as headers,
    (t.handler #>> '{http,request_timeout}')::float8 as request_timeout,
    (t.handler #>> '{http,callback_timeout}')::float8 as callback_timeout,
    coalesce(t.handler #> '{http,breaker}', '{}') <> 'false' as has_breaker,
    coalesce((t.handler #>> '{http,breaker,failures}')::int, 5) as breaker_failures,
    coalesce((t.handler #>> '{http,breaker,open}')::float8, 30) as breaker_open,
    coalesce((t.handler #>> '{http,breaker,most}')::float8, greatest(600, (t.handler #>> '{http,breaker,open}')::float8)) as breaker_most,
    t.plan, t.reduce
from divvy.task_type t
where t.handler ? 'http';
