// What a producer does, in Java: java -cp postgresql.jar Producer.java TYPE, with JDBC_URL=jdbc:postgresql://…
//
// The last thing it makes is a task of 60 splits for Worker.java; it waits for the result and prints it.
import java.sql.*;

public class Producer {
    public static void main(String[] args) throws Exception {
        String type = args[0];
        String seconds = System.getenv().getOrDefault("SECONDS_PER_SPLIT", "0.02");
        try (Connection db = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
            db.createStatement().execute("create temporary table purchase (id bigint generated always as identity, what text)");
            db.setAutoCommit(false);

            // Your rows and the task commit together …
            String insert = "insert into divvy.task (task_type, payload, run_at) values (?, ?::jsonb, 'tomorrow') returning id";
            db.createStatement().execute("insert into purchase (what) values ('a book')");
            long kept = (long) one(db, insert, type, "{\"order\": \"a book\"}");
            db.commit();

            // … or not at all.
            db.createStatement().execute("insert into purchase (what) values ('a ship')");
            long gone = (long) one(db, insert, type, "{}");
            db.rollback();

            check(one(db, "select string_agg(what, ', ') from purchase"), "a book");
            check(one(db, "select status from divvy.task_result(?)", kept), "scheduled");
            check(one(db, "select count(*) from divvy.task_overview where task_id = ?", gone), 0L);

            // Many at once: a batch.
            try (PreparedStatement many = db.prepareStatement("insert into divvy.task (task_type, payload, run_at) values (?, ?::jsonb, '2100-01-01')")) {
                for (int n = 0; n < 1000; n++) {
                    many.setString(1, type);
                    many.setString(2, "{\"n\": " + n + "}");
                    many.addBatch();
                }
                many.executeBatch();
            }

            // At most one open task with a key: the second is none.
            String once = "insert into divvy.task (task_type, dedupe_key, run_at) values (?, ?, 'tomorrow') on conflict do nothing returning id";
            String key = "after task " + kept;
            Object first = one(db, once, type, key), second = one(db, once, type, key);
            check(first != null && second == null, true);

            // A divided task: 60 ranges of 100 numbers. Headers go to every split; a traceparent continues your trace.
            long task = (long) one(db, "insert into divvy.task (task_type, payload, split_range, split_size, headers)"
                + " values (?, jsonb_build_object('seconds', ?::float8), '[0,6000)', 100, ?::jsonb) returning id", type, seconds,
                "{\"traceparent\": \"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}");
            db.commit();

            // How it ended, or where it stands.
            db.setAutoCommit(true);
            while (one(db, "select finished_at from divvy.task_result(?)", task) == null) Thread.sleep(50);
            System.out.println(task + " " + one(db, "select status || ' ' || result from divvy.task_result(?)", task));
        }
    }

    /** The first value of the first row, or null. */
    static Object one(Connection db, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = db.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
            try (ResultSet result = statement.executeQuery()) {
                return result.next() ? result.getObject(1) : null;
            }
        }
    }

    static void check(Object is, Object should) {
        if (!is.equals(should)) throw new IllegalStateException(is + " is not " + should);
    }
}
