//! What a command is told of a split by its environment: the request in short.

use crate::handler::Context;
use crate::store::claim::Claimed;
use tokio::process::Command;

/// The variables of a command that is started for one split.
pub(super) fn set_variables(command: &mut Command, context: &Context<'_>) {
    let Claimed {
        split_id, task_id, phase, split_no, split_count, attempt, max_attempts, token, epoch, ..
    } = context.claimed();
    command
        .env("DIVVY_TASK_ID", task_id.to_string())
        .env("DIVVY_SPLIT_ID", split_id.to_string())
        .env("DIVVY_TASK_TYPE", context.task_type())
        .env("DIVVY_PHASE", phase.as_str())
        .env("DIVVY_SPLIT_NO", split_no.to_string())
        .env("DIVVY_SPLIT_COUNT", split_count.to_string())
        .env("DIVVY_ATTEMPT", attempt.to_string())
        .env("DIVVY_MAX_ATTEMPTS", max_attempts.to_string())
        .env("DIVVY_EPOCH", epoch.to_string())
        .env("DIVVY_TOKEN", token.to_string())
        .env("DIVVY_IDEMPOTENCY_KEY", context.idempotency_key());
    // A trace of divvy's own process is not the task's.
    for (name, value) in [("TRACEPARENT", context.traceparent()), ("TRACESTATE", context.tracestate())] {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}
