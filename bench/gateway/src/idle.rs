//! The memory of idle client connections, each of which has sent one request.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use crate::proxies::{NAMES, Origin, Proxy};

pub(crate) fn run(connections: u32, folder: &Path) -> Result<(), String> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Proxies inherit the limit.
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)
        .map_err(|error| format!("the limit of open files: {error}"))?;
    let origin = Origin::start(folder)?;
    println!(
        "| proxy | before | with {connections} idle connections | per connection |\n|---|---|---|---|"
    );
    for name in NAMES {
        let proxy = Proxy::start(name, origin.port, folder)?;
        let mut open = vec![used_connection(&proxy)?];
        let before = proxy.memory()?;
        for _ in 1..connections {
            open.push(used_connection(&proxy)?);
        }
        let after = proxy.memory()?;
        let each = after.saturating_sub(before) as f64 / f64::from(connections);
        println!("| {name} | {before} kB | {after} kB | {each:.2} kB |");
    }
    Ok(())
}

/// A connection that has received one response.
fn used_connection(proxy: &Proxy) -> Result<TcpStream, String> {
    let connect = || -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))?;
        let request = format!("GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", proxy.path());
        stream.write_all(request.as_bytes())?;
        let mut response = [0; 4096];
        let mut length = 0;
        // The origin's body ends with this.
        while !response[..length].ends_with(b"xxxxxxxx") {
            match stream.read(&mut response[length..])? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => length += count,
            }
        }
        Ok(stream)
    };
    connect().map_err(|error| error.to_string())
}
