-- Once a minute somebody looks at what failed within the hour; attempts are kept as long as their tasks.
create index attempt_finished_idx on divvy.attempt (finished_at);
