//! What the papers name exists, and what exists is named.

use super::{package, papers, read};
use crate::support::db::TestDb;
use divvy::store::sqlstate;
use sqlx::Row;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

const PROTOCOL: &str = "sql/README.md";

/// The words in backticks, outside of blocks.
fn code_spans(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect()
}

/// Every command line that a paper shows, from spans and from blocks of sh.
fn command_lines(file: &str) -> Vec<String> {
    let text = read(file);
    let shown = super::blocks_of(file).into_iter().filter(|block| block.language == "sh");
    let lines: Vec<String> =
        shown.flat_map(|block| block.text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let lines = lines.into_iter().chain(code_spans(&text));
    lines
        .filter_map(|line| {
            let begins =
                line.split_once("divvy ").filter(|(before, _)| before.is_empty() || before.ends_with('('))?;
            Some(begins.1.split([')', '|', '#']).next()?.trim().to_owned())
        })
        .collect()
}

/// What is wrong with a command line, if anything.
fn fault(line: &str) -> Option<String> {
    let cli = divvy::cli::command();
    let mut command = &cli;
    for word in line.split_whitespace().take_while(|word| *word != "--") {
        if let Some(flag) = word.strip_prefix("--") {
            let flag = flag.split('=').next()?;
            let is = |argument: &clap::Arg| {
                let aliases = argument.get_visible_aliases().unwrap_or_default();
                argument.get_long() == Some(flag) || aliases.contains(&flag)
            };
            let known = [command, &cli].iter().any(|command| command.get_arguments().any(is));
            if !known && !["help", "version"].contains(&flag) {
                return Some(format!("`{}` has no --{flag}", command.get_name()));
            }
        } else if command.has_subcommands() {
            match command.find_subcommand(word) {
                Some(next) => command = next,
                None => return Some(format!("`{}` has no command {word}", command.get_name())),
            }
        }
    }
    None
}

#[test]
fn every_command_and_flag_in_the_papers_exists() {
    let mut seen = 0;
    for file in papers() {
        for line in command_lines(&file) {
            seen += 1;
            assert_eq!(fault(&line), None, "{file}: divvy {line}");
        }
    }
    assert!(seen > 10, "only {seen} commands were found");
    assert!(
        fault("db mend").is_some()
            && fault("migrate --perhaps").is_some()
            && fault("migrate --check").is_none()
    );
}

#[test]
fn every_command_is_in_the_readme_s_table_with_its_subcommands() {
    let rows = table(&read("README.md"), "## The command line");
    for command in divvy::cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let told = format!("`divvy {}`", command.get_name());
        let row = rows.iter().find(|row| row[0] == told).unwrap_or_else(|| panic!("README: {told}"));
        let spans = code_spans(&row[1]);
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
            let whole = format!("divvy {} {}", command.get_name(), sub.get_name());
            let is_named = spans.iter().any(|span| span == sub.get_name() || *span == whole);
            assert!(is_named, "README: {whole}");
        }
    }
}

/// Words of capitals that begin like a variable of ours.
fn variables(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .filter(|word| ["DIVVY_", "DATABASE_", "TEST_DATABASE_"].iter().any(|begin| word.starts_with(begin)))
        .filter(|word| word.len() > "DATABASE_".len() && !word.ends_with('_'))
        .map(str::to_owned)
        .collect()
}

fn variables_below(folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(package().join(folder)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(package()).unwrap().display().to_string();
        if path.is_dir() {
            found.extend(variables_below(&name));
        } else if name.ends_with(".rs") && !name.contains("docs") {
            // Only whole literals: a variable that is read is named by nothing else.
            let text = read(&name);
            found.extend(
                text.split('"').filter(|literal| variables(literal).contains(*literal)).map(str::to_owned),
            );
        }
    }
    found
}

#[test]
fn the_papers_name_every_variable_that_is_read_and_no_other() {
    let code: BTreeSet<String> = variables_below("src").into_iter().chain(variables_below("tests")).collect();
    let told: BTreeSet<String> = papers().iter().flat_map(|file| variables(&read(file))).collect();
    assert_eq!(told, code);
    let readme = variables(&read("README.md"));
    let missing: Vec<_> = variables_below("src").difference(&readme).cloned().collect();
    assert!(missing.is_empty(), "README: {missing:?}");
}

