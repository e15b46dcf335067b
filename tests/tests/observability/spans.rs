//! The span of a body under its lock, and `#[instrument]` together with `#[locked]`.

use lock::{Error, Locks, locked};
use tracing::instrument;

use crate::subscriber::{listen, told_of};

/// The names and ids of the spans around the event with this id and these words.
fn spans_of(id: &str, words: &str) -> Vec<(String, String)> {
    let said = told_of(id).into_iter().find(|said| said.message().contains(words));
    said.unwrap_or_else(|| panic!("nothing with {words:?}")).spans
}

fn named(spans: &[(&str, &str)]) -> Vec<(String, String)> {
    spans.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect()
}

#[tokio::test]
async fn a_body_runs_in_the_span_of_its_lock() {
    listen();
    let locks = Locks::in_memory();
    let body = |_| async {
        tokio::task::yield_now().await;
        tracing::info!(id = "body", "it works");
    };
    locks.lock("spanned").with(body).await.unwrap();
    assert_eq!(spans_of("body", "it works"), named(&[("locked", "spanned")]));
    assert_eq!(spans_of("spanned", "granted"), [], "the wait is not in it");
    assert_eq!(spans_of("spanned", "given up"), [], "and the release is not");
    tracing::info!(id = "after", "it is over");
    assert_eq!(spans_of("after", "it is over"), [], "the span was left");
}

#[tokio::test(start_paused = true)]
async fn a_run_and_each_of_several_locks_has_a_span() {
    #[locked(id = "outer", locks = locks)]
    #[locked(id = "inner", locks = locks)]
    async fn both(locks: Locks) -> Result<(), Error> {
        tracing::info!(id = "both", "under both");
        Ok(())
    }

    listen();
    let locks = Locks::in_memory();
    both(locks.clone()).await.unwrap();
    assert_eq!(spans_of("both", "under both"), named(&[("locked", "outer"), ("locked", "inner")]));
    let run = locks.debounce("spanned run").call(async || tracing::info!(id = "run", "it runs"));
    run.await.unwrap();
    assert_eq!(spans_of("run", "it runs"), named(&[("locked", "spanned run")]));
}

/// Above: `#[locked]` gets a function whose body has the span.
#[instrument(fields(id = "above"), skip_all)]
#[locked(id = "instrumented above", locks = locks)]
async fn above(locks: Locks) -> Result<(), Error> {
    tracing::info!(id = "in above", "the body");
    Ok(())
}

/// Below: `#[instrument]` gets the function that `#[locked]` has generated.
#[locked(id = "instrumented below", locks = locks)]
#[instrument(fields(id = "below"), skip_all)]
async fn below(locks: Locks) -> Result<(), Error> {
    tracing::info!(id = "in below", "the body");
    Ok(())
}

#[tokio::test]
async fn an_instrumented_function_shows_the_wait_or_the_body() {
    listen();
    let locks = Locks::in_memory();
    above(locks.clone()).await.unwrap();
    below(locks).await.unwrap();
    let of = |name| {
        let id = format!("instrumented {name}");
        let spans = [
            spans_of(&id, "is requested"),
            spans_of(&id, "granted"),
            spans_of(&format!("in {name}"), "the body"),
            spans_of(&id, "given up"),
        ];
        spans.map(|spans| spans.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(of("above"), ["", "", "locked above", ""], "the body alone");
    assert_eq!(of("below"), ["below", "below", "below locked", "below"], "the wait, too");
}
