//! Rounds, their order, and what is made of their times.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time};

use crate::{
    census::Census,
    contenders::{Contender, Failure, Ids},
};

/// How many rounds a row has: each contender is first, second, ... equally often, in both
/// directions.
const ROUNDS: usize = 20;

/// How many it has on a machine that does not get to [`ROUNDS`] within [`BUDGET`].
const FEWEST_ROUNDS: usize = 9;

/// How long a row may take before it makes do with [`FEWEST_ROUNDS`].
const BUDGET: Duration = Duration::from_secs(20);

/// A round that takes longer hangs. Less than a lease: no lock of a round may expire.
const ROUND_LIMIT: Duration = Duration::from_secs(9);

/// What every contender does in a round.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// How many tasks work at the same time.
    pub(crate) tasks: usize,
    /// How many locks each of them takes and lets go, one after the other.
    pub(crate) cycles: usize,
}

impl Load {
    /// Cycles of all tasks.
    fn total(self) -> usize {
        self.tasks * self.cycles
    }

    /// An id for every cycle of a round: no two of them compete, not even with a release that is
    /// under way. The next round uses them again.
    pub(crate) fn ids(self) -> Ids {
        (0..self.total()).map(|number| format!("invoice-{number}")).collect()
    }
}

/// A contender as the rounds see it.
pub(crate) type Rival = Box<dyn Run>;

/// Boxed once a round, so that what it runs is not boxed once a cycle.
pub(crate) trait Run: Send + Sync {
    /// The contender's name.
    fn name(&self) -> &'static str;

    /// Runs one round, and says how long it took.
    fn round(&self, load: Load) -> Round<'_>;
}

/// A round that is running.
type Round<'a> = Pin<Box<dyn Future<Output = Result<Duration, Failure>> + Send + 'a>>;

/// Enters a contender.
pub(crate) fn rival(contender: impl Contender) -> Rival {
    Box::new(Arc::new(contender))
}

impl<C: Contender> Run for Arc<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn round(&self, load: Load) -> Round<'_> {
        Box::pin(async move {
            let mut tasks = JoinSet::new();
            let start = Instant::now();
            for task in 0..load.tasks {
                let contender = Arc::clone(self);
                tasks.spawn(async move {
                    for cycle in 0..load.cycles {
                        contender.cycle(task * load.cycles + cycle).await?;
                    }
                    Ok::<_, Failure>(load.cycles)
                });
            }
            let mut done = 0;
            while let Some(cycles) = tasks.join_next().await {
                done += cycles??;
            }
            self.settle().await?;
            let took = start.elapsed();
            assert_eq!(done, load.total(), "every cycle has to be done");
            Ok(took)
        })
    }
}

/// What a load has measured.
pub(crate) struct Row {
    load: Load,
    /// For each round, the seconds of each rival.
    rounds: Vec<Vec<f64>>,
}

impl Row {
    /// Runs the rounds: in each, every rival once; in each, in another order.
    ///
    /// # Errors
    ///
    /// If a cycle failed, a round hung, or a lock was left behind: such a benchmark is void.
    pub(crate) async fn measure(
        load: Load,
        rivals: &[Rival],
        census: &Census,
        quick: bool,
    ) -> Result<Self, Failure> {
        let most = if quick { FEWEST_ROUNDS / 3 } else { ROUNDS };
        // Connections, scripts, and the pages of the server that hold the keys.
        for rival in rivals {
            run(rival, load, census).await?;
        }
        let start = Instant::now();
        let mut rounds = Vec::new();
        while rounds.len() < most && (rounds.len() < FEWEST_ROUNDS || start.elapsed() < BUDGET) {
            let mut seconds = vec![0.0; rivals.len()];
            for place in order(rounds.len(), rivals.len()) {
                seconds[place] = run(&rivals[place], load, census).await?.as_secs_f64();
            }
            rounds.push(seconds);
        }
        Ok(Self { load, rounds })
    }

    /// Cycles a second of this rival.
    pub(crate) fn rate(&self, rival: usize) -> Spread {
        let total = self.load.total() as f64;
        Spread::of(self.rounds.iter().map(|seconds| total / seconds[rival]))
    }

    /// How many times as fast as this rival the first one is, each time in the same round.
    pub(crate) fn lead_over(&self, rival: usize) -> Spread {
        Spread::of(self.rounds.iter().map(|seconds| seconds[rival] / seconds[0]))
    }
}

/// One round, bounded and checked.
async fn run(rival: &Rival, load: Load, census: &Census) -> Result<Duration, Failure> {
    let outcome = async {
        let took = time::timeout(ROUND_LIMIT, rival.round(load)).await??;
        match census.locks().await? {
            0 => Ok(took),
            left => Err(format!("{left} locks were left behind").into()),
        }
    };
    outcome.await.map_err(|failure: Failure| format!("{}: {failure}", rival.name()).into())
}

/// The order of a round: its first moves on by one, and every second pass is backwards, so that
/// nobody always has the same predecessor.
fn order(round: usize, rivals: usize) -> impl Iterator<Item = usize> {
    let backwards = (round / rivals) % 2 == 1;
    (0..rivals).map(move |step| {
        let step = if backwards { rivals - step } else { step };
        (round + step) % rivals
    })
}

/// What some samples have in common.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    /// As many are below as above.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) lowest: f64,
    /// The largest.
    pub(crate) highest: f64,
}

impl Spread {
    /// Of at least one sample.
    pub(crate) fn of(samples: impl Iterator<Item = f64>) -> Self {
        let mut samples: Vec<f64> = samples.collect();
        samples.sort_by(f64::total_cmp);
        let (below, above) = (samples[(samples.len() - 1) / 2], samples[samples.len() / 2]);
        Self {
            median: (below + above) / 2.0,
            lowest: samples[0],
            highest: samples[samples.len() - 1],
        }
    }
}
