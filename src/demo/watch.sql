-- The execute splits of a task as the tables have them, and who holds the running ones.
select split_overview.split_no, split_overview.status::text, split_overview.attempt, worker_overview.name as worker
from divvy.split_overview
left join divvy.worker_overview on worker_overview.worker = split_overview.worker
where split_overview.task_id = $1
  and split_overview.phase = 'execute'
order by split_overview.split_no
