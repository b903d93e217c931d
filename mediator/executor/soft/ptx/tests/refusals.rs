//! What is not supported is refused when the text is loaded, by name and line; hostile text never panics.

use proptest::prelude::*;
use ptx::{LoadError, Module};

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/ptx/{name}.ptx", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("fixture")
}

fn refused(text: &str) -> LoadError {
    match Module::parse(text) {
        Err(e) => e,
        Ok(_) => panic!("accepted: {text}"),
    }
}

/// A kernel with this body; the body begins in line 5.
fn kernel(body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {{ .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .b16 %h<9>; .reg .pred %p<9>; .reg .f32 %f<9>;\n{body}\nret; }}\n"
    )
}

#[test]
fn device_side_system_calls() {
    assert_eq!(refused(&fixture("asserts")), LoadError::UnresolvedExtern { name: "__assertfail".into() });
}

#[test]
fn instructions_by_name_and_line() {
    for (body, name) in [
        (
            "wmma.load.a.sync.aligned.row.m16n16k16.global.f16 {%r1, %r2}, [%rd1];",
            "wmma.load.a.sync.aligned.row.m16n16k16.global.f16",
        ),
        ("tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f1, %f2}];", "tex.2d.v4.f32.f32"),
        (
            "createpolicy.fractional.L2::evict_last.b64 %rd1, 1.0;",
            "createpolicy.fractional.L2::evict_last.b64",
        ),
        ("mapa.shared::cluster.u32 %r1, %r2, %r3;", "mapa.shared::cluster.u32"),
        ("barrier.cluster.arrive;", "barrier.cluster.arrive"),
        ("add.funny.s32 %r1, %r2, %r3;", "add.funny.s32"),
        ("ld.global.v8.b32 {%r1, %r2}, [%rd1];", "ld.global.v8.b32"),
        ("cp.async.bulk.commit_group;", "cp.async.bulk.commit_group"),
        ("isspacep.const %p1, %rd1;", "isspacep.const"),
        ("fma.f32 %f1, %f2, %f3, %f4;", "fma.f32"),
        ("cvt.s32.f32 %r1, %f1;", "cvt.s32.f32"),
        ("atom.global.add.v2.f32 {%f1, %f2}, [%rd1], {%f1, %f2};", "atom.global.add.v2.f32"),
    ] {
        let expected = LoadError::Unsupported { line: 5, what: format!("instruction `{name}`") };
        assert_eq!(refused(&kernel(body)), expected);
    }
}

#[test]
fn other_refusals_say_what_and_where() {
    for (body, what) in [
        ("mov.u64 %rd1, k;", "address of function `k`"),
        ("mov.u32 %r1, %envreg0;", "register `%envreg0`, not declared and no known special one"),
        ("add.s32 %r1, %r2, %zz;", "register `%zz`, not declared and no known special one"),
        ("t: .callprototype _ ();", "directive `.callprototype`"),
        ("call %rd1, ();", "indirect call through `%rd1`"),
        (".reg .b128 %q;", "register of type `.b128`"),
    ] {
        let e = refused(&kernel(body));
        // The address of a function needs the function to be known, which its own kernel is not while it is read.
        let fine = matches!(&e, LoadError::Unsupported { line: 5, what: w } if w == what)
            || (body.contains(", k;")
                && matches!(&e, LoadError::Unsupported { .. } | LoadError::Syntax { line: 5, .. }));
        assert!(fine, "{body}: {e}");
    }
    for body in [
        "add.s32 %r1, %r2;",
        "add.s32 %r1, %r2, %rd1;",
        "bra nowhere;",
        "ld.global.u32 %r1, [unknown];",
        "@%r1 bra x; x:",
        "x: x:",
        "add.f32 %f1, %f2, 1;",
        "mov.u32 %r99, 0;",
        "st.shared.u32 [p], %r1;",
        "mov.u32 %r1, 0x1G;",
    ] {
        assert!(matches!(refused(&kernel(body)), LoadError::Syntax { line: 5 | 6, .. }), "{body}");
    }
}

#[test]
fn versions_and_targets() {
    let text =
        |version: &str, target: &str| format!(".version {version}\n.target {target}\n.address_size 64\n");
    assert!(Module::parse(&text("9.5", "sm_80")).is_ok());
    assert!(Module::parse(&text("6.0", "sm_52, debug")).is_ok());
    assert_eq!(refused(&text("9.99", "sm_80")), LoadError::TooNew { version: (9, 99) });
    assert_eq!(refused(&text("10.0", "sm_80")), LoadError::TooNew { version: (10, 0) });
    for target in ["sm_86", "sm_90", "sm_90a", "compute_80", "sm_80a"] {
        assert_eq!(refused(&text("9.0", target)), LoadError::Target { target: target.into() });
    }
    assert!(matches!(refused(""), LoadError::Syntax { .. }));
    assert!(matches!(refused(".target sm_80"), LoadError::Syntax { line: 1, .. }));
    assert!(matches!(
        refused(".version 8.0\n.target sm_80\n.address_size 32"),
        LoadError::Unsupported { line: 3, .. }
    ));
}

