//! The checks. Each says what it found, and what to do unless that is well.

use crate::config::Addresses;
use crate::store::connect::{self, Facts};
use crate::store::doctor::{self, Settings};
use crate::store::lead;
use crate::store::migrate::{self, Status};
use serde::Serialize;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;

/// The newest server divvy is tested on, as `server_version_num` without the minor version.
const SERVER_TESTED_MAX: i32 = 18;

/// What the role may be used for, and a function that tells.
const USES: [(&str, &str); 4] =
    [("enqueue", "enqueue"), ("claim", "work"), ("cancel", "operate"), ("lead", "lead")];

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// divvy works, with less than it promises.
    Warn,
    /// divvy does not work like this.
    Fail,
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// The answer of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    pub(super) found: String,
    pub(super) fix: Option<String>,
}

fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Ok, found: found.into(), fix: None }
}

fn warn(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Warn, found: found.into(), fix: Some(fix.into()) }
}

fn fail(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Fail, found: found.into(), fix: Some(fix.into()) }
}

/// Every check, in the order in which one would look. Without a connection only the first is made.
pub(super) async fn all(addresses: &Addresses) -> Vec<Finding> {
    let mut connection = match connect::connect(&addresses.work).await {
        Ok(connection) => connection,
        Err(error) => {
            return vec![fail(
                "connection",
                error.to_string(),
                "start the database, or correct DATABASE_URL",
            )];
        }
    };
    let mut findings = vec![ok("connection", connect::place(&addresses.work))];
    match connect::facts(&mut connection).await {
        Ok(facts) => findings.push(server(&addresses.work, &facts)),
        Err(error) => findings.push(fail("server", error.to_string(), "see the server's log")),
    }
    findings.extend(poolers(addresses).await);
    let schema = schema(&addresses.direct).await;
    match doctor::settings(&mut connection).await {
        Ok(settings) => {
            findings.extend(durability(&settings));
            findings.push(rights(&mut connection, &settings, schema.verdict).await);
        }
        Err(error) => findings.push(fail("settings", error.to_string(), "see the server's log")),
    }
    findings.push(schema);
    lead::resign(connection).await;
    findings
}

fn server(options: &PgConnectOptions, facts: &Facts) -> Finding {
    let found = format!("Postgres {}", facts.version);
    if let Err(error) = connect::check_usable(options, facts) {
        return fail(
            "server",
            error.to_string(),
            "use a primary of Postgres 15 or later that may be written to",
        );
    }
    if facts.version_num / 10_000 > SERVER_TESTED_MAX {
        return warn("server", found, format!("divvy is tested up to Postgres {SERVER_TESTED_MAX}"));
    }
    ok("server", found)
}

async fn poolers(addresses: &Addresses) -> [Finding; 2] {
    let work = match lead::is_pooled(&addresses.work).await {
        Ok(false) => ok("pooler", "none between"),
        Ok(true) => warn(
            "pooler",
            "a transaction pooler stands between",
            "use PgBouncer 1.24 or later, or 1.21 with max_prepared_statements > 0: older ones mix up clients' results",
        ),
        Err(error) => fail("pooler", error.to_string(), "allow divvy a few connections"),
    };
    let direct = match lead::is_pooled(&addresses.direct).await {
        Ok(false) => ok("direct connection", connect::place(&addresses.direct)),
        Ok(true) => fail(
            "direct connection",
            "a transaction pooler stands between: no leader, no LISTEN, no migration",
            "give the server's own address in DATABASE_DIRECT_URL",
        ),
        Err(error) => fail("direct connection", error.to_string(), "correct DATABASE_DIRECT_URL"),
    };
    [work, direct]
}

fn durability(settings: &Settings) -> [Finding; 3] {
    let lost = "committed tasks and results can be lost, or the database damaged, when the machine stops";
    let fsync = match settings.fsync {
        true => ok("fsync", "on"),
        false => {
            fail("fsync", format!("off: {lost}"), "alter system set fsync = on; select pg_reload_conf()")
        }
    };
    let pages = match settings.full_page_writes {
        true => ok("full_page_writes", "on"),
        false => fail(
            "full_page_writes",
            format!("off: {lost}"),
            "alter system set full_page_writes = on; select pg_reload_conf()",
        ),
    };
    let commit = match settings.synchronous_commit.as_str() {
        "off" => warn(
            "synchronous_commit",
            "off: the last moments before a crash of the server are lost, commits that were reported included",
            "set it to on for the roles that enqueue and work",
        ),
        other => ok("synchronous_commit", other),
    };
    [fsync, pages, commit]
}

async fn rights(connection: &mut PgConnection, settings: &Settings, schema: Verdict) -> Finding {
    let names = USES.map(|(function, _)| function);
    let callable = match doctor::callable(connection, &names).await {
        Ok(callable) => callable,
        Err(error) => return fail("rights", error.to_string(), "see the server's log"),
    };
    let may = |function: &str| callable.iter().any(|(name, may)| name == function && *may);
    let migrate = settings.superuser || settings.owner || (settings.may_create && settings.may_create_roles);
    let mut uses: Vec<&str> =
        USES.iter().filter(|(function, _)| may(function)).map(|(_, name)| *name).collect();
    if migrate {
        uses.push("migrate");
    }
    if uses.is_empty() {
        let fix = if schema == Verdict::Ok {
            "grant one of divvy_producer, divvy_worker, divvy_reader, divvy_operator to the role"
        } else {
            "let a role migrate that may create roles and in the database, or run divvy migrate --dump-sql | psql"
        };
        return fail("rights", "this role may do nothing here", fix);
    }
    let found = format!("this role may {}", uses.join(", "));
    if settings.superuser {
        return warn(
            "rights",
            format!("{found}; it is a superuser"),
            "give divvy a role of its own in production",
        );
    }
    ok("rights", found)
}

async fn schema(direct: &PgConnectOptions) -> Finding {
    match migrate::check(direct).await {
        Ok(Status::Current) => ok("schema", "current"),
        Ok(Status::Missing) => fail("schema", "missing", "run divvy migrate"),
        Ok(Status::Behind) => fail("schema", "older than this divvy", "run divvy migrate"),
        Ok(Status::Ahead) => fail("schema", "a newer divvy's", "use that divvy"),
        Err(error) => fail("schema", error.to_string(), "let a role that may read schema divvy look"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            fsync: true,
            full_page_writes: true,
            synchronous_commit: "on".into(),
            may_create: true,
            may_create_roles: false,
            superuser: false,
            owner: false,
        }
    }

    fn verdicts(settings: &Settings) -> [Verdict; 3] {
        durability(settings).map(|finding| finding.verdict)
    }

    #[test]
    fn settings_that_lose_commits_are_told_with_a_fix() {
        assert_eq!(verdicts(&settings()), [Verdict::Ok; 3]);
        let lax = Settings {
            fsync: false,
            full_page_writes: false,
            synchronous_commit: "off".into(),
            ..settings()
        };
        assert_eq!(verdicts(&lax), [Verdict::Fail, Verdict::Fail, Verdict::Warn]);
        assert!(durability(&lax).iter().all(|finding| finding.fix.is_some()));
        let remote = Settings { synchronous_commit: "remote_apply".into(), ..settings() };
        assert_eq!(verdicts(&remote), [Verdict::Ok; 3]);
    }
}
