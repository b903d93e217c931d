//! What is in the packages, and what install.sh does in a folder.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use packaging::{Made, Shell, VERSION};
use whole_stack::artifacts::Profile;

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = harness::store("packages").join("test");
        packaging::build(&folder, Profile::Dev).unwrap_or_else(|e| panic!("{e:?}"))
    })
}

fn out(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Paths of a package's files, with their permissions as `ls` writes them.
fn contents(package: &Path) -> BTreeMap<String, String> {
    let listed = out(Command::new("dpkg-deb").arg("--contents").arg(package));
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[1], "root/root", "{line}");
        (words[5].trim_start_matches('.').to_owned(), words[0].to_owned())
    };
    listed.lines().map(line).collect()
}

fn field(package: &Path, name: &str) -> String {
    out(Command::new("dpkg-deb").arg("--field").arg(package).arg(name)).trim().to_owned()
}

fn unpacked(package: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    out(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(folder.path()));
    folder
}

#[test]
fn packages_have_what_they_are_for_with_its_modes() {
    let made = made();
    let guest = contents(&made.guest);
    for (path, mode) in [
        ("/usr/lib/x86_64-linux-gnu/libcuda.so.1", "-rw-r--r--"),
        ("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "-rw-r--r--"),
        ("/usr/lib/x86_64-linux-gnu/libcuda.so", "lrwxrwxrwx"),
        ("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so", "lrwxrwxrwx"),
        ("/usr/bin/vgpu-smi", "-rwxr-xr-x"),
        ("/usr/bin/vgpu-run", "-rwxr-xr-x"),
        ("/usr/lib/vgpu/vgpu-rebind", "-rwxr-xr-x"),
        ("/usr/lib/udev/rules.d/60-vgpu.rules", "-rw-r--r--"),
        ("/usr/lib/modprobe.d/vgpu.conf", "-rw-r--r--"),
        ("/etc/cdi/vgpu.yaml", "-rw-r--r--"),
        ("/usr/lib/systemd/system/ollama.service.d/vgpu.conf", "-rw-r--r--"),
    ] {
        assert_eq!(guest.get(path).map(String::as_str), Some(mode), "{path}");
    }
    assert!(!guest.contains_key("/usr/bin/nvidia-smi"), "another package's name");
    assert!(field(&made.guest, "Conflicts").contains("libcuda1"));
    let dkms = contents(&made.dkms);
    for name in [
        "dkms.conf",
        "Makefile",
        "Kbuild",
        "vgpu_main.c",
        "vgpu.h",
        "include/vgpu_layout.h",
        "include/vgpu_ioctl.h",
    ] {
        assert!(dkms.contains_key(&format!("/usr/src/vgpu-{VERSION}/{name}")), "{name}");
    }
    let host = contents(&made.host);
    for (path, mode) in [
        ("/usr/bin/vhost-user-vgpu", "-rwxr-xr-x"),
        ("/usr/bin/vgpuctl", "-rwxr-xr-x"),
        ("/usr/lib/systemd/system/vhost-user-vgpu@.service", "-rw-r--r--"),
        ("/usr/lib/tmpfiles.d/vgpu.conf", "-rw-r--r--"),
        ("/usr/lib/sysusers.d/vgpu.conf", "-rw-r--r--"),
        ("/etc/vgpu/vms/", "drwxr-xr-x"),
        ("/usr/share/man/man1/vgpuctl-rotate.1", "-rw-r--r--"),
    ] {
        assert_eq!(host.get(path).map(String::as_str), Some(mode), "{path}");
    }
    assert!(field(&made.host, "Depends").contains("libc6 (>= 2."), "{}", field(&made.host, "Depends"));
    for package in [&made.guest, &made.dkms, &made.host] {
        let folder = unpacked(package);
        out(Command::new("md5sum").current_dir(&folder).args(["--quiet", "--check", "DEBIAN/md5sums"]));
        for text in find(folder.path()) {
            let is_text = fs::read(&text).is_ok_and(|bytes| !bytes.contains(&0));
            assert!(
                !is_text || !fs::read_to_string(&text).unwrap().contains("@VERSION@"),
                "{}",
                text.display()
            );
        }
    }
}

/// Every file and link under a folder.
fn find(folder: &Path) -> Vec<PathBuf> {
    let listed = out(Command::new("find").arg(folder).args(["-not", "-type", "d"]));
    listed.lines().map(PathBuf::from).collect()
}

#[test]
fn scripts_are_a_shells_and_the_unit_is_systemds() {
    let made = made();
    for package in [&made.guest, &made.dkms, &made.host] {
        let folder = unpacked(package);
        for script in find(folder.path()) {
            if fs::read(&script).is_ok_and(|bytes| bytes.starts_with(b"#!/bin/sh\n")) {
                out(Command::new("sh").arg("-n").arg(&script));
                assert_ne!(
                    fs::metadata(&script).unwrap().permissions().mode() & 0o111,
                    0,
                    "{}",
                    script.display()
                );
            }
        }
    }
    let host = unpacked(&made.host);
    let description = fs::read(host.path().join("usr/share/vgpu/vhost-user/50-vgpu.json")).unwrap();
    let description: serde_json::Value = serde_json::from_slice(&description).unwrap();
    let binary = description["binary"].as_str().unwrap();
    let said =
        out(Command::new(host.path().join(binary.trim_start_matches('/'))).arg("--print-capabilities"));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["type"], description["type"]);
    // Every option that the unit gives is one of the daemon's.
    let unit =
        fs::read_to_string(host.path().join("usr/lib/systemd/system/vhost-user-vgpu@.service")).unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let (_, daemon) = packaging::programs().into_iter().find(|(name, _)| *name == "vhost-user-vgpu").unwrap();
    for word in start.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
        assert!(daemon.get_arguments().any(|argument| argument.get_long() == Some(word)), "--{word}");
    }
    let verify = Command::new("systemd-analyze").arg("--version").output();
    if verify.is_ok_and(|output| output.status.success()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vhost-user-vgpu@web.service");
        fs::write(&path, unit.replace("/usr/bin/vhost-user-vgpu", "/bin/true")).unwrap();
        let output =
            Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("vhost-user-vgpu")).collect();
        assert!(ours.is_empty(), "{ours:#?}");
    }
}

