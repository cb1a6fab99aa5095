-- Large tasks. Their splits lie in stretches: a split that nobody has begun is no row, a claim takes a piece of a stretch and
-- writes one lease, and splits that end well together are one row (docs/adr/0011). Whoever wants anything else of
-- such a split writes it out first: then it is a row as any other.

-- Whether so many splits of a task lie in stretches.
create or replace function divvy.lies_in_stretches(p_count bigint) returns boolean
language sql immutable parallel safe as $$
    select p_count >= divvy.limit_of('stretch')
$$;

-- Whether a new row of a task would come behind rows of another, large one, whose splits failed and wait again: claims take rows in their order, while
-- tasks that lie in stretches take turns with these and with each other. Looks at the last rows alone, and at none that was deleted.
create or replace function divvy.comes_behind_a_large_task(t divvy.task) returns boolean
language plpgsql stable set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off as $$
declare
    v_lane constant smallint := 10 + t.priority;
begin
    return exists (
        select from (
            select distinct x.share_of from (select s.share_of, s.state from divvy.share s
                where s.task_type = t.task_type and s.lane = v_lane
                    and s.key > (select m.mark from divvy.lane m where m.task_type = t.task_type and m.lane = v_lane)
                order by s.key desc limit 20) x
            where x.state = 'ready' and x.share_of <> t.id) x,
            lateral (select from divvy.task k where k.id = x.share_of and divvy.lies_in_stretches(k.split_count) offset 0) k);
end $$;

-- Lays out p_count splits after number p_after. Four stretches for many, so that claims do not wait for one another; those of a type with
-- limits wait in any case.
create or replace function divvy.lay_out(k divvy.task, p_after int, p_count int, p_payloads jsonb[], p_rule jsonb, p_now timestamptz) returns void
language plpgsql as $$
declare
    v_stripes int := case when p_count < 1000 or exists (select from divvy.task_type t where t.name = k.task_type and t.limited) then 1 else 4 end;
    v_stripe int := coalesce((select max(s.stripe) from divvy.stretch s where s.share_of = k.id), 0);
    v_base bigint := case when p_count <= 256 then nextval('divvy.id_256') when p_count <= 4096 then nextval('divvy.id_4096')
        when p_count <= 65536 then nextval('divvy.id_65536') else nextval('divvy.id_1048576') end - p_after - 1;
begin
    insert into divvy.stretch (share_of, stripe, first_no, last_no, id_base, lane, due_at, task_type)
    select k.id, v_stripe + i, p_after + 1 + ((i - 1)::bigint * p_count / v_stripes)::int, p_after + (i::bigint * p_count / v_stripes)::int,
        v_base, 20 + k.priority, p_now, k.task_type
    from generate_series(1, v_stripes) i;
    if p_rule is not null then
        insert into divvy.given (share_of, first_no, last_no, rule) values (k.id, p_after + 1, p_after + p_count, p_rule);
        return;
    end if;
    -- A hundred in a row, or 64 KiB: what a small claim has to read of which it wants a part.
    insert into divvy.given (share_of, first_no, last_no, payloads)
    select k.id, p_after + min(n), p_after + max(n), array_agg(payload order by n)
    from (select n, payload, sum(coalesce(pg_column_size(payload), 0)) over (order by n) / 65536 as block
        from unnest(p_payloads) with ordinality as p (payload, n)) x
    group by (n - 1) / 100, block;
end $$;

-- The payload of a split by the rule of its task: an index, or a piece of a range.
create or replace function divvy.payload_by(p_rule jsonb, p_no int) returns jsonb
language sql stable parallel safe as $$
    select case when p_rule ? 'count' then jsonb_build_object('index', p_no - 1, 'count', p_rule -> 'count')
        else jsonb_build_object('lo', (p_rule ->> 'lo')::numeric + (p_no - 1) * (p_rule ->> 'size')::numeric,
            'hi', least((p_rule ->> 'lo')::numeric + p_no * (p_rule ->> 'size')::numeric, (p_rule ->> 'hi')::numeric)) end
