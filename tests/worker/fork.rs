//! A process that forks while it holds a lock. Both sides print what they see.

use std::time::Duration;

use fork::{Fork, fork};
use lock::{Error, Locks};

use crate::say;

fn tell(call: &str, outcome: Result<(), Error>) {
    match outcome {
        Ok(()) => say(&format!("child {call} Ok")),
        Err(error) => {
            let forked = if error.to_string().contains("forked") { "forked" } else { "?" };
            say(&format!("child {call} {:?} {forked}", error.kind()));
        }
    }
}

/// Holds a lock with a short lease, forks, and tries everything in the child.
pub(crate) fn run(url: &str) {
    // The child has a runtime of its own: it would lack any threads of this one.
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let parents = runtime().expect("a runtime can be built");
    let (locks, guard) = parents.block_on(async {
        let locks = Locks::connect(url).await.expect("the store is there");
        let guard = locks.lock("a").lease(Duration::from_millis(600)).acquire().await;
        (locks, guard.expect("it is free"))
    });
    assert!(guard.is_held());
    locks.install().expect("the first");
    // A call that is pending in both processes.
    let mut waits = Box::pin(locks.lock("a").acquire());
    let begun = parents.block_on(async { futures_util::poll!(waits.as_mut()).is_pending() });
    assert!(begun);
    match fork().expect("a process can be forked") {
        Fork::Child => {
            let held = guard.is_held();
            runtime().expect("a runtime can be built").block_on(async {
                tell("wait", waits.await.map(drop));
                tell("acquire", locks.lock("b").acquire().await.map(drop));
                tell("status", locks.lock("a").status().await.map(drop));
                tell("force_release", locks.lock("a").force_release().await.map(drop));
                tell("debounce", locks.debounce("a").call(|| async {}).await.map(drop));
                tell("extend", guard.extend(Duration::from_secs(1)).await);
                say(&format!("child held {held}"));
                locks.flush().await;
                locks.shutdown().await;
                drop((locks, guard));
                say("child dropped");
                let another = Locks::connect(url).await.expect("the store is there");
                let acquired = another.lock("b").acquire().await.is_ok();
                another.install().expect("the parent's is not this process's");
                say(&format!("child another {acquired}"));
            });
            // Without running the destructors of the parent's values.
            std::process::exit(0);
        }
        Fork::Parent(child) => {
            fork::waitpid(child).expect("the child ends");
            say(&format!("parent held {}", guard.is_held()));
            parents.block_on(async { tokio::time::sleep(Duration::from_millis(1500)).await });
            say(&format!("parent renewed {}", guard.is_held()));
        }
    }
}
