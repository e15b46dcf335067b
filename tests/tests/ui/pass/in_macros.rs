//! Inside and around `macro_rules`, and under other attributes.
#![deny(warnings)]
#![allow(dead_code)]

use lock::{Error, Locks, debounced, locked};

macro_rules! function {
    ($(#[$meta:meta])* $vis:vis $name:ident($arg:ident: $ty:ty), $id:literal, $lease:expr, $body:block) => {
        $(#[$meta])*
        #[locked(id = $id, lease = $lease)]
        $vis async fn $name($arg: $ty) -> Result<$ty, Error> $body
    };
}

function!(
    /// Documented.
    pub from_parts(value: u32), "made:{value}", 1500, { Ok(value) }
);

function!(
    by_expression(value: u32), "made:{value}", std::time::Duration::from_millis(500), { Ok(value) }
);

function!(by_text(value: u32), "made:{value}", "1.5s", { Ok(value) });

macro_rules! patient {
    ($name:ident, $wait:literal, $limit:expr) => {
        #[debounced(wait = $wait, hold_at_most = $limit)]
        async fn $name() -> u32 {
            1
        }
    };
}

patient!(by_literals, 500, "1m");
patient!(by_other_literals, "0.5s", LIMIT);

const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

macro_rules! wrap {
    ($item:item) => {
        #[locked(id = "wrapped:{value}")]
        $item
    };
}

wrap! {
    async fn wrapped(value: u32) -> Result<u32, Error> {
        Ok(value)
    }
}

struct Service {
    locks: Locks,
    tenant: String,
}

macro_rules! methods {
    ($ty:ty, $id:literal, $output:ty, $locks:expr) => {
        impl $ty {
            #[locked(id = "inside:{self.tenant}:{value}", locks = self.locks)]
            async fn all_from_inside(&self, value: u32) -> Result<u32, Error> {
                Ok(value)
            }

            #[locked(id = $id, locks = $locks)]
            async fn id_from_outside(&self, value: u32) -> Result<u32, Error> {
                Ok(value)
            }

            #[debounced]
            async fn output_from_outside(&self) -> $output {
                Ok(1)
            }
        }
    };
}

methods!(Service, "outside:{self.tenant}:{value}", Result<u32, Error>, Locks::in_memory());

async fn debounced_through_a_fragment(service: &Service) -> Result<Option<u32>, Error> {
    service.output_from_outside().await
}

#[locked(id = "inner")]
#[locked(id = "outer")]
#[must_use = "it is the point"]
async fn twice() -> Result<u32, Error> {
    Ok(1)
}

fn main() {}
