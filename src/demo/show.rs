//! The report and the check as text of at most 80 columns, and as JSON.

use indicatif::HumanCount;
use serde_json::{Value, json};

use crate::demo::tables::{Collision, Difference, FormReport};

/// How many members of a group a line has room for.
const MEMBERS_SHOWN: usize = 12;

/// How a run of the demo went.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The task.
    pub task_id: i64,
    /// How many names were normalised and written.
    pub rows: u64,
    /// How many execute splits there were.
    pub splits: usize,
    /// How many worker processes were started at first.
    pub workers: usize,
    /// The worker that was killed while it held running splits; none when that never succeeded.
    pub killed_worker: Option<String>,
    /// The splits it held that had to run again, with the attempt that succeeded.
    pub rerun: Vec<(i32, i32)>,
    /// What reduce says of each form.
    pub forms: Vec<FormReport>,
    /// A few groups.
    pub examples: Vec<Collision>,
    /// The rows in which the report and Postgres differ.
    pub differences: Vec<Difference>,
    /// How long it all took.
    pub seconds: f64,
    /// How long the check took of it.
    pub check_seconds: f64,
}

impl Outcome {
    /// Postgres' own `normalize()` finds exactly what the batch found.
    pub fn equal(&self) -> bool {
        self.differences.is_empty()
    }

    /// All groups of all forms.
    pub fn groups(&self) -> i64 {
        self.forms.iter().map(|form| form.groups).sum()
    }

    /// The demo showed what it promises: equal, and the kill cost nothing but a second run.
    pub fn proven(&self) -> bool {
        self.equal() && !self.rerun.is_empty()
    }

    /// The keys that scripts rely on.
    pub fn json(&self) -> Value {
        json!({
            "task": self.task_id.to_string(),
            "rows": self.rows,
            "splits": self.splits,
            "workers": self.workers,
            "killed_worker": self.killed_worker,
            "rerun_splits": self.rerun.len(),
            "groups": self.groups(),
            "equal": self.equal(),
            "seconds": (self.seconds * 100.0).round() / 100.0,
            "differences": self.differences,
        })
    }

    /// The report, the check and the verdict.
    pub fn text(&self) -> String {
        let mut lines = vec![
            String::new(),
            "Names that are not the same, and become one when they are normalised".to_owned(),
            String::new(),
            "  form   groups    names  largest group".to_owned(),
        ];
        lines.extend(self.forms.iter().map(form_line));
        for (form, intro) in [("NFC", "look the same"), ("NFKC", "look different")] {
            lines.extend([String::new(), format!("  {intro} and are one in {form}, for instance")]);
            let of_form = self.examples.iter().filter(|example| example.form == form);
            lines.extend(of_form.map(example_line));
        }
        lines.extend([
            String::new(),
            "The same question to Postgres' own normalize()".to_owned(),
            String::new(),
        ]);
        lines.push(self.check_line());
        lines.extend(self.differences.iter().map(difference_line));
        lines.push(self.kill_line());
        lines.push(format!(
            "  {} names, {} splits, {} workers, {:.1} s in all",
            HumanCount(self.rows),
            self.splits,
            self.workers,
            self.seconds
        ));
        lines.join("\n")
    }

    fn check_line(&self) -> String {
        match self.differences.first() {
            None => format!(
                "  equal: {} groups on both sides, no row differs ({:.1} s)",
                count(self.groups()),
                self.check_seconds
            ),
            Some(first) => format!("  NOT EQUAL: {} rows differ", count(first.differing)),
        }
    }

    fn kill_line(&self) -> String {
        match &self.killed_worker {
            Some(worker) if !self.rerun.is_empty() => {
                format!(
                    "  {worker} was killed: {} splits ran again, no name is lost or doubled",
                    self.rerun.len()
                )
            }
            Some(worker) => format!("  NOT SHOWN: {worker} was killed, but no split had to run again"),
            None => {
                "  NOT SHOWN: no worker held a split while 30 to 60 % were done; try more --splits".to_owned()
            }
        }
    }
}

