//! What is in the packages, and what the programs in them do without a VM.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use object::Object as _;
use packaging::{DEBS, Made, VERSION, guest};
use whole_stack::artifacts::{GLIBC, Profile};

/// The packages, made once. Of what the tests are made of as well, so that little is built.
fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| packaging::make(Profile::Dev, &harness::store("packages-dev"), VERSION).unwrap())
}

fn output(command: &mut Command) -> Output {
    let done = command.stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "{command:?}: {}{}", text(&done.stdout), text(&done.stderr));
    done
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A package's files and control files in a folder.
fn unpacked(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    output(Command::new("dpkg-deb").arg("-R").arg(made().deb(name).unwrap()).arg(folder.path()));
    folder
}

/// The files of a package: path to the rest of dpkg-deb's line.
fn listed(name: &str) -> BTreeMap<String, String> {
    let said = output(Command::new("dpkg-deb").arg("-c").arg(made().deb(name).unwrap()));
    let line = |line: &str| {
        let (rest, path) = line.split_once(" ./")?;
        Some((path.to_owned(), rest.to_owned()))
    };
    text(&said.stdout).lines().filter_map(line).collect()
}

#[test]
fn each_package_has_what_it_is_for() {
    let expected: [(&str, &[&str]); 4] = [
        (
            "vgpu-guest",
            &[
                "usr/lib/x86_64-linux-gnu/libcuda.so.1",
                "usr/lib/x86_64-linux-gnu/libcuda.so -> libcuda.so.1",
                "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
                "usr/lib/x86_64-linux-gnu/libnvidia-ml.so -> libnvidia-ml.so.1",
                "usr/lib/vgpu/libcuda.so.1 -> /usr/lib/x86_64-linux-gnu/libcuda.so.1",
                "usr/bin/vgpu-smi",
                "usr/bin/vgpu-run",
                "usr/lib/udev/rules.d/60-vgpu.rules",
                "usr/lib/modprobe.d/vgpu.conf",
                "etc/cdi/vgpu.yaml",
                "usr/lib/systemd/system/ollama.service.d/50-vgpu.conf",
                "usr/share/man/man1/vgpu-smi.1",
                "usr/share/bash-completion/completions/vgpu-smi",
            ],
        ),
        (
            "vgpu-guest-dkms",
            &[
                "usr/src/vgpu-0.1.0/dkms.conf",
                "usr/src/vgpu-0.1.0/vgpu_main.c",
                "usr/src/vgpu-0.1.0/include/vgpu_layout.h",
            ],
        ),
        ("vgpu-guest-nvidia-nodes", &["usr/lib/tmpfiles.d/vgpu-nvidia-nodes.conf"]),
        (
            "vgpu-host",
            &[
                "usr/bin/vhost-user-vgpu",
                "usr/bin/vgpuctl",
                "usr/lib/systemd/system/vhost-user-vgpu@.service",
                "usr/lib/sysusers.d/vgpu-host.conf",
                "usr/lib/tmpfiles.d/vgpu-host.conf",
                "usr/share/vgpu/vhost-user-vgpu.json",
                "usr/share/man/man1/vhost-user-vgpu.1",
                "usr/share/man/man1/vgpuctl-set.1",
                "usr/share/bash-completion/completions/vgpuctl",
                "usr/share/zsh/vendor-completions/_vgpuctl",
                "usr/share/fish/vendor_completions.d/vgpuctl.fish",
            ],
        ),
    ];
    assert_eq!(expected.map(|(name, _)| name), DEBS);
    for (name, files) in expected {
        let list = listed(name);
        for file in files {
            assert!(list.contains_key(*file), "{name} has no {file}: {:?}", list.keys());
        }
        for document in ["copyright", "NOTICE", "CHANGELOG.md"] {
            assert!(list.contains_key(&format!("usr/share/doc/{name}/{document}")), "{name} {document}");
        }
        for (path, rest) in &list {
            assert!(rest.contains("root/root"), "{name}: {path} belongs to {rest}");
            let mode = rest.get(..10).unwrap();
            assert!(
                ["drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x", "lrwxrwxrwx"].contains(&mode),
                "{path}: {mode}"
            );
            assert!(!path.contains("nvidia") || path.contains("ml.so") || name.ends_with("nodes"), "{path}");
        }
    }
}

