//! Measures the cost of a pick in Waypost and its peers on this machine, in one run:
//! `cargo run --release --manifest-path bench/Cargo.toml -p picks -- docs/benchmarks.md`
//!
//! Without an argument the report is printed. `only round_robin` prints the rows whose names contain
//! `round_robin`. `check docs/benchmarks.md` fails if a pick takes more instructions than in the
//! report.

mod measure;
mod ours;
mod peers;
mod report;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = match arguments[..] {
        // Subcommands that the report runs in separate processes.
        ["memory"] => {
            println!("{}", ours::resident_bytes_of_many_services());
            return ExitCode::SUCCESS;
        }
        ["calls", strategy, instances, count] => {
            let number = |text: &str| text.parse().unwrap_or(0);
            ours::call_often(strategy, number(instances), number(count));
            return ExitCode::SUCCESS;
        }
        ["check", path] => return check(path),
        ["only", rows] => return print(&report::some_rows(rows)),
        [] => return print(&report::report()),
        [path] => std::fs::write(path, report::report()),
        _ => {
            eprintln!("usage: picks [REPORT.md | only ROWS | check REPORT.md]");
            return ExitCode::from(2);
        }
    };
    match report {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("can't write the report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(path: &str) -> ExitCode {
    let report = match std::fs::read_to_string(path) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("can't read {path}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let regressions = report::regressions(&report);
    for regression in &regressions {
        eprintln!("{regression}");
    }
    if regressions.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn print(report: &str) -> ExitCode {
    print!("{report}");
    ExitCode::SUCCESS
}
