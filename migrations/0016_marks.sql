-- Functions of the rules that have other arguments from here on.
drop function if exists divvy.raise_marks(text, bigint, double precision);
drop function if exists divvy.pick_stragglers(divvy.task_type, bigint[], bigint[], int, bigint, boolean);
