-- Groups that take turns beyond the window that a claim sees in front: a tenant that comes behind a flood of another's has its turn in the next
-- claim. A session remembers, lane by lane, up to where it has looked, and for a few groups where they wait: their spots. Hints, as
-- positions are: a rollback takes them back with the claim, and without them groups wait longer, and nothing worse.

-- divvy.choose for a lane from the position on, where groups take turns. p_spots is what the session remembers of the lane (null: nothing), p_again
-- whether it is time to look for what came to light late. ids and bytes are those of all parts.
create or replace function divvy.choose_in_turn(t divvy.task_type, p_lane smallint, p_from bigint, p_want int, p_room bigint, p_tokens bigint[],
    p_taken bigint[], p_picked text[], p_last text, p_spots jsonb, p_again boolean, p_now timestamptz,
    out parts divvy.part[], out ids bigint[], out bytes bigint, out go_on bigint, out last_group text, out spots jsonb)
language plpgsql as $$
declare
    v_window int := least(2000, greatest(64, 6 * p_want));
    v_looks constant int := 20;
    v_held_max constant int := 2000;
    v_held int := 0;
    v_again bigint;
    f record;
    s record;
    w record;
    d record;
    p divvy.part;
begin
    parts := '{}';
    ids := '{}';
    bytes := 0;
    spots := p_spots;
    for i in 1 .. v_looks loop
        f := divvy.front_of(t.name, p_lane, p_from, v_window, p_want, spots is not null, p_taken);
        s := divvy.look_ahead(t.name, p_lane, f.through, f.ended, array_replace(f.groups, null, ''), p_want, p_taken, p_again and i = 1, spots);
        w := divvy.windows_of(t.name, p_lane, s.froms, p_want, p_taken);
        exit when f.keys = '{}' and w.keys = '{}';
        d := divvy.decide(t, f.keys || w.keys, f.ids || w.ids, f.groups || w.groups, f.tasks || w.tasks, p_tokens, p_picked, p_want, p_last);
        v_held := v_held + case when d.beyond = '{}' then 0 else divvy.hold_back(d.beyond) end;
        -- Window by window, never across what lies between.
        for n in 0 .. cardinality(w.froms) loop
            exit when bytes >= p_room;
            if n = 0 then
                p := divvy.take_chosen(t, p_lane, divvy.keys_between(d.chosen, p_from, f.through), f.locked, p_room - bytes, p_now);
            else
                p := divvy.take_chosen(t, p_lane, divvy.keys_between(d.chosen, w.froms[n], w.throughs[n]), w.locked[n], p_room - bytes, p_now);
            end if;
            continue when p.split_ids is null;
            parts := parts || p;
            ids := ids || p.split_ids;
            bytes := bytes + p.bytes;
        end loop;
        last_group := d.last_group;
        -- The next claim meets again what was not chosen; and all of it, where somebody has one of them locked, or the answer is full.
        v_again := case when cardinality(ids) = cardinality(d.chosen) then d.first_left else least(d.first_left, d.chosen[1]) end;
        go_on := least(go_on, case when v_again <= f.through then v_again - 1 end);
        if not s.same or w.froms <> '{}' then
            select x.visited, x.throughs into s.visited, w.throughs from divvy.had_their_turn(s, w, d.chosen, d.beyond) x;
            spots := divvy.moved_on(s, w, f.through, ids || d.beyond);
        end if;
        if parts = '{}' and d.chosen <> '{}' then
            p_taken := p_taken || divvy.ids_of(d.chosen, f.keys || w.keys, f.ids || w.ids);     -- others have locked them all: what comes next?
            continue;
        end if;
        p_from := f.through;
        exit when parts <> '{}' or f.ended or v_held >= v_held_max;
        v_window := least(2000, 2 * v_window);
    end loop;
    go_on := coalesce(go_on, f.through);
end $$;

-- What is ready in front, up to p_max splits. Where it is thin, for others were served there before, a claim takes what spots show rather than to walk
-- over all of these again and again. ended: there is no more.
create or replace function divvy.front_of(p_type text, p_lane smallint, p_from bigint, p_max int, p_want int, p_spots boolean, p_taken bigint[],
    out keys bigint[], out ids bigint[], out groups text[], out tasks bigint[], out through bigint, out ended boolean, out locked boolean)
