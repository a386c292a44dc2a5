//! A program without async that is found and finds:
//! `cargo run --example blocking -- ai-models`
//!
//! It registers, calls a service by its name with nothing but the standard library, and takes its
//! registration back at the end.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use waypost::blocking::ServiceDiscoveryClient;
use waypost::{Check, ServiceRegistration};

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1);
    let name = name.unwrap_or_else(|| "blocking-example".into());

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || serve(&listener));

    let client = ServiceDiscoveryClient::builder().build_blocking()?;
    let registration = ServiceRegistration::new("blocking-example", port)?;
    let registrar = client.register(registration.host("127.0.0.1".parse()?).check(Check::tcp()))?;
    registrar.registered(Duration::from_secs(5))?;
    println!("{:?}", registrar.state());

    client.wait_for(name.as_str(), Duration::from_secs(15))?;
    for _ in 0..3 {
        // In flight until dropped; the outcome is what ejects an instance that fails.
        let lease = client.pick(name.as_str())?.lease();
        let answer = ask(&lease.authority());
        match &answer {
            Ok(_) => lease.succeeded(),
            Err(_) => lease.failed(),
        }
        println!("{} says {}", lease.id(), answer?);
    }
    // Waits until the registry knows that we are gone.
    drop(registrar);
    Ok(())
}

fn serve(listener: &TcpListener) {
    for mut connection in listener.incoming().flatten() {
        let mut request = [0; 1024];
        let read = connection.read(&mut request);
        if matches!(read, Ok(length) if length > 0) {
            let answer = b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello";
            // Whoever hung up needs no answer.
            let _ = connection.write_all(answer);
        }
    }
}

fn ask(address: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address)?;
    connection.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
