//! A resource that checks the fencing token refuses a holder that was paused for too long.
//!
//!     cargo run --example fencing
//!
//! needs no server. In the middle of its work, the first holder's lock is released by force, as if
//! its lease had expired while the process was paused. The holder still writes when it wakes up.

use lock::{Error, Locks};

/// A ledger that remembers the fencing token of its last write.
#[derive(Default)]
struct Ledger {
    balance: u64,
    fence: u64,
}

impl Ledger {
    /// In SQL: `UPDATE ledger SET balance = $1, fence = $2 WHERE id = $3 AND fence <= $2`.
    fn write(&mut self, balance: u64, fencing_token: u64) -> bool {
        let fresh = self.fence <= fencing_token;
        if fresh {
            *self = Self { balance, fence: fencing_token };
        }
        fresh
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let locks = Locks::in_memory();
    let mut ledger = Ledger::default();

    let paused = locks.lock("ledger").acquire().await?;
    assert!(ledger.write(100, paused.fencing_token()));
    println!("the first holder wrote {} with token {}", ledger.balance, paused.fencing_token());

    locks.lock("ledger").force_release().await?;
    let next = locks.lock("ledger").acquire().await?;
    assert!(ledger.write(150, next.fencing_token()));
    println!("the second holder wrote {} with token {}", ledger.balance, next.fencing_token());

    // The first holder has neither checked `is_held` nor waited for `lost`.
    let accepted = ledger.write(90, paused.fencing_token());
    println!("the first holder writes again: {}", if accepted { "accepted" } else { "refused" });
    assert!(!accepted && ledger.balance == 150);
    Ok(())
}
