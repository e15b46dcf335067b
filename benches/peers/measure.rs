//! Rounds, their order, and the evaluation of their times.

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

/// The number of rounds of a row: each contender is first, second, ... equally often, in both
/// directions.
const ROUNDS: usize = 20;

/// The number of rounds on a machine that does not complete [`ROUNDS`] within [`BUDGET`].
const FEWEST_ROUNDS: usize = 9;

/// How long a row may take before it makes do with [`FEWEST_ROUNDS`].
const BUDGET: Duration = Duration::from_secs(20);

/// A round that takes longer counts as hanging. Less than a lease, because no lock may expire in a
/// round.
const ROUND_LIMIT: Duration = Duration::from_secs(9);

/// The work of every contender in a round.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// The number of tasks that work at the same time.
    pub(crate) tasks: usize,
    /// The number of locks that each task acquires and releases, one after the other.
    pub(crate) cycles: usize,
}

impl Load {
    /// The cycles of all tasks together.
    fn total(self) -> usize {
        self.tasks * self.cycles
    }

    /// An id for every cycle of a round, so that no two cycles compete, not even with a release in
    /// flight. The next round uses the ids again.
    pub(crate) fn ids(self) -> Ids {
        (0..self.total()).map(|number| format!("invoice-{number}")).collect()
    }
}

/// A contender as the rounds see it.
pub(crate) type Rival = Box<dyn Run>;

/// Boxed once per round, so that no cycle has to be boxed.
pub(crate) trait Run: Send + Sync {
    /// The contender's name.
    fn name(&self) -> &'static str;

    /// Runs one round, and returns its duration.
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

/// The results of a load.
pub(crate) struct Row {
    load: Load,
    /// For each round, the seconds of each rival.
    rounds: Vec<Vec<f64>>,
}

impl Row {
    /// Runs the rounds. Each round runs every rival once, in another order.
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
        // Warms up connections, scripts, and the server's memory for the keys.
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

    /// Cycles per second of this rival.
    pub(crate) fn rate(&self, rival: usize) -> Spread {
        let total = self.load.total() as f64;
        Spread::of(self.rounds.iter().map(|seconds| total / seconds[rival]))
    }

    /// The speed of the first rival as a multiple of this one's, within each round.
    pub(crate) fn lead_over(&self, rival: usize) -> Spread {
        Spread::of(self.rounds.iter().map(|seconds| seconds[rival] / seconds[0]))
    }
}

/// Runs one round, within the limit, and checks that it leaves no lock behind.
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

/// The order of a round: the first rival moves on by one each time, and every second pass is
/// backwards, so that no rival always has the same predecessor.
fn order(round: usize, rivals: usize) -> impl Iterator<Item = usize> {
    let backwards = (round / rivals) % 2 == 1;
    (0..rivals).map(move |step| {
        let step = if backwards { rivals - step } else { step };
        (round + step) % rivals
    })
}

/// The median and the extremes of some samples.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Spread {
    /// Computes the spread of at least one sample.
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
