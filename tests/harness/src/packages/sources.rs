//! A private apt root, derived from the machine's own apt configuration.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Parts of a suite that belong to it besides the suite itself.
const POCKETS: [&str; 4] = ["", "-updates", "-security", "/updates"];
/// Components of the distributions themselves; other archives call theirs otherwise.
const COMPONENTS: [&str; 4] = ["main", "universe", "restricted", "multiverse"];

/// One `Packages` index that the machine's configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Index {
    uri: String,
    release: String,
    component: String,
    signed_by: Option<String>,
}

/// The value of a variable in /etc/os-release.
pub(super) fn os_release(name: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

/// Writes the root's configuration. Returns its sources: the lists are for these.
pub(super) fn write(suite: &str, root: &Path) -> Result<String> {
    let id = os_release("ID").context("/etc/os-release has no ID")?;
    let running = os_release("VERSION_CODENAME").context("/etc/os-release has no VERSION_CODENAME")?;
    for dir in ["state/lists/partial", "cache/archives/partial", "log", "none"] {
        fs::create_dir_all(root.join(dir)).with_context(|| format!("cannot create {}", root.display()))?;
    }
    let list = sources(&indexes(root)?, suite, &id, &running)?;
    fs::write(root.join("status"), "")?;
    fs::write(root.join("sources.list"), &list)?;
    fs::write(root.join("apt.conf"), configuration(root)?)?;
    Ok(list)
}

/// The lines of a sources.list for `suite`.
fn sources(indexes: &[Index], suite: &str, id: &str, running: &str) -> Result<String> {
    // A machine may call its suite by its role.
    let is_running = |release: &str| [running, "stable", "oldstable", "testing"].contains(&release);
    let ours = |index: &&Index| COMPONENTS.contains(&index.component.as_str());
    let named_for_id = |index: &&Index| index.uri.trim_end_matches('/').ends_with(id);
    let main = || {
        indexes.iter().filter(ours).filter(|index| is_running(&index.release) && index.component == "main")
    };
    let main = main().find(named_for_id).or_else(|| main().next());
    let main =
        main.with_context(|| format!("this machine's apt sources do not name {id} {running} itself"))?;

    let mut lines: Vec<String> = Vec::new();
    let mut add = |index: &Index, release: &str| {
        let key = index.signed_by.as_ref().map_or(String::new(), |key| format!("[signed-by={key}] "));
        let line = format!("deb {key}{} {release} {}\n", index.uri, index.component);
        if !lines.contains(&line) {
            lines.push(line);
        }
    };
    if suite == running {
        for index in indexes.iter().filter(ours) {
            let base = POCKETS
                .iter()
                .find_map(|pocket| index.release.strip_suffix(pocket).filter(|it| is_running(it)));
            if base.is_some() {
                add(index, &index.release);
            }
        }
    } else {
        ensure!(
            id == "debian",
            "{suite} is Debian's, and this machine's apt sources are those of {id}: use a Debian machine"
        );
        let base = suite.strip_suffix("-backports").unwrap_or(suite);
        add(main, base);
        if base != suite {
            add(main, suite);
        }
    }
    Ok(lines.concat())
}

/// Asks apt for the machine's indexes.
fn indexes(root: &Path) -> Result<Vec<Index>> {
    let format = "$(IDENTIFIER)|$(ARCHITECTURE)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SOURCESENTRY)";
    let shown =
        Command::new("apt-get").args(["indextargets", "--format", format]).env("LC_ALL", "C").output();
    let shown = shown.context("apt-get does not start: this needs a Debian or Ubuntu machine")?;
    ensure!(
        shown.status.success(),
        "apt-get indextargets failed: {}",
        String::from_utf8_lossy(&shown.stderr)
    );
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&shown.stdout).lines() {
        if let [identifier, "amd64", uri, release, component, entry] = line.split('|').collect::<Vec<_>>()[..]
            && identifier == "Packages"
        {
            found.push(Index {
                uri: uri.to_owned(),
                release: release.to_owned(),
                component: component.to_owned(),
                signed_by: signed_by(entry, root)?,
            });
        }
    }
    if found.is_empty() {
        bail!("this machine has no apt sources for amd64: add its distribution's to /etc/apt/sources.list.d");
    }
    Ok(found)
}