language plpgsql as $$
declare
    v_looks constant int := 20;
    w record;
begin
    through := p_from;
    locked := false;
    for i in 1 .. v_looks loop
        w := divvy.window_at(p_type, p_lane, through, 9223372036854775807, p_max - coalesce(cardinality(keys), 0), p_taken);
        keys := keys || w.keys;
        ids := ids || w.ids;
        groups := groups || w.groups;
        tasks := tasks || w.tasks;
        through := w.through;
        ended := w.ended;
        locked := locked or w.locked;
        exit when ended or cardinality(keys) >= least(p_want, p_max) or (p_spots and keys <> '{}');
        if keys = '{}' then
            through := divvy.first_ready(p_type, p_lane, w.through, 9223372036854775807) - 1;
            if through is null then
                through := w.through;
                ended := true;
                exit;
            end if;
        end if;
    end loop;
end $$;

-- The next entries of a lane with p_from < key <= p_to, in order, whatever became of their splits. Inlined. (The lanes of tasks and of shares differ,
-- so one of the two is empty. locked: somebody has locked the row since it was written, if only to pass it over.)
create or replace function divvy.entries(p_type text, p_lane smallint, p_from bigint, p_to bigint, p_max int)
returns table (key bigint, id bigint, share_of bigint, group_key text, ready boolean, locked boolean)
language sql stable as $$
    (select x.key, x.id, null::bigint, x.group_key, x.state = 'ready', x.xmax <> 0 from divvy.task x
    where x.task_type = p_type and x.lane = p_lane and x.key > p_from and x.key <= p_to order by x.key limit p_max)
    union all
    (select x.key, x.id, x.share_of, x.group_key, x.state = 'ready', x.xmax <> 0 from divvy.share x
    where x.task_type = p_type and x.lane = p_lane and x.key > p_from and x.key <= p_to order by x.key limit p_max)
$$;

-- Up to p_max ready splits between two keys that run by no lease, in order, as divvy.candidates; among a bounded number of entries, since those of
-- splits that have ended stay for long. through: up to where it has looked. ended: there is no more up to p_to.
create or replace function divvy.window_at(p_type text, p_lane smallint, p_from bigint, p_to bigint, p_max int, p_taken bigint[],
    out keys bigint[], out ids bigint[], out groups text[], out tasks bigint[], out through bigint, out ended boolean, out locked boolean)
language plpgsql as $$
declare
    v_scan constant int := greatest(1000, 2 * p_max);
begin
    select coalesce(array_agg(c.key), '{}'), coalesce(array_agg(c.id), '{}'), coalesce(array_agg(c.group_key), '{}'), coalesce(array_agg(c.share_of), '{}'), coalesce(bool_or(c.locked), false)
    into keys, ids, groups, tasks, locked
    from (select e.key, e.id, e.group_key, e.share_of, e.locked from divvy.entries(p_type, p_lane, p_from, p_to, v_scan) e
        where e.ready and e.id not in (select i from unnest(p_taken) i) limit p_max) c;
    through := keys[p_max];
    ended := false;
    if through is null then
        through := (select e.key from divvy.entries(p_type, p_lane, p_from, p_to, v_scan) e offset v_scan - 1 limit 1);
        ended := through is null;
        through := coalesce(through, keys[cardinality(keys)], p_from);
    end if;
end $$;

-- Which groups wait among the next p_max entries of a lane, each with its first and its last key. n: how many entries there were.
create or replace function divvy.groups_at(p_type text, p_lane smallint, p_from bigint, p_max int, p_taken bigint[],
    out groups text[], out firsts bigint[], out lasts bigint[], out through bigint, out n bigint)
language plpgsql as $$
begin
    select array_agg(g.grp) filter (where g.grp is not null), array_agg(g.first) filter (where g.grp is not null),
        array_agg(g.last) filter (where g.grp is not null), max(g.last), coalesce(sum(g.n), 0)
    into groups, firsts, lasts, through, n
    from (select case when c.waits then coalesce(c.group_key, '') collate "C" end as grp, min(c.key) as first, max(c.key) as last, count(*) as n
        from (select e.key, e.group_key, e.ready and e.id not in (select i from unnest(p_taken) i) as waits
            from divvy.entries(p_type, p_lane, p_from, 9223372036854775807, p_max) e) c
        group by 1) g;
