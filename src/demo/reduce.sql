-- Gathers the names that are equal in a form, one form after the other: grouping all four at once
-- would need four times the memory.
insert into demo.collision (form, normalized, members, how_many)
select 'NFC', nfc, array_agg(name order by name), count(*)
from demo.normalized
group by nfc
having count(*) > 1
union all
select 'NFD', nfd, array_agg(name order by name), count(*)
from demo.normalized
group by nfd
having count(*) > 1
union all
select 'NFKC', nfkc, array_agg(name order by name), count(*)
from demo.normalized
group by nfkc
having count(*) > 1
union all
select 'NFKD', nfkd, array_agg(name order by name), count(*)
from demo.normalized
group by nfkd
having count(*) > 1
