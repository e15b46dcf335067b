//! The mirror and the memory store, with the same operations at the same times.

use std::sync::{Arc, Mutex};

use tokio::time;

use super::*;
use crate::{
    contract::{AcquireRequest, Listener, Notice, ReleaseRequest, RenewRequest},
    model::locks::token::token,
    store::{MemoryStore, Store as _},
};

type Woken = Arc<Mutex<Vec<(usize, Word)>>>;

async fn memory_store(woken: &Woken) -> MemoryStore {
    let store = MemoryStore::new();
    for client in 0..3 {
        let woken = Arc::clone(woken);
        let listener = Listener::new(move |wake| {
            let word = match wake {
                Some(Notice::Granted { number }) => Word::Granted(number),
                Some(Notice::Contended { number }) => Word::Wanted(number),
                _ => return true,
            };
            woken.lock().unwrap().push((client, word));
            true
        });
        store.subscribe(token(client, 0).parts().0, listener).await;
    }
    store
}

#[tokio::test(start_paused = true)]
async fn the_mirror_answers_as_the_memory_store() {
    const LEASE: Duration = Duration::from_millis(1750);
    let woken = Woken::default();
    let mut operations = 0;
    for seed in 0..100_u64 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut draw = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let (memory, mut mirror) = (memory_store(&woken).await, Store::new(3, None));
        let (mut now, mut places) = (Moment::default(), [None; 3]);
        // The memory store's clock begins with the time of day.
        let mut epoch = None;
        for _ in 0..100 {
            let pause = Duration::from_millis([0, 0, 100, 600, 1200, 8000][draw(6) as usize]);
            time::advance(pause).await;
            now = now + pause;
            let client = draw(3) as usize;
            let token = token(client, 1 + draw(2));
            let mut shown = Shown::default();
            match draw(5) {
                0..=2 => {
                    let if_held = match draw(4) {
                        0 => IfHeld::GiveUp,
                        1 => IfHeld::Wait,
                        2 => IfHeld::KeepWaiting(None),
                        _ => IfHeld::KeepWaiting(places[client]),
                    };
                    let request = AcquireRequest::new("id", token.clone(), LEASE);
                    let kept = match &if_held {
                        IfHeld::KeepWaiting(Some(place)) => {
                            IfHeld::KeepWaiting(Some(place + epoch.unwrap_or(0)))
                        }
                        other => other.clone(),
                    };
                    let real = memory.acquire(&[request.if_held(kept)]).await.remove(0).unwrap();
                    let model = mirror.acquire(&token, LEASE, &if_held, now, &mut shown);
                    let since = |time: u64| time - epoch.unwrap_or(0);
                    match (real, model) {
                        (
                            Acquisition::Granted { fence, contended },
                            Acquisition::Granted { fence: own, contended: also },
                        ) => {
                            epoch.get_or_insert(fence - own);
                            assert_eq!((fence - epoch.unwrap(), contended), (own, also));
                        }
                        (
                            Acquisition::Held { remaining, ticket, notifies },
                            Acquisition::Held { remaining: left, ticket: own, notifies: tells },
                        ) => {
                            assert_eq!(
                                (remaining, ticket.map(since), notifies),
                                (left, own, tells)
                            );
                            places[client] = own.or(places[client]);
                        }
                        other => panic!("{other:?} at {now:?}"),
                    }
                }
                3 => {
                    let request = RenewRequest::new("id", token.clone(), LEASE);
                    let real = memory.renew(&[request]).await.remove(0).unwrap();
                    let model = mirror.renew(&token, LEASE, now, &mut shown);
                    assert_eq!(real, model);
                }
                _ => {
                    let request = ReleaseRequest::new("id", token.clone());
                    let real = memory.release(&[request]).await.remove(0).unwrap();
                    assert_eq!(real, mirror.release(&token, now, &mut shown));
                }
            }
            assert_eq!(*woken.lock().unwrap(), mirror.woken);
            woken.lock().unwrap().clear();
            mirror.woken.clear();
            operations += 1;
        }
    }
    assert_eq!(operations, 10_000);
}