$$;

-- The payloads of splits p_first to p_last of a task, in order; null where the task has none for them.
create or replace function divvy.payloads_of(p_task bigint, p_first int, p_last int) returns jsonb[]
language plpgsql stable cost 1 as $$
declare
    g divvy.given;
    v_payloads jsonb[] := '{}';
begin
    for g in select * from divvy.given x where x.share_of = p_task and x.first_no <= p_last
        and x.first_no >= (select y.first_no from divvy.given y where y.share_of = p_task and y.first_no <= p_first order by y.first_no desc limit 1)
        order by x.first_no
    loop
        if g.rule is not null then
            v_payloads := v_payloads || array(select divvy.payload_by(g.rule, n)
                from generate_series(greatest(p_first, g.first_no), least(p_last, g.last_no)) n);
        else
            v_payloads := v_payloads || g.payloads[greatest(p_first, g.first_no) - g.first_no + 1 : p_last - g.first_no + 1];
        end if;
    end loop;
    return v_payloads || array_fill(null::jsonb, array[greatest(p_last - p_first + 1 - cardinality(v_payloads), 0)]);
end $$;

create or replace function divvy.payload_of(p_task bigint, p_no int) returns jsonb
language sql stable cost 1 security definer set search_path = pg_catalog, pg_temp as 'select (divvy.payloads_of(p_task, p_no, p_no))[1]';

-- generate_series, of which the planner expects a few: a thousand for each row of a new table would turn its compiler (JIT) on.
create or replace function divvy.numbers(p_first int, p_last int) returns setof int
language sql volatile parallel safe rows 10 security definer set search_path = pg_catalog, pg_temp
as 'select generate_series(p_first, p_last)';

-- Takes splits of the stretches of a lane with p_from < key <= p_to. Tasks have equal parts, whatever their size: a stretch that
-- something was taken of gets a new key, behind all others. Locks only what it takes from.
create or replace function divvy.pick_stretches(t divvy.task_type, p_lane smallint, p_from bigint, p_to bigint, p_want int, p_room bigint)
returns divvy.part[] language plpgsql as $$
declare
    v_width constant int := 16;
    v_from constant bigint := p_from;
    v_parts divvy.part[] := '{}';
    v_lo bigint;
    v_hi bigint;
    v_last bigint := p_from;
    v_more boolean := true;
    p divvy.part;
    c record;
    s divvy.stretch;
begin
    while v_more and p_want > 0 and p_room > 0 loop
        v_more := false;
        p_from := v_last;
        for c in
            -- Where there are more tasks than it wants, it is the turn of those that have waited longest; among these the small ones come first, since
            -- what they leave of their part is the others'.
            select y.*, count(*) filter (where y.turn = 1) over (order by y.turn, y.size, y.key rows between current row and unbounded following) as tasks
            from (select x.*, row_number() over (partition by x.share_of order by x.key) as turn
                from (select z.ctid as place, z.share_of, z.key, z.last_no - z.first_no as size from divvy.stretch z
                    where z.task_type = t.name and z.lane = p_lane and z.key > p_from and z.key <= p_to and z.first_no <= z.last_no
                    order by z.key limit v_width) x
                order by turn, x.key limit p_want) y
            order by y.turn, y.size, y.key
        loop
            v_more := true;
            v_last := greatest(v_last, c.key);
            exit when p_want <= 0 or p_room <= 0;
            select * into s from divvy.stretch x where x.ctid = c.place and x.key = c.key and x.lane = p_lane for update skip locked;
            continue when not found;
            p := divvy.pick_stretch(t, s, least(s.last_no - s.first_no + 1, ceil(p_want::numeric / greatest(c.tasks, 1))::int), p_room);
            if p.split_ids is null then
                p_room := 0;
                exit;
            end if;
            update divvy.stretch x set first_no = x.first_no + cardinality(p.split_ids), key = nextval('divvy.key') where x.ctid = c.place;
            v_lo := least(v_lo, c.key);
            v_hi := greatest(v_hi, c.key);
            v_parts := v_parts || p;
            p_want := p_want - cardinality(p.split_ids);
            p_room := p_room - p.bytes;
        end loop;
    end loop;
    -- The next claim begins at what was passed over: a task that came first may have had its part by another stretch.
    v_hi := least(v_hi, (select z.key - 1 from divvy.stretch z
        where z.task_type = t.name and z.lane = p_lane and z.key > v_from and z.key < v_hi and z.first_no <= z.last_no order by z.key limit 1));
    for i in 1 .. cardinality(v_parts) loop
        v_parts[i].lo_key := least(v_lo, v_hi);
        v_parts[i].hi_key := v_hi;
    end loop;
    return v_parts;
