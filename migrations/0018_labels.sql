-- Functions of the rules that have other arguments from here on.
drop function if exists divvy.labels_of(text, int, bigint[]);
