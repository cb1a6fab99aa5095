-- One row per name; the arrays are of one length.
insert into demo.normalized (name, nfc, nfd, nfkc, nfkd)
select name, nfc, nfd, nfkc, nfkd
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) row (name, nfc, nfd, nfkc, nfkd)
