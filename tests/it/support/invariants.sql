-- What holds of every row after every statement. Rows in production are spared the look: it would cost a tenth of a single insert.

alter table divvy.unit
    add constraint running_has_token check (state <> 'running' or token is not null);
alter table divvy.task
    add constraint final_has_finished_at
        check ((status in ('succeeded', 'partial', 'failed', 'cancelled')) = (finished_at is not null)),
    add constraint waiting_has_a_key_below_zero
        check ((coalesce(state = 'delayed', false) or status = 'scheduled') = (key < 0)),
    add constraint scheduled_is_no_split
        check ((status = 'scheduled') = (key < 0 and phase is null)),
    add constraint divided_is_watched
        check ((status = 'running' and phase is null) = (key > 0 and phase is null and watched)),
    add constraint open_is_watched_and_ended_not
        check (watched = (finished_at is null) or (watched and phase is not null and num_nonnulls(deadline_at, cancel_requested_at) = 0));
alter table divvy.share
    add constraint waiting_has_a_key_below_zero
        check ((state = 'delayed') = (key < 0));
