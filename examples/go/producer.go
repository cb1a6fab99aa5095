// What a producer does, in Go: DATABASE_URL=postgres://… go run producer.go TYPE
//
// The last thing it makes is a task of 60 splits for worker.go; it waits for the result and prints it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

func main() {
	ctx, task_type := context.Background(), os.Args[1]
	db, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	must(err)
	_, err = db.Exec(ctx, "create temporary table purchase (id bigint generated always as identity, what text)")
	must(err)

	// Your rows and the task commit together …
	const insert = "insert into divvy.task (task_type, payload, run_at) values ($1, $2::text::jsonb, 'tomorrow') returning id"
	var kept, gone int64
	must(pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "insert into purchase (what) values ('a book')"); err != nil {
			return err
		}
		return tx.QueryRow(ctx, insert, task_type, `{"order": "a book"}`).Scan(&kept)
	}))

	// … or not at all.
	tx, err := db.Begin(ctx)
	must(err)
	_, err = tx.Exec(ctx, "insert into purchase (what) values ('a ship')")
	must(err)
	must(tx.QueryRow(ctx, insert, task_type, "{}").Scan(&gone))
	must(tx.Rollback(ctx))

	var what, status string
	must(db.QueryRow(ctx, "select string_agg(what, ', ') from purchase").Scan(&what))
	check(what, "a book")
	must(db.QueryRow(ctx, "select status from divvy.task_result($1)", kept).Scan(&status))
	check(status, "scheduled")
	var count int64
	must(db.QueryRow(ctx, "select count(*) from divvy.task_overview where task_id = $1", gone).Scan(&count))
	check(count, int64(0))

	// Many at once: COPY.
	rows := [][]any{}
	for n := 0; n < 1000; n++ {
		rows = append(rows, []any{task_type, map[string]int{"n": n}, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)})
	}
	_, err = db.CopyFrom(ctx, pgx.Identifier{"divvy", "task"}, []string{"task_type", "payload", "run_at"}, pgx.CopyFromRows(rows))
	must(err)

	// At most one open task with a key: the second is none.
	const once = "insert into divvy.task (task_type, dedupe_key, run_at) values ($1, $2, 'tomorrow') on conflict do nothing returning id"
	var first, second int64
	key := fmt.Sprint("after task ", kept)
	must(db.QueryRow(ctx, once, task_type, key).Scan(&first))
	check(errors.Is(db.QueryRow(ctx, once, task_type, key).Scan(&second), pgx.ErrNoRows), true)

	// A divided task: 60 ranges of 100 numbers. Headers go to every split; a traceparent continues your trace.
	seconds, err := strconv.ParseFloat(os.Getenv("SECONDS_PER_SPLIT"), 64)
	if err != nil {
		seconds = 0.02
	}
	var task int64
	must(db.QueryRow(ctx, `insert into divvy.task (task_type, payload, split_range, split_size, headers)
		values ($1, jsonb_build_object('seconds', $2::float8), '[0,6000)', 100, $3::text::jsonb) returning id`, task_type, seconds,
		`{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}`).Scan(&task))

	// How it ended, or where it stands.
	for ended := false; !ended; time.Sleep(50 * time.Millisecond) {
		must(db.QueryRow(ctx, "select finished_at is not null from divvy.task_result($1)", task).Scan(&ended))
	}
	must(db.QueryRow(ctx, "select status || ' ' || result from divvy.task_result($1)", task).Scan(&what))
	fmt.Println(task, what)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func check(is, should any) {
	if is != should {
		log.Fatalf("%v is not %v", is, should)
	}
}
