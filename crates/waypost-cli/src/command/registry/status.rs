use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::super::Outcome;
use super::super::asking::Asking;
use crate::failure::Failure;
use crate::output::print_json;

/// Ask the registry how it is
///
/// Exit code 0 means that it answers; 4, that it can't be reached; 5, that it refuses the token.
#[derive(Args)]
pub(crate) struct Status {
    #[command(flatten)]
    asking: Asking,
}

impl Status {
    pub(super) async fn run(self) -> Outcome {
        let directory = self.asking.directory()?;
        let began = tokio::time::Instant::now();
        let answer = directory.catalog().await;
        let took = began.elapsed();
        let provider = directory.provider().describe();
        if self.asking.json {
            print_json(&json!({
                "provider": &*provider,
                "answers": answer.is_ok(),
                "took_ms": took.as_secs_f64() * 1000.0,
                "services": answer.as_ref().ok().map(|catalog| catalog.names().len()),
                "error": answer.as_ref().err().map(ToString::to_string),
            }));
            return match answer {
                Ok(_) => Ok(ExitCode::SUCCESS),
                Err(error) => Ok(Failure::Discovery(error).exit_code()),
            };
        }
        let services = answer?.names().len();
        println!("{provider} answers in {took:.1?} and lists {services} services");
        Ok(ExitCode::SUCCESS)
    }
}