#[test]
fn nothing_needs_a_newer_c_library() {
    let newest = GLIBC.split('.').map(|n| n.parse().unwrap()).collect::<Vec<u32>>();
    let mut looked_at = 0;
    for name in ["vgpu-guest", "vgpu-host"] {
        let folder = unpacked(name);
        for path in listed(name)
            .keys()
            .filter(|path| !path.contains(" -> ") && !path.is_empty() && !path.ends_with('/'))
        {
            let bytes = fs::read(folder.path().join(path)).unwrap();
            if !bytes.starts_with(b"\x7fELF") {
                continue;
            }
            looked_at += 1;
            let parsed = object::File::parse(&*bytes).unwrap();
            assert!(parsed.section_by_name(".debug_info").is_none(), "{path} is not stripped");
            for word in text(&bytes).split("GLIBC_").skip(1) {
                let number: String = word.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
                let number: Vec<u32> = number.split('.').filter_map(|n| n.parse().ok()).collect();
                assert!(number <= newest, "{path} needs GLIBC_{number:?}");
            }
        }
    }
    assert_eq!(looked_at, 5, "two libraries and three programs");
}

#[test]
fn scripts_are_shell_scripts_and_versions_are_filled_in() {
    for name in DEBS {
        let folder = unpacked(name);
        let control = folder.path().join("DEBIAN");
        for entry in fs::read_dir(&control).unwrap() {
            let path = entry.unwrap().path();
            let said = fs::read_to_string(&path).unwrap();
            assert!(
                !said.contains('@') || path.ends_with("control") || said.contains("vgpu@"),
                "{}: {said}",
                path.display()
            );
            if said.starts_with("#!") {
                output(Command::new("sh").arg("-n").arg(&path));
                assert!(said.contains("set -e"), "{}", path.display());
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
            }
        }
        let text = fs::read_to_string(control.join("control")).unwrap();
        assert!(
            text.contains(&format!("\nVersion: {VERSION}\n")) && text.contains("\nInstalled-Size: "),
            "{text}"
        );
    }
}

/// Options that a program's help names.
fn options(help: &str) -> Vec<String> {
    let words = help.split(|c: char| c.is_whitespace() || ",[]=()`".contains(c));
    let long = words.filter(|w| {
        w.starts_with("--") && w.len() > 3 && w[2..].chars().all(|c| c.is_ascii_lowercase() || c == '-')
    });
    let mut list: Vec<String> = long.map(str::to_owned).collect();
    list.sort();
    list.dedup();
    list
}

#[test]
fn manual_pages_and_completions_have_every_option() {
    let (host, guest) = (unpacked("vgpu-host"), unpacked("vgpu-guest"));
    for (folder, program) in [(&host, "vhost-user-vgpu"), (&host, "vgpuctl"), (&guest, "vgpu-smi")] {
        let root = folder.path();
        let help = output(Command::new(root.join("usr/bin").join(program)).arg("-h"));
        // Lines of options, not the text around them.
        let help: String = text(&help.stdout)
            .lines()
            .filter(|l| l.trim_start().starts_with('-'))
            .map(|l| format!("{}\n", l.trim_start().split("  ").next().unwrap()))
            .collect();
        let options = options(&help);
        assert!(options.len() >= 3, "{program}: {help}");
        let read = |path: String| fs::read_to_string(root.join(path)).unwrap();
        // A dash is written \- in a manual page.
        let manual = read(format!("usr/share/man/man1/{program}.1")).replace("\\-", "-");
        let bash = read(format!("usr/share/bash-completion/completions/{program}"));
        for option in options {
            assert!(manual.contains(&option), "the manual of {program} has no {option}");
            assert!(bash.contains(&option), "bash's completions of {program} have no {option}");
        }
        output(
            Command::new("bash")
                .arg("-n")
                .arg(root.join(format!("usr/share/bash-completion/completions/{program}"))),
        );
    }
}

