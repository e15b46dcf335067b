//! Receivers, and native `async fn` in traits.
#![deny(warnings)]
#![allow(dead_code, async_fn_in_trait)]

use std::{pin::Pin, sync::Arc};

use lock::{Error, Locks, debounced, locked};

struct Service {
    locks: Locks,
    tenant: String,
}

impl Service {
    #[locked(id = "{self.tenant}", locks = self.locks)]
    async fn shared(&self) -> Result<&str, Error> {
        Ok(&self.tenant)
    }

    #[locked(id = "{self.tenant}", locks = &self.locks)]
    async fn exclusive(&mut self, text: &str) -> Result<&mut Self, Error> {
        self.tenant.push_str(text);
        Ok(self)
    }

    #[locked(id = "{self.tenant}")]
    async fn owned(mut self) -> Result<String, Error> {
        self.tenant.clear();
        Ok(self.tenant)
    }

    #[locked(id = "{self.tenant}", locks = self.locks)]
    async fn in_arc(self: Arc<Self>) -> Result<(), Error> {
        Ok(())
    }

    #[locked(id = "{self.tenant}")]
    async fn pinned(self: Pin<&mut Self>) -> Result<(), Error> {
        Ok(())
    }

    #[debounced(id = "{self.tenant}", locks = self.locks)]
    async fn debounced(&self, count: u32) -> u32 {
        count
    }

    #[debounced]
    async fn debounced_exclusive(&mut self) -> Result<usize, Error> {
        self.tenant.clear();
        Ok(self.tenant.len())
    }
}

trait Handler {
    async fn handle(&self, count: u32) -> Result<u32, Error>;

    fn sendable(&self) -> impl Future<Output = Result<(), Error>> + Send;

    #[locked(id = "default:{count}")]
    async fn with_body(&self, count: u32) -> Result<u32, Error> {
        self.handle(count).await
    }

    async fn debounced(&self) -> Result<Option<u32>, Error>;
}

impl Handler for Service {
    #[locked(id = "{self.tenant}:{count}", locks = self.locks)]
    async fn handle(&self, count: u32) -> Result<u32, Error> {
        Ok(count)
    }

    #[locked(id = "{self.tenant}", locks = self.locks)]
    async fn sendable(&self) -> Result<(), Error> {
        Ok(())
    }

    #[debounced(locks = self.locks)]
    async fn debounced(&self) -> u32 {
        1
    }
}

fn main() {}
