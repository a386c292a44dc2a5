//! The CPU time of large bodies, and the memory while clients don't read them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::proxies::{self, NAMES, Process, Proxy};

const SIZE: usize = 10_000_000;
/// The number of bodies in each direction.
const BODIES: u32 = 50;
/// The number of clients that don't read.
const SLOW: u32 = 50;

pub(crate) fn run(rounds: u32, folder: &Path) -> Result<(), String> {
    let port = proxies::free_port()?;
    let origin = proxies::sibling("origin")?;
    let _origin = Process::start(Command::new(origin).args([port.to_string(), SIZE.to_string()]))?;
    proxies::wait_for(port)?;
    println!(
        "| proxy | CPU per download | CPU per upload | memory with {SLOW} clients that don't read |\n\
         |---|---|---|---|"
    );
    for _ in 0..rounds {
        for name in NAMES {
            let proxy = Proxy::start(name, port, folder)?;
            let download = cpu(&proxy, download)?;
            let upload = cpu(&proxy, upload)?;
            let memory = memory_of_slow_readers(&proxy)?;
            println!("| {name} | {download:.2} ms | {upload:.2} ms | {memory} kB |");
        }
    }
    Ok(())
}

/// The milliseconds of CPU time that the proxy needs for one body.
fn cpu(
    proxy: &Proxy,
    transfer: fn(&mut TcpStream, &str) -> std::io::Result<()>,
) -> Result<f64, String> {
    let mut stream = connect(proxy)?;
    let mut each = || transfer(&mut stream, proxy.path()).map_err(|error| error.to_string());
    each()?;
    let before = proxy.cpu_micros()?;
    for _ in 0..BODIES {
        each()?;
    }
    Ok((proxy.cpu_micros()? - before) / f64::from(BODIES) / 1000.0)
}

fn connect(proxy: &Proxy) -> Result<TcpStream, String> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).map_err(|error| error.to_string())
}

fn download(stream: &mut TcpStream, path: &str) -> std::io::Result<()> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
    let mut rest = SIZE - read_head(stream)?;
    let mut buffer = vec![0; 1 << 16];
    while rest > 0 {
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => rest -= count,
        }
    }
    Ok(())
}

fn upload(stream: &mut TcpStream, path: &str) -> std::io::Result<()> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let piece = vec![b'x'; 1 << 16];
    let mut rest = SIZE;
    while rest > 0 {
        let count = rest.min(piece.len());
        stream.write_all(&piece[..count])?;
        rest -= count;
    }
    // The response has no body.
    read_head(stream).map(drop)
}

/// Reads the head of a response. Returns the number of bytes of the body that came with it.
fn read_head(stream: &mut TcpStream) -> std::io::Result<usize> {
    let mut read = Vec::new();
    let mut buffer = vec![0; 1 << 14];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => read.extend_from_slice(&buffer[..count]),
        }
        if let Some(end) = read.windows(4).position(|part| part == b"\r\n\r\n") {
            if !read.starts_with(b"HTTP/1.1 200") {
                return Err(std::io::Error::other(
                    String::from_utf8_lossy(&read).into_owned(),
                ));
            }
            return Ok(read.len() - end - 4);
        }
    }
}

fn memory_of_slow_readers(proxy: &Proxy) -> Result<u64, String> {
    let mut open = Vec::new();
    for _ in 0..SLOW {
        let mut stream = connect(proxy)?;
        let request = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", proxy.path());
        stream
            .write_all(request.as_bytes())
            .map_err(|error| error.to_string())?;
        open.push(stream);
    }
    // Until the buffers of the system are full.
    std::thread::sleep(Duration::from_secs(2));
    proxy.memory()
}
