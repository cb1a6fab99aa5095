-- Types whose handler is a command: {"exec": {"command": "thumb.sh --size 200", "lines": false}}, or the command alone.
-- A worker runs it only if whoever started that worker allowed a folder, and only if the program is in there.

-- The handler as it is kept.
create or replace function divvy.exec_handler(p_exec jsonb) returns jsonb
language sql immutable parallel safe as $$
    select case jsonb_typeof(p_exec) when 'string' then jsonb_build_object('command', p_exec) else p_exec end
$$;

-- Refuses what is no command, and who may not declare one. DV010.
create or replace function divvy.check_exec_handler(p_exec jsonb, p_what text) returns void
language plpgsql as $$
begin
    if jsonb_typeof(p_exec) <> 'object' then
        perform divvy.bad_option(p_what, format('handler.exec is %s; it is a command, or {"command", "lines"}', p_exec));
    end if;
    perform divvy.check_keys(p_exec, array['command', 'lines'], p_what || ': handler.exec');
    if jsonb_typeof(p_exec -> 'command') is distinct from 'string' or btrim(p_exec ->> 'command') = '' then
        perform divvy.bad_option(p_what, 'handler.exec needs a command, a text that is not empty');
    end if;
    if length(p_exec ->> 'command') > 4096 then
        perform divvy.bad_option(p_what, format('handler.exec.command has %s characters; 4096 are the most', length(p_exec ->> 'command')));
    end if;
    if jsonb_typeof(coalesce(p_exec -> 'lines', 'false')) <> 'boolean' then
        perform divvy.bad_option(p_what, format('handler.exec.lines is %s; it is true or false', p_exec -> 'lines'));
    end if;
    -- A worker's role may declare types too, when it registers: what runs on other machines is no matter of its.
    if not pg_has_role(session_user, 'divvy_operator', 'member') and not pg_has_role(session_user, 'divvy_owner', 'member') then
        perform divvy.bad_option(p_what, format('%I is not a member of divvy_operator, which alone declares commands', session_user));
    end if;
end $$;
