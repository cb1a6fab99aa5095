// A divvy worker in Go: DATABASE_URL=postgres://… go run worker.go TYPE
//
// Its job: the sum of squares of a range of numbers. Each split has {"lo", "hi"}; reduce adds what they returned.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const slots = 4

// What a type is like that nobody has declared yet: it has a reduce, and a worker that dies is noticed after 3 s.
const options = `{"reduce": true, "lease": "3 s", "backoff": {"kind": "fixed", "base": 1}}`

type Split struct {
	id, token                           int64
	phase                               string
	payload, share, checkpoint, headers []byte
}

var errLater = errors.New("not finished: call me again")

// Your work. The context ends when nobody wants it any more.
func execute(ctx context.Context, split Split) (int64, error) {
	var payload struct {
		Seconds float64
		Poll    bool
	}
	var share struct{ Lo, Hi int64 }
	if err := errors.Join(json.Unmarshal(split.payload, &payload), json.Unmarshal(split.share, &share)); err != nil {
		return 0, err
	}
	select {
	case <-time.After(time.Duration(payload.Seconds * float64(time.Second))):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if payload.Poll && split.checkpoint == nil {
		return 0, errLater
	}
	var sum int64
	for n := share.Lo; n < share.Hi; n++ {
		sum += n * n
	}
	return sum, nil
}

// Your end of the task: the results come in pages, in the order of the splits.
func reduce(ctx context.Context, db pgx.Tx, split Split) (total int64, err error) {
	for after, more := 0, true; more; {
		more = false
		page, err := db.Query(ctx, "select split_no, status, result::text from divvy.reduce_inputs($1, $2, $3)", split.id, split.token, after)
		if err != nil {
			return 0, err
		}
		for page.Next() {
			var status string
			var result *string
			if err := page.Scan(&after, &status, &result); err != nil {
				return 0, err
			}
			if more = true; status == "succeeded" {
				var one int64
				if err := json.Unmarshal([]byte(*result), &one); err != nil {
					return 0, err
				}
				total += one
			}
		}
		if err := page.Err(); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// -- the worker --------------------------------------------------------------------------------------------------------
type Worker struct {
	pool       *pgxpool.Pool
	me         string
	task_types []string
	stop       context.CancelFunc
	mutex      sync.Mutex
	held       map[int64]Held // what the heartbeat renews
	quiet      bool
	ended      chan struct{}
}

type Held struct {
	token  int64
	cancel context.CancelFunc
}

func (w *Worker) run(split Split) {
	ctx, cancel := context.WithCancel(context.Background())
	w.mutex.Lock()
	w.held[split.id] = Held{split.token, cancel}
	w.mutex.Unlock()
	go func() {
		var refusal *pgconn.PgError
		err := w.work(ctx, split)
		if errors.As(err, &refusal) && (refusal.Code == "DV001" || refusal.Code == "DV002") {
			err = nil // lost, cancelled: nothing left to say
		}
		if err != nil {
			log.Printf("split %d: %v", split.id, err)
		}
		cancel()
		w.mutex.Lock()
		delete(w.held, split.id)
		w.mutex.Unlock()
		select {
		case w.ended <- struct{}{}:
		default:
		}
	}()
}

func (w *Worker) work(wanted context.Context, split Split) error {
	ctx := context.Background()
	var headers struct{ Traceparent string }
	if split.headers != nil && json.Unmarshal(split.headers, &headers) == nil && headers.Traceparent != "" {
		// Whoever made the task goes on in your spans.
		text := "in the trace " + headers.Traceparent
		if _, err := w.pool.Exec(ctx, "select divvy.log($1, $2, 'debug', $3)", split.id, split.token, text); err != nil {
			return err
		}
	}
	// What you write in here commits with the outcome, or not at all.
	err := pgx.BeginFunc(ctx, w.pool, func(db pgx.Tx) error {
		result, err := int64(0), error(nil)
		if split.phase == "reduce" {
			result, err = reduce(wanted, db, split)
		} else {
			result, err = execute(wanted, split)
		}
		if err == nil {
			_, err = db.Exec(ctx, "select divvy.complete($1, $2, to_jsonb($3::bigint))", split.id, split.token, result)
		}
		return err
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errLater):
		_, err = w.pool.Exec(ctx, `select divvy.snooze($1, $2, '1 s', '{"asked": 1}')`, split.id, split.token)
	case wanted.Err() != nil:
		_, err = w.pool.Exec(ctx, "select divvy.release($1, $2)", split.id, split.token)
	default:
		_, err = w.pool.Exec(ctx, "select divvy.fail($1, $2, jsonb_build_object('class', 'go', 'message', $3::text))", split.id, split.token, err.Error())
	}
	return err
}

// Renews the leases, and hears what is not wanted any more and what an operator wants.
func (w *Worker) beat() error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	ids, tokens := []int64{}, []int64{}
	for id, held := range w.held {
		ids, tokens = append(ids, id), append(tokens, held.token)
	}
	rows, err := w.pool.Query(context.Background(), "select split_id, verdict from divvy.heartbeat($1::uuid, $2, $3)", w.me, ids, tokens)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id *int64
		var verdict string
		if err := rows.Scan(&id, &verdict); err != nil {
			return err
		}
		switch {
		case id == nil: // for the worker itself: run, quiet or terminate
			w.quiet = verdict != "run"
			if verdict == "terminate" {
				w.stop()
			}
		case verdict != "ok":
			w.held[*id].cancel()
		}
	}
	return rows.Err()
}

// As many splits as may begin, and whether any are held.
func (w *Worker) claim() (splits []Split, holds bool, err error) {
	w.mutex.Lock()
	free := slots - len(w.held)
	holds = free < slots
	if w.quiet {
		free = 0
	}
	w.mutex.Unlock()
	if free == 0 {
		return nil, holds, nil
	}
	rows, err := w.pool.Query(context.Background(), "select split_id, token, phase, payload::text, split_payload::text, checkpoint::text, headers::text from divvy.claim($1::uuid, $2, $3)", w.me, w.task_types, free)
	if err != nil {
		return nil, holds, err
	}
	defer rows.Close()
	for rows.Next() {
		var split Split
		if err := rows.Scan(&split.id, &split.token, &split.phase, &split.payload, &split.share, &split.checkpoint, &split.headers); err != nil {
			return nil, holds, err
		}
		splits = append(splits, split)
	}
	return splits, holds, rows.Err()
}

func (w *Worker) serve(ctx context.Context) error {
	listener, err := w.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer listener.Release()
	if _, err := listener.Exec(ctx, "listen divvy_ready"); err != nil {
		return err
	}
	for ctx.Err() == nil {
		splits, holds, err := w.claim()
		if err != nil {
			return err
		}
		for _, split := range splits {
			if ctx.Err() != nil { // what has not begun goes back at once
				_, err = w.pool.Exec(context.Background(), "select divvy.release($1, $2)", split.id, split.token)
				if err != nil {
					return err
				}
				continue
			}
			w.run(split)
		}
		if len(splits) > 0 || ctx.Err() != nil {
			continue
		}
		// Sleep as long as the database says, or until something comes or ends.
		var seconds float64
		err = w.pool.QueryRow(context.Background(), "select extract(epoch from divvy.next_wait($1))::float8", w.task_types).Scan(&seconds)
		if err != nil {
			return err
		}
		if holds && seconds > 0.05 {
			seconds = 0.05
		}
		sleep, cancel := context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
		if _, err := listener.Conn().WaitForNotification(sleep); err != nil && sleep.Err() == nil {
			cancel()
			return err
		}
		cancel()
	}
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	config.MaxConns = 2*slots + 3 // work and its log, the listener, the heartbeat, the loop
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	w := &Worker{pool: pool, task_types: []string{os.Args[1]}, stop: stop, held: map[int64]Held{}, ended: make(chan struct{}, 1)}
	var every float64
	register := "select m.id::text, extract(epoch from r.heartbeat)::float8 from (select gen_random_uuid() as id) m, divvy.register_worker(m.id, 'go', $1, $2, jsonb_build_object('types', jsonb_build_object($3::text, $4::jsonb))) r"
	if err := pool.QueryRow(ctx, register, w.task_types, slots, os.Args[1], options).Scan(&w.me, &every); err != nil {
		log.Fatal(err)
	}
	go func() {
		for range time.Tick(time.Duration(every * float64(time.Second))) {
			if err := w.beat(); err != nil {
				log.Fatal("no heartbeat any more: ", err)
			}
		}
	}()
	if err := w.serve(ctx); err != nil {
		log.Fatal(err)
	}
	for { // what has begun may finish
		w.mutex.Lock()
		left := len(w.held)
		w.mutex.Unlock()
		if left == 0 {
			return
		}
		<-w.ended
	}
}
