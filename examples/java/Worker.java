// A divvy worker in Java: java -cp postgresql.jar Worker.java TYPE, with JDBC_URL=jdbc:postgresql://…
//
// Its job: the sum of squares of a range of numbers. Each split has {"lo", "hi"}; reduce adds what they returned.
// Java has no JSON of its own, so Postgres takes it apart; with a library you would read the columns as they are.
import java.sql.*;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;

public class Worker {
    static final String URL = System.getenv("JDBC_URL");
    static final UUID ME = UUID.randomUUID();
    static final int SLOTS = 4;
    // What a type is like that nobody has declared yet: it has a reduce, and a worker that dies is noticed after 3 s.
    static final String OPTIONS = "{\"reduce\": true, \"lease\": \"3 s\", \"backoff\": {\"kind\": \"fixed\", \"base\": 1}}";

    record Split(long id, long token, String phase, String trace, double seconds, long lo, long hi) {}
    static class Later extends RuntimeException {} // not finished: call me again

    /** Your work. An interrupt says that nobody wants it any more. */
    static long execute(Split split) throws InterruptedException {
        Thread.sleep((long) (1000 * split.seconds));
        long sum = 0;
        for (long n = split.lo; n < split.hi; n++) sum += n * n;
        return sum;
    }

    /** Your end of the task: the results come in pages, in the order of the splits. */
    static long reduce(Connection db, Split split) throws SQLException {
        long total = 0;
        for (int after = 0, last = -1; last != after; ) {
            last = after;
            for (Object[] row : rows(db, "select split_no, status, result #>> '{}' from divvy.reduce_inputs(?, ?, ?)", split.id, split.token, after)) {
                if (row[1].equals("succeeded")) total += Long.parseLong((String) row[2]);
                after = ((Number) row[0]).intValue();
            }
        }
        return total;
    }

    // -- the worker ---------------------------------------------------------------------------------------------------
    static final Map<Long, Long> held = new ConcurrentHashMap<>(); // split → token: what the heartbeat renews
    static final Map<Long, Thread> works = new ConcurrentHashMap<>();
    static volatile boolean stop, quiet, done;

    static void run(Split split) {
        works.put(split.id, Thread.currentThread());
        try (Connection db = DriverManager.getConnection(URL)) { // a pool, in a program of yours
            db.setAutoCommit(false); // what you write here commits with the outcome, or not at all
            try {
                if (split.trace != null) { // whoever made the task goes on in your spans
                    rows(db, "select divvy.log(?, ?, 'debug', ?)", split.id, split.token, "in the trace " + split.trace);
                    db.commit();
                }
                long result = split.phase.equals("reduce") ? reduce(db, split) : execute(split);
                rows(db, "select divvy.complete(?, ?, to_jsonb(?))", split.id, split.token, result);
            } catch (Later later) {
                db.rollback();
                rows(db, "select divvy.snooze(?, ?, '1 s')", split.id, split.token);
            } catch (InterruptedException unwanted) {
                db.rollback();
                rows(db, "select divvy.release(?, ?)", split.id, split.token);
            } catch (RuntimeException | SQLException error) {
                db.rollback();
                rows(db, "select divvy.fail(?, ?, jsonb_build_object('class', ?, 'message', ?))", split.id, split.token,
                    error.getClass().getName(), String.valueOf(error.getMessage()));
            }
            db.commit();
        } catch (SQLException error) { // lost and cancelled: nothing left to say. Else its lease ends, and it comes back
            if (!Set.of("DV001", "DV002").contains(error.getSQLState())) System.err.println("split " + split.id + ": " + error.getMessage());
        } finally {
            held.remove(split.id);
            works.remove(split.id);
            Thread.interrupted();
        }
    }

    /** Renews the leases, and hears what is not wanted any more and what an operator wants. */
    static void beat(double every) {
        try (Connection db = DriverManager.getConnection(URL)) {
            for (; !done; Thread.sleep((long) (1000 * every))) {
                var all = new TreeMap<>(held);
                Array splits = db.createArrayOf("bigint", all.keySet().toArray()), tokens = db.createArrayOf("bigint", all.values().toArray());
                for (Object[] row : rows(db, "select split_id, verdict from divvy.heartbeat(?, ?, ?)", ME, splits, tokens)) {
                    if (row[0] == null) { // for the worker itself: run, quiet or terminate
                        quiet = !row[1].equals("run");
                        stop |= row[1].equals("terminate");
                    } else if (!row[1].equals("ok")) {
                        works.computeIfPresent((long) row[0], (id, work) -> { work.interrupt(); return work; });
                    }
                }
            }
        } catch (Exception error) {
            System.err.println("no heartbeat any more: " + error.getMessage());
            stop = true;
        }
    }

    public static void main(String[] args) throws Exception {
        String type = args[0];
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> { // SIGTERM: what has begun may finish
            stop = true;
            try { main.join(); } catch (InterruptedException ignored) {}
            Runtime.getRuntime().halt(done ? 0 : 1);
        }));
        try (Connection db = DriverManager.getConnection(URL)) {
            Array types = db.createArrayOf("text", new String[] {type});
            String register = "select extract(epoch from heartbeat)::float8 from divvy.register_worker(?, 'java', ?, ?,"
                + " jsonb_build_object('types', jsonb_build_object(?, ?::jsonb)))";
            double every = (double) rows(db, register, ME, types, SLOTS, type, OPTIONS).get(0)[0];
            Thread heart = new Thread(() -> beat(every));
            heart.setDaemon(true);
            heart.start();
            db.createStatement().execute("listen divvy_ready");
            ExecutorService slots = Executors.newFixedThreadPool(SLOTS);
            while (!stop) {
                int free = quiet ? 0 : SLOTS - held.size();
                var splits = free == 0 ? List.<Object[]>of() : rows(db, "select split_id, token, phase, headers ->> 'traceparent', coalesce((payload ->> 'seconds')::float8, 0),"
                    + " coalesce((split_payload ->> 'lo')::bigint, 0), coalesce((split_payload ->> 'hi')::bigint, 0)"
                    + " from divvy.claim(?, ?, ?)", ME, types, free);
                for (Object[] row : splits) {
                    var split = new Split((long) row[0], (long) row[1], (String) row[2], (String) row[3], (double) row[4], (long) row[5], (long) row[6]);
                    if (stop) { // what has not begun goes back at once
                        rows(db, "select divvy.release(?, ?)", split.id, split.token);
                        continue;
                    }
                    held.put(split.id, split.token);
                    slots.execute(() -> run(split));
                }
                if (!splits.isEmpty()) continue;
                // Sleep as long as the database says, or until something comes.
                double wait = (double) rows(db, "select extract(epoch from divvy.next_wait(?))::float8", types).get(0)[0];
                db.unwrap(PGConnection.class).getNotifications((int) Math.max(1, 1000 * (held.isEmpty() ? wait : Math.min(wait, 0.02))));
            }
            slots.shutdown();
            slots.awaitTermination(1, TimeUnit.MINUTES);
            done = true;
        }
    }

    static List<Object[]> rows(Connection db, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = db.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
            var rows = new ArrayList<Object[]>();
            try (ResultSet result = statement.executeQuery()) {
                while (result.next()) {
                    var row = new Object[result.getMetaData().getColumnCount()];
                    for (int i = 0; i < row.length; i++) row[i] = result.getObject(i + 1);
                    rows.add(row);
                }
            }
            return rows;
        }
    }
}