#[test]
fn manuals_and_completions_know_every_command_and_option() {
    for (name, command) in packaging::programs() {
        let pages = packaging::manual(name).unwrap();
        let all: String = pages.iter().map(|(_, page)| String::from_utf8(page.clone()).unwrap()).collect();
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let page = format!("{name}-{}", sub.get_name());
            assert!(pages.iter().any(|(name, _)| *name == page), "{page}");
            for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
                let text = String::from_utf8(packaging::completion(name, shell).unwrap()).unwrap();
                assert!(text.contains(sub.get_name()), "{shell} {page}");
            }
        }
        for option in
            command.get_arguments().filter(|option| !option.is_hide_set()).filter_map(clap::Arg::get_long)
        {
            // A manual has a backslash before each hyphen.
            assert!(all.contains(&option.replace('-', "\\-")), "{name} --{option}");
        }
        out(Command::new("bash")
            .arg("-n")
            .arg(written(&packaging::completion(name, Shell::Bash).unwrap()).path()));
    }
}

fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    file
}

/// The unpacked archive and a system's folder.
struct Archive {
    folder: tempfile::TempDir,
}

impl Archive {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        out(Command::new("tar").arg("-xzf").arg(&made().archive).arg("-C").arg(folder.path()));
        fs::create_dir_all(folder.path().join("root/usr/lib/x86_64-linux-gnu")).unwrap();
        Self { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn run(&self, options: &[&str]) -> (Option<i32>, String) {
        let script = self.folder.path().join(format!("vgpu-guest-{VERSION}/install.sh"));
        let Output { status, stdout, stderr } =
            Command::new(script).arg("--root").arg(self.root()).args(options).output().unwrap();
        (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
    }
}

#[test]
fn the_archive_installs_checks_and_leaves_nothing() {
    let archive = Archive::new();
    let (status, said) = archive.run(&["--check"]);
    assert!(status == Some(1) && said.contains("missing: ") && said.contains("libcuda.so.1"), "{said}");
    for _ in 0..2 {
        let (status, said) = archive.run(&[]);
        assert_eq!(status, Some(0), "{said}");
        let (status, said) = archive.run(&["--check"]);
        assert_eq!(status, Some(0), "{said}");
    }
    let root = archive.root();
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    assert_eq!(fs::read_link(libraries.join("libcuda.so")).unwrap(), Path::new("libcuda.so.1"));
    assert_eq!(fs::read_link(root.join("usr/bin/nvidia-smi")).unwrap(), Path::new("vgpu-smi"));
    let cdi = fs::read_to_string(root.join("etc/cdi/vgpu.yaml")).unwrap();
    assert!(cdi.contains("hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.1"), "{cdi}");

    fs::write(libraries.join("libcuda.so.1"), "damaged").unwrap();
    let (status, said) = archive.run(&["--check"]);
    assert!(status == Some(1) && said.contains("different: "), "{said}");
    assert_eq!(archive.run(&[]).0, Some(0));
    assert_eq!(archive.run(&["--check"]).0, Some(0));

    fs::write(root.join("usr/bin/somebody-elses"), "").unwrap();
    let (status, said) = archive.run(&["--uninstall"]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(find(&root), [root.join("usr/bin/somebody-elses")]);
    let (status, said) = archive.run(&["--uninstall"]);
    assert!(status == Some(0) && said.contains("nothing is installed"), "{said}");
}

#[test]
fn a_driver_of_nvidias_is_left_alone_unless_it_is_told() {
    let archive = Archive::new();
    let library = archive.root().join("usr/lib/x86_64-linux-gnu/libcuda.so.1");
    symlink("libcuda.so.580.0", &library).unwrap();
    let before = find(&archive.root());
    let (status, said) = archive.run(&[]);
    assert!(status == Some(1) && said.contains("nothing was changed"), "{said}");
    assert_eq!(find(&archive.root()), before);
    fs::create_dir_all(archive.root().join("usr/bin")).unwrap();
    fs::write(archive.root().join("usr/bin/nvidia-smi"), "NVIDIA's").unwrap();
    assert_eq!(archive.run(&["--force"]).0, Some(0));
    assert!(library.symlink_metadata().unwrap().is_file());
    assert_eq!(archive.run(&["--uninstall"]).0, Some(0));
    assert_eq!(fs::read(archive.root().join("usr/bin/nvidia-smi")).unwrap(), b"NVIDIA's");
    let (status, said) = archive.run(&["--wrong"]);
    assert!(status == Some(2) && said.contains("--help"), "{said}");
}

#[test]
fn vgpu_run_gives_a_program_our_libraries() {
    let guest = unpacked(&made().guest);
    let run = guest.path().join("usr/bin/vgpu-run");
    let libraries = guest.path().join("usr/lib/x86_64-linux-gnu");
    // What the program has loaded, in its own words.
    let said = out(Command::new(&run).env("VGPU_LIBRARIES", &libraries).args(["cat", "/proc/self/maps"]));
    for name in ["libcuda.so.1", "libnvidia-ml.so.1"] {
        assert!(said.contains(&*libraries.join(name).to_string_lossy()), "{name} is not loaded");
    }
    let missing = Command::new(&run).env("VGPU_LIBRARIES", "/nowhere").arg("true").output().unwrap();
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(
        missing.status.code() == Some(127) && said.contains("/nowhere/libcuda.so.1 is missing"),
        "{said}"
    );
    assert!(out(Command::new(&run).arg("--help")).contains("vgpu-run PROGRAM"));
}

/// The pages that say how it is installed and used.
const GUIDES: [&str; 7] = [
    "README.md",
    "docs/install.md",
    "docs/kvm-libvirt.md",
    "docs/plain-qemu.md",
    "docs/containers.md",
    "docs/ollama.md",
    "docs/pytorch.md",
];

fn page(name: &str) -> String {
    fs::read_to_string(harness::repository().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn command_lines_of_the_guides_are_taken() {
    let mut count = 0;
    for name in GUIDES {
        let text = page(name).replace("\\\n", " ");
        for line in text.lines().filter_map(|line| line.strip_prefix("    ")) {
            let words: Vec<&str> = line.trim_end_matches('&').split_whitespace().collect();
            for (program, command) in packaging::programs() {
                if words.first() == Some(&program) {
                    command
                        .try_get_matches_from(&words)
                        .unwrap_or_else(|error| panic!("{name}: {line}: {error}"));
                    count += 1;
                }
            }
        }
    }
    assert!(count >= 5, "{count}");
}

#[test]
fn guides_name_files_that_are_installed() {
    let (guest, host) = (contents(&made().guest), contents(&made().host));
    let mut count = 0;
    for name in GUIDES {
        for word in page(name).split(|c: char| c.is_whitespace() || "`|,:;()'\"".contains(c)) {
            let ours = [
                "/usr/bin/vgpu",
                "/usr/share/vgpu/",
                "/usr/share/doc/vgpu",
                "/etc/cdi/vgpu.",
                "/usr/lib/x86_64-linux-gnu/lib",
            ];
            if ours.iter().any(|start| word.starts_with(start)) {
                assert!(
                    guest.contains_key(word) || host.contains_key(word),
                    "{name}: {word} is in no package"
                );
                count += 1;
            }
        }
    }
    assert!(count >= 6, "{count}");
    let cdi = fs::read_to_string(unpacked(&made().guest).path().join("etc/cdi/vgpu.yaml")).unwrap();
    let mounted: Vec<&str> =
        cdi.lines().filter_map(|line| line.trim().strip_prefix("- hostPath: ")).collect();
    assert_eq!(mounted.len(), 3);
    assert!(mounted.iter().all(|path| guest.contains_key(*path)), "{mounted:?}");
}

#[test]
fn qemus_arguments_are_the_same_everywhere() {
    let device = "vhost-user-fs-pci,chardev=vgpu,tag=VGPUSTUB,num-request-queues=1,queue-size=1024";
    let (_, mut daemon) =
        packaging::programs().into_iter().find(|(name, _)| *name == "vhost-user-vgpu").unwrap();
    let pages = ["docs/install.md", "docs/plain-qemu.md", "docs/attachments.md"].map(page);
    for text in pages.iter().chain([&daemon.render_long_help().to_string()]) {
        assert!(
            text.contains(device) && text.contains("memory-backend-memfd,id=mem,size=4G,share=on"),
            "{text}"
        );
    }
    let libvirt = page("docs/kvm-libvirt.md");
    for word in
        ["<target dir='VGPUSTUB'/>", "queue='1024'", "<source type='memfd'/>", "<access mode='shared'/>"]
    {
        assert!(libvirt.contains(word), "{word}");
    }
}
