//! The operations of all capabilities, on any store. A store that lacks a capability also answers:
//! with an error that names what is missing.

use std::{future::ready, sync::Arc, time::Duration};

use lock_core::contract::answer_each;

use super::*;

/// `method: capability, Trait, "what it is for", [Request] => Answer;`
macro_rules! operations {
    ($($method:ident: $capability:ident, $offered:ident, $name:literal, [$request:ty] => $answer:ty;)*) => {
        impl dyn Store {
            $(
            #[doc = concat!("Does what [`", stringify!($offered), "::", stringify!($method), "`] does, or answers that it is unsupported.")]
            pub fn $method<'a>(&'a self, batch: &'a [$request]) -> Answers<'a, $answer> {
                match self.$capability() {
                    Some(capability) => capability.$method(batch),
                    None => {
                        let missing = Err(StoreError::unsupported($name));
                        Box::pin(ready(answer_each(missing, batch.len())))
                    }
                }
            })*
        }
    };
}

operations! {
    extend: admin, AdminStore, "extending a lease", [ExtendRequest] => Option<Duration>;
    holder: admin, AdminStore, "asking who holds a lock", [Arc<str>] => Option<Holder>;
    force_release: admin, AdminStore, "releasing a lock by force", [ForceReleaseRequest] => Release;
    introduce: admin, AdminStore, "client records", [IntroduceRequest] => ();
    client: admin, AdminStore, "client records", [Arc<str>] => Option<ClientRecord>;
    scan: admin, AdminStore, "listing", [ScanRequest] => ScanPage;
    register: debounce, DebounceStore, "debounced calls", [DebounceRequest] => DebounceReply;
    end_window: debounce, DebounceStore, "debounced calls", [EndWindowRequest] => bool;
    due_in: debounce, DebounceStore, "debounced calls", [Arc<str>] => Option<Duration>;
    keep: durable, DurableStore, "durable calls", [KeepRequest] => Kept;
    due: durable, DurableStore, "durable calls", [DueRequest] => DueCalls;
    waiting: durable, DurableStore, "durable calls", [DueRequest] => WaitingCalls;
    claim: durable, DurableStore, "durable calls", [ClaimRequest] => DurableClaim;
    finish: durable, DurableStore, "durable calls", [FinishRequest] => DurableFinish;
    set_aside: durable, DurableStore, "durable calls", [DurableBook] => Vec<SetAside>;
    take_back: durable, DurableStore, "durable calls", [TakeBackRequest] => bool;
}
