//! The agent: runs as root in a test guest, started by the guest's init script.

mod commands;
mod device_nodes;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use guest_agent::{CHUNK, Event, PORT_NAME, Request, RequestId, receive, send};

use crate::commands::Commands;
use crate::device_nodes::DeviceNodes;

/// The sending half of the port. Frames from several threads must not mix.
#[derive(Clone)]
struct Replies(Arc<Mutex<File>>);

impl Replies {
    fn send(&self, id: RequestId, event: &Event, body: &[u8]) -> io::Result<()> {
        let mut port = self.0.lock().map_err(|_| io::Error::other("a sender panicked"))?;
        send(&mut *port, id, event, body)
    }
}

fn main() -> Result<()> {
    let mut port =
        OpenOptions::new().read(true).write(true).open(find_port()?).context("the agent's port")?;
    let replies = Replies(Arc::new(Mutex::new(port.try_clone()?)));
    let nodes = DeviceNodes::watch(Path::new("/etc/device-nodes"))?;
    let commands = Commands::new(replies.clone(), nodes);

    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    replies.send(RequestId(0), &Event::Hello { kernel }, &[])?;
    loop {
        let (envelope, body) = receive::<Request>(&mut port).context("the host's end of the port")?;
        let id = envelope.id;
        let answer = match envelope.message {
            Request::Run(command) => commands.start(id, command, body).map(|()| None),
            Request::Signal(signal) => {
                commands.signal(id, signal);
                Ok(None)
            }
            Request::Write { path, mode, append } => {
                write(Path::new(&path), mode, append, &body).map(|()| Some(Event::Done))
            }
            Request::Read { path } => read(&replies, id, &path).map(|()| Some(Event::Done)),
            Request::PowerOff => return power_off(),
        };
        match answer {
            Ok(None) => {}
            Ok(Some(event)) => replies.send(id, &event, &[])?,
            Err(error) => replies.send(id, &Event::Failed(format!("{error:#}")), &[])?,
        }
    }
}

fn find_port() -> Result<PathBuf> {
    let ports = Path::new("/sys/class/virtio-ports");
    for entry in fs::read_dir(ports).context("no virtio-serial port: is virtio_console loaded?")? {
        let entry = entry?;
        if fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == PORT_NAME) {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    bail!("no virtio-serial port is named {PORT_NAME}");
}

fn write(path: &Path, mode: u32, append: bool, body: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(append).write(true).truncate(!append).mode(mode);
    let mut file = options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(body).with_context(|| format!("cannot write {}", path.display()))?;
    // The mode given to open(2) is cut down by the umask, and ignored for a file that exists.
    if file.metadata()?.is_file() {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn read(replies: &Replies, id: RequestId, path: &str) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("cannot open {path}"))?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = file.read(&mut chunk).with_context(|| format!("cannot read {path}"))?;
        if length == 0 {
            return Ok(());
        }
        replies.send(id, &Event::Data, chunk.get(..length).unwrap_or_default())?;
    }
}

fn power_off() -> Result<()> {
    rustix::fs::sync();
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff).context("cannot switch off")?;
    Ok(())
}
