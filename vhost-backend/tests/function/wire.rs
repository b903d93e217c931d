//! Messages that QEMU does not send: each is answered with an error or ends its own connection, and the next one is served.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::machine::Bench;

const VERSION: u16 = 1;
const DMA_MAP: u16 = 2;
const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;
/// Flag of an answer that is an error.
const ERROR: u32 = 1 << 5;

fn send(stream: &mut UnixStream, command: u16, size: u32, body: &[u8]) {
    let mut bytes = 7u16.to_le_bytes().to_vec();
    bytes.extend(command.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend([0; 8]);
    stream.write_all(&bytes).unwrap();
    stream.write_all(body).unwrap();
}

/// Sends a whole message, which must be answered with an error.
fn refused(stream: &mut UnixStream, command: u16, body: &[u8]) {
    send(stream, command, 16 + body.len() as u32, body);
    let mut header = [0; 16];
    stream.read_exact(&mut header).unwrap();
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    assert_eq!(word(8) & ERROR, ERROR, "command {command} of {body:?}");
}

fn access(offset: u64, region: u32, count: u32) -> Vec<u8> {
    let mut body = offset.to_le_bytes().to_vec();
    body.extend(region.to_le_bytes());
    body.extend(count.to_le_bytes());
    body
}

#[test]
fn accesses_to_nowhere_are_errors() {
    let bench = Bench::new();
    let mut stream = UnixStream::connect(&bench.path).unwrap();
    for region in [2, 4, 5, 6, 8, 9, u32::MAX] {
        refused(&mut stream, REGION_READ, &access(0, region, 4));
    }
    for region in [2, 4, 5, 6, 8] {
        refused(&mut stream, REGION_WRITE, &[access(0, region, 4), vec![0; 4]].concat());
    }
    // Longer than any access, and so long that it could not even be answered.
    for count in [4097, 1 << 20, u32::MAX] {
        refused(&mut stream, REGION_READ, &access(0, 0, count));
    }
    refused(&mut stream, REGION_WRITE, &[access(0, 0, 5000), vec![0; 5000]].concat());
    drop(stream);
    bench.connect().works();
}

#[test]
fn nonsense_ends_its_own_connection() {
    let bench = Bench::new();
    // A version without its end, a version shorter than one, a map that ends early, a command that is none.
    for (command, size, body) in [
        (VERSION, 24, &[0, 0, 1, 0, 1, 2, 3, 4][..]),
        (VERSION, 4, &[0, 0, 1, 0]),
        (DMA_MAP, 16, &[1, 2, 3]),
        (0xffff, 16, &[]),
    ] {
        let mut stream = UnixStream::connect(&bench.path).unwrap();
        send(&mut stream, command, size, body);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        // It may be reset instead of closed.
        let _ = stream.read_to_end(&mut rest);
        bench.connect().works();
    }
}

#[test]
fn memory_that_is_none_is_left_out() {
    let bench = Bench::new();
    let mut machine = bench.connect();
    let file = rustix::fs::memfd_create("short", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    for (offset, address, size) in [
        (0, 1 << 32, 1 << 20),
        (1, 1 << 32, 4096),
        (0, 4096, 4096),
        (u64::MAX - 4095, 1 << 32, 4096),
        (0, u64::MAX - 4095, 1 << 30),
    ] {
        machine.client.dma_map(offset, address, size, fd).unwrap();
    }
    machine.client.dma_unmap(1 << 40, u64::MAX).unwrap();
    machine.start_queues();
    assert_eq!(machine.hello(1).error, 0, "the memory that was there still is");
}
