//! Measurements without a server: the memory store, and the cost of the attribute.

use std::{mem::size_of_val, time::Instant};

use lock::{Error, Locks, locked};
use tokio::runtime::Builder;

use crate::contenders::Failure;

/// Acquires and drops in memory, with one task on one core. Returns pairs per second, the median of
/// the rounds.
pub(crate) fn memory_pairs(rounds: usize, pairs: u32) -> Result<f64, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let locks = Locks::in_memory();
        let mut rates = Vec::new();
        for _ in 0..=rounds {
            let start = Instant::now();
            for _ in 0..pairs {
                drop(locks.lock("invoice-7").acquire().await?);
            }
            rates.push(f64::from(pairs) / start.elapsed().as_secs_f64());
        }
        // The first round only warms up.
        Ok(median(rates.split_off(1)))
    })
}

/// Compares the attribute with the same code by hand: returns the ratio of the times, and that of
/// the sizes of the futures.
pub(crate) fn attribute(rounds: usize, calls: u32) -> Result<(f64, f64), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let locks = Locks::in_memory();
    runtime.block_on(locks.clone().scope(async {
        let size =
            size_of_val(&annotated(7)) as f64 / size_of_val(&by_hand(locks.clone(), 7)) as f64;
        let mut ratios = Vec::new();
        for _ in 0..=rounds {
            let start = Instant::now();
            for number in 0..calls {
                annotated(u64::from(number)).await?;
            }
            let annotated = start.elapsed().as_secs_f64();
            let start = Instant::now();
            for number in 0..calls {
                by_hand(locks.clone(), u64::from(number)).await?;
            }
            ratios.push(annotated / start.elapsed().as_secs_f64());
        }
        Ok((median(ratios.split_off(1)), size))
    }))
}

#[locked(id = "invoice:{number}")]
async fn annotated(number: u64) -> Result<u64, Error> {
    tokio::task::yield_now().await;
    Ok(number)
}

/// The same guarantees: the body is dropped when the lock is lost, and the release is awaited.
async fn by_hand(locks: Locks, number: u64) -> Result<u64, Error> {
    let guard = locks.lock(format!("invoice:{number}")).acquire().await?;
    let outcome = tokio::select! {
        biased;
        () = guard.lost() => return Err(guard.release().await.expect_err("a lost lock is not ours")),
        outcome = async {
            tokio::task::yield_now().await;
            Ok(number)
        } => outcome,
    };
    let _ = guard.release().await;
    outcome
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
