//! `vgpu-smi` on the libraries that guests have, against a daemon on the software executor: what it shows, and what its doctor finds.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use harness::supervise;
use harness::wheels::Toolkit;
use pci_layout::control::{OPEN_SESSION, READ_REGS, ReplyHeader, RequestHeader};
use pci_layout::{ABI_VERSION, regs};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, accept, bind, connect, listen, recv,
    send, socket,
};
use serde_json::Value;
use whole_stack::artifacts::{self, Profile};
use whole_stack::daemon::Daemon;
use whole_stack::local::{Local, finish};
use whole_stack::vm::Stack;
use zerocopy::{FromBytes, IntoBytes};

/// The doctor may compute on a slow machine.
const LIMIT: Duration = Duration::from_secs(300);

fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| Stack::build(Profile::Dev, Toolkit::Cuda13).unwrap_or_else(|e| panic!("{e:?}")))
}

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| artifacts::smi(Profile::Dev).unwrap_or_else(|e| panic!("{e:?}")))
}

fn start(arguments: &[&str]) -> (Daemon, Local) {
    stack().start_local(arguments).unwrap_or_else(|e| panic!("{e:?}"))
}

/// The program under a name, on the libraries in a folder, with the daemon's socket.
fn command_as(program: &Path, libraries: &Path, socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env("LD_LIBRARY_PATH", libraries).env_remove("CUDA_VISIBLE_DEVICES");
    command.env("VGPU_TRANSPORT", "local").env("VGPU_SOCKET", socket);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn command(socket: &Path, arguments: &[&str]) -> Command {
    command_as(program(), &stack().libcuda, socket, arguments)
}

fn run(command: Command) -> Output {
    finish(supervise::spawn(command).unwrap(), LIMIT).unwrap_or_else(|e| panic!("{e:?}"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What it writes, which must be all that it writes.
fn said(socket: &Path, arguments: &[&str]) -> String {
    let output = run(command(socket, arguments));
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    stdout(&output)
}

/// What it writes to both, and its exit status.
fn failed(socket: &Path, arguments: &[&str]) -> (String, i32) {
    let output = run(command(socket, arguments));
    (stdout(&output) + &String::from_utf8_lossy(&output.stderr), output.status.code().unwrap_or(-1))
}

/// A process that has so many MiB of the device.
struct Holder {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Holder {
    fn start(local: &Local, mib: u32) -> Self {
        let mut command = local.command("quota", &[]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = supervise::spawn(command).unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut holder = Self { child, to, from };
        writeln!(holder.to.as_mut().unwrap(), "take {mib}").unwrap();
        let mut answer = String::new();
        holder.from.read_line(&mut answer).unwrap();
        assert_eq!(answer, "took\n");
        holder
    }

    fn end(mut self) {
        drop(self.to.take());
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn the_table_the_list_and_the_queries_show_the_vms_processes() {
    let (daemon, local) = start(&["--vram", "64MiB"]);
    let socket = daemon.socket();
    assert!(said(socket, &[]).contains("|  No running processes found "));
    let (a, b) = (Holder::start(&local, 8), Holder::start(&local, 20));
    let pids = [a.child.id(), b.child.id()];
    let path = local.programs.path("quota").to_string_lossy().into_owned();

    let table = said(socket, &[]);
    assert!(table.contains("Driver Version: 580.00 ") && table.contains("CUDA Version: 13.0 "), "{table}");
    assert!(table.contains("|      28MiB /     64MiB |"), "{table}");
    for (pid, mib) in pids.iter().zip(["8MiB", "20MiB"]) {
        let row = table
            .lines()
            .find(|line| line.contains(&format!(" {pid} ")))
            .unwrap_or_else(|| panic!("{table}"));
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!((words[1], words[5], words[7]), ("0", "C", mib), "{row}");
        assert!(words[6].ends_with("/quota"), "{row}");
    }

    let list = said(socket, &["-L"]);
    let uuid = list.split("(UUID: ").nth(1).and_then(|rest| rest.split(')').next()).unwrap().to_owned();
    assert_eq!(list, format!("GPU 0: vGPU software executor (CPU) (UUID: {uuid})\n"));
    assert!(uuid.starts_with("GPU-") && uuid.len() == 40, "{uuid}");

    let query =
        "--query-gpu=index,uuid,memory.total,memory.used,memory.free,utilization.gpu,compute_cap,pci.bus_id";
    assert_eq!(
        said(socket, &[query, "--format=csv"]),
        format!(
            "index, uuid, memory.total [MiB], memory.used [MiB], memory.free [MiB], utilization.gpu [%], compute_cap, pci.bus_id\n\
             0, {uuid}, 64 MiB, 28 MiB, 36 MiB, [N/A], 8.0, 00000000:00:00.0\n"
        )
    );
    assert_eq!(
        said(socket, &["--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", &uuid]),
        "28\n"
    );
    let apps = said(socket, &["--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"]);
    let mut rows: Vec<&str> = apps.lines().collect();
    rows.sort_unstable();
    let mut expected = vec![format!("{}, {path}, 8 MiB", pids[0]), format!("{}, {path}, 20 MiB", pids[1])];
    expected.sort_unstable();
    assert_eq!(rows, expected);

    let json: Value = serde_json::from_str(&said(socket, &["--json"])).unwrap();
    assert_eq!(json["gpus"][0]["memory_used_bytes"], 28 << 20, "{json}");
    assert_eq!(json["processes"].as_array().map(Vec::len), Some(2), "{json}");
    let report = said(socket, &["-q", "-d", "PIDS"]);
    assert!(
        pids.iter().all(|pid| report.contains(&format!("Process ID                        : {pid}\n"))),
        "{report}"
    );
    let rows = said(socket, &["pmon", "-c", "2", "-s", "m"]);
    assert_eq!(rows.lines().filter(|line| line.ends_with("    quota")).count(), 4, "{rows}");

    a.end();
    b.end();
    // It has opened no session for any of that.
    assert_eq!(daemon.stop().unwrap().get("sessions_opened"), Some(2));
}

#[test]
fn it_looks_again_until_the_daemon_is_lost() {
    let (daemon, _) = start(&["--soft-devices", "2"]);
    let arguments = ["--query-gpu=index,memory.used", "--format=csv,noheader", "-lms", "20", "-i", "0"];
    let mut child = supervise::spawn(command(daemon.socket(), &arguments)).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    for _ in 0..3 {
        assert_eq!(lines.next().as_deref(), Some("0, 0 MiB"));
    }
    daemon.stop().unwrap();
    let last = lines.last().unwrap();
    assert!(last.contains("GPU is lost"), "{last}");
    assert_eq!(child.wait().unwrap().code(), Some(15));
}

#[test]
fn exit_statuses_are_nvidia_smis() {
    let (daemon, _) = start(&[]);
    let socket = daemon.socket();
    let (words, status) = failed(socket, &["--query-gpu=name,cuda_version", "--format=csv"]);
    assert_eq!((words.as_str(), status), ("Field \"cuda_version\" is not a valid field to query.\n", 2));
    let (words, status) = failed(socket, &["-i", "1"]);
    assert!(words.starts_with("No devices were found") && status == 6, "{words}");
    let (words, status) = failed(socket, &["-pl", "300"]);
    assert_eq!((words.as_str(), status), ("-pl: the VM may not change the host's GPU\n", 4));
    assert_eq!(failed(socket, &["topo", "-m"]).1, 3);

    // Under its other name it is the same, and heads its table as scripts know it.
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("nvidia-smi");
    std::os::unix::fs::symlink(program(), &name).unwrap();
    let other = |arguments: &[&str]| stdout(&run(command_as(&name, &stack().libcuda, socket, arguments)));
    assert!(other(&[]).contains("| NVIDIA-SMI 580.00                 Driver Version: 580.00 "));
    assert_eq!(other(&["-L"]), said(socket, &["-L"]));

    let output = run(command_as(program(), folder.path(), socket, &["-L"]));
    assert_eq!(output.status.code(), Some(12), "{output:?}");
    assert!(stdout(&output).contains("libnvidia-ml.so.1"), "{output:?}");
    let gone = socket.to_owned();
    daemon.stop().unwrap();
    let (words, status) = failed(&gone, &["-L"]);
    assert!(words.contains("doctor") && status == 9, "{words}");
}

/// The doctor's steps, whether all is well, and what is beside them.
fn doctor(command: Command) -> (Vec<Value>, Option<i32>) {
    let output = run(command);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!(said["ok"], Value::Bool(output.status.success()), "{said}");
    (said["steps"].as_array().unwrap().clone(), output.status.code())
}

/// The step that has failed, which must be the one of that name: those before it are ok, those behind it skipped. Why, and what to do.
fn failing(command: Command, name: &str) -> (String, String) {
    let (steps, status) = doctor(command);
    assert_eq!((steps.len(), status), (6, Some(1)), "{steps:?}");
    let at = steps.iter().position(|step| step["status"] == "failed").unwrap_or_else(|| panic!("{steps:?}"));
    assert_eq!(steps[at]["name"], name, "{steps:?}");
    assert!(steps[..at].iter().all(|step| step["status"] == "ok"), "{steps:?}");
    assert!(steps[at + 1..].iter().all(|step| step["status"] == "skipped"), "{steps:?}");
    let text = |key: &str| steps[at][key].as_str().unwrap().to_owned();
    (text("why"), text("to_do"))
}

#[test]
fn the_doctor_finds_all_well() {
    let (daemon, _) = start(&["--soft-devices", "2", "--vram", "256MiB"]);
    let (steps, status) = doctor(command(daemon.socket(), &["doctor", "--json"]));
    let names: Vec<&str> = steps.iter().filter_map(|step| step["name"].as_str()).collect();
    assert_eq!(names, ["socket", "access", "listener", "daemon", "libraries", "kernel"]);
    assert!(steps.iter().all(|step| step["status"] == "ok") && status == Some(0), "{steps:?}");
    let what = |at: usize| steps[at]["what"].as_str().unwrap();
    assert!(what(3).contains("a device in software, 2 device(s), a quota of 256 MiB"), "{}", what(3));
    assert!(what(5).contains("on each of 2 device(s)"), "{}", what(5));

    let output = run(command(daemon.socket(), &["doctor"]));
    let text = stdout(&output);
    assert!(output.status.success() && text.ends_with("all is well\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(" ok  ")).count(), 6, "{text}");
    assert_eq!(daemon.stop().unwrap().get("posted_errors"), Some(0));
}

#[test]
fn the_doctor_names_a_daemon_that_is_not_there() {
    let (daemon, _) = start(&[]);
    let socket = daemon.socket().to_owned();
    let folder = socket.parent().unwrap().to_owned();
    let left = folder.join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    let (why, todo) = failing(command(&left, &["doctor", "--json"]), "listener");
    assert!(why.contains("has ended") && todo.contains("--local-socket"), "{why}");
    let (why, todo) = failing(command(&folder.join("none.sock"), &["doctor", "--json"]), "socket");
    assert!(why.contains("none.sock") && todo.contains("start the daemon"), "{why}");
    let text = stdout(&run(command(&left, &["doctor"])));
    assert!(
        text.contains("4 daemon    skipped   needs step 3\n") && text.ends_with("step 3 has failed\n"),
        "{text}"
    );
    daemon.stop().unwrap();
}

#[test]
fn the_doctor_names_a_quota_that_is_used_up() {
    let (daemon, local) = start(&["--vram", "64MiB"]);
    let holder = Holder::start(&local, 64);
    let (why, todo) = failing(command(daemon.socket(), &["doctor", "--json"]), "kernel");
    assert!(why.contains("cuMemAlloc_v2 answers 2 (CUDA_ERROR_OUT_OF_MEMORY"), "{why}");
    assert!(todo.contains("--vram"), "{todo}");
    holder.end();
    daemon.stop().unwrap();
}

#[test]
fn the_doctor_names_a_library_that_stands_in_the_way() {
    let (daemon, _) = start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let stubs = folder.path().join("stubs");
    std::fs::create_dir(&stubs).unwrap();
    let source = folder.path().join("stub.c");
    std::fs::write(&source, "int cuInit(unsigned flags) { (void)flags; return 34; }\n").unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"])
        .arg(stubs.join("libcuda.so.1"))
        .arg(&source);
    assert!(gcc.status().expect("gcc starts (Debian: apt-get install gcc libc6-dev)").success());
    let both = std::env::join_paths([stubs.as_path(), &stack().libcuda]).unwrap();
    let (why, todo) =
        failing(command_as(program(), Path::new(&both), daemon.socket(), &["doctor", "--json"]), "libraries");
    assert!(why.contains("stubs/libcuda.so.1") && why.contains("toolkit's stub"), "{why}");
    assert!(todo.contains("ldconfig"), "{todo}");
    daemon.stop().unwrap();
}

/// What stands between a guest and its daemon, and changes what the daemon says.
#[derive(Clone, Copy)]
enum Change {
    /// OPEN_SESSION is refused with this error of the device.
    Refuse(u32),
    /// A register has another value.
    Register(u32, u32),
}

/// Passes a connection's requests on to the daemon, one after the other.
fn pass_on(guest: &OwnedFd, daemon: &Path, change: Change) -> Option<()> {
    const PACKET: usize = 1 << 20;
    let host = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).ok()?;
    connect(&host, &SocketAddrUnix::new(daemon).ok()?).ok()?;
    let mut packet = vec![0u8; PACKET];
    loop {
        let (length, _) = recv(guest, packet.as_mut_slice(), RecvFlags::empty()).ok()?;
        if length == 0 {
            return None;
        }
        let (request, _) = RequestHeader::read_from_prefix(&packet[..length]).ok()?;
        if let (Change::Refuse(error), OPEN_SESSION) = (change, request.kind) {
            let refusal = ReplyHeader { error, request_id: request.request_id, len: 0, cuda_result: 0 };
            send(guest, refusal.as_bytes(), SendFlags::NOSIGNAL).ok()?;
            continue;
        }
        send(&host, &packet[..length], SendFlags::NOSIGNAL).ok()?;
        let (length, _) = recv(&host, packet.as_mut_slice(), RecvFlags::empty()).ok()?;
        if let (Change::Register(offset, value), READ_REGS) = (change, request.kind) {
            let at = size_of::<ReplyHeader>() + offset as usize;
            packet[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        send(guest, &packet[..length], SendFlags::NOSIGNAL).ok()?;
    }
}

/// A socket in a folder behind which the daemon says something else. Its threads end with this process.
fn between(folder: &Path, daemon: &Path, change: Change) -> PathBuf {
    let path = folder.join("between.sock");
    // A socket is left by the change before.
    let _ = std::fs::remove_file(&path);
    let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&listener, 16).unwrap();
    let daemon = daemon.to_owned();
    std::thread::spawn(move || {
        while let Ok(guest) = accept(&listener) {
            let daemon = daemon.clone();
            std::thread::spawn(move || pass_on(&guest, &daemon, change));
        }
    });
    path
}

#[test]
fn the_doctor_has_words_for_what_the_daemon_says() {
    let (daemon, _) = start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let found = |change| {
        let socket = between(folder.path(), daemon.socket(), change);
        failing(command(&socket, &["doctor", "--json"]), "daemon")
    };
    for (error, reason, remedy) in [
        (regs::ERROR_QUARANTINED, "quarantined", "administrator"),
        (regs::ERROR_QUEUE_FULL, "as many sessions as it may", "end some"),
        (regs::ERROR_MEDIATOR_UNAVAILABLE, "no worker", "daemon's log"),
        (regs::ERROR_RATE_LIMITED, "rate limit", "wait"),
    ] {
        let (why, todo) = found(Change::Refuse(error));
        assert!(why.contains(reason) && why.contains(&format!("(device error {error})")), "{why}");
        assert!(todo.contains(remedy), "{todo}");
    }
    let (why, todo) = found(Change::Register(regs::PROTOCOL_VER, ABI_VERSION + 1));
    assert!(
        why.contains("version mismatch") && todo.starts_with("the guest's packages are the older"),
        "{why} {todo}"
    );
    let (why, todo) = found(Change::Register(regs::PROTOCOL_VER, ABI_VERSION - 1));
    assert!(
        why.contains("version mismatch") && todo.starts_with("the host's daemon is the older"),
        "{why} {todo}"
    );
    let (why, todo) = found(Change::Register(regs::TABLE_FINGERPRINT, 0x1234_5678));
    assert!(why.contains("different tables of calls") && todo.contains("same release"), "{why} {todo}");
    daemon.stop().unwrap();
}
