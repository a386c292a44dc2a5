//! The order of turns for smooth weighted round robin.

use super::Candidates;

/// The maximum length of a cycle, in turns per endpoint. It bounds the rounding of weights to 1/128
/// of the average weight.
const TURNS_PER_ENDPOINT: usize = 64;

/// A cycle in which each endpoint has turns in proportion to its weight, spread evenly: with weights 5,
/// 1 and 1, the first endpoint has five of seven turns, but not five in a row.
///
/// `None` if each endpoint has one turn. Whole weights with a small sum are represented exactly.
pub(crate) fn schedule(candidates: &Candidates) -> Option<Box<[u32]>> {
    let turns = turns(candidates.weights()?);
    let length: usize = turns.iter().map(|&turns| turns as usize).sum();
    // The turns of an endpoint are equally spaced. Each endpoint has a different first position, so
    // that endpoints of equal weight don't cluster. Turns are sorted by position in one pass (counting
    // sort).
    let mut positions = Vec::with_capacity(length);
    let mut next = vec![0_u32; length + 1];
    for (endpoint, &turns) in turns.iter().enumerate() {
        let start = f64::from((endpoint as u32 + 1).reverse_bits()) / 4_294_967_296.0;
        let distance = length as f64 / f64::from(turns);
        for turn in 0..turns {
            let position = ((f64::from(turn) + start) * distance) as usize;
            let position = position.min(length - 1);
            positions.push((position as u32, endpoint as u32));
            next[position + 1] += 1;
        }
    }
    for index in 1..next.len() {
        next[index] += next[index - 1];
    }
    let mut cycle = vec![0; length].into_boxed_slice();
    for (position, endpoint) in positions {
        let slot = &mut next[position as usize];
        cycle[*slot as usize] = endpoint;
        *slot += 1;
    }
    Some(cycle)
}

/// The number of turns of each endpoint in a cycle; at least one.
fn turns(weights: &[f64]) -> Vec<u32> {
    let longest = weights.len() * TURNS_PER_ENDPOINT;
    let whole = weights.iter().all(|weight| weight.fract() == 0.0);
    if whole {
        let divisor = weights
            .iter()
            .fold(0, |divisor, &weight| gcd(divisor, weight as u64)) as f64;
        let sum: f64 = weights.iter().map(|weight| weight / divisor).sum();
        if sum <= longest as f64 {
            return weights.iter().map(|w| (w / divisor) as u32).collect();
        }
    }
    let scale = longest as f64 / weights.iter().sum::<f64>();
    let rounded = weights.iter().map(|weight| (weight * scale).round());
    rounded.map(|turns| (turns as u32).max(1)).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_weights_are_exact_and_common_factors_removed() {
        assert_eq!(turns(&[10.0, 5.0, 5.0]), [2, 1, 1]);
        assert_eq!(turns(&[65_535.0, 1.0]), [128, 1]);
        assert_eq!(turns(&[0.5, 1.0]), [43, 85]);
    }
}
