//! How copies of the demo combine what they have told each other.

#[allow(dead_code)]
#[path = "../../../examples/demo/board.rs"]
mod board;

use board::{Board, Doing, Entry, Event, WINDOW_MS};

const ID: &str = "invoice:7";

fn entry(instance: &str, event: Event) -> Entry {
    Entry { instance: instance.to_owned(), name: instance.to_owned(), copy: 1, event }
}

fn id() -> String {
    ID.to_owned()
}

/// A board after these events, in this order, each at its time.
fn after(events: Vec<(u64, &str, Event)>) -> Board {
    let mut board = Board::default();
    for (at_ms, instance, event) in events {
        board.apply(at_ms, &entry(instance, event));
    }
    board
}

fn holds(fence: u64) -> Event {
    Event::Holds { id: id(), fence, lease_ms: 5_000 }
}

fn alive(doing: Doing, fence: Option<u64>) -> Event {
    Event::Alive { doing, id: id(), fence }
}

#[test]
fn one_that_is_gone_held_its_lock_until_it_was_last_seen() {
    let events = vec![(0, "Ada", holds(1)), (1_000, "Ada", alive(Doing::Holding, Some(1)))];
    let mut board = after(events);
    // Like a copy that is started half a minute later.
    board.sweep(30_000);
    assert!(board.people.is_empty());
    assert_eq!(board.spans[0].to_ms, Some(1_000));
    assert_eq!(board.spans[0].end, "gone");
    board.sweep(1_001 + WINDOW_MS);
    assert!(board.spans.is_empty());
}

#[test]
fn one_that_comes_back_goes_on_with_what_it_held() {
    let mut board = after(vec![(0, "Ada", holds(1))]);
    board.sweep(10_000);
    assert_eq!(board.spans[0].end, "gone");
    board.apply(11_000, &entry("Ada", alive(Doing::Holding, Some(1))));
    assert_eq!((board.spans.len(), board.spans[0].to_ms, &*board.spans[0].end), (1, None, ""));
    // Its entries have expired, or it was granted the lock while the server was away.
    board.apply(11_000, &entry("Lynn", alive(Doing::Waiting, None)));
    board.apply(
        12_000,
        &entry(
            "Tony",
            Event::Alive { doing: Doing::Holding, id: "other".to_owned(), fence: Some(9) },
        ),
    );
    let spans: Vec<_> = board.spans.iter().map(|span| (&*span.name, span.fence)).collect();
    assert_eq!(spans, [("Ada", Some(1)), ("Lynn", None), ("Tony", Some(9))]);
    board.apply(12_500, &entry("Ada", alive(Doing::Holding, Some(1))));
    assert_eq!(board.spans.len(), 3, "once");
}
