-- Marks: everything of a lane up to its mark is claimed or finished for good, so a claim need not look there
-- (docs/adr/0003). What a transaction that stays open may yet bring to light below a mark is looked for once it has ended
-- (docs/adr/0013).

-- Verifies keys: a key K is noted, with every transaction that writes splits just then; when all of them are gone, every key up to
-- K is visible to whoever looks from then on. Those that are still there after a second are late writers: keys count
-- as seen without them, and marks go on. Only the order of the statements makes this right. Returns 1 when there was something to do.
create or replace function divvy.advance_low_water() returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    v_patience constant double precision := 1;     -- seconds; real time, which bounds cost and decides nothing
    w divvy.low_water;
    v_key bigint;
    v_writers divvy.late_writer[];
    v_left divvy.late_writer[];
    v_verified bigint;
    v_done boolean;
begin
    if not pg_try_advisory_xact_lock(divvy.lock_of('low water')) then
        return 0;
    end if;
    select * into w from divvy.low_water;
    if w.server_start is distinct from pg_postmaster_start_time() then
        perform divvy.repair_keys(w.home);
        select * into w from divvy.low_water;
        w.noted_key := null;
    end if;
    v_verified := w.verified_key;
    select s.last_value - (not s.is_called)::int into v_key from divvy.key s;
    v_writers := array(select x from divvy.writers(w.seen_key) x);
    v_done := divvy.late_writers_gone(v_writers, w.seen_key);
    v_writers := array(select x from unnest(v_writers) x where not divvy.is_late(x));
    if w.noted_key is not null then
        -- A prepared transaction has no process, and may have another name than it had before.
        v_left := array(select x from unnest(v_writers) x where x.transaction = any (w.holders) or x.transaction = x.transactionid);
        if v_left <> '{}' and abs(extract(epoch from clock_timestamp() - w.noted_at)) >= v_patience then
            insert into divvy.late_writer select x.* from unnest(v_left) x;
            v_writers := array(select x from unnest(v_writers) x where not x = any (v_left));
            v_left := '{}';
        end if;
        if v_left = '{}' then
            w.seen_key := greatest(w.seen_key, w.noted_key);
            w.noted_key := null;
        end if;
    end if;
    if w.noted_key is null then
        w.noted_key := v_key;
        w.noted_at := clock_timestamp();
        w.holders := array(select x.transaction from unnest(v_writers) x);
        if w.holders = '{}' then
            w.seen_key := greatest(w.seen_key, v_key);
        end if;
    end if;
    w.verified_key := greatest(w.verified_key, least(w.seen_key, (select min(x.from_key) from divvy.late_writer x)));
    -- Nothing new: no version of a row that may have to stay.
    update divvy.low_water x set noted_key = w.noted_key, noted_at = w.noted_at, holders = w.holders, server_start = pg_postmaster_start_time(),
        home = divvy.home(), seen_key = w.seen_key, verified_key = w.verified_key
    where (x.noted_key, x.holders, x.server_start, x.seen_key, x.verified_key)
        is distinct from (w.noted_key, w.holders, pg_postmaster_start_time(), w.seen_key, w.verified_key);
    if w.seen_key > w.verified_key then
        perform divvy.raise_marks(t.name, w.seen_key) from divvy.task_type t;
    end if;
    v_done := divvy.sweep_on() or v_done;
    perform divvy.close_in();
    return (v_done or w.verified_key > v_verified)::int;
end $$;

