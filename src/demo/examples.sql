-- A few groups whose characters most people have seen, as they stand in the table.
select form, normalized, members, how_many
from demo.collision
where (form, normalized) in (('NFC', 'Å'), ('NFC', 'é'), ('NFKC', 'kg'), ('NFKC', 'TM'), ('NFKC', 'fi'))
order by form, how_many, normalized
