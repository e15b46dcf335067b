use std::time::Duration;

use lock::{Error, debounced, locked};

const SECONDS: u64 = 10;

struct Service {
    wait: Option<Duration>,
}

impl Service {
    #[locked(id = "a", wait = self.wait)]
    async fn option(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[locked(id = "a", lease = SECONDS)]
async fn seconds() -> Result<(), Error> {
    Ok(())
}

#[locked(id = "a")]
#[locked(id = "b", hold_at_most = 60 * 1000)]
async fn calculated() -> Result<(), Error> {
    Ok(())
}

#[debounced(wait = limit)]
async fn function() {}

fn limit() -> Duration {
    Duration::from_secs(1)
}

#[debounced(wait = wiat)]
async fn misspelt(wait: Duration) {}

fn main() {}
