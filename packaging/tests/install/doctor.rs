//! `vgpu-smi doctor` in the guest: as whoever runs it, and with everything that goes wrong.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::guest::Output;
use serde_json::Value;

use crate::scene::{Scene, USER};

const LIMIT: Duration = Duration::from_secs(900);
const STEPS: [&str; 6] = ["device", "module", "access", "daemon", "libraries", "kernel"];
/// What Ollama's own unit says, and what careful people add to it.
const SANDBOX: &str = "-p User=ollama -p Group=ollama -p ProtectSystem=strict -p ProtectHome=yes -p PrivateTmp=yes -p NoNewPrivileges=yes \
    -p ProtectKernelTunables=yes -p ProtectControlGroups=yes -p RestrictSUIDSGID=yes";

fn steps(output: &Output) -> Result<Vec<Value>> {
    // systemd-run may say something before.
    let text = output.text();
    let json = text.find('{').and_then(|at| text.get(at..)).unwrap_or_default();
    let said: Value = serde_json::from_str(json).with_context(|| format!("{output}"))?;
    Ok(said["steps"].as_array().with_context(|| format!("{output}"))?.clone())
}

fn well(output: &Output) -> Result<()> {
    let steps = steps(output)?;
    let names: Vec<_> = steps.iter().filter_map(|step| step["name"].as_str()).collect();
    ensure!(names == STEPS && steps.iter().all(|step| step["status"] == "ok"), "{steps:#?}");
    Ok(())
}

/// The step of that name is the first that has failed: why, and what to do.
fn failing(scene: &Scene, output: &Output, name: &str) -> Result<String> {
    let steps = steps(output)?;
    let first =
        steps.iter().find(|step| step["status"] == "failed").with_context(|| format!("{steps:#?}"))?;
    ensure!(first["name"] == name, "{steps:#?}");
    let said = format!(
        "{} | {}",
        first["why"].as_str().unwrap_or_default(),
        first["to_do"].as_str().unwrap_or_default()
    );
    scene.note(&format!("{name}: {said}"));
    Ok(said)
}

fn as_user(scene: &Scene, uid: u32) -> Result<Output> {
    scene.guest.exec(["vgpu-smi", "doctor", "--json"]).user(uid).timeout(LIMIT).output()
}

fn in_service(scene: &Scene, more: &str) -> Result<Output> {
    let run = format!("systemd-run --quiet --wait --pipe --collect {SANDBOX} {more} vgpu-smi doctor --json");
    scene.guest.run(&run).timeout(LIMIT).output()
}

/// A unit of the name and kind of Ollama's, more closed than that: the package's drop-in opens the device to it. What it printed.
fn as_ollama(scene: &Scene, program: &str) -> Result<Output> {
    let unit = format!(
        "[Unit]\nAfter=network-online.target\n[Service]\nType=oneshot\nExecStart={program}\nUser=ollama\nGroup=ollama\n\
        ProtectSystem=strict\nProtectHome=yes\nPrivateTmp=yes\nPrivateDevices=yes\nDevicePolicy=closed\nNoNewPrivileges=yes\n\
        StandardOutput=truncate:/tmp/ollama.json\nEnvironment=PATH=/usr/local/bin:/usr/bin:/bin\n"
    );
    scene.guest.write_file("/etc/systemd/system/ollama.service", unit.as_bytes(), 0o644)?;
    let run = "systemctl daemon-reload; systemctl start ollama.service; cat /tmp/ollama.json; rm /etc/systemd/system/ollama.service; \
        systemctl daemon-reload";
    scene.guest.run(run).timeout(LIMIT).output()
}

