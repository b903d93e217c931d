//! `vprintf`: what a thread prints. Formats as C's `printf` does, as far as CUDA's own knows it ("Formatted Output", CUDA C++
//! Programming Guide); a specification that is unknown is printed as it stands and takes no argument.

use crate::error::Fault;
use crate::run::access::Cell;
use crate::run::code::Ins;
use crate::run::lanes::{Frame, Lanes};
use crate::run::memory::{Port, space};

/// Where parameters and result lie in the activation's local memory: format, arguments, result.
pub(crate) const FORMAT: u32 = 0;
pub(crate) const ARGUMENTS: u32 = 8;
pub(crate) const RESULT: u32 = 16;
/// Bytes of the activation's local memory.
pub(crate) const LOCAL_BYTES: u32 = 24;

/// Bytes of a format or a string argument at most.
const TEXT_BYTES_MAX: u64 = 64 << 10;
/// Bytes that one host thread of a launch prints at most: a GPU's buffer, whose oldest text is overwritten; here the newest is lost.
const PRINTED_BYTES_MAX: usize = 1 << 20;
/// The widest field.
const WIDTH_MAX: usize = 4096;

/// Reads memory of one lane.
struct Reader<'p, 'a> {
    port: &'p mut Port<'a>,
    ins: Ins,
    lane: usize,
}

impl Reader<'_, '_> {
    fn get<T: Cell>(&mut self, address: u64) -> Result<T, Fault> {
        let place = self.port.locate::<{ space::GENERIC }>(&self.ins, self.lane, address, T::SIZE, false)?;
        // SAFETY: `locate` has checked SIZE bytes and their alignment.
        Ok(unsafe { T::load(place.host) })
    }

    /// A string, without its end.
    fn text(&mut self, address: u64) -> Result<Vec<u8>, Fault> {
        let mut text = Vec::new();
        for at in 0..TEXT_BYTES_MAX {
            match self.get::<u8>(address.wrapping_add(at))? {
                0 => break,
                byte => text.push(byte),
            }
        }
        Ok(text)
    }
}

/// The arguments, one after the other, each aligned to its size.
struct Arguments {
    at: u64,
    taken: u32,
}

impl Arguments {
    fn next<T: Cell>(&mut self, reader: &mut Reader<'_, '_>) -> Result<T, Fault> {
        self.at = self.at.next_multiple_of(T::SIZE);
        let value = reader.get::<T>(self.at)?;
        self.at = self.at.wrapping_add(T::SIZE);
        self.taken += 1;
        Ok(value)
    }
}

/// One conversion.
#[derive(Default)]
struct Spec {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    /// 8, 4, 2 or 1 bytes of an integer.
    size: u32,
}

impl Spec {
    fn pad(&self, sign: &str, digits: String, zeros: bool) -> String {
        let len = sign.len() + digits.len();
        let fill = self.width.saturating_sub(len);
        if self.left {
            format!("{sign}{digits}{}", " ".repeat(fill))
        } else if self.zero && zeros {
            format!("{sign}{}{digits}", "0".repeat(fill))
        } else {
            format!("{}{sign}{digits}", " ".repeat(fill))
        }
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        }
    }

    /// Digits of an integer, as many as the precision asks for.
    fn digits(&self, digits: String) -> String {
        match self.precision {
            Some(0) if digits == "0" => String::new(),
            Some(precision) => format!("{digits:0>precision$}"),
            None => digits,
        }
    }

    fn integer(&self, value: u64, conversion: u8) -> String {
        let signed = match self.size {
            1 => i64::from(value as i8),
            2 => i64::from(value as i16),
            4 => i64::from(value as i32),
            _ => value as i64,
        };
        let value = match self.size {
            1 => value & 0xff,
            2 => value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        };
        let prefixed = self.alternate && value != 0;
        let (sign, digits) = match conversion {
            b'd' | b'i' => (self.sign(signed < 0), signed.unsigned_abs().to_string()),
            b'u' => ("", value.to_string()),
            b'x' => (if prefixed { "0x" } else { "" }, format!("{value:x}")),
            b'X' => (if prefixed { "0X" } else { "" }, format!("{value:X}")),
            _ => (if prefixed { "0" } else { "" }, format!("{value:o}")),
        };
        self.pad(sign, self.digits(digits), self.precision.is_none())
    }

    fn float(&self, value: f64, conversion: u8) -> String {
        let upper = conversion.is_ascii_uppercase();
        let sign = self.sign(value.is_sign_negative());
        let size = value.abs();
        let digits = if size.is_nan() {
            "nan".to_owned()
        } else if size.is_infinite() {
            "inf".to_owned()
        } else {
            let precision = self.precision.unwrap_or(6);
            match conversion.to_ascii_lowercase() {
                b'f' => format!("{size:.precision$}"),
                b'e' => exponential(size, precision),
                b'a' => hexadecimal(size, self.precision, self.alternate),
                _ => self.general(size, precision.max(1)),
            }
        };
        let digits = if upper { digits.to_ascii_uppercase() } else { digits };
        self.pad(sign, digits, value.is_finite())
    }

    fn general(&self, size: f64, precision: usize) -> String {
        let scientific = exponential(size, precision - 1);
        let exponent = scientific.split_once('e').and_then(|(_, e)| e.parse::<i32>().ok()).unwrap_or(0);
        let shorten = |digits: &str| match digits.contains('.') && !self.alternate {
            true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => digits.to_owned(),
        };
        if exponent < -4 || exponent >= precision as i32 {
            match scientific.split_once('e') {
                Some((digits, exponent)) => format!("{}e{exponent}", shorten(digits)),
                None => scientific,
            }
        } else {
            let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
            shorten(&format!("{size:.decimals$}"))
        }
    }
}

