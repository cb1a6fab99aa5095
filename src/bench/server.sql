select current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit'),
    current_setting('full_page_writes'), current_setting('shared_buffers'), current_setting('max_wal_size'),
    to_char(now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    -- A superuser's, or of a member of pg_read_all_settings; others don't see the row.
    (select s.setting from pg_settings s where s.name = 'data_directory'),
    -- Their queries and their ends are in the server's CPU time. Our own connections don't count.
    (select count(*) from pg_stat_activity a where a.backend_type = 'client backend'
        and not (a.application_name like 'divvy%' and a.datname = current_database()))
