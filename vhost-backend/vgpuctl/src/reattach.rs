//! `vgpuctl reattach`: takes a VM's device, whose daemon has ended, out of QEMU and puts it in again, on the daemon that serves now. By
//! QEMU's monitor protocol (QMP), on a monitor socket that QEMU was started with.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::arguments::Reattach;

/// How long QEMU may take to answer a command.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the guest may take to give the device away: its driver may still wait for the old daemon.
const UNPLUG: Duration = Duration::from_secs(90);

/// The devices of QEMU's that carry ours, and which of their properties are taken over.
const CARRIERS: [(&str, &[&str]); 3] = [
    ("vfio-user-pci", &["x-msg-timeout", "rombar"]),
    ("vhost-user-fs-pci", &["tag", "num-request-queues", "queue-size"]),
    ("vhost-user-test-device-pci", &["virtio-id", "num_vqs", "vq_size", "config_size"]),
];

/// Puts the device back; what was done, for people.
///
/// # Errors
/// What has not worked, and how far it was.
pub fn run(socket: &str, options: &Reattach) -> Result<Vec<String>, String> {
    let mut monitor = Monitor::connect(&options.qmp)?;
    let (id, carrier, kept) = find(&mut monitor, options.device.as_deref())?;
    let path = format!("/machine/peripheral/{id}");
    let mut device = Map::new();
    device.insert("driver".into(), carrier.into());
    device.insert("id".into(), id.clone().into());
    for property in kept {
        device.insert((*property).into(), monitor.property(&path, property)?);
    }
    let bus = monitor.property(&path, "parent_bus")?;
    let bus = bus.as_str().and_then(|bus| bus.rsplit('/').next()).unwrap_or_default().to_owned();
    device.insert("bus".into(), bus.clone().into());
    let chardev = match carrier {
        "vfio-user-pci" => {
            device.insert("socket".into(), json!({"type": "unix", "path": socket}));
            None
        }
        _ => {
            let chardev = monitor.property(&path, "chardev")?;
            device.insert("chardev".into(), chardev.clone());
            Some(chardev)
        }
    };

    monitor.execute("device_del", json!({"id": id}))?;
    if !monitor.wait_for("DEVICE_DELETED", &id)? {
        return Err(format!("the guest has not given {id} away within {} s", UNPLUG.as_secs()));
    }
    let gone = |error| format!("{id} is out of the VM, but cannot be put in again: {error}");
    if let Some(chardev) = &chardev {
        monitor.execute("chardev-remove", json!({"id": chardev})).map_err(gone)?;
        let address = json!({"type": "unix", "data": {"path": socket}});
        let backend = json!({"type": "socket", "data": {"addr": address, "server": false}});
        monitor.execute("chardev-add", json!({"id": chardev, "backend": backend})).map_err(gone)?;
    }
    monitor.execute("device_add", device.into()).map_err(gone)?;
    Ok(vec![format!("{id} ({carrier}) on {bus} is attached to {socket}")])
}

/// The device: its id, which of the carriers it is, and what is taken over.
fn find(
    monitor: &mut Monitor,
    wanted: Option<&str>,
) -> Result<(String, &'static str, &'static [&'static str]), String> {
    let listed = monitor.execute("qom-list", json!({"path": "/machine/peripheral"}))?;
    let text =
        |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut found = listed.as_array().into_iter().flatten().filter_map(|entry| {
        let kind = text(entry, "type");
        let (carrier, kept) = CARRIERS.into_iter().find(|(name, _)| kind == format!("child<{name}>"))?;
        let id = text(entry, "name");
        wanted.is_none_or(|wanted| wanted == id).then_some((id, carrier, kept))
    });
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some((one, ..)), Some((two, ..))) => {
            Err(format!("there are {one} and {two}: say which, with --device"))
        }
        (None, _) => {
            let which = wanted.map_or(String::new(), |id| format!(" {id}"));
            let names = CARRIERS.map(|(name, _)| name).join(", ");
            Err(format!("QEMU has no device{which} with an id of its own that is one of {names}"))
        }
    }
}

/// A connection to QEMU's monitor.
struct Monitor {
    stream: BufReader<UnixStream>,
    /// Events that came between answers.
    events: Vec<Value>,
}

impl Monitor {
    fn connect(path: &Path) -> Result<Self, String> {
        let stream = UnixStream::connect(path).map_err(|error| {
            format!("{}: {error}; QEMU's -qmp unix:PATH,server=on,wait=off", path.display())
        })?;
        let mut monitor = Self { stream: BufReader::new(stream), events: Vec::new() };
        let greeting = monitor.receive(Instant::now() + ANSWER)?;
        if greeting.get("QMP").is_none() {
            return Err(format!("{} is no monitor of QEMU's: it greets with {greeting}", path.display()));
        }
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    fn property(&mut self, path: &str, property: &str) -> Result<Value, String> {
        self.execute("qom-get", json!({"path": path, "property": property}))
    }

    fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let order = json!({"execute": command, "arguments": arguments});
        self.stream
            .get_mut()
            .write_all(format!("{order}\n").as_bytes())
            .map_err(|error| error.to_string())?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let mut answer = self.receive(deadline)?;
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(format!(
                    "{command}: {}",
                    error.get("desc").and_then(Value::as_str).unwrap_or("refused")
                ));
            }
            self.events.push(answer);
        }
    }

    /// Waits for an event about a device; false where it does not come.
    fn wait_for(&mut self, name: &str, device: &str) -> Result<bool, String> {
        let is_it = |event: &Value| {
            event.get("event").is_some_and(|event| event == name)
                && event.get("data").and_then(|data| data.get("device")).is_some_and(|id| id == device)
        };
        if self.events.iter().any(is_it) {
            return Ok(true);
        }
        let deadline = Instant::now() + UNPLUG;
        while Instant::now() < deadline {
            match self.receive(deadline) {
                Ok(event) if is_it(&event) => return Ok(true),
                Ok(_) => {}
                Err(_) if Instant::now() >= deadline => break,
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn receive(&mut self, deadline: Instant) -> Result<Value, String> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let unanswered = |error: std::io::Error| format!("QEMU does not answer: {error}");
        self.stream.get_ref().set_read_timeout(Some(left)).map_err(unanswered)?;
        let mut line = String::new();
        if self.stream.read_line(&mut line).map_err(unanswered)? == 0 {
            return Err("QEMU has closed its monitor: it serves one at a time".to_owned());
        }
        serde_json::from_str(&line).map_err(|error| format!("no answer of QEMU's: {error}"))
    }
}