end $$;

-- Goes on looking for groups beyond the front, and says where the claim should look for some of those that the front does not show (froms, of the
-- spots at visited, ascending). A spot says of a group: it waits nowhere between the front and this key (keys), and was seen last there
-- (lasts). Groups that the front shows have one, too: for the time when it shows them no more.
--
-- New ground is looked at in each claim, 2000 entries and then for as long as 5 ms, or until it shows a group that nobody else shows. Ground that was
-- looked at before gets at most a twentieth of the time: above the key that was verified then (something may have come to light late,
-- docs/adr/0003), where a group vanished that was seen further on, and where there were more groups than spots.
create or replace function divvy.look_ahead(p_type text, p_lane smallint, p_front bigint, p_ended boolean, p_shown text[], p_want int, p_taken bigint[],
    p_again boolean, p_spots jsonb,
    out groups text[], out keys bigint[], out lasts bigint[], out at bigint, out far bigint, out sure bigint, out wanted bigint,
    out may_again double precision, out done boolean, out same boolean, out visited int[], out froms bigint[])
language plpgsql as $$
declare
    v_entries constant int := 2000;
    v_visits constant int := greatest(4, least(16, p_want / 4));
    v_started constant double precision := extract(epoch from clock_timestamp());   -- real time: this bounds cost, it decides nothing
    v_step double precision := v_started;
    v_new int := 0;
    v_before bigint;
    b record;
    m record;
begin
    visited := '{}';
    froms := '{}';
    same := p_ended and p_spots is null;
    if p_ended then
        return;         -- the front shows the whole lane
    end if;
    groups := coalesce((p_spots ->> 'groups')::text[], '{}');
    keys := coalesce((p_spots ->> 'keys')::bigint[], '{}');
    lasts := coalesce((p_spots ->> 'lasts')::bigint[], '{}');
    at := greatest((p_spots ->> 'at')::bigint, p_front);
    far := greatest((p_spots ->> 'far')::bigint, at);
    sure := p_spots ->> 'sure';
    wanted := p_spots ->> 'wanted';
    may_again := coalesce((p_spots ->> 'may_again')::double precision, 0);
    done := coalesce((p_spots ->> 'done')::boolean, false);
    if sure is null or (done and v_started >= may_again and (p_again or wanted is not null)) then
        at := greatest(p_front, least(at, wanted, case when p_again then sure end));
        if p_again or sure is null then
            sure := (select w.verified_key from divvy.low_water w);
        end if;
        wanted := null;
    elsif done then
        same := not exists (select from divvy.entries(p_type, p_lane, at, 9223372036854775807, 1));
    end if;
    while not same loop
        v_before := at;
        b := divvy.groups_at(p_type, p_lane, at, v_entries, p_taken);
        done := b.n < v_entries;
        exit when b.n = 0;
        at := b.through;
        m := divvy.note_groups(groups, keys, lasts, b.groups, b.firsts, b.lasts, v_before, at, p_shown, p_front, v_visits);
        groups := m.groups;
        keys := m.keys;
        lasts := m.lasts;
        wanted := least(wanted, m.wanted);
        v_new := m.fresh;
        if v_before < far then
            may_again := greatest(may_again, v_started) + 20 * (extract(epoch from clock_timestamp()) - v_step);
        end if;
        far := greatest(far, at);
        v_step := extract(epoch from clock_timestamp());
        exit when done or m.found or v_step > v_started + 0.005;
    end loop;
    if groups <@ p_shown then
        return;
    end if;
    -- Those that are new, and of the others those that were not visited for longest; one, where the front shows as many groups as the claim can serve.
    select coalesce(array_agg(v.i order by v.key), '{}'), coalesce(array_agg(v.key order by v.key), '{}') into visited, froms
    from (select x.i, greatest(x.key, p_front) as key
        from unnest(groups, keys) with ordinality as x (grp, key, i)
        where not x.grp = any (p_shown)
        order by x.i <= cardinality(groups) - v_new, x.i
        limit greatest(1, least(v_visits, p_want - (select count(distinct y) from unnest(p_shown) y)))) v;
end $$;