-- Transactions that hold a lock they need to write splits, but for our own: as late writers with keys above p_key. pg_locks needs
-- no special right. A prepared one has no process, and may have another virtual id after a restart.
create or replace function divvy.writers(p_key bigint) returns setof divvy.late_writer
language sql volatile as $$
    with locks as materialized (select * from pg_locks l where l.granted and l.pid is distinct from pg_backend_pid())
    select distinct case when l.pid is null then x.id else l.virtualtransaction end, x.id, p_key
    from locks l left join lateral (
        -- The oldest: subtransactions have ids of their own.
        select y.transactionid::text as id from locks y
        where y.locktype = 'transactionid' and y.mode = 'ExclusiveLock' and y.virtualtransaction = l.virtualtransaction
            and y.pid is not distinct from l.pid
        order by age(y.transactionid) desc limit 1) x on true
    where l.locktype = 'relation' and l.mode = 'RowExclusiveLock'
        and l.database = (select d.oid from pg_database d where d.datname = current_database())
        and l.relation in ('divvy.unit'::regclass, 'divvy.task'::regclass, 'divvy.share'::regclass, 'divvy.stretch'::regclass)
$$;

create or replace function divvy.is_late(p_writer divvy.late_writer) returns boolean
language sql stable as $$
    select exists (select from divvy.late_writer x where x.transaction = p_writer.transaction
        or (p_writer.transaction = p_writer.transactionid and x.transactionid = p_writer.transactionid))
$$;

-- Late writers that have ended: what they may have written is to be looked through. One that was prepared since is late as before;
-- if nobody knew its id, it is taken for one of those that are gone. Returns whether there were any.
create or replace function divvy.late_writers_gone(p_writers divvy.late_writer[], p_seen bigint) returns boolean
language plpgsql as $$
declare
    v_first bigint;
begin
    update divvy.late_writer x set transactionid = y.transactionid
    from unnest(p_writers) y where y.transaction = x.transaction and x.transactionid is null and y.transactionid is not null;
    with gone as (
        delete from divvy.late_writer x
        where not exists (select from unnest(p_writers) y where y.transaction = x.transaction
            or (y.transaction = y.transactionid and y.transactionid = x.transactionid))
        returning x.from_key)
    select min(g.from_key) into v_first from gone g;
    if v_first is null then
        return false;
    end if;
    insert into divvy.late_writer
    select y.transaction, y.transactionid, v_first from unnest(p_writers) y where y.transaction = y.transactionid and not divvy.is_late(y);
    insert into divvy.sweep values (v_first, p_seen);
    return true;
end $$;

-- Looks through what late writers may have left below the marks, a window at a time and for a tenth of a second: a window
-- with something ready is noted, and claims look there too. Windows never overlap, so no claim meets a split twice. Only
-- whoever has the lock of the low water does this. Returns whether something is left.
create or replace function divvy.sweep_on() returns boolean
language plpgsql as $$
declare
    v_width constant bigint := 65536;
    v_until double precision := extract(epoch from clock_timestamp()) + 0.1;   -- real time: this bounds cost, it decides nothing
    v_end bigint;
    s divvy.sweep;
begin
    for s in select * from divvy.sweep x order by x.from_key loop
        while s.from_key < s.to_key and extract(epoch from clock_timestamp()) < v_until loop
            v_end := (s.from_key / v_width + 1) * v_width;
            insert into divvy.behind (task_type, lane, from_key, to_key)
            select x.task_type, x.lane, x.key - 1, v_end
            from (select l.task_type, l.lane, divvy.first_ready(l.task_type, l.lane, s.from_key, least(v_end, s.to_key, l.mark)) as key
                from divvy.lane l where l.mark > s.from_key) x
            where x.key is not null
            on conflict (task_type, lane, to_key) do update set from_key = least(behind.from_key, excluded.from_key);
            update divvy.sweep x set from_key = v_end where (x.from_key, x.to_key) = (s.from_key, s.to_key);
            s.from_key := v_end;
        end loop;
    end loop;
    delete from divvy.sweep x where x.from_key >= x.to_key;
    return exists (select from divvy.sweep);
end $$;

-- What was found below marks: windows begin at their first ready key, and go with their last. A plain look, as for marks.
create or replace function divvy.close_in() returns void
language plpgsql as $$
declare
    b divvy.behind;
    v_key bigint;
