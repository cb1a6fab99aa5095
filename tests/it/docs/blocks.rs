//! The fenced blocks of a Markdown file, with what is said about them.
//!
//! A block of `sh`, `sql` or `rust` is run, unless an HTML comment right before it says why it is not:
//! `<!-- not run: reason -->`. `<!-- in the background -->` lets it run beside the others, until the last has ended.
//! What a block shows is in a `text` block right after it, or in comments `-- → line` and `# → line`; `…` stands
//! for anything.

/// What may be written after the three backticks.
const LANGUAGES: [&str; 7] = ["sh", "sql", "rust", "text", "mermaid", "json", "toml"];
const RUNNABLE: [&str; 3] = ["sh", "sql", "rust"];
/// The mark of a shown line, after the comment sign of the language.
const SHOWN: &str = "→";

/// One block.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// The file and line it begins at.
    pub place: String,
    pub language: String,
    pub text: String,
    pub manner: Manner,
    /// The lines it shows, where it shows any.
    pub shown: Option<Vec<String>>,
}

/// How a block is run.
#[derive(Debug, Clone, PartialEq)]
pub enum Manner {
    Once,
    NotAtAll,
    InTheBackground,
}

impl Block {
    /// Its output is aligned as for people when it is shown as a whole.
    pub fn shows_comments(&self) -> bool {
        !self.comments().is_empty()
    }

    /// The lines shown in comments.
    fn comments(&self) -> Vec<String> {
        let sign = if self.language == "sql" { "--" } else { "#" };
        self.text
            .lines()
            .filter_map(|line| line.split_once(&format!("{sign} {SHOWN}")))
            .map(|(_, shown)| shown.trim().to_owned())
            .collect()
    }
}

/// The runnable blocks of `text`, in order.
pub fn blocks(file: &str, text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut comment = "";
    let mut just_before: Option<usize> = None;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            if !line.is_empty() {
                just_before = None;
                comment = line;
            }
            continue;
        };
        let place = format!("{file}:{}", number + 1);
        assert!(LANGUAGES.contains(&language), "{place}: a block says what it is, one of {LANGUAGES:?}");
        let body: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        if RUNNABLE.contains(&language) {
            let manner = manner(comment, &place);
            let text = body.join("\n");
            let mut block = Block { place, language: language.into(), text, manner, shown: None };
            block.shown = Some(block.comments()).filter(|lines| !lines.is_empty());
            found.push(block);
            just_before = Some(found.len() - 1);
        } else if let (Some(block), "text") = (just_before, language) {
            let shown = body.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(found[block].shown.replace(shown), None, "{place}: this output is shown twice");
            just_before = None;
        }
        comment = "";
    }
    found
}

fn manner(comment: &str, place: &str) -> Manner {
    let Some(comment) = comment.strip_prefix("<!--") else { return Manner::Once };
    let comment = comment.strip_suffix("-->").unwrap_or_else(|| panic!("{place}: the comment is one line"));
    match comment.trim() {
        "in the background" => Manner::InTheBackground,
        other => {
            let reason = other.strip_prefix("not run: ").unwrap_or_default();
            assert!(reason.len() > 10, "{place}: a block that is not run says why, not {other:?}");
            Manner::NotAtAll
        }
    }
}

/// Whether the output is what is shown, line by line; empty lines and the number of spaces don't count.
pub fn is_shown(shown: &[String], output: &str) -> bool {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: Vec<String> = shown.iter().map(|line| words(line)).filter(|line| !line.is_empty()).collect();
    let output: Vec<String> = output.lines().map(words).filter(|line| !line.is_empty()).collect();
    shown.len() == output.len() && shown.iter().zip(&output).all(|(shown, line)| matches(shown, line))
}

/// `…` stands for anything.
fn matches(shown: &str, line: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[test]
fn a_block_is_found_with_its_manner_and_what_it_shows() {
    let text = "a\n\n<!-- not run: there is no network here -->\n```sh\ncurl x\n```\n\n```sql\nselect 1;  -- → 1\n```\n\
                ```sh\nls\n```\n\n```text\na\nb\n```\n\n```text\npicture\n```\n";
    let found = blocks("x.md", text);
    assert_eq!(found.len(), 3);
    assert_eq!((&found[0].manner, found[0].shown.as_deref()), (&Manner::NotAtAll, None));
    assert_eq!(found[1].shown, Some(vec!["1".to_owned()]));
    assert_eq!((found[2].place.as_str(), found[2].shown.as_ref().map(Vec::len)), ("x.md:11", Some(2)));
}

#[test]
#[should_panic(expected = "x.md:2: a block that is not run says why")]
fn a_block_that_is_not_run_says_why() {
    blocks("x.md", "<!-- not run: -->\n```sh\nls\n```\n");
}

#[test]
fn shown_lines_are_compared_line_by_line() {
    let shown = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert!(is_shown(&shown(&["… | ok", "| run"]), "17 | ok\n\n  | run\n"));
    assert!(is_shown(&shown(&["a…b…c"]), "a1b2c"));
    assert!(!is_shown(&shown(&["a…b…c"]), "a1b2"));
    assert!(!is_shown(&shown(&["1"]), "12"));
    assert!(!is_shown(&shown(&["1"]), "1\n2"), "a line that is not shown");
    assert!(!is_shown(&shown(&["1", "2"]), "1"), "a line that does not come");
}