-- Puts down which groups were seen where: in spots, of which there are 16 a lane. found: one that waits nowhere else, as far as is known. fresh: how many
-- spots are new, the last ones, of groups that the front does not show. wanted: from where on to look again, since there was no spot for a group.
create or replace function divvy.note_groups(inout groups text[], inout keys bigint[], inout lasts bigint[], p_groups text[], p_firsts bigint[], p_lasts bigint[],
    p_from bigint, p_through bigint, p_shown text[], p_front bigint, p_visits int, out found boolean, out fresh int, out wanted bigint)
language plpgsql as $$
declare
    v_spots constant int := 16;
    v_known int := 0;
    v_at int;
    v_out int;
    r record;
begin
    found := false;
    fresh := 0;
    for i in reverse cardinality(groups) .. 1 loop
        v_at := array_position(p_groups, groups[i]);
        if v_at is not null then
            v_known := v_known + 1;
            lasts[i] := greatest(lasts[i], p_lasts[v_at]);
        end if;
        if keys[i] >= p_from then
            keys[i] := greatest(keys[i], coalesce(p_firsts[v_at] - 1, p_through));
            found := found or (v_at is not null and not groups[i] = any (p_shown));
        end if;
        -- It is gone, or waits in front.
        if lasts[i] <= greatest(keys[i], p_front) then
            groups := groups[:i - 1] || groups[i + 1:];
            keys := keys[:i - 1] || keys[i + 1:];
            lasts := lasts[:i - 1] || lasts[i + 1:];
        end if;
    end loop;
    if v_known = coalesce(cardinality(p_groups), 0) then
        return;
    end if;
    for r in
        select x.grp, x.first, x.last, x.grp in (select y from unnest(p_shown) y) as shown from unnest(p_groups, p_firsts, p_lasts) as x (grp, first, last)
        where not x.grp = any (groups) order by shown, x.first desc limit v_spots + 1
    loop
        if cardinality(groups) >= v_spots then
            -- A group that the front shows can best do without, then the one that was visited first; it is found again when all was looked at.
            if r.shown or fresh >= p_visits then
                wanted := least(wanted, r.first - 1);
                continue;
            end if;
            v_out := coalesce((select min(y) from generate_subscripts(groups, 1) y where groups[y] = any (p_shown)), 1);
            wanted := least(wanted, greatest(keys[v_out], p_front));
            groups := groups[:v_out - 1] || groups[v_out + 1:];
            keys := keys[:v_out - 1] || keys[v_out + 1:];
            lasts := lasts[:v_out - 1] || lasts[v_out + 1:];
        end if;
        groups := case when r.shown then r.grp || groups else groups || r.grp end;
        keys := case when r.shown then (r.first - 1) || keys else keys || (r.first - 1) end;
        lasts := case when r.shown then r.last || lasts else lasts || r.last end;
        fresh := fresh + (not r.shown)::int;
        found := found or not r.shown;
    end loop;
    if cardinality(p_groups) - v_known > v_spots + 1 then
        wanted := least(wanted, p_from);
    end if;
end $$;

-- Small windows from these keys on, each up to the next.
create or replace function divvy.windows_of(p_type text, p_lane smallint, inout froms bigint[], p_want int, p_taken bigint[],
    out throughs bigint[], out keys bigint[], out ids bigint[], out groups text[], out tasks bigint[], out locked boolean[])
language plpgsql as $$
declare
    v_max constant int := least(2000, greatest(20, 2 * p_want / (cardinality(froms) + 1)));
    w record;
begin
    throughs := '{}';
    locked := '{}';
    keys := '{}';
    ids := '{}';
    groups := '{}';
    tasks := '{}';
    for n in 1 .. cardinality(froms) loop
        w := divvy.window_at(p_type, p_lane, froms[n], coalesce(froms[n + 1], 9223372036854775807), v_max, p_taken);
        throughs := throughs || case when w.ended then coalesce(froms[n + 1], w.through) else w.through end;
        keys := keys || w.keys;
        ids := ids || w.ids;
        groups := groups || w.groups;
        tasks := tasks || w.tasks;
        locked := locked || w.locked;
    end loop;
end $$;

