//! A program without async that registers and calls a service:
//! `cargo run --example blocking -- ai-models`
//!
//! Without an argument it calls itself. It uses only the standard library for HTTP.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use waypost::blocking::ServiceDiscoveryClient;
use waypost::{Check, ServiceRegistration};

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1);
    let name = argument.unwrap_or_else(|| "blocking-example".into());

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
        // The request is in flight until the lease is dropped. Instances that fail are ejected.
        let lease = client.pick(name.as_str())?.lease();
        let response = get(&lease.authority(), "/health");
        match &response {
            Ok(_) => lease.succeeded(),
            Err(_) => lease.failed(),
        }
        println!("{}: {}", lease.id(), response?);
    }
    registrar.deregister()?;
    Ok(())
}

fn serve(listener: &TcpListener) {
    for mut connection in listener.incoming().flatten() {
        let mut request = [0; 1024];
        let read = connection.read(&mut request);
        if matches!(read, Ok(length) if length > 0) {
            let response = b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello";
            // An error means that the client has disconnected.
            let _ = connection.write_all(response);
        }
    }
}

/// The status line of the response.
fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address)?;
    // Written in one piece: the server above responds after its first read.
    connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut response = String::new();
    connection.read_to_string(&mut response)?;
    Ok(response.lines().next().unwrap_or_default().to_owned())
}
