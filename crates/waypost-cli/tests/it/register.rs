//! Registering an id that another process registers too.

use crate::support::*;

#[tokio::test]
async fn two_processes_that_register_one_id_both_say_so() {
    let registry = Registry::start(&[]).await;
    let hold = async |port: &str| {
        let arguments = ["register", "web", "--id", "web-1", "--hold", "--port", port];
        let mut program = Program::start(registry.command(&arguments));
        program.wait_for_output("web-1").await;
        program
    };
    let mut both = [hold("8001").await, hold("8002").await];
    for program in &mut both {
        program
            .wait_for_output("another process registers the same id")
            .await;
        let output = program.output();
        assert!(output.contains("id=web-1"), "{output}");
        assert!(output.contains("give each instance its own id"), "{output}");
    }
    // The registry has one instance, from the process that registered last.
    let instances = registry.instances("web").await;
    assert_eq!(instances.len(), 1, "{instances:?}");
    for program in &mut both {
        program.interrupt();
        program.wait_for_exit().await;
    }
    assert!(registry.instances("web").await.is_empty());
}

/// Consul's servers get a new token one after the other, so a refusal may be temporary.
#[tokio::test]
async fn a_registration_without_permission_is_tried_until_the_timeout() {
    let registry = Registry::start(&["--token", "s3cret-token-0123456789"]).await;
    let arguments = ["register", "web", "--port", "8001", "--timeout", "1s"];
    let mut program = Program::start(registry.command(&arguments));
    program.wait_for_output("not authorised").await;
    program.wait_for_exit().await;
}
