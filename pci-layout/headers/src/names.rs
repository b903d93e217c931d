//! From Rust names to C names, in code and in comments.

use anyhow::{Context, Result, bail};
use pci_layout::{CONSTS, STRUCTS, StructInfo};

/// Width of a comment line.
const COLUMNS: usize = 100;

/// `AddRingPart` → `vgpu_add_ring_part`.
pub fn structure(rust: &str) -> String {
    let mut c = String::from("vgpu");
    for letter in rust.chars() {
        if letter.is_ascii_uppercase() {
            c.push('_');
        }
        c.push(letter.to_ascii_lowercase());
    }
    c
}

/// `RUNS_MAX` → `VGPU_RUNS_MAX`.
pub fn constant(rust: &str) -> String {
    format!("VGPU_{rust}")
}

/// The structure of that Rust name in the tables.
pub fn find_structure(rust: &str) -> Option<&'static StructInfo> {
    STRUCTS.iter().flat_map(|(_, structs)| structs.iter()).find(|info| info.name == rust)
}

fn is_constant(rust: &str) -> bool {
    CONSTS.iter().flat_map(|(_, consts)| consts.iter()).any(|info| info.name == rust)
}

/// A field's declaration without the semicolon: `u32`, `a` → `__u32 a`.
pub fn declaration(ty: &str, field: &str) -> Result<String> {
    if let Some(array) = ty.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let (element, count) =
            array.split_once(';').with_context(|| format!("array type {ty} has no length"))?;
        let count: usize = count.trim().parse().with_context(|| format!("length of {ty} is not a number"))?;
        return Ok(format!("{} {field}[{count}]", plain_type(element.trim())?));
    }
    Ok(format!("{} {field}", plain_type(ty)?))
}

fn plain_type(ty: &str) -> Result<String> {
    Ok(match ty {
        "u8" => "__u8".to_owned(),
        "u16" => "__u16".to_owned(),
        "u32" => "__u32".to_owned(),
        "u64" => "__u64".to_owned(),
        name if find_structure(name).is_some() => format!("struct {}", structure(name)),
        other => bail!("no C type is known for {other}"),
    })
}

/// A doc comment as the lines of a C comment, names rewritten.
pub fn comment_lines(doc: &str, width: usize) -> Vec<String> {
    let text: Vec<&str> = doc.split_whitespace().collect();
    let text = translate(&text.join(" "));
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("starts with one line, and lines are only added");
        if !last.is_empty() && last.len() + 1 + word.len() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

/// A C comment on lines of its own.
pub fn comment(doc: &str, indent: &str) -> String {
    let lines = comment_lines(doc, COLUMNS - 8 * indent.len() - 6);
    match lines.as_slice() {
        [only] => format!("{indent}/* {only} */\n"),
        many => {
            let mut text = format!("{indent}/*\n");
            for line in many {
                text.push_str(&format!("{indent} * {line}\n"));
            }
            text + indent + " */\n"
        }
    }
}

/// Rewrites what stands between backticks (and in the brackets of a link) to C names, and takes the marks away.
fn translate(doc: &str) -> String {
    let doc = doc.replace("[`", "`").replace("`]", "`");
    let mut text = String::new();
    for (index, piece) in doc.split('`').enumerate() {
        if index % 2 == 0 { text.push_str(piece) } else { text.push_str(&translate_name(piece)) }
    }
    text
}

fn translate_name(name: &str) -> String {
    let name = name.strip_prefix("crate::").unwrap_or(name);
    let mut parts: Vec<&str> = name.split("::").collect();
    if parts.len() > 1 && parts.first().is_some_and(|first| first.chars().all(|c| c.is_ascii_lowercase())) {
        parts.remove(0);
    }
    match parts.as_slice() {
        [one] if is_constant(one) || *one == "TAG" => constant(one),
        [one] if find_structure(one).is_some() => format!("struct {}", structure(one)),
        [one] if one.ends_with('_') && one.chars().all(|c| c.is_ascii_uppercase() || c == '_') => {
            format!("{}*", constant(one))
        }
        [owner, field] if find_structure(owner).is_some() => format!("{}.{field}", structure(owner)),
        _ => name.to_owned(),
    }
}
