//! docker-compose.yml and Dockerfile, where Docker is not there to try them: every path, command, port and
//! variable in them is compared with the tree and the program.

use super::{package, read};
use crate::support::program::divvy;
use divvy::store::migrate::{MIGRATIONS, RULES};
use sqlx::postgres::PgConnectOptions;
use std::collections::BTreeMap;
use std::str::FromStr;

/// The YAML of a compose file as `services.x.image` → `postgres:17`; items of a list are joined by newlines.
/// Only what such files need: nested mappings, lists of scalars, and `["a", "b"]`.
fn flat(yaml: &str) -> BTreeMap<String, String> {
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for line in yaml.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        open.retain(|(depth, _)| *depth < indent);
        let path: Vec<&str> = open.iter().map(|(_, key)| key.as_str()).collect();
        if let Some(item) = line.trim_start().strip_prefix("- ") {
            let items = found.entry(path.join(".")).or_default();
            *items = format!("{items}\n{}", item.trim_matches('"')).trim_start().to_owned();
            continue;
        }
        let (key, value) = line.trim().split_once(':').unwrap_or_else(|| panic!("not a mapping: {line}"));
        let name = path.iter().copied().chain([key]).collect::<Vec<_>>().join(".");
        let value = match value.trim().strip_prefix('[').and_then(|list| list.strip_suffix(']')) {
            Some(list) => words(list).join("\n"),
            None => value.trim().trim_matches('"').to_owned(),
        };
        found.insert(name, value);
        open.push((indent, key.to_owned()));
    }
    found
}

