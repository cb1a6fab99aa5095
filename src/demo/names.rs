//! The names whose collisions the demo looks for, and their four normal forms.
//!
//! The rule, which `check.sql` follows by itself in SQL: a name is
//! 1. each character alone, or
//! 2. each **head** followed by each **tail**.
//!
//! A tail stands second in some two-part decomposition of Unicode (U+0301 in `é` = U+0065 U+0301,
//! `g` in `㎏` = `k` `g`). A head stands first in one, or is another writing of a single character
//! that does (`𝐞` of `e`). So each two-part character meets its two-character spelling, in every
//! style of letters Unicode has: what somebody would use to sign up under a taken name.

use std::collections::BTreeSet;
use std::ops::Range;

use unicode_normalization::UnicodeNormalization;

/// Heads and tails of the two-character names, each ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pairs {
    heads: Vec<char>,
    tails: Vec<char>,
}

impl Pairs {
    /// Finds heads and tails in decompositions as `UnicodeData.txt` writes them.
    ///
    /// # Errors
    /// The decomposition that is not a list of code points, as text.
    pub fn find<'a>(decompositions: impl IntoIterator<Item = (char, &'a str)>) -> Result<Self, String> {
        let (mut firsts, mut tails, mut writings) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for (char, text) in decompositions {
            match *parts(text).ok_or_else(|| format!("U+{:04X} {text:?}", u32::from(char)))? {
                [first, second] => {
                    firsts.insert(first);
                    tails.insert(second);
                }
                [other] => writings.push((char, other)),
                _ => {}
            }
        }
        let mut heads = firsts.clone();
        heads.extend(writings.iter().filter(|(_, other)| firsts.contains(other)).map(|(char, _)| *char));
        Ok(Self { heads: heads.into_iter().collect(), tails: tails.into_iter().collect() })
    }

    /// The characters that begin a two-character name.
    pub fn heads(&self) -> &[char] {
        &self.heads
    }

    /// The characters that end one.
    pub fn tails(&self) -> &[char] {
        &self.tails
    }

    /// How many names begin with `char`.
    pub fn names_of(&self, char: char) -> usize {
        if self.heads.binary_search(&char).is_ok() { 1 + self.tails.len() } else { 1 }
    }

    /// The names that begin with one of `chars`, each in its forms.
    pub fn normalized(&self, chars: &[char]) -> Vec<Normalized> {
        let count = chars.iter().map(|char| self.names_of(*char)).sum();
        let mut all = Vec::with_capacity(count);
        for char in chars {
            all.push(Normalized::of(char.to_string()));
            if self.heads.binary_search(char).is_ok() {
                all.extend(self.tails.iter().map(|tail| Normalized::of(String::from_iter([*char, *tail]))));
            }
        }
        all
    }
}

/// The code points of a decomposition, without its `<tag>`.
fn parts(decomposition: &str) -> Option<Vec<char>> {
    decomposition
        .split(' ')
        .filter(|part| !part.is_empty() && !part.starts_with('<'))
        .map(|part| u32::from_str_radix(part, 16).ok().and_then(char::from_u32))
        .collect()
}

/// A name and what it becomes in each normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalized {
    /// The name as it would be typed.
    pub name: String,
    /// Canonical composition.
    pub nfc: String,
    /// Canonical decomposition.
    pub nfd: String,
    /// Compatibility composition.
    pub nfkc: String,
    /// Compatibility decomposition.
    pub nfkd: String,
}

impl Normalized {
    /// Computes the four forms of `name`.
    pub fn of(name: String) -> Self {
        Self {
            nfc: name.nfc().collect(),
            nfd: name.nfd().collect(),
            nfkc: name.nfkc().collect(),
            nfkd: name.nfkd().collect(),
            name,
        }
    }
}

/// Divides `chars` (ascending) into at most `count` ranges of code points with about equally many
/// names each. The ranges touch: a code point between two characters belongs to the lower one.
pub fn ranges(chars: &[char], pairs: &Pairs, count: usize) -> Vec<Range<u32>> {
    let total: usize = chars.iter().map(|char| pairs.names_of(*char)).sum();
    let (mut starts, mut names, mut open) = (Vec::with_capacity(count), 0, None);
    for char in chars {
        let share = names * count / total;
        if open != Some(share) {
            starts.push(u32::from(*char));
            open = Some(share);
        }
        names += pairs.names_of(*char);
    }
    let end = chars.last().map(|char| u32::from(*char) + 1);
    let ends: Vec<u32> = starts.iter().skip(1).copied().chain(end).collect();
    starts.into_iter().zip(ends).map(|(start, end)| start..end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::characters::characters;

    fn all() -> (Vec<char>, Pairs) {
        let all = characters().unwrap();
        let pairs = Pairs::find(all.iter().map(|c| (c.char, c.decomposition.as_str()))).unwrap();
        (all.into_iter().map(|c| c.char).collect(), pairs)
    }

    #[test]
    fn the_pairs_are_a_few_hundred_thousand() {
        let (chars, pairs) = all();
        assert_eq!((pairs.heads().len(), pairs.tails().len()), (1_964, 218));
        assert_eq!(chars.iter().map(|c| pairs.names_of(*c)).sum::<usize>(), 572_913);
    }

    #[test]
    fn a_head_is_a_first_part_or_another_writing_of_one() {
        let pairs = Pairs::find([('é', "0065 0301"), ('𝐞', "<font> 0065"), ('℀', "<compat> 0061 002F 0063")]);
        let pairs = pairs.unwrap();
        assert_eq!((pairs.heads(), pairs.tails()), (&['e', '𝐞'][..], &['\u{301}'][..]));
    }

    #[test]
    fn a_decomposition_that_is_none_is_named() {
        assert_eq!(Pairs::find([('é', "0065 x")]).unwrap_err(), "U+00E9 \"0065 x\"");
    }

    #[test]
    fn spellings_of_one_name_meet_in_a_form() {
        let [composed, two, bold] = ["é", "e\u{301}", "𝐞\u{301}"].map(|name| Normalized::of(name.to_owned()));
        assert_eq!((&composed.nfc, &composed.nfd), (&two.nfc, &two.nfd));
        assert_ne!(composed.nfc, bold.nfc);
        assert_eq!((&composed.nfkc, &composed.nfkd), (&bold.nfkc, &bold.nfkd));
    }

    #[test]
    fn ranges_touch_and_hold_every_name_once() {
        let (chars, pairs) = all();
        for count in [1, 200, 480, 2_000] {
            let ranges = ranges(&chars, &pairs, count);
            assert_eq!(ranges.len(), count);
            assert!(ranges.is_sorted_by(|a, b| a.end == b.start));
            assert_eq!((ranges[0].start, ranges[count - 1].end), (1, u32::from(*chars.last().unwrap()) + 1));
            let at = |code_point| chars.partition_point(|char| u32::from(*char) < code_point);
            let of = |range: &Range<u32>| &chars[at(range.start)..at(range.end)];
            let names =
                ranges.iter().map(|range| of(range).iter().map(|char| pairs.names_of(*char)).sum::<usize>());
            assert_eq!(names.clone().sum::<usize>(), 572_913);
            let largest = names.max();
            assert!(largest <= Some(572_913 / count + 1 + pairs.tails().len()), "{count}: {largest:?}");
        }
    }
}
