//! This copy of the demo: its instances, and what they share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use lock::Locks;
use tokio::{runtime::Handle, task::JoinHandle, time::interval};
use tokio_util::sync::CancellationToken;

use crate::{
    board::ALIVE_MS, instance::Instance, journal::Journal, ledger::Ledger, network::Address,
    servers::Servers,
};

/// Names for instances, after people who have thought about concurrency.
const NAMES: [&str; 16] = [
    "Ada", "Alan", "Barbara", "Butler", "Cynthia", "Dorothy", "Edsger", "Frances", "Grace", "Jim",
    "Leslie", "Lynn", "Mary", "Nancy", "Per", "Tony",
];

/// Bounded, because each instance has a thread and connections.
const MOST_INSTANCES: usize = 100;

pub(crate) struct Process {
    pub(crate) address: Address,
    pub(crate) journal: Journal,
    pub(crate) ledger: Ledger,
    pub(crate) servers: Servers,
    /// Locks whose connection no button can cut, for an operator's commands and for the status
    /// that a page shows.
    pub(crate) operator: Locks,
    /// The runtime of this process, which no button can block.
    pub(crate) runtime: Handle,
    /// Cancelled when the process ends, to end the streams to the pages.
    pub(crate) ending: CancellationToken,
    instances: Mutex<HashMap<String, Arc<Instance>>>,
}

impl Process {
    pub(crate) fn start(address: Address, servers: Servers) -> Result<Arc<Self>, String> {
        let process = Arc::new(Self {
            journal: Journal::start(address.server()),
            ledger: Ledger::new(address.server()),
            servers,
            operator: address.connect().map_err(|error| error.to_string())?,
            runtime: Handle::current(),
            ending: CancellationToken::new(),
            instances: Mutex::default(),
            address,
        });
        tokio::spawn(tick(Arc::downgrade(&process)));
        Ok(process)
    }

    /// Where the locks are, in words.
    pub(crate) fn store(&self) -> String {
        self.address.shown()
    }

    /// Starts an instance, under a name that no other one has.
    pub(crate) async fn open(self: &Arc<Self>) -> Result<Arc<Instance>, String> {
        if self.instances().len() >= MOST_INSTANCES {
            return Err(format!("{MOST_INSTANCES} instances are open: close a page"));
        }
        let name = {
            let journal = self.journal.watch();
            let board = journal.borrow();
            let instances = self.instances();
            let taken = |name: &str| {
                board.people.values().any(|person| person.name == name)
                    || instances.values().any(|instance| instance.name == name)
            };
            // Random, so that two copies that start at the same time choose different names.
            let first = random() as usize;
            (0..NAMES.len())
                .map(|step| NAMES[(first + step) % NAMES.len()])
                .find(|name| !taken(name))
                .map_or_else(|| format!("No. {}", first % 10_000), str::to_owned)
        };
        let instance = Instance::start(self, name).await?;
        self.instances().insert(instance.id.clone(), Arc::clone(&instance));
        // At once, so that the next instance chooses another name.
        instance.announce();
        Ok(instance)
    }

    pub(crate) fn find(&self, id: &str) -> Option<Arc<Instance>> {
        self.instances().get(id).cloned()
    }

    /// Ends an instance whose page was closed.
    pub(crate) async fn close(&self, instance: &Instance) {
        self.instances().remove(&instance.id);
        instance.end().await;
    }

    /// Ends all instances, and leaves no lock held.
    pub(crate) async fn end(&self) {
        let instances: Vec<_> = self.instances().drain().collect();
        let endings: Vec<JoinHandle<()>> = instances
            .into_iter()
            .map(|(_, instance)| tokio::spawn(async move { instance.end().await }))
            .collect();
        for ending in endings {
            let _ = ending.await;
        }
        self.operator.shutdown().await;
    }

    fn all(&self) -> Vec<Arc<Instance>> {
        self.instances().values().cloned().collect()
    }

    fn instances(&self) -> MutexGuard<'_, HashMap<String, Arc<Instance>>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Polls what no event reports, and announces the instances.
async fn tick(process: Weak<Process>) {
    let mut ticks = interval(Duration::from_millis(50));
    for tick in 0_u64.. {
        ticks.tick().await;
        let Some(process) = process.upgrade() else { return };
        let announce = tick % (ALIVE_MS / 50) == 0;
        for instance in process.all() {
            instance.look();
            if announce {
                instance.announce();
            }
        }
        if announce {
            process.journal.sweep();
        }
    }
}

/// A number that differs from process to process.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
