//! Tests that run over both ways of storing the splits of a divided task, as rows and in stretches (ADR 11).

/// Makes two tests of each function: `over_rows::…` and `over_stretches::…`. The function is given a database of which
/// the splits of every divided task, however few, are stored this way; a test without any would prove nothing.
macro_rules! over_both {
    ($($test:ident),+ $(,)?) => {
        mod over_rows {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $test() {
                let db = std::sync::Arc::new($crate::support::db::TestDb::all_in_rows().await);
                super::$test(db.clone()).await;
                assert!(!db.has_had_stretches().await, "this was to run over rows alone");
            })+
        }
        mod over_stretches {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $test() {
                let db = std::sync::Arc::new($crate::support::db::TestDb::all_in_stretches().await);
                super::$test(db.clone()).await;
                assert!(db.has_had_stretches().await, "no split of this test has lain in a stretch");
            })+
        }
    };
}

pub(crate) use over_both;
