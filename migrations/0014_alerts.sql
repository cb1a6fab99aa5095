-- Once a minute somebody looks at what failed within the hour; attempts are kept as long as their tasks.
create index attempt_finished_idx on divvy.attempt (finished_at);

-- Functions of the rules that there are no more.
drop function if exists divvy.round_from_anywhere(int);
drop function if exists divvy.types_with_work(text[]);
