use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use waypost_agent::{LeftoversError, clear_leftovers, leftovers};

use super::super::Outcome;
use super::Which;
use crate::failure::Failure;

/// Show the instances whose process is gone, and clear them away if asked to
///
/// They are those of this machine that have no check that passes, and whose port nobody listens on
/// any more or whose reports have stopped: what a process leaves behind that was killed.
#[derive(Args)]
pub(super) struct Leftovers {
    /// Deregister them
    #[arg(long)]
    clear: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
}

impl Leftovers {
    pub(super) async fn run(self) -> Outcome {
        let (url, token) = (self.which.url(), self.which.token.as_deref());
        let found = leftovers(&url, token).await.map_err(failure)?;
        if self.clear {
            clear_leftovers(&url, token, &found)
                .await
                .map_err(failure)?;
        }
        if self.json {
            let shown: Vec<_> = found
                .iter()
                .map(|it| {
                    json!({
                        "id": it.id,
                        "service": it.service,
                        "address": it.address,
                        "why": it.why,
                    })
                })
                .collect();
            println!("{}", json!({ "leftovers": shown, "cleared": self.clear }));
            return Ok(ExitCode::SUCCESS);
        }
        for it in &found {
            println!("{}  {}  {}", it.service, it.id, it.why);
        }
        match (found.len(), self.clear) {
            (0, _) => println!("nothing is left over"),
            (count, true) => println!("cleared: {count}"),
            (count, false) => {
                println!("left over: {count}; `waypost agent leftovers --clear` deregisters them");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn failure(error: LeftoversError) -> Failure {
    Failure::other(error)
}
