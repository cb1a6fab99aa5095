-- The characters of a range of code points; $1 <= code point < $2.
select code_point
from demo.character
where code_point >= $1 and code_point < $2
order by code_point
