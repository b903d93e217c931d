//! A command as a shell takes it.

use std::process::Command;

/// The command as a line for a shell, its variables first. `gap` stands before each word that begins with a dash.
#[must_use]
pub fn shell_line(command: &Command, gap: &str) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        line +=
            &format!("{}={} ", name.to_string_lossy(), quoted(&value.unwrap_or_default().to_string_lossy()));
    }
    line += &quoted(&command.get_program().to_string_lossy());
    for word in command.get_args().map(|word| word.to_string_lossy()) {
        line += if word.starts_with('-') { gap } else { " " };
        line += &quoted(&word);
    }
    line
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+.,:/@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_same_words() {
        let mut command = Command::new("printf");
        command.args(["%s|", "a b", "it's", "", "-x=1"]);
        let shell = Command::new("sh").arg("-c").arg(shell_line(&command, " \\\n  ")).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&shell.stdout), "a b|it's||-x=1|");
    }
}
