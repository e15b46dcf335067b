use lock::{Error, debounced, locked};

struct Service {
    locks: u32,
}

impl Service {
    #[locked(id = "a", locks = self.locks)]
    async fn wrong_type(&self) -> Result<(), Error> {
        Ok(())
    }

    #[locked(id = "a", locks = "redis://127.0.0.1/")]
    async fn url(&self) -> Result<(), Error> {
        Ok(())
    }

    #[debounced(locks = self.lock)]
    async fn no_such_field(&self) {}

    #[debounced(locks)]
    async fn no_value(&self) {}
}

fn main() {}
