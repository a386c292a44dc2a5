//! Compares the strategies in a simulation of degraded endpoints.

#[expect(dead_code, reason = "the program in bench/ uses more of it")]
mod degraded_endpoints;

use std::time::Duration;

use degraded_endpoints::{Outcome, run_all};

#[test]
fn strategies_handle_degraded_endpoints_as_documented() {
    let outcomes = run_all().unwrap();
    let of = |strategy: &str, ejection: bool| -> Outcome {
        let mut outcomes = outcomes.iter();
        let found = outcomes.find(|it| it.strategy == strategy && it.ejection == ejection);
        *found.unwrap()
    };
    // Without ejection, a tenth of the requests goes to the failing endpoint, and a tenth to the slow one.
    let round_robin = of("round_robin", false);
    assert!(round_robin.failed > 1_500, "{round_robin:?}");
    assert!(
        round_robin.p95 > Duration::from_millis(100),
        "{round_robin:?}"
    );
    for outcome in outcomes.iter().filter(|it| it.ejection) {
        assert!(outcome.failed < 100, "{outcome:?}");
    }
    // P2C with peak EWMA avoids the slow endpoint, and the failing one even without ejection.
    let (without, with) = (of("p2c_peak_ewma", false), of("p2c_peak_ewma", true));
    assert!(without.failed < 100, "{without:?}");
    assert!(with.p95 < Duration::from_millis(40), "{with:?}");
    assert!(with.p99 < round_robin.p99 / 4, "{with:?}");
}
