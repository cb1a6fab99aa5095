-- A clock that tests set: the body of divvy.clock() is replaced in this one database, so the release
-- carries no back door. Prepared statements of other sessions follow at once.
create table if not exists divvy.test_clock (at timestamptz not null);
insert into divvy.test_clock (at) select now() where not exists (select from divvy.test_clock);
create or replace function divvy.clock() returns timestamptz language sql stable
    as 'select at from divvy.test_clock';
