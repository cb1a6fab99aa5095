-- What the rule of two-character names is found in.
select code_point, decomposition
from demo.character
where decomposition <> ''
order by code_point