/// The first cells of the rows of the table that follows `heading`.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let after = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}")).1;
    let section = after.split("\n#").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with('|'));
    rows.skip(2)
        .map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

#[test]
fn the_error_codes_are_those_of_the_code() {
    let told = table(&read(PROTOCOL), "## Error codes");
    for row in &told {
        let kind = sqlstate::kind_of(row[0].trim_matches('`')).unwrap_or_else(|| panic!("{row:?}"));
        assert_eq!(format!("{kind:?}"), row[1].trim_matches('`'), "{row:?}");
    }
    let known = read("src/store/sqlstate.rs").matches("(\"DV").count();
    assert_eq!(told.len(), known, "every code is told");
}

#[tokio::test]
async fn the_limits_are_those_of_the_code() {
    let db = TestDb::new().await;
    let told = table(&read(PROTOCOL), "## Limits");
    for row in &told {
        let limit: Option<i64> = sqlx::query_scalar("select divvy.limit_of($1)")
            .bind(row[0].trim_matches('`'))
            .fetch_one(db.pool())
            .await
            .unwrap();
        let most = row[1].split(' ').next().and_then(|most| most.parse::<i64>().ok());
        assert_eq!(limit, most, "{row:?}");
    }
    let known = read("sql/10_check.sql").matches("        when '").count();
    assert_eq!(told.len(), known, "every limit is told");
}

/// The names after "known are" in the refusal of an option that there is not.
async fn known_options(db: &TestDb, call: &'static str) -> BTreeSet<String> {
    let refusal = sqlx::raw_sql(call).execute(db.pool()).await.unwrap_err();
    let refusal = refusal.as_database_error().expect(call).message();
    let known = refusal.split_once("known are ").unwrap_or_else(|| panic!("{refusal}")).1;
    known.split(", ").map(str::to_owned).collect()
}

