-- One row per form, in the order they are spoken of. The largest group is the first by code point.
select form,
       count(*) as groups,
       sum(how_many)::bigint as names,
       max(how_many) as largest,
       (array_agg(normalized order by how_many desc, normalized))[1] as largest_becomes
from demo.collision
group by form
order by form
