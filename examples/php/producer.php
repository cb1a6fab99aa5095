<?php
// What a producer does, in PHP: DATABASE_URL=postgres://… php producer.php TYPE
//
// The last thing it makes is a task of 60 splits for worker.php; it waits for the result and prints it.
declare(strict_types=1);

$type = $argv[1];
$db = pg_connect(getenv('DATABASE_URL')) ?: exit(1);
$rows = function (string $sql, mixed ...$values) use ($db): array {
    $result = pg_query_params($db, $sql, $values) ?: throw new RuntimeException(pg_last_error($db));
    return pg_fetch_all($result);
};
$check = function (mixed $is, mixed $should): void {
    $is === $should || throw new RuntimeException(json_encode($is) . ' is not ' . json_encode($should));
};
$rows('create temporary table purchase (id bigint generated always as identity, what text)');

// Your rows and the task commit together …
$insert = "insert into divvy.task (task_type, payload, run_at) values ($1, $2, 'tomorrow') returning id";
$rows('begin');
$rows("insert into purchase (what) values ('a book')");
$kept = $rows($insert, $type, json_encode(['order' => 'a book']))[0]['id'];
$rows('commit');

// … or not at all.
$rows('begin');
$rows("insert into purchase (what) values ('a ship')");
$gone = $rows($insert, $type, '{}')[0]['id'];
$rows('rollback');

$check($rows('select what from purchase'), [['what' => 'a book']]);
$check($rows('select status from divvy.task_result($1)', $kept), [['status' => 'scheduled']]);
$check($rows('select 1 from divvy.task_overview where task_id = $1', $gone), []);

// Many at once: one statement, one parameter.
$many = json_encode(array_map(fn (int $n) => ['n' => $n], range(0, 999)));
$rows("insert into divvy.task (task_type, payload, run_at) select $1, t, '2100-01-01' from jsonb_array_elements($2) t", $type, $many);

// At most one open task with a key: the second is none.
$once = "insert into divvy.task (task_type, dedupe_key, run_at) values ($1, $2, 'tomorrow') on conflict do nothing returning id";
$key = "after task $kept";
$check([count($rows($once, $type, $key)), count($rows($once, $type, $key))], [1, 0]);

// A divided task: 60 ranges of 100 numbers. Headers go to every split; a traceparent continues your trace.
$divided = "insert into divvy.task (task_type, payload, split_range, split_size, headers) values ($1, $2, '[0,6000)', 100, $3) returning id";
$payload = json_encode(['seconds' => (float) (getenv('SECONDS_PER_SPLIT') ?: 0.02)]);
$headers = json_encode(['traceparent' => '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01']);
$task = $rows($divided, $type, $payload, $headers)[0]['id'];

// How it ended, or where it stands.
while (!($ended = $rows('select * from divvy.task_result($1)', $task)[0])['finished_at']) {
    usleep(50_000);
}
echo "$task {$ended['status']} {$ended['result']}\n";
