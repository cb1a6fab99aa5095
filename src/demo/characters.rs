//! The input: every assigned Unicode character, kept compressed beside this file.
//!
//! `make_characters.py` wrote the file and explains its lines; this is the reverse.

use std::io::Read;

use flate2::read::GzDecoder;

use crate::{Error, ErrorKind, Result};

const COMPRESSED: &[u8] = include_bytes!("characters.tsv.gz");

/// The head line of the file: the version of Unicode and how many characters there are.
const HEAD: &str = "# Unicode 14.0.0 144761";

/// How many characters the input has: all that Unicode 14 assigns, without surrogates, private
/// use and NUL.
pub const CHARACTERS: usize = 144_761;

/// One assigned character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Character {
    /// The character itself.
    pub char: char,
    /// Its name; `<control>` for those that have none.
    pub name: String,
    /// Its general category, for instance `Lu`.
    pub category: String,
    /// Its canonical combining class; 0 for what does not combine.
    pub combining_class: u8,
    /// Its decomposition as `UnicodeData.txt` writes it; empty for none.
    pub decomposition: String,
}

/// All characters, ascending by code point.
///
/// # Errors
/// When the file in this binary is damaged: the message names the line.
pub fn characters() -> Result<Vec<Character>> {
    let mut text = String::new();
    GzDecoder::new(COMPRESSED)
        .read_to_string(&mut text)
        .map_err(|cause| damaged(0, "gzip").caused_by(cause))?;
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return Err(damaged(1, HEAD));
    }
    let mut all = Vec::with_capacity(CHARACTERS);
    let mut next = 1;
    for (at, line) in lines.enumerate() {
        next = expand(line, next, &mut all).ok_or_else(|| damaged(at + 2, "a run of characters"))?;
    }
    if all.len() != CHARACTERS {
        return Err(damaged(0, &format!("{CHARACTERS} characters, found {}", all.len())));
    }
    Ok(all)
}

/// Appends the run of one line; `next` is the code point after the line before.
fn expand(line: &str, next: u32, all: &mut Vec<Character>) -> Option<u32> {
    let mut fields = line.split('\t');
    let mut field = || fields.next();
    let (first, count, name, category, class, parts) =
        (field()?, field()?, field()?, field()?, field()?, field()?);
    let first = if first.is_empty() { next } else { u32::from_str_radix(first, 16).ok()? };
    let count: u32 = if count.is_empty() { 1 } else { count.parse().ok()? };
    let combining_class = if class.is_empty() { 0 } else { class.parse().ok()? };
    for code_point in first..first.checked_add(count)? {
        all.push(Character {
            char: char::from_u32(code_point)?,
            name: name.replace('*', &format!("{code_point:04X}")),
            category: category.to_owned(),
            combining_class,
            decomposition: parts.to_owned(),
        });
    }
    Some(first + count)
}

fn damaged(line: usize, wanted: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("characters.tsv.gz in this binary is damaged at line {line}: expected {wanted}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn character(all: &[Character], char: char) -> &Character {
        &all[all.binary_search_by_key(&char, |c| c.char).expect("assigned")]
    }

    #[test]
    fn every_assigned_character_is_there_once_and_in_order() {
        let all = characters().unwrap();
        assert_eq!(all.len(), CHARACTERS);
        assert!(all.is_sorted_by(|a, b| a.char < b.char));
        assert_eq!(all[0].char, '\u{1}');
        assert!(!all.iter().any(|c| ["Cn", "Co", "Cs"].contains(&c.category.as_str())));
    }

    #[test]
    fn a_run_of_a_line_becomes_a_character_for_each_code_point() {
        let all = characters().unwrap();
        assert_eq!(character(&all, '\u{4E00}').name, "CJK UNIFIED IDEOGRAPH-4E00");
        assert_eq!(character(&all, '\u{3134A}').name, "CJK UNIFIED IDEOGRAPH-3134A");
        assert_eq!(character(&all, '\u{7}').name, "<control>");
        assert_eq!(character(&all, '각').name, "HANGUL SYLLABLE GAG");
    }

    #[test]
    fn a_character_carries_what_unicode_says_of_it() {
        let all = characters().unwrap();
        let acute = character(&all, '\u{301}');
        assert_eq!((acute.category.as_str(), acute.combining_class), ("Mn", 230));
        assert_eq!(character(&all, 'é').decomposition, "0065 0301");
        assert_eq!(character(&all, 'ﬁ').decomposition, "<compat> 0066 0069");
        assert_eq!(character(&all, 'A').decomposition, "");
    }
}
