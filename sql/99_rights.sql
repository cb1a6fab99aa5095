-- Who may do what. The roles exist already (divvy migrate makes them, NOLOGIN); grant them to your own:
-- divvy_producer to enqueue, divvy_worker to work, divvy_reader to look, divvy_operator to intervene.

revoke all on schema divvy from public;
revoke all on all tables in schema divvy from public;
revoke all on all functions in schema divvy from public;
grant usage on schema divvy to divvy_producer, divvy_worker, divvy_reader, divvy_operator;

-- Producers write these columns and no others; SELECT (id) lets RETURNING work.
grant insert (task_type, payload, run_at, priority, dedupe_key, group_key, labels, headers, deadline_at, splits, split_count, split_range,
    split_size, max_attempts, timeout, max_failed, max_failed_percent, reduce_on, "then"), select (id) on divvy.task to divvy_producer;
grant insert (name, task_type, payload, steps, run_at, cron, every, timezone, overlap, catch_up, catch_up_max, catch_up_window,
    catch_up_pace, dst_gap, dst_fold, jitter, starts_at, ends_at, max_runs, stop_on_success, pause_on_failure, anchor, calendar, calendar_shift, priority, dedupe_key, group_key, labels, headers, splits, split_count, split_range,
    split_size, max_attempts, timeout, max_failed, max_failed_percent, reduce_on, "then"), select (id) on divvy.schedule to divvy_producer;
grant usage on sequence divvy.id, divvy.key to divvy_producer;
grant execute on function divvy.clock() to divvy_producer, divvy_worker, divvy_reader, divvy_operator;
grant execute on function divvy.enqueue, divvy.enqueue_many, divvy.task_result to divvy_producer, divvy_operator;

grant execute on function divvy.protocol, divvy.register_worker, divvy.claim, divvy.next_wait, divvy.heartbeat, divvy.complete, divvy.complete_many,
    divvy.complete_and_claim, divvy.exchange, divvy.fail, divvy.snooze, divvy.release, divvy.checkpoint, divvy.log, divvy.add_splits, divvy.reduce_inputs,
    divvy.tick, divvy.write_down_old, divvy.promote, divvy.reclaim, divvy.settle, divvy.prune, divvy.take_sample, divvy.look_for_alerts, divvy.advance_low_water, divvy.fire_due, divvy.schedules_to_plan,
    divvy.plan_schedule, divvy.refuse_schedule, divvy.lead, divvy.rests, divvy.lock_of, divvy.task_result to divvy_worker;

grant select on divvy.task, divvy.share, divvy.unit, divvy.schedule, divvy.schedule_fire, divvy.task_type, divvy.worker, divvy.event, divvy.lease,
    divvy.leader, divvy.calendar, divvy.calendar_date, divvy.split_log, divvy.stretch, divvy.given, divvy.ended, divvy.dropped, divvy.leased_split, divvy.held_split, divvy.rowless_split,
    divvy.split, divvy.split_attempt, divvy.task_overview, divvy.task_progress, divvy.split_overview, divvy.type_stats, divvy.full_type,
    divvy.worker_overview, divvy.schedule_overview, divvy.dead_splits, divvy.database_health, divvy.metric_minute, divvy.alert_overview to divvy_reader, divvy_operator, divvy_worker;
-- What the views call, and one split by its id.
grant execute on function divvy.numbers, divvy.ended_through, divvy.payload_of, divvy.split_by_id, divvy.attempts_by_id, divvy.explain, divvy.fingerprint, divvy.somebody_leads, divvy.findings,
    divvy.waiting_of, divvy.running_by_type, divvy.running_by_worker, divvy.scheduled_by_type, divvy.may_start, divvy.idle_span
    to divvy_reader, divvy_operator, divvy_worker;

grant execute on function divvy.put_task_type, divvy.drop_task_type, divvy.cancel, divvy.cancel_by_key, divvy.redrive, divvy.update_task, divvy.pause,
    divvy.resume, divvy.pause_task, divvy.resume_task, divvy.reschedule, divvy.skip_split, divvy.forget, divvy.bulk, divvy.silence_alert, divvy.worker_command, divvy.pause_schedule,
    divvy.resume_schedule, divvy.trigger_schedule, divvy.cancel_schedule, divvy.put_schedule, divvy.backfill_schedule, divvy.put_calendar,
    divvy.drop_calendar to divvy_operator;
-- Who changes a cron schedule plans first what is due of it; a preview asks where moments are moved to.
grant execute on function divvy.schedules_to_plan, divvy.plan_schedule to divvy_operator;
grant execute on function divvy.due_times to divvy_reader, divvy_operator, divvy_worker;

-- The HTTP API acts for whoever shows a token; who may make one may do all that its scopes say.
grant execute on function divvy.token_of, divvy.act_as, divvy.take_key, divvy.keep_answer to divvy_producer, divvy_worker, divvy_reader, divvy_operator;
grant execute on function divvy.create_token, divvy.revoke_token to divvy_operator;
grant select on divvy.token_overview to divvy_operator;

-- Those who push need the secrets; those who look after them see their names.
grant execute on function divvy.secret_values, divvy.await_callback, divvy.callback_token, divvy.open_breaker, divvy.probe_breaker, divvy.close_breaker
    to divvy_worker;
grant execute on function divvy.create_secret, divvy.rotate_secret, divvy.drop_secret to divvy_operator;
grant select on divvy.secret_overview to divvy_operator;
grant select on divvy.http_type, divvy.breaker to divvy_reader, divvy_operator, divvy_worker;
