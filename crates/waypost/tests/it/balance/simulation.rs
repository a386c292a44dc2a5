//! The bad day that `examples/bad_day` draws: what each strategy must make of it.

#[expect(dead_code, reason = "the example uses more of it")]
#[path = "../../../examples/bad_day/simulation.rs"]
mod bad_day;

use std::time::Duration;

use bad_day::{Day, days};

#[test]
fn simulation_of_a_bad_day() {
    let days = days().unwrap();
    let of = |strategy: &str, ejection: bool| -> Day {
        let mut days = days.iter();
        let found = days.find(|day| day.strategy == strategy && day.ejection == ejection);
        *found.unwrap()
    };
    // Without ejection a tenth of all requests meets the failing one, and one in ten the slow one.
    let round_robin = of("round_robin", false);
    assert!(round_robin.failed > 1_500, "{round_robin:?}");
    assert!(
        round_robin.p95 > Duration::from_millis(100),
        "{round_robin:?}"
    );
    for day in days.iter().filter(|day| day.ejection) {
        assert!(day.failed < 100, "{day:?}");
    }
    // Latency-aware choice avoids the slow one, and the failing one without any ejection.
    let (without, with) = (of("p2c_peak_ewma", false), of("p2c_peak_ewma", true));
    assert!(without.failed < 100, "{without:?}");
    assert!(with.p95 < Duration::from_millis(40), "{with:?}");
    assert!(with.p99 < round_robin.p99 / 4, "{with:?}");
}
