-- A worker's tick that takes long goes on in the next call: with this duty.
alter table divvy.pulse add column small_tick_next int not null default 1;

-- Functions of the rules that have other arguments from here on.
drop function if exists divvy.choose(divvy.task_type, smallint, bigint, bigint, int, bigint, bigint[], bigint[], text[], text);
drop function if exists divvy.window_at(text, smallint, bigint, bigint, int, bigint[]);
drop function if exists divvy.front_of(text, smallint, bigint, int, int, boolean, bigint[]);
drop function if exists divvy.windows_of(text, smallint, bigint[], int, bigint[]);
drop function if exists divvy.groups_at(text, smallint, bigint, int, bigint[]);
drop function if exists divvy.take_chosen(divvy.task_type, smallint, bigint[], bigint, timestamptz);
drop function if exists divvy.any_after(text, smallint, bigint);
drop function if exists divvy.were_locked(text, smallint, bigint[]);
drop function if exists divvy.in_turn(bigint[], text[], int, text);
drop function if exists divvy.small_tick(timestamptz);
drop function if exists divvy.urgent_duties(int);
drop function if exists divvy.relabel(text);
