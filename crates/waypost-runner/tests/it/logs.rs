//! What processes write arrives whole, marked with its name, and in time.

use std::time::{Duration, SystemTime};

use waypost_runner::{Process, Stream};

use crate::support::*;

/// Nobody else is delayed. One good try of a few shows it: in the others the machine was busy with
/// something else.
async fn delays_nobody(flood: &str) {
    const TRIES: usize = 5;
    let mut delays = Vec::new();
    for _ in 0..TRIES {
        delays = self::delays(flood).await;
        if delays[95] < Duration::from_millis(100) {
            return;
        }
    }
    panic!("{delays:?}");
}

/// How long the lines of a ticking process took from its hand to the sink, sorted.
async fn delays(flood: &str) -> Vec<Duration> {
    const TICKS: usize = 100;
    let (running, log) = start(stack([
        Process::new("flood", TESTBED).args(["flood", flood]),
        Process::new("tick", TESTBED).args(["tick".to_owned(), TICKS.to_string()]),
    ]));
    let ticks = eventually("all ticks", || {
        Some(log.lines("tick")).filter(|lines| lines.len() == TICKS)
    })
    .await;
    eventually("a flood", || {
        (log.lines("flood").len() > 10_000).then_some(())
    })
    .await;
    running.shutdown().await;
    let delay = |(arrived, line): &(SystemTime, waypost_runner::Line)| {
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
    delays
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_100_000_lines_a_second_delays_nobody_else() {
    delays_nobody("100000").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_without_limit_delays_nobody_else() {
    delays_nobody("0").await;
}

#[tokio::test]
async fn long_lines_are_cut_and_marked() {
    let script = "head -c 1048576 /dev/zero | tr '\\0' x; echo; echo next; exec sleep 600";
    let (running, log) = start(stack([shell("web", script)]));
    let lines = eventually("two lines", || {
        Some(log.lines("web")).filter(|lines| lines.len() == 2)
    })
    .await;
    assert_eq!((lines[0].1.text.len(), lines[0].1.cut), (64 * 1024, true));
    assert_eq!((&*lines[1].1.text, lines[1].1.cut), ("next", false));
    running.shutdown().await;
}

#[tokio::test]
async fn any_bytes_are_survived() {
    let script = "printf 'a\\000\\377\\200b\\r\\n\\n'; head -c 100000 /dev/urandom; echo; echo after; exec sleep 600";
    let (running, log) = start(stack([shell("web", script)]));
    eventually("the line after", || {
        log.texts("web").contains(&"after".to_owned()).then_some(())
    })
    .await;
    assert_eq!(log.texts("web")[..2], ["a\0\u{fffd}\u{fffd}b", ""]);
    running.shutdown().await;
}

#[tokio::test]
async fn both_streams_are_read_to_the_last_byte() {
    let (running, log) = start(stack([polite("web", 0)]));
    say_ready(&log, &["web"]).await;
    running.shutdown().await;
    let mut lines: Vec<_> = log
        .lines("web")
        .into_iter()
        .map(|(_, line)| (line.text.to_string(), line.stream))
        .collect();
    lines.sort_by_key(|(text, _)| text.clone());
    let expected = [
        ("a last word", Stream::Stderr),
        ("bye", Stream::Stdout),
        ("ready", Stream::Stdout),
    ];
    assert_eq!(
        lines,
        expected.map(|(text, stream)| (text.to_owned(), stream))
    );
}

#[tokio::test]
async fn a_stuck_sink_does_not_hold_up_the_end() {
    struct Stuck;
    impl waypost_runner::LogSink for Stuck {
        fn write(&mut self, _: &[waypost_runner::Line]) -> std::io::Result<()> {
            loop {
                std::thread::park();
            }
        }
    }
    let stack = stack([Process::new("flood", TESTBED).args(["flood", "0"])])
        .build()
        .unwrap();
    let running = stack.start(Stuck).unwrap();
    running.ready().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), running.shutdown()).await;
    assert!(ended.is_ok());
}
