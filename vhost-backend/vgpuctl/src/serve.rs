//! The metrics over HTTP, for Prometheus and such as speak its language.
//!
//! One process for all VMs of a host: it only reads, so nothing depends on it. Each request asks every daemon.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use tiny_http::{Header, Method, Response, Server};
use vgpu_control::FindError;

use crate::arguments::Metrics;
use crate::{Failure, metrics};

/// Writes them once, or serves them until it is ended.
pub(crate) fn run(dir: &Path, options: &Metrics) -> Result<(), Failure> {
    let mut servers = Vec::new();
    let failed = |what: String, error: &dyn std::fmt::Display| Failure::Refused(format!("{what}: {error}"));
    if let Some(path) = &options.socket {
        let listener =
            bind(path).map_err(|error| failed(format!("cannot listen on {}", path.display()), &error))?;
        servers.push(Server::from_listener(listener, None).map_err(|error| failed("HTTP".into(), &error))?);
    }
    if let Some(address) = options.listen {
        let listener = TcpListener::bind(address)
            .map_err(|error| failed(format!("cannot listen on {address}"), &error))?;
        servers.push(Server::from_listener(listener, None).map_err(|error| failed("HTTP".into(), &error))?);
    }
    if servers.is_empty() {
        std::io::stdout().lock().write_all(read(dir)?.as_bytes())?;
        return Ok(());
    }
    for server in &servers {
        let (on, path) = match server.server_addr() {
            tiny_http::ListenAddr::IP(address) => ("http://", format!("{address}/metrics")),
            tiny_http::ListenAddr::Unix(_) => ("unix socket ", or_nowhere(options.socket.as_deref())),
        };
        eprintln!("vgpuctl: serves metrics on {on}{path}");
    }
    let threads: Vec<_> = servers
        .into_iter()
        .map(|server| {
            let dir: PathBuf = dir.into();
            thread::spawn(move || server.incoming_requests().for_each(|request| answer(&dir, request)))
        })
        .collect();
    threads
        .into_iter()
        .try_for_each(|thread| thread.join().map_err(|_| Failure::Refused("a server has ended".into())))
}

fn or_nowhere(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

/// Replaces what an earlier run has left, and nothing else. Only this user may connect.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    let left_over = path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    if left_over {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A host without a daemon has metrics as well: none of a VM.
fn read(dir: &Path) -> Result<String, FindError> {
    match vgpu_control::all(dir) {
        Ok((found, silent)) => {
            Ok(metrics::text(found.into_iter().map(|daemon| daemon.report).collect(), silent.len()))
        }
        Err(FindError::NoDaemon { .. }) => Ok(metrics::text(Vec::new(), 0)),
        Err(error) => Err(error),
    }
}

fn answer(dir: &Path, request: tiny_http::Request) {
    let plain = |status: u16, text: String| Response::from_string(text).with_status_code(status);
    let response = match (request.method(), request.url()) {
        (Method::Get | Method::Head, "/metrics") => match read(dir) {
            Ok(text) => {
                let header = Header::from_bytes("Content-Type", metrics::CONTENT_TYPE);
                header.into_iter().fold(plain(200, text), Response::with_header)
            }
            Err(error) => plain(500, format!("{error}\n")),
        },
        (Method::Get | Method::Head, "/") => plain(200, "/metrics\n".into()),
        (Method::Get | Method::Head, _) => plain(404, "there is /metrics only\n".into()),
        _ => plain(405, "there is nothing to be done here, only to be read\n".into()),
    };
    // Who has gone does not read it.
    let _ = request.respond(response);
}