/// `"a", "b"` → a, b.
fn words(list: &str) -> Vec<String> {
    list.split(',')
        .map(|word| word.trim().trim_matches('"').to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

/// The instructions of a Dockerfile with their arguments, lines joined.
fn instructions() -> Vec<(String, String)> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').unwrap_or_else(|| panic!("Dockerfile: {line}")))
        .map(|(instruction, arguments)| (instruction.to_owned(), arguments.trim().to_owned()))
        .collect()
}

fn only(instruction: &str) -> String {
    let all: Vec<String> =
        instructions().into_iter().filter(|(name, _)| name == instruction).map(|(_, rest)| rest).collect();
    assert_eq!(all.len(), 1, "Dockerfile: one {instruction}");
    all[0].clone()
}

/// `["a", "b"]` of an instruction.
fn array(text: &str) -> Vec<String> {
    words(text.trim_start_matches('[').trim_end_matches(']'))
}

/// The program takes these arguments.
fn accepts(arguments: &[String]) {
    let line = std::iter::once("divvy".to_owned()).chain(arguments.iter().cloned());
    divvy::cli::command().try_get_matches_from(line).unwrap_or_else(|e| panic!("{arguments:?}: {e}"));
}

/// The numbers of a version, as far as they go.
fn version(text: &str) -> Vec<u32> {
    text.split(['.', '-']).map_while(|part| part.parse().ok()).collect()
}

#[test]
fn the_compose_file_s_service_reaches_its_database() {
    let compose = flat(&read("docker-compose.yml"));
    let of =
        |key: &str| compose.get(&format!("services.{key}")).unwrap_or_else(|| panic!("no {key}")).as_str();
    let url = PgConnectOptions::from_str(of("divvy.environment.DATABASE_URL")).unwrap();
    assert_eq!((url.get_host(), url.get_port()), ("postgres", 5432), "the other service");
    assert_eq!(url.get_username(), of("postgres.environment.POSTGRES_USER"));
    assert_eq!(url.get_database(), Some(of("postgres.environment.POSTGRES_DB")));
    let password = of("postgres.environment.POSTGRES_PASSWORD");
    assert!(of("divvy.environment.DATABASE_URL").contains(&format!(":{password}@")));
    assert!(of("postgres.ports").ends_with(&format!(":{}", url.get_port())));
    assert!(of("postgres.healthcheck.test").ends_with(&format!("--dbname={}", url.get_database().unwrap())));
    assert_eq!(of("divvy.depends_on.postgres.condition"), "service_healthy");
    let (name, tag) = of("postgres.image").split_once(':').unwrap();
    assert!(name == "postgres" && version(tag)[0] >= 15, "{tag}");
    let (volume, folder) = of("postgres.volumes").split_once(':').unwrap();
    assert!(compose.contains_key(&format!("volumes.{volume}")), "{volume} is declared");
    // Up to 17 the image keeps its data there, from 18 on in /var/lib/postgresql.
    assert!(version(tag)[0] <= 17 && folder == "/var/lib/postgresql/data");
}

#[test]
fn the_compose_file_s_commands_variables_and_ports_are_the_program_s() {
    let compose = flat(&read("docker-compose.yml"));
    let service =
        |key: &str| compose.get(&format!("services.divvy.{key}")).unwrap_or_else(|| panic!("no {key}"));
    accepts(&service("command").lines().map(str::to_owned).collect::<Vec<_>>());
    let health: Vec<String> = service("healthcheck.test").lines().map(str::to_owned).collect();
    assert_eq!(health[..2], ["CMD", "divvy"]);
    accepts(&health[2..]);

    let help = String::from_utf8(divvy(&["serve", "--help"]).output().unwrap().stdout).unwrap();
    let variables = compose.keys().filter_map(|key| key.strip_prefix("services.divvy.environment."));
    for variable in variables {
        assert!(
            help.contains(&format!("env: {variable}")) || help.contains(variable),
            "serve reads no {variable}"
        );
    }
    let port = service("environment.DIVVY_LISTEN").rsplit(':').next().unwrap();
    assert!(service("ports").ends_with(&format!(":{port}")), "the port that is published");
    assert_eq!(only("EXPOSE"), port);
    assert_eq!(service("profiles"), "app");
    assert!(read("README.md").contains("--profile app"), "the README names the profile");
    let grace: u32 = service("stop_grace_period").trim_end_matches('s').parse().unwrap();
    let default = help.split("--grace").nth(1).and_then(|rest| rest.split("[default: ").nth(1));
    let default: u32 = default.and_then(|rest| rest.split(']').next()).unwrap().parse().unwrap();
    assert!(grace > default, "Docker waits longer than serve needs");
}

#[test]
fn the_dockerfile_copies_all_that_the_program_is_built_from() {
    let ignored = read(".dockerignore");
    let mut copied = Vec::new();
    for (_, arguments) in
        instructions().iter().filter(|(name, rest)| name == "COPY" && !rest.starts_with("--from"))
    {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        for source in &words[..words.len() - 1] {
            assert!(package().join(source).exists(), "COPY {source}");
            assert!(!ignored.lines().any(|line| line == *source), "{source} is ignored");
            copied.push((*source).to_owned());
        }
    }
    let sources = MIGRATIONS.iter().chain(RULES).filter_map(|source| source.file.split('/').next());
    for folder in sources.chain(["src", "Cargo.toml", "Cargo.lock"]) {
        assert!(copied.iter().any(|source| source == folder), "{folder} is copied");
    }
    let manifest = read("Cargo.toml");
    assert!(!manifest.contains("build = ") && !package().join("build.rs").exists(), "and no build script");
    let build =
        instructions().into_iter().find(|(name, rest)| name == "RUN" && rest.starts_with("cargo")).unwrap().1;
    assert_eq!(build, "cargo build --release --locked --bin divvy");
    assert!(manifest.contains("default-run = \"divvy\""), "the name of the program");
}

#[test]
fn the_dockerfile_s_program_starts_as_the_command_line_says() {
    assert_eq!(array(&only("ENTRYPOINT")), ["divvy"]);
    accepts(&array(&only("CMD")));
    let serve = divvy::cli::command();
    let serve = serve.find_subcommand("serve").unwrap();
    let environment = only("ENV");
    for (variable, value) in environment.split_whitespace().map(|pair| pair.split_once('=').unwrap()) {
        let argument = serve.get_arguments().find(|a| a.get_env().is_some_and(|name| name == variable));
        let argument = argument.unwrap_or_else(|| panic!("serve reads no {variable}"));
        accepts(&["serve".to_owned(), format!("--{}={value}", argument.get_long().unwrap())]);
    }
    let listen = environment.split_whitespace().find_map(|pair| pair.strip_prefix("DIVVY_LISTEN=")).unwrap();
    assert!(listen.ends_with(&format!(":{}", only("EXPOSE"))));
    let workdir = only("WORKDIR");
    let program = format!("COPY --from=build {workdir}/target/release/divvy /usr/local/bin/divvy");
    assert!(read("Dockerfile").contains(&program), "what was built is what is run");

    let manifest = read("Cargo.toml");
    let wanted = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    let image = instructions()[0].1.clone();
    let tag = image.strip_prefix("rust:").unwrap().split(' ').next().unwrap();
    assert!(version(tag) >= version(wanted.trim_matches('"')), "{image} is older than {wanted}");
    // One Debian for both: the C library that it is linked with is there.
    let debian = tag.split('-').nth(1).unwrap();
    assert!(
        instructions().iter().any(|(name, rest)| name == "FROM" && *rest == format!("debian:{debian}-slim"))
    );
}

#[test]
fn nested_mappings_and_lists_are_read() {
    let read = flat("a:\n  b: \"1:2\"\n  c:\n    - x\n    - \"y\"\n# no\nd: [\"p\", \"q\"]\ne:\n  f:\n");
    assert_eq!(read["a.b"], "1:2");
    assert_eq!(read["a.c"], "x\ny");
    assert_eq!(read["d"], "p\nq");
    assert!(read.contains_key("e.f"));
}