/// A program that says where its cuInit comes from, linked to another libcuda.so.1 beside it by its RPATH.
fn stubborn_program(folder: &Path) -> PathBuf {
    fs::write(folder.join("own.c"), "int cuInit(unsigned flags) { return 999; }\n").unwrap();
    let program = "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <stdio.h>\nint cuInit(unsigned);\nint main(void) { Dl_info i; \
        void *loaded = dlopen(\"libcuda.so.1\", RTLD_NOW); dladdr(dlsym(loaded, \"cuInit\"), &i); puts(i.dli_fname); dladdr((void *)cuInit, &i); \
        puts(i.dli_fname); puts(cuInit(0) == 999 ? \"its own\" : \"this system's\"); }\n";
    fs::write(folder.join("program.c"), program).unwrap();
    let own = folder.join("libcuda.so.1");
    output(
        Command::new("gcc")
            .current_dir(folder)
            .args(["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"])
            .arg(&own)
            .arg("own.c"),
    );
    let path = format!("-Wl,--disable-new-dtags,-rpath,{}", folder.display());
    output(
        Command::new("gcc")
            .current_dir(folder)
            .arg("-fPIE")
            .arg(path)
            .args(["-o", "program", "program.c"])
            .arg(&own)
            .arg("-ldl"),
    );
    folder.join("program")
}

#[test]
fn vgpu_run_gives_a_program_with_its_own_libcuda_ours() {
    let (package, folder) = (unpacked("vgpu-guest"), tempfile::tempdir().unwrap());
    let program = stubborn_program(folder.path());
    let alone = output(&mut Command::new(&program));
    assert!(text(&alone.stdout).contains("its own"), "{}", text(&alone.stdout));

    let run = package.path().join("usr/bin/vgpu-run");
    let libraries = package.path().join(guest::LIBRARIES);
    let said = output(
        Command::new(&run).arg(&program).env("VGPU_LIBRARIES", &libraries).env("LD_LIBRARY_PATH", "/nowhere"),
    );
    let said = text(&said.stdout);
    assert!(
        said.contains("this system's") && said.matches(&*libraries.to_string_lossy()).count() == 2,
        "{said}"
    );

    let missing = Command::new(&run).arg("true").env("VGPU_LIBRARIES", "/nowhere").output().unwrap();
    assert!(missing.status.code() == Some(126) && text(&missing.stderr).contains("install vgpu-guest"));
    assert_eq!(Command::new(&run).output().unwrap().status.code(), Some(2));
    let status =
        Command::new(&run).args(["sh", "-c", "exit 7"]).env("VGPU_LIBRARIES", &libraries).status().unwrap();
    assert_eq!(status.code(), Some(7));
}

/// All files below a folder, with what is in them or where they lead.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.is_symlink() {
                found.insert(name, fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes());
            } else if path.is_dir() {
                todo.push(path);
            } else {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The tarball unpacked, and a system to install it in.
fn tarball() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    output(Command::new("tar").arg("-xzf").arg(&made().tarball).arg("-C").arg(folder.path()));
    let script = folder.path().join(format!("vgpu-guest-{VERSION}/install.sh"));
    let system = folder.path().join("system");
    fs::create_dir_all(system.join(guest::LIBRARIES)).unwrap();
    fs::create_dir_all(system.join("usr/bin")).unwrap();
    (folder, script, system)
}

