//! The output of programs reaches the sink completely and in time.

use std::time::{Duration, SystemTime};

use waypost_runner::{Line, LogSink, ServiceSpec, Stream, Supervisor};

use crate::support::*;

/// Asserts that another program's lines reach the sink during a flood of output that never ends. Their
/// delay depends on the machine, so it is only printed.
async fn does_not_hold_up_others(flood: &str) {
    const TICKS: usize = 100;
    const LIMIT: Duration = Duration::from_secs(30);
    let (supervisor, log) = start(stack([
        ServiceSpec::new("flood", TESTBED).args(["flood", flood]),
        ServiceSpec::new("tick", TESTBED).args(["tick".to_owned(), TICKS.to_string()]),
    ]));
    let ticks = eventually("all ticks", || {
        Some(log.lines("tick")).filter(|lines| lines.len() == TICKS)
    })
    .await;
    eventually("many lines of the flood", || {
        (log.lines("flood").len() > 10_000).then_some(())
    })
    .await;
    supervisor.shutdown().await;
    let delay = |(arrived, line): &(SystemTime, Line)| {
        let written = SystemTime::UNIX_EPOCH + Duration::from_micros(line.text.parse().unwrap());
        arrived.duration_since(written).unwrap_or_default()
    };
    let mut delays: Vec<Duration> = ticks.iter().map(delay).collect();
    delays.sort_unstable();
    println!(
        "flood of {flood}/s: median {:?}, worst {:?}",
        delays[TICKS / 2],
        delays[TICKS - 1]
    );
    assert!(delays[TICKS - 1] < LIMIT, "{delays:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_100_000_lines_per_second_does_not_hold_up_others() {
    does_not_hold_up_others("100000").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlimited_flood_does_not_hold_up_others() {
    does_not_hold_up_others("0").await;
}

#[tokio::test]
async fn long_lines_are_truncated_and_marked() {
    let script = "head -c 1048576 /dev/zero | tr '\\0' x; echo; echo next; exec sleep 600";
    let (supervisor, log) = start(stack([shell("web", script)]));
    let lines = eventually("two lines", || {
        Some(log.lines("web")).filter(|lines| lines.len() == 2)
    })
    .await;
    assert_eq!(
        (lines[0].1.text.len(), lines[0].1.truncated),
        (64 * 1024, true)
    );
    assert_eq!((&*lines[1].1.text, lines[1].1.truncated), ("next", false));
    supervisor.shutdown().await;
}

#[tokio::test]
async fn any_bytes_are_accepted() {
    let script = "printf 'a\\000\\377\\200b\\r\\n\\n'; head -c 100000 /dev/urandom; echo; echo after; exec sleep 600";
    let (supervisor, log) = start(stack([shell("web", script)]));
    eventually("the line after the random bytes", || {
        log.texts("web").contains(&"after".to_owned()).then_some(())
    })
    .await;
    assert_eq!(log.texts("web")[..2], ["a\0\u{fffd}\u{fffd}b", ""]);
    supervisor.shutdown().await;
}

#[tokio::test]
async fn both_streams_are_read_to_the_last_byte() {
    let (supervisor, log) = start(stack([graceful("web", 0)]));
    wait_until_ready(&log, &["web"]).await;
    supervisor.shutdown().await;
    let mut lines: Vec<_> = log
        .lines("web")
        .into_iter()
        .map(|(_, line)| (line.text.to_string(), line.stream))
        .collect();
    lines.sort_by_key(|(text, _)| text.clone());
    let expected = [
        ("last line without a line end", Stream::Stderr),
        ("ready", Stream::Stdout),
        ("stopped", Stream::Stdout),
    ];
    assert_eq!(
        lines,
        expected.map(|(text, stream)| (text.to_owned(), stream))
    );
}

#[tokio::test]
async fn a_sink_that_blocks_does_not_delay_the_shutdown() {
    struct Blocking;
    impl LogSink for Blocking {
        fn write(&mut self, _: &[Line]) -> std::io::Result<()> {
            loop {
                std::thread::park();
            }
        }
    }
    let stack = stack([ServiceSpec::new("flood", TESTBED).args(["flood", "0"])])
        .build()
        .unwrap();
    let supervisor = Supervisor::start(stack, Blocking).unwrap();
    supervisor.ready().await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(60), supervisor.shutdown()).await;
    assert!(stopped.is_ok());
}