begin
    for b in select * from divvy.behind x order by x.task_type, x.lane, x.to_key loop
        v_key := divvy.first_ready(b.task_type, b.lane, b.from_key, b.to_key);
        if v_key is null then
            delete from divvy.behind x where (x.task_type, x.lane, x.to_key) = (b.task_type, b.lane, b.to_key);
        elsif v_key - 1 > b.from_key then
            update divvy.behind x set from_key = v_key - 1 where (x.task_type, x.lane, x.to_key) = (b.task_type, b.lane, b.to_key);
        end if;
    end loop;
end $$;

-- The lowest ready key of a lane with p_from < key <= p_to. Never SKIP LOCKED: a row whose claim is about to roll back is still ready.
create or replace function divvy.first_ready(p_type text, p_lane int, p_from bigint, p_to bigint) returns bigint
language plpgsql stable as $$
begin
    if p_lane > 20 then
        return (select s.key from divvy.stretch s
            where s.task_type = p_type and s.lane = p_lane and s.key > p_from and s.key <= p_to and s.first_no <= s.last_no
            order by s.key limit 1);
    elsif p_lane < 10 then
        return (select k.key from divvy.task k
            where k.task_type = p_type and k.lane = p_lane and k.key > p_from and k.key <= p_to and k.state = 'ready'
            order by k.key limit 1);
    end if;
    return (select s.key from divvy.share s
        where s.task_type = p_type and s.lane = p_lane and s.key > p_from and s.key <= p_to and s.state = 'ready'
        order by s.key limit 1);
end $$;

-- divvy.first_ready in pieces, the wider the less there is to walk over: stops after the one that ends past p_until (real time,
-- which bounds cost and decides nothing). ready: the lowest, null if there is none so far; reached: up to there nothing is.
create or replace function divvy.seek_ready(p_type text, p_lane int, p_from bigint, p_to bigint, p_until double precision,
    out ready bigint, out reached bigint)
language plpgsql as $$
declare
    v_width bigint := 4096;
    v_at double precision := extract(epoch from clock_timestamp());
    v_now double precision;
begin
    reached := p_from;
    while reached < p_to loop
        ready := divvy.first_ready(p_type, p_lane, reached, least(p_to, reached + v_width));
        reached := coalesce(ready - 1, least(p_to, reached + v_width));
        v_now := extract(epoch from clock_timestamp());
        exit when ready is not null or v_now >= p_until;
        v_width := case when v_now - v_at < 0.001 then 2 * v_width else 4096 end;
        v_at := v_now;
    end loop;
end $$;

-- Moves the marks of a type's lanes up to below their lowest ready key, as far as p_to (null: as keys are verified), or as they
-- come until p_until. A look starts at the old mark, so each stretch of keys is looked at once. What took less than p_worth seconds to
-- pass over is as good as passed: then no mark is written. Returns the marks, by divvy.lane_slot.
create or replace function divvy.raise_marks(p_type text, p_to bigint default null, p_worth double precision default 0.001,
    p_until double precision default 'infinity') returns bigint[]
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    v_to bigint := coalesce(p_to, (select w.verified_key from divvy.low_water w));
    v_started double precision := extract(epoch from clock_timestamp());   -- real time: this bounds cost, it decides nothing
    v_lanes smallint[];
    v_marks bigint[];
begin
    -- What an old snapshot sees is no proof.
    if current_setting('transaction_isolation') = 'read committed' then
        select array_agg(l.lane order by l.lane), array_agg(s.reached order by l.lane) into v_lanes, v_marks
        from divvy.lane l, lateral divvy.seek_ready(p_type, l.lane, l.mark, v_to, p_until) s
        where l.task_type = p_type and l.mark < v_to;
        if extract(epoch from clock_timestamp()) - v_started >= p_worth then
            update divvy.lane x set mark = v_marks[array_position(v_lanes, x.lane)]
            where x.task_type = p_type and x.mark < v_marks[array_position(v_lanes, x.lane)]
                and x.ctid = any (array(select y.ctid from divvy.lane y where y.task_type = p_type and y.lane = any (v_lanes) order by y.lane
                    for update skip locked));
        end if;
    end if;
    return array(select x.mark from divvy.lane x where x.task_type = p_type order by x.lane);