#[test]
fn large_demands_are_capped() {
    let head = ".version 8.0\n.target sm_80\n.address_size 64\n";
    assert!(matches!(refused(&kernel(".local .b8 x[1000000];")), LoadError::TooLarge { line: 5, .. }));
    assert!(matches!(refused(&kernel(".shared .b8 x[4000000000];")), LoadError::TooLarge { line: 5, .. }));
    assert!(matches!(
        refused(&kernel(".shared .b8 x[60000]; st.shared.u32 [x], %r1;")),
        LoadError::TooLarge { .. }
    ));
    assert!(matches!(refused(&kernel(&"{".repeat(1000))), LoadError::TooLarge { .. }));
    assert!(matches!(
        refused(&kernel(&format!("mov.u32 %r1, {}1;", "(".repeat(1000)))),
        LoadError::TooLarge { .. }
    ));
    assert!(matches!(
        refused(&format!("{head}.global .b8 x[18446744073709551615][2];")),
        LoadError::TooLarge { line: 4, .. }
    ));
    // Declared without being used, registers cost nothing.
    assert!(Module::parse(&kernel(".reg .b32 %many<4000000000>;")).is_ok());
    // A short text cannot ask for a long initial value.
    let m = Module::parse(&format!("{head}.global .b8 x[1000000000] = {{1}};")).expect("parses");
    assert!(m.globals().all(|g| g.init.len() == 1 && g.size == 1_000_000_000));
}

#[test]
fn addresses_of_functions_and_shared_memory_in_initial_values() {
    let head = ".version 8.0\n.target sm_80\n.address_size 64\n.func f() { ret; }\n.shared .b32 s;\n";
    assert!(matches!(refused(&format!("{head}.global .u64 x = f;")), LoadError::Unsupported { line: 6, .. }));
    assert!(matches!(
        refused(&format!("{head}.global .u64 x = generic(s);")),
        LoadError::Unsupported { line: 6, .. }
    ));
    assert!(matches!(
        refused(&format!("{head}.extern .global .u32 y;")),
        LoadError::UnresolvedExtern { name } if name == "y"
    ));
}

#[test]
fn every_other_fixture_loads() {
    for name in
        ["basic", "basic.debug", "float", "integer", "program", "program.debug", "shared", "shared.debug"]
    {
        let m = Module::parse(&fixture(name)).expect(name);
        assert!(m.kernels().count() > 3);
        assert_eq!(m.target(), "sm_80");
    }
}

/// Changes a text in a few places: bytes, and pieces copied from elsewhere in it.
fn mutate(text: &str, changes: &[(usize, usize, u8)]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for &(at, from, byte) in changes {
        let (at, from) = (at % bytes.len(), from % bytes.len());
        match byte % 4 {
            0 => bytes[at] = byte,
            1 => {
                bytes.remove(at);
            }
            2 => {
                let piece: Vec<u8> = bytes[from..].iter().take(usize::from(byte)).copied().collect();
                bytes.splice(at..at, piece);
            }
            _ => {
                let end = (at + usize::from(byte)).min(bytes.len());
                bytes.drain(at..end.max(at + 1).min(bytes.len()));
            }
        }
        if bytes.is_empty() {
            bytes.push(b' ');
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_text_never_panics(
        which in 0usize..5,
        changes in proptest::collection::vec((any::<usize>(), any::<usize>(), any::<u8>()), 1..12),
    ) {
        let name = ["basic", "integer", "program", "shared", "program.debug"][which];
        let text = mutate(&fixture(name), &changes);
        if let Ok(m) = Module::parse(&text) {
            let addresses = m.globals().map(|g| (g.name.clone(), 4096)).collect();
            let names: Vec<String> = m.globals().map(|g| g.name.clone()).filter(|_| m.globals().all(|g| g.size < 1 << 20)).collect();
            let linked = m.link(&addresses);
            prop_assert!(linked.is_ok());
            if let Ok(linked) = linked {
                for name in names {
                    prop_assert!(linked.initial_bytes(&name).is_some());
                }
            }
        }
    }
}
