-- Splits of large tasks end and are handed out in runs (sql/51_run.sql): a rule that says what their payloads are goes to the worker
-- as it is.
alter type divvy.part add attribute rule jsonb;

-- Functions of the rules that have other arguments from here on.
drop function if exists divvy.exchange(uuid, bigint[], bigint[], jsonb, text[], int, interval, int[]);
