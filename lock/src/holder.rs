//! Who holds a lock, as reported to operators.

use std::time::Duration;

use lock_core::{Token, contract};

use crate::keeper::Client;

/// A holder of a lock: what the store knows about it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// use lock::{Locks, Status};
///
/// let locks = Locks::builder().url("memory:").name("billing-7").build().await?;
/// let _guard = locks.lock("report").acquire().await?;
/// if let Status::Held { holders, .. } = locks.lock("report").status().await? {
///     assert_eq!(holders[0].name.as_deref(), Some("billing-7"));
///     assert_eq!(holders[0].pid, Some(std::process::id()));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The token that holds the lock, for
    /// [`force_release_holder`](crate::Lock::force_release_holder). The token is a secret, and
    /// `Debug` does not show it.
    pub token: Token,
    /// The name of the holder's instance, as set with
    /// [`LocksBuilder::name`](crate::LocksBuilder::name).
    pub name: Option<String>,
    /// The name of the holder's machine or container.
    pub host: Option<String>,
    /// The id of the holder's process on that host.
    pub pid: Option<u32>,
    /// The version of this library that the holder runs.
    pub version: Option<String>,
    /// How long ago the holder asked for the lock; if it had to wait, it has held the lock for
    /// less. If a lock passes from one task of a process to the next, this counts from the first
    /// task. Measured from the holder's clock at that time to the store's clock now, so it is off
    /// by the difference between the two.
    pub held_for: Option<Duration>,
}

impl Holder {
    pub(crate) async fn of(holder: contract::Holder, client: &Client) -> Self {
        let record = client.record_of(&holder.token).await;
        Self::known(holder, record)
    }

    pub(crate) fn known(holder: contract::Holder, record: contract::ClientRecord) -> Self {
        let contract::ClientRecord { name, host, pid, version, .. } = record;
        let contract::Holder { token, held_for, .. } = holder;
        Self { token, name, host, pid, version, held_for }
    }
}
