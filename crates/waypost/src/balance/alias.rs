//! Weighted random choice in constant time.

use std::hint::select_unpredictable;

use super::Candidates;
use crate::shard::{ShardedRng, scale};

/// Draws from a weighted list in constant time (Walker's alias method, built as by Vose, "A linear
/// algorithm for generating random numbers with a given distribution", 1991).
#[derive(Debug)]
pub(crate) enum AliasTable {
    /// All weights are the same.
    Even(usize),
    Uneven(Box<[Column]>),
}

/// A draw below the threshold is the column's own index, any other is the alias.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    threshold: u32,
    alias: u32,
}

impl AliasTable {
    pub(crate) fn new(candidates: &Candidates) -> Self {
        match candidates.weights() {
            None => Self::Even(candidates.len()),
            Some(weights) => Self::Uneven(columns(weights)),
        }
    }

    #[inline]
    pub(crate) fn draw(&self, rng: &ShardedRng) -> usize {
        let random = rng.next_u64();
        match self {
            Self::Even(count) => scale(random, *count),
            Self::Uneven(columns) => {
                // The upper half selects the column, the lower half the part of it.
                let index = (((random >> 32) * columns.len() as u64) >> 32) as usize;
                let column = columns[index];
                // The result is random, so a branch would be mispredicted half of the time.
                let own = (random as u32) < column.threshold;
                select_unpredictable(own, index, column.alias as usize)
            }
        }
    }
}

fn columns(weights: &[f64]) -> Box<[Column]> {
    let mean = weights.iter().sum::<f64>() / weights.len() as f64;
    let mut shares: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
    let mut columns: Box<[Column]> = (0..weights.len() as u32)
        .map(|index| Column {
            threshold: u32::MAX,
            alias: index,
        })
        .collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).partition(|&index| shares[index] < 1.0);
    while let (Some(&less), Some(&more)) = (small.last(), large.last()) {
        small.pop();
        columns[less] = Column {
            threshold: (shares[less] * f64::from(u32::MAX)) as u32,
            alias: more as u32,
        };
        // The rest of the small one's column is filled from the large one.
        shares[more] -= 1.0 - shares[less];
        if shares[more] < 1.0 {
            large.pop();
            small.push(more);
        }
    }
    columns
}
