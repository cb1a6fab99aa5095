-- A transaction that has written splits and stays open holds no mark back for longer than a second or two: marks go on over
-- what it may have written, and once it has ended that is looked through (docs/adr/0013).

-- Transactions that were open for longer than that after they wrote splits. Their keys are above from_key.
create table divvy.late_writer (
    transaction text not null,                -- virtual; a prepared one: its transactionid
    transactionid text,
    from_key bigint not null
) with (fillfactor = 50);

-- Keys that are to be looked through, because a late writer has ended.
create table divvy.sweep (
    from_key bigint not null,
    to_key bigint not null
) with (fillfactor = 50);

-- Where something ready was found below a mark: from_key < key <= to_key.
create table divvy.behind (
    task_type text collate "C" not null,
    lane smallint not null,
    from_key bigint not null,
    to_key bigint not null,
    primary key (task_type, lane, to_key)
) with (fillfactor = 50);

alter table divvy.low_water
    add noted_at timestamptz,
    add seen_key bigint not null default 0;   -- every key up to it is visible, but for those of late writers
update divvy.low_water set seen_key = verified_key;

-- The longest of timeouts.
alter type divvy.part add attribute timeout interval;

-- Functions of the rules that are no more, or have other arguments from here on.
drop function if exists divvy.writers(), divvy.prepared_writer(), divvy.own_transaction(), divvy.raise_marks(text),
    divvy.named(divvy.lease, bigint[], bigint[]), divvy.check_limit(text, bigint, text), divvy.need_read_committed(text), divvy.check_batch(text, bigint[], bigint[]),
    divvy.check_claim(uuid, text[], int, interval, int[]), divvy.check_results(bigint[], jsonb), divvy.shrink_lease(divvy.lease, bigint[]),
    divvy.pick_stragglers(divvy.task_type, bigint[], bigint[], int, bigint), divvy.frontiers(text, bigint[]),
    divvy.pick_type(divvy.task_type, int, bigint, timestamptz), divvy.candidates(text, int, bigint, int, bigint[]),
    divvy.choose(divvy.task_type, smallint, bigint, int, bigint, bigint[], bigint[], text[], text);