#[test]
fn the_tarball_installs_twice_and_leaves_nothing() {
    let (_folder, script, system) = tarball();
    output(Command::new("sh").arg("-n").arg(&script));
    let run = |words: &[&str]| {
        let done = Command::new("sh").arg(&script).args(words).arg("--root").arg(&system).output().unwrap();
        (done.status.code().unwrap(), text(&done.stdout) + &text(&done.stderr))
    };
    fs::write(system.join("usr/bin/other"), "x").unwrap();
    let before = files(&system);
    let (status, said) = run(&["--check"]);
    assert!(status == 1 && said.contains("missing: /usr/lib/x86_64-linux-gnu/libcuda.so.1"), "{said}");
    assert_eq!(files(&system), before, "--check changes nothing");

    let (status, said) = run(&[]);
    assert_eq!(status, 0, "{said}");
    let installed = files(&system);
    let link = |path: &str| text(&installed[Path::new(path)]);
    assert_eq!(link("usr/lib/x86_64-linux-gnu/libcuda.so"), "libcuda.so.1");
    assert_eq!(link("usr/bin/nvidia-smi"), "vgpu-smi");
    assert_eq!(run(&["--check"]).0, 0);
    assert_eq!(run(&[]).0, 0);
    assert_eq!(files(&system), installed, "the second time changes nothing");

    fs::write(system.join("usr/bin/vgpu-run"), "changed").unwrap();
    let (status, said) = run(&["--check"]);
    assert!(status == 1 && said.contains("changed: /usr/bin/vgpu-run"), "{said}");
    let (status, said) = run(&["--uninstall"]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(files(&system), before);
    assert_eq!(run(&["--uninstall"]).0, 0);
    assert_eq!(run(&["--frobnicate"]).0, 2);
}

#[test]
fn the_tarball_leaves_a_real_driver_alone_unless_told() {
    let (_folder, script, system) = tarball();
    let place = system.join(guest::LIBRARIES);
    fs::write(place.join("libcuda.so.550.1"), "NVIDIA's").unwrap();
    std::os::unix::fs::symlink("libcuda.so.550.1", place.join("libcuda.so.1")).unwrap();
    fs::write(system.join("usr/bin/nvidia-smi"), "NVIDIA's").unwrap();
    let before = files(&system);
    let run = |words: &[&str]| {
        Command::new("sh").arg(&script).args(words).arg("--root").arg(&system).output().unwrap()
    };
    let refused = run(&[]);
    let said = text(&refused.stderr);
    assert!(
        refused.status.code() == Some(1)
            && said.contains("is not this project's")
            && said.contains("--force"),
        "{said}"
    );
    assert_eq!(files(&system), before, "nothing was changed");

    let forced = run(&["--force"]);
    assert!(forced.status.success(), "{}", text(&forced.stderr));
    assert!(text(&forced.stdout).contains("moved aside"));
    assert_eq!(fs::read(system.join("usr/bin/nvidia-smi")).unwrap(), b"NVIDIA's");
    assert!(run(&["--force"]).status.success());
    assert!(run(&["--uninstall"]).status.success());
    assert_eq!(files(&system), before, "what was moved aside is back");
}

#[test]
fn the_guests_package_refuses_to_write_over_a_real_driver() {
    let folder = unpacked("vgpu-guest");
    let script = fs::read_to_string(folder.path().join("DEBIAN/preinst")).unwrap();
    let place = tempfile::tempdir().unwrap();
    // The script names the place; here it is another.
    let script = script.replace("/usr/lib/x86_64-linux-gnu", &place.path().display().to_string());
    let run = || Command::new("sh").args(["-c", &script, "preinst", "install"]).output().unwrap();
    assert!(run().status.success());
    fs::copy(folder.path().join(guest::LIBRARIES).join("libcuda.so.1"), place.path().join("libcuda.so.1"))
        .unwrap();
    assert!(run().status.success(), "ours may be replaced");
    fs::write(place.path().join("libnvidia-ml.so.1"), "NVIDIA's").unwrap();
    let refused = run();
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("libnvidia-ml.so.1 is not this project's"), "{said}");
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

#[test]
fn the_guides_name_packages_files_and_programs_that_there_are() {
    let all: Vec<String> = DEBS.iter().flat_map(|name| listed(name).into_keys()).collect();
    let files: Vec<&str> = all.iter().map(|path| path.split(" -> ").next().unwrap()).collect();
    let (mut packages, mut paths) = (0, 0);
    for page in GUIDES {
        let said = fs::read_to_string(harness::repository().join(page)).unwrap();
        for word in said.split(|c: char| c.is_whitespace() || "`|,:;()'\"".contains(c)) {
            if word.ends_with(".deb") || word.ends_with(".tar.gz") {
                assert!(made().folder.join(word).exists(), "{page}: {word} is not made");
                packages += 1;
            }
            let ours =
                ["/usr/bin/vgpu", "/usr/share/vgpu/", "/etc/cdi/vgpu.", "/usr/lib/x86_64-linux-gnu/lib"];
            if ours.iter().any(|start| word.starts_with(start)) {
                assert!(files.contains(&&word[1..]), "{page}: {word} is in no package");
                paths += 1;
            }
        }
    }
    assert!(packages >= 8 && paths >= 6, "{packages} {paths}");
}

/// The arguments of a program's command line on a page.
fn on_page(page: &str, program: &str) -> Vec<Vec<String>> {
    let said = fs::read_to_string(harness::repository().join(page)).unwrap().replace("\\\n", " ");
    let lines = said.lines().filter_map(|line| line.strip_prefix("    ")?.trim().strip_prefix(program));
    let words = |line: &str| line.trim_end_matches('&').split_whitespace().map(str::to_owned).collect();
    lines.filter(|line| line.starts_with(' ')).map(words).collect()
}

#[test]
fn command_lines_of_the_guides_are_taken() {
    let mut lines = 0;
    for page in GUIDES {
        for (program, command) in [
            ("vhost-user-vgpu", packaging::pages::daemon as fn() -> _),
            ("vgpuctl", packaging::pages::vgpuctl),
            ("vgpu-smi", packaging::pages::smi),
        ] {
            for words in on_page(page, program) {
                let words = std::iter::once(program.to_owned()).chain(words);
                command().try_get_matches_from(words).unwrap_or_else(|error| panic!("{page}: {error}"));
                lines += 1;
            }
        }
    }
    assert!(lines >= 5, "{lines}");
}

#[test]
fn the_containers_description_names_what_is_installed() {
    let list = listed("vgpu-guest");
    let folder = unpacked("vgpu-guest");
    let path = folder.path().join("etc/cdi/vgpu.yaml");
    let said = fs::read_to_string(&path).unwrap();
    let hosts =
        said.lines().filter_map(|line| line.trim().strip_prefix("- hostPath: \"/")?.strip_suffix('"'));
    let hosts: Vec<_> = hosts.collect();
    assert_eq!(hosts.len(), 5, "{said}");
    for host in hosts {
        assert!(list.contains_key(host), "{host}");
    }
    assert!(said.contains("- path: \"/dev/vgpu\"") && said.contains("kind: \"vgpu/gpu\""));
}

#[test]
fn qemus_arguments_are_the_same_everywhere() {
    let device = "vhost-user-fs-pci,chardev=vgpu,tag=VGPUSTUB,num-request-queues=1,queue-size=1024";
    let help = packaging::pages::daemon().render_long_help().to_string();
    let pages = ["README.md", "docs/plain-qemu.md", "docs/attachments.md"];
    for text in
        pages.map(|page| fs::read_to_string(harness::repository().join(page)).unwrap()).iter().chain([&help])
    {
        assert!(text.contains(device) && text.contains("memory-backend-memfd,id=mem,size=4G,share=on"));
    }
    let libvirt = fs::read_to_string(harness::repository().join("docs/kvm-libvirt.md")).unwrap();
    for word in
        ["<target dir='VGPUSTUB'/>", "queue='1024'", "<source type='memfd'/>", "<access mode='shared'/>"]
    {
        assert!(libvirt.contains(word), "{word}");
    }
}