fn count(number: i64) -> HumanCount {
    HumanCount(number.unsigned_abs())
}

fn form_line(form: &FormReport) -> String {
    format!(
        "  {:<5} {:>7} {:>8}  {} become {}",
        form.form,
        count(form.groups).to_string(),
        count(form.names).to_string(),
        form.largest,
        form.largest_becomes
    )
}

/// What looks the same is told apart by code points, what looks different by its looks.
fn example_line(example: &Collision) -> String {
    let show = |name: &String| if example.form == "NFC" { code_points(name) } else { name.clone() };
    let members: Vec<String> = example.members.iter().take(MEMBERS_SHOWN).map(show).collect();
    let between = if example.form == "NFC" { " · " } else { " " };
    let more = if example.members.len() > MEMBERS_SHOWN { " …" } else { "" };
    format!("    {:<4} {:>2}: {}{more}", example.normalized, example.how_many, members.join(between))
}

fn difference_line(difference: &Difference) -> String {
    let Difference { said_by, row, .. } = difference;
    let members: Vec<String> = row.members.iter().map(|name| code_points(name)).collect();
    format!(
        "    {} {:?} ({}): {said_by} has {}: {}",
        row.form,
        row.normalized,
        code_points(&row.normalized),
        row.how_many,
        members.join(" · ")
    )
}

fn code_points(name: &str) -> String {
    let all: Vec<String> = name.chars().map(|char| format!("U+{:04X}", u32::from(char))).collect();
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collision(form: &str, normalized: &str, members: &[&str]) -> Collision {
        Collision {
            form: form.into(),
            normalized: normalized.into(),
            members: members.iter().map(|member| (*member).into()).collect(),
            how_many: members.len() as i32,
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            task_id: 7,
            rows: 572_913,
            splits: 480,
            workers: 2,
            killed_worker: Some("demo-1234567".into()),
            rerun: vec![(211, 2), (214, 2)],
            forms: vec![FormReport {
                form: "NFKC".into(),
                groups: 42_281,
                names: 362_541,
                largest: 42,
                largest_becomes: "i2".into(),
            }],
            examples: vec![collision("NFC", "é", &["e\u{301}", "é"]), collision("NFKC", "kg", &["kg"; 19])],
            seconds: 13.37,
            check_seconds: 2.7,
            ..Outcome::default()
        }
    }

    #[test]
    fn the_report_fits_eighty_columns() {
        let text = outcome().text();
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{widest:?}\n{text}");
        assert!(text.contains("NFKC   42,281  362,541  42 become i2"), "{text}");
        assert!(text.contains("é     2: U+0065 U+0301 · U+00E9"), "{text}");
        assert!(text.contains("equal: 42,281 groups on both sides"), "{text}");
    }

    #[test]
    fn a_row_that_differs_is_named_and_the_run_is_not_proven() {
        let row = collision("NFC", "é", &["é"]);
        let differences = vec![Difference { said_by: "the report".into(), row, differing: 1 }];
        let outcome = Outcome { differences, ..outcome() };
        assert!(
            outcome.text().contains("NFC \"é\" (U+00E9): the report has 1: U+00E9"),
            "{}",
            outcome.text()
        );
        assert!(!outcome.proven() && !outcome.equal());
    }

    #[test]
    fn a_kill_without_consequence_proves_nothing() {
        let outcome = Outcome { rerun: Vec::new(), ..outcome() };
        assert!(outcome.equal() && !outcome.proven());
        assert!(outcome.text().contains("NOT SHOWN"));
    }

    #[test]
    fn scripts_find_the_promised_keys() {
        let json = outcome().json();
        for key in
            ["rows", "splits", "workers", "killed_worker", "rerun_splits", "groups", "equal", "seconds"]
        {
            assert!(json.get(key).is_some_and(|value| !value.is_null()), "{key}");
        }
        assert_eq!((&json["equal"], &json["rerun_splits"]), (&json!(true), &json!(2)));
    }
}
