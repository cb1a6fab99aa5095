-- The proof. It knows nothing of the batch: it reads demo.character alone, builds the names by the
-- same rule, asks Postgres' own normalize() and says which rows the report lacks or has too many.
-- No row: equal.
with decomposed as (
    -- '<compat> 0066 0069' -> {0066, 0069}
    select code_point,
           string_to_array(regexp_replace(decomposition, '^<[^>]*> ', ''), ' ') as parts
    from demo.character
    where decomposition <> ''
), part as (
    -- lpad: a code point of four to six digits, read as a number
    select d.code_point,
           cardinality(d.parts) as parts,
           p.place,
           ('x' || lpad(p.hex, 8, '0'))::bit(32)::int as value
    from decomposed d, unnest(d.parts) with ordinality p (hex, place)
), first as (
    select distinct value from part where parts = 2 and place = 1
), tail as (
    select distinct value from part where parts = 2 and place = 2
), head as (
    select value from first
    union
    select code_point from part where parts = 1 and value in (select value from first)
), named as (
    select chr(code_point) collate "C" as name from demo.character
    union all
    select chr(h.value) || chr(t.value) from head h, tail t
), normalized as materialized (
    select name,
           normalize(name, NFC) as nfc,
           normalize(name, NFD) as nfd,
           normalize(name, NFKC) as nfkc,
           normalize(name, NFKD) as nfkd
    from named
), expected as materialized (
    select 'NFC' collate "C" as form,
           nfc as normalized,
           array_agg(name order by name) as members,
           count(*)::int as how_many
    from normalized
    group by nfc
    having count(*) > 1
    union all
    select 'NFD', nfd, array_agg(name order by name), count(*)::int
    from normalized
    group by nfd
    having count(*) > 1
    union all
    select 'NFKC', nfkc, array_agg(name order by name), count(*)::int
    from normalized
    group by nfkc
    having count(*) > 1
    union all
    select 'NFKD', nfkd, array_agg(name order by name), count(*)::int
    from normalized
    group by nfkd
    having count(*) > 1
), missing as (
    select form, normalized, members, how_many from expected
    except
    select form, normalized, members, how_many from demo.collision
), surplus as (
    select form, normalized, members, how_many from demo.collision
    except
    select form, normalized, members, how_many from expected
)
select said_by, form, normalized, members, how_many, count(*) over () as differing
from (
    select 'Postgres' as said_by, form, normalized, members, how_many from missing
    union all
    select 'the report', form, normalized, members, how_many from surplus
) difference
order by form, normalized, said_by
limit 20    -- differing counts them all