#[tokio::test]
async fn the_options_of_tasks_and_types_are_those_of_the_code() {
    let db = TestDb::new().await;
    let text = read(PROTOCOL);
    let told = |head: &str| {
        let rows = text.split_once(&format!("| {head} |")).unwrap_or_else(|| panic!("no table {head}")).1;
        let rows = rows.lines().skip(2).take_while(|line| line.starts_with('|'));
        rows.flat_map(|row| code_spans(row.split(" | ").next().unwrap_or_default())).collect::<BTreeSet<_>>()
    };
    let mut task = known_options(&db, r#"select divvy.enqueue('t', '{}', '{"?": 1}')"#).await;
    task.remove("on_duplicate"); // of the function, not of the row
    assert_eq!(told("option of a task"), task);
    let of_type = known_options(&db, r#"select divvy.put_task_type('t', '{"?": 1}')"#).await;
    assert_eq!(told("option of a type"), of_type);
}

#[test]
fn the_readme_names_the_toolchain_that_is_needed() {
    let manifest = read("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    let told = format!("Rust toolchain ({} or later)", version.trim_matches('"'));
    assert!(read("README.md").contains(&told), "README: {told}");
}

/// `name(a, b = 1)` → the name, its arguments, and how many of them have defaults.
fn signature(span: &str) -> Option<(String, (Vec<String>, usize))> {
    let (name, rest) = span.split_once('(')?;
    let listed = rest.strip_suffix(')')?;
    let arguments: Vec<&str> = listed.split(", ").filter(|argument| !argument.is_empty()).collect();
    let defaults = arguments.iter().filter(|argument| argument.contains(" = ")).count();
    let names = arguments.iter().map(|argument| argument.split(" = ").next().unwrap_or_default().to_owned());
    Some((name.to_owned(), (names.collect(), defaults)))
}

#[tokio::test]
async fn every_function_that_somebody_may_call_is_listed_with_its_arguments() {
    let db = TestDb::new().await;
    // The role of a type in SQL is granted what it needs when the type is declared.
    sqlx::raw_sql(r#"select divvy.put_task_type('one', '{"handler": {"sql": {"execute": "select 1", "role": "divvy_reader"}}}')"#)
        .execute(db.pool())
        .await
        .unwrap();
    let query = "
        select p.proname::text as name, coalesce(p.proargnames[1:p.pronargs], '{}') as arguments, p.pronargdefaults::int as defaults
          from pg_proc p
         where p.pronamespace = 'divvy'::regnamespace
           and exists (select from aclexplode(p.proacl) a where a.grantee <> p.proowner)";
    let rows = sqlx::query(query).fetch_all(db.pool()).await.unwrap();
    let known: BTreeMap<String, (Vec<String>, usize)> = rows
        .iter()
        .map(|row| {
            let defaults: i32 = row.get("defaults");
            (row.get("name"), (row.get("arguments"), usize::try_from(defaults).unwrap()))
        })
        .collect();
    let text = read(PROTOCOL);
    let functions = text.split_once("\n## Functions\n").unwrap().1.split("\n## ").next().unwrap();
    let told: BTreeMap<_, _> = functions
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|row| code_spans(row.split(" | ").next().unwrap_or_default()))
        .filter_map(|span| signature(&span))
        .collect();
    for (name, signature) in &known {
        assert_eq!(told.get(name), Some(signature), "sql/README.md: {name}");
    }
    let gone: Vec<_> = told.keys().filter(|name| !known.contains_key(*name)).collect();
    assert!(gone.is_empty(), "nobody may call {gone:?}");
}

#[tokio::test]
async fn the_diagrams_name_states_and_functions_that_exist() {
    let db = TestDb::new().await;
    let names = |query: &'static str| {
        let pool = db.pool().clone();
        async move {
            let names: Vec<String> = sqlx::query_scalar(query).fetch_all(&pool).await.unwrap();
            names.into_iter().collect::<BTreeSet<_>>()
        }
    };
    let functions =
        names("select proname::text from pg_proc where pronamespace = 'divvy'::regnamespace").await;
    let states = names(
        "select e.enumlabel::text from pg_enum e join pg_type t on t.oid = e.enumtypid
          where t.typnamespace = 'divvy'::regnamespace and t.typname like '%status'",
    )
    .await;
    let text = read(PROTOCOL);
    let mut drawn = BTreeSet::new();
    for edge in text.lines().filter(|line| line.contains(" --> ")) {
        let (from, rest) = edge.split_once(" --> ").unwrap();
        let (to, calls) = rest.split_once(": ").unwrap_or_else(|| panic!("{edge}: by what?"));
        drawn.extend(
            [from.trim(), to.trim()].iter().filter(|state| **state != "[*]").map(|state| (*state).to_owned()),
        );
        for call in calls.split(", ") {
            assert!(functions.contains(call), "{edge}: there is no divvy.{call}");
        }
    }
    assert_eq!(drawn, states, "every state is drawn");
}

#[tokio::test]
async fn every_view_is_listed() {
    let db = TestDb::new().await;
    let views: Vec<String> =
        sqlx::query_scalar("select viewname::text from pg_views where schemaname = 'divvy'")
            .fetch_all(db.pool())
            .await
            .unwrap();
    let spans = code_spans(&read(PROTOCOL));
    for view in views {
        assert!(spans.contains(&view), "sql/README.md: {view}");
    }
}

#[test]
fn every_link_and_path_leads_to_a_file() {
    let folders = ["src", "sql", "tests", "migrations", "examples", "docs", ".ci"];
    for file in papers() {
        let text = read(&file);
        let here = package().join(&file).parent().unwrap().to_owned();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http")) {
            let path = link.split('#').next().unwrap_or_default();
            assert!(here.join(path).exists(), "{file}: the link to {link}");
        }
        for span in code_spans(&text) {
            let is_path = folders.iter().any(|folder| span.starts_with(&format!("{folder}/")));
            if is_path && !span.contains(['*', ' ', '<', 'N']) {
                assert!(package().join(&span).exists(), "{file}: {span}");
            }
        }
    }
}
