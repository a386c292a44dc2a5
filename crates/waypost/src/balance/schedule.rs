use super::Candidates;

/// The longest schedule, in turns per endpoint: what a weight is rounded to is at most 1/128 of
/// the average weight.
const TURNS_PER_ENDPOINT: usize = 64;

/// A cycle in which each endpoint has turns in proportion to its weight, spread evenly: of weights
/// 5, 1, 1 the first comes five times of seven, but never five times running.
///
/// `None` if each has one turn. Weights that are whole numbers with a small sum are kept exactly.
pub(crate) fn schedule(candidates: &Candidates) -> Option<Box<[u32]>> {
    let turns = turns(candidates.weights()?);
    let length: usize = turns.iter().map(|&turns| turns as usize).sum();
    // Each endpoint's turns lie at equal distances, from a start of its own so that those of equal
    // weight don't gather. Sorting by position, in one pass: first count how many turns fall into
    // each place, then fill them in order.
    let mut places = Vec::with_capacity(length);
    let mut next = vec![0_u32; length + 1];
    for (endpoint, &turns) in turns.iter().enumerate() {
        let start = f64::from((endpoint as u32 + 1).reverse_bits()) / 4_294_967_296.0;
        let distance = length as f64 / f64::from(turns);
        for turn in 0..turns {
            let place = ((f64::from(turn) + start) * distance) as usize;
            let place = place.min(length - 1);
            places.push((place as u32, endpoint as u32));
            next[place + 1] += 1;
        }
    }
    for index in 1..next.len() {
        next[index] += next[index - 1];
    }
    let mut cycle = vec![0; length].into_boxed_slice();
    for (place, endpoint) in places {
        let slot = &mut next[place as usize];
        cycle[*slot as usize] = endpoint;
        *slot += 1;
    }
    Some(cycle)
}

/// How many turns each has in a cycle; at least one.
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
    fn whole_weights_are_kept_and_common_factors_leave() {
        assert_eq!(turns(&[10.0, 5.0, 5.0]), [2, 1, 1]);
        assert_eq!(turns(&[65_535.0, 1.0]), [128, 1]);
        assert_eq!(turns(&[0.5, 1.0]), [43, 85]);
    }
}