/// For root, an ordinary user, a service in a sandbox, and one that is Ollama's by name.
pub fn all_is_well(scene: &Scene) -> Result<()> {
    scene.guest.run("id ollama || useradd --system --shell /bin/false ollama").check()?;
    scene.wait("test -c /dev/vgpu", Duration::from_secs(60))?;
    well(&as_user(scene, 0)?).context("root")?;
    well(&as_user(scene, USER)?).context("an ordinary user")?;
    well(&in_service(scene, "-p DevicePolicy=closed -p 'DeviceAllow=/dev/vgpu rw'")?).context("a service")?;
    well(&as_ollama(scene, "/usr/bin/vgpu-smi doctor --json")?).context("ollama.service")?;
    scene.program("ollama")?;
    // Not from /tmp: the service has one of its own.
    scene.guest.run("install -D /tmp/ollama /usr/local/bin/ollama-probe").check()?;
    let probes = as_ollama(scene, "/usr/local/bin/ollama-probe all")?;
    ensure!(probes.text().contains("10 of 10 probes have found a GPU"), "{probes}");
    scene.note(probes.text().lines().find(|line| line.starts_with("new")).unwrap_or_default());
    scene.guest.run("rm /usr/local/bin/ollama-probe").check()?;
    scene.guest.run("userdel ollama").check().map(drop)
}

pub fn quarantine(scene: &Scene) -> Result<()> {
    scene.vgpuctl(&["quarantine", "web"])?;
    let said = failing(scene, &as_user(scene, USER)?, "daemon")?;
    ensure!(said.contains("quarantined") && said.contains("administrator"), "{said}");
    scene.vgpuctl(&["clear", "web"])?;
    well(&as_user(scene, USER)?)
}

pub fn permissions(scene: &Scene) -> Result<()> {
    scene.guest.run("useradd --system --shell /bin/false ollama").check()?;
    let said = failing(scene, &in_service(scene, "-p PrivateDevices=yes")?, "module")?;
    ensure!(said.contains("a /dev of its own") && said.contains("PrivateDevices=no"), "{said}");
    let said = failing(scene, &in_service(scene, "-p DevicePolicy=closed")?, "access")?;
    ensure!(said.contains("DeviceAllow=/dev/vgpu rw"), "{said}");
    scene.guest.run("userdel ollama; chmod 600 /dev/vgpu").check()?;
    let said = failing(scene, &as_user(scene, USER)?, "access")?;
    ensure!(said.contains("mode 0600") && said.contains("60-vgpu.rules"), "{said}");
    // The advice that it gives.
    scene.guest.run("udevadm trigger /dev/vgpu && udevadm settle").check()?;
    well(&as_user(scene, USER)?)
}

/// Programs whose table of calls is another one: this release's with one call's shape changed.
pub fn another_release(scene: &Scene) -> Result<()> {
    let change = "LC_ALL=C sed 's/wirebytesize:usize,bytesavoid/wirebytesizf:usize,bytesavoid/' /usr/bin/vgpu-smi >/tmp/vgpu-smi \
        && ! cmp -s /usr/bin/vgpu-smi /tmp/vgpu-smi && chmod 755 /tmp/vgpu-smi";
    scene.guest.run(change).check()?;
    let output =
        scene.guest.exec(["/tmp/vgpu-smi", "doctor", "--json"]).user(USER).timeout(LIMIT).output()?;
    let said = failing(scene, &output, "daemon")?;
    ensure!(said.contains("version mismatch") && said.contains("install the same release in both"), "{said}");
    Ok(())
}

pub fn module_not_loaded(scene: &Scene) -> Result<()> {
    scene.guest.run("modprobe -r vgpu").check()?;
    let said = failing(scene, &as_user(scene, 0)?, "module")?;
    ensure!(said.contains("not loaded") && said.contains("modprobe vgpu"), "{said}");
    scene.guest.run("modprobe vgpu").check()?;
    scene.wait("test -c /dev/vgpu", Duration::from_secs(60))
}

pub fn device_missing(scene: &Scene) -> Result<()> {
    scene.unplug()?;
    let said = failing(scene, &as_user(scene, USER)?, "device")?;
    ensure!(said.contains("vhost-user-fs-pci"), "QEMU's arguments: {said}");
    Ok(())
}

/// Comes after [`device_missing`]: the device is plugged in again, and once more after the daemon has ended.
pub fn daemon_absent(scene: &mut Scene) -> Result<()> {
    scene.plug()?;
    well(&as_user(scene, USER)?)?;
    scene.stop_daemon()?;
    let said = failing(scene, &as_user(scene, USER)?, "daemon")?;
    ensure!(said.contains("does not answer") && said.contains("on the host"), "{said}");
    scene.unplug()?;
    scene.plug()?;
    well(&as_user(scene, USER)?)
}