/// The key that the source entry `file:number` names: a path, or a key block that is copied into the private root.
fn signed_by(entry: &str, root: &Path) -> Result<Option<String>> {
    let Some((file, number)) = entry.rsplit_once(':') else { return Ok(None) };
    let number: usize = number.parse().with_context(|| format!("no source entry: {entry}"))?;
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    if !file.ends_with(".sources") {
        return Ok(option_of_line(text.lines().nth(number.saturating_sub(1)).unwrap_or_default()));
    }
    let Some(value) = field_of_stanza(&text, number) else { return Ok(None) };
    if !value.contains("BEGIN PGP") {
        return Ok(Some(value));
    }
    let name = Path::new(file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let path = root.join(format!("{name}-{number}.asc"));
    fs::write(&path, value)?;
    Ok(Some(path.to_string_lossy().into_owned()))
}

/// `deb [arch=amd64 signed-by=/path] uri suite component`
fn option_of_line(line: &str) -> Option<String> {
    let (options, _) = line.split_once('[')?.1.split_once(']')?;
    options.split_whitespace().find_map(|option| option.strip_prefix("signed-by=")).map(str::to_owned)
}

/// `Signed-By` of the `number`th stanza. A key block is indented by one space and its empty lines are dots.
fn field_of_stanza(text: &str, number: usize) -> Option<String> {
    let mut stanzas: Vec<Vec<&str>> = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match stanzas.last_mut() {
            Some(stanza) if !line.trim().is_empty() => stanza.push(line),
            Some(stanza) if !stanza.is_empty() => stanzas.push(Vec::new()),
            _ => {}
        }
    }
    let stanza = stanzas.get(number.checked_sub(1)?)?;
    let start = stanza.iter().position(|line| line.to_ascii_lowercase().starts_with("signed-by:"))?;
    let first = stanza.get(start)?.split_once(':')?.1.trim();
    let rest = stanza.iter().skip(start + 1).take_while(|line| line.starts_with([' ', '\t']));
    let rest = rest.map(|line| if line.trim() == "." { "" } else { line.trim() });
    let lines: Vec<_> = std::iter::once(first).filter(|first| !first.is_empty()).chain(rest).collect();
    Some(lines.join("\n"))
}

/// Folders of our own; of the machine's settings only how to reach the network.
fn configuration(root: &Path) -> Result<String> {
    let dump = Command::new("apt-config").arg("dump").output().context("apt-config does not start")?;
    let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
    let mut text: String = dump
        .lines()
        .filter(|line| line.starts_with("Acquire::") && !line.starts_with("Acquire::IndexTargets"))
        .flat_map(|line| [line, "\n"])
        .collect();
    for (name, value) in [
        ("Dir::Etc::main", "none/main"),
        ("Dir::Etc::parts", "none"),
        ("Dir::Etc::sourcelist", "sources.list"),
        ("Dir::Etc::sourceparts", "none"),
        ("Dir::Etc::preferences", "none/preferences"),
        ("Dir::Etc::preferencesparts", "none"),
        ("Dir::State", "state"),
        ("Dir::State::status", "status"),
        ("Dir::Cache", "cache"),
        ("Dir::Log", "log"),
    ] {
        text += &format!("{name} \"{}\";\n", root.join(value).display());
    }
    // The folder may lie where apt's own unprivileged user cannot go; and no other apt uses it.
    text += "APT::Sandbox::User \"\";\nDebug::NoLocking \"true\";\nAcquire::Languages \"none\";\n";
    text += "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n";
    // The lists are large, and their second cache is larger than they are.
    text += "Acquire::GzipIndexes \"true\";\nDir::Cache::srcpkgcache \"\";\n";
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(uri: &str, release: &str, component: &str) -> Index {
        let key = Some("/k.gpg".to_owned());
        Index { uri: uri.into(), release: release.into(), component: component.into(), signed_by: key }
    }

    fn machine() -> Vec<Index> {
        vec![
            index("http://elsewhere/packages/", "bookworm", "stable"),
            index("http://mirror/debian/", "bookworm", "main"),
            index("http://mirror/debian/", "bookworm-updates", "main"),
            index("http://mirror/debian-security/", "bookworm-security", "main"),
            index("http://pg/", "bookworm-pgdg", "main"),
        ]
    }

    #[test]
    fn the_running_suite_keeps_its_pockets_and_drops_other_archives() {
        let list = sources(&machine(), "bookworm", "debian", "bookworm").unwrap();
        assert_eq!(
            list,
            "deb [signed-by=/k.gpg] http://mirror/debian/ bookworm main\n\
             deb [signed-by=/k.gpg] http://mirror/debian/ bookworm-updates main\n\
             deb [signed-by=/k.gpg] http://mirror/debian-security/ bookworm-security main\n"
        );
    }

    #[test]
    fn another_suite_comes_from_the_same_mirror_and_only_on_debian() {
        let list = sources(&machine(), "trixie-backports", "debian", "bookworm").unwrap();
        assert_eq!(
            list,
            "deb [signed-by=/k.gpg] http://mirror/debian/ trixie main\n\
             deb [signed-by=/k.gpg] http://mirror/debian/ trixie-backports main\n"
        );
        assert!(sources(&machine(), "trixie", "ubuntu", "bookworm").is_err());
    }

    #[test]
    fn keys_are_found_in_both_formats() {
        let line = "deb [arch=amd64 signed-by=/a/b.gpg] http://mirror/debian bookworm main";
        assert_eq!(option_of_line(line).as_deref(), Some("/a/b.gpg"));
        assert_eq!(option_of_line("deb http://mirror/debian bookworm main"), None);
        let text = "# note\nTypes: deb\nSuites: a\n\n\nTypes: deb\nSigned-By:\n -----BEGIN PGP\n .\n xyz\nSuites: b\n";
        assert_eq!(field_of_stanza(text, 1), None);
        assert_eq!(field_of_stanza(text, 2).as_deref(), Some("-----BEGIN PGP\n\nxyz"));
    }
}
