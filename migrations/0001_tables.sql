-- Placeholder: the real tables come from the branch that owns the schema.
create table divvy.placeholder (
    id bigint primary key,
    at timestamptz not null
);
