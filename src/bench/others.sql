-- What a run would disturb, and be disturbed by: one line for each.
select format('%s ready splits of type %s', t.ready, t.task_type) from divvy.type_stats t
where t.ready > 0 and t.task_type not like 'bench.%'
union all
select format('worker %s (%s) is alive', w.name, w.worker) from divvy.worker_overview w
where w.alive and w.name not like 'bench-%'