/// As C writes it: a sign and at least two digits of exponent.
fn exponential(size: f64, precision: usize) -> String {
    let text = format!("{size:.precision$e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    match exponent.strip_prefix('-') {
        Some(exponent) => format!("{digits}e-{exponent:0>2}"),
        None => format!("{digits}e+{exponent:0>2}"),
    }
}

/// As C writes it: `0x1.8p+1`.
fn hexadecimal(size: f64, precision: Option<usize>, alternate: bool) -> String {
    const FRACTION_BITS: u32 = 52;
    let bits = size.to_bits();
    let fraction = bits & ((1 << FRACTION_BITS) - 1);
    let biased = (bits >> FRACTION_BITS & 0x7ff) as i64;
    let (mut whole, exponent) = match (biased, fraction) {
        (0, 0) => (0, 0),
        (0, _) => (fraction, -1022),
        _ => (1 << FRACTION_BITS | fraction, biased - 1023),
    };
    let kept = precision.unwrap_or(13).min(13) as u32;
    let cut = FRACTION_BITS - 4 * kept;
    if cut != 0 {
        let (rest, half) = (whole & ((1 << cut) - 1), 1u64 << (cut - 1));
        whole >>= cut;
        whole += u64::from(rest > half || (rest == half && whole & 1 == 1));
        whole <<= cut;
    }
    let digits = format!("{:013x}", whole & ((1 << FRACTION_BITS) - 1));
    let digits = match precision {
        None => digits.trim_end_matches('0').to_owned(),
        Some(precision) => format!("{:0<precision$}", digits.get(..precision.min(13)).unwrap_or(&digits)),
    };
    let point = if digits.is_empty() && !alternate { "" } else { "." };
    format!("0x{}{point}{digits}p{exponent:+}", whole >> FRACTION_BITS)
}

/// A number in a specification, or `*`.
fn number(
    format: &[u8],
    at: &mut usize,
    arguments: &mut Arguments,
    reader: &mut Reader<'_, '_>,
) -> Result<i64, Fault> {
    if format.get(*at) == Some(&b'*') {
        *at += 1;
        return arguments.next::<i32>(reader).map(i64::from);
    }
    let mut value = 0i64;
    while let Some(digit) = format.get(*at).filter(|byte| byte.is_ascii_digit()) {
        value = value.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
        *at += 1;
    }
    Ok(value)
}

/// One conversion behind its `%`, which is at `start`; moves behind it.
fn convert(
    format: &[u8],
    at: &mut usize,
    arguments: &mut Arguments,
    reader: &mut Reader<'_, '_>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let start = *at;
    *at += 1;
    let mut spec = Spec { size: 4, ..Spec::default() };
    loop {
        match format.get(*at) {
            Some(b'-') => spec.left = true,
            Some(b'+') => spec.plus = true,
            Some(b' ') => spec.space = true,
            Some(b'#') => spec.alternate = true,
            Some(b'0') => spec.zero = true,
            _ => break,
        }
        *at += 1;
    }
    let width = number(format, at, arguments, reader)?;
    spec.left |= width < 0;
    spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(WIDTH_MAX).min(WIDTH_MAX);
    if format.get(*at) == Some(&b'.') {
        *at += 1;
        let precision = number(format, at, arguments, reader)?;
        spec.precision = usize::try_from(precision).ok().map(|precision| precision.min(WIDTH_MAX));
    }
    loop {
        match format.get(*at) {
            Some(b'h') => spec.size = if spec.size == 2 { 1 } else { 2 },
            Some(b'l' | b'j' | b'z' | b't') => spec.size = 8,
            _ => break,
        }
        *at += 1;
    }
    let conversion = format.get(*at).copied().unwrap_or(0);
    match conversion {
        b'%' => out.push(b'%'),
        b'd' | b'i' | b'u' | b'x' | b'X' | b'o' => {
            let value = match spec.size {
                8 => arguments.next::<u64>(reader)?,
                // Shorter ones come as int.
                _ => u64::from(arguments.next::<u32>(reader)?),
            };
            out.extend(spec.integer(value, conversion).bytes());
        }
        b'c' => {
            let byte = arguments.next::<u32>(reader)? as u8;
            let fill = spec.width.saturating_sub(1);
            if !spec.left {
                out.extend(std::iter::repeat_n(b' ', fill));
            }
            out.push(byte);
            if spec.left {
                out.extend(std::iter::repeat_n(b' ', fill));
            }
        }
        b's' => {
            let address = arguments.next::<u64>(reader)?;
            let mut text = if address == 0 { b"(null)".to_vec() } else { reader.text(address)? };
            text.truncate(spec.precision.unwrap_or(text.len()));
            let fill = spec.width.saturating_sub(text.len());
            if !spec.left {
                out.extend(std::iter::repeat_n(b' ', fill));
            }
            out.extend_from_slice(&text);
            if spec.left {
                out.extend(std::iter::repeat_n(b' ', fill));
            }
        }
        b'p' => {
            let address = arguments.next::<u64>(reader)?;
            let text = if address == 0 { "(nil)".to_owned() } else { format!("{address:#x}") };
            out.extend(spec.pad("", text, false).bytes());
        }
        b'f' | b'F' | b'e' | b'E' | b'g' | b'G' | b'a' | b'A' => {
            let value = arguments.next::<f64>(reader)?;
            out.extend(spec.float(value, conversion).bytes());
        }
        _ => {
            *at = (*at).max(start + 1);
            out.extend_from_slice(&format[start..*at]);
            return Ok(());
        }
    }
    *at += 1;
    Ok(())
}

