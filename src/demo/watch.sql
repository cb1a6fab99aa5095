-- The execute splits of a task as the tables have them, and who holds or did them.
select split_no, status, attempt, worker_name as worker
from divvy.split_overview
where task_id = $1
  and phase = 'execute'
order by split_no
