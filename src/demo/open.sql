-- Tasks of the demo that have not ended: those of a run that was interrupted.
select task_id
from divvy.task_overview
where task_type = $1
  and finished_at is null
