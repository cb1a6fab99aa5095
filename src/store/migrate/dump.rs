//! The whole schema as one psql script, for people who apply SQL themselves.

use super::sources::{MIGRATIONS, RULES, VERSION, rules_checksum};
use super::{BOOKKEEPING, RIGHTS, SETTINGS, roles};
use std::fmt::Write;

/// Everything `migrate` would do, as a script for `psql`: run it as a role that may create roles and schemas.
/// It may be run again: migrations that are already there are skipped, rules are replaced.
pub fn dump() -> String {
    let mut script = format!(
        "-- The schema of divvy {VERSION}, complete. Apply it with psql; running it again is harmless.\n\
         \\set ON_ERROR_STOP on\n{}\nbegin;\n{SETTINGS}\n{}\nset local role divvy_owner;\n{BOOKKEEPING}\n",
        roles::ROLES,
        roles::SCHEMA
    );
    for source in MIGRATIONS {
        let (version, name, checksum) = (source.number(), source.name(), source.checksum());
        // Writing to a String cannot fail.
        let _ = write!(
            script,
            "\n-- {file}\n\
             select not exists (select from divvy.migration where version = {version}) as divvy_todo \\gset\n\
             \\if :divvy_todo\n{text}\n\
             insert into divvy.migration (version, name, checksum) values ({version}, '{name}', '{checksum}');\n\
             \\endif\n",
            file = source.file,
            text = source.text
        );
    }
    for source in RULES {
        let _ = write!(script, "\n-- {}\n{}\n", source.file, source.text);
    }
    let _ = write!(
        script,
        "\n{RIGHTS}\n\
         insert into divvy.protocol_source (version, checksum) values ('{VERSION}', '{}')\n\
         on conflict (one) do update\n\
         set version = excluded.version, checksum = excluded.checksum, applied_at = excluded.applied_at;\n\
         commit;\n",
        rules_checksum()
    );
    script
}
