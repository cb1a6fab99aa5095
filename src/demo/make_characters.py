#!/usr/bin/env python3
"""Write characters.tsv.gz: every assigned Unicode character, from Python's own unicodedata.

    python3 src/demo/make_characters.py

The standard library is enough. Surrogates (Cs), private use (Co), unassigned code points (Cn)
and NUL, which no Postgres text can hold, are left out; noncharacters are Cn. For Unicode 14
that leaves 144,761. The same Python writes the same bytes: gzip's time stamp is 0 and its
file name empty.

One line per run of neighbours that differ in nothing but their code point, tab-separated:

    first     hexadecimal; empty where it is the one after the line before
    count     of the run; empty for 1
    name      `*` stands for the code point in hexadecimal (CJK UNIFIED IDEOGRAPH-*)
    category  for instance Lu
    class     canonical combining class; empty for 0
    parts     decomposition as UnicodeData.txt writes it; empty for none (and for Hangul
              syllables, whose decomposition is arithmetic and stands in no table)

The first line is `# Unicode <version> <characters>`, which the loader checks.
"""

import gzip
import pathlib
import unicodedata

UNICODE_MIN = 14
CHARACTERS_OF_VERSION = {"14.0.0": 144_761}
LEFT_OUT = ("Cs", "Co", "Cn")
TARGET = pathlib.Path(__file__).with_name("characters.tsv.gz")


def characters():
    """Yield (code point, name, category, combining class, decomposition), ascending."""
    for code_point in range(1, 0x110000):
        char = chr(code_point)
        category = unicodedata.category(char)
        if category in LEFT_OUT:
            continue
        # Controls have no name; UnicodeData.txt calls them all this.
        name = unicodedata.name(char, "<control>")
        yield (
            code_point,
            name.replace(f"{code_point:04X}", "*") if name.endswith(f"-{code_point:04X}") else name,
            category,
            unicodedata.combining(char) or "",
            unicodedata.decomposition(char),
        )


def runs(rows):
    """Join neighbours that are alike: [first, count, *the rest]."""
    run = None
    for code_point, *rest in rows:
        if run and code_point == run[0] + run[1] and rest == run[2:]:
            run[1] += 1
            continue
        if run:
            yield run
        run = [code_point, 1, *rest]
    yield run


def lines(rows):
    """Write each run as a line, leaving out what the line before already says."""
    expected = None
    for first, count, *rest in runs(rows):
        first_text = "" if first == expected else f"{first:X}"
        yield "\t".join([first_text, "" if count == 1 else str(count), *map(str, rest)])
        expected = first + count


def main():
    version = unicodedata.unidata_version
    if int(version.split(".")[0]) < UNICODE_MIN:
        raise SystemExit(f"this Python knows Unicode {version}; {UNICODE_MIN} or later is needed")
    rows = list(characters())
    wanted = CHARACTERS_OF_VERSION.get(version, len(rows))
    if len(rows) != wanted:
        raise SystemExit(f"Unicode {version} has {wanted} characters, found {len(rows)}")
    text = "\n".join([f"# Unicode {version} {len(rows)}", *lines(rows)]) + "\n"
    with open(TARGET, "wb") as file:
        with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=file, mtime=0) as out:
            out.write(text.encode("ascii"))
    print(f"{TARGET.name}: Unicode {version}, {len(rows):,} characters, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