end $$;

-- Which server and database the sequences belong to.
create or replace function divvy.home() returns text
language sql stable as $$
    select s.system_identifier || '/' || d.oid from pg_control_system() s, pg_database d where d.datname = current_database()
$$;

-- After a server start: sequences behind everything there is. In another home (a restored dump or a logical fail-over may
-- carry no sequences) marks are not believed either: all keys there are are swept, and whoever writes just then is a late writer.
create or replace function divvy.repair_keys(p_home text) returns void
language plpgsql as $$
declare
    v_highest bigint;
begin
    select max(x.key) into v_highest from divvy.lane l, lateral (
        select (select k.key from divvy.task k where k.task_type = l.task_type and k.lane = l.lane
            order by k.key desc limit 1) as key
        union all
        select (select s.key from divvy.share s where s.task_type = l.task_type and s.lane = l.lane
            order by s.key desc limit 1)
        union all
        select (select s.key from divvy.stretch s where s.task_type = l.task_type and s.lane = l.lane and s.first_no <= s.last_no
            order by s.key desc limit 1)) x;
    perform setval('divvy.key', v_highest) from divvy.key s where s.last_value < v_highest;
    perform divvy.repair_ids();
    perform setval('divvy.token', m.token) from divvy.token s,
        (select greatest((select max(x.token) from divvy.lease x), (select max(a.token) from divvy.attempt a)) as token) m
    where s.last_value < m.token;
    if p_home <> divvy.home() then
        select s.last_value - (not s.is_called)::int into v_highest from divvy.key s;
        delete from divvy.late_writer;
        insert into divvy.late_writer select x.* from divvy.writers(0) x;
        delete from divvy.behind;
        delete from divvy.sweep;
        insert into divvy.sweep values (0, v_highest);
        update divvy.lane l set mark = v_highest;
        update divvy.low_water w set seen_key = v_highest, verified_key = case when exists (select from divvy.late_writer) then 0 else v_highest end;
    end if;
end $$;

-- Sequences of ids behind every id there is: those of rows, and the blocks of stretches.
create or replace function divvy.repair_ids() returns void
language plpgsql as $$
declare
    v_name text;
    v_highest bigint;
    q record;
begin
    select max(u.id) into v_highest from divvy.unit u where u.id < (select s.seqmin from pg_sequence s where s.seqrelid = 'divvy.id_256'::regclass);
    perform setval('divvy.id', v_highest) from divvy.id s where s.last_value < v_highest;
    foreach v_name in array '{divvy.id_256,divvy.id_4096,divvy.id_65536,divvy.id_1048576}'::text[] loop
        select s.seqmin, s.seqmax, s.seqincrement, pg_sequence_last_value(s.seqrelid) as last into q from pg_sequence s where s.seqrelid = v_name::regclass;
        select max(x.id) into v_highest from (
            select max(s.id) as id from divvy.share s where s.id between q.seqmin and q.seqmax
            union all
            select max(e.id_base + e.last_no) from divvy.ended e
            where int8range(e.id_base + e.first_no, e.id_base + e.last_no, '[]') && int8range(q.seqmin, q.seqmax)
            union all
            select max(s.id_base + s.last_no) from divvy.stretch s where s.id_base + s.last_no between q.seqmin and q.seqmax
            union all
            select max(d.id_base + d.last_no) from divvy.dropped d where d.id_base + d.last_no between q.seqmin and q.seqmax) x;
        v_highest := v_highest - (v_highest - q.seqmin) % q.seqincrement;
        if v_highest > coalesce(q.last, 0) then
            perform setval(v_name::regclass, v_highest);
        end if;
    end loop;
end $$;
