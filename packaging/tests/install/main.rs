//! The packages in whole systems, as their users install them: Debian 12 and 13 with systemd, on an emulated machine with the daemon of
//! `vgpu-host` behind it. `cargo xtask test --install` runs these; they need root and take minutes each, so they are not run otherwise.

mod doctor;
mod scene;

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::kernel::Series;
use scene::{Scene, USER};

/// Paths on the guest's disk that a package may leave: logs, caches and dpkg's own records.
const MAY_STAY: &str = "-path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /root -o -path /var/log -o -path /var/lib/dpkg \
    -o -path /var/cache -o -path /var/lib/systemd -o -path /boot -o -path /var/tmp -o -name 'modules.*' -o -name '*.pyc' -o -name __pycache__";

/// All paths of the guest's disk.
fn paths(scene: &Scene) -> Result<Vec<String>> {
    let find = format!("find / \\( {MAY_STAY} \\) -prune -o -print | LC_ALL=C sort");
    let said = scene.guest.run(&find).timeout(Duration::from_secs(300)).check()?;
    Ok(said.text().lines().map(str::to_owned).collect())
}

fn same(before: &[String], after: &[String]) -> Result<()> {
    let new: Vec<_> = after.iter().filter(|path| !before.contains(path)).collect();
    let gone: Vec<_> = before.iter().filter(|path| !after.contains(path)).collect();
    ensure!(new.is_empty() && gone.is_empty(), "left behind: {new:#?}; taken away: {gone:#?}");
    Ok(())
}

fn installs(series: Series) -> Result<()> {
    let mut scene = Scene::start(series)?;
    let before = paths(&scene)?;

    let said = scene.dpkg(&["-i"], &["vgpu-guest-dkms", "vgpu-guest"])?;
    ensure!(said.contains("self-test (vgpu-smi doctor)"), "{said}");
    ensure!(said.contains("ok") && !said.contains("failed"), "the self-test at install: {said}");
    ensure!(said.matches("self-test").count() == 1, "once for both packages: {said}");
    scene.note("installed; the self-test at install is well");

    scene.reboot()?;
    scene.libraries_are_found()?;
    doctor::all_is_well(&scene)?;
    scene.note("after a reboot all is well for root, a user, and services");
    let list = scene.guest.exec(["nvidia-smi", "-L"]).user(USER).check()?.text();
    ensure!(list.starts_with("GPU 0: vGPU software executor"), "{list}");

    doctor::quarantine(&scene)?;
    doctor::permissions(&scene)?;
    doctor::another_release(&scene)?;
    doctor::module_not_loaded(&scene)?;
    doctor::device_missing(&scene)?;
    doctor::daemon_absent(&mut scene)?;
    scene.note("what goes wrong is told in words");

    scene.upgrade()?;
    doctor::all_is_well(&scene)?;
    scene.nvidia_nodes()?;
    let names = ["vgpu-guest", "vgpu-guest-dkms", "vgpu-guest-nvidia-nodes"];
    scene.guest.exec(["dpkg", "-P"].into_iter().chain(names)).timeout(Duration::from_secs(600)).check()?;
    ensure!(!scene.guest.run("lsmod | grep -q ^vgpu").output()?.success(), "the module is still loaded");
    same(&before, &paths(&scene)?)?;
    scene.note("an upgrade works, and removal leaves nothing");
    scene.guest.shutdown()
}

#[test]
#[ignore = "needs root and minutes: cargo xtask test --install"]
fn a_guest_of_debian_12() {
    installs(Series::V6_1).unwrap();
}

#[test]
#[ignore = "needs root and minutes: cargo xtask test --install"]
fn a_guest_of_debian_13() {
    installs(Series::V6_12).unwrap();
}

#[test]
#[ignore = "needs root and minutes: cargo xtask test --install"]
fn a_host_of_debian_12() {
    scene::host(Series::V6_1).unwrap();
}

#[test]
#[ignore = "needs root and minutes: cargo xtask test --install"]
fn a_host_of_debian_13() {
    scene::host(Series::V6_12).unwrap();
}

#[test]
#[ignore = "needs root and minutes: cargo xtask test --install"]
fn the_tarball_in_debian_12() {
    scene::tarball(Series::V6_1).unwrap();
}
