use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use waypost::{Error, InstanceId};

use super::Outcome;
use super::asking::Asking;
use crate::output::print_json;

#[derive(Args)]
pub(crate) struct Deregister {
    /// The instance's id, as `waypost instances` lists it
    id: String,
    #[command(flatten)]
    asking: Asking,
}

impl Deregister {
    pub(super) async fn run(self) -> Outcome {
        let provider = self.asking.provider()?;
        let registry = provider.registry().map_err(Error::from)?;
        let id = InstanceId::new(self.id);
        registry.deregister(&id).await.map_err(Error::from)?;
        if self.asking.json {
            print_json(&json!({ "deregistered": id }));
        }
        Ok(ExitCode::SUCCESS)
    }
}