end $$;

-- The next p_want splits of a stretch, as far as there is room for them. What is the same for all stands once in its column, of their
-- numbers the first, and payloads that a rule says are left to whoever unfolds the part.
create or replace function divvy.pick_stretch(t divvy.task_type, s divvy.stretch, p_want int, p_room bigint) returns divvy.part
language plpgsql as $$
declare
    k divvy.task;
    p divvy.part;
    v_last int := s.first_no + p_want - 1;
    v_payloads jsonb[];
    v_own bigint;
    n int := p_want;
begin
    select * into k from divvy.task x where x.id = s.share_of;
    v_own := divvy.answer_bytes(k.payload) + divvy.answer_bytes(k.headers);
    p.rule := divvy.rule_of(k.id, s.first_no, v_last);
    if p.rule is not null then
        -- Two numbers and their names are no longer than the rule.
        v_own := v_own + octet_length(p.rule::text) + 20;
        n := least(p_want, p_room / v_own);
        p.bytes := n * v_own;
        if n = 0 then
            return null;
        end if;
    else
        v_payloads := divvy.payloads_of(k.id, s.first_no, v_last);
        p.bytes := p_want * v_own + pg_column_size(v_payloads);
        -- None is compressed in an array; only where they are many bytes, or one is large, each is looked at.
        if p.bytes > p_room or (select max(pg_column_size(y)) from unnest(v_payloads) y) >= 3000 then
            select max(x.n), max(x.total) into n, p.bytes
            from (select y.n, sum(v_own + divvy.answer_bytes(y.payload)) over (rows unbounded preceding) as total
                from unnest(v_payloads) with ordinality as y (payload, n)) x
            where x.total <= p_room;
            if n is null then
                return null;
            end if;
            v_payloads := v_payloads[:n];
        end if;
        p.split_payloads := v_payloads;
    end if;
    p.task_type := t.name;
    p.lane := s.lane;
    p.due_at := s.due_at;
    p.split_nos := array[s.first_no];
    p.split_ids := array(select generate_series(s.id_base + s.first_no, s.id_base + s.first_no + n - 1));
    p.task_ids := array[k.id];
    p.phases := array['execute'];
    p.split_counts := array[coalesce(k.split_count, 1)];
    p.attempts := array[1];
    p.max_attempts := array[coalesce(k.max_attempts, t.max_attempts)];
    p.payloads := array[k.payload];
    p.checkpoints := array[null::jsonb];
    p.headers := array[k.headers];
    p.epochs := array[k.epoch];
    p.continuations := array[0];
    p.scheduled_for := array[k.scheduled_for];
    p.timeout := coalesce(k.timeout, t.timeout);
    p.timeouts := array[p.timeout];
    return p;
end $$;

-- The rule that says the payloads of all splits from p_first to p_last; null where there is none.
create or replace function divvy.rule_of(p_task bigint, p_first int, p_last int) returns jsonb
language plpgsql stable as $$
declare
    g divvy.given;
begin
    select * into g from divvy.given x where x.share_of = p_task and x.first_no <= p_first order by x.first_no desc limit 1;
    return case when g.last_no >= p_last then g.rule end;
end $$;
