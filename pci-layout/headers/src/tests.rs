//! The headers are fresh, and C agrees with Rust about every value, size and offset.

use std::fmt::Write;
use std::process::Command;

use pci_layout::{CONSTS, STRUCTS};

use crate::{generate, include_dir, names};

#[test]
fn checked_in_headers_are_fresh() {
    for (name, text) in generate().unwrap() {
        let path = include_dir().join(name);
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(old == text, "{} is out of date: run cargo xtask headers", path.display());
    }
}

/// A C program with a line per constant, size, offset and ioctl; it prints what differs and fails.
fn check_program() -> String {
    let mut c = String::from(
        "#include <stddef.h>\n#include <stdio.h>\n#include <string.h>\n\
         #include \"vgpu_layout.h\"\n#include \"vgpu_ioctl.h\"\n\
         static int wrong, checked;\n\
         static void check(const char *what, unsigned long long c, unsigned long long rust)\n\
         {\n\tchecked++;\n\tif (c != rust) {\n\t\twrong++;\n\t\tprintf(\"%s: C %llu, Rust %llu\\n\", what, c, rust);\n\t}\n}\n\
         int main(void)\n{\n",
    );
    let mut line = |expression: &str, value: u64| {
        writeln!(c, "\tcheck(\"{expression}\", {expression}, {value}ULL);").unwrap();
    };
    for info in CONSTS.iter().flat_map(|(_, consts)| consts.iter()) {
        line(&names::constant(info.name), info.value);
        if let Some(name) = info.name.strip_prefix("IOCTL_NR_") {
            line(&format!("_IOC_NR(VGPU_IOCTL_{name})"), info.value);
            line(&format!("_IOC_TYPE(VGPU_IOCTL_{name})"), u64::from(pci_layout::uapi::IOCTL_TYPE));
        }
    }
    for info in STRUCTS.iter().flat_map(|(_, structs)| structs.iter()) {
        let c_name = names::structure(info.name);
        line(&format!("sizeof(struct {c_name})"), info.size as u64);
        for (index, field) in info.fields.iter().enumerate() {
            let end = info.fields.get(index + 1).map_or(info.size, |next| next.offset);
            line(&format!("offsetof(struct {c_name}, {})", field.name), field.offset as u64);
            line(&format!("sizeof(((struct {c_name} *)0)->{})", field.name), (end - field.offset) as u64);
        }
    }
    let tag: Vec<String> = pci_layout::ids::TAG.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    writeln!(c, "\tcheck(\"VGPU_TAG\", strcmp(VGPU_TAG, \"{}\"), 0);", tag.join("\"\"")).unwrap();
    c + "\tprintf(\"%d checked\\n\", checked);\n\treturn wrong != 0;\n}\n"
}

/// Compiles the program against the headers in `dir` and runs it: its output, and whether it was content.
fn compile_and_run(dir: &std::path::Path, program: &str) -> (String, bool) {
    let (source, binary) = (dir.join("check.c"), dir.join("check"));
    std::fs::write(&source, program).unwrap();
    let gcc = Command::new("gcc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Wpadded", "-Werror", "-I"])
        .args([dir, source.as_path()])
        .arg("-o")
        .arg(&binary)
        .output()
        .expect("gcc is needed");
    assert!(gcc.status.success(), "{}", String::from_utf8_lossy(&gcc.stderr));
    let run = Command::new(&binary).output().unwrap();
    (String::from_utf8_lossy(&run.stdout).into_owned(), run.status.success())
}

#[test]
fn c_agrees_about_every_value_size_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    crate::write(dir.path()).unwrap();
    let (output, content) = compile_and_run(dir.path(), &check_program());
    assert!(content, "{output}");
    let fields: usize = STRUCTS.iter().flat_map(|(_, s)| s.iter()).map(|info| info.fields.len()).sum();
    let checked: usize = output.split_whitespace().next().unwrap().parse().unwrap();
    assert!(checked > 2 * fields, "{output}");
}

#[test]
fn the_check_program_finds_a_moved_field_and_another_value() {
    let dir = tempfile::tempdir().unwrap();
    crate::write(dir.path()).unwrap();
    let path = dir.path().join("vgpu_layout.h");
    let text = std::fs::read_to_string(&path).unwrap();
    let moved = text.replace("__u64 gpa;", "__u64 moved, gpa;");
    let changed = moved.replace("#define VGPU_RUNS_MAX 16384", "#define VGPU_RUNS_MAX 16385");
    assert!(text != moved && moved != changed);
    std::fs::write(&path, changed).unwrap();
    let (output, content) = compile_and_run(dir.path(), &check_program());
    assert!(!content);
    assert!(
        output.contains("offsetof(struct vgpu_run, gpa)") && output.contains("VGPU_RUNS_MAX"),
        "{output}"
    );
}

#[test]
fn every_ioctl_has_the_size_of_its_structure() {
    let (_, text) = generate().unwrap().remove(1);
    assert!(text.contains("#define VGPU_IOCTL_KICK _IO(VGPU_IOCTL_TYPE, VGPU_IOCTL_NR_KICK)"), "{text}");
    assert!(text.contains(
        "#define VGPU_IOCTL_OPEN_SESSION _IOWR(VGPU_IOCTL_TYPE, VGPU_IOCTL_NR_OPEN_SESSION, struct vgpu_ioctl_open)"
    ));
}

#[test]
fn names_in_comments_are_c_names() {
    let doc = " [`AddRingPart::part`]: see [`crate::ring::SessionPage`], `FRAME_` bits, below [`RUNS_MAX`]; `local` stays.\n";
    assert_eq!(
        names::comment_lines(doc, 200),
        [
            "vgpu_add_ring_part.part: see struct vgpu_session_page, VGPU_FRAME_* bits, below VGPU_RUNS_MAX; local stays."
        ]
    );
    assert!(names::declaration("i128", "x").is_err());
}
