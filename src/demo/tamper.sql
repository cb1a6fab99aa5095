-- Falsifies the report in one row, so that everybody can see that the check would notice.
update demo.collision
set how_many = how_many + 1
where (form, normalized) = ('NFC', 'é')