-- Takes the splits with these keys, ascending. Under the type's lock no other claim is under way, so nobody looks for leases that came meanwhile: for those
-- of later keys it would walk over all that an old snapshot keeps. But soon after its options changed there may be claims that saw no limit; and one of
-- those that stayed open since has left its lock on each of its rows (p_locked).
create or replace function divvy.take_chosen(t divvy.task_type, p_lane smallint, p_keys bigint[], p_locked boolean, p_room bigint, p_now timestamptz) returns divvy.part
language plpgsql as $$
declare
    n constant int := cardinality(p_keys);
begin
    if n = 0 then
        return null;
    elsif t.updated_at > p_now - interval '10 min' or p_locked then
        return divvy.pick_lane(t, p_lane, p_keys[1] - 1, p_keys[n], n, p_room, true, p_keys);
    elsif p_lane < 10 then
        return divvy.pick_tasks(t, p_lane, p_keys[1] - 1, p_keys[n], n, p_room, false, p_keys);
    end if;
    return divvy.pick_shares(t, p_lane, p_keys[1] - 1, p_keys[n], n, p_room, false, p_keys);
end $$;

-- Of ascending keys those with p_from < key <= p_to.
create or replace function divvy.keys_between(p_keys bigint[], p_from bigint, p_to bigint) returns bigint[]
language plpgsql immutable parallel safe as $$
begin
    return array(select x from unnest(p_keys) x where x > p_from and x <= p_to);
end $$;

-- Of the visited spots those that had their turn, or show nothing that could have it. The others stay where they are, before those that had theirs: a claim of
-- one split would else pass over the same group each time its spot is visited, for another's turn came first.
create or replace function divvy.had_their_turn(s record, w record, p_chosen bigint[], p_beyond bigint[], out visited int[], out throughs bigint[])
language plpgsql as $$
begin
    visited := '{}';
    throughs := '{}';
    for n in 1 .. cardinality(s.visited) loop
        continue when not (select coalesce(bool_or(c.key = any (p_chosen)), true) from unnest(w.keys, w.ids, w.groups) as c (key, id, grp)
            where coalesce(c.grp, '') = s.groups[s.visited[n]] and not c.id = any (p_beyond));
        visited := visited || s.visited[n];
        throughs := throughs || w.throughs[n];
    end loop;
end $$;

-- What the session remembers after a claim that saw these windows (w) of these spots (s), and took or held back p_done: each visited spot is at what is left
-- of its group, and behind all others. Where nothing is left of one that was seen further on, it is time to look again.
create or replace function divvy.moved_on(s record, w record, p_front bigint, p_done bigint[]) returns jsonb
language plpgsql as $$
declare
    v_left text[];
    v_firsts bigint[];
    v_first bigint;
    v_at int;
begin
    if s.at is null then
        return null;
    end if;
    if s.visited <> '{}' then
        select array_agg(x.grp), array_agg(x.first) into v_left, v_firsts
        from (select coalesce(c.grp, '') as grp, min(c.key) as first from unnest(w.keys, w.ids, w.groups) as c (key, id, grp)
            where c.id not in (select y from unnest(p_done) y) group by 1) x;
        for n in 1 .. cardinality(s.visited) loop
            v_at := s.visited[n];
            v_first := v_firsts[array_position(v_left, s.groups[v_at])];
            s.keys[v_at] := coalesce(v_first - 1, w.throughs[n]);
            if v_first is null and w.throughs[n] < s.lasts[v_at] and w.throughs[n] < s.at then
                s.wanted := least(s.wanted, w.throughs[n]);
            end if;
        end loop;
        -- What ends here is forgotten.
        select array_agg(x.grp order by x.visited, x.i), array_agg(x.key order by x.visited, x.i), array_agg(x.last order by x.visited, x.i)
        into s.groups, s.keys, s.lasts
        from (select y.*, y.i = any (s.visited) as visited from unnest(s.groups, s.keys, s.lasts) with ordinality as y (grp, key, last, i)) x
        where x.last > greatest(x.key, p_front);
    end if;
    return jsonb_build_object('groups', s.groups::text, 'keys', s.keys::text, 'lasts', s.lasts::text, 'at', s.at, 'far', s.far, 'sure', s.sure,
        'wanted', s.wanted, 'may_again', s.may_again, 'done', s.done);
end $$;