/// `vprintf(format, arguments)`: how many arguments were printed.
pub(crate) fn print(port: &mut Port<'_>, f: &mut Frame, i: &Ins, mask: u32) -> Result<(), Fault> {
    for lane in Lanes(mask) {
        let base = u64::from(f.local_base);
        let word = |port: &mut Port<'_>, offset: u32| {
            let place =
                port.locate::<{ space::LOCAL }>(i, lane, base.wrapping_add(offset.into()), 8, false)?;
            // SAFETY: `locate` has checked 8 bytes and their alignment.
            Ok::<u64, Fault>(unsafe { u64::load(place.host) })
        };
        let (format, arguments) = (word(port, FORMAT)?, word(port, ARGUMENTS)?);
        let mut reader = Reader { port: &mut *port, ins: *i, lane };
        let format = reader.text(format)?;
        let mut arguments = Arguments { at: arguments, taken: 0 };
        let (mut out, mut at) = (Vec::new(), 0);
        while let Some(byte) = format.get(at) {
            if *byte == b'%' {
                convert(&format, &mut at, &mut arguments, &mut reader, &mut out)?;
            } else {
                out.push(*byte);
                at += 1;
            }
        }
        if port.printed.len() + out.len() <= PRINTED_BYTES_MAX {
            port.printed.extend_from_slice(&out);
        }
        let place = port.locate::<{ space::LOCAL }>(i, lane, base.wrapping_add(RESULT.into()), 4, true)?;
        // SAFETY: `locate` has checked 4 bytes and their alignment.
        unsafe { arguments.taken.store(place.host) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_c_prints_them() {
        let spec = || Spec { size: 4, ..Spec::default() };
        assert_eq!(spec().integer(u64::from((-7i32).cast_unsigned()), b'd'), "-7");
        assert_eq!(Spec { width: 6, zero: true, ..spec() }.integer(42, b'd'), "000042");
        assert_eq!(Spec { width: 6, left: true, ..spec() }.integer(42, b'x'), "2a    ");
        assert_eq!(Spec { alternate: true, ..spec() }.integer(255, b'X'), "0XFF");
        assert_eq!(Spec { precision: Some(4), ..spec() }.integer(5, b'u'), "0005");
        assert_eq!(Spec { size: 8, ..spec() }.integer(u64::MAX, b'd'), "-1");
        assert_eq!(spec().float(1.5, b'f'), "1.500000");
        assert_eq!(Spec { precision: Some(2), plus: true, ..spec() }.float(1234.567, b'f'), "+1234.57");
        assert_eq!(spec().float(1234.5, b'e'), "1.234500e+03");
        assert_eq!(spec().float(0.0001, b'g'), "0.0001");
        assert_eq!(spec().float(0.00001, b'g'), "1e-05");
        assert_eq!(spec().float(123_456_789.0, b'G'), "1.23457E+08");
        assert_eq!(spec().float(100.0, b'g'), "100");
        assert_eq!(spec().float(3.0, b'a'), "0x1.8p+1");
        assert_eq!(spec().float(0.0, b'a'), "0x0p+0");
        assert_eq!(Spec { precision: Some(1), ..spec() }.float(1.96875, b'A'), "0X2.0P+0");
        assert_eq!(Spec { width: 6, zero: true, ..spec() }.float(f64::NEG_INFINITY, b'f'), "  -inf");
    }
}
