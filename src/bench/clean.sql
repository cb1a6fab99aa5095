-- Removes what earlier runs left: everything of the types bench.*, and nothing else.
do $$
declare
    v_only_ours boolean;
begin
    perform set_config('lock_timeout', '10s', true);
    -- Nobody enqueues between the look and the truncate.
    lock table divvy.task, divvy.share in access exclusive mode;
    select not exists (select from divvy.unit u where u.task_type < 'bench.' or u.task_type >= 'bench/') into v_only_ours;
    if v_only_ours then
        -- Millions of rows in no time, and without dead ones.
        truncate divvy.task, divvy.share, divvy.stretch, divvy.given, divvy.ended, divvy.dropped, divvy.attempt, divvy.split_log, divvy.staged, divvy.fan_in, divvy.lease;
    else
        delete from divvy.attempt a using divvy.task k where a.task_id = k.id and k.task_type like 'bench.%';
        delete from divvy.share s where s.task_type like 'bench.%';
        delete from divvy.stretch s where s.task_type like 'bench.%';
        delete from divvy.given g using divvy.task k where g.share_of = k.id and k.task_type like 'bench.%';
        delete from divvy.ended e using divvy.task k where e.share_of = k.id and k.task_type like 'bench.%';
        delete from divvy.dropped d using divvy.task k where d.share_of = k.id and k.task_type like 'bench.%';
        delete from divvy.task k where k.task_type like 'bench.%';
        delete from divvy.lease l using divvy.worker w where w.id = l.worker and w.name like 'bench-%';
    end if;
    delete from divvy.worker w where w.name like 'bench-%';
    delete from divvy.lane l where l.task_type like 'bench.%';
    delete from divvy.type_wake k where k.task_type like 'bench.%';
    delete from divvy.task_type t where t.name like 'bench.%';
    delete from divvy.event e where e.object = 'type' and e.object_id like 'bench.%';
end $$;
drop schema if exists divvy_bench_floor cascade;
