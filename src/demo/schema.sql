-- The demo's own tables, made afresh by each run. Nothing of divvy refers to them.
-- Text is compared by code point (collate "C"): whether two names are the same must not depend on
-- the language a database was created for.

do $$
begin
    if current_setting('server_encoding') <> 'UTF8' then
        raise exception 'database % is encoded in %: the demo needs UTF8, Postgres normalises no other',
            current_database(), current_setting('server_encoding');
    end if;
end
$$;

create schema if not exists demo;

drop table if exists demo.character, demo.normalized, demo.collision;

-- The input: one row per assigned Unicode character.
create table demo.character (
    code_point      int primary key,
    name            text not null,
    category        text not null,
    combining_class int not null,
    decomposition   text not null      -- as UnicodeData.txt writes it; '' for none
);

-- What the execute splits write: each name once, which the primary key proves.
create table demo.normalized (
    name text collate "C" primary key,
    nfc  text collate "C" not null,
    nfd  text collate "C" not null,
    nfkc text collate "C" not null,
    nfkd text collate "C" not null
);

-- What reduce writes: names that differ and are the same in one of the four forms.
create table demo.collision (
    form       text collate "C" not null,    -- NFC, NFD, NFKC, NFKD
    normalized text collate "C" not null,    -- what they all become
    members    text[] collate "C" not null,  -- by code point
    how_many   int not null,
    primary key (form, normalized)
);
