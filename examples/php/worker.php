<?php
// A divvy worker in PHP: DATABASE_URL=postgres://… php worker.php TYPE
//
// Its job: the sum of squares of a range of numbers. Each split has {"lo", "hi"}; reduce adds what they returned.
// It works on one split at a time: PHP has no threads, so a timer interrupts the work for a heartbeat.
declare(strict_types=1);

$type = $argv[1];
$me = sprintf('%s-%s-%s-%s-%s', ...array_map('bin2hex', array_map('random_bytes', [4, 2, 2, 2, 6])));
// What a type is like that nobody has declared yet: it has a reduce, and a worker that dies is noticed after 3 s.
$meta = ['types' => [$type => ['reduce' => true, 'lease' => '3 s', 'backoff' => ['kind' => 'fixed', 'base' => 1]]]];

/** What the database refuses, with its code. */
final class Refused extends RuntimeException
{
    public function __construct(string $message, public readonly string $state)
    {
        parent::__construct($message);
    }
}
/** The split is not wanted any more. */
final class Cancelled extends Exception {}
/** Not finished: call me again. */
final class Later extends Exception {}

/** Your work. It looks now and then whether it is still wanted. */
function execute(array $payload, array $share, ?array $checkpoint, callable $look): int
{
    for ($until = microtime(true) + ($payload['seconds'] ?? 0); ($left = $until - microtime(true)) > 0; $look()) {
        usleep((int) (1e6 * min($left, 0.1)));
    }
    if (isset($payload['poll']) && $checkpoint === null) {
        throw new Later();
    }
    $sum = 0;
    for ($n = $share['lo']; $n < $share['hi']; $n++) {
        $sum += $n * $n;
    }
    return $sum;
}

/** Your end of the task: the results come in pages, in the order of the splits. */
function reduce($db, array $held): int
{
    $total = $after = 0;
    while ($page = rows($db, 'select * from divvy.reduce_inputs($1, $2, $3)', ...[...$held, $after])) {
        foreach ($page as $input) {
            $total += $input['status'] === 'succeeded' ? json_decode($input['result']) : 0;
        }
        $after = end($page)['split_no'];
    }
    return $total;
}

// -- the worker -------------------------------------------------------------------------------------------------------
function connect()
{
    return pg_connect(getenv('DATABASE_URL'), PGSQL_CONNECT_FORCE_NEW) ?: exit(1);
}

function rows($db, string $sql, mixed ...$values): array
{
    pg_send_query_params($db, $sql, $values) ?: throw new Refused(pg_last_error($db), '');
    $result = pg_get_result($db) ?: throw new Refused(pg_last_error($db), '');
    while (pg_get_result($db)) {
    }
    if ($state = pg_result_error_field($result, PGSQL_DIAG_SQLSTATE)) {
        throw new Refused(pg_result_error($result), $state);
    }
    return pg_fetch_all($result);
}

function run($db, array $split, callable $look): void
{
    $held = [$split['split_id'], $split['token']];
    try {
        $trace = json_decode($split['headers'] ?? '{}', true)['traceparent'] ?? null;
        if ($trace !== null) { // whoever made the task goes on in your spans
            rows($db, "select divvy.log($1, $2, 'debug', $3)", ...[...$held, "in the trace $trace"]);
        }
        try {
            rows($db, 'begin'); // what you write on this connection commits with the outcome, or not at all
            [$payload, $share, $checkpoint] = array_map(
                fn (?string $json) => $json === null ? null : json_decode($json, true),
                [$split['payload'], $split['split_payload'], $split['checkpoint']],
            );
            $result = $split['phase'] === 'reduce' ? reduce($db, $held) : execute($payload, $share, $checkpoint, $look);
            // A heartbeat in between would wait for this transaction, and this for the heartbeat.
            pcntl_sigprocmask(SIG_BLOCK, [SIGALRM]);
            rows($db, 'select divvy.complete($1, $2, $3)', ...[...$held, json_encode($result)]);
            rows($db, 'commit');
        } catch (Throwable $error) {
            rows($db, 'rollback');
            pcntl_sigprocmask(SIG_UNBLOCK, [SIGALRM]);
            match (true) {
                $error instanceof Later => rows($db, "select divvy.snooze($1, $2, '1 s', '{\"asked\": 1}')", ...$held),
                $error instanceof Cancelled => rows($db, 'select divvy.release($1, $2)', ...$held),
                default => rows($db, 'select divvy.fail($1, $2, $3)', ...[
                    ...$held,
                    json_encode(['class' => $error::class, 'message' => $error->getMessage()]),
                ]),
            };
        }
    } catch (Refused $refused) {
        if (!in_array($refused->state, ['DV001', 'DV002'], true)) { // lost, cancelled: nothing left to say
            throw $refused;
        }
    } finally {
        pcntl_sigprocmask(SIG_UNBLOCK, [SIGALRM]);
    }
}

[$db, $heart] = [connect(), connect()];
[$stop, $quiet, $unwanted, $held] = [false, false, false, null]; // held: the split and its token
$register = 'select extract(epoch from heartbeat)::float8 as every from divvy.register_worker($1, \'php\', array[$2], 1, $3)';
$every = max(1, (int) rows($db, $register, $me, $type, json_encode($meta))[0]['every']);

// Renews the lease, and hears what is not wanted any more and what an operator wants.
$beat = function () use ($heart, $me, $every, &$held, &$stop, &$quiet, &$unwanted): void {
    $sql = 'select split_id, verdict from divvy.heartbeat($1, array_remove(array[$2::bigint], null), array_remove(array[$3::bigint], null))';
    foreach (rows($heart, $sql, $me, $held[0] ?? null, $held[1] ?? null) as ['split_id' => $id, 'verdict' => $verdict]) {
        if ($id === null) { // for the worker itself: run, quiet or terminate
            $quiet = $verdict !== 'run';
            $stop = $stop || $verdict === 'terminate';
        } elseif ($verdict !== 'ok' && $id === ($held[0] ?? null)) {
            $unwanted = true;
        }
    }
    pcntl_alarm($every);
};
$look = function () use (&$unwanted): void {
    $unwanted && throw new Cancelled();
};
pcntl_async_signals(true);
pcntl_signal(SIGALRM, $beat);
foreach ([SIGTERM, SIGINT] as $signal) {
    pcntl_signal($signal, function () use (&$stop): void {
        $stop = true;
    });
}
pcntl_alarm($every);

rows($db, 'listen divvy_ready');
while (!$stop) {
    $splits = $quiet ? [] : rows($db, 'select * from divvy.claim($1, array[$2], 1)', $me, $type);
    foreach ($splits as $split) {
        [$held, $unwanted] = [[$split['split_id'], $split['token']], false];
        if ($stop) { // what has not begun goes back at once
            rows($db, 'select divvy.release($1, $2)', ...$held);
        } else {
            run($db, $split, $look);
        }
        $held = null;
    }
    if (!$splits && !$stop) { // sleep as long as the database says, or until something comes; a signal ends the sleep
        $wait = (float) rows($db, 'select extract(epoch from divvy.next_wait(array[$1]))::float8 as wait', $type)[0]['wait'];
        $read = [pg_socket($db)];
        $none = null;
        @stream_select($read, $none, $none, (int) $wait, (int) (1e6 * fmod($wait, 1)));
        while (pg_get_notify($db)) {
        }
    }
}
