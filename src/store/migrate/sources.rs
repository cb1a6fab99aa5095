//! The SQL files, built into the program. A test compares these lists with the directories.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType};

/// This divvy's version; the rules of a newer one are never replaced by an older one's.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One SQL file.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The path inside the package, such as `migrations/0001_tables.sql`.
    pub file: &'static str,
    /// The file's text.
    pub text: &'static str,
}

macro_rules! sources {
    ($($file:literal),* $(,)?) => {
        &[$(Source { file: $file, text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $file)) }),*]
    };
}

/// The tables' history, in order; up only, never edited after a release.
pub const MIGRATIONS: &[Source] = sources![
    "migrations/0001_tables.sql",
    "migrations/0002_light_claims.sql",
    "migrations/0003_limits.sql",
    "migrations/0004_stretches.sql",
    "migrations/0005_schedules.sql",
    "migrations/0006_ends.sql",
    "migrations/0007_unnamed_moments.sql",
    "migrations/0008_http.sql",
    "migrations/0009_late_writers.sql",
    "migrations/0010_keys.sql",
    "migrations/0011_operating.sql",
    "migrations/0012_http_handlers.sql",
    "migrations/0013_runs.sql",
    "migrations/0014_alerts.sql",
    "migrations/0015_aside.sql",
    "migrations/0016_marks.sql",
    "migrations/0017_pieces.sql",
    "migrations/0018_labels.sql",
];

/// The rules: functions and views, in the order in which they are applied.
pub const RULES: &[Source] = sources![
    "sql/10_check.sql",
    "sql/20_enqueue.sql",
    "sql/30_type.sql",
    "sql/35_sql_type.sql",
    "sql/36_exec_type.sql",
    "sql/37_http_type.sql",
    "sql/38_secret.sql",
    "sql/40_claim.sql",
    "sql/41_turn.sql",
    "sql/42_pick.sql",
    "sql/43_limit.sql",
    "sql/43_rate.sql",
    "sql/44_choose.sql",
    "sql/44_fair.sql",
    "sql/45_lease.sql",
    "sql/46_stretch.sql",
    "sql/47_rowless.sql",
    "sql/48_dropped.sql",
    "sql/49_aside.sql",
    "sql/50_complete.sql",
    "sql/51_run.sql",
    "sql/55_attempt.sql",
    "sql/57_callback.sql",
    "sql/60_reduce.sql",
    "sql/70_operate.sql",
    "sql/72_pause.sql",
    "sql/73_breaker.sql",
    "sql/74_bulk.sql",
    "sql/75_schedule.sql",
    "sql/76_fire.sql",
    "sql/76_fire_many.sql",
    "sql/76_plan.sql",
    "sql/77_overlap.sql",
    "sql/78_edit.sql",
    "sql/79_calendar.sql",
    "sql/80_duty.sql",
    "sql/81_mark.sql",
    "sql/82_prune.sql",
    "sql/83_sample.sql",
    "sql/84_rest.sql",
    "sql/85_token.sql",
    "sql/86_answer.sql",
    "sql/88_count.sql",
    "sql/90_views.sql",
    "sql/92_lookup.sql",
    "sql/94_explain.sql",
    "sql/95_alert.sql",
    "sql/99_rights.sql",
];

impl Source {
    /// The file's name without folder and ending, such as `0001_tables`.
    pub fn name(&self) -> &'static str {
        let name = self.file.rsplit('/').next().unwrap_or(self.file);
        name.strip_suffix(".sql").unwrap_or(name)
    }

    /// The leading number of the name; 0 where there is none, which a test excludes.
    pub fn number(&self) -> i32 {
        self.name().split('_').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// The SHA-384 of the text, in hexadecimal.
    pub fn checksum(&self) -> String {
        checksum(self.text.to_owned())
    }
}

/// The checksum of all rules together.
pub(super) fn rules_checksum() -> String {
    checksum(whole(RULES))
}

/// The checksum of everything `migrate` would apply to an empty database: equal fingerprints, equal schema.
pub fn fingerprint() -> String {
    checksum(whole(MIGRATIONS) + &whole(RULES))
}

fn whole(sources: &[Source]) -> String {
    sources.iter().map(|source| format!("-- {}\n{}\n", source.file, source.text)).collect()
}

/// sqlx computes the digest for its own migrations; ours use the same one instead of a second library.
fn checksum(text: String) -> String {
    let text = sqlx::AssertSqlSafe(text).into_sql_str();
    let digest = Migration::new(0, "".into(), MigrationType::Simple, text, false).checksum;
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
