-- Large tasks of types with limits lie in stretches, too. Of those whose claims choose, a stretch of whose task or group as many run as may is
-- put aside (sql/49_aside.sql): its lane is negative then, as that of a paused one.
alter table divvy.stretch add held_by text collate "C";      -- the label of the task or the group that is full
create index stretch_held_idx on divvy.stretch (task_type, held_by, key) where held_by is not null;

-- Functions of the rules that have other arguments from here on, or are gone.
drop function if exists divvy.lies_in_stretches(text, bigint);
drop function if exists divvy.write_out_type(text, int);
drop function if exists divvy.held_that_fits(divvy.task_type, bigint[], text[]);
