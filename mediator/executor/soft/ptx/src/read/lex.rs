//! PTX text to tokens.

use crate::error::LoadError;

/// One token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    /// Identifier, directive or instruction with its modifiers: dots and `::` belong to the word.
    Word(&'a str),
    /// Integer literal, as its 64 bits.
    Int(u64),
    /// `0f…`: bits of an f32.
    Single(u32),
    /// `0d…`: bits of an f64.
    Double(u64),
    /// Decimal float.
    Decimal(f64),
    /// String literal, without quotes.
    Text(&'a str),
    /// Any other character.
    Sign(char),
    /// The text ended.
    End,
}

/// Where the reader stands in the text.
#[derive(Clone)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// Line of the next token, from 1.
    pub(crate) line: u32,
}

fn starts_word(b: u8) -> bool {
    b.is_ascii_alphabetic() || matches!(b, b'_' | b'$' | b'%' | b'.')
}

fn in_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'.')
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Lexer { text, at: 0, line: 1 }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn error(&self, what: impl Into<String>) -> LoadError {
        LoadError::Syntax { line: self.line, what: what.into() }
    }

    fn skip_blanks(&mut self) -> Result<(), LoadError> {
        loop {
            match self.peek(0) {
                b'\n' => {
                    self.line = self.line.saturating_add(1);
                    self.at += 1;
                }
                b' ' | b'\t' | b'\r' | 0x0b | 0x0c => self.at += 1,
                b'/' if self.peek(1) == b'/' => {
                    while self.at < self.text.len() && self.peek(0) != b'\n' {
                        self.at += 1;
                    }
                }
                b'/' if self.peek(1) == b'*' => {
                    self.at += 2;
                    while !(self.peek(0) == b'*' && self.peek(1) == b'/') {
                        if self.at >= self.text.len() {
                            return Err(self.error("comment without end"));
                        }
                        if self.peek(0) == b'\n' {
                            self.line = self.line.saturating_add(1);
                        }
                        self.at += 1;
                    }
                    self.at += 2;
                }
                _ => return Ok(()),
            }
        }
    }

    fn slice(&self, from: usize) -> &'a str {
        self.text.get(from..self.at).unwrap_or("")
    }

    /// The next token.
    pub(crate) fn next(&mut self) -> Result<Token<'a>, LoadError> {
        self.skip_blanks()?;
        if self.at >= self.text.len() {
            return Ok(Token::End);
        }
        let (from, first) = (self.at, self.peek(0));
        if first.is_ascii_digit() || (first == b'.' && self.peek(1).is_ascii_digit()) {
            return self.number();
        }
        if starts_word(first) {
            self.at += 1;
            loop {
                if in_word(self.peek(0)) {
                    self.at += 1;
                } else if self.peek(0) == b':' && self.peek(1) == b':' && in_word(self.peek(2)) {
                    self.at += 2;
                } else {
                    return Ok(Token::Word(self.slice(from)));
                }
            }
        }
        if first == b'"' {
            self.at += 1;
            while self.peek(0) != b'"' {
                if self.at >= self.text.len() || self.peek(0) == b'\n' {
                    return Err(self.error("string without end"));
                }
                self.at += if self.peek(0) == b'\\' { 2 } else { 1 };
            }
            self.at += 1;
            return Ok(Token::Text(self.text.get(from + 1..self.at - 1).unwrap_or("")));
        }
        if !first.is_ascii() || first < b' ' {
            return Err(self.error(format!("byte {first:#04x}")));
        }
        self.at += 1;
        Ok(Token::Sign(char::from(first)))
    }

    /// `major.minor` of `.version`.
    pub(crate) fn version(&mut self) -> Result<(u32, u32), LoadError> {
        self.skip_blanks()?;
        let from = self.at;
        while self.peek(0).is_ascii_digit() || self.peek(0) == b'.' {
            self.at += 1;
        }
        let word = self.slice(from);
        let parts = word.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        parts.ok_or_else(|| self.error(format!("version `{word}`")))
    }

    fn number(&mut self) -> Result<Token<'a>, LoadError> {
        let from = self.at;
        while self.peek(0).is_ascii_alphanumeric()
            || self.peek(0) == b'.'
            || (matches!(self.peek(0), b'+' | b'-') && self.exponent_sign(from))
        {
            self.at += 1;
        }
        let word = self.slice(from);
        let bad = || LoadError::Syntax { line: self.line, what: format!("number `{word}`") };
        if let Some(hex) = word.strip_prefix("0f").or(word.strip_prefix("0F")) {
            return match (hex.len(), u32::from_str_radix(hex, 16)) {
                (8, Ok(bits)) => Ok(Token::Single(bits)),
                _ => Err(bad()),
            };
        }
        if let Some(hex) = word.strip_prefix("0d").or(word.strip_prefix("0D")) {
            return match (hex.len(), u64::from_str_radix(hex, 16)) {
                (16, Ok(bits)) => Ok(Token::Double(bits)),
                _ => Err(bad()),
            };
        }
        let digits = word.strip_suffix('U').unwrap_or(word);
        let integer = if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
            u64::from_str_radix(hex, 16)
        } else if let Some(bin) = digits.strip_prefix("0b").or(digits.strip_prefix("0B")) {
            u64::from_str_radix(bin, 2)
        } else if digits.bytes().all(|b| b.is_ascii_digit()) {
            if digits.len() > 1 && digits.starts_with('0') {
                u64::from_str_radix(digits, 8)
            } else {
                digits.parse()
            }
        } else {
            return word.parse().map(Token::Decimal).map_err(|_| bad());
        };
        integer.map(Token::Int).map_err(|_| bad())
    }

    /// A sign right behind the `e` of a decimal float.
    fn exponent_sign(&self, from: usize) -> bool {
        let so_far = self.slice(from);
        !so_far.starts_with("0x")
            && so_far.ends_with(['e', 'E'])
            && so_far.len() > 1
            && so_far.bytes().take(so_far.len() - 1).all(|b| b.is_ascii_digit() || b == b'.')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Token<'_>> {
        let mut lexer = Lexer::new(text);
        let mut out = Vec::new();
        loop {
            match lexer.next().expect("lexes") {
                Token::End => return out,
                t => out.push(t),
            }
        }
    }

    #[test]
    fn words_numbers_and_signs() {
        assert_eq!(
            all("@!%p1 ld.global.L1::evict_last.u32 /* x */ %r1, [%rd2+-4]; // end"),
            [
                Token::Sign('@'),
                Token::Sign('!'),
                Token::Word("%p1"),
                Token::Word("ld.global.L1::evict_last.u32"),
                Token::Word("%r1"),
                Token::Sign(','),
                Token::Sign('['),
                Token::Word("%rd2"),
                Token::Sign('+'),
                Token::Sign('-'),
                Token::Int(4),
                Token::Sign(']'),
                Token::Sign(';'),
            ]
        );
        assert_eq!(
            all("0x1FU 0b101 017 12 0f3F800000 0d3FF0000000000000 1.5 2e-3"),
            [
                Token::Int(31),
                Token::Int(5),
                Token::Int(15),
                Token::Int(12),
                Token::Single(0x3f80_0000),
                Token::Double(0x3ff0_0000_0000_0000),
                Token::Decimal(1.5),
                Token::Decimal(2e-3),
            ]
        );
    }

    #[test]
    fn endless_comments_and_strings_are_refused() {
        assert!(matches!(Lexer::new("/* x").next(), Err(LoadError::Syntax { line: 1, .. })));
        assert!(matches!(Lexer::new("\n\"x").next(), Err(LoadError::Syntax { line: 2, .. })));
    }
}
